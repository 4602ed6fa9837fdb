//! A disk that loses power: what was synced stays, of the rest any part does.
//!
//! Every file has a volatile image (what the operating system's cache shows) and a durable one. A write changes the
//! volatile image and notes which 512-byte sectors differ; a sync copies them. A power loss keeps any subset of the noted
//! sectors, some of them torn at any byte, and any subset of the directory changes that were not synced. A failed sync
//! behaves as Linux does: the cache keeps the bytes, believes them clean, and no later sync writes them.
//!
//! Operations are counted: the n-th can lose power or fail. The same seed gives the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Map};

const SECTOR_BYTES: usize = 512;

/// Random numbers for tests: splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What goes wrong at a counted operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes: this operation and all later ones fail.
    PowerLoss,
    /// This operation fails once; a sync loses what it should have synced.
    Error(io::ErrorKind),
    /// This and all later operations fail.
    ErrorForever(io::ErrorKind),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl NameChange {
    fn parent(&self) -> Option<&Path> {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, id) => {
                names.insert(path.clone(), *id);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
        }
    }
}

#[derive(Debug)]
struct Image {
    volatile: File,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    length: usize,
}

/// Stands for a directory among the names.
const DIRECTORY: usize = usize::MAX;

#[derive(Debug, Default)]
struct State {
    images: Vec<Image>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    pending: Vec<NameChange>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    free_bytes: u64,
}

/// The simulated disk; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            free_bytes: u64::MAX,
            ..State::default()
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the operation `after` operations from now go wrong; `None` lets none.
    pub(crate) fn set_fault(&self, fault: Option<(u64, Fault)>) {
        let mut state = self.state();
        let now = state.operations;
        state.fault = fault.map(|(after, fault)| (now + after, fault));
    }

    /// Whether the power went.
    pub(crate) fn power_is_gone(&self) -> bool {
        self.state().power_is_gone()
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Bytes that can still be allocated.
    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        self.state().free_bytes = bytes;
    }

    /// A disk that holds these directories and files, all of them durable.
    pub(crate) fn with_files(directories: &[&Path], files: Vec<(PathBuf, Vec<u8>)>) -> Self {
        let mut state = State {
            free_bytes: u64::MAX,
            ..State::default()
        };
        for directory in directories {
            state.names.insert((*directory).to_owned(), DIRECTORY);
        }
        for (path, bytes) in files {
            state.names.insert(path, state.images.len());
            state.images.push(Image::new(bytes));
        }
        state.durable_names = state.names.clone();
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk as it is when the power is back: what was synced, and by chance any part of the rest.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        let keep_all = random.one_in(4);
        let keep_none = random.one_in(4);
        for change in &state.pending {
            if keep_all || (!keep_none && random.one_in(2)) {
                change.apply(&mut names);
            }
        }
        // A name in a directory that is gone is gone.
        let all = names.clone();
        names.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .filter(|parent| parent.parent().is_some())
                .all(|parent| all.contains_key(parent))
        });
        let mut images = Vec::new();
        for id in names.values_mut().filter(|id| **id != DIRECTORY) {
            images.push(state.images[*id].after_power_loss(random));
            *id = images.len() - 1;
        }
        let free_bytes = state.free_bytes;
        let durable_names = names.clone();
        Self(Arc::new(Mutex::new(State {
            images,
            names,
            durable_names,
            free_bytes,
            ..State::default()
        })))
    }
}

impl Image {
    fn new(durable: Vec<u8>) -> Self {
        let volatile =
            rustix::fs::memfd_create("simulated", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let volatile = File::from(volatile);
        volatile.write_all_at(&durable, 0).unwrap();
        let length = durable.len();
        Self {
            volatile,
            durable,
            dirty: BTreeSet::new(),
            length,
        }
    }

    fn volatile_sector(&self, sector: usize) -> Vec<u8> {
        let start = sector * SECTOR_BYTES;
        let mut bytes = vec![0; SECTOR_BYTES.min(self.length.saturating_sub(start))];
        self.volatile
            .read_exact_at(&mut bytes, start as u64)
            .unwrap();
        bytes
    }

    fn sync(&mut self) {
        self.durable.resize(self.length, 0);
        for sector in std::mem::take(&mut self.dirty) {
            let bytes = self.volatile_sector(sector);
            let start = sector * SECTOR_BYTES;
            self.durable[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }

    fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut durable = self.durable.clone();
        // How likely an unsynced sector is there: never, always, or anything between.
        let odds = random.below(5);
        if odds > 0 {
            durable.resize(self.length.max(durable.len()), 0);
        }
        for sector in &self.dirty {
            if random.below(4) >= odds {
                continue;
            }
            let bytes = self.volatile_sector(*sector);
            let start = sector * SECTOR_BYTES;
            let torn = if random.one_in(8) {
                random.below(bytes.len() as u64 + 1)
            } else {
                bytes.len() as u64
            };
            let torn = usize::try_from(torn).unwrap();
            durable[start..start + torn].copy_from_slice(&bytes[..torn]);
        }
        Self::new(durable)
    }
}

impl State {
    /// Counts an operation and says whether it goes wrong.
    fn count(&mut self) -> Result<(), io::Error> {
        self.operations += 1;
        match self.fault {
            Some((at, Fault::PowerLoss)) if self.operations >= at => {
                Err(io::Error::other("the power is gone"))
            }
            Some((at, Fault::Error(kind))) if self.operations == at => Err(kind.into()),
            Some((at, Fault::ErrorForever(kind))) if self.operations >= at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn power_is_gone(&self) -> bool {
        matches!(self.fault, Some((at, Fault::PowerLoss)) if self.operations >= at)
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }
}

impl Disk for SimulatedDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        let ancestors: Vec<&Path> = path.ancestors().collect();
        for made in ancestors.into_iter().rev() {
            if made.parent().is_some() && !state.names.contains_key(made) {
                state.change(NameChange::Link(made.to_owned(), DIRECTORY));
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.count()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = state
            .names
            .keys()
            .filter(|name| name.parent() == Some(path));
        Ok(within
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.count()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.images.push(Image::new(Vec::new()));
        let id = state.images.len() - 1;
        state.change(NameChange::Link(path.to_owned(), id));
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            id,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.count()?;
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            id,
        }))
    }

    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(NameChange::Rename(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.count()?;
        let (synced, rest) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition::<Vec<_>, _>(|change| change.parent() == Some(path));
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        state.pending = rest;
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.state().free_bytes)
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    id: usize,
}

impl DiskFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.count()?;
        Ok(state.images[self.id].length as u64)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let counted = state.count();
        // The write during which the power goes may reach the disk in part; any other failure leaves nothing.
        if counted.is_err() && !state.power_is_gone() {
            return counted;
        }
        let start = usize::try_from(position).unwrap();
        let growth = (start + bytes.len()).saturating_sub(state.images[self.id].length) as u64;
        if growth > state.free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.free_bytes -= growth;
        let image = &mut state.images[self.id];
        image.volatile.write_all_at(bytes, position)?;
        image.length = image.length.max(start + bytes.len());
        image
            .dirty
            .extend(start / SECTOR_BYTES..(start + bytes.len()).div_ceil(SECTOR_BYTES));
        counted
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.count()?;
        state.images[self.id]
            .volatile
            .read_exact_at(bytes, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let counted = state.count();
        let gone = state.power_is_gone();
        let image = &mut state.images[self.id];
        match counted {
            Ok(()) => image.sync(),
            // The kernel drops the error together with the knowledge of what was dirty.
            Err(_) if !gone => image.dirty.clear(),
            Err(_) => {}
        }
        counted
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.count()?;
        if bytes > state.free_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.free_bytes -= bytes;
        let image = &mut state.images[self.id];
        image.volatile.set_len(bytes)?;
        image.length = usize::try_from(bytes).unwrap();
        Ok(())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.count()?;
        let image = &mut state.images[self.id];
        image.volatile.set_len(bytes)?;
        image.length = usize::try_from(bytes).unwrap();
        image.durable.truncate(image.length);
        Ok(())
    }

    fn map(&self) -> io::Result<Map> {
        let mut state = self.disk.state();
        state.count()?;
        Map::of(&state.images[self.id].volatile)
    }
}
