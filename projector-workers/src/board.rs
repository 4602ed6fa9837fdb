//! The notice board: what workers say about themselves, and how far each projection is behind. Read by status requests
//! and scrapes, never by a worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use order_log::{EventLog, LogError, Offset, PartitionId, PartitionReader};

use crate::workers::ProjectionStatus;
use crate::{Lag, LagClock, Projection, ReadModel};

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
    /// By partition, then projection.
    clock: LagClock,
}

impl Board {
    pub(crate) fn new(log: &dyn EventLog, read_model: Arc<ReadModel>) -> Result<Self, LogError> {
        let readers = read_model
            .partitions()
            .map(|partition| log.reader(partition))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            clock: LagClock::new(readers.len() * Projection::ALL.len()),
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

    /// Says that a partition's worker goes on.
    pub(crate) fn go_on(&self, partition: PartitionId) {
        *self.halted_slot(partition) = None;
    }

    /// The reading end of a partition's log.
    pub(crate) fn log(&self, partition: PartitionId) -> &dyn PartitionReader {
        self.readers[partition.index()].as_ref()
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
            let lag = self.lag(projection, partition);
            ProjectionStatus {
                projection,
                partition,
                checkpoint,
                end,
                lag_seconds: lag.age.as_secs_f64(),
                log_unreadable: lag.unreadable,
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

    /// How far a projection is behind. A halted worker is behind at least since it halted, even if the log shows nothing
    /// that waits for it.
    pub(crate) fn lag(&self, projection: Projection, partition: PartitionId) -> Lag {
        let checkpoint = self.read_model.checkpoints().load(projection, partition);
        let follower = partition.index() * Projection::ALL.len() + projection.index();
        let reader = self.readers[partition.index()].as_ref();
        let mut lag = self.clock.lag(follower, reader, checkpoint);
        if let Some(halted) = self.halted_slot(partition).as_ref() {
            lag.age = lag.age.max(halted.since.elapsed());
        }
        lag
    }
}
