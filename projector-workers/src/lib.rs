//! Fold the log into SQLite: the read side. One worker thread a partition, rows and checkpoint in one transaction.
//!
//! This room never writes the log and never tells the outside world anything. Losing its files costs a rebuild, nothing
//! else.
//!
//! A batch goes through the room so: the [`ProjectorWorkers`] own a worker a partition; it copies frames out of the log,
//! folds them in memory over the rows they touch, and whoever gets the one writer of the file commits the rows and
//! checkpoints of all workers that are ready. Then the checkpoints are published, and a [`ReadModelReader`] finds the rows.

#![forbid(unsafe_code)]

mod afresh;
mod apply;
mod bell;
mod board;
mod checkpoints;
mod crash;
mod database;
mod difference;
mod digest;
mod drift;
mod error;
mod fold;
mod followed;
mod frames;
mod history;
mod joint;
mod lag;
mod metrics;
mod mutants;
mod offline;
mod order_case;
mod order_row;
mod page;
mod park;
mod projection_set;
mod read_model;
mod reader;
mod rebuild;
mod redrive;
mod row_change;
mod schema;
mod side;
mod sql;
mod stored;
mod summaries;
mod sums;
mod tasks;
#[cfg(test)]
mod tests;
mod trouble;
mod wal;
mod watch;
mod worker;
mod workers;

// Named in this room's signatures; and the log's reading end, which history and feeds are read from.
pub use order_log::{AppendTime, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

pub use afresh::fold_afresh;
pub use checkpoints::{Checkpoints, Projection};
pub use difference::{Difference, DifferenceKind};
pub use digest::ProjectionDigest;
pub use drift::Drift;
pub use error::ReadModelError;
pub use lag::{Lag, LagClock};
pub use offline::OfflineProjections;
pub use order_row::{OrderRow, OrderRowRef};
pub use park::ParkedOrder;
pub use read_model::{ReadModel, ReadModelConfig};
pub use reader::{IdempotencyRow, KeptTables, OrderFilter, OrderPage, ReadModelReader};
pub use stored::{StoredReadModel, is_read_model, read_model_files};
pub use tasks::{Action, Findings, Phase, ProjectionTasks, TaskStatus};
pub use watch::ProjectorWatch;
pub use workers::{ProjectionStatus, ProjectorConfig, ProjectorWorkers, Redriven};
