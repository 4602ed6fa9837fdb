//! The one file of all partitions: who writes where, who syncs for whom, and what may be seen.
//!
//! Appends are serialized by a lock that is held for one write each. A sync runs outside the lock: whoever needs one and
//! finds none running does it for everybody who has written so far; who comes meanwhile waits, and is often covered by
//! the next one, which one of them does for all. Nobody syncs what is covered already.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::recovery::Recovered;
use crate::disk::DiskFile;
use crate::{DurableEnd, LogError, Offset, PartitionId};

/// What the file knows of one partition.
#[derive(Debug)]
pub(super) struct PartitionLines {
    /// Where each record's line starts in the file: one entry an offset, beyond the durable end too.
    pub(super) starts: RwLock<Vec<u64>>,
    pub(super) durable_end: DurableEnd,
    pub(super) writer_taken: AtomicBool,
}

/// The file and everything that is shared about it.
#[derive(Debug)]
pub(super) struct SharedFile {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) partitions: Vec<PartitionLines>,
    state: Mutex<State>,
    sync_ended: Condvar,
    /// Bytes from the start that are synced: `state.written >= synced`, and every line before a durable end is within.
    /// Moves under the lock of `state`.
    synced: AtomicU64,
    /// Set by the first failed write or sync: from then on nothing is written and nothing more becomes visible.
    poison: OnceLock<Poison>,
}

#[derive(Debug)]
struct State {
    /// Bytes from the start that are written: where the next append goes.
    written: u64,
    /// Offset after the last written record of each partition.
    ends: Vec<Offset>,
    syncing: bool,
    /// How long the last sync took.
    sync_time: Duration,
}

/// The first failure.
#[derive(Debug)]
struct Poison {
    kind: io::ErrorKind,
    cause: String,
}

impl Poison {
    fn to_error(&self) -> io::Error {
        io::Error::new(self.kind, self.cause.clone())
    }
}

/// Encoded lines of one batch.
#[derive(Debug, Default)]
pub(super) struct EncodedLines {
    pub(super) bytes: Vec<u8>,
    /// Where each line starts in `bytes`.
    pub(super) starts: Vec<usize>,
}

impl SharedFile {
    /// Takes a file whose first `bytes` are synced and hold what `recovered` says.
    pub(super) fn new(
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        bytes: u64,
        recovered: Vec<Recovered>,
    ) -> Self {
        let ends: Vec<_> = recovered.iter().map(Recovered::end).collect();
        let partitions = recovered
            .into_iter()
            .map(|partition| PartitionLines {
                durable_end: DurableEnd::new(partition.end()),
                starts: RwLock::new(partition.starts),
                writer_taken: AtomicBool::new(false),
            })
            .collect();
        Self {
            path,
            file,
            partitions,
            state: Mutex::new(State {
                written: bytes,
                ends,
                syncing: false,
                sync_time: Duration::ZERO,
            }),
            sync_ended: Condvar::new(),
            synced: AtomicU64::new(bytes),
            poison: OnceLock::new(),
        }
    }

    pub(super) fn partition(&self, partition: PartitionId) -> Result<&PartitionLines, LogError> {
        self.partitions
            .get(partition.index())
            .ok_or(LogError::NoSuchPartition(partition))
    }

    /// Bytes from the start that are synced.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// The first failure, if there was one.
    pub(super) fn poisoned(&self) -> Option<&str> {
        self.poison.get().map(|poison| poison.cause.as_str())
    }

    pub(super) fn refuse_if_poisoned(&self, partition: PartitionId) -> Result<(), LogError> {
        match self.poisoned() {
            None => Ok(()),
            Some(cause) => Err(LogError::Poisoned {
                partition,
                cause: cause.to_owned(),
            }),
        }
    }

    /// Writes the lines of a batch of `partition` that starts at `at`, behind everything written before. Returns the
    /// position behind them. They are neither synced nor visible on return.
    pub(super) fn write(
        &self,
        partition: PartitionId,
        at: Offset,
        lines: &EncodedLines,
    ) -> Result<u64, LogError> {
        let mut state = self.lock();
        self.refuse_if_poisoned(partition)?;
        let written = state.written;
        assert!(written >= self.synced(), "nothing is synced unwritten");
        assert_eq!(
            at,
            state.ends[partition.index()],
            "the batch continues its partition"
        );
        if let Err(source) = self.file.write_all_at(&lines.bytes, written) {
            return Err(self.failed_write(partition, at, written, source));
        }
        let starts = lines.starts.iter().map(|start| written + *start as u64);
        self.partitions[partition.index()]
            .starts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(starts);
        state.written = written + lines.bytes.len() as u64;
        state.ends[partition.index()] = at.plus(lines.starts.len() as u64);
        Ok(state.written)
    }

    /// After a failed write: a full disk is cut back to where the file ended and stays writable, all else poisons.
    fn failed_write(
        &self,
        partition: PartitionId,
        at: Offset,
        written: u64,
        source: io::Error,
    ) -> LogError {
        let is_full = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        let source = if is_full {
            // Synced, so that no crash can bring the cut bytes back from behind the next append.
            match self
                .file
                .set_length(written)
                .and_then(|()| self.file.sync_data())
            {
                Ok(()) => {
                    return LogError::StorageFull {
                        partition,
                        path: self.directory().to_owned(),
                    };
                }
                Err(source) => source,
            }
        } else {
            source
        };
        self.poison(&source);
        // Who waits for a sync learns now that none will come.
        self.sync_ended.notify_all();
        LogError::OutcomeUnknown {
            partition,
            at,
            source,
        }
    }

    /// Returns when the first `position` bytes are synced and visible, and how long the sync took that was waited for;
    /// zero if none was. The error is the first failure of the file, by whomever it was met.
    pub(super) fn sync_through(&self, position: u64) -> io::Result<Duration> {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if self.synced() >= position {
                return Ok(if waited {
                    state.sync_time
                } else {
                    Duration::ZERO
                });
            }
            if let Some(poison) = self.poison.get() {
                return Err(poison.to_error());
            }
            waited = true;
            state = if state.syncing {
                self.sync_ended
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner)
            } else {
                self.sync_for_all(state)
            };
        }
    }

    /// Syncs what everybody has written so far and makes it visible, or poisons the file.
    fn sync_for_all<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.syncing = true;
        let through = state.written;
        let ends = state.ends.clone();
        drop(state);
        let started = Instant::now();
        let outcome = self.file.sync_data();
        let sync_time = started.elapsed();
        let mut state = self.lock();
        state.syncing = false;
        state.sync_time = sync_time;
        match outcome {
            // A write that failed meanwhile may have taken the sync's error with it: its success proves nothing then.
            Ok(()) if self.poison.get().is_none() => {
                self.synced.store(through, Ordering::Release);
                for (partition, end) in self.partitions.iter().zip(ends) {
                    partition.durable_end.publish(end);
                }
            }
            Ok(()) => {}
            Err(source) => self.poison(&source),
        }
        self.sync_ended.notify_all();
        state
    }

    /// Syncs what is written, if anything is unsynced.
    pub(super) fn sync(&self) -> io::Result<Duration> {
        let written = self.lock().written;
        self.sync_through(written)
    }

    fn poison(&self, source: &io::Error) {
        // Only the first failure counts; later ones follow from it.
        self.poison.get_or_init(|| Poison {
            kind: source.kind(),
            cause: source.to_string(),
        });
    }

    fn directory(&self) -> &Path {
        directory_of(&self.path)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory a file is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
