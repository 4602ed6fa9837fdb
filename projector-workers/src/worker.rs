//! One partition's worker: takes what is new in the log, folds it, writes it, and says how far it is.
//!
//! `durable end >= checkpoint in SQLite >= published checkpoint`, always.

mod redriving;
mod running;
mod writing;

use std::sync::Arc;
use std::time::Instant;

use order_log::{Offset, PartitionId, PartitionReader, ScanLimit};
use rusqlite::Connection;

use crate::board::Board;
use crate::crash::Crashes;
use crate::fold::Changes;
use crate::frames::FrameBatch;
use crate::joint::Folding;
use crate::metrics::PartitionMetrics;
use crate::park::ParkedOrders;
use crate::projection_set::ProjectionSet;
use crate::read_model::Generations;
use crate::side::Side;
use crate::trouble::Trouble;
use crate::workers::{ProjectorConfig, Redriven};
use crate::{Checkpoints, Projection, ReadModel, ReadModelError};

#[cfg(test)]
pub(crate) use running::{GATHERED_AT_ONCE, GATHERED_ENOUGH};

/// Most bytes of frames in the batches of all workers together, whatever their count, and least of each: bounds their
/// memory, to about four times this. The larger a batch of updates, the more of them
/// share a page, and a page is written once a transaction.
const BATCH_BYTES_ALL: u64 = 16 << 20;
const BATCH_BYTES_LEAST: u64 = 4 << 20;

/// What a worker is asked to do between two batches.
#[derive(Debug)]
pub(crate) struct Redrive {
    pub(crate) projection: Projection,
    pub(crate) reply: std::sync::mpsc::SyncSender<Result<Redriven, ReadModelError>>,
}

/// Why a redrive was cut short.
const SWITCHED: &str = "the tables of the projection were just switched: ask again";

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// At least one batch was applied.
    Moved,
    /// There is nothing to apply before this offset.
    CaughtUp(Offset),
    /// Every projection is paused.
    Paused,
    /// Tables are being switched, and there is nothing else to apply.
    Held,
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

/// Which tables a worker writes, and how far they are.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) side: Side,
    pub(crate) members: ProjectionSet,
    pub(crate) checkpoints: Arc<Checkpoints>,
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
    /// The tables it writes.
    side: Side,
    /// The projections it works on.
    members: ProjectionSet,
    /// How far the tables of its side are.
    checkpoints: Arc<Checkpoints>,
    /// The switches it knows of: after another one, what it knows of parked orders is of other tables.
    generations: Generations,
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
    /// Set while another worker of the file waits for this one to fold what it has.
    called: Option<Folding>,
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
        let checkpoints = Arc::clone(read_model.checkpoints());
        let members = Projection::ALL.into_iter().collect();
        let tables = Tables {
            side: Side::Live,
            members,
            checkpoints,
        };
        Self::on_tables(tables, log, read_model, board, metrics, config)
    }

    /// A worker on tables that are not, or not all, the live ones.
    pub(crate) fn on_tables(
        tables: Tables,
        log: Box<dyn PartitionReader>,
        read_model: Arc<ReadModel>,
        board: Arc<Board>,
        metrics: PartitionMetrics,
        config: ProjectorConfig,
    ) -> Result<Self, ReadModelError> {
        let partition = log.partition();
        let connection = read_model.worker_reader(partition)?;
        let generations = read_model.generations();
        let parked = ParkedOrders::load(&connection, partition, tables.side)
            .map_err(ReadModelError::sqlite(read_model.path_of(partition)))?;
        let worker = Self {
            partition,
            log,
            read_model,
            board,
            metrics,
            config,
            side: tables.side,
            members: tables.members,
            checkpoints: tables.checkpoints,
            generations,
            connection,
            until: [Offset::new(u64::MAX); Projection::ALL.len()],
            parked,
            batch: FrameBatch::default(),
            changes: Changes::default(),
            careful_until: Offset::ZERO,
            crashes: Crashes::default(),
            called: None,
            applied_records: 0,
        };
        worker.tell_parked();
        Ok(worker)
    }

    /// Ends a projection at a checkpoint instead of at the end of the log.
    pub(crate) fn end_at(&mut self, projection: Projection, until: Offset) {
        self.until[projection.index()] = until;
    }

    /// Applies one batch to each group of projections that stand at the same checkpoint, core first.
    pub(crate) fn step(&mut self) -> Result<Step, Trouble> {
        self.notice_switches()?;
        let mut held = false;
        let active: ProjectionSet = self
            .members
            .iter()
            .filter(|projection| {
                held |= self.is_held(*projection);
                !self.stands_still(*projection)
            })
            .collect();
        if active.is_empty() {
            return Ok(if held { Step::Held } else { Step::Paused });
        }
        let end = self.log.durable_end();
        let mut moved = ProjectionSet::default();
        for projection in active.iter() {
            // What moved in this step may be beyond the end as it was before.
            if moved.contains(projection) {
                continue;
            }
            let from = self.checkpoint(projection);
            if from > end && self.log.may_end_later() {
                return Err(Trouble::Passing(format!(
                    "the checkpoint of {} is {from}, the log is known up to {end}: waiting for the log's writer",
                    projection.name()
                )));
            }
            if from > end {
                return Err(Trouble::Halt(format!(
                    "the checkpoint of {0} is {from}, but the log ends at {end}: the log lost records, or the read model \
                     is of a later one; bring back the log, or rebuild the rows from it: order-service projections \
                     rebuild {0}",
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
        Ok(match (moved.is_empty(), held) {
            (true, false) => Step::CaughtUp(end),
            (true, true) => Step::Held,
            (false, _) => Step::Moved,
        })
    }

    /// After tables were switched, parked orders are those of the new ones.
    fn notice_switches(&mut self) -> Result<(), Trouble> {
        let generations = self.read_model.generations();
        if self.side == Side::Live && generations != self.generations {
            self.parked = ParkedOrders::load(&self.connection, self.partition, self.side)?;
            self.generations = generations;
            self.tell_parked();
        }
        Ok(())
    }

    /// Whether the tables it writes are kept as they are for a switch. Those of another side never are.
    fn is_held(&self, projection: Projection) -> bool {
        self.side == Side::Live && self.read_model.is_held(projection)
    }

    fn stands_still(&self, projection: Projection) -> bool {
        self.is_held(projection)
            || (self.side == Side::Live && self.read_model.is_paused(projection))
    }

    pub(crate) const fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(crate) fn checkpoint(&self, projection: Projection) -> Offset {
        self.checkpoints.load(projection, self.partition)
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

    fn batch_bytes_max(&self) -> u64 {
        let share = BATCH_BYTES_ALL / u64::from(self.read_model.partition_count());
        share.max(BATCH_BYTES_LEAST)
    }

    fn apply_batch(
        &mut self,
        group: ProjectionSet,
        from: Offset,
        until: Offset,
    ) -> Result<(), Trouble> {
        let started = Instant::now();
        let careful = from < self.careful_until;
        // Others wait for those alone whose batches they can commit.
        let folding = (self.side == Side::Live).then(|| {
            let called = self.called.take();
            let waiting = self.log.durable_end().get().saturating_sub(from.get());
            let worth_a_call = !careful && waiting >= running::GATHERED_LEAST;
            called.unwrap_or_else(|| self.read_model.joint(self.partition).begin(worth_a_call))
        });
        let records = if careful {
            1
        } else {
            self.config.batch_records_max
        };
        let limit = ScanLimit {
            records: records.max(1),
            bytes: self.batch_bytes_max(),
            until,
        };
        let to = self.batch.fill(self.log.as_ref(), from, limit)?;
        let span = Span { group, from, to };
        let care = if careful {
            Care::Careful
        } else {
            Care::Trusting
        };
        match self.write(span, care, folding) {
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
}
