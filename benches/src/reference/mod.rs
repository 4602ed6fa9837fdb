//! The bare work: what the machine gives to whoever does nothing else.
//!
//! Each reference is the least program that could be called the same work as a room's: no offsets, no recovery, no
//! index, no rules. A room is measured against it, in the same run.

mod batches;
mod file;
mod frame;
mod group_commit;
mod http;
mod jsonl;
mod memory;
mod sqlite;
mod sync;
mod waiting;

pub use batches::append_batches;
pub use file::{BareFile, Preparation};
pub use frame::{FRAME_BYTES, frame, verify};
pub use group_commit::{Appender, BATCH_RECORDS_MAX, GroupCommit, Sink, measure_producers};
pub use http::{Server, router};
pub use jsonl::{append_lines, encode_lines, replay_lines};
pub use memory::{frame_into_memory, scan_memory, write_unsynced};
pub use sqlite::{OrderRows, Rows, update_at_random};
pub use sync::sync_pages;
pub use waiting::{Producer, measure_waiting};
