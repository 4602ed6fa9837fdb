//! Durability mutants: each names one thing the write path does for durability, so that the suite can take it away and
//! prove that it notices.
//!
//! Outside this room's own tests [`keeps`] is a constant `true`: the shipped code has no switch.

/// One thing that can be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The sync of a batch before it is acknowledged.
    BatchSync,
    /// Publishing the durable end only after the sync.
    PublishAfterSync,
    /// The sync of the footer and all frames before the next segment gets its name.
    SealSync,
    /// The sync of a segment's header before it gets its name.
    HeaderSync,
    /// The sync of the directory after a segment got its name.
    DirectorySync,
    /// The sync of a partition's directory at open.
    DirectoryResync,
    /// The sync of the parent after a directory was made.
    ParentSync,
    /// Verifying a frame header's checksum.
    HeaderChecksum,
    /// Verifying a frame body's checksum.
    BodyChecksum,
    /// Log id and partition in the header's checksum.
    Identity,
    /// The synced watermark in every frame.
    Watermark,
    /// The marker of an idle log.
    IdleMarker,
    /// Refusing a frame of an older epoch behind a newer one.
    EpochOrder,
    /// A new epoch at each open.
    EpochAdvance,
    /// Noting the epoch before the first write, when the disk was too full for it at open.
    EpochNoted,
    /// Writing unproven frames again at open.
    TailRewrite,
    /// Zeroing a torn tail.
    TailZero,
    /// Clearing the footer of a segment that is written on.
    FooterClear,
    /// The sync of a damaged segment's copy before a repair replaces it.
    AsideSync,
    /// The sync of a repaired segment before it takes the damaged one's name.
    ReplacementSync,
    /// The sync of the directory after a repaired segment took its name.
    ReplacementName,
    /// Removing a damaged segment's indexes before a repair replaces it.
    StaleIndexes,
    /// Poisoning after a failed sync.
    Poison,
    /// The lock on the data directory.
    Lock,
    /// The sync of an archive before it takes a segment's place.
    ArchiveSync,
    /// The sync of the directory after an archive got its name, before the segment loses its own.
    ArchiveName,
}

#[cfg(test)]
impl Mutant {
    /// What is taken away, in words.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::BatchSync => "The sync of a batch before it is acknowledged",
            Self::PublishAfterSync => "Publishing the durable end only after the sync",
            Self::SealSync => {
                "The sync of the footer and all frames before the next segment gets its name"
            }
            Self::HeaderSync => "The sync of a segment's header before it gets its name",
            Self::DirectorySync => "The sync of the directory after a segment got its name",
            Self::DirectoryResync => "The sync of a partition's directory at open",
            Self::ParentSync => "The sync of the parent after a directory was made",
            Self::HeaderChecksum => "Verifying a frame header's checksum",
            Self::BodyChecksum => "Verifying a frame body's checksum",
            Self::Identity => "Log id and partition in the header's checksum",
            Self::Watermark => "The synced watermark in every frame",
            Self::IdleMarker => "The marker of an idle log",
            Self::EpochOrder => "Refusing a frame of an older epoch behind a newer one",
            Self::EpochAdvance => "A new epoch at each open",
            Self::EpochNoted => {
                "Noting the epoch before the first write, when the disk was too full for it at open"
            }
            Self::TailRewrite => "Writing unproven frames again at open",
            Self::TailZero => "Zeroing a torn tail",
            Self::FooterClear => "Clearing the footer of a segment that is written on",
            Self::AsideSync => "The sync of a damaged segment's copy before a repair replaces it",
            Self::ReplacementSync => {
                "The sync of a repaired segment before it takes the damaged one's name"
            }
            Self::ReplacementName => {
                "The sync of the directory after a repaired segment took its name"
            }
            Self::StaleIndexes => {
                "Removing a damaged segment's indexes before a repair replaces it"
            }
            Self::Poison => "Poisoning after a failed sync",
            Self::Lock => "The lock on the data directory",
            Self::ArchiveSync => "The sync of an archive before it takes a segment's place",
            Self::ArchiveName => {
                "The sync of the directory after an archive got its name, before the segment loses its own"
            }
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
