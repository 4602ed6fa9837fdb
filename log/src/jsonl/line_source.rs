//! Lines of a file by position, read in chunks that grow while neighbouring lines are asked for.

use std::io;

use super::line::LINE_BYTES_MAX;
use crate::disk::DiskFile;
use crate::layout::index;

/// First chunk: a look at one order's line should not read much more than it.
const CHUNK_BYTES_MIN: usize = 4 * 1024;
/// Largest chunk, unless a line is longer: beyond it larger reads gain nothing.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// What stands at a position.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A line, without its newline.
    Line(&'a [u8]),
    /// Bytes to the end without a newline.
    Unterminated,
    /// A newline comes, but further away than any record is long.
    TooLong,
}

/// Reads lines of the first `end` bytes of a file.
#[derive(Debug)]
pub(super) struct LineSource<'a> {
    file: &'a dyn DiskFile,
    end: u64,
    chunk: Vec<u8>,
    /// Where the chunk's first byte stands in the file, and how many bytes of it are the file's.
    chunk_at: u64,
    filled: usize,
    next_bytes: usize,
}

impl<'a> LineSource<'a> {
    pub(super) fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self {
            file,
            end,
            chunk: Vec::new(),
            chunk_at: 0,
            filled: 0,
            next_bytes: CHUNK_BYTES_MIN,
        }
    }

    /// The line that starts at `position`, which is before the end.
    pub(super) fn line_at(&mut self, position: u64) -> io::Result<Found<'_>> {
        let length = loop {
            let start = self.start_of(position);
            let rest = &self.chunk[start..self.filled];
            if let Some(length) = memchr::memchr(b'\n', rest) {
                break length;
            }
            if self.chunk_at + self.filled as u64 >= self.end && !rest.is_empty() {
                return Ok(Found::Unterminated);
            }
            if rest.len() > LINE_BYTES_MAX {
                let behind = position + rest.len() as u64;
                return Ok(if self.has_newline_from(behind)? {
                    Found::TooLong
                } else {
                    Found::Unterminated
                });
            }
            self.fill_from(position, start)?;
        };
        let start = self.start_of(position);
        let line = &self.chunk[start..start + length];
        Ok(if length > LINE_BYTES_MAX {
            Found::TooLong
        } else {
            Found::Line(line)
        })
    }

    /// Index of `position` in the chunk; the chunk's end if it is not in there.
    fn start_of(&self, position: u64) -> usize {
        match position.checked_sub(self.chunk_at) {
            Some(start) if start < self.filled as u64 => index(start),
            _ => self.filled,
        }
    }

    /// Keeps what the chunk has from `start` on, which is `position`, and reads more behind it.
    fn fill_from(&mut self, position: u64, start: usize) -> io::Result<()> {
        self.chunk.copy_within(start..self.filled, 0);
        let kept = self.filled - start;
        // If the read fails, the chunk is empty rather than wrong.
        self.filled = 0;
        self.chunk_at = position;
        let left = self.end.saturating_sub(position + kept as u64);
        let more = left.min(self.next_bytes as u64);
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let filled = kept + index(more);
        if self.chunk.len() < filled {
            self.chunk.resize(filled, 0);
        }
        self.file
            .read_exact_at(&mut self.chunk[kept..filled], position + kept as u64)?;
        self.filled = filled;
        self.next_bytes = (self.next_bytes * 2).min(CHUNK_BYTES_MAX);
        Ok(())
    }

    fn has_newline_from(&mut self, mut position: u64) -> io::Result<bool> {
        while position < self.end {
            let filled = self.filled;
            self.fill_from(position, filled)?;
            if memchr::memchr(b'\n', &self.chunk[..self.filled]).is_some() {
                return Ok(true);
            }
            position += self.filled as u64;
        }
        Ok(false)
    }
}
