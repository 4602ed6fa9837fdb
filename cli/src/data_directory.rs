//! A data directory: locked for one process, known by its manifest, readable by its owner alone.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use order_log::DataLock;

use crate::config::Config;
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::staging;

/// A data directory that this process may write until it ends.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) manifest: Manifest,
    _lock: DataLock,
}

impl DataDirectory {
    /// Locks the configured directory, which is made if it is missing, and holds its manifest against the
    /// configuration.
    ///
    /// # Errors
    /// A failure naming the other process if there is one; a usage failure if the directory holds something else than
    /// was asked for.
    pub(crate) fn own(config: &Config) -> Result<Self, Failure> {
        let path = config.data_dir.clone();
        create_durably(&path)?;
        let lock = DataLock::acquire(&path)?;
        staging::finish_pending(&path)?;
        let manifest = Manifest::read_or_create(&path, config.partitions, config.store)?;
        staging::tell_of_leftovers(&path);
        Ok(Self {
            path,
            manifest,
            _lock: lock,
        })
    }

    /// Locks a data directory that is there, for an offline command, and finishes what an interrupted one left.
    ///
    /// # Errors
    /// A usage failure if it is none; a failure naming the other process if there is one.
    pub(crate) fn own_existing(path: &Path) -> Result<Self, Failure> {
        if !path.join(manifest::FILE_NAME).exists() && !staging::is_pending(path) {
            // For its message. Nothing is made in a directory that is somebody else's.
            Manifest::read(path)?;
        }
        let lock = DataLock::acquire(path)?;
        staging::finish_pending(path)?;
        Ok(Self {
            path: path.to_owned(),
            manifest: Manifest::read(path)?,
            _lock: lock,
        })
    }
}

/// Makes a directory and its parents; on return their names are on stable storage.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn create_durably(path: &Path) -> Result<(), Failure> {
    let missing: Vec<&Path> = path.ancestors().take_while(|it| !it.exists()).collect();
    std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
    for made in missing {
        let parent = match made.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => continue,
        };
        sync_directory(parent)?;
    }
    Ok(())
}

/// Makes a directory's names durable.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Failure> {
    File::open(directory)
        .and_then(|opened| opened.sync_all())
        .with_context(|| format!("sync {}", directory.display()))?;
    Ok(())
}

/// Makes everything this process creates readable by its owner alone: the files hold what customers ordered.
pub(crate) fn keep_files_private() {
    use rustix::fs::Mode;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
