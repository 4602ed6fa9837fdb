//! One process a data directory: `data/LOCK`, held by `flock` for the life of the process.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::LogError;
use crate::mutants::{Mutant, keeps};

/// The held lock. The kernel lets go of it when the process ends, however it ends; the file stays, naming its last
/// holder.
#[derive(Debug)]
pub struct DataLock {
    path: PathBuf,
    _file: File,
}

impl DataLock {
    /// Takes `LOCK` in `directory`, which must exist, and writes this process's id into it.
    ///
    /// # Errors
    /// [`LogError::Locked`] with the holder's process id if another process has it.
    pub fn acquire(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join("LOCK");
        let io_error = |action, source| LogError::Io {
            action,
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| io_error("opening", source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) if !keeps(Mutant::Lock) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)
                    .map_err(|source| io_error("reading", source))?;
                let holder = holder.trim();
                let holder = if holder.is_empty() {
                    "(unknown)"
                } else {
                    holder
                };
                return Err(LogError::Locked {
                    path,
                    holder: holder.to_owned(),
                });
            }
            Err(errno) => return Err(io_error("locking", errno.into())),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(|source| io_error("writing", source))?;
        Ok(Self { path, _file: file })
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_with_the_pid_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let first = DataLock::acquire(directory.path()).unwrap();
        let refused = DataLock::acquire(directory.path()).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains(&format!("process {}", std::process::id())),
            "{refused}"
        );
        drop(first);
        DataLock::acquire(directory.path()).unwrap();
    }
}
