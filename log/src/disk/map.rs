//! Read-only maps of whole files: the only `unsafe` of the project.

#![expect(
    unsafe_code,
    reason = "memory maps cannot be made safely; this file is the one place that makes them"
)]

use std::fs::File;
use std::io;

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
