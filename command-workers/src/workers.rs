//! The workers' door: start them, submit commands, stop them.

use std::time::Duration;

use order_log::{EventLog, LogError, PartitionId};
use order_partitioner::Partitioner;

use crate::{CommandError, CommandOutcome, CommandRequest, Snapshots};

/// How the workers behave.
#[derive(Debug, Clone)]
pub struct CommandWorkersConfig {
    /// Most commands waiting a partition; beyond it they are refused.
    pub queue_commands_max: usize,
    /// Most commands in one append.
    pub batch_commands_max: usize,
    /// Most records the read model may be behind before commands are refused.
    pub lag_events_max: u64,
    /// Whether commands that queue during a sync share the next one. `false` is the naive baseline: one append and one
    /// sync a command.
    pub group_commit: bool,
    /// How long a used idempotency key is remembered.
    pub idempotency_retention: Duration,
}

/// The write side: cheap to clone, shared by all requests.
#[derive(Debug, Clone)]
pub struct CommandWorkers {}

impl CommandWorkers {
    /// Takes every partition's writer from `log` and starts a thread each, named `command-<p>`. `snapshots` makes one
    /// port a partition.
    ///
    /// # Errors
    /// [`LogError`] if a writer cannot be taken.
    pub fn start(
        log: &dyn EventLog,
        partitioner: Partitioner,
        snapshots: &mut dyn FnMut(PartitionId) -> Box<dyn Snapshots>,
        config: CommandWorkersConfig,
        registry: &prometheus::Registry,
    ) -> Result<Self, LogError> {
        let _ = (log, partitioner, snapshots, config, registry);
        todo!()
    }

    /// Runs one command; returns when it is acknowledged or refused.
    ///
    /// # Errors
    /// [`CommandError`]; see there what each means for the log.
    pub async fn submit(&self, request: CommandRequest) -> Result<CommandOutcome, CommandError> {
        let _ = request;
        todo!()
    }

    /// Refuses new commands, works off what is queued, syncs, closes the writers and joins the threads. Bounded by the
    /// queues' length.
    pub fn stop(&self) {
        todo!()
    }

    /// Which partitions take no writes, and why.
    #[must_use]
    pub fn unavailable(&self) -> Vec<(PartitionId, String)> {
        todo!()
    }
}
