//! The threads that read: SQLite and the log's maps may wait for a disk, and async workers must not.
//!
//! A thread that wakes takes all reads that have queued and serves the orders among them within one transaction: under
//! load a wake-up, a transaction and its locks are shared by many reads, when idle a read waits for nobody.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use order_domain::{OrderId, Version};
use order_projector_workers::{
    Offset, PartitionId, PartitionReader, Projection, ReadModel, ReadModelError, ReadModelReader,
};
use tokio::sync::oneshot;

use crate::error::{Problem, ProblemKind};
use crate::lag::ReadModelLag;
use crate::order_json;

/// Most orders of one transaction: long enough to share its cost, short enough that a checkpoint of the WAL is not kept
/// waiting.
const BATCH_READS_MAX: usize = 256;
/// Page cache of a reading thread: the upper pages of a large model's trees, or all of a small one.
const CACHE_KIB: u32 = 8 * 1024;
/// How often a batch is read if another process puts other rows in the place of those that are read.
const READS_MAX: usize = 4;
/// What an order's JSON usually fits in, in bytes.
const ORDER_JSON_BYTES: usize = 512;

/// An order as a read found it.
#[derive(Debug, Clone)]
pub(crate) struct FoundOrder {
    pub(crate) version: Version,
    /// The JSON shown to clients.
    pub(crate) json: Bytes,
    /// Base offset of the last frame folded into the row: where the walk of its history starts.
    pub(crate) last_frame: Offset,
}

/// What a read of one order found, and how fresh that is.
#[derive(Debug, Clone)]
pub(crate) struct OrderRead {
    pub(crate) order: Option<FoundOrder>,
    /// Whether the projector has set the order aside: the row, or that there is none, is not what the log says.
    pub(crate) parked: bool,
    /// The checkpoint before the read: the row holds everything before it, at least.
    pub(crate) position: Offset,
    /// Age of the oldest event of the partition that is not in the rows, in milliseconds; 0 when all are.
    pub(crate) lag_ms: u64,
}

/// A task for a thread that may wait for a disk.
type Task = Box<dyn FnOnce(&mut ReadModelReader) + Send>;

enum Job {
    Order {
        partition: PartitionId,
        id: OrderId,
        reply: oneshot::Sender<Result<OrderRead, Problem>>,
    },
    Task(Task),
}

/// The threads and the queue before them. Dropping it lets the threads finish what is queued and ends them.
#[derive(Debug)]
pub(crate) struct Readers {
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts the threads, named `reader-<n>`.
    pub(crate) fn start(
        threads: usize,
        queued_max: usize,
        read_model: &Arc<ReadModel>,
        log: &Arc<[Box<dyn PartitionReader>]>,
        lag: &Arc<ReadModelLag>,
    ) -> Result<Self, crate::StartError> {
        let (sender, receiver) = crossbeam_channel::bounded(queued_max.max(1));
        let mut readers = Self {
            queue: Some(sender),
            threads: Vec::new(),
        };
        for number in 0..threads.max(1) {
            let worker = Worker {
                jobs: receiver.clone(),
                rows: read_model.reader_with_cache(CACHE_KIB)?,
                read_model: Arc::clone(read_model),
                log: Arc::clone(log),
                lag: Arc::clone(lag),
            };
            let thread = std::thread::Builder::new()
                .name(format!("reader-{number}"))
                .spawn(move || worker.run())?;
            readers.threads.push(thread);
        }
        Ok(readers)
    }

    /// Reads one order.
    pub(crate) async fn order(
        &self,
        partition: PartitionId,
        id: OrderId,
    ) -> Result<OrderRead, Problem> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Order {
            partition,
            id,
            reply,
        })?;
        answer.await.map_err(|_| lost())?
    }

    /// Runs `task` on a reading thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut ReadModelReader) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Task(Box::new(move |rows| {
            // The client may be gone: then nobody waits for the answer.
            let _gone = reply.send(task(rows));
        })))?;
        answer.await.map_err(|_| lost())
    }

    fn submit(&self, job: Job) -> Result<(), Problem> {
        let queue = self
            .queue
            .as_ref()
            .expect("the queue is there until the drop");
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Problem::new(
                ProblemKind::Overloaded,
                format!("{} reads are waiting", queue.len()),
            ),
            TrySendError::Disconnected(_) => lost(),
        })
    }
}

#[cold]
fn lost() -> Problem {
    Problem::internal("a reader thread ended with this read; its own report says why")
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reader thread panicked outside of a read");
            }
        }
    }
}

struct Worker {
    jobs: Receiver<Job>,
    rows: ReadModelReader,
    read_model: Arc<ReadModel>,
    log: Arc<[Box<dyn PartitionReader>]>,
    lag: Arc<ReadModelLag>,
}

impl Worker {
    fn run(mut self) {
        let mut batch = Batch::default();
        while let Ok(job) = self.jobs.recv() {
            let mut task = batch.take(job);
            while task.is_none() && batch.ids.len() < BATCH_READS_MAX {
                let Ok(job) = self.jobs.try_recv() else {
                    break;
                };
                task = batch.take(job);
            }
            // A panic must cost the reads at hand, not all reads after them.
            let read = catch_unwind(AssertUnwindSafe(|| {
                self.read_batch(&mut batch);
                if let Some(task) = task {
                    task(&mut self.rows);
                }
            }));
            if read.is_err() {
                tracing::error!("a read panicked; the reader goes on with a new connection");
                batch = Batch::default();
                match self.read_model.reader_with_cache(CACHE_KIB) {
                    Ok(rows) => self.rows = rows,
                    Err(error) => tracing::error!(%error, "the reader keeps its old connection"),
                }
            }
        }
    }

    fn read_batch(&mut self, batch: &mut Batch) {
        if batch.ids.is_empty() {
            return;
        }
        let mut read = self.try_batch(batch);
        for _ in 1..READS_MAX {
            let Err(ReadModelError::Replaced { .. }) = read else {
                break;
            };
            read = self.try_batch(batch);
        }
        if let Err(error) = read {
            for reply in batch.replies.iter_mut().filter_map(Option::take) {
                let _gone = reply.send(Err(unreadable(&error)));
            }
        }
        batch.clear();
    }

    /// Answers those of the batch that were not answered yet.
    fn try_batch(&mut self, batch: &mut Batch) -> Result<(), ReadModelError> {
        batch.positions.clear();
        // Before the read: a row is at least as new as the checkpoint it is shown with.
        for (partition, _) in &batch.ids {
            let position = self
                .read_model
                .checkpoints()
                .load(Projection::Orders, *partition);
            batch.positions.push(position);
            self.rows.rely_on(*partition, position);
        }
        let Batch {
            ids,
            replies,
            positions,
        } = batch;
        let mut lags = Lags::new(&self.log, &self.lag);
        self.rows.visit_orders(ids, &mut |at, row, parked| {
            let (partition, position) = (ids[at].0, positions[at]);
            let order = row.map(|row| {
                let mut json = Vec::with_capacity(ORDER_JSON_BYTES + row.lines.len());
                order_json::write_row(&row, &mut json);
                FoundOrder {
                    version: row.version,
                    json: Bytes::from(json),
                    last_frame: row.last_frame,
                }
            });
            let read = OrderRead {
                order,
                parked,
                position,
                lag_ms: lags.of(partition, position),
            };
            if let Some(reply) = replies[at].take() {
                // The client may be gone: then nobody waits for the answer.
                let _gone = reply.send(Ok(read));
            }
        })
    }
}

/// A read model that cannot be read is the service's fault; one that was just replaced can be read in a moment.
pub(crate) fn unreadable(error: &ReadModelError) -> Problem {
    if let ReadModelError::Replaced { .. } = error {
        return Problem::new(ProblemKind::ReadModelBehind, error.to_string());
    }
    Problem::internal(format!("the read model cannot be read: {error}"))
}

/// Orders to read together; the vectors are used again for the next batch.
#[derive(Default)]
struct Batch {
    ids: Vec<(PartitionId, OrderId)>,
    /// Taken one by one as their orders are found.
    replies: Vec<Option<oneshot::Sender<Result<OrderRead, Problem>>>>,
    positions: Vec<Offset>,
}

impl Batch {
    /// Takes an order's read into the batch; gives a task back, which ends the batch.
    fn take(&mut self, job: Job) -> Option<Task> {
        match job {
            Job::Order {
                partition,
                id,
                reply,
            } => {
                self.ids.push((partition, id));
                self.replies.push(Some(reply));
                None
            }
            Job::Task(task) => Some(task),
        }
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.replies.clear();
        self.positions.clear();
    }
}

/// How far each partition's rows are behind, asked once a batch and partition.
struct Lags<'a> {
    log: &'a [Box<dyn PartitionReader>],
    lag: &'a ReadModelLag,
    known: Vec<(PartitionId, Offset, u64)>,
}

impl<'a> Lags<'a> {
    fn new(log: &'a [Box<dyn PartitionReader>], lag: &'a ReadModelLag) -> Self {
        Self {
            log,
            lag,
            known: Vec::new(),
        }
    }

    /// Milliseconds since the append of the oldest record at or beyond `position`; 0 if there is none.
    fn of(&mut self, partition: PartitionId, position: Offset) -> u64 {
        let known = self
            .known
            .iter()
            .find(|known| (known.0, known.1) == (partition, position));
        if let Some((.., lag)) = known {
            return *lag;
        }
        let lag = self
            .log
            .get(partition.index())
            .map_or(0, |reader| self.lag.look_ms(reader.as_ref(), position));
        self.known.push((partition, position, lag));
        lag
    }
}
