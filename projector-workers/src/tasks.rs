//! Long work on a projection's tables, asked for by an operator: rebuild them beside the live ones, switch back, discard
//! the old ones, make their indexes anew. One at a time, on a thread of its own, with its progress told.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::board::Board;
use crate::difference::Difference;
use crate::rebuild::Rebuild;
use crate::workers::panic_text;
use crate::{Projection, ProjectorConfig, ReadModelError};

/// Differences that are kept of a comparison; the others are counted.
const DIFFERENCES_KEPT: usize = 20;

/// What is done to a projection's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fold the log into new tables beside the live ones, compare, and switch. The live ones are kept as the old ones.
    Rebuild,
    /// Bring the old tables up to date, compare, and switch back to them.
    SwitchBack,
    /// Delete the old tables, and what an unfinished rebuild left.
    DiscardOld,
    /// Make the indexes of the live tables anew. The projection stands still meanwhile, reads go on.
    Reindex,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Rebuild,
        Self::SwitchBack,
        Self::DiscardOld,
        Self::Reindex,
    ];

    /// The name in paths, commands and answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::SwitchBack => "switch-back",
            Self::DiscardOld => "discard-old",
            Self::Reindex => "reindex",
        }
    }
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Clearing away what an unfinished one left, making tables.
    Preparing,
    /// Folding the log; progress counts records.
    Folding,
    /// Comparing with the live rows; progress counts rows.
    Comparing,
    /// Catching up with the live tables for the last time, and switching.
    Switching,
    /// Deleting rows, or making indexes.
    Working,
    /// Done.
    Done,
    /// Stopped before its end, by request or because the service stopped. Live tables are as they were.
    Stopped,
    /// Ended by what `error` says.
    Failed,
}

impl Phase {
    /// The name in answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Folding => "folding",
            Self::Comparing => "comparing",
            Self::Switching => "switching",
            Self::Working => "working",
            Self::Done => "done",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether the task is over.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Stopped | Self::Failed)
    }
}

/// A task as seen now.
#[derive(Debug, Clone)]
pub struct TaskStatus {
    /// On which projection.
    pub projection: Projection,
    /// What is done.
    pub action: Action,
    /// Where it is.
    pub phase: Phase,
    /// How much of the phase is done, in its unit.
    pub done: u64,
    /// How much there is to do in the phase, as far as is known.
    pub total: u64,
    /// What a comparison found, once there was one.
    pub findings: Option<Findings>,
    /// Why it failed.
    pub error: Option<String>,
    /// How long it took so far.
    pub elapsed: Duration,
}

/// What a comparison found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Rows looked at.
    pub rows: u64,
    /// Rows that differ.
    pub differences: u64,
    /// The first of them.
    pub first: Vec<Difference>,
}

impl Findings {
    pub(crate) fn add(&mut self, difference: Difference) {
        self.differences += 1;
        if self.first.len() < DIFFERENCES_KEPT {
            self.first.push(difference);
        }
    }
}

/// Why a task did not come to its end.
#[derive(Debug)]
pub(crate) enum TaskEnd {
    Stopped,
    Failed(ReadModelError),
}

impl From<ReadModelError> for TaskEnd {
    fn from(error: ReadModelError) -> Self {
        Self::Failed(error)
    }
}

/// What a task says about itself, and whether it should stop.
#[derive(Debug)]
pub(crate) struct Progress {
    status: Mutex<(TaskStatus, Instant)>,
    stop: AtomicBool,
    /// Where a test wants it to stop.
    #[cfg(test)]
    stop_at: Mutex<Option<Phase>>,
}

impl Progress {
    fn new(projection: Projection, action: Action) -> Self {
        let status = TaskStatus {
            projection,
            action,
            phase: Phase::Preparing,
            done: 0,
            total: 0,
            findings: None,
            error: None,
            elapsed: Duration::ZERO,
        };
        Self {
            status: Mutex::new((status, Instant::now())),
            stop: AtomicBool::new(false),
            #[cfg(test)]
            stop_at: Mutex::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (TaskStatus, Instant)> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> TaskStatus {
        let guard = self.lock();
        let mut status = guard.0.clone();
        if !status.phase.is_over() {
            status.elapsed = guard.1.elapsed();
        }
        status
    }

    /// Begins a phase.
    pub(crate) fn begin(&self, phase: Phase, total: u64) -> Result<(), TaskEnd> {
        let mut guard = self.lock();
        guard.0.phase = phase;
        guard.0.done = 0;
        guard.0.total = total;
        drop(guard);
        #[cfg(test)]
        if *self.stop_at.lock().unwrap() == Some(phase) {
            self.stop.store(true, Ordering::SeqCst);
        }
        self.go_on()
    }

    pub(crate) fn set_done(&self, done: u64) {
        let mut guard = self.lock();
        guard.0.done = done;
        guard.0.total = guard.0.total.max(done);
    }

    pub(crate) fn found(&self, findings: Findings) {
        self.lock().0.findings = Some(findings);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// An end, if the task was asked to stop.
    pub(crate) fn go_on(&self) -> Result<(), TaskEnd> {
        if self.is_stopped() {
            Err(TaskEnd::Stopped)
        } else {
            Ok(())
        }
    }

    fn end(&self, outcome: Result<(), TaskEnd>) {
        let mut guard = self.lock();
        let elapsed = guard.1.elapsed();
        let status = &mut guard.0;
        status.elapsed = elapsed;
        let (projection, action) = (status.projection.name(), status.action.name());
        match outcome {
            Ok(()) => {
                status.phase = Phase::Done;
                let differences = status.findings.as_ref().map(|it| it.differences);
                tracing::info!(projection, action, differences, "done");
            }
            Err(TaskEnd::Stopped) => {
                status.phase = Phase::Stopped;
                tracing::warn!(projection, action, "stopped before its end");
            }
            Err(TaskEnd::Failed(error)) => {
                status.phase = Phase::Failed;
                status.error = Some(error.to_string());
                tracing::error!(projection, action, %error, "failed");
            }
        }
    }
}

/// The tasks of one read model.
#[derive(Debug)]
pub struct ProjectionTasks {
    board: Arc<Board>,
    config: ProjectorConfig,
    /// Whether workers go on with the live tables meanwhile.
    beside_workers: bool,
    current: Mutex<Option<(Arc<Progress>, JoinHandle<()>)>>,
}

impl ProjectionTasks {
    pub(crate) fn new(board: Arc<Board>, config: ProjectorConfig, beside_workers: bool) -> Self {
        Self {
            board,
            config,
            beside_workers,
            current: Mutex::new(None),
        }
    }

    /// Begins a task; [`ProjectionTasks::status`] tells how it goes.
    ///
    /// # Errors
    /// [`ReadModelError::Unfit`] if another task runs, or the tables are not such that this one makes sense.
    pub fn start(&self, projection: Projection, action: Action) -> Result<(), ReadModelError> {
        self.launch(Progress::new(projection, action))
    }

    /// Begins a task that stops where a phase begins.
    #[cfg(test)]
    pub(crate) fn start_until(
        &self,
        projection: Projection,
        action: Action,
        stop_at: Phase,
    ) -> Result<(), ReadModelError> {
        let progress = Progress::new(projection, action);
        *progress.stop_at.lock().unwrap() = Some(stop_at);
        self.launch(progress)
    }

    fn launch(&self, progress: Progress) -> Result<(), ReadModelError> {
        let TaskStatus {
            projection, action, ..
        } = progress.status();
        let mut current = self.lock();
        if let Some((progress, _)) = current.as_ref() {
            let running = progress.status();
            if !running.phase.is_over() {
                return Err(ReadModelError::Unfit(format!(
                    "{} of {} is running: wait for its end, or cancel it",
                    running.action.name(),
                    running.projection.name()
                )));
            }
        }
        let progress = Arc::new(progress);
        let rebuild = Rebuild {
            board: Arc::clone(&self.board),
            config: self.config.clone(),
            projection,
            progress: Arc::clone(&progress),
            beside_workers: self.beside_workers,
        };
        rebuild.check(action)?;
        let name = format!("projection-{}", action.name());
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                // A panic is a bug: told, and rolled back by the transaction it unwinds through.
                let work = AssertUnwindSafe(|| rebuild.run(action));
                let outcome = catch_unwind(work).unwrap_or_else(|panic| {
                    let reason = format!("panicked: {}", panic_text(&*panic));
                    Err(TaskEnd::Failed(ReadModelError::Unfit(reason)))
                });
                rebuild.progress.end(outcome);
            })
            .map_err(|source| ReadModelError::Io {
                action: "start thread",
                path: PathBuf::from(name),
                source,
            })?;
        if let Some((_, ended)) = current.replace((progress, thread)) {
            // It is over; panics are caught inside.
            ended.join().ok();
        }
        Ok(())
    }

    /// The task that runs, or the last that did since the start.
    #[must_use]
    pub fn status(&self) -> Option<TaskStatus> {
        self.lock().as_ref().map(|(progress, _)| progress.status())
    }

    /// Asks the task of a projection to stop; it does so within moments.
    ///
    /// # Errors
    /// [`ReadModelError::Unfit`] if none runs.
    pub fn cancel(&self, projection: Projection) -> Result<(), ReadModelError> {
        let current = self.lock();
        let running = current.as_ref().filter(|(progress, _)| {
            let status = progress.status();
            status.projection == projection && !status.phase.is_over()
        });
        let (progress, _) = running.ok_or_else(|| {
            ReadModelError::Unfit(format!("nothing runs on {}", projection.name()))
        })?;
        progress.stop.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Stops the task, if one runs, and waits for it.
    pub(crate) fn stop(&self) {
        if let Some((progress, thread)) = self.lock().take() {
            progress.stop.store(true, Ordering::SeqCst);
            // Panics are caught inside.
            thread.join().ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Arc<Progress>, JoinHandle<()>)>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ProjectionTasks {
    fn drop(&mut self) {
        self.stop();
    }
}
