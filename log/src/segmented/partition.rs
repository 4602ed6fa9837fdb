//! What the writer, the readers and the background threads of one partition share.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::Thread;

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
    unsynced: Mutex<Unsynced>,
    /// Held by whoever makes what was left durable: it happens in order.
    syncing_left: Mutex<()>,
    syncing: Mutex<()>,
    /// The thread that makes durable what was left; empty if none does.
    flusher: OnceLock<Thread>,
    /// Tells other processes; empty if none follow.
    teller: OnceLock<EndTeller>,
}

/// What a background sync has to make durable: the rolls first, in order.
#[derive(Debug, Default)]
struct Unsynced {
    rolls: VecDeque<Roll>,
    /// Everything before this offset stands in this file, or in segments before it.
    last: Option<(Offset, Arc<dyn DiskFile>)>,
}

/// A segment that is full and has its footer, and the one behind it, which is written already and gets its name when the
/// full one is on stable storage.
#[derive(Debug, Clone)]
pub(super) struct Roll {
    pub(super) full: Arc<Segment>,
    pub(super) full_file: Arc<dyn DiskFile>,
    pub(super) next: Waiting,
    /// Offset of the next segment's first record.
    pub(super) base: Offset,
}

/// A segment that is complete but for its name.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) from: PathBuf,
    pub(super) path: PathBuf,
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
            unsynced: Mutex::default(),
            syncing_left: Mutex::new(()),
            syncing: Mutex::new(()),
            flusher: OnceLock::new(),
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
        self.unsynced().last = Some((end, Arc::clone(file)));
    }

    /// Leaves a roll to the background; returns how many wait.
    pub(super) fn leave_roll(&self, roll: Roll) -> usize {
        let mut unsynced = self.unsynced();
        unsynced.rolls.push_back(roll);
        let waiting = unsynced.rolls.len();
        drop(unsynced);
        if let Some(flusher) = self.flusher.get() {
            flusher.unpark();
        }
        waiting
    }

    /// Has this thread woken when there is much to make durable.
    pub(super) fn flush_with(&self, flusher: Thread) {
        let first = self.flusher.set(flusher);
        debug_assert!(first.is_ok(), "a partition gets its flusher once");
    }

    fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a segment its name; it and the name are durable on return.
    pub(super) fn name(&self, segment: &Waiting) -> io::Result<()> {
        if keeps(Mutant::HeaderSync) {
            segment.file.sync_data()?;
        }
        self.disk.rename(&segment.from, &segment.path)?;
        if keeps(Mutant::DirectorySync) {
            self.disk.sync_directory(&self.directory)?;
        }
        Ok(())
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
        let in_order = self.in_order();
        self.finish_rolls(&in_order)?;
        // One look at both: a segment is not synced before those in front of it are.
        let unsynced = self.unsynced();
        let last = if unsynced.rolls.is_empty() {
            unsynced.last.clone()
        } else {
            None
        };
        drop(unsynced);
        let Some((end, file)) = last else {
            return Ok(());
        };
        if end > self.durable_end.load() {
            self.check_writable()?;
            self.or_poison(self.sync(&*file))?;
            self.publish(end);
        }
        Ok(())
    }

    /// Of what was left unsynced, finishes the rolls; returns whether there was one. A failure poisons the partition.
    pub(super) fn sync_rolls(&self) -> Result<bool, LogError> {
        self.finish_rolls(&self.in_order())
    }

    fn in_order(&self) -> MutexGuard<'_, ()> {
        self.syncing_left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that come meanwhile are left to the next call: other partitions wait for the same thread.
    fn finish_rolls(&self, _in_order: &MutexGuard<'_, ()>) -> Result<bool, LogError> {
        let rolls = self.unsynced().rolls.len();
        for _ in 0..rolls {
            let Some(roll) = self.unsynced().rolls.front().cloned() else {
                break;
            };
            self.check_writable()?;
            self.or_poison(self.finish_roll(&roll))?;
            self.unsynced().rolls.pop_front();
        }
        Ok(rolls > 0)
    }

    /// Makes a full segment durable, gives the next one its name, and makes the full one visible. In this order: whoever
    /// sees a record finds everything before it proven, and no frame of a segment without a name was ever synced.
    fn finish_roll(&self, roll: &Roll) -> io::Result<()> {
        if keeps(Mutant::SealSync) {
            self.sync(&*roll.full_file)?;
        }
        self.name(&roll.next)?;
        self.publish(roll.base);
        if let Err(error) = roll.full.save_hints() {
            tracing::warn!(%error, "an index was not saved; it will be rebuilt when needed");
        }
        Ok(())
    }

    fn or_poison(&self, result: io::Result<()>) -> Result<(), LogError> {
        result.map_err(|source| {
            self.poison(&source);
            LogError::OutcomeUnknown {
                partition: self.id,
                at: self.durable_end.load(),
                source,
            }
        })
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
