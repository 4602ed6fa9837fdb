//! What the dispatcher's thread and the outbox's handle both know.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_log::{Offset, PartitionReader};

use crate::OutboxError;
use crate::config::OutboxConfig;
use crate::ledger::Ledger;
use crate::metrics::Attempts;
use crate::progress::Progress;

/// Name of the default file of the `file` sink, in the data directory.
const FILE_NAME: &str = "outbox.jsonl";

/// Set at start, never changed.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: OutboxConfig,
    pub(crate) directory: PathBuf,
    /// One a partition, by number.
    pub(crate) readers: Arc<[Box<dyn PartitionReader>]>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) attempts: Attempts,
}

impl Shared {
    /// The file of the `file` sink.
    pub(crate) fn file_path(&self) -> PathBuf {
        let configured = self.config.file.path.clone();
        configured.unwrap_or_else(|| self.directory.join(FILE_NAME))
    }

    pub(crate) fn open_ledger(&self, now: Instant) -> Result<Ledger, OutboxError> {
        let delay_max = Duration::from_millis(self.config.retry.cap_ms);
        open_ledger(&self.directory, self.readers.len(), now, delay_max)
    }

    /// Why a cursor cannot be read from, if so.
    pub(crate) fn outside_log(
        &self,
        reader: &dyn PartitionReader,
        cursor: Offset,
    ) -> Option<String> {
        let (start, end) = (reader.start(), reader.durable_end());
        (cursor < start || cursor > end).then(|| {
            format!(
                "the outbox is at offset {cursor} of partition {}, the log has {start} to {end}: log and outbox.db are \
                 not of one backup; restore both together, or move outbox.db away and every event in the log is told again",
                reader.partition()
            )
        })
    }

    /// Shows why nothing is delivered, or that it is again, and logs what is new.
    pub(crate) fn report(&self, trouble: Option<String>) {
        if self.progress.set_trouble(trouble.clone()) {
            match trouble {
                Some(trouble) => tracing::error!(trouble, "the outbox delivers nothing"),
                None => tracing::info!("the outbox delivers"),
            }
        }
    }

    /// Shows why nothing of one partition is delivered, or that it is again, and logs what is new.
    pub(crate) fn report_partition(&self, partition: usize, trouble: Option<String>) {
        if self
            .progress
            .set_partition_trouble(partition, trouble.clone())
        {
            match trouble {
                Some(trouble) => tracing::error!(
                    partition,
                    trouble,
                    "the outbox reads nothing more of a partition"
                ),
                None => tracing::info!(partition, "the outbox reads the partition"),
            }
        }
    }
}

fn open_ledger(
    directory: &Path,
    partitions: usize,
    now: Instant,
    delay_max: Duration,
) -> Result<Ledger, OutboxError> {
    let partitions = u16::try_from(partitions).expect("a log counts its partitions in 16 bits");
    Ledger::open(directory, partitions, now, delay_max)
}
