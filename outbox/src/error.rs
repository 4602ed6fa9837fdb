//! What can go wrong with the outbox, with the paths and numbers to act on.

use std::path::PathBuf;

use order_log::LogError;

use crate::EventId;

/// Why the outbox could not do something.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// A setting that cannot be.
    #[error("outbox.{field}: {reason}")]
    Config {
        /// The setting, as in the configuration file.
        field: &'static str,
        /// What is wrong with it, and what to set.
        reason: String,
    },
    /// SQLite refused.
    #[error("{}: {source}", path.display())]
    Store {
        /// The outbox's store.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The store is of another layout, or belongs to another log.
    #[error("{}: {reason}", path.display())]
    Incompatible {
        /// The outbox's store.
        path: PathBuf,
        /// What does not fit, and what to do.
        reason: String,
    },
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
    /// The log could not be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The metrics could not be registered, or the dispatcher's runtime could not be made.
    #[error("starting the outbox: {0}")]
    Start(String),
    /// A text that is no event's id.
    #[error("`{0}` is not an event's id: it is <order id>-<version>")]
    InvalidEventId(String),
    /// The event is neither being retried nor dead: it was delivered, or it never was.
    #[error("event {0} is not held: it was delivered, is on its way, or does not exist")]
    NotHeld(EventId),
    /// The event is held, but not dead: it is being retried by itself.
    #[error("event {0} is not dead: it is being retried")]
    NotDead(EventId),
    /// The dispatcher does not run.
    #[error("the outbox does not run: {0}")]
    NotRunning(String),
    /// The dispatcher has more requests waiting than it takes, or did not answer in time.
    #[error("the outbox is busy; try again")]
    Busy,
}
