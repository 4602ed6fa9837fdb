//! The epoch: a number that grows each time the log is opened for writing, durable before the first write.
//!
//! Frames carry it, so that what two lives of the service wrote can be told apart. On a disk too full to note it the log
//! opens all the same, and is read; the first write after there is space notes it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{SegmentedConfig, SegmentedLog};
use crate::disk::Disk;
use crate::mutants::{Mutant, keeps};
use crate::{LogError, PartitionId};

const FILE_NAME: &str = "epoch";

/// The epoch of this life of the log.
#[derive(Debug)]
pub(super) struct Epoch {
    number: u32,
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// Whether the number is on stable storage.
    noted: AtomicBool,
    noting: Mutex<()>,
}

impl Epoch {
    /// Takes the next epoch and makes it durable, if the disk is not full. A file that is lost or damaged counts as zero:
    /// whoever writes a partition goes on above the epochs of its frames all the same.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk fails, [`LogError::Incompatible`] past 2³² openings.
    pub(super) fn advance(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(FILE_NAME);
        let before = read(&*disk, &path)?;
        let number = before
            .checked_add(u32::from(keeps(Mutant::EpochAdvance)))
            .ok_or_else(|| LogError::Incompatible {
                path: path.clone(),
                reason: "the log was opened 2^32 times".to_owned(),
            })?;
        let epoch = Self {
            number,
            disk,
            directory: directory.to_owned(),
            noted: AtomicBool::new(false),
            noting: Mutex::new(()),
        };
        match epoch.note() {
            Ok(()) => Ok(epoch),
            Err(source) if is_full(&source) => {
                tracing::warn!(path = %path.display(), "the disk is full: the log is read, and takes writes when there is space");
                Ok(epoch)
            }
            Err(source) => Err(LogError::Io {
                action: "writing",
                path,
                source,
            }),
        }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// Makes sure that the epoch is on stable storage, which must be so before a frame carries it.
    ///
    /// # Errors
    /// [`LogError::StorageFull`] while the disk is full, [`LogError::Io`] if it fails.
    pub(super) fn ensure_noted(&self, partition: PartitionId) -> Result<(), LogError> {
        if self.noted.load(Ordering::Acquire) || !keeps(Mutant::EpochNoted) {
            return Ok(());
        }
        self.note().map_err(|source| {
            if is_full(&source) {
                return LogError::StorageFull {
                    partition,
                    path: self.directory.clone(),
                };
            }
            LogError::Io {
                action: "writing",
                path: self.directory.join(FILE_NAME),
                source,
            }
        })
    }

    fn note(&self) -> io::Result<()> {
        let _one_at_a_time = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.noted.load(Ordering::Acquire) {
            write(&*self.disk, &self.directory, self.number)?;
            self.noted.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Whether an error says that there is no space.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl SegmentedLog {
    /// Makes the next opening of a log that nobody has open one of a later epoch, `count` further on: for a copy whose
    /// original goes on elsewhere, so that frames of the two, written at the same offset, are told apart. Durable on
    /// return.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk fails.
    pub fn skip_epochs(
        config: &SegmentedConfig,
        disk: &dyn Disk,
        count: u32,
    ) -> Result<(), LogError> {
        let path = config.directory.join(FILE_NAME);
        let epoch = read(disk, &path)?.saturating_add(count);
        write(disk, &config.directory, epoch).map_err(|source| LogError::Io {
            action: "writing",
            path,
            source,
        })
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Result<u32, LogError> {
    let io_error = |source| LogError::Io {
        action: "reading",
        path: path.to_owned(),
        source,
    };
    let file = match disk.open_read_only(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened.map_err(io_error)?,
    };
    // Ten digits and a line feed are the most that a number of 32 bits takes.
    let length = usize::try_from(file.length().map_err(io_error)?)
        .unwrap_or(usize::MAX)
        .min(12);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).map_err(io_error)?;
    let number = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim_end().parse().ok());
    Ok(number.unwrap_or_else(|| {
        tracing::warn!(path = %path.display(), "does not hold a number: epochs go on above those in the log");
        0
    }))
}

fn write(disk: &dyn Disk, directory: &Path, epoch: u32) -> io::Result<()> {
    let partial = directory.join("epoch.tmp");
    match disk.remove(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&partial)?;
    file.write_all_at(format!("{epoch}\n").as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(&partial, &directory.join(FILE_NAME))?;
    disk.sync_directory(directory)
}
