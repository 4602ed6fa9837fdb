//! Batches of the partitions that share a file, committed in one transaction.
//!
//! New orders come in the order of their ids, whichever partition they are in. Committed apart, the batches of four
//! partitions write the same pages one after the other and push rows in between rows; committed together they are one run
//! of rows at the end of the table, and each page is written once.
//!
//! There is no thread for it: whoever gets the file's writer commits for everybody who has folded by then, and waits a
//! moment for those who are about to. Who was committed for finds the outcome when the writer is free. What holds of a
//! transaction of one batch holds of each batch here: its rows and its checkpoint are in it together.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use order_log::{Offset, PartitionId};
use rusqlite::Connection;

use crate::fold::Changes;
use crate::projection_set::ProjectionSet;
use crate::read_model::Generations;
use crate::trouble::Trouble;

/// Most bytes of frames committed together, unless one batch alone has more: whoever else needs the file's writer waits as
/// long as that takes.
const JOINT_BYTES_MAX: u64 = 16 << 20;

/// Longest that the one with the writer waits for others to fold.
const PATIENCE_MAX: Duration = Duration::from_millis(50);

/// A folded batch, ready to be written.
#[derive(Debug)]
pub(crate) struct FoldedBatch {
    pub(crate) partition: PartitionId,
    /// Whose changes these are.
    pub(crate) group: ProjectionSet,
    /// The switches of tables that were known when it was folded.
    pub(crate) generations: Generations,
    /// The checkpoint before and after.
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// Idempotency keys appended before this are forgotten, in microseconds since the Unix epoch.
    pub(crate) keys_since: u64,
    /// Bytes of the frames it was folded from.
    pub(crate) bytes: u64,
    pub(crate) changes: Changes,
}

/// The projections that a batch was committed for; none if it is to be folded again.
pub(crate) type Outcome = Result<ProjectionSet, Trouble>;

/// A batch that somebody committed, or tried to.
#[derive(Debug)]
struct Finished {
    batch: FoldedBatch,
    outcome: Outcome,
}

/// The meeting place of the workers of one file.
#[derive(Debug, Default)]
pub(crate) struct Joint {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many are folding a batch, or were called to.
    folding: usize,
    /// How many let frames come together.
    gathering: usize,
    /// Counts calls.
    calls: u64,
    folded: Vec<FoldedBatch>,
    finished: Vec<Finished>,
}

/// One that folds a batch: whoever commits meanwhile waits a moment for it.
#[derive(Debug)]
pub(crate) struct Folding {
    joint: Arc<Joint>,
    since: Instant,
}

impl Joint {
    /// Says that a worker begins to fold, and calls those that let frames come together, if it is `worth_a_call`.
    pub(crate) fn begin(self: &Arc<Self>, worth_a_call: bool) -> Folding {
        let mut state = self.state();
        state.folding += 1;
        if worth_a_call && state.gathering > 0 {
            state.folding += state.gathering;
            state.gathering = 0;
            state.calls += 1;
            self.changed.notify_all();
        }
        drop(state);
        Folding::now(self)
    }

    /// Lets frames come together for so long, or until another worker begins to fold: then it is time for this one, too.
    pub(crate) fn gather(self: &Arc<Self>, time: Duration) -> Option<Folding> {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        state.gathering += 1;
        let calls = state.calls;
        while state.calls == calls {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.gathering -= 1;
                return None;
            }
            state = self.wait(state, left);
        }
        drop(state);
        Some(Folding::now(self))
    }

    /// Commits a batch, with those of others, or has it committed by one of them. `commit` gets the writer, and answers
    /// for every batch; `lock` waits for the writer.
    pub(crate) fn commit<'w>(
        &self,
        folding: Folding,
        batch: FoldedBatch,
        lock: impl FnOnce() -> MutexGuard<'w, Connection>,
        commit: impl FnOnce(&mut Connection, &[FoldedBatch]) -> Vec<Outcome>,
    ) -> (Changes, Outcome) {
        let partition = batch.partition;
        // Who takes as long as this one is worth waiting for.
        let patience = folding.since.elapsed().min(PATIENCE_MAX);
        self.state().folded.push(batch);
        drop(folding);
        let mut writer = lock();
        if let Some(finished) = self.take_finished(partition) {
            return (finished.batch.changes, finished.outcome);
        }
        let mut attempt = Attempt {
            joint: self,
            leader: partition,
            batches: self.take_folded(partition, patience),
            outcomes: Vec::new(),
        };
        attempt.outcomes = commit(&mut writer, &attempt.batches);
        drop(attempt);
        // Before anybody else gets the writer.
        let finished = self.take_finished(partition);
        drop(writer);
        let finished = finished.expect("an attempt answers for every batch, this one among them");
        (finished.batch.changes, finished.outcome)
    }

    /// What is folded, after those who are about to fold have had their time: the batch of `partition`, and of the others as
    /// many as fit. Who is left out finds the writer free next.
    fn take_folded(&self, partition: PartitionId, patience: Duration) -> Vec<FoldedBatch> {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        while state.folding > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait(state, left);
        }
        let mut bytes: u64 = state
            .folded
            .iter()
            .filter(|batch| batch.partition == partition)
            .map(|batch| batch.bytes)
            .sum();
        let fits = |batch: &mut FoldedBatch| {
            if batch.partition == partition {
                return true;
            }
            let fits = bytes + batch.bytes <= JOINT_BYTES_MAX;
            if fits {
                bytes += batch.bytes;
            }
            fits
        };
        state.folded.extract_if(.., fits).collect()
    }

    fn take_finished(&self, partition: PartitionId) -> Option<Finished> {
        let mut state = self.state();
        let at = state
            .finished
            .iter()
            .position(|finished| finished.batch.partition == partition)?;
        Some(state.finished.swap_remove(at))
    }

    /// How many batches are ready to be committed.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state().folded.len()
    }

    /// How many fold.
    #[cfg(test)]
    pub(crate) fn folding(&self) -> usize {
        self.state().folding
    }

    /// How many let frames come together.
    #[cfg(test)]
    pub(crate) fn gathering(&self) -> usize {
        self.state().gathering
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, time: Duration) -> MutexGuard<'s, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Folding {
    fn now(joint: &Arc<Joint>) -> Self {
        Self {
            joint: Arc::clone(joint),
            since: Instant::now(),
        }
    }
}

impl Drop for Folding {
    fn drop(&mut self) {
        let mut state = self.joint.state();
        state.folding -= 1;
        let none_left = state.folding == 0;
        drop(state);
        if none_left {
            self.joint.changed.notify_all();
        }
    }
}

/// Batches one worker commits for all: each gets an answer, even if that worker panics.
struct Attempt<'j> {
    joint: &'j Joint,
    leader: PartitionId,
    batches: Vec<FoldedBatch>,
    outcomes: Vec<Outcome>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let unanswered = || {
            let reason = "the worker that committed for several partitions failed by a bug; restart the service";
            Err(Trouble::Halt(reason.to_owned()))
        };
        let outcomes = self.outcomes.drain(..).map(Some);
        let outcomes = outcomes.chain(std::iter::repeat_with(|| None));
        // Who panicked asks no more.
        let gone = std::thread::panicking().then_some(self.leader);
        let finished = self.batches.drain(..).zip(outcomes);
        let finished = finished.filter(|(batch, _)| Some(batch.partition) != gone);
        let finished = finished.map(|(batch, outcome)| Finished {
            batch,
            outcome: outcome.unwrap_or_else(unanswered),
        });
        self.joint.state().finished.extend(finished);
    }
}
