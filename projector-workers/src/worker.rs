//! One partition's worker: takes what is new in the log, folds it, writes it, and says how far it is.
//!
//! `durable end >= checkpoint in SQLite >= published checkpoint`, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use order_log::{Offset, PartitionId, PartitionReader, ScanLimit};
use rusqlite::Connection;

use crate::apply::Write;
use crate::board::Board;
use crate::crash::{CrashPoint, Crashes};
use crate::database::note_damage;
use crate::fold::{Changes, Scope, fold_batch};
use crate::frames::FrameBatch;
use crate::metrics::PartitionMetrics;
use crate::order_case::Source;
use crate::park::ParkedOrders;
use crate::projection_set::ProjectionSet;
use crate::redrive::Retry;
use crate::summaries::Stored;
use crate::trouble::Trouble;
use crate::workers::{ProjectorConfig, Redriven};
use crate::{Projection, ReadModel, ReadModelError};

/// Most bytes of frames in one batch, whatever their count: bounds the memory of a worker, to about four times this, and
/// the length of its transactions, to some ten thousand orders.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// How long a worker with nothing to do waits before it looks for requests. New frames wake it at once.
const IDLE: Duration = Duration::from_millis(100);

/// A transaction costs as much as some twenty rows. While frames keep coming, a worker lets this much time go by after a
/// small batch, so that the next one is larger; alone or far behind, a frame does not wait.
const GATHER: Duration = Duration::from_millis(4);
/// Batches of this many records are neither a lone event nor a backlog.
const GATHERED_RECORDS: std::ops::Range<u64> = 4..1024;

/// Most bytes of frames an idle worker keeps room for.
const IDLE_BYTES_MAX: usize = 64 << 10;

/// First and longest pause before something that failed is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

/// What a worker is asked to do between two batches.
#[derive(Debug)]
pub(crate) struct Redrive {
    pub(crate) projection: Projection,
    pub(crate) reply: std::sync::mpsc::SyncSender<Result<Redriven, ReadModelError>>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// At least one batch was applied.
    Moved,
    /// There is nothing to apply before this offset.
    CaughtUp(Offset),
    /// Every projection is paused.
    Paused,
}

/// How a batch treats what should not be: a row where a new order goes, a sum that leaves 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// SQLite refuses it, and the whole batch.
    Trusting,
    /// Every row is looked at first, so that the frame can be named and set aside.
    Careful,
}

/// What one transaction does: whose checkpoint it moves, from where to where.
#[derive(Debug, Clone, Copy)]
struct Span {
    group: ProjectionSet,
    from: Offset,
    to: Offset,
}

/// A worker, not yet or no longer on its thread.
#[derive(Debug)]
pub(crate) struct Worker {
    partition: PartitionId,
    log: Box<dyn PartitionReader>,
    read_model: Arc<ReadModel>,
    board: Arc<Board>,
    metrics: PartitionMetrics,
    config: ProjectorConfig,
    /// Reads rows and parked orders, so that the writer is held for writing alone.
    connection: Connection,
    /// Where each projection is to end, by its index; beyond reach unless the log is folded up to a point.
    until: [Offset; Projection::ALL.len()],
    parked: ParkedOrders,
    batch: FrameBatch,
    changes: Changes,
    /// Frames before this are applied one by one, each with a look at the rows it adds to: SQLite refused them together.
    careful_until: Offset,
    pub(crate) crashes: Crashes,
    /// Records of the last batch.
    applied_records: u64,
}

impl Worker {
    pub(crate) fn new(
        log: Box<dyn PartitionReader>,
        read_model: Arc<ReadModel>,
        board: Arc<Board>,
        metrics: PartitionMetrics,
        config: ProjectorConfig,
    ) -> Result<Self, ReadModelError> {
        let partition = log.partition();
        let connection = read_model.worker_reader(partition)?;
        let parked = ParkedOrders::load(&connection, partition)
            .map_err(ReadModelError::sqlite(read_model.path_of(partition)))?;
        let worker = Self {
            partition,
            log,
            read_model,
            board,
            metrics,
            config,
            connection,
            until: [Offset::new(u64::MAX); Projection::ALL.len()],
            parked,
            batch: FrameBatch::default(),
            changes: Changes::default(),
            careful_until: Offset::ZERO,
            crashes: Crashes::default(),
            applied_records: 0,
        };
        worker.tell_parked();
        Ok(worker)
    }

    /// Ends a projection at a checkpoint instead of at the end of the log.
    pub(crate) fn end_at(&mut self, projection: Projection, until: Offset) {
        self.until[projection.index()] = until;
    }

    /// Works until `stop` is set or nothing more can be done; returns why it stands still in the latter case.
    pub(crate) fn run(
        &mut self,
        requests: &Receiver<Redrive>,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let mut backoff = Backoff::default();
        while !stop.load(Ordering::SeqCst) {
            while let Ok(request) = requests.try_recv() {
                self.answer(&request)?;
            }
            let pause = match self.step() {
                Ok(step) => {
                    backoff = Backoff::default();
                    match step {
                        Step::Moved if GATHERED_RECORDS.contains(&self.applied_records) => GATHER,
                        Step::Moved => continue,
                        Step::CaughtUp(end) => {
                            if self.log.wait_beyond(end, IDLE) == end {
                                self.let_go_of_memory();
                            }
                            continue;
                        }
                        Step::Paused => IDLE,
                    }
                }
                Err(trouble) => backoff.next(self.endure(trouble)?, self.partition),
            };
            match requests.recv_timeout(pause) {
                Ok(request) => self.answer(&request)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Gives back what a large batch took, when nothing is left to do.
    fn let_go_of_memory(&mut self) {
        if self.batch.memory_bytes() > IDLE_BYTES_MAX {
            self.batch = FrameBatch::default();
            self.changes = Changes::default();
        }
    }

    /// Counts a trouble that may pass and gives its reason; gives up on any other.
    fn endure(&self, trouble: Trouble) -> Result<String, String> {
        match trouble {
            Trouble::Busy(reason) => {
                self.metrics.busy.inc();
                Ok(reason)
            }
            Trouble::Passing(reason) => Ok(reason),
            Trouble::Halt(reason) => Err(reason),
            Trouble::Constraint(reason) => Err(format!(
                "a row does not fit its table, whichever order is left out ({reason}); rebuild the projection"
            )),
            Trouble::Corrupt(reason) => {
                let path = self.read_model.path_of(self.partition);
                let mut reason = format!(
                    "{} is damaged ({reason}); restart the service: the file is set aside and rebuilt from the log",
                    path.display()
                );
                if let Err(error) = note_damage(path) {
                    reason = format!("{reason}; if it is not, move it away by hand ({error})");
                }
                Err(reason)
            }
        }
    }

    /// Applies one batch to each group of projections that stand at the same checkpoint, core first.
    pub(crate) fn step(&mut self) -> Result<Step, Trouble> {
        let active: ProjectionSet = Projection::ALL
            .into_iter()
            .filter(|projection| !self.read_model.is_paused(*projection))
            .collect();
        if active.is_empty() {
            return Ok(Step::Paused);
        }
        let end = self.log.durable_end();
        let mut moved = ProjectionSet::default();
        for projection in active.iter() {
            // What moved in this step may be beyond the end as it was before.
            if moved.contains(projection) {
                continue;
            }
            let from = self.checkpoint(projection);
            if from > end {
                return Err(Trouble::Halt(format!(
                    "the checkpoint of {} is {from}, but the log ends at {end}: the log lost records, or the read model \
                     is of a later one; bring back the log, or rebuild the read model",
                    projection.name()
                )));
            }
            let stop = end.min(self.until[projection.index()]);
            if from >= stop {
                continue;
            }
            let group: ProjectionSet = active
                .iter()
                .filter(|other| !moved.contains(*other) && self.checkpoint(*other) == from)
                .collect();
            self.apply_batch(group, from, self.stop_of(group, active, from))?;
            group.iter().for_each(|member| moved.insert(member));
        }
        if moved.is_empty() {
            Ok(Step::CaughtUp(end))
        } else {
            Ok(Step::Moved)
        }
    }

    fn checkpoint(&self, projection: Projection) -> Offset {
        self.read_model
            .checkpoints()
            .load(projection, self.partition)
    }

    /// Where a group's batch must end: at the end set for a member, or where it meets a projection that is ahead.
    fn stop_of(&self, group: ProjectionSet, active: ProjectionSet, from: Offset) -> Offset {
        let ends = group
            .iter()
            .map(|member| self.until[member.index()])
            .filter(|until| *until > from);
        let ahead = active
            .iter()
            .map(|other| self.checkpoint(other))
            .filter(|checkpoint| *checkpoint > from);
        ends.chain(ahead).min().unwrap_or(Offset::new(u64::MAX))
    }

    fn apply_batch(
        &mut self,
        group: ProjectionSet,
        from: Offset,
        until: Offset,
    ) -> Result<(), Trouble> {
        let started = Instant::now();
        let careful = from < self.careful_until;
        let records = if careful {
            1
        } else {
            self.config.batch_records_max
        };
        let limit = ScanLimit {
            records: records.max(1),
            bytes: BATCH_BYTES_MAX,
            until,
        };
        let to = self.batch.fill(self.log.as_ref(), from, limit)?;
        let span = Span { group, from, to };
        let care = if careful {
            Care::Careful
        } else {
            Care::Trusting
        };
        let written = match self.write(span, None, care) {
            Err(Trouble::Constraint(reason)) if !careful => {
                tracing::warn!(
                    partition = self.partition.get(),
                    reason,
                    "a batch does not fit its tables; applying it frame by frame"
                );
                self.careful_until = to;
                return Ok(());
            }
            written => written?,
        };
        for projection in written.iter() {
            self.read_model
                .checkpoints()
                .publish(projection, self.partition, to);
        }
        self.applied_records = to.get() - from.get();
        self.metrics
            .apply_seconds
            .observe(started.elapsed().as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a batch has fewer than 2^52 records"
        )]
        self.metrics
            .batch_size
            .observe((to.get() - from.get()) as f64);
        Ok(())
    }

    /// Folds the batch at hand and writes it in one transaction; returns whose checkpoint moved. A projection that was
    /// paused meanwhile is left out.
    fn write(
        &mut self,
        span: Span,
        retry: Option<&Retry>,
        care: Care,
    ) -> Result<ProjectionSet, Trouble> {
        let without_retried = retry.map(|retry| retry.without(&self.parked));
        let stored = Stored {
            connection: &self.connection,
            partition: self.partition,
        };
        let scope = Scope {
            projections: span.group,
            parked: without_retried.as_ref().unwrap_or(&self.parked),
            source: Source {
                connection: &self.connection,
                log: self.log.as_ref(),
            },
            stored: (care == Care::Careful).then_some(stored),
            trust_new: care == Care::Trusting,
        };
        fold_batch(&self.batch, &scope, &mut self.changes)?;
        self.crashes.here(CrashPoint::AfterFold)?;

        let mut writer = self.read_model.writer(self.partition);
        // Under the writer, because whoever pauses waits for it: no checkpoint moves after a pause was stored.
        let projections: ProjectionSet = span
            .group
            .iter()
            .filter(|member| retry.is_some() || !self.read_model.is_paused(*member))
            .collect();
        if projections.is_empty() {
            return Ok(projections);
        }
        let write = Write {
            partition: self.partition,
            projections,
            from: span.from,
            to: span.to,
            keys_since: self
                .changes
                .last_appended_at
                .saturating_sub(self.config.idempotency_retention_us),
            changes: &self.changes,
        };
        write.commit(&mut writer, &self.crashes, |transaction| match retry {
            Some(retry) => retry.forget(transaction, self.partition),
            None => Ok(()),
        })?;
        drop(writer);
        self.read_model.count_commit(self.partition);
        self.note_parked(projections);
        Ok(projections)
    }

    /// Remembers, counts and logs what the transaction just committed set aside.
    fn note_parked(&mut self, projections: ProjectionSet) {
        let parked = self.changes.parked.iter();
        for frame in parked.filter(|frame| projections.contains(frame.projection)) {
            self.parked.insert(frame.projection, frame.key);
            let Some(reason) = &frame.reason else {
                continue;
            };
            self.metrics.errors[frame.projection.index()].inc();
            tracing::error!(
                projection = frame.projection.name(),
                partition = self.partition.get(),
                offset = frame.base.get(),
                order = %order_domain::OrderId::from_bytes(*frame.key.as_bytes()),
                %reason,
                "an event cannot be applied: its order is parked"
            );
        }
        self.tell_parked();
    }

    fn tell_parked(&self) {
        for projection in Projection::ALL {
            self.board
                .set_parked(projection, self.partition, self.parked.count(projection));
        }
    }

    fn answer(&mut self, request: &Redrive) -> Result<(), String> {
        let (answer, outcome) = match self.redrive(request.projection) {
            Ok(redriven) => (Ok(redriven), Ok(())),
            Err(trouble) => {
                let outcome = self.endure(trouble);
                let (Ok(reason) | Err(reason)) = outcome.clone();
                let answer = Err(ReadModelError::Halted {
                    partition: self.partition,
                    reason,
                });
                (answer, outcome.map(drop))
            }
        };
        // Whoever asked may have gone; what was done stays done.
        request.reply.send(answer).ok();
        outcome
    }

    /// Tries the parked orders of a projection again, each from its first parked frame on.
    pub(crate) fn redrive(&mut self, projection: Projection) -> Result<Redriven, Trouble> {
        let mut redriven = Redriven::default();
        for key in self.parked.keys(projection) {
            redriven.applied_frames += self.redrive_order(Retry::new(projection, key))?;
        }
        redriven.parked_orders = self.parked.count(projection);
        Ok(redriven)
    }

    /// Tries the parked frames of an order until there are no more, or one cannot be applied; returns how many could.
    fn redrive_order(&mut self, mut retry: Retry) -> Result<u64, Trouble> {
        let group: ProjectionSet = [retry.projection].into_iter().collect();
        let mut applied = 0;
        while retry.take_next(&self.connection, self.partition)? {
            self.batch.clear();
            for base in &retry.frames {
                self.batch.push_at(self.log.as_ref(), *base)?;
            }
            let checkpoint = self.checkpoint(retry.projection);
            let span = Span {
                group,
                from: checkpoint,
                to: checkpoint,
            };
            self.write(span, Some(&retry), Care::Careful)?;
            let still_parked = self.changes.parked.len();
            applied += (retry.frames.len() - still_parked) as u64;
            if still_parked > 0 {
                return Ok(applied);
            }
        }
        self.parked.remove(retry.projection, retry.key);
        self.tell_parked();
        Ok(applied)
    }
}

/// Longer and longer pauses while something keeps failing; the first failure of a row is logged.
#[derive(Debug, Default)]
struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    fn next(&mut self, reason: String, partition: PartitionId) -> Duration {
        let pause = match self.last {
            Some(last) => (last * 2).min(BACKOFF_LONGEST),
            None => {
                tracing::warn!(
                    partition = partition.get(),
                    reason,
                    "a batch could not be applied; trying again"
                );
                BACKOFF_FIRST
            }
        };
        self.last = Some(pause);
        pause
    }
}
