//! The port to the read model: what an order was at the checkpoint.

use order_domain::{Order, OrderId, Timestamp, Version};
use order_log::{Offset, PartitionId, PartitionReader};

/// An order as of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderSnapshot {
    /// The order.
    pub order: Order,
    /// Base offset of the last frame folded into it: where its history walk starts.
    pub last_frame: Offset,
}

/// What an idempotency key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyEntry {
    /// Digest of the request that used the key.
    pub fingerprint: [u8; 16],
    /// The order it made or changed.
    pub order_id: OrderId,
    /// The order's version after the command.
    pub version: Version,
    /// Base offset of the frame it made.
    pub frame: Offset,
}

/// What a key was used for before the log was rewritten into its present partitions. A new order's key decides its
/// partition among as many as there were then, and may lead to another one now.
#[derive(Debug)]
pub enum InheritedKey<'a> {
    /// Nothing that is still remembered.
    Unused,
    /// It cannot be said before the read model has come further in a partition.
    Behind {
        /// The partition.
        partition: PartitionId,
        /// How far it has to come, in records.
        lag_events: u64,
    },
    /// A request.
    Used {
        /// Which, in the partition of `log`.
        entry: IdempotencyEntry,
        /// Where the order's history is.
        log: &'a dyn PartitionReader,
    },
}

/// The read model could not answer; the command is refused, nothing was appended.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the read model cannot be read: {0}")]
pub struct SnapshotError(pub String);

/// What a command worker asks of the read model, for its own partition. Owned by the worker's thread.
///
/// A worker forgets what is before the checkpoint, so decisions are only as true as this: `order` and `idempotency`
/// answer as of the last told checkpoint or later. An older read model may take a newer one's place only if it tells its
/// checkpoint before it answers anything else; the worker then reads the log again from there.
pub trait Snapshots: Send {
    /// The `orders` projection's checkpoint: every record before it is in the rows, committed. Cheap: read before each
    /// batch.
    fn checkpoint(&self) -> Offset;

    /// The order at the checkpoint, or at a later one.
    ///
    /// # Errors
    /// [`SnapshotError`] if the read model cannot be read, or has set the order aside: its row is then not what the log
    /// says.
    fn order(&mut self, id: OrderId) -> Result<Option<OrderSnapshot>, SnapshotError>;

    /// What a key was used for at the checkpoint. `key_digest` is
    /// [`order_domain::Idempotency::digest`].
    ///
    /// # Errors
    /// [`SnapshotError`] if the read model cannot be read.
    fn idempotency(
        &mut self,
        key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyEntry>, SnapshotError>;

    /// What the key of a new order was used for before the log was rewritten, in whatever partition; `at` is the present.
    /// Asked only after [`Snapshots::idempotency`] knew nothing.
    ///
    /// # Errors
    /// [`SnapshotError`] if the read model cannot be read.
    fn inherited_key(
        &mut self,
        key_digest: [u8; 16],
        at: Timestamp,
    ) -> Result<InheritedKey<'_>, SnapshotError> {
        let (_, _) = (key_digest, at);
        Ok(InheritedKey::Unused)
    }
}
