//! The port to the read model: what an order was at the checkpoint.

use order_domain::{Order, OrderId, Version};
use order_log::Offset;

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
}
