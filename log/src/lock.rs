//! One process for each thing that has one owner: a file held by `flock` for the life of the process, `data/LOCK` for the
//! log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::LogError;
use crate::mutants::{Mutant, keeps};

/// How often, and how long apart, a held lock is tried again: whoever only looks whether it is held lets go at once.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(5);

/// The held lock. The kernel lets go of it when the process ends, however it ends; the file stays, naming its last
/// holder.
#[derive(Debug)]
pub struct DataLock {
    path: PathBuf,
    file: File,
}

impl DataLock {
    /// The lock on a log's writing ends, and on whatever else has no lock of its own.
    pub const LOG: &str = "LOCK";

    /// Takes `LOCK` in `directory`, which must exist, and writes this process's id into it.
    ///
    /// # Errors
    /// [`LogError::Locked`] with the holder's process id if another process has it.
    pub fn acquire(directory: &Path) -> Result<Self, LogError> {
        Self::acquire_named(directory, Self::LOG)
    }

    /// Takes the lock `name` in `directory`, which must exist, and writes this process's id into it.
    ///
    /// # Errors
    /// [`LogError::Locked`] with the holder's process id if another process has it.
    pub fn acquire_named(directory: &Path, name: &str) -> Result<Self, LogError> {
        let path = directory.join(name);
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
        let mut tries = 0;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if !keeps(Mutant::Lock) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(TRY_AGAIN);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut said = String::new();
                    file.read_to_string(&mut said)
                        .map_err(|source| io_error("reading", source))?;
                    let holder = said.lines().next().map(str::trim).unwrap_or_default();
                    let holder = if holder.is_empty() {
                        "(unknown)"
                    } else {
                        holder
                    };
                    return Err(LogError::Locked {
                        holder: holder.to_owned(),
                        path,
                    });
                }
                Err(errno) => return Err(io_error("locking", errno.into())),
            }
        }
        let lock = Self { path, file };
        lock.write(&format!("{}\n", std::process::id()))?;
        Ok(lock)
    }

    /// Writes one line of text beside the process's id, for whoever looks for the holder.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn tell(&self, text: &str) -> Result<(), LogError> {
        self.write(&format!("{}\n{text}\n", std::process::id()))
    }

    fn write(&self, text: &str) -> Result<(), LogError> {
        let mut file = &self.file;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|source| LogError::Io {
                action: "writing",
                path: self.path.clone(),
                source,
            })
    }

    /// What the holder of the lock `name` in `directory` says of itself; `None` if nobody holds it. Only looks: whoever
    /// wants the lock at this moment gets it.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn holder(directory: &Path, name: &str) -> Result<Option<LockHolder>, LogError> {
        let path = directory.join(name);
        let io_error = |action| {
            let path = path.clone();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("opening")(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            // Closing the file lets go of it.
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut said = String::new();
                file.read_to_string(&mut said)
                    .map_err(io_error("reading"))?;
                let mut lines = said.lines();
                Ok(Some(LockHolder {
                    process: lines.next().unwrap_or_default().trim().to_owned(),
                    told: lines.next().map(|line| line.trim().to_owned()),
                }))
            }
            Err(errno) => Err(io_error("locking")(errno.into())),
        }
    }

    /// The lock file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Its process id, as it wrote it.
    pub process: String,
    /// What it wrote beside it: see [`DataLock::tell`].
    pub told: Option<String>,
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

    #[test]
    fn a_look_finds_the_holder_and_what_it_tells_and_never_keeps_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let look = || DataLock::holder(directory.path(), "OTHER.LOCK").unwrap();
        assert_eq!(look(), None);
        let lock = DataLock::acquire_named(directory.path(), "OTHER.LOCK").unwrap();
        let process = std::process::id().to_string();
        assert_eq!(
            look(),
            Some(LockHolder {
                process: process.clone(),
                told: None
            })
        );
        lock.tell("127.0.0.1:8081").unwrap();
        let told = Some("127.0.0.1:8081".to_owned());
        assert_eq!(look(), Some(LockHolder { process, told }));
        let refused = DataLock::acquire_named(directory.path(), "OTHER.LOCK").unwrap_err();
        let pid = format!("process {}:", std::process::id());
        assert!(refused.to_string().contains(&pid), "{refused}");
        drop(lock);
        assert_eq!(look(), None);
        DataLock::acquire_named(directory.path(), "OTHER.LOCK").unwrap();
    }
}
