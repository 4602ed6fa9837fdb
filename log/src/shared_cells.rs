//! Numbers that one process tells and others follow: a small file of cells in the page cache.
//!
//! The owner writes a cell with one `pwrite`, followers look at it through a read-only map and sleep on it with a futex:
//! what is told is seen by another process within microseconds, and nobody polls. Nothing is ever written through a map.
//!
//! ```text
//! cell (64 bytes, little-endian)
//!   0 turn u32      4 checksum u32     8 value u64     16 epoch u64     24 zeros
//! ```
//!
//! The checksum covers the turn, the value, the epoch, the cell's number and the identity of whatever the cells are
//! about. So a cell that is being written, bytes that a power loss left, and a file of something else are told from a
//! value. The file is never synced: losing it costs nothing, because whoever opens it for writing tells everything anew,
//! and a follower must know what it may believe without it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::disk::SharedWords;

const CELL_BYTES: usize = 64;
const CELL_BYTES_USED: usize = 24;
const VALUE_AT: usize = 8;
const EPOCH_AT: usize = 16;

/// How often a cell that is just being written is looked at again before the look is given up.
const LOOKS_MAX: usize = 100;

/// What the cells are about: cells of something else never pass.
#[derive(Debug, Clone, Copy)]
struct Identity(u32);

impl Identity {
    fn new(identity: [u8; 16]) -> Self {
        Self(crc32fast::hash(&identity))
    }

    fn checksum(self, cell: u16, turn: u32, value: u64, epoch: u64) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&cell.to_le_bytes());
        hasher.update(&turn.to_le_bytes());
        hasher.update(&value.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        hasher.finalize()
    }
}

fn position_of(cell: u16) -> usize {
    usize::from(cell) * CELL_BYTES
}

/// The low half of a cell's first word.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the low 32 bits are what is asked for"
)]
fn turn_of(word: u64) -> u32 {
    word as u32
}

/// The telling end. There must be one at a time for a file; whoever opens it holds a lock that says so.
#[derive(Debug)]
pub struct CellsOwner {
    file: File,
    words: SharedWords,
    identity: Identity,
    epoch: u64,
    /// By cell: how often it was told, wrapping. Held while a cell is written.
    turns: Vec<Mutex<u32>>,
}

impl CellsOwner {
    /// Opens the file, or makes it, readable by its owner alone. `epoch` tells the lives of the owner apart. The cells keep
    /// what they said until they are told anew.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn open(path: &Path, identity: [u8; 16], cells: u16, epoch: u64) -> io::Result<Self> {
        let bytes = usize::from(cells) * CELL_BYTES;
        let open = || OpenOptions::new().read(true).write(true).open(path);
        let file = match open() {
            // Written in place: followers that have it mapped go on with it.
            Ok(file) if file.metadata()?.len() == bytes as u64 => file,
            Ok(_) => make(path, bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, bytes)?,
            Err(error) => return Err(error),
        };
        let words = SharedWords::of(&file)?;
        let turns = (0..cells).map(|cell| Mutex::new(turn_of(words.load(position_of(cell)))));
        Ok(Self {
            turns: turns.collect(),
            file,
            words,
            identity: Identity::new(identity),
            epoch,
        })
    }

    /// Tells what `value` returns, which is asked under the cell's lock: of two tellers the later value stays. Wakes who
    /// waits for the cell. Volatile, and seen by every process of this machine on return.
    ///
    /// # Errors
    /// Whatever the operating system says; followers may then not hear of the value until the next is told.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn tell(&self, cell: u16, value: impl FnOnce() -> u64) -> io::Result<()> {
        let mut turn = self.turns[usize::from(cell)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *turn = turn.wrapping_add(1);
        let value = value();
        let checksum = self.identity.checksum(cell, *turn, value, self.epoch);
        let mut bytes = [0; CELL_BYTES_USED];
        bytes[..4].copy_from_slice(&turn.to_le_bytes());
        bytes[4..VALUE_AT].copy_from_slice(&checksum.to_le_bytes());
        bytes[VALUE_AT..EPOCH_AT].copy_from_slice(&value.to_le_bytes());
        bytes[EPOCH_AT..].copy_from_slice(&self.epoch.to_le_bytes());
        let position = position_of(cell);
        self.file.write_all_at(&bytes, position as u64)?;
        self.words.wake(position)
    }
}

/// A file of zeros, under its name all at once. A file in its place is left to those who have it mapped.
fn make(path: &Path, bytes: usize) -> io::Result<File> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all_at(&vec![0; bytes], 0)?;
    fs::rename(&draft, path)?;
    Ok(file)
}

/// What a cell says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The value.
    pub value: u64,
    /// The life of the owner that told it.
    pub epoch: u64,
}

/// A following end. Any number may exist, in any process.
#[derive(Debug)]
pub struct CellsFollower {
    words: SharedWords,
    identity: Identity,
}

impl CellsFollower {
    /// Maps the file, read-only.
    ///
    /// # Errors
    /// Whatever the operating system says; `InvalidData` if the file has another count of cells.
    pub fn open(path: &Path, identity: [u8; 16], cells: u16) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = usize::from(cells) * CELL_BYTES;
        let found = file.metadata()?.len();
        if found != bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} has {found} bytes, not {bytes}", path.display()),
            ));
        }
        Ok(Self {
            words: SharedWords::of(&file)?,
            identity: Identity::new(identity),
        })
    }

    /// What a cell says; `None` if it says nothing that can be believed, or is being written all the time.
    ///
    /// # Panics
    /// If there is no such cell.
    #[must_use]
    pub fn read(&self, cell: u16) -> Option<Told> {
        let position = position_of(cell);
        for _ in 0..LOOKS_MAX {
            let head = self.words.load(position);
            let value = self.words.load(position + VALUE_AT);
            let epoch = self.words.load(position + EPOCH_AT);
            let checksum = self.identity.checksum(cell, turn_of(head), value, epoch);
            if head >> 32 == u64::from(checksum) {
                return Some(Told { value, epoch });
            }
            if head == 0 {
                return None;
            }
            std::hint::spin_loop();
        }
        None
    }

    /// A number that changes whenever the cell is told: to be taken before [`CellsFollower::read`], and waited on after.
    ///
    /// # Panics
    /// If there is no such cell.
    #[must_use]
    pub fn turn(&self, cell: u16) -> u32 {
        turn_of(self.words.load(position_of(cell)))
    }

    /// Sleeps until the cell's turn is not `seen` any more, or `timeout` passed; may return for no reason.
    ///
    /// # Errors
    /// Whatever the operating system says.
    ///
    /// # Panics
    /// If there is no such cell.
    pub fn wait(&self, cell: u16, seen: u32, timeout: Duration) -> io::Result<()> {
        self.words.wait(position_of(cell), seen, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: [u8; 16] = *b"the log of tests";

    fn told(value: u64, epoch: u64) -> Option<Told> {
        Some(Told { value, epoch })
    }

    #[test]
    fn a_follower_sees_what_the_owner_told_last() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        let owner = CellsOwner::open(&path, IDENTITY, 3, 7).unwrap();
        let follower = CellsFollower::open(&path, IDENTITY, 3).unwrap();
        assert_eq!(follower.read(2), None);
        owner.tell(2, || 10).unwrap();
        owner.tell(2, || 11).unwrap();
        assert_eq!(follower.read(2), told(11, 7));
        assert_eq!(follower.read(1), None);

        // The next owner finds the followers of the one before.
        drop(owner);
        let owner = CellsOwner::open(&path, IDENTITY, 3, 8).unwrap();
        assert_eq!(follower.read(2), told(11, 7));
        owner.tell(2, || 9).unwrap();
        assert_eq!(follower.read(2), told(9, 8));
    }

    #[test]
    fn a_cell_of_something_else_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        let owner = CellsOwner::open(&path, IDENTITY, 2, 1).unwrap();
        owner.tell(0, || 5).unwrap();
        let other = CellsFollower::open(&path, *b"the log of other", 2).unwrap();
        assert_eq!(other.read(0), None);
        assert!(CellsFollower::open(&path, IDENTITY, 3).is_err());
        assert!(CellsFollower::open(&directory.path().join("none"), IDENTITY, 2).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        let owner = CellsOwner::open(&path, IDENTITY, 1, 3).unwrap();
        owner.tell(0, || 0x0123_4567_89ab_cdef).unwrap();
        let good = fs::read(&path).unwrap();
        for bit in 0..CELL_BYTES_USED * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            owner.file.write_all_at(&bad, 0).unwrap();
            let follower = CellsFollower::open(&path, IDENTITY, 1).unwrap();
            assert_eq!(follower.read(0), None, "bit {bit}");
        }
    }

    #[test]
    fn a_file_of_another_size_is_replaced_and_not_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        let before = CellsOwner::open(&path, IDENTITY, 4, 1).unwrap();
        let follower = CellsFollower::open(&path, IDENTITY, 4).unwrap();
        before.tell(3, || 5).unwrap();
        let after = CellsOwner::open(&path, IDENTITY, 2, 2).unwrap();
        after.tell(1, || 6).unwrap();
        // Whoever had the old one mapped reads it without harm.
        assert_eq!(follower.read(3), told(5, 1));
        let follower = CellsFollower::open(&path, IDENTITY, 2).unwrap();
        assert_eq!(follower.read(1), told(6, 2));
    }

    #[test]
    fn whoever_waits_is_woken_for_every_value_and_sees_none_torn_or_older() {
        const VALUES: u64 = 20_000;
        /// A lost wake-up ends the test by this, a minute late for each.
        const LIMIT: Duration = Duration::from_secs(60);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        let owner = CellsOwner::open(&path, IDENTITY, 1, 1).unwrap();
        owner.tell(0, || 0).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let follower = CellsFollower::open(&path, IDENTITY, 1).unwrap();
                scope.spawn(move || {
                    let mut last = 0;
                    while last < VALUES {
                        let turn = follower.turn(0);
                        match follower.read(0) {
                            Some(told) if told.value == last => {
                                follower.wait(0, turn, LIMIT).unwrap();
                            }
                            Some(told) => {
                                assert!((last..=VALUES).contains(&told.value), "{told:?}");
                                last = told.value;
                            }
                            None => std::thread::yield_now(),
                        }
                    }
                });
            }
            for value in 1..=VALUES {
                owner.tell(0, || value).unwrap();
            }
        });
    }
}
