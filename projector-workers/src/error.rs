//! What can go wrong with the read model.

use std::path::PathBuf;

use order_log::LogError;

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
}
