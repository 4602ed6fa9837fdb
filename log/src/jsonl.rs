//! The baseline: every partition's records in one file, one JSON object a line, appended and synced in groups.
//!
//! Fair, not fast: what a careful team builds first. It gives the same promises as the segmented log (an acknowledged
//! batch is synced, readers see only what is synced, frames are whole or absent), at the price of its nature: opening
//! reads the whole file, every reader parses JSON, and nothing but JSON's own grammar detects a changed byte.
//!
//! `docs/events-jsonl.md` describes the line to people.
//!
//! It owns: the line, the shared file with its group commit, recovery, the two ends of the seam. It refuses: a file with
//! a bad line that is not the last.

mod flusher;
mod line;
mod line_source;

mod reader;
mod recovery;
mod shared_file;
mod store;
#[cfg(test)]
mod tests;
mod timestamp;
mod writer;

pub use line::write_frame;
pub use store::{JsonlConfig, JsonlLog};
