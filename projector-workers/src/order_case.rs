//! One order of a batch: loaded at most once, folded through all its frames, then let go.

use order_domain::{EventKind, Order, OrderId, RecordedEvent, Status, Timestamp, fold, fold_owned};
use order_log::{Key, Offset, PartitionReader};
use rusqlite::Connection;

use crate::ReadModelError;
use crate::frames::BatchFrame;
use crate::history::{HistoryError, order_before};
use crate::order_row::ReadRowError;
use crate::park::ParkReason;
use crate::reader::order_by_id;
use crate::side::Side;
use crate::trouble::Trouble;

/// Where orders come from that are not in the batch.
pub(crate) struct Source<'s> {
    pub(crate) connection: &'s Connection,
    pub(crate) log: &'s dyn PartitionReader,
    /// The rows of which side: those that are written, or the live ones if no orders are.
    pub(crate) side: Side,
}

/// One order, from its row through the frames of a batch.
pub(crate) struct OrderCase<'s> {
    id: OrderId,
    source: &'s Source<'s>,
    /// Whether the row was looked for, or is known not to be there.
    looked_up: bool,
    /// The order as of its row and the frames folded so far; `None` if it is not placed.
    order: Option<Order>,
    /// The order out of the log, at whatever version: for the summaries alone, so that they never mend `OrderView`.
    told_by_log: Option<Order>,
    /// The status in its row; `None` for a new order.
    stored_status: Option<Status>,
    /// Why a row that is there could not be taken.
    unreadable: Option<String>,
    lines_changed: bool,
    /// Base of the last frame folded here; `None` if the row stays as it is.
    last_frame: Option<Offset>,
}

/// An order whose row must be written.
pub(crate) struct Changed<'c> {
    pub(crate) order: &'c Order,
    /// The status in its row; `None` for a new order.
    pub(crate) stored_status: Option<Status>,
    /// Whether its lines differ from the row's.
    pub(crate) lines_changed: bool,
    /// Base offset of the last frame folded.
    pub(crate) last_frame: Offset,
}

impl<'s> OrderCase<'s> {
    /// A case for the order of a key. `new` promises that there is no row.
    pub(crate) fn new(key: Key, source: &'s Source<'s>, new: bool) -> Self {
        Self {
            id: OrderId::from_bytes(*key.as_bytes()),
            source,
            looked_up: new,
            order: None,
            told_by_log: None,
            stored_status: None,
            unreadable: None,
            lines_changed: false,
            last_frame: None,
        }
    }

    /// What must be written; `None` if nothing was folded.
    pub(crate) fn changed(&self) -> Option<Changed<'_>> {
        Some(Changed {
            order: self.order.as_ref()?,
            stored_status: self.stored_status,
            lines_changed: self.lines_changed,
            last_frame: self.last_frame?,
        })
    }

    /// The order as its row or this batch has it, at whatever version; out of the log if they have none.
    ///
    /// For what never changes once an order is placed, and for what its version proves to be right.
    pub(crate) fn any_version(
        &mut self,
        frame: &BatchFrame,
    ) -> Result<Result<&Order, ParkReason>, Trouble> {
        self.look_up()?;
        if self.order.is_none() && self.told_by_log.is_none() {
            match self.before(frame)? {
                Ok(order) => self.told_by_log = Some(order),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let known = self.order.as_ref().or(self.told_by_log.as_ref());
        Ok(known.ok_or(ParkReason::NotPlaced))
    }

    /// The order as it was right before a frame, out of the log.
    pub(crate) fn before(&self, frame: &BatchFrame) -> Result<Result<Order, ParkReason>, Trouble> {
        match order_before(self.source.log, frame) {
            Ok(order) => Ok(Ok(order)),
            Err(HistoryError::Log(error)) => Err(error.into()),
            Err(HistoryError::Broken(reason)) => Ok(Err(reason)),
        }
    }

    /// Remembers an order that begins in this batch, for [`OrderCase::any_version`].
    pub(crate) fn remember_placed(&mut self, frame: &BatchFrame, events: &[RecordedEvent<'_>]) {
        if self.told_by_log.is_none() {
            // Events that do not fold leave the order unknown: the log is asked then, and says why.
            self.told_by_log = order_after(None, frame, events).ok();
        }
    }

    /// Folds all events of a frame into the order, or none of them.
    pub(crate) fn fold_frame(
        &mut self,
        frame: &BatchFrame,
        events: &mut Vec<RecordedEvent<'_>>,
    ) -> Result<Result<(), ParkReason>, Trouble> {
        self.look_up()?;
        if let Some(reason) = &self.unreadable {
            return Ok(Err(ParkReason::UnreadableRow(reason.clone())));
        }
        let expected = self.order.as_ref().map_or(0, |order| order.version.get());
        let expected = expected.saturating_add(1);
        // What a snapshot begins with, it says itself.
        let begins = self.order.is_none() && frame.is_first();
        if frame.sequence != expected && !begins {
            return Ok(Err(out_of_sequence(expected, frame)));
        }
        // `fold` leaves the order as it was when an event does not fit, but not the events before it in the frame.
        let before = if events.len() > 1 {
            Some(self.order.clone())
        } else {
            None
        };
        let mut lines_changed = self.lines_changed;
        for recorded in events.drain(..) {
            lines_changed |= changes_lines(recorded.event.kind());
            if let Err(error) = fold_owned(&mut self.order, self.id, recorded.event, frame.at()) {
                if let Some(before) = before {
                    self.order = before;
                }
                return Ok(Err(error.into()));
            }
        }
        let version = self.order.as_ref().map(|order| order.version.get());
        if begins && version.map(u64::from) != Some(frame.last_version()) {
            self.order = None;
            return Ok(Err(out_of_sequence(expected, frame)));
        }
        self.lines_changed = lines_changed;
        self.last_frame = Some(frame.base);
        Ok(Ok(()))
    }

    /// When the order was placed, if it is known.
    pub(crate) fn placed_at(&self) -> Option<Timestamp> {
        self.order.as_ref().map(|order| order.placed_at)
    }

    fn look_up(&mut self) -> Result<(), Trouble> {
        if self.looked_up {
            return Ok(());
        }
        self.looked_up = true;
        let row = match order_by_id(self.source.connection, self.id, self.source.side) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(ReadRowError::Sqlite(error)) => return Err(error.into()),
            Err(ReadRowError::Malformed(error)) => {
                self.unreadable = Some(error.to_string());
                return Ok(());
            }
        };
        match row.to_order() {
            Ok(order) => {
                self.stored_status = Some(order.status);
                self.order = Some(order);
            }
            Err(error @ ReadModelError::MalformedRow { .. }) => {
                self.unreadable = Some(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

fn out_of_sequence(expected: u32, frame: &BatchFrame) -> ParkReason {
    ParkReason::OutOfSequence {
        expected,
        found: frame.sequence,
    }
}

/// The order after some events of a frame.
pub(crate) fn order_after(
    order: Option<Order>,
    frame: &BatchFrame,
    events: &[RecordedEvent<'_>],
) -> Result<Order, ParkReason> {
    let mut order = order;
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
        | EventKind::OrderCancelled
        | EventKind::OrderSnapshot => false,
    }
}
