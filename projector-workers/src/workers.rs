//! The workers' door: start them, pause, resume, look at them, stop them.

use std::sync::Arc;

use order_log::{EventLog, LogError, Offset, PartitionId};

use crate::{Projection, ReadModel};

/// How the workers behave.
#[derive(Debug, Clone)]
pub struct ProjectorConfig {
    /// Most records applied in one transaction.
    pub batch_records_max: u64,
    /// How long a used idempotency key is remembered, in microseconds of append time.
    pub idempotency_retention_us: u64,
}

/// One projection of one partition, as seen now.
#[derive(Debug, Clone)]
pub struct ProjectionStatus {
    /// Which projection.
    pub projection: Projection,
    /// Which partition.
    pub partition: PartitionId,
    /// Offset after the last applied record.
    pub checkpoint: Offset,
    /// Offset after the last visible record of the log, never before the checkpoint.
    pub end: Offset,
    /// Age of the oldest record not applied, in seconds; 0 when there is none.
    pub lag_seconds: f64,
    /// Whether it is paused.
    pub paused: bool,
    /// Orders set aside because an event of theirs could not be applied.
    pub parked_orders: u64,
    /// Why it stands still, if it does.
    pub halted: Option<String>,
}

/// The read side: shared, stopped by [`ProjectorWorkers::stop`].
#[derive(Debug)]
pub struct ProjectorWorkers {}

impl ProjectorWorkers {
    /// Starts a thread a partition, named `projector-<p>`.
    ///
    /// # Errors
    /// [`LogError`] if a partition cannot be read.
    pub fn start(
        log: &dyn EventLog,
        read_model: Arc<ReadModel>,
        config: ProjectorConfig,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, LogError> {
        let _ = (log, read_model, config, registry);
        todo!()
    }

    /// Stops applying a projection, in all partitions, across restarts. The core projection can be paused too; commands
    /// are then refused once it is too far behind.
    ///
    /// # Errors
    /// Whatever SQLite said when the pause was recorded.
    pub fn pause(&self, projection: Projection) -> Result<(), crate::ReadModelError> {
        let _ = projection;
        todo!()
    }

    /// Goes on with a paused projection from its checkpoint.
    ///
    /// # Errors
    /// Whatever SQLite said when it was recorded.
    pub fn resume(&self, projection: Projection) -> Result<(), crate::ReadModelError> {
        let _ = projection;
        todo!()
    }

    /// Every projection of every partition.
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        todo!()
    }

    /// Finishes the transaction at hand and joins the threads.
    pub fn stop(&self) {
        todo!()
    }
}
