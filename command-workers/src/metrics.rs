//! What the workers tell Prometheus. Handles are looked up once, when the workers start.

use std::sync::Weak;

use order_log::PartitionId;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::CommandError;
use crate::decider::Answer;
use crate::lanes::Lanes;

/// How a command ended, as `commands_total` counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Accepted,
    Replayed,
    Rejected,
    VersionMismatch,
    IdempotencyMismatch,
    Overloaded,
    ProjectorBehind,
    StorageFull,
    OutcomeUnknown,
    PartitionUnavailable,
    Internal,
    Stopping,
    /// The client went away before the command was begun.
    Abandoned,
}

impl Ending {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Accepted, "accepted"),
        (Self::Replayed, "replayed"),
        (Self::Rejected, "rejected"),
        (Self::VersionMismatch, "version_mismatch"),
        (Self::IdempotencyMismatch, "idempotency_mismatch"),
        (Self::Overloaded, "overloaded"),
        (Self::ProjectorBehind, "projector_behind"),
        (Self::StorageFull, "storage_full"),
        (Self::OutcomeUnknown, "outcome_unknown"),
        (Self::PartitionUnavailable, "partition_unavailable"),
        (Self::Internal, "internal"),
        (Self::Stopping, "stopping"),
        (Self::Abandoned, "abandoned"),
    ];

    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Ok(outcome) if outcome.replayed => Self::Replayed,
            Ok(_) => Self::Accepted,
            Err(error) => Self::of_error(error),
        }
    }

    pub(crate) fn of_error(error: &CommandError) -> Self {
        match error {
            CommandError::Rejected { .. } => Self::Rejected,
            CommandError::VersionMismatch { .. } => Self::VersionMismatch,
            CommandError::IdempotencyMismatch => Self::IdempotencyMismatch,
            CommandError::Overloaded { .. } => Self::Overloaded,
            CommandError::ProjectorBehind { .. } => Self::ProjectorBehind,
            CommandError::StorageFull { .. } => Self::StorageFull,
            CommandError::OutcomeUnknown { .. } => Self::OutcomeUnknown,
            CommandError::PartitionUnavailable { .. } => Self::PartitionUnavailable,
            // No command asks for what an engine cannot do.
            CommandError::Internal { .. } | CommandError::NotSupported { .. } => Self::Internal,
            CommandError::Stopping => Self::Stopping,
        }
    }
}

/// All partitions' families, registered.
#[derive(Debug)]
pub(crate) struct Metrics {
    commands: IntCounterVec,
    batch_size: HistogramVec,
    fsync_seconds: HistogramVec,
}

impl Metrics {
    /// Registers the families.
    ///
    /// # Errors
    /// If the registry has a metric of one of these names.
    pub(crate) fn register(
        registry: &Registry,
        batch_commands_max: usize,
    ) -> Result<Self, prometheus::Error> {
        let commands = IntCounterVec::new(
            Opts::new("commands_total", "Commands by how they ended."),
            &["partition", "outcome"],
        )?;
        let mut sizes = vec![1.0];
        while sizes
            .last()
            .is_some_and(|size| *size < batch_commands_max as f64)
        {
            sizes.push(sizes[sizes.len() - 1] * 2.0);
        }
        let batch_size = HistogramVec::new(
            HistogramOpts::new("command_batch_size", "Commands decided in one batch.")
                .buckets(sizes),
            &["partition"],
        )?;
        let fsync_seconds = HistogramVec::new(
            HistogramOpts::new("log_fsync_seconds", "How long an append waited for its sync.")
                // 50 µs to 1.6 s.
                .buckets(prometheus::exponential_buckets(0.000_05, 2.0, 16)?),
            &["partition"],
        )?;
        registry.register(Box::new(commands.clone()))?;
        registry.register(Box::new(batch_size.clone()))?;
        registry.register(Box::new(fsync_seconds.clone()))?;
        Ok(Self {
            commands,
            batch_size,
            fsync_seconds,
        })
    }

    /// The handles of one partition; its series start at 0.
    pub(crate) fn partition(&self, partition: PartitionId) -> PartitionMetrics {
        let label = partition.to_string();
        PartitionMetrics {
            endings: Ending::ALL
                .map(|(_, outcome)| self.commands.with_label_values(&[label.as_str(), outcome])),
            batch_size: self.batch_size.with_label_values(&[label.as_str()]),
            fsync_seconds: self.fsync_seconds.with_label_values(&[label.as_str()]),
        }
    }
}

/// The handles of one partition.
#[derive(Debug, Clone)]
pub(crate) struct PartitionMetrics {
    endings: [IntCounter; Ending::ALL.len()],
    pub(crate) batch_size: Histogram,
    pub(crate) fsync_seconds: Histogram,
}

impl PartitionMetrics {
    /// Counts commands that ended the same way.
    pub(crate) fn count(&self, outcome: Ending, commands: u64) {
        self.endings[outcome as usize].inc_by(commands);
    }
}

/// Counts outcomes of a sweep of answers, to be added to the shared counters at once.
#[derive(Debug, Default)]
pub(crate) struct EndingTally([u64; Ending::ALL.len()]);

impl EndingTally {
    pub(crate) fn add(&mut self, outcome: Ending) {
        self.0[outcome as usize] += 1;
    }

    pub(crate) fn flush(&mut self, metrics: &PartitionMetrics) {
        for ((outcome, _), count) in Ending::ALL.into_iter().zip(&mut self.0) {
            if *count > 0 {
                metrics.count(outcome, std::mem::take(count));
            }
        }
    }
}

/// `command_queue_depth`, as it is when asked.
pub(crate) struct QueueDepth {
    gauges: IntGaugeVec,
    queues: Weak<Lanes>,
}

impl QueueDepth {
    /// Registers the family; the queues are asked at every scrape.
    ///
    /// # Errors
    /// If the registry has a metric of this name.
    pub(crate) fn register(
        registry: &Registry,
        queues: Weak<Lanes>,
    ) -> Result<(), prometheus::Error> {
        let gauges = IntGaugeVec::new(
            Opts::new("command_queue_depth", "Commands waiting for their worker."),
            &["partition"],
        )?;
        registry.register(Box::new(Self { gauges, queues }))
    }
}

impl Collector for QueueDepth {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Workers that are gone have no queue.
        self.gauges.reset();
        if let Some(lanes) = self.queues.upgrade() {
            for (partition, depth) in lanes.depths() {
                let depth = i64::try_from(depth).unwrap_or(i64::MAX);
                self.gauges
                    .with_label_values(&[partition.to_string()])
                    .set(depth);
            }
        }
        self.gauges.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_stands_at_its_own_place() {
        for (place, (outcome, _)) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
