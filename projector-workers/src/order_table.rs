//! The orders a batch touches, in memory: each loaded at most once, folded as often as it has events, written once.

use std::collections::HashMap;

use order_domain::{EventKind, Order, OrderId, RecordedEvent, Status, fold, fold_owned};
use order_log::{Key, Offset, PartitionReader};
use rusqlite::Connection;

use crate::ReadModelError;
use crate::frames::BatchFrame;
use crate::history::{HistoryError, order_before};
use crate::order_row::ReadRowError;
use crate::park::ParkReason;
use crate::reader::order_by_id;
use crate::trouble::Trouble;

/// One order of the batch.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) key: Key,
    /// The order after the events folded so far; `None` for one that is not placed yet.
    pub(crate) order: Option<Order>,
    /// The order out of the log, at whatever version: for the summaries alone, so that they never mend `OrderView`.
    told_by_log: Option<Order>,
    /// The status in the row it was loaded from; `None` for a new order.
    pub(crate) stored_status: Option<Status>,
    /// Why a row that is there could not be taken.
    unreadable: Option<String>,
    /// Whether its row must be written.
    pub(crate) changed: bool,
    /// Whether its lines differ from the row's.
    pub(crate) lines_changed: bool,
    pub(crate) last_frame: Offset,
}

/// Where orders come from that are not in memory.
pub(crate) struct Source<'s> {
    pub(crate) connection: &'s Connection,
    pub(crate) log: &'s dyn PartitionReader,
}

/// Orders by key, in the order they were first met.
#[derive(Debug, Default)]
pub(crate) struct OrderTable {
    index: HashMap<Key, usize>,
    slots: Vec<Slot>,
    to_load: Vec<(Key, usize)>,
}

impl OrderTable {
    pub(crate) fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.to_load.clear();
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Makes room for an order; `load` asks for its row at the next [`OrderTable::load`].
    pub(crate) fn expect(&mut self, key: Key, load: bool) {
        let next = self.slots.len();
        let slot = *self.index.entry(key).or_insert(next);
        if slot < next {
            return;
        }
        self.slots.push(Slot {
            key,
            order: None,
            told_by_log: None,
            stored_status: None,
            unreadable: None,
            changed: false,
            lines_changed: false,
            last_frame: Offset::ZERO,
        });
        if load {
            self.to_load.push((key, slot));
        }
    }

    /// Loads the rows asked for, in key order, so that neighbours share a page, and in one read transaction.
    pub(crate) fn load(&mut self, source: &Source<'_>) -> Result<(), Trouble> {
        if self.to_load.is_empty() {
            return Ok(());
        }
        self.to_load.sort_unstable();
        let transaction = source.connection.unchecked_transaction()?;
        for (_, slot) in self.to_load.drain(..) {
            load_row(&mut self.slots[slot], &transaction)?;
        }
        Ok(transaction.commit()?)
    }

    /// The order as the read model or this batch has it, at whatever version; out of the log if they have none.
    ///
    /// For what never changes once an order is placed, and for what [`Slot::order`]'s version proves to be right.
    pub(crate) fn any_version(
        &mut self,
        frame: &BatchFrame,
        source: &Source<'_>,
    ) -> Result<Result<&Order, ParkReason>, Trouble> {
        if !self.index.contains_key(&frame.key) {
            self.expect(frame.key, true);
            self.load(source)?;
        }
        let slot = &mut self.slots[self.index[&frame.key]];
        if slot.order.is_none() && slot.told_by_log.is_none() {
            match order_before(source.log, frame) {
                Ok(order) => slot.told_by_log = Some(order),
                Err(HistoryError::Log(error)) => return Err(error.into()),
                Err(HistoryError::Broken(reason)) => return Ok(Err(reason)),
            }
        }
        let known = slot.order.as_ref().or(slot.told_by_log.as_ref());
        Ok(known.ok_or(ParkReason::NotPlaced))
    }

    /// Remembers an order that begins in this batch, for [`OrderTable::any_version`]; nothing if nobody expects it.
    pub(crate) fn remember_placed(&mut self, frame: &BatchFrame, events: &[RecordedEvent<'_>]) {
        let Some(slot) = self.index.get(&frame.key) else {
            return;
        };
        let slot = &mut self.slots[*slot];
        if slot.order.is_none() && slot.told_by_log.is_none() {
            // Events that do not fold leave the order unknown: the log is asked then, and says why.
            slot.told_by_log = order_after(None, frame, events).ok();
        }
    }

    /// Folds all events of a frame into its order, or none of them.
    pub(crate) fn fold_frame(
        &mut self,
        frame: &BatchFrame,
        events: &mut Vec<RecordedEvent<'_>>,
    ) -> Result<(), ParkReason> {
        let slot = &mut self.slots[self.index[&frame.key]];
        if let Some(reason) = &slot.unreadable {
            return Err(ParkReason::UnreadableRow(reason.clone()));
        }
        let expected = slot.order.as_ref().map_or(0, |order| order.version.get());
        let expected = expected.saturating_add(1);
        if frame.sequence != expected {
            return Err(ParkReason::OutOfSequence {
                expected,
                found: frame.sequence,
            });
        }
        // `fold` leaves the order as it was when an event does not fit, but not the events before it in the frame.
        let before = if events.len() > 1 {
            Some(slot.order.clone())
        } else {
            None
        };
        let mut lines_changed = slot.lines_changed;
        for recorded in events.drain(..) {
            lines_changed |= changes_lines(recorded.event.kind());
            if let Err(error) = fold_owned(&mut slot.order, frame.id(), recorded.event, frame.at())
            {
                if let Some(before) = before {
                    slot.order = before;
                }
                return Err(error.into());
            }
        }
        slot.lines_changed = lines_changed;
        slot.changed = true;
        slot.last_frame = frame.base;
        Ok(())
    }
}

/// The order after some events of a frame.
pub(crate) fn order_after(
    order: Option<&Order>,
    frame: &BatchFrame,
    events: &[RecordedEvent<'_>],
) -> Result<Order, ParkReason> {
    let mut order = order.cloned();
    for recorded in events {
        fold(&mut order, frame.id(), &recorded.event, frame.at())?;
    }
    order.ok_or(ParkReason::NotPlaced)
}

/// Whether an event of this kind changes an order's lines after it was placed.
pub(crate) fn changes_lines(kind: EventKind) -> bool {
    match kind {
        EventKind::LineAdded | EventKind::LineRemoved => true,
        EventKind::OrderPlaced
        | EventKind::OrderConfirmed
        | EventKind::OrderPaid
        | EventKind::OrderShipped
        | EventKind::OrderDelivered
        | EventKind::OrderRefunded
        | EventKind::OrderCancelled => false,
    }
}

fn load_row(slot: &mut Slot, connection: &Connection) -> Result<(), Trouble> {
    let id = OrderId::from_bytes(*slot.key.as_bytes());
    let row = match order_by_id(connection, id) {
        Ok(Some(row)) => row,
        Ok(None) => return Ok(()),
        Err(ReadRowError::Sqlite(error)) => return Err(error.into()),
        Err(ReadRowError::Malformed(error)) => {
            slot.unreadable = Some(error.to_string());
            return Ok(());
        }
    };
    match row.to_order() {
        Ok(order) => {
            slot.stored_status = Some(order.status);
            slot.order = Some(order);
            slot.last_frame = row.last_frame;
        }
        Err(error @ ReadModelError::MalformedRow { .. }) => {
            slot.unreadable = Some(error.to_string());
        }
        Err(error) => return Err(Trouble::Halt(error.to_string())),
    }
    Ok(())
}
