//! Files that another process writes, and may replace: which file stands at a shard's path now.
//!
//! A damaged file is set aside and made anew, a rebuilt one takes the old one's place. Rows and checkpoint of one file
//! always fit together; those of two do not. So whoever follows gives each file a *generation*: the checkpoints known to
//! everybody are lowered first, then the generation moves, then checkpoints rise again. A reader that finds its
//! generation unmoved after a checkpoint was looked at reads the very file the checkpoint is of.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use crate::ReadModelError;
use crate::database::{Identity, open_nothing, open_reader};

/// A file, whatever its name. Valid as long as somebody has it open: then its number is given to no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file at a path; `None` if there is none.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// What is known of each file.
#[derive(Debug)]
pub(crate) struct Followed {
    shards: Vec<FollowedShard>,
}

#[derive(Debug)]
struct FollowedShard {
    identity: Identity,
    generation: AtomicU64,
    /// The file of the present generation; `None` if there was none yet.
    file: Mutex<Option<FileId>>,
}

impl Followed {
    /// Files that nobody has looked at, by shard.
    pub(crate) fn new(identities: Vec<Identity>) -> Self {
        let shards = identities.into_iter().map(|identity| FollowedShard {
            identity,
            generation: AtomicU64::new(0),
            file: Mutex::new(None),
        });
        Self {
            shards: shards.collect(),
        }
    }

    /// The present generation of a shard's file.
    pub(crate) fn generation(&self, shard: usize) -> u64 {
        self.shards[shard].generation.load(Ordering::Acquire)
    }

    /// Says that another file stands in the shard's place. The checkpoints known by now are not above that file's.
    pub(crate) fn replace(&self, shard: usize, file: FileId) {
        let mut known = self.file(shard);
        *known = Some(file);
        self.shards[shard].generation.fetch_add(1, Ordering::AcqRel);
    }

    fn file(&self, shard: usize) -> MutexGuard<'_, Option<FileId>> {
        let file = self.shards[shard].file.lock();
        file.unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the file of the present generation, and the generation.
    pub(crate) fn open(
        &self,
        shard: usize,
        path: &Path,
        cache_kib: u32,
    ) -> Result<(Connection, u64), ReadModelError> {
        let (file, generation) = {
            let file = self.file(shard);
            (*file, self.generation(shard))
        };
        let Some(file) = file else {
            let (nothing, _) = self.open_nothing(shard, path)?;
            return Ok((nothing, generation));
        };
        let replaced = || ReadModelError::Replaced {
            path: path.to_owned(),
        };
        if FileId::at(path) != Some(file) {
            return Err(replaced());
        }
        let connection = open_reader(path, cache_kib)?;
        // The first read opens the WAL, by its name: it must be of the same file.
        connection
            .query_row("SELECT count(*) FROM Checkpoint", [], |_| Ok(()))
            .map_err(ReadModelError::sqlite(path))?;
        if FileId::at(path) != Some(file) {
            return Err(replaced());
        }
        Ok((connection, generation))
    }

    /// A connection to a file without rows, of a generation that is never the present one.
    pub(crate) fn open_nothing(
        &self,
        shard: usize,
        path: &Path,
    ) -> Result<(Connection, u64), ReadModelError> {
        let nothing = open_nothing(path, &self.shards[shard].identity)?;
        Ok((nothing, u64::MAX))
    }
}
