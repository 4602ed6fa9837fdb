//! The SQLite files of the read model: names, schema, pragmas, the one writer connection a file.

use std::path::PathBuf;
use std::sync::Arc;

use order_log::PartitionId;

use crate::{Checkpoints, ReadModelError, ReadModelReader};

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

/// The open read model.
#[derive(Debug)]
pub struct ReadModel {}

impl ReadModel {
    /// Opens the files, makes those that are missing, and reads the checkpoints.
    ///
    /// # Errors
    /// [`ReadModelError::Incompatible`] for files of another layout, log or shard count, or a SQLite older than 3.51.3;
    /// otherwise whatever SQLite said.
    pub fn open(config: ReadModelConfig) -> Result<Arc<Self>, ReadModelError> {
        let _ = config;
        todo!()
    }

    /// The checkpoints, shared with the workers.
    #[must_use]
    pub fn checkpoints(&self) -> &Arc<Checkpoints> {
        todo!()
    }

    /// The database files, by shard.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        todo!()
    }

    /// The file of a partition.
    #[must_use]
    pub fn shard_of(&self, partition: PartitionId) -> u16 {
        let _ = partition;
        todo!()
    }

    /// A read-only connection to every file, for one thread.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn reader(&self) -> Result<ReadModelReader, ReadModelError> {
        todo!()
    }
}
