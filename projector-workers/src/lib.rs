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

pub use checkpoints::{Checkpoints, Projection};
pub use error::ReadModelError;
pub use read_model::{ReadModel, ReadModelConfig};
pub use reader::{IdempotencyRow, OrderFilter, OrderRow, ReadModelReader};
pub use workers::{ProjectionStatus, ProjectorConfig, ProjectorWorkers};
