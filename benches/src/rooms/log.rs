//! The log's engines behind the references' [`Sink`].

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use order_domain::EventKind;
use order_log::disk::{Disk, RealDisk};
use order_log::jsonl::{JsonlConfig, JsonlLog};
use order_log::segmented::{SegmentedConfig, SegmentedLog};
use order_log::{
    AppendTime, Batch, Durability, EventLog, Key, PartitionId, PartitionReader, PartitionWriter,
    RecordTag,
};
use tempfile::TempDir;

use crate::reference::Sink;
use crate::sample;

/// An engine of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// The segmented log.
    Segmented,
    /// The JSONL baseline.
    Jsonl,
}

impl Store {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Segmented, Self::Jsonl];

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Segmented => "segmented",
            Self::Jsonl => "jsonl",
        }
    }
}

/// Identity of every log that is opened here.
pub const LOG_ID: [u8; 16] = [0xb; 16];

/// Opens a log in `directory`, with the service's own settings.
///
/// # Errors
/// Whatever kept it from opening.
pub fn open_log(
    store: Store,
    directory: &Path,
    partitions: u16,
    durability: Durability,
) -> anyhow::Result<Arc<dyn EventLog>> {
    match store {
        Store::Segmented => Ok(Arc::new(SegmentedLog::open(
            SegmentedConfig::new(directory.join("log"), LOG_ID, partitions, durability),
            Arc::new(RealDisk),
        )?)),
        Store::Jsonl => {
            let disk: Arc<dyn Disk> = Arc::new(RealDisk);
            Ok(Arc::new(JsonlLog::open(
                JsonlConfig {
                    path: directory.join("events.jsonl"),
                    partitions,
                    durability,
                    type_names: |number| {
                        EventKind::from_number(number).map_or("Unknown", EventKind::name)
                    },
                },
                &disk,
            )?))
        }
    }
}

/// What stands beside a sample record: a kind of its own, valid JSON and so valid in every engine.
const TAG: RecordTag = RecordTag {
    event_type: 1,
    schema: 1,
    codec: 2,
};

/// Partition 0 of a new log that is removed again; each record is a frame of its own, of a key of its own, as a new order
/// is.
#[derive(Debug)]
pub struct LogSink {
    writer: Box<dyn PartitionWriter>,
    batch: Batch,
    at: AppendTime,
    records: u64,
    /// Of all frames committed.
    bytes: u64,
    log: Arc<dyn EventLog>,
    // Last: the files go after the log that has them open.
    _directory: Option<TempDir>,
}

impl LogSink {
    /// A new log below `parent`.
    ///
    /// # Errors
    /// Whatever kept it from opening.
    pub fn new(store: Store, parent: &Path, durability: Durability) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(parent)
            .with_context(|| format!("make a directory in {}", parent.display()))?;
        let log = open_log(store, directory.path(), 1, durability)?;
        Ok(Self {
            _directory: Some(directory),
            ..Self::in_log(log)?
        })
    }

    fn in_log(log: Arc<dyn EventLog>) -> anyhow::Result<Self> {
        let writer = log.writer(PartitionId::default())?;
        let mut batch = Batch::new();
        batch.start_at(writer.end());
        Ok(Self {
            writer,
            batch,
            at: AppendTime::default(),
            records: 0,
            bytes: 0,
            log,
            _directory: None,
        })
    }

    /// Whether the segment being written has the largest size and is full but for a few batches.
    fn is_nearly_full(&self) -> bool {
        let largest = SegmentedConfig::SEGMENT_BYTES_MAX_DEFAULT;
        let active = self.log.status().first().map(|it| it.active_segment_bytes);
        active.is_some_and(|bytes| bytes > largest - largest / 16)
    }

    /// A reading end of what was committed.
    ///
    /// # Errors
    /// Whatever the log said.
    pub fn reader(&self) -> anyhow::Result<Box<dyn PartitionReader>> {
        Ok(self.log.reader(PartitionId::default())?)
    }
}

impl Sink for LogSink {
    fn add(&mut self, record: &[u8]) {
        if self.batch.is_empty() {
            // One look at the clock a batch, as the command workers do.
            self.at = now().max(self.writer.last_append_time());
        }
        self.records += 1;
        let mut key = [0; 16];
        key[8..].copy_from_slice(&self.records.to_be_bytes());
        self.batch.begin_frame(Key::new(key), 1, None, self.at);
        self.batch.record(|bytes| {
            bytes.extend_from_slice(record);
            TAG
        });
        self.batch.end_frame();
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        self.writer.append(&self.batch)?;
        self.bytes += u64::try_from(self.batch.bytes())?;
        self.batch.start_at(self.writer.end());
        Ok(())
    }
}

/// A log of one partition that was closed, to be opened again and again.
#[derive(Debug)]
pub struct ClosedLog {
    directory: TempDir,
}

/// Records of one append to a [`ClosedLog`].
const FILL_RECORDS: u64 = 1_000;

impl ClosedLog {
    /// Makes a segmented log below `parent` of at least `bytes`, all of them frames that were written; the last segment of
    /// one that has reached the largest is nearly full: that is the one that a start reads. With 0 bytes, a log without a
    /// record.
    ///
    /// # Errors
    /// Whatever the log said; a full disk among it.
    pub fn new(parent: &Path, bytes: u64) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(parent)
            .with_context(|| format!("make a directory in {}", parent.display()))?;
        let log = open_log(Store::Segmented, directory.path(), 1, Durability::Os)?;
        let mut sink = LogSink::in_log(log)?;
        let records: Vec<_> = (0..FILL_RECORDS).map(sample::record).collect();
        let has_largest = bytes > 2 * SegmentedConfig::SEGMENT_BYTES_MAX_DEFAULT;
        while sink.bytes < bytes || (has_largest && !sink.is_nearly_full()) {
            for record in &records {
                sink.add(record);
            }
            sink.commit()?;
        }
        sink.writer.close()?;
        Ok(Self { directory })
    }

    /// How long it takes until the log is open and its writer at hand.
    ///
    /// # Errors
    /// Whatever the log said.
    pub fn open(&self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let log = open_log(
            Store::Segmented,
            self.directory.path(),
            1,
            Durability::Always,
        )?;
        let writer = log.writer(PartitionId::default())?;
        let elapsed = begun.elapsed();
        anyhow::ensure!(
            log.status()
                .iter()
                .all(|status| status.unwritable.is_none()),
            "the log takes no writes"
        );
        drop(writer);
        Ok(elapsed)
    }

    /// Has the operating system forget the log's files, as after a start of the machine.
    ///
    /// # Errors
    /// If a file cannot be opened.
    pub fn forget(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(self.directory.path().join("log/p000"))? {
            let file = std::fs::File::open(entry?.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }
}

fn now() -> AppendTime {
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    AppendTime::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::{Depth, replay};
    use crate::sample::record;

    #[test]
    fn a_closed_log_opens_again_and_again() {
        let parent = tempfile::tempdir().unwrap();
        for bytes in [0, 1] {
            let closed = ClosedLog::new(parent.path(), bytes).unwrap();
            closed.forget().unwrap();
            closed.open().unwrap();
            closed.open().unwrap();
            let log = open_log(
                Store::Segmented,
                closed.directory.path(),
                1,
                Durability::Always,
            )
            .unwrap();
            let reader = log.reader(PartitionId::default()).unwrap();
            let records = replay(&*reader, Depth::Verify).unwrap();
            assert_eq!(records > 0, bytes > 0);
        }
    }

    #[test]
    fn what_a_sink_committed_is_in_its_log() {
        let parent = tempfile::tempdir().unwrap();
        for store in Store::ALL {
            let mut sink = LogSink::new(store, parent.path(), Durability::Always).unwrap();
            for number in 0..10 {
                sink.add(&record(number));
                sink.add(&record(number));
                sink.commit().unwrap();
            }
            let reader = sink.reader().unwrap();
            assert_eq!(replay(&*reader, Depth::Verify).unwrap(), 20);
        }
    }
}
