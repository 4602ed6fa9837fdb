//! What goes into a command worker and what comes back.

use std::sync::Arc;

use order_domain::{Command, Order, OrderId, Version};
use order_log::{Offset, PartitionId};

/// Which order a command is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A new order: the workers make its id, in the partition of the idempotency key if there is one, so that one writer
    /// sees both uses of a key.
    New,
    /// An order that should exist.
    Existing(OrderId),
}

impl Target {
    /// The scope in which a command's idempotency key counts: as [`order_domain::Event::key_scope`] says of what it makes.
    pub(crate) fn key_scope(self) -> Option<OrderId> {
        match self {
            Self::New => None,
            Self::Existing(id) => Some(id),
        }
    }
}

/// An idempotency key with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRequest {
    /// The key as [`order_domain::Idempotency::kept_key`] makes it: the client's, behind its caller if that is known.
    /// Whether it counts for new orders or for one order is added by the workers.
    pub key: String,
    /// Digest of the request's operation, target and body.
    pub fingerprint: [u8; 16],
}

/// One command with its conditions.
#[derive(Debug, Clone)]
pub struct CommandRequest {
    /// Which order.
    pub target: Target,
    /// What to do.
    pub command: Command,
    /// Versions (any one of them) the order must have; `None` for any.
    pub expected: Option<Vec<Version>>,
    /// The client's idempotency key.
    pub idempotency: Option<IdempotencyRequest>,
    /// W3C trace context, kept in the event.
    pub traceparent: Option<String>,
    /// The request's id, kept in the event.
    pub request_id: Option<String>,
}

/// A place in the log: what a `Sync-Token` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: PartitionId,
    /// Offset after the command's last record: a checkpoint at or beyond it includes the command.
    pub end: Offset,
}

/// A command that is acknowledged: appended, and as durable as configured.
#[derive(Debug, Clone)]
pub struct CommandOutcome {
    /// The order after the command. For a replayed answer, as it was after the first one.
    pub order: Arc<Order>,
    /// Where the log was after it.
    pub position: Position,
    /// Whether the idempotency key had been used before, and this is the stored answer.
    pub replayed: bool,
}
