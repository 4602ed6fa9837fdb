//! A batch of frames, folded in memory: what is to be written for each projection, and what cannot be.
//!
//! Reads and decides, writes nothing: the same frames over the same rows always come to the same changes.

use std::collections::HashSet;

use order_domain::{Event, EventKind, Idempotency, OrderId, RecordedEvent};
use order_log::{Key, Offset, PartitionId};

use crate::Projection;
use crate::frames::{BatchFrame, FrameBatch};
use crate::order_table::{OrderTable, Source};
use crate::page::made_at;
use crate::park::{ParkReason, ParkedFrame, ParkedOrders};
use crate::projection_set::ProjectionSet;
use crate::summaries::{Context, Summaries, customer_needs_order, sku_needs_order};
use crate::sums::Care;
use crate::trouble::Trouble;

/// One idempotency key that a frame used up.
#[derive(Debug)]
pub(crate) struct UsedKey {
    pub(crate) frame: Offset,
    pub(crate) digest: [u8; 16],
    pub(crate) fingerprint: [u8; 16],
    pub(crate) order: OrderId,
    /// The order's version after the frame.
    pub(crate) version: u32,
    /// Microseconds since the Unix epoch.
    pub(crate) appended_at: u64,
}

/// What a batch comes to. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) orders: OrderTable,
    pub(crate) keys: Vec<UsedKey>,
    pub(crate) summaries: Summaries,
    pub(crate) parked: Vec<ParkedFrame>,
    /// Orders set aside in this batch.
    newly_parked: HashSet<(Projection, Key)>,
    /// Most an id was made before and after its order was placed, in microseconds.
    pub(crate) id_ahead: u64,
    pub(crate) id_behind: u64,
    /// Append time of the last frame, in microseconds.
    pub(crate) last_appended_at: u64,
}

impl Changes {
    fn clear(&mut self) {
        self.orders.clear();
        self.keys.clear();
        self.summaries.clear();
        self.parked.clear();
        self.newly_parked.clear();
        self.id_ahead = 0;
        self.id_behind = 0;
        self.last_appended_at = 0;
    }

    fn is_parked(&self, parked: &ParkedOrders, projection: Projection, key: Key) -> bool {
        parked.contains(projection, key)
            || (!self.newly_parked.is_empty() && self.newly_parked.contains(&(projection, key)))
    }

    /// Sets a frame aside; without a reason it waits behind an earlier one.
    fn park(&mut self, projection: Projection, frame: &BatchFrame, reason: Option<ParkReason>) {
        self.newly_parked.insert((projection, frame.key));
        self.parked.push(ParkedFrame {
            projection,
            key: frame.key,
            base: frame.base,
            records: frame.len(),
            reason,
        });
    }
}

/// What a fold needs to know beside the frames.
pub(crate) struct Scope<'s> {
    /// The projections whose checkpoint is where the batch begins.
    pub(crate) projections: ProjectionSet,
    /// Orders set aside before.
    pub(crate) parked: &'s ParkedOrders,
    pub(crate) source: Source<'s>,
    pub(crate) partition: PartitionId,
    pub(crate) care: Care,
}

/// Folds a batch into `changes`, which is emptied first.
pub(crate) fn fold_batch(
    batch: &FrameBatch,
    scope: &Scope<'_>,
    changes: &mut Changes,
) -> Result<(), Trouble> {
    changes.clear();
    expect_orders(batch, scope, changes);
    changes.orders.load(&scope.source)?;
    let mut events = Vec::new();
    for frame in batch.frames() {
        fold_frame(batch, frame, scope, changes, &mut events)?;
        changes.last_appended_at = frame.appended_at.as_micros();
    }
    Ok(())
}

/// Says which orders the batch will ask for, so that their rows are loaded together.
fn expect_orders(batch: &FrameBatch, scope: &Scope<'_>, changes: &mut Changes) {
    let with_orders = scope.projections.contains(Projection::Orders);
    let customers = scope.projections.contains(Projection::CustomerSummary);
    let skus = scope.projections.contains(Projection::SkuDemand);
    let needs_order = |number| {
        EventKind::from_number(number).is_some_and(|kind| {
            (customers && customer_needs_order(kind)) || (skus && sku_needs_order(kind))
        })
    };
    for frame in batch.frames() {
        if with_orders {
            // A new order has no row; only after a row was found in its place is that looked at closely.
            let load = !frame.is_first() || scope.care == Care::Careful;
            changes.orders.expect(frame.key, load);
        } else if batch.event_types(frame).any(needs_order) {
            changes.orders.expect(frame.key, true);
        }
    }
}

fn fold_frame<'b>(
    batch: &'b FrameBatch,
    frame: &BatchFrame,
    scope: &Scope<'_>,
    changes: &mut Changes,
    events: &mut Vec<RecordedEvent<'b>>,
) -> Result<(), Trouble> {
    let decoded = batch.decode(frame, events);
    if decoded.is_ok() && scope.projections.contains(Projection::Orders) {
        // Kept even if the order is set aside: the promise of an idempotency key does not hang on the row.
        changes.keys.extend(used_key(frame, events));
    }
    // The summaries look at the events, the orders take them: they come last.
    for projection in scope.projections.iter_core_last() {
        if changes.is_parked(scope.parked, projection, frame.key) {
            changes.park(projection, frame, None);
            continue;
        }
        let outcome = match &decoded {
            Ok(()) => apply(projection, frame, scope, changes, events)?,
            Err(error) => Err(error.clone().into()),
        };
        if let Err(reason) = outcome {
            changes.park(projection, frame, Some(reason));
        }
    }
    if decoded.is_ok() && frame.is_first() && !scope.projections.contains(Projection::Orders) {
        changes.orders.remember_placed(frame, events);
    }
    Ok(())
}

fn apply(
    projection: Projection,
    frame: &BatchFrame,
    scope: &Scope<'_>,
    changes: &mut Changes,
    events: &mut Vec<RecordedEvent<'_>>,
) -> Result<Result<(), ParkReason>, Trouble> {
    let context = Context {
        source: &scope.source,
        partition: scope.partition,
        care: scope.care,
    };
    let Changes {
        orders, summaries, ..
    } = changes;
    match projection {
        Projection::CustomerSummary => summaries.add_customer(frame, events, orders, &context),
        Projection::SkuDemand => summaries.add_skus(frame, events, orders, &context),
        Projection::Orders => {
            let folded = orders.fold_frame(frame, events);
            if folded.is_ok() && frame.is_first() {
                let (placed, made) = (frame.appended_at.as_micros(), made_at(frame.id()));
                changes.id_ahead = changes.id_ahead.max(placed.saturating_sub(made));
                changes.id_behind = changes.id_behind.max(made.saturating_sub(placed));
            }
            Ok(folded)
        }
    }
}

fn used_key(frame: &BatchFrame, events: &[RecordedEvent<'_>]) -> Option<UsedKey> {
    let first = events.first()?;
    let idempotency = first.context.idempotency.as_ref()?;
    let scope = match &first.event {
        Event::OrderPlaced { .. } => None,
        _ => Some(frame.id()),
    };
    let later = u32::try_from(events.len() - 1).unwrap_or(u32::MAX);
    Some(UsedKey {
        frame: frame.base,
        digest: Idempotency::digest(&idempotency.key, scope),
        fingerprint: idempotency.fingerprint,
        order: frame.id(),
        version: frame.sequence.saturating_add(later),
        appended_at: frame.appended_at.as_micros(),
    })
}
