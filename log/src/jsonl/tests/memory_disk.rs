//! A disk of one file in memory. It keeps apart what is written and what is synced, and its syncs can be held, counted
//! and made to fail. No test that uses it sleeps.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::disk::{Disk, DiskFile, Map};

/// Long enough that only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(super) struct MemoryDisk {
    file: Arc<MemoryFile>,
}

#[derive(Debug, Default)]
struct MemoryFile {
    state: Mutex<State>,
    changed: Condvar,
}

/// What the file is, what happened to it, and what is to happen.
#[derive(Debug, Default)]
pub(super) struct State {
    exists: bool,
    /// What a read shows.
    pub(super) cache: Vec<u8>,
    /// What a power loss leaves.
    durable: Vec<u8>,
    dirty: Vec<Range<usize>>,
    pub(super) writes: usize,
    pub(super) syncs_begun: usize,
    pub(super) syncs_ended: usize,
    pub(super) directory_syncs: usize,
    /// Syncs block while this is set and none is let through.
    holds_syncs: bool,
    syncs_let_through: usize,
    /// The file cannot grow beyond this.
    pub(super) bytes_max: Option<usize>,
    pub(super) fails_writes: bool,
    pub(super) fails_syncs: bool,
    pub(super) fails_cuts: bool,
}

impl State {
    fn write(&mut self, bytes: &[u8], at: usize) {
        let end = at + bytes.len();
        if self.cache.len() < end {
            self.cache.resize(end, 0);
        }
        self.cache[at..end].copy_from_slice(bytes);
        self.dirty.push(at..end);
    }

    /// Syncs block no more.
    pub(super) fn syncs_let_through_for_good(&mut self) {
        self.holds_syncs = false;
    }

    fn sync(&mut self) {
        self.durable.resize(self.cache.len(), 0);
        for range in self.dirty.drain(..) {
            // What was cut since is not dirty any more.
            let range = range.start.min(self.cache.len())..range.end.min(self.cache.len());
            self.durable[range.clone()].copy_from_slice(&self.cache[range]);
        }
    }
}

impl MemoryDisk {
    /// A disk whose file holds `bytes`, synced.
    pub(super) fn holding(bytes: &[u8]) -> Arc<Self> {
        let disk = Arc::new(Self::default());
        disk.change(|state| {
            state.exists = true;
            state.cache = bytes.to_vec();
            state.durable = bytes.to_vec();
        });
        disk
    }

    pub(super) fn empty() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Looks at the file, or changes what is to happen to it.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.file.lock());
        self.file.changed.notify_all();
        changed
    }

    pub(super) fn contents(&self) -> Vec<u8> {
        self.file.lock().cache.clone()
    }

    /// From now on a sync blocks until it is let through.
    pub(super) fn hold_syncs(&self) {
        self.change(|state| state.holds_syncs = true);
    }

    /// Lets one held sync through, now or when it comes.
    pub(super) fn let_one_sync_through(&self) {
        self.change(|state| state.syncs_let_through += 1);
    }

    /// Blocks until the file is as wanted.
    pub(super) fn wait_until(&self, is_so: impl Fn(&State) -> bool) {
        let (_state, timeout) = self
            .file
            .changed
            .wait_timeout_while(self.file.lock(), HANG, |state| !is_so(state))
            .unwrap();
        assert!(!timeout.timed_out(), "waited in vain");
    }

    /// Takes away what is not synced.
    pub(super) fn lose_power(&self) {
        self.change(|state| {
            state.cache.clone_from(&state.durable);
            state.dirty.clear();
        });
    }
}

impl MemoryFile {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn fault() -> io::Error {
    io::Error::other("simulated fault")
}

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.lock().cache.len() as u64)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.lock();
        let at = usize::try_from(position).unwrap();
        let room = state
            .bytes_max
            .map_or(bytes.len(), |most| most.saturating_sub(at).min(bytes.len()));
        state.writes += 1;
        let outcome = if state.fails_writes {
            // Half of it arrives, as can be.
            state.write(&bytes[..bytes.len() / 2], at);
            Err(fault())
        } else {
            state.write(&bytes[..room], at);
            if room == bytes.len() {
                Ok(())
            } else {
                Err(io::ErrorKind::StorageFull.into())
            }
        };
        drop(state);
        self.changed.notify_all();
        outcome
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let state = self.lock();
        let at = usize::try_from(position).unwrap();
        let found = state
            .cache
            .get(at..at + bytes.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        state.syncs_begun += 1;
        self.changed.notify_all();
        // What is written while the sync runs is none of its business.
        let mut dirty = std::mem::take(&mut state.dirty);
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, HANG, |state| {
                state.holds_syncs && state.syncs_let_through == 0
            })
            .unwrap();
        assert!(!timeout.timed_out(), "a sync was never let through");
        state.syncs_let_through = state.syncs_let_through.saturating_sub(1);
        let outcome = if state.fails_syncs {
            // As Linux does it: the cache keeps the bytes and calls them clean.
            Err(fault())
        } else {
            let written_since = std::mem::take(&mut state.dirty);
            state.dirty.append(&mut dirty);
            state.sync();
            state.dirty = written_since;
            Ok(())
        };
        state.syncs_ended += 1;
        self.changed.notify_all();
        outcome
    }

    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.fails_cuts {
            return Err(fault());
        }
        state.cache.resize(usize::try_from(bytes).unwrap(), 0);
        Ok(())
    }

    fn map(&self) -> io::Result<Map> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _path: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create(&self, _path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let was_there = self.change(|state| std::mem::replace(&mut state.exists, true));
        assert!(!was_there, "the file is made once");
        Ok(Arc::clone(&self.file) as _)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open_read_only(path)
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        assert_eq!(path, Path::new(super::PATH));
        if self.change(|state| state.exists) {
            Ok(Arc::clone(&self.file) as _)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        assert_eq!(path, Path::new("data"));
        self.change(|state| state.directory_syncs += 1);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
