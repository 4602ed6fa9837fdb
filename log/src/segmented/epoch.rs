//! The epoch: a number that grows each time the log is opened for writing, durable before the first write.
//!
//! Frames carry it, so that what two lives of the service wrote can be told apart.

use std::io;
use std::path::Path;

use crate::LogError;
use crate::disk::Disk;
use crate::mutants::{Mutant, keeps};

const FILE_NAME: &str = "epoch";

/// Takes the next epoch and makes it durable.
///
/// # Errors
/// [`LogError::Incompatible`] if the file does not hold a number, [`LogError::Io`] if the disk fails.
pub(super) fn advance(disk: &dyn Disk, directory: &Path) -> Result<u32, LogError> {
    let path = directory.join(FILE_NAME);
    let before = read(disk, &path)?;
    let epoch = before
        .checked_add(u32::from(keeps(Mutant::EpochAdvance)))
        .ok_or_else(|| LogError::Incompatible {
            path: path.clone(),
            reason: "the log was opened 2^32 times".to_owned(),
        })?;
    write(disk, directory, epoch).map_err(|source| LogError::Io {
        action: "writing",
        path,
        source,
    })?;
    Ok(epoch)
}

/// Raises the epoch of a log that nobody has open, durably.
///
/// # Errors
/// As [`advance`].
pub(super) fn skip(disk: &dyn Disk, directory: &Path, count: u32) -> Result<(), LogError> {
    let path = directory.join(FILE_NAME);
    let epoch = read(disk, &path)?.saturating_add(count);
    write(disk, directory, epoch).map_err(|source| LogError::Io {
        action: "writing",
        path,
        source,
    })
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
    number.ok_or_else(|| LogError::Incompatible {
        path: path.to_owned(),
        reason: "does not hold a number; write the highest epoch that `log ls` shows into it"
            .to_owned(),
    })
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
