//! The outbox in numbers. Sizes and ages are computed at scrape; tries are counted when they end.

use std::sync::Arc;

use order_log::PartitionReader;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::OutboxError;
use crate::progress::Progress;

/// How a try to deliver ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The target has it.
    Delivered,
    /// The target answered, and not with success.
    Refused,
    /// There was no answer: not connected, timed out, cut off, address not allowed, file not written.
    Failed,
    /// The event does not decode; nothing was sent.
    Unreadable,
}

impl Attempt {
    const ALL: [Self; 4] = [
        Self::Delivered,
        Self::Refused,
        Self::Failed,
        Self::Unreadable,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Counts tries; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Attempts(IntCounterVec);

impl Attempts {
    pub(crate) fn register(registry: &Registry) -> Result<Self, OutboxError> {
        let counter = IntCounterVec::new(
            Opts::new(
                "outbox_attempts_total",
                "Tries to deliver an event, by how they ended.",
            ),
            &["outcome"],
        )
        .map_err(refused)?;
        for attempt in Attempt::ALL {
            counter.with_label_values(&[attempt.label()]);
        }
        registry
            .register(Box::new(counter.clone()))
            .map_err(refused)?;
        Ok(Self(counter))
    }

    pub(crate) fn count(&self, attempt: Attempt, events: u64) {
        self.0.with_label_values(&[attempt.label()]).inc_by(events);
    }
}

/// Registers the gauges, computed from `progress` and the log at every scrape. With `enabled` false they stay 0: nothing
/// waits for a sink that is `none`.
pub(crate) fn register_gauges(
    registry: &Registry,
    progress: Arc<Progress>,
    readers: Arc<[Box<dyn PartitionReader>]>,
    enabled: bool,
) -> Result<(), OutboxError> {
    let gauges = Gauges {
        pending: IntGauge::new("outbox_pending", "Events neither delivered nor dead.").map_err(refused)?,
        dead: IntGauge::new("outbox_dead", "Events that wait for an operator.").map_err(refused)?,
        oldest_age: GaugeVec::new(
            Opts::new(
                "outbox_oldest_age_seconds",
                "Age of the oldest event neither delivered nor dead: waiting for its first try, or backing off after one.",
            ),
            &["state"],
        )
        .map_err(refused)?,
        progress,
        readers,
        enabled,
    };
    registry.register(Box::new(gauges)).map_err(refused)
}

#[derive(Debug)]
struct Gauges {
    pending: IntGauge,
    dead: IntGauge,
    oldest_age: GaugeVec,
    progress: Arc<Progress>,
    readers: Arc<[Box<dyn PartitionReader>]>,
    enabled: bool,
}

impl Gauges {
    fn age(&self, state: &str) -> Gauge {
        self.oldest_age.with_label_values(&[state])
    }
}

impl Collector for Gauges {
    fn desc(&self) -> Vec<&Desc> {
        let gauges: [&dyn Collector; 3] = [&self.pending, &self.dead, &self.oldest_age];
        gauges.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (pending, ages) = if self.enabled {
            (
                self.progress.pending(&self.readers),
                self.progress.ages(&self.readers),
            )
        } else {
            Default::default()
        };
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.dead
            .set(i64::try_from(self.progress.dead()).unwrap_or(i64::MAX));
        self.age("waiting").set(ages.waiting);
        self.age("backing_off").set(ages.backing_off);
        let gauges: [&dyn Collector; 3] = [&self.pending, &self.dead, &self.oldest_age];
        gauges.into_iter().flat_map(Collector::collect).collect()
    }
}

fn refused(error: prometheus::Error) -> OutboxError {
    OutboxError::Start(error.to_string())
}
