//! Who folds the log into the rows: workers of this process, or another process.

use std::fmt;
use std::sync::Arc;

use order_projector_workers::{ProjectionStatus, ProjectorWatch, ProjectorWorkers, TaskStatus};

use crate::error::{Problem, ProblemKind};

/// The projector, from where this process stands.
pub enum Projector {
    /// Workers of this process.
    Here(Arc<ProjectorWorkers>),
    /// Another process, seen through its files.
    Elsewhere {
        /// What its files say.
        watch: Arc<ProjectorWatch>,
        /// Where its own endpoints are, or that it does not run: text for people, asked when somebody needs it. May look
        /// at a file.
        asked_at: Box<dyn Fn() -> String + Send + Sync>,
    },
}

impl fmt::Debug for Projector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Here(_) => "Here",
            Self::Elsewhere { .. } => "Elsewhere",
        })
    }
}

impl Projector {
    /// Every projection of every partition, as far as this process can see.
    pub(crate) fn status(&self) -> Vec<ProjectionStatus> {
        match self {
            Self::Here(workers) => workers.status(),
            Self::Elsewhere { watch, .. } => watch.status(),
        }
    }

    /// What is being done to a projection's tables, as far as this process can see.
    pub(crate) fn task(&self) -> Option<TaskStatus> {
        match self {
            Self::Here(workers) => workers.tasks().status(),
            Self::Elsewhere { .. } => None,
        }
    }

    /// The workers, for what only they can do.
    ///
    /// # Errors
    /// A problem that says where to ask instead.
    pub(crate) fn here(&self) -> Result<&Arc<ProjectorWorkers>, Problem> {
        match self {
            Self::Here(workers) => Ok(workers),
            Self::Elsewhere { asked_at, .. } => {
                Err(Problem::new(ProblemKind::ProjectorElsewhere, asked_at()))
            }
        }
    }
}
