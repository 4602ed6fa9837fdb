//! A batch of frames, folded in memory: what is to be written for each projection, and what cannot be.
//!
//! Order by order, in key order, each through all its frames: an order is loaded once, next to its neighbours, and is
//! let go before the next one. Orders do not touch each other, and sums do not mind the order they are added in, so this
//! comes to the same as frame by frame.
//!
//! Reads and decides, writes nothing: the same frames over the same rows always come to the same changes.

use order_domain::{OrderId, RecordedEvent};
use order_log::{Key, Offset};

use crate::Projection;
use crate::frames::{BatchFrame, FrameBatch};
use crate::order_case::{OrderCase, Source};
use crate::page::made_at;
use crate::park::{ParkReason, ParkedFrame, ParkedOrders};
use crate::projection_set::ProjectionSet;
use crate::row_change::RowChange;
use crate::summaries::{Stored, Summaries};
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
    /// In key order.
    pub(crate) rows: Vec<RowChange>,
    /// Texts of the rows.
    pub(crate) texts: Vec<u8>,
    /// In the order of the log.
    pub(crate) keys: Vec<UsedKey>,
    pub(crate) summaries: Summaries,
    pub(crate) parked: Vec<ParkedFrame>,
    /// Most an id was made before and after its order was placed, in microseconds.
    pub(crate) id_ahead: u64,
    pub(crate) id_behind: u64,
    /// Append time of the last frame, in microseconds.
    pub(crate) last_appended_at: u64,
}

impl Changes {
    fn clear(&mut self) {
        self.rows.clear();
        self.texts.clear();
        self.keys.clear();
        self.summaries.clear();
        self.parked.clear();
        self.id_ahead = 0;
        self.id_behind = 0;
        self.last_appended_at = 0;
    }

    /// Sets a frame aside; without a reason it waits behind an earlier one.
    fn park(&mut self, projection: Projection, frame: &BatchFrame, reason: Option<ParkReason>) {
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
    /// Stored sums, to be looked at before anything is added to them; `None` adds blindly.
    pub(crate) stored: Option<Stored<'s>>,
    /// Whether an order that begins in the batch may be taken for new without a look at its row.
    pub(crate) trust_new: bool,
}

/// Folds a batch into `changes`, which is emptied first.
pub(crate) fn fold_batch(
    batch: &FrameBatch,
    scope: &Scope<'_>,
    changes: &mut Changes,
) -> Result<(), Trouble> {
    changes.clear();
    let frames = batch.frames();
    changes.last_appended_at = frames
        .last()
        .map_or(0, |frame| frame.appended_at.as_micros());
    let mut by_key: Vec<(Key, usize)> = (0..frames.len()).map(|at| (frames[at].key, at)).collect();
    by_key.sort_unstable();
    // One transaction for all rows: each alone would take and give back the locks of the WAL.
    let reading = scope.source.connection.unchecked_transaction()?;
    let mut events = Vec::new();
    for order in by_key.chunk_by(|one, next| one.0 == next.0) {
        fold_order(batch, order, scope, changes, &mut events)?;
    }
    reading.commit()?;
    changes.keys.sort_unstable_by_key(|key| key.frame);
    Ok(())
}

/// Folds one order through its frames, given by their places in the batch.
fn fold_order<'b>(
    batch: &'b FrameBatch,
    places: &[(Key, usize)],
    scope: &Scope<'_>,
    changes: &mut Changes,
    events: &mut Vec<RecordedEvent<'b>>,
) -> Result<(), Trouble> {
    let key = places[0].0;
    let begins_here = batch.frames()[places[0].1].is_first();
    let mut case = OrderCase::new(key, &scope.source, begins_here && scope.trust_new);
    let mut parked: ProjectionSet = scope
        .projections
        .iter()
        .filter(|projection| scope.parked.contains(*projection, key))
        .collect();
    let with_orders = scope.projections.contains(Projection::Orders);
    for (_, at) in places {
        let frame = &batch.frames()[*at];
        let decoded = batch.decode(frame, events);
        if decoded.is_ok() && with_orders {
            // Kept even if the order is set aside: the promise of an idempotency key does not hang on the row.
            changes.keys.extend(used_key(frame, events));
        }
        // The summaries look at the events, the orders take them: they come last.
        for projection in scope.projections.iter_core_last() {
            if parked.contains(projection) {
                changes.park(projection, frame, None);
                continue;
            }
            let outcome = match &decoded {
                Ok(()) => apply(projection, frame, scope, &mut case, changes, events)?,
                Err(error) => Err(error.clone().into()),
            };
            if let Err(reason) = outcome {
                parked.insert(projection);
                changes.park(projection, frame, Some(reason));
            }
        }
        if decoded.is_ok() && frame.is_first() && !with_orders && places.len() > 1 {
            case.remember_placed(frame, events);
        }
    }
    if let Some(changed) = case.changed() {
        let row = RowChange::take(key, &changed, &mut changes.texts);
        changes.rows.push(row);
    }
    Ok(())
}

fn apply(
    projection: Projection,
    frame: &BatchFrame,
    scope: &Scope<'_>,
    case: &mut OrderCase<'_>,
    changes: &mut Changes,
    events: &mut Vec<RecordedEvent<'_>>,
) -> Result<Result<(), ParkReason>, Trouble> {
    let stored = scope.stored.as_ref();
    match projection {
        Projection::CustomerSummary => changes.summaries.add_customer(frame, events, case, stored),
        Projection::SkuDemand => changes.summaries.add_skus(frame, events, case, stored),
        Projection::Orders => {
            let folded = case.fold_frame(frame, events)?;
            if folded.is_ok()
                && frame.is_first()
                && let Some(placed_at) = case.placed_at()
            {
                let (placed, made) = (placed_at.as_micros(), made_at(frame.id()));
                changes.id_ahead = changes.id_ahead.max(placed.saturating_sub(made));
                changes.id_behind = changes.id_behind.max(made.saturating_sub(placed));
            }
            Ok(folded)
        }
    }
}

fn used_key(frame: &BatchFrame, events: &[RecordedEvent<'_>]) -> Option<UsedKey> {
    let used = events.first()?.used_key(frame.id())?;
    let later = u32::try_from(events.len() - 1).unwrap_or(u32::MAX);
    Some(UsedKey {
        frame: frame.base,
        digest: used.digest,
        fingerprint: used.fingerprint,
        order: frame.id(),
        version: frame.sequence.saturating_add(later),
        appended_at: frame.appended_at.as_micros(),
    })
}
