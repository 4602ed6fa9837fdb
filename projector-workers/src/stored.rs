//! The read model's files while nothing runs: which there are, and how far each says it has come. For tools that copy a
//! data directory and must know that no row is ahead of the log.

use std::path::{Path, PathBuf};

use order_log::{Offset, PartitionId};
use rusqlite::{Connection, OpenFlags};

use crate::ReadModelError;
use crate::sql::from_sql;

/// What one file says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredReadModel {
    /// Identity of the log the rows come from.
    pub log_id: String,
    /// The furthest checkpoint of any projection, by partition of the file.
    pub checkpoints: Vec<(PartitionId, Offset)>,
}

impl StoredReadModel {
    /// Reads a file, changing nothing.
    ///
    /// # Errors
    /// [`ReadModelError::Sqlite`] if it does not read as a read model.
    pub fn read(path: &Path) -> Result<Self, ReadModelError> {
        let read = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            let log_id =
                connection.query_row("SELECT value FROM Meta WHERE key = 'log_id'", [], |row| {
                    row.get(0)
                })?;
            let mut statement = connection
                .prepare("SELECT partition, max(next_offset) FROM Checkpoint GROUP BY partition")?;
            let rows = statement.query_map([], |row| {
                let partition = PartitionId::new(row.get(0)?);
                Ok((partition, Offset::new(from_sql(row.get(1)?))))
            })?;
            Ok(Self {
                log_id,
                checkpoints: rows.collect::<Result<_, _>>()?,
            })
        };
        read().map_err(ReadModelError::sqlite(path))
    }
}

/// The read model's files in a data directory, `read.db` or `read-000.db` and its siblings, in order; without their
/// `-wal` and `-shm`.
///
/// # Errors
/// [`ReadModelError::Io`] if the directory cannot be listed.
pub fn read_model_files(directory: &Path) -> Result<Vec<PathBuf>, ReadModelError> {
    let list = || {
        std::fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<Vec<_>, _>>()
    };
    let names = list().map_err(ReadModelError::io("list", directory))?;
    let mut files: Vec<PathBuf> = names
        .into_iter()
        .filter(|name| name.to_str().is_some_and(is_read_model))
        .map(|name| directory.join(name))
        .collect();
    files.sort();
    Ok(files)
}

/// Whether a file of this name in a data directory is of the read model.
#[must_use]
pub fn is_read_model(name: &str) -> bool {
    let shard = name
        .strip_prefix("read-")
        .and_then(|rest| rest.strip_suffix(".db"));
    name == "read.db"
        || shard.is_some_and(|it| it.len() >= 3 && it.bytes().all(|byte| byte.is_ascii_digit()))
}
