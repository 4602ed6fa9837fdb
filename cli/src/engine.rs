//! Which engine keeps the events: the only place that knows both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use order_domain::EventKind;
use order_log::disk::{Disk, RealDisk};
use order_log::jsonl::{JsonlConfig, JsonlLog};
use order_log::segmented::{FollowedLog, SegmentedConfig, SegmentedLog};
use order_log::{Durability, EventLog, LogError};
use order_partitioner::Partitioner;

use crate::config::{Config, Store};
use crate::data_directory::DataDirectory;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;

/// Where the segmented log is in the data directory.
const SEGMENTED_DIRECTORY: &str = "log";
/// The JSONL log's file in the data directory.
const JSONL_FILE: &str = "events.jsonl";

/// Whether another process follows the log while this one writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Followers {
    /// None: whoever reads does so in this process.
    None,
    /// A projector in a process of its own.
    Projector,
}

/// Extension of a segment that a start has to take in.
const WAITING_EXTENSION: &str = "next";

/// How many segments of a stopped log wait for their names: they were written in durability mode `os`, the process was
/// killed, and only a start for writing takes them in.
///
/// # Errors
/// A failure if the directory cannot be read.
pub(crate) fn waiting_segments(directory: &Path) -> Result<usize, Failure> {
    let mut waiting = 0;
    for partition in entries_of(&directory.join(SEGMENTED_DIRECTORY))? {
        if partition.is_dir() {
            let files = entries_of(&partition)?;
            let waits =
                |path: &&PathBuf| path.extension().is_some_and(|it| it == WAITING_EXTENSION);
            waiting += files.iter().filter(waits).count();
        }
    }
    Ok(waiting)
}

fn entries_of(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(directory)(error)),
    };
    entries
        .map(|entry| Ok(entry.map_err(unreadable(directory))?.path()))
        .collect()
}

fn unreadable(directory: &Path) -> impl Fn(std::io::Error) -> Failure {
    let directory = directory.display().to_string();
    move |error| {
        anyhow::Error::new(error)
            .context(format!("read {directory}"))
            .into()
    }
}

/// Refuses to rewrite a log before a start took in all that is there.
///
/// # Errors
/// A failure that says what to do.
pub(crate) fn refuse_waiting_segments(directory: &Path) -> Result<(), Failure> {
    match waiting_segments(directory)? {
        0 => Ok(()),
        count => Err(anyhow::anyhow!(
            "{count} segments in {} wait for their names since the service was killed, and hold acknowledged events: run \
             `order-service log rotate`, which takes them in, and then this again",
            directory.join(SEGMENTED_DIRECTORY).display()
        )
        .into()),
    }
}

/// Opens the log of an owned data directory for writing, and recovers what a crash left.
///
/// # Errors
/// A failure with what the log said.
pub(crate) fn open(
    config: &Config,
    directory: &DataDirectory,
    followers: Followers,
) -> Result<Arc<dyn EventLog>, Failure> {
    open_told(
        &directory.path,
        &directory.manifest,
        config.durability.0,
        config.log.segment_bytes_max,
        followers,
    )
}

/// Opens the log that `manifest` describes in a directory that this process has to itself, for writing.
///
/// # Errors
/// A failure with what the log said.
pub(crate) fn open_at(
    directory: &Path,
    manifest: &Manifest,
    durability: Durability,
    segment_bytes_max: u64,
) -> Result<Arc<dyn EventLog>, Failure> {
    open_told(
        directory,
        manifest,
        durability,
        segment_bytes_max,
        Followers::None,
    )
}

fn open_told(
    directory: &Path,
    manifest: &Manifest,
    durability: Durability,
    segment_bytes_max: u64,
    followers: Followers,
) -> Result<Arc<dyn EventLog>, Failure> {
    match manifest.store {
        Store::Segmented => {
            let segmented = SegmentedConfig {
                durability,
                segment_bytes_max,
                followed: followers == Followers::Projector,
                ..segmented_config(directory, manifest)
            };
            Ok(Arc::new(SegmentedLog::open(segmented, disk())?))
        }
        Store::Jsonl => {
            let jsonl = JsonlConfig {
                durability,
                ..jsonl_config(directory, manifest)
            };
            Ok(Arc::new(JsonlLog::open(jsonl, &disk())?))
        }
    }
}

/// Opens the log of a data directory for reading, changing nothing; a service may be writing it.
///
/// # Errors
/// A failure with what the log said.
pub(crate) fn open_read_only(
    directory: &Path,
    manifest: &Manifest,
) -> Result<Arc<dyn EventLog>, Failure> {
    match manifest.store {
        Store::Segmented => Ok(Arc::new(open_segments_beside_a_writer(
            directory, manifest,
        )?)),
        Store::Jsonl => {
            let jsonl = jsonl_config(directory, manifest);
            Ok(Arc::new(JsonlLog::open_read_only(jsonl, &disk())?))
        }
    }
}

/// Looks at a log that is being written before what seems damaged is taken for it.
const LOOKS: u32 = 10;
/// Pause before the second look; each further one is longer by as much.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Opens a segmented log for reading that a service may be writing: up to where it ends now. A look at the tail can meet a
/// frame half-way and then the one behind it whole. That looks like damage, and is gone at the next look; damage is there at
/// each.
///
/// # Errors
/// A failure with what the log said; damage is none.
pub(crate) fn open_segments_beside_a_writer(
    directory: &Path,
    manifest: &Manifest,
) -> Result<SegmentedLog, Failure> {
    let mut looks = 1;
    loop {
        let log = open_segments(directory, manifest)?;
        if looks == LOOKS || damage(&log, manifest).is_none() {
            return Ok(log);
        }
        std::thread::sleep(BETWEEN_LOOKS * looks);
        looks += 1;
    }
}

/// Opens the log that another process writes, to follow it.
///
/// # Errors
/// What the log said; [`LogError::Io`] or [`LogError::Incompatible`] while it is not there yet.
pub(crate) fn follow(directory: &Path, manifest: &Manifest) -> Result<FollowedLog, LogError> {
    FollowedLog::open(&segmented_config(directory, manifest), &disk())
}

/// Refuses a store that only one process can work on.
///
/// # Errors
/// A usage failure that says what to do instead.
pub(crate) fn check_splits(store: Store) -> Result<(), Failure> {
    match store {
        Store::Segmented => Ok(()),
        Store::Jsonl => Err(usage!(
            "the jsonl store cannot be followed by another process: run `order-service serve`, or use a data directory \
             of the segmented store"
        )),
    }
}

/// Opens a segmented log for reading.
///
/// # Errors
/// A failure with what the log said.
pub(crate) fn open_segments(
    directory: &Path,
    manifest: &Manifest,
) -> Result<SegmentedLog, Failure> {
    Ok(SegmentedLog::open_read_only(
        segmented_config(directory, manifest),
        disk(),
    )?)
}

/// How the log of a data directory is found; the settings that only matter for writing are the defaults.
pub(crate) fn segmented_config(directory: &Path, manifest: &Manifest) -> SegmentedConfig {
    SegmentedConfig::new(
        directory.join(SEGMENTED_DIRECTORY),
        manifest.log_id.into_bytes(),
        manifest.partitions,
        Durability::Always,
    )
}

/// What keeps a log that was opened for reading from being read to its end.
pub(crate) fn damage(log: &dyn EventLog, manifest: &Manifest) -> Option<String> {
    match manifest.store {
        Store::Segmented => log
            .status()
            .into_iter()
            .find_map(|partition| partition.unwritable),
        // A damaged file does not open; an open one says of itself that it takes no writes.
        Store::Jsonl => None,
    }
}

fn jsonl_config(directory: &Path, manifest: &Manifest) -> JsonlConfig {
    JsonlConfig {
        path: jsonl_file(directory),
        partitions: manifest.partitions,
        durability: Durability::Always,
        type_names: type_name,
    }
}

/// Opens a file of JSON lines that belongs to no data directory, for reading, whatever partitions are in it.
///
/// # Errors
/// [`LogError::Incompatible`] with the number of the first line that is no record.
pub(crate) fn open_lines(path: &Path) -> Result<JsonlLog, LogError> {
    let config = JsonlConfig {
        path: path.to_owned(),
        partitions: Partitioner::PARTITIONS_MAX,
        durability: Durability::Always,
        type_names: type_name,
    };
    JsonlLog::open_read_only(config, &disk())
}

/// The name of an event type's number.
pub(crate) fn type_name(number: u16) -> &'static str {
    EventKind::from_number(number).map_or("Unknown", EventKind::name)
}

/// Where the JSONL log of a data directory is.
pub(crate) fn jsonl_file(directory: &Path) -> PathBuf {
    directory.join(JSONL_FILE)
}

/// The file system of this machine.
pub(crate) fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}
