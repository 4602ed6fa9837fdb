//! Decide and append: the write side. One thread a partition is the only writer of that partition.
//!
//! This room never reads rows by itself: what an order was at the read model's checkpoint comes through the
//! [`Snapshots`] port; what happened since is in the worker's memory.

#![forbid(unsafe_code)]

mod decider;
mod error;
mod hash;
mod history;
mod knowledge;
mod lanes;
mod metrics;
mod order_ids;
mod request;
mod snapshots;
mod tail;
mod worker;
mod workers;

pub use error::CommandError;
pub use request::{CommandOutcome, CommandRequest, IdempotencyRequest, Position, Target};
pub use snapshots::{IdempotencyEntry, InheritedKey, OrderSnapshot, SnapshotError, Snapshots};
pub use workers::{CommandWorkers, CommandWorkersConfig};
