//! The SQLite files of the read model: names, the one writer connection a file, checkpoints and pauses as stored.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use order_log::{Offset, PartitionId};
use rusqlite::{Connection, params};

use crate::bell::Bell;
use crate::database::{Identity, open_reader, open_writer, plan_once};
use crate::followed::Followed;
use crate::joint::Joint;
use crate::side::Side;
use crate::sql::from_sql;
use crate::{Checkpoints, Projection, ReadModelError, ReadModelReader};

/// Page cache of a thread that reads now and then, in KiB: SQLite's own default.
const READER_CACHE_KIB: u32 = 2000;
/// Least page cache a file, in KiB, over however many files it is spread.
const READER_CACHE_KIB_LEAST: u32 = 512;

/// Where the read model is and how it is spread.
#[derive(Debug, Clone)]
pub struct ReadModelConfig {
    /// The data directory.
    pub directory: PathBuf,
    /// Count of the log's partitions.
    pub partitions: u16,
    /// Count of files: 1 is `read.db`; N > 1 are `read-000.db` …, partition `p` in file `p % N`.
    pub shards: u16,
    /// Identity of the log the rows come from: rows of another log are refused.
    pub log_id: String,
}

/// One file and its one writer. Workers hand the connection over through the mutex instead of meeting inside SQLite,
/// which would answer the second with "busy" and let it sleep.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    /// `None` if another process writes the file.
    writer: Option<Mutex<Connection>>,
    /// Where its partitions' workers meet to commit together.
    joint: Arc<Joint>,
    /// Transactions of workers, counted for whoever watches the WAL.
    commits: AtomicU64,
}

/// The open read model.
#[derive(Debug)]
pub struct ReadModel {
    config: ReadModelConfig,
    shards: Vec<Shard>,
    checkpoints: Arc<Checkpoints>,
    /// By projection. Set before it is stored, read by workers that hold a writer: when a pause is stored, no
    /// transaction that missed it is open.
    paused: [AtomicBool; Projection::ALL.len()],
    /// By projection. Set while its tables are being switched: nothing is written to them then.
    held: [AtomicBool; Projection::ALL.len()],
    /// By projection. Counts switches, so that what was read before one is not written after it.
    generations: [AtomicU64; Projection::ALL.len()],
    /// What is known of the files if another process writes them.
    followed: Option<Arc<Followed>>,
}

/// How often the tables of each projection were switched.
pub(crate) type Generations = [u64; Projection::ALL.len()];

impl ReadModel {
    /// Opens the files, makes those that are missing, and reads the checkpoints. A damaged file is set aside as
    /// `<name>.corrupt-<n>` and made anew.
    ///
    /// # Errors
    /// [`ReadModelError::Incompatible`] for files of another layout, log or shard count, or a SQLite older than 3.51.3;
    /// otherwise whatever SQLite said.
    pub fn open(config: ReadModelConfig) -> Result<Arc<Self>, ReadModelError> {
        let checkpoints = Checkpoints::new(config.partitions);
        let paused = [const { AtomicBool::new(false) }; Projection::ALL.len()];
        let mut shards = Vec::with_capacity(usize::from(config.shards));
        for (path, identity) in config.files()? {
            let connection = open_writer(&path, &identity)?;
            for projection in Projection::ALL {
                for partition in identity.partitions_here() {
                    let (next, stored_pause) = connection
                        .query_row(
                            "SELECT next_offset, paused FROM Checkpoint WHERE projection = ?1 AND partition = ?2",
                            params![projection.name(), partition],
                            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?)),
                        )
                        .map_err(ReadModelError::sqlite(&path))?;
                    let next = Offset::new(from_sql(next));
                    checkpoints.publish(projection, PartitionId::new(partition), next);
                    if stored_pause {
                        // Files can differ if a crash fell between two of them: paused anywhere is paused.
                        paused[projection.index()].store(true, Ordering::SeqCst);
                    }
                }
            }
            shards.push(Shard {
                path,
                writer: Some(Mutex::new(connection)),
                joint: Arc::default(),
                commits: AtomicU64::new(0),
            });
        }
        Ok(Arc::new(Self {
            config,
            shards,
            checkpoints: Arc::new(checkpoints),
            paused,
            held: [const { AtomicBool::new(false) }; Projection::ALL.len()],
            generations: [const { AtomicU64::new(0) }; Projection::ALL.len()],
            followed: None,
        }))
    }

    /// The read model that another process keeps, for reading: its files may be there, come later, and be replaced.
    /// Until a [`crate::ProjectorWatch`] has looked at them they are as good as empty.
    ///
    /// # Errors
    /// [`ReadModelError::Incompatible`] for a shard count that cannot be, or is not that of the files that are there.
    pub fn follow(config: ReadModelConfig) -> Result<Arc<Self>, ReadModelError> {
        let (paths, identities): (Vec<_>, Vec<_>) = config.files()?.into_iter().unzip();
        let shards = paths.into_iter().map(|path| Shard {
            path,
            writer: None,
            joint: Arc::default(),
            commits: AtomicU64::new(0),
        });
        Ok(Arc::new(Self {
            shards: shards.collect(),
            checkpoints: Arc::new(Checkpoints::new(config.partitions)),
            paused: [const { AtomicBool::new(false) }; Projection::ALL.len()],
            held: [const { AtomicBool::new(false) }; Projection::ALL.len()],
            generations: [const { AtomicU64::new(0) }; Projection::ALL.len()],
            followed: Some(Arc::new(Followed::new(identities))),
            config,
        }))
    }

    /// Lets other processes follow: rings a bell beside the files whenever rows were committed.
    ///
    /// # Errors
    /// [`ReadModelError::Io`] if the bell cannot be hung.
    pub fn let_follow(&self) -> Result<(), ReadModelError> {
        self.checkpoints.ring(Bell::hang(&self.config.directory)?);
        Ok(())
    }

    /// What is known of the files, if another process writes them.
    pub(crate) fn followed(&self) -> Option<&Arc<Followed>> {
        self.followed.as_ref()
    }

    /// The refusal of what only the process can do that writes the files.
    pub(crate) fn elsewhere(&self) -> ReadModelError {
        ReadModelError::Elsewhere {
            directory: self.config.directory.clone(),
        }
    }

    /// Where the read model is.
    pub(crate) fn config(&self) -> &ReadModelConfig {
        &self.config
    }

    /// The checkpoints, shared with the workers.
    #[must_use]
    pub fn checkpoints(&self) -> &Arc<Checkpoints> {
        &self.checkpoints
    }

    /// The database files, by shard.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// The file of a partition.
    #[must_use]
    pub fn shard_of(&self, partition: PartitionId) -> u16 {
        partition.get() % self.config.shards
    }

    /// A read-only connection to every file, for one thread.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn reader(&self) -> Result<ReadModelReader, ReadModelError> {
        self.reader_with_cache(READER_CACHE_KIB)
    }

    /// A read-only connection to every file, for one thread that reads much: the files share a page cache of
    /// `cache_kib`, instead of SQLite's usual 2 MiB.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn reader_with_cache(&self, cache_kib: u32) -> Result<ReadModelReader, ReadModelError> {
        let a_file = cache_kib / u32::from(self.config.shards);
        ReadModelReader::open(
            self.paths(),
            a_file.max(READER_CACHE_KIB_LEAST),
            self.followed.clone(),
        )
    }

    /// Count of the log's partitions.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.config.partitions).map(PartitionId::new)
    }

    /// The file of a partition, by path.
    pub(crate) fn path_of(&self, partition: PartitionId) -> &Path {
        &self.shards[usize::from(self.shard_of(partition))].path
    }

    /// The one writer of a partition's file; waits for whoever has it.
    pub(crate) fn writer(&self, partition: PartitionId) -> MutexGuard<'_, Connection> {
        lock(&self.shards[usize::from(self.shard_of(partition))])
            .expect("workers are not started on files that another process writes")
    }

    /// Where the workers of a partition's file meet to commit together.
    pub(crate) fn joint(&self, partition: PartitionId) -> &Arc<Joint> {
        &self.shards[usize::from(self.shard_of(partition))].joint
    }

    /// Counts a transaction of a worker.
    pub(crate) fn count_commit(&self, partition: PartitionId) {
        self.shards[usize::from(self.shard_of(partition))]
            .commits
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Transactions of workers on a partition's file since it was opened.
    pub(crate) fn commits(&self, partition: PartitionId) -> u64 {
        self.shards[usize::from(self.shard_of(partition))]
            .commits
            .load(Ordering::Relaxed)
    }

    /// A connection of its own for a partition's worker to read with.
    pub(crate) fn worker_reader(
        &self,
        partition: PartitionId,
    ) -> Result<Connection, ReadModelError> {
        let path = self.path_of(partition);
        let connection = open_reader(path, READER_CACHE_KIB)?;
        plan_once(&connection).map_err(ReadModelError::sqlite(path))?;
        Ok(connection)
    }

    /// Takes over what another process's files say.
    pub(crate) fn note_paused(&self, projection: Projection, paused: bool) {
        self.paused[projection.index()].store(paused, Ordering::SeqCst);
    }

    pub(crate) fn is_paused(&self, projection: Projection) -> bool {
        self.paused[projection.index()].load(Ordering::SeqCst)
    }

    /// Whether nothing may be written to a projection's tables at the moment.
    pub(crate) fn is_held(&self, projection: Projection) -> bool {
        self.held[projection.index()].load(Ordering::SeqCst)
    }

    /// Keeps a projection's live tables as they are until the answer is dropped. On return no transaction on them is
    /// open, and its checkpoints stand still.
    pub(crate) fn hold(&self, projection: Projection) -> Hold<'_> {
        let held = &self.held[projection.index()];
        held.store(true, Ordering::SeqCst);
        let hold = Hold { held };
        for shard in &self.shards {
            // Whoever had the writer before did not see the mark; whoever gets it after this looks first.
            drop(lock(shard));
        }
        hold
    }

    pub(crate) fn generations(&self) -> Generations {
        std::array::from_fn(|at| self.generations[at].load(Ordering::SeqCst))
    }

    /// Says that a projection's tables were switched, by whoever has the writer.
    pub(crate) fn count_switch(&self, projection: Projection) {
        self.generations[projection.index()].fetch_add(1, Ordering::SeqCst);
    }

    /// Count of the log's partitions.
    pub(crate) fn partition_count(&self) -> u16 {
        self.config.partitions
    }

    /// The checkpoint that is stored with the tables of a side.
    pub(crate) fn stored_checkpoint(
        &self,
        projection: Projection,
        partition: PartitionId,
        side: Side,
    ) -> Result<Offset, ReadModelError> {
        let sql = "SELECT next_offset FROM Checkpoint WHERE projection = ?1 AND partition = ?2";
        let next = self.writer(partition).query_row(
            &side.on(sql),
            params![projection.name(), partition.get()],
            |row| row.get(0),
        );
        next.map(|next| Offset::new(from_sql(next)))
            .map_err(ReadModelError::sqlite(self.path_of(partition)))
    }

    /// Count of the files.
    pub(crate) fn shards(&self) -> u16 {
        self.config.shards
    }

    /// The partitions whose rows are in a file.
    pub(crate) fn partitions_of(&self, shard: u16) -> impl Iterator<Item = PartitionId> + use<> {
        (shard..self.config.partitions)
            .step_by(usize::from(self.config.shards))
            .map(PartitionId::new)
    }

    /// Stores a pause or its end in all files. On return no transaction that missed it is open; on an error it is as it
    /// was, as long as the process lives.
    pub(crate) fn set_paused(
        &self,
        projection: Projection,
        paused: bool,
    ) -> Result<(), ReadModelError> {
        let flag = &self.paused[projection.index()];
        let before = flag.swap(paused, Ordering::SeqCst);
        for shard in &self.shards {
            let Some(writer) = lock(shard) else {
                flag.store(before, Ordering::SeqCst);
                return Err(self.elsewhere());
            };
            let stored = writer.execute(
                "UPDATE Checkpoint SET paused = ?1 WHERE projection = ?2",
                params![paused, projection.name()],
            );
            if let Err(error) = stored {
                flag.store(before, Ordering::SeqCst);
                return Err(ReadModelError::sqlite(&shard.path)(error));
            }
        }
        Ok(())
    }
}

impl ReadModelConfig {
    /// Every file, and what it must say about itself.
    ///
    /// # Errors
    /// [`ReadModelError::Incompatible`] for a count of files that cannot be, or is not that of the files that are there.
    pub(crate) fn files(&self) -> Result<Vec<(PathBuf, Identity)>, ReadModelError> {
        if self.shards == 0 || self.shards > self.partitions {
            return Err(ReadModelError::Incompatible {
                path: self.directory.clone(),
                reason: format!(
                    "{} read-model shards for {} partitions; use 1 to {}",
                    self.shards, self.partitions, self.partitions
                ),
            });
        }
        refuse_other_shard_count(self)?;
        let file = |shard| {
            let identity = Identity {
                log_id: self.log_id.clone(),
                partitions: self.partitions,
                shards: self.shards,
                shard,
            };
            (self.directory.join(file_name(self.shards, shard)), identity)
        };
        Ok((0..self.shards).map(file).collect())
    }
}

/// A projection's live tables, kept as they are.
#[derive(Debug)]
pub(crate) struct Hold<'m> {
    held: &'m AtomicBool,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.held.store(false, Ordering::SeqCst);
    }
}

/// The writer of a file, if it is this process's. A panic of a holder rolled its transaction back while unwinding: the
/// connection is as good as new.
fn lock(shard: &Shard) -> Option<MutexGuard<'_, Connection>> {
    let writer = shard.writer.as_ref()?;
    Some(writer.lock().unwrap_or_else(PoisonError::into_inner))
}

fn file_name(shards: u16, shard: u16) -> String {
    if shards == 1 {
        "read.db".to_owned()
    } else {
        format!("read-{shard:03}.db")
    }
}

/// Another shard count has other file names: without this, a change of it would silently start an empty model.
fn refuse_other_shard_count(config: &ReadModelConfig) -> Result<(), ReadModelError> {
    let (strange, hint) = if config.shards == 1 {
        ("read-000.db", "--read-model-shards as it was before")
    } else {
        ("read.db", "--read-model-shards 1")
    };
    let path = config.directory.join(strange);
    if path.exists() {
        return Err(ReadModelError::Incompatible {
            path,
            reason: format!(
                "is of another shard count than {}; start with {hint}, or delete the read model's files (with their -wal \
                 and -shm): they are rebuilt from the log at the next start",
                config.shards
            ),
        });
    }
    Ok(())
}
