//! A data directory: locked for one process, known by its manifest, readable by its owner alone.

use std::path::PathBuf;

use anyhow::Context;
use order_log::DataLock;

use crate::config::Config;
use crate::failure::Failure;
use crate::manifest::Manifest;

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
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let lock = DataLock::acquire(&path)?;
        let manifest = Manifest::read_or_create(&path, config.partitions, config.store)?;
        Ok(Self {
            path,
            manifest,
            _lock: lock,
        })
    }
}

/// Makes everything this process creates readable by its owner alone: the files hold what customers ordered.
pub(crate) fn keep_files_private() {
    use rustix::fs::Mode;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}
