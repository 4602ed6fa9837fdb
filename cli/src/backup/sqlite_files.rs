//! The SQLite files' part of a backup, by SQLite's own backup interface, and the proof that none is ahead of the log.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use order_log::Offset;
use order_projector_workers::{StoredReadModel, read_model_files};
use rusqlite::backup::{Backup as SqliteBackup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::Backup;
use crate::byte_progress::ByteProgress;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::print;

/// Pages copied between two looks at the progress.
const PAGES_A_STEP: std::ffi::c_int = 1024;
/// Longest wait for a file that is locked for the moment of its opening.
const BUSY: Duration = Duration::from_secs(10);
/// The outbox's store in the data directory.
const OUTBOX_STORE: &str = "outbox.db";

/// How far the copied files say they have come.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    read_model: Option<Vec<StoredReadModel>>,
    cursors: Vec<Offset>,
}

impl Checkpoints {
    /// Reads them from the SQLite files of a directory that nobody writes.
    ///
    /// # Errors
    /// A failure with what SQLite said.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let files = read_model_files(directory)?;
        let models = files.iter().map(|file| StoredReadModel::read(file));
        let models = models.collect::<Result<Vec<_>, _>>()?;
        let store = directory.join(OUTBOX_STORE);
        Ok(Self {
            read_model: (!models.is_empty()).then_some(models),
            cursors: if store.exists() {
                order_outbox::stored_cursors(&store)?
            } else {
                Vec::new()
            },
        })
    }

    pub(crate) fn has_read_model(&self) -> bool {
        self.read_model.is_some()
    }

    /// The first checkpoint that the log does not reach, in words.
    pub(crate) fn ahead(&self, log_ends: &[u64]) -> Option<String> {
        self.read_model
            .iter()
            .flatten()
            .flat_map(|file| &file.checkpoints)
            .find(|(partition, next)| {
                log_ends
                    .get(partition.index())
                    .is_none_or(|end| next.get() > *end)
            })
            .map(|(partition, next)| {
                format!("the read model is at {next} in partition {partition}")
            })
    }

    /// No row and no cursor may be ahead of the log.
    ///
    /// # Errors
    /// A failure that names what is.
    pub(crate) fn check(&self, log_ends: &[u64]) -> Result<(), Failure> {
        let cursor = self
            .cursors
            .iter()
            .enumerate()
            .find(|(partition, cursor)| {
                log_ends
                    .get(*partition)
                    .is_none_or(|end| cursor.get() > *end)
            })
            .map(|(partition, cursor)| {
                format!("the outbox is at {cursor} in partition {partition}")
            });
        match self.ahead(log_ends).or(cursor) {
            None => Ok(()),
            Some(what) => Err(anyhow!(
                "{what}, the log ends at {log_ends:?}: they do not belong together"
            )
            .into()),
        }
    }
}

impl Backup<'_> {
    /// Copies the read model and the outbox's store, each as of one moment. A read model that cannot be copied is left out:
    /// the log has everything that is in it.
    pub(super) fn copy_sqlite(&mut self, manifest: &Manifest) -> Result<Checkpoints, Failure> {
        let mut models = Vec::new();
        for file in read_model_files(self.from)? {
            let copied = copy(&file, &self.to.join(file.file_name().unwrap_or_default()))
                .and_then(|path| Ok(StoredReadModel::read(path)?));
            match copied {
                Ok(model) if model.log_id == manifest.log_id.to_string() => models.push(file),
                Ok(_) => {}
                Err(failure) => print::line(&format!(
                    "{}: {failure}; the read model is left out, it is rebuilt from the log",
                    file.display()
                ))?,
            }
        }
        // All files or none: a read model with a shard missing is none.
        let whole = models.len() == read_model_files(self.from)?.len();
        for file in read_model_files(self.to)? {
            if whole {
                self.take_up(&file_name(&file))?;
            } else {
                std::fs::remove_file(&file)
                    .with_context(|| format!("remove {}", file.display()))?;
            }
        }
        let store = self.from.join(OUTBOX_STORE);
        if store.exists() {
            copy(&store, &self.to.join(OUTBOX_STORE))?;
            self.take_up(OUTBOX_STORE)?;
        }
        Checkpoints::read(self.to)
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Copies one SQLite file as of one moment while others write it, and has SQLite check the copy. Returns the copy's path.
///
/// # Errors
/// A failure with what SQLite said.
pub(crate) fn copy<'a>(from: &Path, to: &'a Path) -> Result<&'a Path, Failure> {
    let step = || -> rusqlite::Result<Option<String>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(from, flags)?;
        source.busy_timeout(BUSY)?;
        // A reading transaction holds the moment: without it every commit of the service would begin the copy anew.
        source.execute_batch("BEGIN")?;
        source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        let mut target = Connection::open(to)?;
        let mut progress = ByteProgress::new("copied");
        {
            let backup = SqliteBackup::new(&source, &mut target)?;
            loop {
                match backup.step(PAGES_A_STEP)? {
                    StepResult::Done => break,
                    // Nobody else knows the target, and the source is ours to read.
                    _ => {
                        let pages = backup.progress();
                        let done = pages.pagecount.saturating_sub(pages.remaining);
                        progress.at(u64::try_from(done).unwrap_or(0) * 4096);
                    }
                }
            }
        }
        progress.end();
        // One file without a -wal: the copy is complete by itself.
        target.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        let verdict: String = target.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((verdict != "ok").then_some(verdict))
    };
    match step().with_context(|| format!("copy {}", from.display()))? {
        None => Ok(to),
        Some(verdict) => Err(anyhow!("{} is damaged: {verdict}", from.display()).into()),
    }
}

#[cfg(test)]
mod tests {
    use order_log::PartitionId;

    use super::*;

    fn checkpoints(read_model: &[u64], cursors: &[u64]) -> Checkpoints {
        let checkpoints = (0..)
            .map(PartitionId::new)
            .zip(read_model.iter().copied().map(Offset::new));
        Checkpoints {
            read_model: Some(vec![StoredReadModel {
                log_id: "a log".to_owned(),
                checkpoints: checkpoints.collect(),
            }]),
            cursors: cursors.iter().copied().map(Offset::new).collect(),
        }
    }

    #[test]
    fn rows_and_cursors_may_be_at_the_logs_end_and_not_beyond() {
        checkpoints(&[3, 5], &[3, 0]).check(&[3, 5]).unwrap();
        for (ahead, word) in [
            (
                checkpoints(&[3, 6], &[0, 0]),
                "read model is at 6 in partition 1",
            ),
            (
                checkpoints(&[3, 5], &[4, 0]),
                "outbox is at 4 in partition 0",
            ),
            (checkpoints(&[0, 0, 0], &[0, 0]), "in partition 2"),
            (checkpoints(&[0, 0], &[0, 0, 0]), "in partition 2"),
        ] {
            let refused = ahead.check(&[3, 5]).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
        assert!(checkpoints(&[4], &[]).ahead(&[3]).is_some());
        assert!(
            checkpoints(&[3], &[9]).ahead(&[3]).is_none(),
            "of the read model alone"
        );
    }
}
