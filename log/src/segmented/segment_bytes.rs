//! A segment read into memory, for whoever must not die of a bad sector: under a map, one is the end of the process.

use std::io;
use std::ops::Range;

use crate::disk::{DiskFile, Memory};
use crate::layout::{SEGMENT_BYTES_MAX, index, is_zero};

/// Bytes a read: they stay in the processor's cache until they are looked at.
const READ_BYTES: usize = 256 * 1024;
/// What is given up around a bad sector: the kernel reads no less.
const PAGE_BYTES: usize = 4096;
/// Longest file that is taken for a segment: one batch may have made its segment longer than the configured limit, but
/// no batch is as long as the largest segment.
const FILE_BYTES_MAX: u64 = 2 * SEGMENT_BYTES_MAX;

/// The bytes of a segment, as far as they can be read.
#[derive(Debug)]
pub(super) struct SegmentBytes {
    /// As long as the file; zeros where it cannot be read.
    pub(super) bytes: Memory,
    /// Where it cannot be read, in order.
    pub(super) unreadable: Vec<Range<usize>>,
    /// What the disk said there first.
    error: Option<io::Error>,
}

impl SegmentBytes {
    /// Reads all of `file`. A part that cannot be read is noted, not an error.
    ///
    /// # Errors
    /// If the file's length cannot be told, or is none that a segment can have.
    pub(super) fn read(file: &dyn DiskFile) -> io::Result<Self> {
        let length = file.length()?;
        if length > FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{length} bytes are more than a segment can have"),
            ));
        }
        let length = index(length);
        let mut read = Self {
            // Zeros cost no memory until something else is written over them.
            bytes: Memory::zeroed(length)?,
            unreadable: Vec::new(),
            error: None,
        };
        let mut buffer = vec![0; READ_BYTES.min(length)];
        for start in (0..length).step_by(READ_BYTES) {
            let part = start..(start + READ_BYTES).min(length);
            match file.read_exact_at(&mut buffer[..part.len()], part.start as u64) {
                Ok(()) => read.keep(part.start, &buffer[..part.len()]),
                Err(_) => read.read_pages(file, part, &mut buffer),
            }
        }
        Ok(read)
    }

    fn read_pages(&mut self, file: &dyn DiskFile, part: Range<usize>, buffer: &mut [u8]) {
        for start in part.clone().step_by(PAGE_BYTES) {
            let page = start..(start + PAGE_BYTES).min(part.end);
            match file.read_exact_at(&mut buffer[..page.len()], page.start as u64) {
                Ok(()) => self.keep(page.start, &buffer[..page.len()]),
                Err(error) => {
                    self.error.get_or_insert(error);
                    match self.unreadable.last_mut() {
                        Some(last) if last.end == page.start => last.end = page.end,
                        _ => self.unreadable.push(page),
                    }
                }
            }
        }
    }

    fn keep(&mut self, start: usize, bytes: &[u8]) {
        if !is_zero(bytes) {
            self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// What cannot be read, in words, and where it begins.
    pub(super) fn fault(&self) -> Option<(usize, String)> {
        let first = self.unreadable.first()?;
        let bytes: usize = self.unreadable.iter().map(Range::len).sum();
        let error = self
            .error
            .as_ref()
            .map_or_else(String::new, io::Error::to_string);
        Some((
            first.start,
            format!("{bytes} bytes from here on cannot be read ({error})"),
        ))
    }
}
