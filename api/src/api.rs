//! What the API stands on, and its door.

use std::fmt;
use std::sync::Arc;

use order_command_workers::CommandWorkers;
use order_domain::OrderId;
use order_projector_workers::{
    PartitionId, PartitionReader, ProjectorWorkers, ReadModel, ReadModelError,
};

use crate::ApiConfig;

/// One thing `/readyz?verbose` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A short name without spaces.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the service should get no traffic while it is not.
    pub required: bool,
    /// What there is to say, in one line.
    pub detail: String,
}

/// What the API stands on; the wiring hands it in.
pub struct ApiParts {
    /// The write side.
    pub commands: CommandWorkers,
    /// The rows.
    pub read_model: Arc<ReadModel>,
    /// The workers behind the rows.
    pub projector: Arc<ProjectorWorkers>,
    /// A reading end of every partition of the log, in the order of their numbers.
    pub log: Vec<Box<dyn PartitionReader>>,
    /// The partition of an order.
    pub partition_of: Box<dyn Fn(OrderId) -> PartitionId + Send + Sync>,
    /// Where the metrics of all rooms are registered; `/metrics` shows it.
    pub registry: prometheus::Registry,
    /// What `/readyz?verbose` tells beside the checks: name and value (`durability`, `store`, `version`, …).
    pub facts: Vec<(String, String)>,
    /// Further checks of the wiring, asked at each `/readyz`. Must not block.
    pub checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

impl fmt::Debug for ApiParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiParts")
            .field("partitions", &self.log.len())
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Why the API could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A reader of the read model could not be opened.
    #[error("a reader of the read model cannot be opened: {0}")]
    Readers(#[from] ReadModelError),
    /// A thread could not be started.
    #[error("a reader thread cannot be started: {0}")]
    Threads(#[from] std::io::Error),
    /// A metric could not be registered.
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The API as a service: cheap to clone, shared by all connections.
#[derive(Debug, Clone)]
pub struct Api {}

impl Api {
    /// Registers the metrics and starts the reader threads. Answers requests from then on, through [`crate::serve`] or
    /// as a `tower::Service`.
    ///
    /// # Errors
    /// [`StartError`] if a reader, a thread or a metric cannot be made.
    pub fn new(parts: ApiParts, config: ApiConfig) -> Result<Self, StartError> {
        let _ = (parts, config);
        todo!()
    }
}
