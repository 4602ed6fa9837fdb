//! The workers' door: start them, pause, resume, redrive, look at them, stop them.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use order_log::{EventLog, Offset, PartitionId};

use crate::board::Board;
use crate::metrics::Metrics;
use crate::tasks::ProjectionTasks;
use crate::wal::{LENGTHS, WalDrain};
use crate::worker::{Redrive, Worker};
use crate::{Projection, ReadModel, ReadModelError};

/// Most redrives that wait for one worker; whoever asks for more waits with them.
const REDRIVES_WAITING_MAX: usize = 16;

/// How the workers behave.
#[derive(Debug, Clone)]
pub struct ProjectorConfig {
    /// Most records applied in one transaction.
    pub batch_records_max: u64,
    /// How long a used idempotency key is remembered, in microseconds of append time.
    pub idempotency_retention_us: u64,
}

impl ProjectorConfig {
    /// More than fits the bytes of a batch, unless its events are small. Batches grow with what waits: while the projector
    /// keeps up they are small. Updates spread over a large table take half the time each in batches of 60,000 that they
    /// take in batches of 10,000, because more of them share a page.
    pub const BATCH_RECORDS_MAX_DEFAULT: u64 = 262_144;
}

/// One projection of one partition, as seen now.
#[derive(Debug, Clone)]
pub struct ProjectionStatus {
    /// Which projection.
    pub projection: Projection,
    /// Which partition.
    pub partition: PartitionId,
    /// Offset after the last applied record.
    pub checkpoint: Offset,
    /// Offset after the last visible record of the log, never before the checkpoint.
    pub end: Offset,
    /// Age of the oldest record not applied, in seconds; 0 when there is none; while the log cannot be read, as old as
    /// that record can be.
    pub lag_seconds: f64,
    /// Why the log cannot be read, if so: the lag is then a bound.
    pub log_unreadable: Option<String>,
    /// Whether it is paused.
    pub paused: bool,
    /// Orders set aside because an event of theirs could not be applied.
    pub parked_orders: u64,
    /// Why it stands still, if it does.
    pub halted: Option<String>,
}

/// What trying parked orders again came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Frames that could be applied now.
    pub applied_frames: u64,
    /// Orders that are still parked.
    pub parked_orders: u64,
}

/// The read side: shared, stopped by [`ProjectorWorkers::stop`] or when the last owner drops it.
#[derive(Debug)]
pub struct ProjectorWorkers {
    board: Arc<Board>,
    tasks: ProjectionTasks,
    /// By partition.
    requests: Vec<SyncSender<Redrive>>,
    stop: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Ends when its sender is dropped, after the workers.
    drain: Mutex<Option<(SyncSender<()>, JoinHandle<()>)>>,
}

impl ProjectorWorkers {
    /// Starts a thread a partition, named `projector-<p>`, and one that drains the WAL of the files, `projector-wal`.
    ///
    /// # Errors
    /// [`ReadModelError::Elsewhere`] if another process writes the files; otherwise if a partition or its file cannot be
    /// read, or a thread cannot be started.
    ///
    /// # Panics
    /// If `registry` has the metrics of other projector workers.
    pub fn start(
        log: &dyn EventLog,
        read_model: Arc<ReadModel>,
        config: ProjectorConfig,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, ReadModelError> {
        if read_model.followed().is_some() {
            return Err(read_model.elsewhere());
        }
        let board = Arc::new(Board::new(log, Arc::clone(&read_model))?);
        let metrics = Metrics::register(registry, &board)
            .expect("a registry takes the projector's metrics once");
        let mut workers = Self {
            tasks: ProjectionTasks::new(Arc::clone(&board), config.clone(), true),
            board: Arc::clone(&board),
            requests: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            threads: Mutex::new(Vec::new()),
            drain: Mutex::new(None),
        };
        workers.spawn_drain(WalDrain::new(&read_model, LENGTHS)?)?;
        for partition in read_model.partitions() {
            let worker = Worker::new(
                log.reader(partition)?,
                Arc::clone(&read_model),
                Arc::clone(&board),
                metrics.of(&board, partition),
                config.clone(),
            )?;
            workers.spawn(partition, worker)?;
        }
        Ok(Arc::new(workers))
    }

    fn spawn(&mut self, partition: PartitionId, mut worker: Worker) -> Result<(), ReadModelError> {
        let (sender, requests) = sync_channel(REDRIVES_WAITING_MAX);
        let (stop, board) = (Arc::clone(&self.stop), Arc::clone(&self.board));
        let thread = spawn(format!("projector-{partition}"), move || {
            // A worker that panicked is dropped with everything it had in hand; its transaction was rolled back.
            let work = AssertUnwindSafe(|| worker.run(&requests, &stop));
            if let Err(panic) = catch_unwind(work) {
                let reason = format!("panicked: {}", panic_text(&*panic));
                tracing::error!(
                    partition = partition.get(),
                    reason,
                    "the projector has halted"
                );
                board.halt(partition, reason);
            }
        })?;
        self.requests.push(sender);
        self.threads
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .push(thread);
        Ok(())
    }

    fn spawn_drain(&mut self, drain: WalDrain) -> Result<(), ReadModelError> {
        let (sender, stopped) = sync_channel(0);
        // Should it panic, commits drain the WAL themselves, later and slower.
        let thread = spawn("projector-wal".to_owned(), move || drain.run(&stopped))?;
        *self.drain.get_mut().unwrap_or_else(PoisonError::into_inner) = Some((sender, thread));
        Ok(())
    }

    /// Stops applying a projection, in all partitions, across restarts: on return its checkpoints stand still. The core
    /// projection can be paused too; commands are then refused once it is too far behind.
    ///
    /// # Errors
    /// Whatever SQLite said when the pause was recorded; the projection is as it was then.
    pub fn pause(&self, projection: Projection) -> Result<(), ReadModelError> {
        self.board.read_model().set_paused(projection, true)
    }

    /// Goes on with a paused projection from its checkpoint.
    ///
    /// # Errors
    /// Whatever SQLite said when it was recorded; the projection is as it was then.
    pub fn resume(&self, projection: Projection) -> Result<(), ReadModelError> {
        self.board.read_model().set_paused(projection, false)
    }

    /// Tries the parked orders of a projection again, in all partitions, between two batches of each. Blocks until done.
    ///
    /// # Errors
    /// [`ReadModelError::Halted`] if a worker stands still or could not read or write; what was applied stays applied.
    pub fn redrive(&self, projection: Projection) -> Result<Redriven, ReadModelError> {
        let mut total = Redriven::default();
        for (partition, requests) in self.board.read_model().partitions().zip(&self.requests) {
            let (reply, answer) = sync_channel(1);
            let gone = || ReadModelError::Halted {
                partition,
                reason: self
                    .board
                    .halted(partition)
                    .unwrap_or_else(|| "it was stopped".to_owned()),
            };
            requests
                .send(Redrive { projection, reply })
                .map_err(|_| gone())?;
            let redriven = answer.recv().map_err(|_| gone())??;
            total.applied_frames += redriven.applied_frames;
            total.parked_orders += redriven.parked_orders;
        }
        Ok(total)
    }

    /// Rebuilds and other long work on the projections' tables.
    #[must_use]
    pub fn tasks(&self) -> &ProjectionTasks {
        &self.tasks
    }

    /// Every projection of every partition.
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.board.status()
    }

    /// Age of the oldest record of a partition that a projection has not applied, in seconds; 0 when it is caught up.
    /// While the log cannot be read: as old as that record can be.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn lag_seconds(&self, projection: Projection, partition: PartitionId) -> f64 {
        self.board.lag(projection, partition).age.as_secs_f64()
    }

    /// Finishes the transactions at hand, moves the WAL of each file into the file, and joins the threads.
    pub fn stop(&self) {
        self.tasks.stop();
        self.stop.store(true, Ordering::SeqCst);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // Cannot fail: panics are caught inside.
            thread.join().ok();
        }
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((sender, thread)) = drain.take() {
            drop(sender);
            // If it panicked, what is in the WAL stays there; nothing is lost.
            thread.join().ok();
        }
    }
}

impl Drop for ProjectorWorkers {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(
    name: String,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, ReadModelError> {
    std::thread::Builder::new()
        .name(name.clone())
        .spawn(work)
        .map_err(|source| ReadModelError::Io {
            action: "start thread",
            path: PathBuf::from(name),
            source,
        })
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}
