//! The log itself: opening the file and handing out its ends.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::flusher::Flusher;
use super::reader::JsonlReader;
use super::recovery::{recover, rewrite_end};
use super::shared_file::{SharedFile, directory_of};
use super::writer::JsonlWriter;
use crate::disk::Disk;
use crate::{
    AppendTime, Durability, EventLog, LogError, Offset, PartitionId, PartitionReader,
    PartitionStatus, PartitionWriter, PayloadFormat,
};

/// Where the log is and how it behaves.
#[derive(Debug, Clone)]
pub struct JsonlConfig {
    /// The file: `data/events.jsonl`. Its directory must be held by this process ([`crate::DataLock`]).
    pub path: PathBuf,
    /// How many partitions share the file. A file with a record of a higher one is refused.
    pub partitions: u16,
    /// When an append counts as done. `os` syncs in the background every 100 ms.
    pub durability: Durability,
    /// The name of an event type, for people who read the file; at most a few dozen characters.
    pub type_names: fn(u16) -> &'static str,
}

/// One file of JSON lines behind the seam of [`EventLog`].
///
/// Memory: 8 bytes a record, for the place of its line.
#[derive(Debug)]
pub struct JsonlLog {
    shared: Arc<SharedFile>,
    config: JsonlConfig,
    /// Of each partition, as it was at opening.
    last_append_times: Vec<AppendTime>,
    /// Held by the writers as well: what they append is synced as long as one of them lives.
    flusher: Option<Arc<Flusher>>,
    is_read_only: bool,
}

impl JsonlLog {
    /// Opens the file for reading and writing, or makes it. Reads all of it: this takes as long as the file is. Cuts off
    /// what a crash left unfinished at the end. On return everything in the file is on stable storage.
    ///
    /// # Errors
    /// [`LogError::Incompatible`] with line and byte if a line is damaged or does not fit; [`LogError::Io`] if the file
    /// cannot be read, made or synced.
    pub fn open(config: JsonlConfig, disk: &Arc<dyn Disk>) -> Result<Self, LogError> {
        let in_step = |action| {
            let path = config.path.clone();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        let directory = directory_of(&config.path);
        disk.create_directory(directory)
            .map_err(in_step("making the directory of"))?;
        let file = match disk.open(&config.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&config.path),
            opened => opened,
        }
        .map_err(in_step("opening"))?;
        let length = file.length().map_err(in_step("measuring"))?;
        let recovery = recover(&*file, &config.path, length, config.partitions)?;
        if recovery.bytes < length {
            tracing::warn!(
                path = %config.path.display(),
                kept_bytes = recovery.bytes,
                cut_bytes = length - recovery.bytes,
                "cutting off an unfinished append"
            );
            file.set_length(recovery.bytes)
                .map_err(in_step("cutting"))?;
        }
        rewrite_end(&*file, recovery.bytes).map_err(in_step("rewriting the end of"))?;
        file.sync_data().map_err(in_step("syncing"))?;
        // Each time: whoever made the file may have died before its name was durable.
        disk.sync_directory(directory)
            .map_err(in_step("syncing the directory of"))?;
        let last_append_times = recovery
            .partitions
            .iter()
            .map(|partition| partition.last_append_time)
            .collect();
        let shared = Arc::new(SharedFile::new(
            config.path.clone(),
            file,
            recovery.bytes,
            recovery.partitions,
        ));
        let flusher = Flusher::start(Arc::clone(&shared), config.durability)
            .map_err(in_step("starting the flusher of"))?
            .map(Arc::new);
        Ok(Self {
            shared,
            config,
            last_append_times,
            flusher,
            is_read_only: false,
        })
    }

    /// Opens an existing file for offline tools: changes nothing, shows what was whole at this moment, hands out no
    /// writer.
    ///
    /// # Errors
    /// As [`JsonlLog::open`], and if there is no file.
    pub fn open_read_only(config: JsonlConfig, disk: &Arc<dyn Disk>) -> Result<Self, LogError> {
        let in_step = |action| {
            let path = config.path.clone();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        let file = disk
            .open_read_only(&config.path)
            .map_err(in_step("opening"))?;
        let length = file.length().map_err(in_step("measuring"))?;
        let recovery = recover(&*file, &config.path, length, config.partitions)?;
        let shared = SharedFile::new(
            config.path.clone(),
            file,
            recovery.bytes,
            recovery.partitions,
        );
        Ok(Self {
            shared: Arc::new(shared),
            config,
            last_append_times: Vec::new(),
            flusher: None,
            is_read_only: true,
        })
    }

    /// Bytes of the file that are whole frames; what is behind them is an append that was not finished.
    #[must_use]
    pub fn whole_bytes(&self) -> u64 {
        self.shared.synced()
    }

    /// The number of the line, from 1, that holds a record, or of the line behind the last whole one for an offset that is
    /// not there. Reads the file up to it: for messages to people.
    ///
    /// # Errors
    /// [`LogError::NoSuchPartition`]; [`LogError::Io`] if the file cannot be read.
    pub fn line_number(&self, partition: PartitionId, offset: Offset) -> Result<u64, LogError> {
        let starts = self.shared.partition(partition)?.starts.read();
        let starts = starts.unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(offset.get())
            .ok()
            .and_then(|index| starts.get(index).copied());
        let end = start.unwrap_or(self.whole_bytes());
        let mut number = 1;
        let mut chunk = vec![0; 1024 * 1024];
        let mut position = 0;
        while position < end {
            let length = chunk.len().min(crate::layout::index(end - position));
            self.shared
                .file
                .read_exact_at(&mut chunk[..length], position)
                .map_err(|source| LogError::Io {
                    action: "reading",
                    path: self.config.path.clone(),
                    source,
                })?;
            number += memchr::memchr_iter(b'\n', &chunk[..length]).count() as u64;
            position += length as u64;
        }
        Ok(number)
    }
}

impl EventLog for JsonlLog {
    fn partition_count(&self) -> u16 {
        self.config.partitions
    }

    fn payload_format(&self) -> PayloadFormat {
        PayloadFormat::Json
    }

    fn writer(&self, partition: PartitionId) -> Result<Box<dyn PartitionWriter>, LogError> {
        let lines = self.shared.partition(partition)?;
        if self.is_read_only {
            return Err(LogError::Io {
                action: "writing",
                path: self.config.path.clone(),
                source: io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the log was opened for reading only",
                ),
            });
        }
        if lines.writer_taken.swap(true, Ordering::AcqRel) {
            return Err(LogError::WriterTaken(partition));
        }
        Ok(Box::new(JsonlWriter::new(
            Arc::clone(&self.shared),
            partition,
            &self.config,
            self.last_append_times[partition.index()],
            self.flusher.clone(),
        )))
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, LogError> {
        self.shared.partition(partition)?;
        Ok(Box::new(JsonlReader::new(
            Arc::clone(&self.shared),
            partition,
        )))
    }

    /// All partitions share the file: each tells the whole file's bytes, and all or none are unwritable.
    fn status(&self) -> Vec<PartitionStatus> {
        let unwritable = if self.is_read_only {
            Some("opened for reading only")
        } else {
            self.shared.poisoned()
        };
        (0..self.config.partitions)
            .map(PartitionId::new)
            .zip(&self.shared.partitions)
            .map(|(partition, lines)| PartitionStatus {
                partition,
                start: Offset::ZERO,
                durable_end: lines.durable_end.load(),
                active_segment_bytes: self.shared.synced(),
                segments: 1,
                unwritable: unwritable.map(str::to_owned),
            })
            .collect()
    }
}
