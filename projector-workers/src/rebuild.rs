//! A projection's tables made anew beside the live ones, compared, and switched; or the old ones brought back.
//!
//! A worker like the live ones folds the log into tables of another side of the same file, a small transaction at a time,
//! and gives way whenever the live ones are behind. What it does is seen by nobody until one transaction renames the
//! tables. A crash before leaves the live tables and some that the next rebuild clears away; a crash after leaves the new
//! ones live. With several files, each is switched by itself: a partition's rows are in one file.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_log::{AppendTime, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};
use rusqlite::Connection;

use crate::board::Board;
use crate::difference::{Rows, compare, rows_to_compare};
use crate::metrics::Metrics;
use crate::side::{self, Side};
use crate::tasks::{Action, Findings, Phase, Progress, TaskEnd};
use crate::trouble::Trouble;
use crate::worker::{Step, Tables, Worker};
use crate::{Checkpoints, Projection, ProjectorConfig, ReadModelError};

/// Most records of a transaction while workers share the file: they wait for the writer some ten milliseconds at most.
const BATCH_RECORDS_BESIDE: u64 = 2_048;

/// For each moment that a transaction took, moments that the workers of the same file get to catch up, by the round of
/// catching up: in the long first one they have four fifths of the writer when they need it. Later ones must be faster than
/// the log grows, or there would be no end; there is little left by then.
const LIVE_SHARES: [u32; 4] = [4, 4, 1, 1];
/// The longest it gives way at once.
const GIVE_WAY_MAX: Duration = Duration::from_millis(500);
/// Between two looks at whether the workers have caught up.
const LOOK: Duration = Duration::from_millis(1);

/// Records that may be left when the live tables are held for the last of them.
const LEFT_FEW: u64 = BATCH_RECORDS_BESIDE;
/// Rounds of catching up before the live tables are held, however much is left.
const ROUNDS_MAX: usize = 8;

/// Rows deleted in one transaction.
const ROWS_DISCARDED: u32 = 2_000;

/// How often something that may pass is tried again, and after how long.
const RETRIES_MAX: u32 = 100;
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// One task, on its thread.
#[derive(Debug)]
pub(crate) struct Rebuild {
    pub(crate) board: Arc<Board>,
    pub(crate) config: ProjectorConfig,
    pub(crate) projection: Projection,
    pub(crate) progress: Arc<Progress>,
    pub(crate) beside_workers: bool,
}

/// A worker a partition, on one side.
struct Workers {
    side: Side,
    checkpoints: Arc<Checkpoints>,
    workers: Vec<Worker>,
    /// How much it gives way: see [`LIVE_SHARES`].
    live_share: u32,
}

impl Rebuild {
    /// Whether the tables are such that the action makes sense.
    pub(crate) fn check(&self, action: Action) -> Result<(), ReadModelError> {
        let name = self.projection.name();
        let old = self.files_with(Side::Old)?;
        match action {
            Action::Rebuild if !old.is_empty() => Err(ReadModelError::Unfit(format!(
                "the old tables of {name} are still kept from an earlier rebuild: discard them first (discard-old), or \
                 switch back to them (switch-back)"
            ))),
            Action::SwitchBack if old.is_empty() => Err(ReadModelError::Unfit(format!(
                "no old tables of {name} are kept: there is nothing to switch back to"
            ))),
            Action::Rebuild | Action::SwitchBack | Action::DiscardOld | Action::Reindex => Ok(()),
        }
    }

    pub(crate) fn run(&self, action: Action) -> Result<(), TaskEnd> {
        match action {
            Action::Rebuild => {
                self.prepare()?;
                let shards: Vec<u16> = (0..self.board.read_model().shards()).collect();
                self.make_live(Side::Beside, &shards)
            }
            Action::SwitchBack => {
                let shards = self.files_with(Side::Old)?;
                self.make_live(Side::Old, &shards)
            }
            Action::DiscardOld => {
                self.progress.begin(Phase::Working, 0)?;
                self.discard(Side::Beside)?;
                self.discard(Side::Old)
            }
            Action::Reindex => self.reindex(),
        }
    }

    fn files_with(&self, side: Side) -> Result<Vec<u16>, ReadModelError> {
        let model = self.board.read_model();
        let mut found = Vec::new();
        for shard in 0..model.shards() {
            let first = PartitionId::new(shard);
            let connection = model.worker_reader(first)?;
            let has = side::exists(&connection, self.projection, side)
                .map_err(ReadModelError::sqlite(model.path_of(first)))?;
            if has {
                found.push(shard);
            }
        }
        Ok(found)
    }

    /// Clears away what an unfinished rebuild left, and makes empty tables.
    fn prepare(&self) -> Result<(), TaskEnd> {
        self.discard(Side::Beside)?;
        let model = self.board.read_model();
        for shard in 0..model.shards() {
            let partitions = model.partitions_of(shard).map(PartitionId::get);
            self.with_writer(shard, |writer| {
                side::create_beside(writer, self.projection, partitions)
            })?;
        }
        Ok(())
    }

    fn discard(&self, side: Side) -> Result<(), TaskEnd> {
        let mut discarded = 0;
        for shard in 0..self.board.read_model().shards() {
            loop {
                self.progress.go_on()?;
                let started = Instant::now();
                let nothing_left = self.with_writer(shard, |writer| {
                    side::discard_some(writer, self.projection, side, ROWS_DISCARDED)
                })?;
                if nothing_left {
                    break;
                }
                discarded += u64::from(ROWS_DISCARDED);
                self.progress.set_done(discarded);
                self.give_way(shard, started.elapsed() * LIVE_SHARES[0]);
            }
        }
        Ok(())
    }

    fn reindex(&self) -> Result<(), TaskEnd> {
        let shards = self.board.read_model().shards();
        self.progress.begin(Phase::Working, u64::from(shards))?;
        for shard in 0..shards {
            self.progress.go_on()?;
            self.with_writer(shard, |writer| side::reindex(writer, self.projection))?;
            self.progress.set_done(u64::from(shard) + 1);
        }
        Ok(())
    }

    /// Brings the tables of a side to where the live ones are, compares, and switches.
    fn make_live(&self, side: Side, shards: &[u16]) -> Result<(), TaskEnd> {
        let model = self.board.read_model();
        let mut workers = self.workers(side, shards)?;
        self.progress
            .begin(Phase::Folding, self.left(&workers) + self.applied(&workers))?;
        self.nearly_catch_up(&mut workers)?;

        self.progress.begin(Phase::Comparing, 0)?;
        let snapshots = {
            let _held = model.hold(self.projection);
            self.catch_up(&mut workers)?;
            self.snapshots(shards)?
        };
        self.compare(side, &snapshots)?;
        drop(snapshots);

        self.progress.begin(Phase::Switching, self.left(&workers))?;
        self.nearly_catch_up(&mut workers)?;
        let _held = model.hold(self.projection);
        self.catch_up(&mut workers)?;
        for shard in shards {
            self.switch(*shard, &workers)?;
        }
        Ok(())
    }

    fn switch(&self, shard: u16, workers: &Workers) -> Result<(), TaskEnd> {
        let model = self.board.read_model();
        self.with_writer(shard, |writer| {
            side::switch(writer, self.projection, workers.side)?;
            // Before anybody else gets the writer, whose rows may be of the tables that are old now.
            model.count_switch(self.projection);
            for partition in model.partitions_of(shard) {
                let next = workers.checkpoints.load(self.projection, partition);
                model
                    .checkpoints()
                    .replace(self.projection, partition, next);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn workers(&self, side: Side, shards: &[u16]) -> Result<Workers, ReadModelError> {
        let model = self.board.read_model();
        let checkpoints = Arc::new(Checkpoints::new(model.partition_count()));
        let unseen = prometheus::Registry::new();
        let metrics = Metrics::register(&unseen, &self.board)
            .expect("a registry that was just made takes the projector's metrics");
        let records = if self.beside_workers {
            self.config.batch_records_max.min(BATCH_RECORDS_BESIDE)
        } else {
            self.config.batch_records_max
        };
        let mut workers = Vec::new();
        for shard in shards {
            for partition in model.partitions_of(*shard) {
                let next = model.stored_checkpoint(self.projection, partition, side)?;
                checkpoints.replace(self.projection, partition, next);
                let tables = Tables {
                    side,
                    members: [self.projection].into_iter().collect(),
                    checkpoints: Arc::clone(&checkpoints),
                };
                workers.push(Worker::on_tables(
                    tables,
                    Box::new(BoardsLog {
                        board: Arc::clone(&self.board),
                        partition,
                    }),
                    Arc::clone(model),
                    Arc::clone(&self.board),
                    metrics.of(&self.board, partition),
                    ProjectorConfig {
                        batch_records_max: records,
                        ..self.config.clone()
                    },
                )?);
            }
        }
        Ok(Workers {
            side,
            checkpoints,
            workers,
            live_share: LIVE_SHARES[0],
        })
    }

    /// Where a partition's new tables have to get: where the live ones are, unless the log does not reach that far.
    fn target(&self, partition: PartitionId) -> Offset {
        let live = self.board.read_model().checkpoints();
        let end = self.board.log(partition).durable_end();
        live.load(self.projection, partition).min(end)
    }

    fn applied(&self, workers: &Workers) -> u64 {
        let applied = workers
            .workers
            .iter()
            .map(|it| it.checkpoint(self.projection).get());
        applied.sum()
    }

    /// Records that the new tables are behind the live ones.
    fn left(&self, workers: &Workers) -> u64 {
        let left = workers.workers.iter().map(|worker| {
            let target = self.target(worker.partition());
            target
                .get()
                .saturating_sub(worker.checkpoint(self.projection).get())
        });
        left.sum()
    }

    /// Catches up with tables that move on, until little is left.
    fn nearly_catch_up(&self, workers: &mut Workers) -> Result<(), TaskEnd> {
        for round in 0..ROUNDS_MAX {
            workers.live_share = LIVE_SHARES.get(round).copied().unwrap_or(0);
            self.catch_up(workers)?;
            if self.left(workers) <= LEFT_FEW {
                break;
            }
        }
        Ok(())
    }

    /// Applies what there is between the new tables and where the live ones are now.
    fn catch_up(&self, workers: &mut Workers) -> Result<(), TaskEnd> {
        for at in 0..workers.workers.len() {
            let partition = workers.workers[at].partition();
            let target = self.target(partition);
            workers.workers[at].end_at(self.projection, target);
            let mut retries = 0;
            while workers.workers[at].checkpoint(self.projection) < target {
                self.progress.go_on()?;
                let started = Instant::now();
                match workers.workers[at].step() {
                    Ok(Step::Moved) => retries = 0,
                    // The log's end is behind the target by now, or not yet seen again.
                    Ok(Step::CaughtUp(_) | Step::Paused | Step::Held) => break,
                    Err(trouble) => {
                        retries += 1;
                        let reason = match trouble {
                            Trouble::Busy(reason) | Trouble::Passing(reason) => reason,
                            Trouble::Halt(reason)
                            | Trouble::Constraint(reason)
                            | Trouble::Corrupt(reason) => {
                                retries = RETRIES_MAX;
                                reason
                            }
                        };
                        if retries >= RETRIES_MAX {
                            return Err(ReadModelError::Halted { partition, reason }.into());
                        }
                        std::thread::sleep(RETRY_AFTER);
                    }
                }
                self.progress.set_done(self.applied(workers));
                let shard = self.board.read_model().shard_of(partition);
                self.give_way(shard, started.elapsed() * workers.live_share);
            }
        }
        Ok(())
    }

    /// Lets the workers of a file catch up before it takes the writer again, for a time at most.
    fn give_way(&self, shard: u16, most: Duration) {
        let model = self.board.read_model();
        // While the live tables are held, everybody waits for this to end.
        if !self.beside_workers || model.is_held(self.projection) {
            return;
        }
        let most = most.min(GIVE_WAY_MAX);
        let started = Instant::now();
        let is_behind = |partition| {
            let end = self.board.log(partition).durable_end();
            Projection::ALL.into_iter().any(|projection| {
                !model.is_paused(projection)
                    && !model.is_held(projection)
                    && model.checkpoints().load(projection, partition) < end
            })
        };
        while started.elapsed() < most
            && !self.progress.is_stopped()
            && model.partitions_of(shard).any(is_behind)
        {
            std::thread::sleep(LOOK);
        }
    }

    /// A connection to each file that sees it as it is now, and goes on to.
    fn snapshots(&self, shards: &[u16]) -> Result<Vec<Connection>, ReadModelError> {
        let model = self.board.read_model();
        let begin = |shard: &u16| {
            let first = PartitionId::new(*shard);
            let connection = model.worker_reader(first)?;
            // The first read takes the snapshot.
            connection
                .execute_batch("BEGIN; SELECT count(*) FROM Checkpoint")
                .map_err(ReadModelError::sqlite(model.path_of(first)))?;
            Ok(connection)
        };
        shards.iter().map(begin).collect()
    }

    fn compare(&self, side: Side, snapshots: &[Connection]) -> Result<(), TaskEnd> {
        let model = self.board.read_model();
        let failed = || ReadModelError::sqlite(model.path_of(PartitionId::new(0)));
        let rows = |connection, side| Rows { connection, side };
        let mut total = 0;
        for connection in snapshots {
            total += rows_to_compare(self.projection, rows(connection, side)).map_err(failed())?;
        }
        self.progress.begin(Phase::Comparing, total)?;
        let mut findings = Findings::default();
        for connection in snapshots {
            let before = findings.rows;
            let seen = compare(
                self.projection,
                rows(connection, Side::Live),
                rows(connection, side),
                &mut |difference| findings.add(difference),
                &mut |seen| {
                    self.progress.set_done(before + seen);
                    if self.progress.is_stopped() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            );
            findings.rows = before + seen.map_err(failed())?;
            self.progress.go_on()?;
        }
        self.progress.found(findings);
        Ok(())
    }

    fn with_writer<T>(
        &self,
        shard: u16,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadModelError> {
        let model = self.board.read_model();
        // The first partition of a file has its number.
        let first = PartitionId::new(shard);
        let mut writer = model.writer(first);
        work(&mut writer).map_err(ReadModelError::sqlite(model.path_of(first)))
    }
}

/// The board's reading end of a partition: a rebuild needs one long after the log was handed over.
#[derive(Debug)]
struct BoardsLog {
    board: Arc<Board>,
    partition: PartitionId,
}

impl BoardsLog {
    fn log(&self) -> &dyn PartitionReader {
        self.board.log(self.partition)
    }
}

impl PartitionReader for BoardsLog {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn start(&self) -> Offset {
        self.log().start()
    }

    fn durable_end(&self) -> Offset {
        self.log().durable_end()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.log().wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.log().scan(from, limit, visit)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        self.log().seek_time(time)
    }
}
