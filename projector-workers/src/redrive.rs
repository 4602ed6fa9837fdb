//! Parked frames of one order that are tried again, a bounded number a transaction.

use order_log::{Key, Offset, PartitionId};
use rusqlite::Connection;

use crate::Projection;
use crate::park::{self, ParkedOrders};

/// Most frames of an order tried again in one transaction.
const FRAMES_MAX: u32 = 1_000;

/// One order's parked frames, taken in the order of the log.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) projection: Projection,
    pub(crate) key: Key,
    /// The frames at hand.
    pub(crate) frames: Vec<Offset>,
    /// Where the next ones begin.
    next: Offset,
}

impl Retry {
    pub(crate) fn new(projection: Projection, key: Key) -> Self {
        Self {
            projection,
            key,
            frames: Vec::new(),
            next: Offset::ZERO,
        }
    }

    /// Takes the next parked frames; `false` if there are no more.
    pub(crate) fn take_next(
        &mut self,
        connection: &Connection,
        partition: PartitionId,
    ) -> rusqlite::Result<bool> {
        self.frames = park::frames_of(
            connection,
            self.projection,
            partition,
            self.key,
            self.next,
            FRAMES_MAX,
        )?;
        if let Some(last) = self.frames.last() {
            self.next = last.plus(1);
        }
        Ok(!self.frames.is_empty())
    }

    /// The parked orders but for this one.
    pub(crate) fn without(&self, parked: &ParkedOrders) -> ParkedOrders {
        let mut others = parked.clone();
        others.remove(self.projection, self.key);
        others
    }

    /// Deletes the frames at hand from the parked ones; those that still cannot be applied are parked again, in the same
    /// transaction.
    pub(crate) fn forget(
        &self,
        transaction: &Connection,
        partition: PartitionId,
    ) -> rusqlite::Result<()> {
        park::forget(
            transaction,
            self.projection,
            partition,
            self.key,
            &self.frames,
        )
    }
}
