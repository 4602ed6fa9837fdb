//! What the dispatcher's thread and the outbox's handle both know.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_domain::OrderId;
use order_log::{Frame, Offset, PartitionReader, ScanLimit};

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
        let longest = self
            .config
            .webhook
            .retry_after_max_ms
            .max(self.config.retry.cap_ms);
        let delay_max = Duration::from_millis(longest);
        let ledger = Ledger::open(&self.directory, self.partitions(), now, delay_max)?;
        for reader in self.readers.iter() {
            if let Some(first) = first_order(&**reader) {
                ledger.check_log(reader.partition(), first)?;
            }
        }
        Ok(ledger)
    }

    /// Count of partitions.
    pub(crate) fn partitions(&self) -> u16 {
        u16::try_from(self.readers.len()).expect("a log counts its partitions in 16 bits")
    }

    /// Visits what a partition has from `from` on, and shows what is wrong with it, if so. Frames before a damaged one are
    /// visited. Returns the offset after the last of them, or after records behind it that are declared lost.
    pub(crate) fn scan(
        &self,
        index: usize,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Offset {
        let reader = &*self.readers[index];
        let mut reached = from;
        let trouble = outside_log(reader, from).or_else(|| {
            if from == reader.durable_end() {
                return None;
            }
            match reader.scan(from, limit, visit) {
                Ok(scanned) => {
                    reached = scanned;
                    None
                }
                Err(error) => Some(error.to_string()),
            }
        });
        self.report_partition(index, trouble);
        reached
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
    fn report_partition(&self, partition: usize, trouble: Option<String>) {
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

/// The order of a partition's very first event, if it is still there. A frame that does not verify is reported by the
/// dispatcher, which meets it too.
fn first_order(reader: &dyn PartitionReader) -> Option<OrderId> {
    if reader.start() != Offset::ZERO || reader.durable_end() == Offset::ZERO {
        return None;
    }
    let mut first = None;
    let mut visit = |frame: Frame<'_>| {
        first = Some(OrderId::from_bytes(*frame.key.as_bytes()));
        ControlFlow::Break(())
    };
    let scanned = reader.scan(Offset::ZERO, ScanLimit::NONE, &mut visit);
    scanned.ok().and(first)
}

/// Why a cursor cannot be read from, if so.
fn outside_log(reader: &dyn PartitionReader, cursor: Offset) -> Option<String> {
    let (start, end) = (reader.start(), reader.durable_end());
    (cursor < start || cursor > end).then(|| {
        format!(
            "the outbox is at offset {cursor} of partition {}, the log has {start} to {end}: log and outbox.db are not of \
             one backup; restore both together, or move outbox.db away and every event in the log is told again",
            reader.partition()
        )
    })
}
