//! The seam: what every log engine does. Sized for whole batches, so that a remote engine can stand behind it.

use std::fmt::Debug;
use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::segmented::Scrub;
use crate::{AppendTime, Batch, Frame, LogError, Offset, PartitionId};

/// What an engine wants its records encoded as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadFormat {
    /// Any bytes.
    Binary,
    /// One JSON value a record.
    Json,
}

/// A log of several partitions.
pub trait EventLog: Send + Sync + Debug {
    /// How many partitions the log has.
    fn partition_count(&self) -> u16;

    /// What records must be encoded as.
    fn payload_format(&self) -> PayloadFormat;

    /// Takes ownership of a partition's writing end: there is one, for the life of this log.
    ///
    /// # Errors
    /// [`LogError::WriterTaken`] the second time; otherwise whatever kept the partition from becoming writable.
    fn writer(&self, partition: PartitionId) -> Result<Box<dyn PartitionWriter>, LogError>;

    /// A reading end of a partition. Any number may exist; they see only what was synced.
    ///
    /// # Errors
    /// [`LogError::NoSuchPartition`].
    fn reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, LogError>;

    /// Starts reading again, in the background and at no more than `bytes_per_second`, what nobody reads: rot should be
    /// found while there is a backup. `None` from an engine that has nothing to read that way.
    ///
    /// # Errors
    /// If the background thread cannot be made.
    fn start_scrub(&self, _bytes_per_second: NonZeroU64) -> io::Result<Option<Scrub>> {
        Ok(None)
    }

    /// How every partition stands, for metrics and readiness. Cheap enough for a scrape.
    fn status(&self) -> Vec<PartitionStatus>;
}

/// How a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which partition.
    pub partition: PartitionId,
    /// Offset of the first record still in the log.
    pub start: Offset,
    /// Offset after the last visible record.
    pub durable_end: Offset,
    /// Bytes used in the file being written.
    pub active_segment_bytes: u64,
    /// Count of files.
    pub segments: usize,
    /// Why the partition takes no writes, if it does not.
    pub unwritable: Option<String>,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the batch's first record.
    pub start: Offset,
    /// Offset after the batch's last record: the partition's end.
    pub end: Offset,
    /// How long the sync took that this append waited for; zero if it did not wait.
    pub sync_time: Duration,
}

/// The one writing end of a partition. Not shared: `&mut self` is the single writer.
pub trait PartitionWriter: Send + Debug {
    /// Offset the next record gets.
    fn end(&self) -> Offset;

    /// The least append time the next frame may have: times never decrease, even when the clock does.
    fn last_append_time(&self) -> AppendTime;

    /// Appends all frames of `batch`, whose first record must be at [`PartitionWriter::end`], and leaves the batch as it
    /// is. In durability `always` the frames are on stable storage and visible to readers on return; in the others they
    /// are handed to the operating system, and become visible at the next background sync.
    ///
    /// # Errors
    /// - [`LogError::StorageFull`]: nothing was appended; a later call may succeed.
    /// - [`LogError::Poisoned`]: an earlier write or sync failed; nothing was appended, and nothing will be.
    /// - [`LogError::OutcomeUnknown`]: the write or the sync failed; the frames may or may not survive a crash. The
    ///   partition is poisoned from now on.
    /// - [`LogError::Fenced`]: another writer owns the partition now.
    fn append(&mut self, batch: &Batch) -> Result<Appended, LogError>;

    /// To be called when no batch has come for a while: records how far the log is synced, so that damage to the last
    /// frames can be told from a torn write. Does nothing if that is recorded already.
    ///
    /// # Errors
    /// As [`PartitionWriter::append`].
    fn idle(&mut self) -> Result<(), LogError>;

    /// Seals the file being written, so that the next append begins a new one; everything appended before is on stable
    /// storage and visible on return. `false`, and nothing changed, if the file has no record yet.
    ///
    /// # Errors
    /// [`LogError::NotSupported`] by an engine that has one file; otherwise as [`PartitionWriter::append`].
    fn rotate(&mut self) -> Result<bool, LogError> {
        Err(LogError::NotSupported(
            "this store keeps all events in one file: there is no segment to rotate",
        ))
    }

    /// Syncs what is appended and leaves the partition cleanly closed.
    ///
    /// # Errors
    /// As [`PartitionWriter::append`].
    fn close(&mut self) -> Result<(), LogError>;
}

/// How much one scan may visit: it stops after the first frame that reaches a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimit {
    /// Most records.
    pub records: u64,
    /// Most bytes of frames.
    pub bytes: u64,
    /// Visit no frame that starts at or beyond this offset.
    pub until: Offset,
}

impl ScanLimit {
    /// No bound: to the durable end.
    pub const NONE: Self = Self {
        records: u64::MAX,
        bytes: u64::MAX,
        until: Offset::new(u64::MAX),
    };
}

/// A reading end of a partition: sees verified frames up to the durable end, and nothing beyond.
pub trait PartitionReader: Send + Sync + Debug {
    /// Which partition this reads.
    fn partition(&self) -> PartitionId;

    /// Offset of the first record still in the log.
    fn start(&self) -> Offset;

    /// Offset after the last record that is synced and visible.
    fn durable_end(&self) -> Offset;

    /// Whether the log may hold more than is known here: another process writes it, and may not have recovered it yet.
    fn may_end_later(&self) -> bool {
        false
    }

    /// Waits until the durable end is beyond `offset`, or `timeout` passed; returns the durable end.
    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset;

    /// Visits the frames from `from` on, in order, each verified; stops at the durable end, at the limit, or when
    /// `visit` breaks. Returns the offset after the last visited frame, or after what a repair declared lost behind it:
    /// lost records are passed over, so a frame may begin beyond the end of the one before.
    ///
    /// `from` must be the base offset of a frame, or the durable end, or among lost records.
    ///
    /// # Errors
    /// [`LogError::OutOfRange`] if `from` is beyond the durable end or before the start; [`LogError::Damaged`] where a
    /// frame does not verify, after the frames before it were visited.
    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError>;

    /// Base offset of the first frame appended at or after `time`, or the durable end.
    ///
    /// # Errors
    /// [`LogError::Damaged`] where a frame does not verify.
    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError>;
}
