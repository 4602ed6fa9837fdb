//! A data directory: locked for one process, known by its manifest, readable by its owner alone.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use order_log::{DataLock, LogError};

use crate::config::Config;
use crate::failure::{Failure, usage};
use crate::manifest::{self, Manifest};
use crate::staging;

/// The lock on the read model's files, and so on projecting.
pub(crate) const PROJECTOR_LOCK: &str = "PROJECTOR.LOCK";

/// The files that are locked: they may stand in a directory that is empty otherwise.
pub(crate) const LOCKS: [&str; 2] = [DataLock::LOG, PROJECTOR_LOCK];

/// All of a data directory, locked until this is dropped: no service writes its log, no projector its read model.
#[derive(Debug)]
pub(crate) struct WholeDirectory {
    _log: DataLock,
    _read_model: DataLock,
}

impl WholeDirectory {
    /// Locks all of a directory, which must exist.
    ///
    /// # Errors
    /// [`LogError::Locked`] with the other process's id if there is one.
    pub(crate) fn lock(path: &Path) -> Result<Self, LogError> {
        Ok(Self {
            _log: DataLock::acquire(path)?,
            _read_model: DataLock::acquire_named(path, PROJECTOR_LOCK)?,
        })
    }
}

/// What of a data directory this process has to itself.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never looked at")]
enum Held {
    All(WholeDirectory),
    Log(DataLock),
}

/// A data directory whose log this process may write until it ends.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) manifest: Manifest,
    _held: Held,
}

impl DataDirectory {
    /// Locks the configured directory, which is made if it is missing, and holds its manifest against the
    /// configuration.
    ///
    /// # Errors
    /// A failure naming the other process if there is one; a usage failure if the directory holds something else than
    /// was asked for.
    pub(crate) fn own(config: &Config) -> Result<Self, Failure> {
        create_durably(&config.data_dir)?;
        let held = Held::All(WholeDirectory::lock(&config.data_dir)?);
        Self::known(config, held)
    }

    /// Locks the configured directory but for its read model, for a process that leaves that to a projector.
    ///
    /// # Errors
    /// As [`DataDirectory::own`].
    pub(crate) fn own_log(config: &Config) -> Result<Self, Failure> {
        create_durably(&config.data_dir)?;
        let log = DataLock::acquire(&config.data_dir)?;
        finish_with_read_model(&config.data_dir)?;
        Self::known(config, Held::Log(log))
    }

    fn known(config: &Config, held: Held) -> Result<Self, Failure> {
        let path = config.data_dir.clone();
        staging::finish_pending(&path)?;
        let manifest = Manifest::read_or_create(&path, config.partitions, config.store)?;
        staging::tell_of_leftovers(&path);
        Ok(Self {
            path,
            manifest,
            _held: held,
        })
    }

    /// Locks a data directory that is there, for an offline command, and finishes what an interrupted one left.
    ///
    /// # Errors
    /// A usage failure if it is none; a failure naming the other process if there is one.
    pub(crate) fn own_existing(path: &Path) -> Result<Self, Failure> {
        refuse_none(path)?;
        let held = Held::All(WholeDirectory::lock(path)?);
        staging::finish_pending(path)?;
        Ok(Self {
            path: path.to_owned(),
            manifest: Manifest::read(path)?,
            _held: held,
        })
    }

    /// Locks a data directory that is there but for its read model, which a projector may be filling, and finishes what an
    /// interrupted command left.
    ///
    /// # Errors
    /// As [`DataDirectory::own_existing`].
    pub(crate) fn own_existing_log(path: &Path) -> Result<Self, Failure> {
        refuse_none(path)?;
        let log = DataLock::acquire(path)?;
        finish_with_read_model(path)?;
        Ok(Self {
            path: path.to_owned(),
            manifest: Manifest::read(path)?,
            _held: Held::Log(log),
        })
    }
}

/// Refuses what is no data directory, before anything is made in it: it is somebody else's.
fn refuse_none(path: &Path) -> Result<(), Failure> {
    if !path.join(manifest::FILE_NAME).exists() && !staging::is_pending(path) {
        // For its message.
        Manifest::read(path)?;
    }
    Ok(())
}

/// Finishes what an interrupted command left. That moves the projector's files as well: not under its hands.
fn finish_with_read_model(path: &Path) -> Result<(), Failure> {
    if staging::is_pending(path) {
        let _read_model = DataLock::acquire_named(path, PROJECTOR_LOCK)?;
        staging::finish_pending(path)?;
    }
    Ok(())
}

/// The refusal of a directory that a process owns: by which, and how to ask it instead.
pub(crate) fn ask_its_owner(failure: Failure, config: &Config) -> Failure {
    let (Failure::Usage(error) | Failure::Failed(error)) = &failure;
    let Some(LogError::Locked { holder, path }) = error.downcast_ref() else {
        return failure;
    };
    let address = if path.ends_with(PROJECTOR_LOCK) {
        config.projector.listen
    } else {
        config.admin_listen.unwrap_or(config.listen)
    };
    usage!(
        "{} is owned by process {holder}: ask that service, with --url http://{address} (or where it listens), or stop it \
         first",
        config.data_dir.display()
    )
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
