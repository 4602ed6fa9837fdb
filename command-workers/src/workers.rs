//! The workers' door: start them, submit commands, stop them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use order_domain::Idempotency;
use order_log::{EventLog, LogError, Offset, PartitionId, PartitionWriter};
use order_partitioner::Partitioner;

use crate::decider::{Decider, Work};
use crate::knowledge::Knowledge;
use crate::lanes::{Lane, Lanes};
use crate::metrics::{Metrics, QueueDepth};
use crate::order_ids::{OrderIds, partition_of};
use crate::worker::{AcknowledgedEnd, Unavailable, Worker, WorkerConfig};
use crate::{CommandError, CommandOutcome, CommandRequest, Snapshots, Target};

/// How the workers behave.
#[derive(Debug, Clone)]
pub struct CommandWorkersConfig {
    /// Most commands waiting a partition; beyond it they are refused.
    pub queue_commands_max: usize,
    /// Most commands in one append.
    pub batch_commands_max: usize,
    /// Most records the read model may be behind before commands are refused.
    pub lag_events_max: u64,
    /// Whether commands that queue during a sync share the next one. `false` is the naive baseline: one append and one
    /// sync a command.
    pub group_commit: bool,
    /// How long a used idempotency key is remembered.
    pub idempotency_retention: Duration,
}

/// The write side: cheap to clone, shared by all requests. Dropping the last one without [`CommandWorkers::stop`] ends
/// the threads behind it.
#[derive(Debug, Clone)]
pub struct CommandWorkers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    partitioner: Partitioner,
    ids: OrderIds,
    lanes: Arc<Lanes>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl CommandWorkers {
    /// Takes every partition's writer from `log` and starts a thread each, named `command-<p>`. `snapshots` makes one
    /// port a partition.
    ///
    /// A partition serves once its worker has read the log from the read model's checkpoint on; until then
    /// [`CommandWorkers::unavailable`] names it. A partition that cannot be written, being damaged for example, does not
    /// keep the others from serving.
    ///
    /// # Errors
    /// [`LogError`] if a writer was taken before, a partition cannot be read, or a thread cannot be started.
    ///
    /// # Panics
    /// If `partitioner` and `log` have different counts of partitions, if a limit of `config` is 0, or if `registry` has
    /// metrics of these names: each is a mistake of whoever wires the rooms together.
    pub fn start(
        log: &dyn EventLog,
        partitioner: Partitioner,
        snapshots: &mut dyn FnMut(PartitionId) -> Box<dyn Snapshots>,
        config: CommandWorkersConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, LogError> {
        assert_eq!(
            partitioner.partitions(),
            log.partition_count(),
            "the partitioner is for another count of partitions than the log"
        );
        assert!(config.queue_commands_max > 0, "queue_commands_max is 0");
        assert!(config.batch_commands_max > 0, "batch_commands_max is 0");
        let batch_commands_max = if config.group_commit {
            config.batch_commands_max
        } else {
            1
        };
        let metrics = Metrics::register(registry, batch_commands_max)
            .expect("the registry has no metrics of these names yet");
        let mut lanes = Vec::new();
        let mut workers = Vec::new();
        for partition in (0..partitioner.partitions()).map(PartitionId::new) {
            let (queue, leftovers) = crossbeam_channel::bounded(config.queue_commands_max);
            let unavailable = Arc::<Unavailable>::default();
            let acknowledged = Arc::<AcknowledgedEnd>::default();
            let metrics = metrics.partition(partition);
            let staffed = match take_writer(log, partition)? {
                Ok(writer) => {
                    let known = Knowledge::new(
                        partition,
                        u64::try_from(config.idempotency_retention.as_micros()).unwrap_or(u64::MAX),
                        config.lag_events_max,
                        snapshots(partition),
                        log.reader(partition)?,
                    );
                    let decider = Decider::new(partition, log.payload_format(), known);
                    let config = WorkerConfig {
                        partition,
                        batch_commands_max,
                    };
                    workers.push(Worker::new(
                        config,
                        leftovers.clone(),
                        writer,
                        decider,
                        metrics.clone(),
                        Arc::clone(&unavailable),
                        Arc::clone(&acknowledged),
                    ));
                    true
                }
                Err(cause) => {
                    tracing::error!(%partition, cause, "the partition takes no writes");
                    unavailable.set(Some(cause));
                    false
                }
            };
            lanes.push(Lane {
                partition,
                queue,
                leftovers,
                unavailable,
                acknowledged,
                staffed,
                metrics,
            });
        }
        let lanes = Arc::new(Lanes::new(lanes));
        QueueDepth::register(registry, Arc::downgrade(&lanes))
            .expect("the registry has no metric of this name yet");
        // Dropped if a thread cannot be started, which ends those before it.
        let inner = Arc::new(Inner {
            partitioner,
            ids: OrderIds::new(),
            lanes,
            threads: Mutex::default(),
        });
        for worker in workers {
            let name = worker.name();
            let thread = std::thread::Builder::new()
                .name(name.clone())
                .spawn(move || worker.run())
                .map_err(|source| LogError::Io {
                    action: "start the thread",
                    path: PathBuf::from(name),
                    source,
                })?;
            inner
                .threads
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(thread);
        }
        Ok(Self { inner })
    }

    /// Runs one command; returns when it is acknowledged or refused. An acknowledged command is as durable as the log's
    /// mode says. Dropping the future takes a command back only if its worker has not begun it.
    ///
    /// # Errors
    /// [`CommandError`]; see there what each means for the log.
    pub async fn submit(&self, request: CommandRequest) -> Result<CommandOutcome, CommandError> {
        let (partition, work) = self.inner.route(request)?;
        let answer = self.inner.lanes.put(partition, work)?;
        answer.await.unwrap_or_else(|_| {
            Err(CommandError::OutcomeUnknown {
                partition,
                cause: "its worker ended without an answer".to_owned(),
            })
        })
    }

    /// Seals the log's active segments, one partition after the other; says of each whether there was anything to seal.
    /// Asking again is harmless.
    ///
    /// # Errors
    /// The first [`CommandError`] of a partition, after the others were tried.
    pub async fn rotate_log(&self) -> Result<Vec<(PartitionId, bool)>, CommandError> {
        let mut rotated = Vec::new();
        let mut failed = None;
        for partition in (0..self.inner.partitioner.partitions()).map(PartitionId::new) {
            let outcome = match self.inner.lanes.put_rotate(partition) {
                Ok(answer) => answer.await.unwrap_or(Err(CommandError::Stopping)),
                Err(refusal) => Err(refusal),
            };
            match outcome {
                Ok(sealed) => rotated.push((partition, sealed)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            None => Ok(rotated),
            Some(error) => Err(error),
        }
    }

    /// Refuses new commands, works off what is queued, syncs, closes the writers and joins the threads. Bounded by the
    /// queues' length.
    pub fn stop(&self) {
        let inner = &*self.inner;
        inner.lanes.close();
        let mut threads = inner.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_empty() {
            return;
        }
        inner.lanes.stop_workers();
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a command worker ended by a panic");
            }
        }
        inner.lanes.end();
    }

    /// Offset after the last record of a partition that was acknowledged, or was in the log when its worker began. In a
    /// durability mode that answers before it syncs it runs ahead of what readers of the log see. An answer given before
    /// this call is behind it. Zero for a partition that takes no writes.
    ///
    /// # Panics
    /// If there is no such partition.
    #[must_use]
    pub fn acknowledged_end(&self, partition: PartitionId) -> Offset {
        self.inner.lanes.acknowledged_end(partition)
    }

    /// Which partitions take no writes, and why.
    #[must_use]
    pub fn unavailable(&self) -> Vec<(PartitionId, String)> {
        self.inner.lanes.unavailable()
    }
}

/// The writer of a partition, or why it takes no writes.
///
/// # Errors
/// What is wrong with the wiring and not with the partition.
fn take_writer(
    log: &dyn EventLog,
    partition: PartitionId,
) -> Result<Result<Box<dyn PartitionWriter>, String>, LogError> {
    let status = log.status();
    let mut causes = status
        .into_iter()
        .filter(|status| status.partition == partition)
        .filter_map(|status| status.unwritable);
    match (log.writer(partition), causes.next()) {
        (Ok(_), Some(cause)) => Ok(Err(cause)),
        (Ok(writer), None) => Ok(Ok(writer)),
        (
            Err(
                error @ (LogError::WriterTaken(_)
                | LogError::NoSuchPartition(_)
                | LogError::ReadOnly),
            ),
            _,
        ) => Err(error),
        (Err(error), _) => Ok(Err(error.to_string())),
    }
}

impl Inner {
    /// Which partition a command is for, and all that can be worked out before its worker's turn.
    fn route(&self, request: CommandRequest) -> Result<(PartitionId, Work), CommandError> {
        let key = request
            .idempotency
            .as_ref()
            .map(|idempotency| &idempotency.key);
        let (partition, id) = match (request.target, key) {
            (Target::Existing(id), _) => (partition_of(self.partitioner, id), id),
            (Target::New, None) => {
                let id = self.ids.draw();
                (partition_of(self.partitioner, id), id)
            }
            (Target::New, Some(key)) => {
                let key = Idempotency::partition_key(key);
                let partition = self.partitioner.partition_of(key.as_bytes());
                let id = self
                    .ids
                    .draw_in(self.partitioner, partition)
                    .ok_or_else(|| CommandError::Internal {
                        partition: PartitionId::new(partition),
                        cause: "no order id falls into this partition".to_owned(),
                    })?;
                (partition, id)
            }
        };
        let work = Work {
            id,
            key: key.map(|key| Idempotency::digest(key, request.target.key_scope())),
            request,
        };
        Ok((PartitionId::new(partition), work))
    }
}
