//! Opening: reads the whole file once, proves it gap-free, and finds where it ends.
//!
//! A crash can leave an unfinished line at the end, and before it the first lines of the same frame: nobody was told
//! these are stored, and they are cut. A bad line with another behind it is damage: nothing is cut, and the file is
//! refused.

use std::path::Path;

use super::line::{FrameBuilder, Line, LineFault, not_the_record};
use super::line_source::{Found, LineSource};
use crate::disk::DiskFile;
use crate::{AppendTime, LogError, Offset};

/// What the file holds of one partition.
#[derive(Debug, Clone, Default)]
pub(super) struct Recovered {
    /// Where each record's line starts.
    pub(super) starts: Vec<u64>,
    pub(super) last_append_time: AppendTime,
}

impl Recovered {
    pub(super) fn end(&self) -> Offset {
        Offset::new(self.starts.len() as u64)
    }
}

/// What the file holds.
#[derive(Debug)]
pub(super) struct Recovery {
    pub(super) partitions: Vec<Recovered>,
    /// Bytes of whole frames from the start; what is beyond is a torn tail.
    pub(super) bytes: u64,
}

/// Reads the first `bytes` of `file`.
pub(super) fn recover(
    file: &dyn DiskFile,
    path: &Path,
    bytes: u64,
    partitions: u16,
) -> Result<Recovery, LogError> {
    let mut scan = Scan {
        partitions: vec![Recovered::default(); usize::from(partitions)],
        frame: FrameBuilder::default(),
        frame_starts: Vec::new(),
        whole: 0,
    };
    let mut lines = LineSource::new(file, bytes);
    let mut position = 0;
    let mut number = 1;
    while position < bytes {
        let found = lines.line_at(position).map_err(|source| LogError::Io {
            action: "reading",
            path: path.to_owned(),
            source,
        })?;
        let (line, next) = match found {
            Found::Unterminated => break,
            Found::Line(line) => (scan.line(line, position), position + line.len() as u64 + 1),
            // Not the last line, or counted as if: a record is never that long.
            Found::TooLong => (
                Err(not_the_record("it is longer than any record".to_owned())),
                position,
            ),
        };
        match line {
            Ok(()) => {}
            Err(LineFault::NotJson(_)) if next >= bytes => break,
            Err(fault) => {
                return Err(LogError::Incompatible {
                    path: path.to_owned(),
                    reason: format!(
                        "line {number} (byte {position}) is damaged: {fault}; restore the file from a backup or mend \
                         that line"
                    ),
                });
            }
        }
        position = next;
        number += 1;
    }
    Ok(Recovery {
        partitions: scan.partitions,
        bytes: scan.whole,
    })
}

#[derive(Debug)]
struct Scan {
    partitions: Vec<Recovered>,
    frame: FrameBuilder,
    /// Where the lines of the frame under construction start.
    frame_starts: Vec<u64>,
    /// Bytes of whole frames.
    whole: u64,
}

impl Scan {
    fn line(&mut self, bytes: &[u8], position: u64) -> Result<(), LineFault> {
        let line = Line::parse(bytes)?;
        let count = self.partitions.len();
        let Some(partition) = self.partitions.get_mut(line.partition.index()) else {
            return Err(not_the_record(format!(
                "it is of partition {}, but the log has {count}: open it with the partition count it was written with",
                line.partition
            )));
        };
        if line.time < partition.last_append_time {
            return Err(not_the_record(format!(
                "its time is before that of the record before it in partition {}",
                line.partition
            )));
        }
        let is_whole = self.frame.add(&line, partition.end())?;
        self.frame_starts.push(position);
        if is_whole {
            partition.starts.append(&mut self.frame_starts);
            partition.last_append_time = line.time;
            self.whole = position + bytes.len() as u64 + 1;
        }
        Ok(())
    }
}

/// How much of the file's end is written anew at opening.
///
/// After a failed sync the cache can hold, as clean, what the disk never got: reading it back and syncing it proves
/// nothing, writing it again and syncing that does. What was in flight then was never acknowledged and is far less than
/// this: a batch a partition, or what was appended between two syncs.
pub(super) const REWRITTEN_BYTES: u64 = 32 * 1024 * 1024;

/// Writes the end of the first `bytes` of `file` again, the same bytes in the same place. Volatile.
pub(super) fn rewrite_end(file: &dyn DiskFile, bytes: u64) -> std::io::Result<()> {
    const CHUNK_BYTES: usize = 1024 * 1024;
    let mut chunk = vec![0; CHUNK_BYTES.min(crate::layout::index(bytes))];
    let mut position = bytes.saturating_sub(REWRITTEN_BYTES);
    while position < bytes {
        let length = chunk.len().min(crate::layout::index(bytes - position));
        file.read_exact_at(&mut chunk[..length], position)?;
        file.write_all_at(&chunk[..length], position)?;
        position += length as u64;
    }
    Ok(())
}
