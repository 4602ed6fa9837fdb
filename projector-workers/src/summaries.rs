//! What a frame adds to the sums of a customer and of SKUs, and the sums of a batch.
//!
//! The effect of a frame follows from its events and from what never changes once an order is placed (its customer, its
//! currency, the lines it was cancelled with), never from where another projection stands. So a summary comes to the same
//! rows whether it is applied together with the orders or catches up alone.

use std::borrow::Cow;

use order_domain::{Amount, Event, Line, RecordedEvent, Snapshot, Status};
use order_log::PartitionId;
use rusqlite::{Connection, OptionalExtension, params};

use crate::frames::BatchFrame;
use crate::order_case::{OrderCase, changes_lines, order_after};
use crate::park::ParkReason;
use crate::side::Side;
use crate::sql::{from_sql, to_sql};
use crate::sums::{Sum, SumTable};
use crate::trouble::Trouble;

/// Columns of `CustomerSummaryByPartition`, as amounts to add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CustomerSums {
    orders_placed: i64,
    orders_cancelled: i64,
    ordered: i64,
    paid: i64,
    refunded: i64,
    last_placed_at: u64,
}

impl Sum for CustomerSums {
    const TABLE: &'static str = "CustomerSummaryByPartition";

    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            orders_placed: self.orders_placed.checked_add(other.orders_placed)?,
            orders_cancelled: self.orders_cancelled.checked_add(other.orders_cancelled)?,
            ordered: self.ordered.checked_add(other.ordered)?,
            paid: self.paid.checked_add(other.paid)?,
            refunded: self.refunded.checked_add(other.refunded)?,
            last_placed_at: self.last_placed_at.max(other.last_placed_at),
        })
    }
}

/// Columns of `SkuDemandByPartition`, as amounts to add.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SkuSums {
    units_ordered: i64,
    units_cancelled: i64,
    last_ordered_at: u64,
}

impl Sum for SkuSums {
    const TABLE: &'static str = "SkuDemandByPartition";

    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            units_ordered: self.units_ordered.checked_add(other.units_ordered)?,
            units_cancelled: self.units_cancelled.checked_add(other.units_cancelled)?,
            last_ordered_at: self.last_ordered_at.max(other.last_ordered_at),
        })
    }
}

/// The sums of a batch.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    /// By customer and currency, see [`customer_key`].
    customers: SumTable<CustomerSums>,
    skus: SumTable<SkuSums>,
    key: String,
}

/// The stored sums of one partition. Looked at only after SQLite has refused a sum that leaves 64 bits, to name the order
/// that breaks it; otherwise a batch adds blindly.
pub(crate) struct Stored<'s> {
    pub(crate) connection: &'s Connection,
    pub(crate) partition: PartitionId,
    pub(crate) side: Side,
}

impl Summaries {
    pub(crate) fn clear(&mut self) {
        self.customers.clear();
        self.skus.clear();
    }

    /// Adds a frame's effect on its customer, or nothing.
    pub(crate) fn add_customer(
        &mut self,
        frame: &BatchFrame,
        events: &[RecordedEvent<'_>],
        case: &mut OrderCase<'_>,
        stored: Option<&Stored<'_>>,
    ) -> Result<Result<(), ParkReason>, Trouble> {
        let sums = match customer_effect(frame, events) {
            Ok(Some(sums)) => sums,
            Ok(None) => return Ok(Ok(())),
            Err(reason) => return Ok(Err(reason)),
        };
        let placed = events.iter().find_map(|recorded| match &recorded.event {
            Event::OrderPlaced {
                customer_id,
                currency,
                ..
            } => Some((customer_id.as_str(), currency.code())),
            Event::OrderSnapshot(snapshot) => {
                Some((snapshot.customer_id.as_str(), snapshot.currency.code()))
            }
            Event::LineAdded { .. }
            | Event::LineRemoved { .. }
            | Event::OrderConfirmed
            | Event::OrderPaid { .. }
            | Event::OrderShipped { .. }
            | Event::OrderDelivered
            | Event::OrderRefunded { .. }
            | Event::OrderCancelled { .. } => None,
        });
        match placed {
            Some((customer, currency)) => customer_key(&mut self.key, customer, currency),
            None => match case.any_version(frame)? {
                Ok(order) => customer_key(
                    &mut self.key,
                    order.customer_id.as_str(),
                    order.currency.code(),
                ),
                Err(reason) => return Ok(Err(reason)),
            },
        }
        let key = self.key.as_str();
        self.customers.expect(key, || match stored {
            Some(stored) => stored.customer(split_customer_key(key)),
            None => Ok(CustomerSums::default()),
        })?;
        Ok(self.customers.add_all(&[(key, sums)]))
    }

    /// Adds a frame's effect on the SKUs of its lines, all or nothing.
    pub(crate) fn add_skus(
        &mut self,
        frame: &BatchFrame,
        events: &[RecordedEvent<'_>],
        case: &mut OrderCase<'_>,
        stored: Option<&Stored<'_>>,
    ) -> Result<Result<(), ParkReason>, Trouble> {
        let cancelled = match lines_cancelled(frame, events, case)? {
            Ok(lines) => lines,
            Err(reason) => return Ok(Err(reason)),
        };
        let effect = match sku_effect(frame, events, &cancelled) {
            Ok(effect) => effect,
            Err(reason) => return Ok(Err(reason)),
        };
        for (sku, _) in &effect {
            self.skus.expect(sku, || match stored {
                Some(stored) => stored.sku(sku),
                None => Ok(SkuSums::default()),
            })?;
        }
        Ok(self.skus.add_all(&effect))
    }

    /// Writes the customers' sums, in key order.
    pub(crate) fn write_customers(
        &self,
        connection: &Connection,
        partition: PartitionId,
        side: Side,
    ) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(&side.on(
            "INSERT INTO CustomerSummaryByPartition VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
             ON CONFLICT DO UPDATE SET \
             orders_placed = orders_placed + excluded.orders_placed, \
             orders_cancelled = orders_cancelled + excluded.orders_cancelled, \
             ordered = ordered + excluded.ordered, \
             paid = paid + excluded.paid, \
             refunded = refunded + excluded.refunded, \
             last_placed_at = max(last_placed_at, excluded.last_placed_at)",
        ))?;
        for (key, added) in self.customers.in_key_order() {
            let (customer, currency) = split_customer_key(key);
            upsert.execute(params![
                customer,
                currency,
                partition.get(),
                added.orders_placed,
                added.orders_cancelled,
                added.ordered,
                added.paid,
                added.refunded,
                to_sql(added.last_placed_at)
            ])?;
        }
        Ok(())
    }

    /// Writes the SKUs' sums, in key order.
    pub(crate) fn write_skus(
        &self,
        connection: &Connection,
        partition: PartitionId,
        side: Side,
    ) -> rusqlite::Result<()> {
        let mut upsert = connection.prepare_cached(&side.on(
            "INSERT INTO SkuDemandByPartition VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET \
             units_ordered = units_ordered + excluded.units_ordered, \
             units_cancelled = units_cancelled + excluded.units_cancelled, \
             last_ordered_at = max(last_ordered_at, excluded.last_ordered_at)",
        ))?;
        for (sku, added) in self.skus.in_key_order() {
            upsert.execute(params![
                sku,
                partition.get(),
                added.units_ordered,
                added.units_cancelled,
                to_sql(added.last_ordered_at)
            ])?;
        }
        Ok(())
    }
}

/// `None` if the frame moves no sum.
fn customer_effect(
    frame: &BatchFrame,
    events: &[RecordedEvent<'_>],
) -> Result<Option<CustomerSums>, ParkReason> {
    let mut sums = CustomerSums::default();
    let mut any = false;
    for recorded in events {
        let effect = match &recorded.event {
            Event::OrderPlaced { lines, .. } => CustomerSums {
                orders_placed: 1,
                ordered: total(lines)?,
                last_placed_at: frame.appended_at.as_micros(),
                ..CustomerSums::default()
            },
            Event::LineAdded { line } => CustomerSums {
                ordered: total(std::slice::from_ref(line))?,
                ..CustomerSums::default()
            },
            Event::LineRemoved { line } => CustomerSums {
                ordered: -total(std::slice::from_ref(line))?,
                ..CustomerSums::default()
            },
            Event::OrderPaid { amount, .. } => CustomerSums {
                paid: amount.minor_units(),
                ..CustomerSums::default()
            },
            Event::OrderRefunded { amount, .. } => CustomerSums {
                refunded: amount.minor_units(),
                ..CustomerSums::default()
            },
            Event::OrderCancelled { .. } => CustomerSums {
                orders_cancelled: 1,
                ..CustomerSums::default()
            },
            // All at once what the events did that it stands for.
            Event::OrderSnapshot(snapshot) => CustomerSums {
                orders_placed: 1,
                orders_cancelled: i64::from(snapshot.status == Status::Cancelled),
                ordered: total(&snapshot.lines)?,
                paid: snapshot.paid.minor_units(),
                refunded: snapshot.refunded.minor_units(),
                last_placed_at: snapshot.placed_at.as_micros(),
            },
            Event::OrderConfirmed | Event::OrderShipped { .. } | Event::OrderDelivered => continue,
        };
        sums = sums.plus(effect).ok_or(CustomerSums::OVERFLOW)?;
        any = true;
    }
    Ok(any.then_some(sums))
}

/// Minor units; never negative.
fn total(lines: &[Line<'_>]) -> Result<i64, ParkReason> {
    lines
        .iter()
        .try_fold(Amount::ZERO, |sum, line| sum.plus(line.amount()?))
        .map(Amount::minor_units)
        .map_err(|_| CustomerSums::OVERFLOW)
}

/// Each SKU once.
fn sku_effect<'e>(
    frame: &BatchFrame,
    events: &'e [RecordedEvent<'_>],
    cancelled: &'e [Line<'_>],
) -> Result<Vec<(&'e str, SkuSums)>, ParkReason> {
    let ordered = |line: &'e Line<'_>| {
        let sums = SkuSums {
            units_ordered: i64::from(line.quantity.get()),
            last_ordered_at: frame.appended_at.as_micros(),
            ..SkuSums::default()
        };
        (line.sku.as_str(), sums)
    };
    let mut effect = Vec::new();
    for recorded in events {
        match &recorded.event {
            Event::OrderPlaced { lines, .. } => effect.extend(lines.iter().map(ordered)),
            Event::LineAdded { line } => effect.push(ordered(line)),
            Event::LineRemoved { line } => {
                let sums = SkuSums {
                    units_ordered: -i64::from(line.quantity.get()),
                    ..SkuSums::default()
                };
                effect.push((line.sku.as_str(), sums));
            }
            Event::OrderCancelled { .. } => effect.extend(cancelled.iter().map(|line| {
                let sums = SkuSums {
                    units_cancelled: i64::from(line.quantity.get()),
                    ..SkuSums::default()
                };
                (line.sku.as_str(), sums)
            })),
            Event::OrderSnapshot(snapshot) => effect.extend(told_at_once(snapshot)),
            Event::OrderConfirmed
            | Event::OrderPaid { .. }
            | Event::OrderShipped { .. }
            | Event::OrderDelivered
            | Event::OrderRefunded { .. } => {}
        }
    }
    merge(effect)
}

/// What the events did to SKUs that a snapshot stands for. One that was removed again keeps its row, without units.
fn told_at_once<'e>(
    snapshot: &'e Snapshot<'_>,
) -> impl Iterator<Item = (&'e str, SkuSums)> + use<'e> {
    let is_cancelled = snapshot.status == Status::Cancelled;
    let placed_at = snapshot.placed_at.as_micros();
    let lines = snapshot.lines.iter().map(move |line| {
        let units = i64::from(line.quantity.get());
        let sums = SkuSums {
            units_ordered: units,
            units_cancelled: if is_cancelled { units } else { 0 },
            last_ordered_at: placed_at,
        };
        (line.sku.as_str(), sums)
    });
    let others = snapshot.last_ordered.iter().map(|last| {
        let sums = SkuSums {
            last_ordered_at: last.at.as_micros(),
            ..SkuSums::default()
        };
        (last.sku.as_str(), sums)
    });
    lines.chain(others)
}

fn merge(mut effect: Vec<(&str, SkuSums)>) -> Result<Vec<(&str, SkuSums)>, ParkReason> {
    effect.sort_unstable_by_key(|(sku, _)| *sku);
    let mut merged: Vec<(&str, SkuSums)> = Vec::with_capacity(effect.len());
    for (sku, sums) in effect {
        match merged.last_mut() {
            Some((last, total)) if *last == sku => {
                *total = total.plus(sums).ok_or(SkuSums::OVERFLOW)?;
            }
            _ => merged.push((sku, sums)),
        }
    }
    Ok(merged)
}

/// The lines an order had when this frame cancelled it; none if it does not.
fn lines_cancelled<'o>(
    frame: &BatchFrame,
    events: &[RecordedEvent<'_>],
    case: &'o mut OrderCase<'_>,
) -> Result<Result<Cow<'o, [Line<'static>]>, ParkReason>, Trouble> {
    let is_cancel =
        |recorded: &RecordedEvent<'_>| matches!(recorded.event, Event::OrderCancelled { .. });
    let Some(position) = events.iter().position(is_cancel) else {
        return Ok(Ok(Cow::Borrowed(&[])));
    };
    let earlier = &events[..position];
    if lines_stand(frame, earlier, case)? {
        return Ok(case
            .any_version(frame)?
            .map(|order| Cow::Borrowed(order.lines.as_slice())));
    }
    let before = if frame.is_first() {
        None
    } else {
        match case.before(frame)? {
            Ok(order) => Some(order),
            Err(reason) => return Ok(Err(reason)),
        }
    };
    Ok(order_after(before, frame, earlier).map(|order| Cow::Owned(order.lines)))
}

/// Whether the lines the case knows are those of the cancellation, `earlier` events into the frame: after it lines change
/// no more, and right before the frame they are what they were.
fn lines_stand(
    frame: &BatchFrame,
    earlier: &[RecordedEvent<'_>],
    case: &mut OrderCase<'_>,
) -> Result<bool, Trouble> {
    if frame.is_first() {
        return Ok(false);
    }
    let version = match case.any_version(frame)? {
        Ok(order) => u64::from(order.version.get()),
        // The same reason is found again on the way through the log.
        Err(_) => return Ok(false),
    };
    let lines_move = earlier
        .iter()
        .any(|recorded| changes_lines(recorded.event.kind()));
    let sequence = u64::from(frame.sequence);
    Ok(version >= sequence + earlier.len() as u64 || (version + 1 == sequence && !lines_move))
}

/// Sorts as the primary key does: no customer id has a character below the separator.
fn customer_key(key: &mut String, customer: &str, currency: &str) {
    key.clear();
    key.push_str(customer);
    key.push('\0');
    key.push_str(currency);
}

fn split_customer_key(key: &str) -> (&str, &str) {
    key.split_once('\0').unwrap_or((key, ""))
}

impl Stored<'_> {
    fn customer(&self, (customer, currency): (&str, &str)) -> Result<CustomerSums, Trouble> {
        let mut select = self.connection.prepare_cached(&self.side.on(
            "SELECT orders_placed, orders_cancelled, ordered, paid, refunded, last_placed_at \
             FROM CustomerSummaryByPartition WHERE customer_id = ?1 AND currency = ?2 AND partition = ?3",
        ))?;
        let key = params![customer, currency, self.partition.get()];
        let found = select.query_row(key, |row| {
            Ok(CustomerSums {
                orders_placed: row.get(0)?,
                orders_cancelled: row.get(1)?,
                ordered: row.get(2)?,
                paid: row.get(3)?,
                refunded: row.get(4)?,
                last_placed_at: from_sql(row.get(5)?),
            })
        });
        Ok(found.optional()?.unwrap_or_default())
    }

    fn sku(&self, sku: &str) -> Result<SkuSums, Trouble> {
        let mut select = self.connection.prepare_cached(&self.side.on(
            "SELECT units_ordered, units_cancelled, last_ordered_at FROM SkuDemandByPartition \
             WHERE sku = ?1 AND partition = ?2",
        ))?;
        let found = select.query_row(params![sku, self.partition.get()], |row| {
            Ok(SkuSums {
                units_ordered: row.get(0)?,
                units_cancelled: row.get(1)?,
                last_ordered_at: from_sql(row.get(2)?),
            })
        });
        Ok(found.optional()?.unwrap_or_default())
    }
}
