//! What every rewriting of a data directory's log has to see to, whatever it rewrites it into: room for the new log, the
//! outbox that goes with it, what makes room in the end, and whom the log was before.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use order_log::{EventLog, Offset, ScanLimit};
use order_outbox::OfflineOutbox;

use crate::backup::copy_sqlite_file;
use crate::config::Store;
use crate::data_directory::DataDirectory;
use crate::engine;
use crate::failure::Failure;
use crate::manifest::{self, Manifest};
use crate::staging::{Retire, names_in};

/// Identities of the log that are remembered, to know their tokens by.
const FORMER_LOG_IDS_MAX: usize = 16;
/// The outbox's store in the data directory.
const OUTBOX_STORE: &str = "outbox.db";
/// A SQLite file's companions.
const SQLITE_SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// What the files of a log take, in bytes.
///
/// # Errors
/// Whatever the log or the file system says.
pub(crate) fn file_bytes(directory: &Path, manifest: &Manifest) -> Result<u64, Failure> {
    Ok(match manifest.store {
        Store::Segmented => {
            let segments = engine::open_segments(directory, manifest)?.segments()?;
            segments.iter().map(|segment| segment.bytes).sum()
        }
        Store::Jsonl => fs::metadata(engine::jsonl_file(directory))
            .context("measure the log")?
            .len(),
    })
}

/// What of that has events in it: the rest of a segment that is being written is kept free for the next ones.
///
/// # Errors
/// Whatever the log or the file system says.
pub(crate) fn used_bytes(directory: &Path, manifest: &Manifest) -> Result<u64, Failure> {
    if manifest.store == Store::Jsonl {
        return file_bytes(directory, manifest);
    }
    let log = engine::open_segments(directory, manifest)?;
    let segments = log.segments()?;
    let partitions = segments.chunk_by(|one, next| one.partition == next.partition);
    let sealed = partitions.flat_map(|segments| segments.split_last().map_or(segments, |it| it.1));
    let active = log.status().into_iter().map(|it| it.active_segment_bytes);
    Ok(sealed.map(|segment| segment.bytes).chain(active).sum())
}

/// The new log needs so much room beside the old one.
///
/// # Errors
/// A failure that says how much there is, if it is less.
pub(crate) fn refuse_without_space(directory: &DataDirectory, needed: u64) -> Result<(), Failure> {
    let path = &directory.path;
    let free = engine::disk()
        .free_bytes(path)
        .with_context(|| path.display().to_string())?;
    if free < needed {
        return Err(anyhow!(
            "{} has {free} bytes free, the rewritten log needs about {needed} beside the old one: make room first",
            path.display()
        )
        .into());
    }
    Ok(())
}

/// The outbox's store, as a file of its own in the staging directory; `None` if there is none.
///
/// # Errors
/// Whatever the store or the file system says.
pub(crate) fn copy_outbox(
    directory: &DataDirectory,
    staging: &Path,
    source: &str,
) -> Result<Option<OfflineOutbox>, Failure> {
    let store = directory.path.join(OUTBOX_STORE);
    if !store.exists() {
        return Ok(None);
    }
    copy_sqlite_file(&store, &staging.join(OUTBOX_STORE))?;
    Ok(OfflineOutbox::open(staging, source)?)
}

/// How far the outbox has told each partition, as its store in the data directory says; nowhere if there is none.
///
/// # Errors
/// A failure if the store is not of this log.
pub(crate) fn told(
    directory: &DataDirectory,
    source: &str,
    log: &dyn EventLog,
) -> Result<Vec<Offset>, Failure> {
    let Some(outbox) = OfflineOutbox::open(&directory.path, source)? else {
        return Ok(vec![Offset::ZERO; usize::from(log.partition_count())]);
    };
    let cursors = outbox.cursors();
    check_cursors(&cursors, log)?;
    Ok(cursors)
}

/// The outbox must be of this log: a cursor in it, between two frames.
///
/// # Errors
/// A failure if it is not.
pub(crate) fn check_cursors(cursors: &[Offset], old: &dyn EventLog) -> Result<(), Failure> {
    let status = old.status();
    if cursors.len() != status.len() {
        return Err(anyhow!(
            "{OUTBOX_STORE} knows {} partitions, the log has {}: it belongs to another log",
            cursors.len(),
            status.len()
        )
        .into());
    }
    for (cursor, partition) in cursors.iter().zip(&status) {
        // A cursor before the log's start has told nothing of what is there.
        if *cursor <= partition.start {
            continue;
        }
        let reader = old.reader(partition.partition)?;
        let limit = ScanLimit {
            records: 1,
            ..ScanLimit::NONE
        };
        reader
            .scan(*cursor, limit, &mut |_| std::ops::ControlFlow::Break(()))
            .with_context(|| format!("{OUTBOX_STORE} belongs to another log"))?;
    }
    Ok(())
}

/// The identities the rewritten log had before, the last one first.
pub(crate) fn former_log_ids(before: &Manifest) -> Vec<uuid::Uuid> {
    let mut former = vec![before.log_id];
    former.extend(before.rewritten.iter().flat_map(|it| &it.former_log_ids));
    former.truncate(FORMER_LOG_IDS_MAX);
    former
}

/// What makes room: the old log, the outbox's store, the read model, and a copy of the manifest to know them by. They go to
/// `before-<command>-<log id>`.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn retire(
    directory: &DataDirectory,
    command: &str,
    discard: bool,
) -> Result<Retire, Failure> {
    let to = format!("before-{command}-{}", directory.manifest.log_id);
    let kept = directory.path.join(&to);
    fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
    // Under another name: a service started there would tell every integration event again.
    let manifest = directory.path.join(manifest::FILE_NAME);
    fs::copy(&manifest, kept.join("manifest.json.retired"))
        .with_context(|| format!("copy {}", manifest.display()))?;
    let names = names_in(&directory.path)?.into_iter().filter(|name| {
        let of_file = |file: &str| {
            SQLITE_SUFFIXES
                .iter()
                .any(|suffix| name.strip_suffix(suffix) == Some(file))
        };
        let of_read_model = SQLITE_SUFFIXES.iter().any(|suffix| {
            name.strip_suffix(suffix)
                .is_some_and(order_projector_workers::is_read_model)
        });
        name == "log" || name == "events.jsonl" || of_file(OUTBOX_STORE) || of_read_model
    });
    Ok(Retire {
        to,
        names: names.collect(),
        discard,
    })
}
