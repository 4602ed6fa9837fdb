//! Durability mutants: each names one thing that keeps rows and checkpoint together, so that the suites can take it away
//! and prove that they notice.
//!
//! Outside this room's own tests [`keeps`] is a constant `true`: the shipped code has no switch.

/// One thing that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Moving the checkpoint only from where this worker left it.
    CompareAndSet,
    /// Rows and checkpoint in one transaction.
    OneTransaction,
    /// Telling a checkpoint only after its transaction.
    ToldAfterCommit,
}

#[cfg(test)]
impl Mutant {
    pub(crate) const ALL: [Self; 3] = [
        Self::CompareAndSet,
        Self::OneTransaction,
        Self::ToldAfterCommit,
    ];

    /// What is taken away, in words.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::CompareAndSet => {
                "Compare-and-set of the checkpoint: only from where this worker left it"
            }
            Self::OneTransaction => "Rows and checkpoint in one transaction",
            Self::ToldAfterCommit => "Telling a checkpoint only after its transaction",
        }
    }
}

#[cfg(test)]
thread_local! {
    static REMOVED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether the code does what `mutant` names.
#[cfg(test)]
pub(crate) fn keeps(mutant: Mutant) -> bool {
    REMOVED.get() != Some(mutant)
}

/// Whether the code does what `mutant` names: it does.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn keeps(_: Mutant) -> bool {
    true
}

/// Runs `suite` on this thread with one thing taken away.
#[cfg(test)]
pub(crate) fn without<T>(mutant: Mutant, suite: impl FnOnce() -> T) -> T {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            REMOVED.set(None);
        }
    }
    REMOVED.set(Some(mutant));
    let _restore = Restore;
    suite()
}
