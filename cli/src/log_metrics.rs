//! How the log stands, told at each scrape: nothing is counted on the write path for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use order_log::segmented::Scrub;
use order_log::{Durability, EventLog};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounter, IntGauge, IntGaugeVec, Opts};

use crate::readiness::Disk;

/// Asks the log when the metrics are asked for.
#[derive(Debug)]
pub(crate) struct LogMetrics {
    log: Arc<dyn EventLog>,
    scrub: Option<Arc<Scrub>>,
    directory: PathBuf,
    scrub_bytes: IntCounter,
    scrub_damaged: IntGaugeVec,
    scrub_completed: Gauge,
    end_offset: IntGaugeVec,
    active_segment_bytes: IntGaugeVec,
    disk_free_bytes: IntGauge,
    durability: IntGaugeVec,
}

impl LogMetrics {
    /// Metrics of `log`, whose files are in `directory`.
    ///
    /// # Errors
    /// Only if a name or label were malformed, which the constants here are not.
    pub(crate) fn new(
        log: Arc<dyn EventLog>,
        scrub: Option<Arc<Scrub>>,
        directory: PathBuf,
        durability: Durability,
    ) -> Result<Self, prometheus::Error> {
        let by_partition = |name, help| IntGaugeVec::new(Opts::new(name, help), &["partition"]);
        let metrics = Self {
            log,
            scrub,
            directory,
            scrub_bytes: IntCounter::new(
                "log_scrub_bytes_total",
                "Bytes of sealed segments read again to find rot.",
            )?,
            scrub_damaged: by_partition(
                "log_scrub_damaged_segments",
                "Sealed segments of the partition that did not verify when last read.",
            )?,
            scrub_completed: Gauge::new(
                "log_scrub_last_completed_timestamp_seconds",
                "When all sealed segments were last read through; 0 before the first time.",
            )?,
            end_offset: by_partition(
                "log_end_offset",
                "Offset after the last synced record of the partition.",
            )?,
            active_segment_bytes: by_partition(
                "log_active_segment_bytes",
                "Bytes used in the file the partition writes to.",
            )?,
            disk_free_bytes: IntGauge::new(
                "log_disk_free_bytes",
                "Bytes the service can still write to the log's file system.",
            )?,
            durability: IntGaugeVec::new(
                Opts::new(
                    "log_durability_info",
                    "Constant 1: when a write counts as done.",
                ),
                &["mode"],
            )?,
        };
        metrics
            .durability
            .with_label_values(&[durability.to_string()])
            .set(1);
        Ok(metrics)
    }

    fn refresh_scrub(&self) {
        let status = self.scrub.as_deref().map(Scrub::status).unwrap_or_default();
        let told = self.scrub_bytes.get();
        self.scrub_bytes.inc_by(status.bytes.saturating_sub(told));
        for partition in 0..self.log.partition_count() {
            let damaged = status
                .damaged
                .iter()
                .filter(|finding| finding.partition.get() == partition);
            self.scrub_damaged
                .with_label_values(&[partition.to_string()])
                .set(gauge(damaged.count() as u64));
        }
        let completed = status
            .last_completed
            .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.scrub_completed
            .set(completed.map_or(0.0, |time| time.as_secs_f64()));
    }

    fn refresh(&self) {
        self.refresh_scrub();
        for partition in self.log.status() {
            let label = [partition.partition.to_string()];
            self.end_offset
                .with_label_values(&label)
                .set(gauge(partition.durable_end.get()));
            self.active_segment_bytes
                .with_label_values(&label)
                .set(gauge(partition.active_segment_bytes));
        }
        // A file system that does not answer shows as its last figure; the log itself says what is wrong with it.
        if let Ok(free) = Disk::free_bytes(&self.directory) {
            self.disk_free_bytes.set(gauge(free));
        }
    }
}

/// A gauge's number; past 2⁶³ it would only ever be a mistake.
fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl Collector for LogMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.scrub_bytes.desc(),
            self.scrub_damaged.desc(),
            self.scrub_completed.desc(),
            self.end_offset.desc(),
            self.active_segment_bytes.desc(),
            self.disk_free_bytes.desc(),
            self.durability.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        [
            self.scrub_bytes.collect(),
            self.scrub_damaged.collect(),
            self.scrub_completed.collect(),
            self.end_offset.collect(),
            self.active_segment_bytes.collect(),
            self.disk_free_bytes.collect(),
            self.durability.collect(),
        ]
        .concat()
    }
}
