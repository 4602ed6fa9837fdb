//! The seam to the file system: the few operations a log needs, so that a simulated disk can take its place.
//!
//! Nothing else in this room touches a file. What an operation promises is what the real disk promises: a write is
//! volatile until [`DiskFile::sync_data`] returned, a new or renamed name is volatile until [`Disk::sync_directory`]
//! returned.

mod map;
mod real;
#[cfg(test)]
pub(crate) mod simulated;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::layout::index;

pub use map::Map;
pub(crate) use map::{Memory, SharedWords};
pub use real::RealDisk;

/// A file system.
pub trait Disk: Send + Sync + Debug {
    /// Makes a directory, readable by its owner alone, and its parents; fine if it exists.
    ///
    /// # Errors
    /// Whatever the file system says, here and below.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, in no order.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Makes a new file for reading and writing, readable by its owner alone. Its name is volatile.
    ///
    /// # Errors
    /// If the name exists, and whatever the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn open_read_only(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Renames within one file system, replacing the target. Volatile.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. Volatile.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory's names durable.
    ///
    /// # Errors
    /// Whatever the file system says; afterwards the names are in doubt.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Bytes this user can still write to the file system of `path`.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. Shared between threads: every operation names its position.
pub trait DiskFile: Send + Sync + Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// Whatever the file system says, here and below.
    fn length(&self) -> io::Result<u64>;

    /// Writes all bytes at a position. Volatile.
    ///
    /// # Errors
    /// Whatever the file system says; afterwards any part may be written.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Writes zeros, `bytes` of them, at a position: past the cache where that is possible, so that they wait for no later
    /// sync and crowd nothing out of memory. Volatile.
    ///
    /// # Errors
    /// Whatever the file system says; afterwards any part may be written.
    fn write_zeros_at(&self, position: u64, bytes: u64) -> io::Result<()> {
        self.write_all_at(&vec![0; index(bytes)], position)
    }

    /// Fills `bytes` from a position.
    ///
    /// # Errors
    /// Whatever the file system says, `UnexpectedEof` past the end.
    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()>;

    /// Asks the operating system to forget what it cached of the file and nobody maps or has yet to write, so that the next
    /// read asks the disk. A hint: nothing depends on it.
    fn forget_cached(&self) {}

    /// Makes all bytes written so far durable, and the length.
    ///
    /// # Errors
    /// Whatever the file system says; afterwards every byte since the last success is in doubt, and trying again proves
    /// nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// Sets the length, reserving space for all of it. Volatile.
    ///
    /// # Errors
    /// `StorageFull` if there is no space; whatever else the file system says.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts or extends the file without reserving space. Volatile. Never done to a mapped file.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Maps the whole file for reading. Bytes written later through the file show in the map.
    ///
    /// # Errors
    /// Whatever the file system says.
    fn map(&self) -> io::Result<Map>;
}
