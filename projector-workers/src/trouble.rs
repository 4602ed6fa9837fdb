//! What keeps a worker from going on, and whether it passes by itself.

use order_log::LogError;

use crate::ReadModelError;
use crate::error::{is_busy, is_constraint, is_corrupt};

/// Why a step of a worker did not succeed. The transaction, if one was open, was rolled back.
#[derive(Debug, Clone)]
pub(crate) enum Trouble {
    /// Another process holds the file: try again.
    Busy(String),
    /// Something of the world that may pass: try again, more and more slowly.
    Passing(String),
    /// A row did not fit the constraints of its table: look closer which event it was.
    Constraint(String),
    /// The file is damaged: halt, and set it aside at the next start.
    Corrupt(String),
    /// Going on would be wrong: stand still until somebody acts.
    Halt(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let reason = error.to_string();
        if is_busy(&error) {
            Self::Busy(reason)
        } else if is_constraint(&error) {
            Self::Constraint(reason)
        } else if is_corrupt(&error) {
            Self::Corrupt(reason)
        } else {
            Self::Passing(reason)
        }
    }
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        let reason = error.to_string();
        match error {
            LogError::Io { .. } => Self::Passing(reason),
            // Damage and mistakes do not pass by themselves, and whatever else a log may say is safest met standing still.
            _ => Self::Halt(reason),
        }
    }
}

impl From<ReadModelError> for Trouble {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::Sqlite { source, .. } => source.into(),
            ReadModelError::Log(error) => error.into(),
            ReadModelError::Io { .. } | ReadModelError::Replaced { .. } => {
                Self::Passing(error.to_string())
            }
            ReadModelError::Incompatible { .. }
            | ReadModelError::MalformedRow { .. }
            | ReadModelError::Parked(_)
            | ReadModelError::Elsewhere { .. }
            | ReadModelError::Unfit(_)
            | ReadModelError::Halted { .. } => Self::Halt(error.to_string()),
        }
    }
}
