//! What can go wrong with a log, with the numbers and paths to act on.

use std::path::PathBuf;

use crate::{Offset, PartitionId};

/// Why a log operation failed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The next segment cannot be made or the file cannot grow; nothing was appended.
    #[error("partition {partition}: no space for the next segment in {}: free some; writing resumes by itself", path.display())]
    StorageFull {
        /// The partition.
        partition: PartitionId,
        /// The directory.
        path: PathBuf,
    },
    /// An earlier write or sync failed: this process writes the partition no more.
    #[error(
        "partition {partition} is poisoned by an earlier failure ({cause}); restart the service to recover it"
    )]
    Poisoned {
        /// The partition.
        partition: PartitionId,
        /// The first failure.
        cause: String,
    },
    /// The write or sync of this very batch failed: it may or may not survive.
    #[error("partition {partition}: the outcome of the append at {at} is unknown: {source}")]
    OutcomeUnknown {
        /// The partition.
        partition: PartitionId,
        /// Offset of the batch.
        at: Offset,
        /// What failed.
        source: std::io::Error,
    },
    /// Another writer owns the partition now.
    #[error("partition {partition} has another writer, of epoch {epoch}")]
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// The other writer's epoch.
        epoch: u64,
    },
    /// Bytes that were synced do not verify.
    #[error("{}: damaged at byte {position} (offset {offset} of partition {partition}): {reason}", path.display())]
    Damaged {
        /// The partition.
        partition: PartitionId,
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        position: u64,
        /// Offset of the frame that should stand there.
        offset: Offset,
        /// What does not verify.
        reason: String,
    },
    /// The offset is not in the log.
    #[error("partition {partition} has offsets {start} to {end}, not {offset}")]
    OutOfRange {
        /// The partition.
        partition: PartitionId,
        /// What was asked.
        offset: Offset,
        /// First offset.
        start: Offset,
        /// Durable end.
        end: Offset,
    },
    /// The offset is inside a frame: records of one command are read together.
    #[error("offset {offset} of partition {partition} is not the first of a frame")]
    NotAFrame {
        /// The partition.
        partition: PartitionId,
        /// What was asked.
        offset: Offset,
    },
    /// This engine cannot do it.
    #[error("{0}")]
    NotSupported(&'static str),
    /// The log was opened for reading only.
    #[error("the log was opened for reading only")]
    ReadOnly,
    /// The partition's writer was taken before.
    #[error("the writer of partition {0} is taken")]
    WriterTaken(PartitionId),
    /// The log has fewer partitions.
    #[error("there is no partition {0}")]
    NoSuchPartition(PartitionId),
    /// The directory is held by another process.
    #[error("{} is held by process {holder}: stop it, or use another data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, as it wrote it.
        holder: String,
    },
    /// The files are of another format or another log.
    #[error("{}: {reason}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// An operation on a file failed; nothing was promised yet.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
}
