//! The notice board: what workers say about themselves, and how far each projection is behind. Read by status requests
//! and scrapes, never by a worker.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use order_log::{AppendTime, EventLog, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

use crate::workers::ProjectionStatus;
use crate::{Projection, ReadModel};

/// What one worker says.
#[derive(Debug, Default)]
struct Notice {
    parked: [AtomicU64; Projection::ALL.len()],
    halted: Mutex<Option<Halted>>,
}

#[derive(Debug, Clone)]
struct Halted {
    reason: String,
    since: Instant,
}

/// One notice and one reading end of the log a partition.
#[derive(Debug)]
pub(crate) struct Board {
    read_model: Arc<ReadModel>,
    readers: Vec<Box<dyn PartitionReader>>,
    notices: Vec<Notice>,
}

impl Board {
    pub(crate) fn new(log: &dyn EventLog, read_model: Arc<ReadModel>) -> Result<Self, LogError> {
        let readers = read_model
            .partitions()
            .map(|partition| log.reader(partition))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            notices: readers.iter().map(|_| Notice::default()).collect(),
            read_model,
            readers,
        })
    }

    pub(crate) fn read_model(&self) -> &Arc<ReadModel> {
        &self.read_model
    }

    pub(crate) fn set_parked(&self, projection: Projection, partition: PartitionId, orders: u64) {
        self.notices[partition.index()].parked[projection.index()].store(orders, Ordering::Relaxed);
    }

    /// Says that a partition's worker stands still, for good.
    pub(crate) fn halt(&self, partition: PartitionId, reason: String) {
        let mut halted = self.halted_slot(partition);
        *halted = Some(Halted {
            reason,
            since: Instant::now(),
        });
    }

    pub(crate) fn halted(&self, partition: PartitionId) -> Option<String> {
        let halted = self.halted_slot(partition);
        halted.as_ref().map(|halted| halted.reason.clone())
    }

    fn halted_slot(&self, partition: PartitionId) -> std::sync::MutexGuard<'_, Option<Halted>> {
        self.notices[partition.index()]
            .halted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Every projection of every partition.
    pub(crate) fn status(&self) -> Vec<ProjectionStatus> {
        let one = |projection, partition: PartitionId| {
            let (checkpoint, end) = self.position(projection, partition);
            ProjectionStatus {
                projection,
                partition,
                checkpoint,
                end,
                lag_seconds: self.lag_from(checkpoint, end, partition),
                paused: self.read_model.is_paused(projection),
                parked_orders: self.notices[partition.index()].parked[projection.index()]
                    .load(Ordering::Relaxed),
                halted: self.halted(partition),
            }
        };
        let each = |projection| self.read_model.partitions().map(move |at| (projection, at));
        Projection::ALL
            .into_iter()
            .flat_map(each)
            .map(|(projection, partition)| one(projection, partition))
            .collect()
    }

    /// Checkpoint and end of the log. The checkpoint is read first: the other way round it could pass the end.
    fn position(&self, projection: Projection, partition: PartitionId) -> (Offset, Offset) {
        let checkpoint = self.read_model.checkpoints().load(projection, partition);
        let end = self.readers[partition.index()].durable_end();
        (checkpoint, end.max(checkpoint))
    }

    /// Age of the oldest record not applied, in seconds; 0 when there is none.
    pub(crate) fn lag_seconds(&self, projection: Projection, partition: PartitionId) -> f64 {
        let (checkpoint, end) = self.position(projection, partition);
        self.lag_from(checkpoint, end, partition)
    }

    /// A halted worker is behind at least since it halted, even if the log shows nothing that waits for it.
    fn lag_from(&self, checkpoint: Offset, end: Offset, partition: PartitionId) -> f64 {
        let halted = self
            .halted_slot(partition)
            .as_ref()
            .map_or(0.0, |halted| halted.since.elapsed().as_secs_f64());
        if checkpoint >= end {
            return halted;
        }
        let oldest = appended_at(self.readers[partition.index()].as_ref(), checkpoint);
        oldest.map_or(0.0, seconds_since).max(halted)
    }
}

/// When the frame at an offset was appended; `None` if it cannot be read, which its worker reports.
fn appended_at(log: &dyn PartitionReader, base: Offset) -> Option<AppendTime> {
    let mut found = None;
    let one = ScanLimit {
        records: 1,
        ..ScanLimit::NONE
    };
    let scanned = log.scan(base, one, &mut |frame| {
        found = Some(frame.appended_at);
        ControlFlow::Break(())
    });
    scanned.ok().and(found)
}

fn seconds_since(time: AppendTime) -> f64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let then = std::time::Duration::from_micros(time.as_micros());
    now.saturating_sub(then).as_secs_f64()
}
