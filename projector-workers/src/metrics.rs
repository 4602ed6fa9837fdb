//! The metrics of the read side: counted where it happens, or computed when somebody looks.

use std::sync::{Arc, Weak};

use order_log::PartitionId;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry,
};

use crate::Projection;
use crate::board::Board;
use crate::database::with_suffix;

/// Bounds of `projector_apply_seconds`: a batch of one is well below a millisecond, a full one takes tens.
const APPLY_SECONDS: [f64; 12] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// Bounds of `projector_batch_size`, in records.
const BATCH_SIZES: [f64; 10] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0,
];

/// What the workers count.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    errors: IntCounterVec,
    busy: IntCounterVec,
    apply_seconds: HistogramVec,
    batch_size: HistogramVec,
}

/// What one worker counts.
#[derive(Debug, Clone)]
pub(crate) struct PartitionMetrics {
    /// By projection.
    pub(crate) errors: [IntCounter; Projection::ALL.len()],
    pub(crate) busy: IntCounter,
    pub(crate) apply_seconds: Histogram,
    pub(crate) batch_size: Histogram,
}

impl Metrics {
    /// Registers everything, the board's gauges with it.
    pub(crate) fn register(
        registry: &Registry,
        board: &Arc<Board>,
    ) -> Result<Self, prometheus::Error> {
        let of_projection = ["projection", "partition"];
        let metrics = Self {
            errors: IntCounterVec::new(
                Opts::new(
                    "projector_errors_total",
                    "Events that could not be applied and parked their order",
                ),
                &of_projection,
            )?,
            busy: IntCounterVec::new(
                Opts::new(
                    "sqlite_busy_total",
                    "Times a transaction gave way because another process held the file",
                ),
                &["file"],
            )?,
            apply_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "projector_apply_seconds",
                    "Time from the scan of a batch to its commit",
                )
                .buckets(APPLY_SECONDS.to_vec()),
                &["partition"],
            )?,
            batch_size: HistogramVec::new(
                HistogramOpts::new(
                    "projector_batch_size",
                    "Records of a partition applied together, in one transaction",
                )
                .buckets(BATCH_SIZES.to_vec()),
                &["partition"],
            )?,
        };
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.busy.clone()))?;
        registry.register(Box::new(metrics.apply_seconds.clone()))?;
        registry.register(Box::new(metrics.batch_size.clone()))?;
        registry.register(Box::new(BoardCollector::new(board)?))?;
        Ok(metrics)
    }

    /// One worker's share; every label set starts at 0 here.
    pub(crate) fn of(&self, board: &Board, partition: PartitionId) -> PartitionMetrics {
        let number = partition.to_string();
        let partition_label = [number.as_str()];
        PartitionMetrics {
            errors: Projection::ALL
                .map(|projection| self.errors.with_label_values(&[projection.name(), &number])),
            busy: self
                .busy
                .with_label_values(&[&file_label(board.read_model().path_of(partition))]),
            apply_seconds: self.apply_seconds.with_label_values(&partition_label),
            batch_size: self.batch_size.with_label_values(&partition_label),
        }
    }
}

/// The gauges computed at scrape. Holds the board weakly: a registry outlives the workers.
#[derive(Debug)]
struct BoardCollector {
    board: Weak<Board>,
    lag_seconds: GaugeVec,
    log_unreadable: IntGaugeVec,
    lag_events: IntGaugeVec,
    checkpoint: IntGaugeVec,
    paused: IntGaugeVec,
    halted: IntGaugeVec,
    parked: IntGaugeVec,
    wal_bytes: IntGaugeVec,
}

impl BoardCollector {
    fn new(board: &Arc<Board>) -> Result<Self, prometheus::Error> {
        let labels = ["projection", "partition"];
        let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &labels);
        Ok(Self {
            board: Arc::downgrade(board),
            lag_seconds: GaugeVec::new(
                Opts::new(
                    "projector_event_lag_seconds",
                    "Age of the oldest event not applied yet, 0 when caught up; a bound while the log cannot be read",
                ),
                &labels,
            )?,
            log_unreadable: gauge(
                "projector_log_unreadable",
                "1 while the oldest event not applied yet cannot be read from the log",
            )?,
            lag_events: gauge("projector_lag_events", "Events not applied yet")?,
            checkpoint: gauge(
                "projector_checkpoint_offset",
                "Offset after the last applied event",
            )?,
            paused: gauge("projector_paused", "1 while a projection is paused")?,
            halted: gauge(
                "projector_halted",
                "1 while a projection stands still until an operator does something",
            )?,
            parked: gauge("projector_parked_orders", "Orders set aside")?,
            wal_bytes: IntGaugeVec::new(
                Opts::new(
                    "sqlite_wal_bytes",
                    "Size of a database's write-ahead log file",
                ),
                &["file"],
            )?,
        })
    }

    fn look(&self, board: &Board) {
        for status in board.status() {
            let number = status.partition.to_string();
            let labels = [status.projection.name(), number.as_str()];
            let behind = status.end.get().saturating_sub(status.checkpoint.get());
            self.lag_seconds
                .with_label_values(&labels)
                .set(status.lag_seconds);
            let unreadable = u64::from(status.log_unreadable.is_some());
            set(&self.log_unreadable, &labels, unreadable);
            set(&self.lag_events, &labels, behind);
            set(&self.checkpoint, &labels, status.checkpoint.get());
            set(&self.paused, &labels, u64::from(status.paused));
            set(&self.halted, &labels, u64::from(status.halted.is_some()));
            set(&self.parked, &labels, status.parked_orders);
        }
        for path in board.read_model().paths() {
            // No file is an empty one: it is removed when the last connection closes.
            let bytes = std::fs::metadata(with_suffix(&path, "-wal")).map_or(0, |file| file.len());
            set(&self.wal_bytes, &[&file_label(&path)], bytes);
        }
    }

    fn parts(&self) -> [&dyn Collector; 8] {
        [
            &self.lag_seconds,
            &self.log_unreadable,
            &self.lag_events,
            &self.checkpoint,
            &self.paused,
            &self.halted,
            &self.parked,
            &self.wal_bytes,
        ]
    }
}

impl Collector for BoardCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts()
            .into_iter()
            .flat_map(|part| part.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Some(board) = self.board.upgrade() else {
            return Vec::new();
        };
        self.look(&board);
        self.parts()
            .into_iter()
            .flat_map(|part| part.collect())
            .collect()
    }
}

fn set(gauges: &IntGaugeVec, labels: &[&str], value: u64) {
    gauges
        .with_label_values(labels)
        .set(i64::try_from(value).unwrap_or(i64::MAX));
}

fn file_label(path: &std::path::Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
