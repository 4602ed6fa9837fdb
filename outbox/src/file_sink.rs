//! The `file` sink: one CloudEvent a line, appended, synced before anybody says delivered.
//!
//! A line is whole or absent: a torn one, left by a crash or a full disk, is cut before the next is written. The file may
//! be rotated by renaming it; the next batch begins a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::OutboxError;

/// Bytes read at once when looking back for the last line's end.
const LOOK_BACK_BYTES: u64 = 64 * 1024;

/// The open file.
#[derive(Debug)]
pub(crate) struct FileSink {
    path: PathBuf,
    file: File,
    /// Where the last append began, in bytes.
    last_append: u64,
}

impl FileSink {
    /// Opens the file, makes it if it is missing, and cuts a torn last line.
    ///
    /// # Errors
    /// [`OutboxError::Io`] with what was tried.
    pub(crate) fn open(path: &Path) -> Result<Self, OutboxError> {
        let file = open(path).map_err(|source| failed("opening", path, source))?;
        let mut sink = Self {
            path: path.to_owned(),
            file,
            last_append: 0,
        };
        let cut = sink.cut_torn_line();
        let cut = cut.map_err(|source| failed("cutting the torn last line of", path, source))?;
        if cut > 0 {
            tracing::warn!(path = %path.display(), bytes = cut, "cut a torn last line");
        }
        Ok(sink)
    }

    /// Appends whole lines, or none. They last once [`FileSink::sync`] returned.
    ///
    /// # Errors
    /// [`OutboxError::Io`]; nothing was appended then, or what was will be cut when the file is opened anew.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), OutboxError> {
        let append = |sink: &mut Self| {
            sink.follow_rotation()?;
            let before = sink.file.metadata()?.len();
            sink.last_append = before;
            sink.file.write_all(lines).map_err(|error| {
                // A line written in part would be continued by the next writer; if even the cut fails, opening cuts it.
                match sink.file.set_len(before) {
                    Ok(()) => error,
                    Err(cut) => also(&error, &cut),
                }
            })
        };
        append(self).map_err(|source| failed("appending to", &self.path, source))
    }

    /// Waits until what was appended is on stable storage.
    ///
    /// # Errors
    /// [`OutboxError::Io`]; the lines are cut off again then, because a sync that failed is not mended by the next one:
    /// they must be written anew.
    pub(crate) fn sync(&mut self) -> Result<(), OutboxError> {
        let synced =
            self.file
                .sync_data()
                .map_err(|error| match self.file.set_len(self.last_append) {
                    Ok(()) => error,
                    Err(cut) => also(&error, &cut),
                });
        synced.map_err(|source| failed("syncing", &self.path, source))
    }

    fn follow_rotation(&mut self) -> io::Result<()> {
        let here = self.file.metadata()?;
        let moved = match self.path.metadata() {
            Ok(there) => (there.dev(), there.ino()) != (here.dev(), here.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(error),
        };
        if moved {
            self.file = open(&self.path)?;
            self.cut_torn_line()?;
        }
        Ok(())
    }

    /// Returns the count of bytes that were cut.
    fn cut_torn_line(&mut self) -> io::Result<u64> {
        let end = self.file.metadata()?.len();
        let whole = end_of_last_line(&mut self.file, end)?;
        if whole < end {
            self.file.set_len(whole)?;
            self.file.sync_data()?;
        }
        Ok(end - whole)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .read(true)
        .open(path)?;
    // The name must last as well, or a synced line would be in no file after a power loss.
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}

/// Where the last whole line before `end` ends: 0 if there is none.
fn end_of_last_line(file: &mut File, end: u64) -> io::Result<u64> {
    let mut chunk_end = end;
    let mut chunk = Vec::new();
    while chunk_end > 0 {
        let chunk_start = chunk_end.saturating_sub(LOOK_BACK_BYTES);
        file.seek(SeekFrom::Start(chunk_start))?;
        chunk.clear();
        file.take(chunk_end - chunk_start).read_to_end(&mut chunk)?;
        let last = chunk.iter().rposition(|byte| *byte == b'\n');
        if let Some(position) = last {
            return Ok(chunk_start + position as u64 + 1);
        }
        chunk_end = chunk_start;
    }
    Ok(0)
}

fn also(error: &io::Error, cut: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{error}; and cutting it off again: {cut}"),
    )
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> OutboxError {
    OutboxError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
#[path = "file_sink_tests.rs"]
mod tests;
