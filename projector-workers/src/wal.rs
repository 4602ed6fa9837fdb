//! Draining the write-ahead log of each file into the file, beside the workers instead of within their commits.
//!
//! A commit that moves a large WAL into its file takes as long as thousands of commits: the rows behind it would be late.
//! Here most pages are moved while the workers go on; only the last few are moved with the writer held, because SQLite
//! starts the WAL over only if nothing is left in it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use order_log::PartitionId;
use rusqlite::Connection;

use crate::database::open_drain;
use crate::{ReadModel, ReadModelError};

/// How often the files are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Looks at an unchanged file after which what is left in its WAL is drained, however little.
const LOOKS_UNTIL_IDLE: u32 = 10;

/// Lengths of a WAL, in pages of 4 KiB, at which something is done about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// Not yet in the file: they are moved. A page that changes often is moved once for all its changes, but what is in the
    /// WAL is synced first, and all that time the syncs of commands stand behind it in the disk's queue.
    pub(crate) to_move: u64,
    /// Since the WAL last started over: the workers wait while the last pages are moved, so that it can.
    pub(crate) to_start_over: u64,
}

/// The lengths at which the service drains.
pub(crate) const LENGTHS: Lengths = Lengths {
    to_move: 1024,
    to_start_over: 8 * 1024,
};

/// Pages few enough to be moved while the workers wait: a few milliseconds.
const PAGES_FEW: u64 = 256;

/// Times the pages are moved beside the workers before they have to wait, should they write as fast as this drains.
const PASSES_MAX: u32 = 4;

/// All files of a read model, watched by one thread.
#[derive(Debug)]
pub(crate) struct WalDrain {
    read_model: Arc<ReadModel>,
    files: Vec<File>,
    lengths: Lengths,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Any partition of the file, to take its writer by.
    partition: PartitionId,
    connection: Connection,
    /// Commits seen at the last look.
    commits: u64,
    /// Looks since the last commit; more than [`LOOKS_UNTIL_IDLE`] once the file was drained.
    idle_looks: u32,
    /// Whether the last attempt failed, so that a failure that lasts is told once.
    failing: bool,
}

/// What is in a WAL, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalPages {
    /// Since it was last started over.
    pub(crate) written: u64,
    /// Of these, moved into the file.
    pub(crate) moved: u64,
}

impl WalPages {
    pub(crate) const fn left(self) -> u64 {
        self.written.saturating_sub(self.moved)
    }
}

impl WalDrain {
    pub(crate) fn new(
        read_model: &Arc<ReadModel>,
        lengths: Lengths,
    ) -> Result<Self, ReadModelError> {
        let open = |(path, partition): (PathBuf, u16)| {
            Ok(File {
                connection: open_drain(&path)?,
                path,
                partition: PartitionId::new(partition),
                commits: 0,
                idle_looks: 0,
                failing: false,
            })
        };
        // The first partition of a file has its number.
        let files = read_model.paths().into_iter().zip(0..);
        Ok(Self {
            files: files.map(open).collect::<Result<_, ReadModelError>>()?,
            read_model: Arc::clone(read_model),
            lengths,
        })
    }

    /// Looks and drains until the other end of `stop` is dropped, then drains once more.
    pub(crate) fn run(mut self, stop: &Receiver<()>) {
        while stop.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            self.look();
        }
        for file in &mut self.files {
            file.settle(drain(&self.read_model, file));
        }
    }

    /// Drains the files whose WAL has become long, or that nobody writes any more.
    pub(crate) fn look(&mut self) {
        for file in &mut self.files {
            let commits = self.read_model.commits(file.partition);
            if commits == file.commits {
                file.idle_looks = file.idle_looks.saturating_add(1);
            } else {
                file.commits = commits;
                file.idle_looks = 0;
            }
            let drained = match file.idle_looks {
                0 => look_at(&file.connection).and_then(|pages| {
                    if pages.left() < self.lengths.to_move {
                        return Ok(());
                    }
                    move_pages(file)?;
                    if pages.written < self.lengths.to_start_over {
                        return Ok(());
                    }
                    finish(&self.read_model, file)
                }),
                LOOKS_UNTIL_IDLE => drain(&self.read_model, file),
                _ => Ok(()),
            };
            file.settle(drained);
        }
    }
}

impl File {
    /// A drain that fails is tried again at the next look; meanwhile the WAL grows, which its metric shows.
    fn settle(&mut self, outcome: rusqlite::Result<()>) {
        if outcome.is_err() {
            self.idle_looks = self.idle_looks.min(LOOKS_UNTIL_IDLE - 1);
        }
        if let Err(error) = &outcome
            && !self.failing
        {
            tracing::warn!(file = %self.path.display(), %error, "the WAL cannot be drained; trying again");
        }
        self.failing = outcome.is_err();
    }
}

/// Moves everything that is in the WAL into the file.
fn drain(read_model: &ReadModel, file: &File) -> rusqlite::Result<()> {
    move_pages(file)?;
    finish(read_model, file)
}

/// Moves most of it, beside the workers.
fn move_pages(file: &File) -> rusqlite::Result<()> {
    for _ in 0..PASSES_MAX {
        let before = look_at(&file.connection)?;
        if before.left() <= PAGES_FEW {
            break;
        }
        pass(&file.connection, "PASSIVE")?;
    }
    Ok(())
}

/// Moves the rest while the workers wait: the next transaction starts the WAL over.
fn finish(read_model: &ReadModel, file: &File) -> rusqlite::Result<()> {
    let writer = read_model.writer(file.partition);
    pass(&file.connection, "PASSIVE")?;
    drop(writer);
    Ok(())
}

/// What is in the WAL. Moves nothing.
pub(crate) fn look_at(connection: &Connection) -> rusqlite::Result<WalPages> {
    pass(connection, "NOOP")
}

fn pass(connection: &Connection, mode: &str) -> rusqlite::Result<WalPages> {
    let pages = |count: i64| u64::try_from(count).unwrap_or(0);
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| {
            Ok(WalPages {
                written: pages(row.get(1)?),
                moved: pages(row.get(2)?),
            })
        })
}
