//! Why a command was not acknowledged.

use std::time::Duration;

use order_domain::{Order, Rejection, Version};
use order_log::PartitionId;

use std::sync::Arc;

/// Why a command was not acknowledged. Unless it says otherwise, nothing was appended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// The rules do not allow it. Carries the order as it is, if there is one.
    #[error("{rejection}")]
    Rejected {
        /// Which rule.
        rejection: Rejection,
        /// The order as it is.
        order: Option<Arc<Order>>,
    },
    /// The order has another version than the client expects.
    #[error("the order has version {actual}")]
    VersionMismatch {
        /// The order's version.
        actual: Version,
    },
    /// The key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyMismatch,
    /// The partition's queue is full.
    #[error("partition {partition}: {depth} commands are waiting")]
    Overloaded {
        /// The partition.
        partition: PartitionId,
        /// How many commands wait.
        depth: usize,
        /// When to come back.
        retry_after: Duration,
    },
    /// The read model is further behind than commands may run ahead of it.
    #[error(
        "partition {partition}: the projector is {lag_events} events behind, at most {lag_events_max} are allowed"
    )]
    ProjectorBehind {
        /// The partition.
        partition: PartitionId,
        /// How far it is behind, in records.
        lag_events: u64,
        /// How far it may be.
        lag_events_max: u64,
    },
    /// The disk is full.
    #[error("partition {partition}: the storage is full")]
    StorageFull {
        /// The partition.
        partition: PartitionId,
    },
    /// The append failed part-way: the command may or may not survive. Ask again with the same idempotency key after the
    /// partition has recovered.
    #[error("partition {partition}: the outcome is unknown: {cause}")]
    OutcomeUnknown {
        /// The partition.
        partition: PartitionId,
        /// What failed.
        cause: String,
    },
    /// The partition takes no writes since an earlier failure.
    #[error("partition {partition} takes no writes: {cause}")]
    PartitionUnavailable {
        /// The partition.
        partition: PartitionId,
        /// What failed.
        cause: String,
    },
    /// The read model or the log could not be read.
    #[error("partition {partition}: {cause}")]
    Internal {
        /// The partition.
        partition: PartitionId,
        /// What failed.
        cause: String,
    },
    /// The log's engine cannot do it.
    #[error("{cause}")]
    NotSupported {
        /// What it cannot do.
        cause: String,
    },
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}
