//! Fold the log into SQLite: the read side. One worker thread a partition, rows and checkpoint in one transaction.
//!
//! This room never writes the log and never tells the outside world anything. Losing its files costs a rebuild, nothing
//! else.

#![forbid(unsafe_code)]

mod checkpoints;
mod error;
mod read_model;
mod reader;
mod workers;

// Named in this room's signatures; and the log's reading end, which history and feeds are read from.
pub use order_log::{AppendTime, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

pub use checkpoints::{Checkpoints, Projection};
pub use error::ReadModelError;
pub use read_model::{ReadModel, ReadModelConfig};
pub use reader::{IdempotencyRow, OrderFilter, OrderRow, ReadModelReader};
pub use workers::{ProjectionStatus, ProjectorConfig, ProjectorWorkers};
