//! Read-only maps of whole files, of words that another process writes, and memory that is no file's: the only `unsafe` of
//! the project.

#![expect(
    unsafe_code,
    reason = "memory maps cannot be made safely; this file is the one place that makes them"
)]

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex;

/// The bytes of a file, mapped for reading.
#[derive(Debug)]
pub struct Map(memmap2::Mmap);

impl Map {
    /// Maps all of `file`.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub fn of(file: &File) -> io::Result<Self> {
        // SAFETY: a map is sound while nobody shortens the file and nobody changes bytes that a `&[u8]` covers. Segment
        // files are never shortened once made, the directory is held by `data/LOCK`, and the writer appends behind the
        // durable end only, while readers borrow bytes before it only (`Segment` hands out nothing else).
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self(map))
    }

    /// The mapped bytes. Whoever reads beyond what was synced must copy and verify.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Zeroed memory for a whole segment. The kernel is asked for large pages: a thousand small ones for each of 4 MiB take
/// longer to come than what is put into them.
#[derive(Debug)]
pub(crate) struct Memory {
    map: memmap2::MmapMut,
    bytes: usize,
}

impl Memory {
    /// # Errors
    /// If there is not so much memory.
    pub(crate) fn zeroed(bytes: usize) -> io::Result<Self> {
        // No map is empty.
        let map = memmap2::MmapMut::map_anon(bytes.max(1))?;
        #[cfg(target_os = "linux")]
        if let Err(error) = map.advise(memmap2::Advice::HugePage) {
            tracing::debug!(%error, "there are no large pages");
        }
        Ok(Self { map, bytes })
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.bytes]
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[..self.bytes]
    }
}

/// The words of a small file that another process writes while this one looks, little-endian. A write through the file
/// shows in the map: both are the page cache.
#[derive(Debug)]
pub(crate) struct SharedWords(memmap2::MmapRaw);

impl SharedWords {
    /// Maps all of `file`, which nobody ever shortens.
    ///
    /// # Errors
    /// Whatever the operating system says.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self(memmap2::MmapOptions::new().map_raw_read_only(file)?))
    }

    /// Bytes mapped.
    pub(crate) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The 64 bits at `position`, in one load. What was written before them is seen by whatever is read after this.
    ///
    /// # Panics
    /// If `position` is no multiple of 8 or not in the file.
    pub(crate) fn load(&self, position: usize) -> u64 {
        assert!(position.is_multiple_of(8) && position + 8 <= self.bytes());
        // SAFETY: maps begin at a page, so the address is aligned; the assertion above keeps it in the map, which lives
        // as long as `self`. Other processes write the word, so it is only ever looked at through an atomic. A relaxed
        // load of a word of the machine's size is allowed on memory that is mapped for reading.
        let word = unsafe { AtomicU64::from_ptr(self.0.as_ptr().cast_mut().add(position).cast()) };
        let value = word.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        u64::from_le(value)
    }

    /// Sleeps until somebody calls [`SharedWords::wake`] at `position`, in any process, or `timeout` passed. Returns at
    /// once if the 32 bits there are not `seen` any more, and may return for no reason.
    ///
    /// # Panics
    /// If `position` is no multiple of 4 or not in the file.
    pub(crate) fn wait(&self, position: usize, seen: u32, timeout: Duration) -> io::Result<()> {
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let flags = futex::Flags::empty();
        match futex::wait(
            self.half_word(position),
            flags,
            seen.to_le(),
            Some(&timeout),
        ) {
            Ok(()) | Err(Errno::AGAIN | Errno::TIMEDOUT | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Wakes everybody who waits at `position`.
    ///
    /// # Panics
    /// If `position` is no multiple of 4 or not in the file.
    pub(crate) fn wake(&self, position: usize) -> io::Result<()> {
        const EVERYBODY: u32 = i32::MAX as u32;
        futex::wake(self.half_word(position), futex::Flags::empty(), EVERYBODY)?;
        Ok(())
    }

    fn half_word(&self, position: usize) -> &AtomicU32 {
        assert!(position.is_multiple_of(4) && position + 4 <= self.bytes());
        // SAFETY: aligned, inside the map and alive as in `load`; nobody but the kernel looks at the word through this.
        unsafe { AtomicU32::from_ptr(self.0.as_ptr().cast_mut().add(position).cast()) }
    }
}
