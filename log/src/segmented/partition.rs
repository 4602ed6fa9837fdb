//! What the writer, the readers and the background threads of one partition share.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use super::epoch::Epoch;
use super::followed::EndTeller;
use super::preparer::NextSegment;
use super::segment::Segment;
use crate::disk::{Disk, DiskFile};
use crate::durable_end::DurableEnd;
use crate::layout::Identity;
use crate::mutants::{Mutant, keeps};
use crate::{LogError, Offset, PartitionId, PartitionStatus};

/// One partition. `appended >= synced >= visible`: the writer knows what is appended, [`Unsynced`] what must be synced
/// next, `durable_end` what is visible.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) id: PartitionId,
    pub(super) identity: Identity,
    pub(super) directory: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) durable_end: DurableEnd,
    pub(super) next_segment: NextSegment,
    pub(super) active_bytes: AtomicU64,
    /// By base offset; the last one is being written. Never empty.
    segments: RwLock<Arc<Vec<Arc<Segment>>>>,
    poison: OnceLock<String>,
    /// The epoch to write in; a log that was opened for reading has none.
    epoch: Option<Arc<Epoch>>,
    unsynced: Mutex<Option<Unsynced>>,
    syncing: Mutex<()>,
    /// Tells other processes; empty if none follow.
    teller: OnceLock<EndTeller>,
}

/// What a background sync has to make durable.
#[derive(Debug, Clone)]
pub(super) struct Unsynced {
    /// Everything before this offset stands in `file`, or in segments that were sealed and synced.
    pub(super) end: Offset,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Partition {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        directory: PathBuf,
        identity: Identity,
        segments: Vec<Arc<Segment>>,
        durable_end: Offset,
        active_bytes: u64,
        epoch: Option<Arc<Epoch>>,
    ) -> Self {
        Self {
            id: PartitionId::new(identity.partition),
            identity,
            directory,
            disk,
            durable_end: DurableEnd::new(durable_end),
            next_segment: NextSegment::default(),
            active_bytes: AtomicU64::new(active_bytes),
            segments: RwLock::new(Arc::new(segments)),
            poison: OnceLock::new(),
            epoch,
            unsynced: Mutex::new(None),
            syncing: Mutex::new(()),
            teller: OnceLock::new(),
        }
    }

    /// Makes everything before `end`, which is synced, visible: to this process, and to those that follow.
    pub(super) fn publish(&self, end: Offset) {
        self.durable_end.publish(end);
        if let Some(teller) = self.teller.get() {
            teller.tell(self);
        }
    }

    /// Tells other processes of the durable end from now on.
    pub(super) fn tell_with(&self, teller: EndTeller) {
        teller.tell(self);
        let first = self.teller.set(teller);
        debug_assert!(first.is_ok(), "a partition gets its teller once");
    }

    pub(super) fn segments(&self) -> Arc<Vec<Arc<Segment>>> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds the segment that is written from now on. Readers find it before any of its frames is visible.
    pub(super) fn push_segment(&self, segment: Arc<Segment>) {
        let mut segments = self
            .segments
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let mut list = Vec::clone(&segments);
        list.push(segment);
        *segments = Arc::new(list);
    }

    pub(super) fn start(&self) -> Offset {
        Offset::new(self.segments().first().map_or(0, |segment| segment.base))
    }

    /// Writes no more, for ever: the first cause stays.
    pub(super) fn poison(&self, cause: &dyn std::fmt::Display) {
        if keeps(Mutant::Poison) && self.poison.set(cause.to_string()).is_ok() {
            tracing::error!(partition = self.id.get(), %cause, "the partition takes no more writes");
        }
    }

    pub(super) fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(String::as_str)
    }

    /// Whether the partition may be written now: it is not poisoned, and its epoch is on stable storage.
    pub(super) fn check_writable(&self) -> Result<(), LogError> {
        if let Some(cause) = self.poisoned() {
            return Err(LogError::Poisoned {
                partition: self.id,
                cause: cause.to_owned(),
            });
        }
        match &self.epoch {
            Some(epoch) => epoch.ensure_noted(self.id),
            None => Err(LogError::ReadOnly),
        }
    }

    /// Leaves the sync of everything before `end` to the background.
    pub(super) fn leave_unsynced(&self, end: Offset, file: &Arc<dyn DiskFile>) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        *unsynced = Some(Unsynced {
            end,
            file: Arc::clone(file),
        });
    }

    /// Syncs a file of this partition, one sync at a time: the kernel tells a failed write-back to one of two syncs that
    /// race on a descriptor, and the other, told nothing, must not publish what was lost. A failure poisons.
    pub(super) fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cause) = self.poisoned() {
            return Err(io::Error::other(cause.to_owned()));
        }
        file.sync_data().inspect_err(|error| self.poison(error))
    }

    /// Syncs what was left unsynced and makes it visible. A failure poisons the partition.
    pub(super) fn sync_left(&self) -> Result<(), LogError> {
        let left = self
            .unsynced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(Unsynced { end, file }) = left else {
            return Ok(());
        };
        if end <= self.durable_end.load() {
            return Ok(());
        }
        self.check_writable()?;
        self.sync(&*file)
            .map_err(|source| LogError::OutcomeUnknown {
                partition: self.id,
                at: self.durable_end.load(),
                source,
            })?;
        self.publish(end);
        Ok(())
    }

    pub(super) fn status(&self) -> PartitionStatus {
        let segments = self.segments();
        PartitionStatus {
            partition: self.id,
            start: Offset::new(segments.first().map_or(0, |segment| segment.base)),
            durable_end: self.durable_end.load(),
            active_segment_bytes: self.active_bytes.load(Ordering::Relaxed),
            segments: segments.len(),
            unwritable: self.poisoned().map(str::to_owned),
        }
    }
}
