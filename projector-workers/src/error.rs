//! What can go wrong with the read model.

use std::path::{Path, PathBuf};

use order_log::{LogError, PartitionId};

/// Why the read model could not do something.
#[derive(Debug, thiserror::Error)]
pub enum ReadModelError {
    /// SQLite refused.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The files are of another layout.
    #[error("{}: {reason}", path.display())]
    Incompatible {
        /// The file.
        path: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What failed.
        source: std::io::Error,
    },
    /// A row holds what no projector wrote.
    #[error("row {order_id} of OrderView does not read: {reason}; rebuild the projection")]
    MalformedRow {
        /// The order.
        order_id: String,
        /// What is wrong.
        reason: String,
    },
    /// An event of the order could not be applied: its row is older than the checkpoint says.
    #[error(
        "order {0} is parked: an event of it could not be applied; see ParkedEvent, repair, redrive"
    )]
    Parked(order_domain::OrderId),
    /// What was asked does not fit how things stand.
    #[error("{0}")]
    Unfit(String),
    /// Another process put other rows in the place of those that were read, and they hold less than what the read relies
    /// on: checkpoints, above all, must be asked again.
    #[error("{} was replaced: read again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// The files are another process's: what was asked must be asked there.
    #[error("the read model in {} is another process's", directory.display())]
    Elsewhere {
        /// Where the files are.
        directory: PathBuf,
    },
    /// A partition's worker stands still and cannot do what was asked.
    #[error("the projector of partition {partition} has halted: {reason}")]
    Halted {
        /// The partition.
        partition: PartitionId,
        /// Why it stands still, and what to do.
        reason: String,
    },
}

impl ReadModelError {
    /// Names the file a SQLite error came from.
    pub(crate) fn sqlite(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Sqlite { path, source }
    }

    /// Names the file an operation failed on.
    pub(crate) fn io(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Whether SQLite found bytes in the file that it did not write there.
pub(crate) fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    )
}

/// Whether another connection holds what was needed: it passes by itself.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
    )
}

/// Whether a row did not fit the constraints of its table.
pub(crate) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation)
}
