//! A file that is written over and over: framed records, one `pwrite` and one `fdatasync` a batch.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use rustix::fs::FallocateFlags;

use super::frame::frame;
use super::group_commit::Sink;

/// What a file is before it is written to: it decides what a sync costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// Every byte was written and synced: a sync need not touch the file system's own records.
    ZeroWritten,
    /// Space is allocated, never written: a sync also records that it is now.
    Allocated,
    /// Empty: a sync also records blocks and length.
    Growing,
}

impl Preparation {
    /// All of them, cheapest sync first.
    pub const ALL: [Self; 3] = [Self::ZeroWritten, Self::Allocated, Self::Growing];

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ZeroWritten => "zero-written file",
            Self::Allocated => "allocated, never written",
            Self::Growing => "growing file",
        }
    }

    /// Makes the file, replacing what is there, with `bytes` prepared and synced.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn make(self, path: &Path, bytes: u64) -> anyhow::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("create {}", path.display()))?;
        if self != Self::Growing {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes)
                .with_context(|| format!("allocate {bytes} bytes for {}", path.display()))?;
        }
        if self == Self::ZeroWritten {
            let zeros = vec![0; 1 << 20];
            let mut position = 0;
            while position < bytes {
                let length =
                    usize::try_from(bytes - position).map_or(zeros.len(), |n| n.min(zeros.len()));
                file.write_all_at(&zeros[..length], position)
                    .with_context(|| format!("zero {}", path.display()))?;
                position += u64::try_from(length).expect("a megabyte fits");
            }
        }
        file.sync_all()
            .with_context(|| format!("sync {}", path.display()))?;
        Ok(file)
    }
}

/// Size of a [`BareFile`]: a few segments; it is started over at its end.
const BARE_FILE_BYTES: u64 = 256 << 20;

/// A zero-written file that takes framed records; the batch at hand is kept in memory until it is committed.
#[derive(Debug)]
pub struct BareFile {
    file: File,
    position: u64,
    batch: Vec<u8>,
    synced: bool,
}

impl BareFile {
    /// Makes a file whose commits are durable.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn durable(path: &Path) -> anyhow::Result<Self> {
        Self::make(path, true)
    }

    /// Makes a file whose commits are handed to the operating system.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn unsynced(path: &Path) -> anyhow::Result<Self> {
        Self::make(path, false)
    }

    fn make(path: &Path, synced: bool) -> anyhow::Result<Self> {
        let file = Preparation::ZeroWritten.make(path, BARE_FILE_BYTES)?;
        Ok(Self {
            file,
            position: 0,
            batch: Vec::new(),
            synced,
        })
    }
}

impl Sink for BareFile {
    fn add(&mut self, record: &[u8]) {
        frame(record, &mut self.batch);
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        let length = u64::try_from(self.batch.len())?;
        if self.position + length > BARE_FILE_BYTES {
            self.position = 0;
        }
        self.file
            .write_all_at(&self.batch, self.position)
            .context("write a batch")?;
        self.position += length;
        self.batch.clear();
        if self.synced {
            self.file.sync_data().context("sync a batch")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::verify;
    use crate::sample::record;

    #[test]
    fn prepared_files_have_the_length_they_were_prepared_with() {
        let directory = tempfile::tempdir().unwrap();
        let length = |preparation: Preparation| {
            preparation
                .make(&directory.path().join("f"), 3 << 20)
                .unwrap()
                .metadata()
                .unwrap()
                .len()
        };
        assert_eq!(length(Preparation::ZeroWritten), 3 << 20);
        assert_eq!(length(Preparation::Allocated), 3 << 20);
        assert_eq!(length(Preparation::Growing), 0);
    }

    #[test]
    fn committed_records_are_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let mut file = BareFile::durable(&path).unwrap();
        for batch in 0..2 {
            file.add(&record(2 * batch));
            file.add(&record(2 * batch + 1));
            file.commit().unwrap();
        }
        let mut seen = Vec::new();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(verify(&bytes, |record| seen.push(record.to_vec())), 4);
        assert_eq!(seen[3], record(3));
    }
}
