//! Bytes, durably, in order: partitioned, append-only logs of frames.
//!
//! The room knows no orders: a frame is a key, a sequence and opaque records. Two engines stand behind one seam, sized
//! for whole batches: [`segmented`], the real one, and [`jsonl`], the baseline to compare with.
//!
//! The promise, in every engine and durability mode: `appended >= synced >= visible`. A reader sees only what was
//! synced.

mod batch;
pub mod disk;
mod durability;
mod durable_end;
mod error;
mod event_log;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod jsonl;
mod layout;
mod lock;
mod mutants;
pub mod segmented;
mod shared_cells;
mod types;

pub use batch::Batch;
pub use durability::Durability;
pub use durable_end::DurableEnd;
pub use error::LogError;
pub use event_log::{
    Appended, EventLog, PartitionReader, PartitionStatus, PartitionWriter, PayloadFormat, ScanLimit,
};
pub use frame::{Frame, Record, RecordIter};
pub use lock::{DataLock, LockHolder};
pub use shared_cells::{CellsFollower, CellsOwner, Told};
pub use types::{AppendTime, Key, Offset, PartitionId, RecordTag};
