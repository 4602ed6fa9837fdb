//! One partition's worker: takes what is new in the log, folds it, writes it, and says how far it is.
//!
//! `durable end >= checkpoint in SQLite >= published checkpoint`, always.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use order_log::{Key, Offset, PartitionId, PartitionReader, ScanLimit};
use rusqlite::Connection;

use crate::apply::{RowText, Write};
use crate::board::Board;
use crate::crash::{CrashPoint, Crashes};
use crate::database::note_damage;
use crate::fold::{Changes, Scope, fold_batch};
use crate::frames::FrameBatch;
use crate::metrics::PartitionMetrics;
use crate::order_table::Source;
use crate::park::{self, ParkedOrders};
use crate::projection_set::ProjectionSet;
use crate::sums::Care;
use crate::trouble::Trouble;
use crate::workers::{ProjectorConfig, Redriven};
use crate::{Projection, ReadModel, ReadModelError};

/// Most bytes of events in one batch, whatever their count: bounds the memory of a worker.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// Most parked frames of an order tried again in one transaction.
const REDRIVE_FRAMES_MAX: u32 = 1_000;

/// How long a worker with nothing to do waits before it looks for requests. New frames wake it at once.
const IDLE: Duration = Duration::from_millis(100);

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
    text: RowText,
    pub(crate) crashes: Crashes,
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
            text: RowText::default(),
            crashes: Crashes::default(),
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
                        Step::Moved => continue,
                        Step::CaughtUp(end) => {
                            self.log.wait_beyond(end, IDLE);
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
        let limit = ScanLimit {
            records: self.config.batch_records_max.max(1),
            bytes: BATCH_BYTES_MAX,
            until,
        };
        let to = self.batch.fill(self.log.as_ref(), from, limit)?;
        let written = self.write(group, from, to, None)?;
        for projection in written.iter() {
            self.read_model
                .checkpoints()
                .publish(projection, self.partition, to);
        }
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
        group: ProjectionSet,
        from: Offset,
        to: Offset,
        retry: Option<&Retry>,
    ) -> Result<ProjectionSet, Trouble> {
        match self.write_with(group, from, to, retry, Care::Trusting) {
            Err(Trouble::Constraint(_)) => self.write_with(group, from, to, retry, Care::Careful),
            outcome => outcome,
        }
    }

    fn write_with(
        &mut self,
        group: ProjectionSet,
        from: Offset,
        to: Offset,
        retry: Option<&Retry>,
        care: Care,
    ) -> Result<ProjectionSet, Trouble> {
        let without_retried = retry.map(|retry| {
            let mut parked = self.parked.clone();
            parked.remove(retry.projection, retry.key);
            parked
        });
        let scope = Scope {
            projections: group,
            parked: without_retried.as_ref().unwrap_or(&self.parked),
            source: Source {
                connection: &self.connection,
                log: self.log.as_ref(),
            },
            partition: self.partition,
            care,
        };
        fold_batch(&self.batch, &scope, &mut self.changes)?;
        self.crashes.here(CrashPoint::AfterFold)?;

        let mut writer = self.read_model.writer(self.partition);
        // Under the writer, because whoever pauses waits for it: no checkpoint moves after a pause was stored.
        let projections: ProjectionSet = group
            .iter()
            .filter(|member| retry.is_some() || !self.read_model.is_paused(*member))
            .collect();
        if projections.is_empty() {
            return Ok(projections);
        }
        let write = Write {
            partition: self.partition,
            projections,
            from,
            to,
            keys_since: self
                .changes
                .last_appended_at
                .saturating_sub(self.config.idempotency_retention_us),
            changes: &self.changes,
        };
        write.commit(
            &mut writer,
            &mut self.text,
            &self.crashes,
            |transaction| match retry {
                Some(retry) => retry.forget(transaction, self.partition),
                None => Ok(()),
            },
        )?;
        drop(writer);
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
            redriven.applied_frames += self.redrive_order(projection, key)?;
        }
        redriven.parked_orders = self.parked.count(projection);
        Ok(redriven)
    }

    fn redrive_order(&mut self, projection: Projection, key: Key) -> Result<u64, Trouble> {
        let only: ProjectionSet = [projection].into_iter().collect();
        let mut applied = 0;
        let mut next = Offset::ZERO;
        loop {
            let frames = park::frames_of(
                &self.connection,
                projection,
                self.partition,
                key,
                next,
                REDRIVE_FRAMES_MAX,
            )?;
            let Some(last) = frames.last().copied() else {
                self.parked.remove(projection, key);
                self.tell_parked();
                return Ok(applied);
            };
            next = last.plus(1);
            self.batch.clear();
            for base in &frames {
                self.batch.push_at(self.log.as_ref(), *base)?;
            }
            let checkpoint = self.checkpoint(projection);
            let retry = Retry {
                projection,
                key,
                frames,
            };
            self.write(only, checkpoint, checkpoint, Some(&retry))?;
            let still_parked = self.changes.parked.len();
            applied += (retry.frames.len() - still_parked) as u64;
            if still_parked > 0 {
                return Ok(applied);
            }
        }
    }
}

/// Parked frames that are tried again.
#[derive(Debug)]
struct Retry {
    projection: Projection,
    key: Key,
    frames: Vec<Offset>,
}

impl Retry {
    fn forget(&self, connection: &Connection, partition: PartitionId) -> rusqlite::Result<()> {
        park::forget(
            connection,
            self.projection,
            partition,
            self.key,
            &self.frames,
        )
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
