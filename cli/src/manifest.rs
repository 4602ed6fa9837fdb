//! `manifest.json`: what a data directory is, written once when it is made and held against every start.
//!
//! The partition of an order follows from the hash and the count; the bytes of a frame from the format and the log's
//! id. A start that disagrees with any of them would write where nobody looks, so it is refused before a file is opened.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;
use order_partitioner::{HASH_NAME, Partitioner};
use serde::{Deserialize, Serialize};

use crate::config::{PARTITIONS_DEFAULT, Store};
use crate::failure::{Failure, usage};
use crate::{backup, staging};

/// Version of a new data directory's layout.
const FORMAT: u32 = 1;
/// Version of one whose log was compacted: a binary that does not know snapshots would set every compacted order aside, so
/// it must not open it.
pub(crate) const FORMAT_COMPACTED: u32 = 2;

/// The file's name in the data directory.
pub(crate) const FILE_NAME: &str = "manifest.json";
const DRAFT_NAME: &str = "manifest.json.new";

/// What only ever stands beside a manifest: a directory with one of these and no manifest has lost it.
const NEVER_ALONE: [&str; 4] = ["log", "events.jsonl", "read.db", "read-000.db"];

/// What a data directory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Version of the directory's layout.
    pub(crate) format: u32,
    /// Identity of the log: part of every frame's checksum.
    pub(crate) log_id: uuid::Uuid,
    /// How many partitions the log has.
    pub(crate) partitions: u16,
    /// The hash that spreads order ids over them.
    pub(crate) hash: String,
    /// The engine that keeps the events.
    pub(crate) store: Store,
    /// When the directory was made.
    pub(crate) created_at: jiff::Timestamp,
    /// What of the log was written before it had its present identity, if any of it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rewritten: Option<Rewritten>,
}

/// The part of a log that came from another one, by `log repartition`, `log compact` or `log import`. Its orders are where
/// their ids belong, but the idempotency keys they were placed with may belong in other partitions. `log compact` moves no
/// order: what it says here is what was said before it, or that there is no such part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rewritten {
    /// When.
    pub(crate) at: jiff::Timestamp,
    /// Offset after that part, by partition.
    pub(crate) ends: Vec<u64>,
    /// Append time of its last event, in microseconds since 1970.
    pub(crate) last_append_us: u64,
    /// Identities the log had before, the last one first: tokens of these are told from forged ones.
    pub(crate) former_log_ids: Vec<uuid::Uuid>,
}

/// The part that is read first: a newer layout may have any other fields.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Manifest {
    /// Of a new log, not written anywhere yet.
    pub(crate) fn new(partitions: u16, store: Store) -> Self {
        Self {
            format: FORMAT,
            log_id: uuid::Uuid::now_v7(),
            partitions,
            hash: HASH_NAME.to_owned(),
            store,
            created_at: jiff::Timestamp::now(),
            rewritten: None,
        }
    }

    /// Reads the manifest of an existing data directory.
    ///
    /// # Errors
    /// A usage failure if there is none, or if it is of another version or damaged.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        Self::find(directory)?.ok_or_else(|| {
            usage!(
                "{} is not a data directory: it has no {FILE_NAME}; name one with --data-dir",
                directory.display()
            )
        })
    }

    /// Reads the manifest of a data directory, which the caller has locked, or makes it. `partitions` and `store` are
    /// what was explicitly asked for. On return a new manifest is on stable storage, with the name it is found by.
    ///
    /// # Errors
    /// A usage failure if the directory holds something else than was asked for, with what to do about it; a failure if
    /// a file operation fails.
    pub(crate) fn read_or_create(
        directory: &Path,
        partitions: Option<u16>,
        store: Option<Store>,
    ) -> Result<Self, Failure> {
        let manifest = match Self::find(directory)? {
            Some(manifest) => manifest,
            None => Self::create(directory, partitions, store)?,
        };
        manifest.check(directory, partitions, store)?;
        Ok(manifest)
    }

    /// The partitioner the manifest describes.
    ///
    /// # Errors
    /// A usage failure for a count no log can have.
    pub(crate) fn partitioner(&self) -> Result<Partitioner, Failure> {
        Partitioner::new(self.partitions).ok_or_else(|| {
            usage!(
                "{FILE_NAME} says {} partitions; 1 to {} are possible: restore the file from a backup",
                self.partitions,
                Partitioner::PARTITIONS_MAX
            )
        })
    }

    /// Reads the manifest of a data directory, if there is one.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub(crate) fn find(directory: &Path) -> Result<Option<Self>, Failure> {
        let path = directory.join(FILE_NAME);
        let read = fs::read_to_string(&path);
        staging::refuse_unfinished(directory, read.is_ok())?;
        let text = match read {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(path.display().to_string())
                    .into());
            }
        };
        let damaged = |error: serde_json::Error| {
            usage!(
                "{} does not read ({error}): restore it from a backup",
                path.display()
            )
        };
        if backup::is_manifest(&text) {
            return Err(usage!(
                "{} is a backup and not a data directory: `order-service restore --from {} --data-dir DIR` makes one \
                 of it",
                directory.display(),
                directory.display()
            ));
        }
        let FormatOnly { format } = serde_json::from_str(&text).map_err(damaged)?;
        if !(FORMAT..=FORMAT_COMPACTED).contains(&format) {
            return Err(usage!(
                "{} is of format {format}, this binary knows formats {FORMAT} to {FORMAT_COMPACTED}: start the version of order-service that \
                 wrote it, or name another directory with --data-dir",
                path.display()
            ));
        }
        let manifest: Self = serde_json::from_str(&text).map_err(damaged)?;
        manifest.check_readable(directory)?;
        Ok(Some(manifest))
    }

    /// Holds the manifest in `directory` against what this binary can read.
    ///
    /// # Errors
    /// A usage failure that says what to do.
    pub(crate) fn check_readable(&self, directory: &Path) -> Result<(), Failure> {
        if self.hash != HASH_NAME {
            return Err(usage!(
                "{} spreads orders by the hash `{}`, this binary by `{HASH_NAME}`: start the version of order-service \
                 that wrote it",
                directory.join(FILE_NAME).display(),
                self.hash
            ));
        }
        self.partitioner().map(drop)
    }

    /// Holds the manifest against what was explicitly asked for.
    ///
    /// # Errors
    /// A usage failure that says what to do about a difference.
    pub(crate) fn check(
        &self,
        directory: &Path,
        partitions: Option<u16>,
        store: Option<Store>,
    ) -> Result<(), Failure> {
        if let Some(asked) = partitions.filter(|asked| *asked != self.partitions) {
            return Err(usage!(
                "{} has {} partitions, {asked} were asked for: start with `--partitions {}` or without the flag; to \
                 change the count, rewrite the log with `order-service log repartition --partitions {asked} \
                 --data-dir {}`",
                directory.display(),
                self.partitions,
                self.partitions,
                directory.display()
            ));
        }
        if let Some(asked) = store.filter(|asked| *asked != self.store) {
            return Err(usage!(
                "{} keeps its events in the {} store, {asked} was asked for: start with `--store {}` or without the \
                 flag, or name another directory with --data-dir",
                directory.display(),
                self.store,
                self.store
            ));
        }
        Ok(())
    }

    /// Writes the manifest of a new directory: under another name first, so that a crash leaves none or a whole one.
    fn create(
        directory: &Path,
        partitions: Option<u16>,
        store: Option<Store>,
    ) -> Result<Self, Failure> {
        if let Some(orphan) = NEVER_ALONE
            .iter()
            .find(|name| directory.join(name).exists())
        {
            return Err(usage!(
                "{} holds `{orphan}` but no {FILE_NAME}, without which its contents cannot be told apart: restore \
                 {FILE_NAME} from a backup, or name another directory with --data-dir",
                directory.display()
            ));
        }
        let manifest = Self::new(
            partitions.unwrap_or(PARTITIONS_DEFAULT),
            store.unwrap_or(Store::Segmented),
        );
        manifest.write(directory)?;
        Ok(manifest)
    }

    /// Writes the manifest into a directory. On return it is on stable storage.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self).context("encode the manifest")?;
        staging::write_durably(directory, DRAFT_NAME, FILE_NAME, text.as_bytes())
    }
}
