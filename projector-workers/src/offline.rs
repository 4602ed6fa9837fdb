//! A read model in an operator's hands while no service runs: the same things that workers are asked for, done here.

use std::sync::Arc;

use order_log::EventLog;

use crate::board::Board;
use crate::metrics::Metrics;
use crate::trouble::Trouble;
use crate::worker::Worker;
use crate::{
    Projection, ProjectionStatus, ProjectionTasks, ProjectorConfig, ReadModel, ReadModelError,
    Redriven,
};

/// A read model that no worker applies anything to.
#[derive(Debug)]
pub struct OfflineProjections {
    board: Arc<Board>,
    tasks: ProjectionTasks,
    config: ProjectorConfig,
}

impl OfflineProjections {
    /// Takes a read model whose directory the caller has locked.
    ///
    /// # Errors
    /// Whatever the log said.
    pub fn new(
        log: &dyn EventLog,
        read_model: Arc<ReadModel>,
        config: ProjectorConfig,
    ) -> Result<Self, ReadModelError> {
        let board = Arc::new(Board::new(log, read_model)?);
        Ok(Self {
            tasks: ProjectionTasks::new(Arc::clone(&board), config.clone(), false),
            board,
            config,
        })
    }

    /// Every projection of every partition.
    #[must_use]
    pub fn status(&self) -> Vec<ProjectionStatus> {
        self.board.status()
    }

    /// Stores that a projection stands still, or goes on, at the next start.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn set_paused(&self, projection: Projection, paused: bool) -> Result<(), ReadModelError> {
        self.board.read_model().set_paused(projection, paused)
    }

    /// Tries the parked orders of a projection again.
    ///
    /// # Errors
    /// [`ReadModelError::Halted`] if a partition could not be read or written; what was applied stays applied.
    pub fn redrive(
        &self,
        log: &dyn EventLog,
        projection: Projection,
    ) -> Result<Redriven, ReadModelError> {
        let unseen = prometheus::Registry::new();
        let metrics = Metrics::register(&unseen, &self.board)
            .expect("a registry that was just made takes the projector's metrics");
        let mut total = Redriven::default();
        for partition in self.board.read_model().partitions() {
            let mut worker = Worker::new(
                log.reader(partition)?,
                Arc::clone(self.board.read_model()),
                Arc::clone(&self.board),
                metrics.of(&self.board, partition),
                self.config.clone(),
            )?;
            let redriven = worker.redrive(projection).map_err(|trouble| {
                let (Trouble::Busy(reason)
                | Trouble::Passing(reason)
                | Trouble::Constraint(reason)
                | Trouble::Corrupt(reason)
                | Trouble::Halt(reason)) = trouble;
                ReadModelError::Halted { partition, reason }
            })?;
            total.applied_frames += redriven.applied_frames;
            total.parked_orders += redriven.parked_orders;
        }
        Ok(total)
    }

    /// Rebuilds and other long work on the projections' tables.
    #[must_use]
    pub fn tasks(&self) -> &ProjectionTasks {
        &self.tasks
    }

    /// The read model.
    #[must_use]
    pub fn read_model(&self) -> &Arc<ReadModel> {
        self.board.read_model()
    }
}
