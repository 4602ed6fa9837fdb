//! The points where a crash would hurt most, and the way for tests to stop a worker there.

use crate::trouble::Trouble;

/// A step of a worker at which it can be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CrashPoint {
    /// Folded, the writer not taken.
    AfterFold,
    /// The writer taken, no transaction open.
    BeforeBegin,
    /// Rows written, checkpoint not.
    AfterRows,
    /// Rows and checkpoint written, not committed.
    AfterCheckpoint,
    /// Committed, the new checkpoint known to nobody.
    AfterCommit,
}

/// What a test wants to happen at a point.
#[cfg(test)]
type Action = Box<dyn FnOnce() -> Result<(), Trouble> + Send>;

/// Where to stop; outside of tests, nowhere.
#[derive(Default)]
pub(crate) struct Crashes {
    #[cfg(test)]
    armed: std::cell::Cell<Option<(CrashPoint, Action)>>,
    /// Whether every point after the one that was armed fails as well.
    #[cfg(test)]
    for_good: std::cell::Cell<bool>,
}

impl std::fmt::Debug for Crashes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Crashes").finish_non_exhaustive()
    }
}

impl Crashes {
    /// Stops the worker at a point.
    #[cfg(test)]
    pub(crate) fn arm(&self, point: CrashPoint) {
        let crash = move || Err(Trouble::Halt(format!("crashed at {point:?}")));
        self.arm_with(point, crash);
    }

    /// Stops the worker at a point, and wherever it goes on then.
    #[cfg(test)]
    pub(crate) fn arm_for_good(&self, point: CrashPoint) {
        self.for_good.set(true);
        self.arm(point);
    }

    /// Does something at a point, once.
    #[cfg(test)]
    pub(crate) fn arm_with(
        &self,
        point: CrashPoint,
        action: impl FnOnce() -> Result<(), Trouble> + Send + 'static,
    ) {
        self.armed.set(Some((point, Box::new(action))));
    }

    /// Passes, unless a test has armed this point.
    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "only tests stop a worker"
    )]
    pub(crate) fn here(&self, _point: CrashPoint) -> Result<(), Trouble> {
        Ok(())
    }

    /// Passes, unless a test has armed this point.
    #[cfg(test)]
    pub(crate) fn here(&self, point: CrashPoint) -> Result<(), Trouble> {
        match self.armed.take() {
            Some((armed, action)) if armed == point => action(),
            None if self.for_good.get() => Err(Trouble::Halt("crashed before".to_owned())),
            other => {
                self.armed.set(other);
                Ok(())
            }
        }
    }
}
