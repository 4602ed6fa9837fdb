//! Whether a run's figures count something: rows, records and acknowledgements agree, and the log verifies.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::StatusCode;
use rusqlite::{Connection, OpenFlags};
use tokio::runtime::Runtime;

use super::LoadResult;
use crate::load::{Target, fetch};

/// How long a projector may take to catch up after a run.
const CATCH_UP_MAX: Duration = Duration::from_secs(120);
/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until the core projection has applied every record of the log; returns how many records there are and how long
/// it took.
pub(super) fn wait_until_caught_up(
    target: &Target,
    runtime: &Runtime,
) -> anyhow::Result<(u64, Duration)> {
    let start = Instant::now();
    loop {
        let (status, body) = runtime.block_on(fetch(target, "/metrics"))?;
        anyhow::ensure!(status == StatusCode::OK, "/metrics answers {status}");
        let metrics = String::from_utf8_lossy(&body);
        let end =
            sum_of(&metrics, "log_end_offset", "").context("no log_end_offset in /metrics")?;
        let checkpoint = sum_of(
            &metrics,
            "projector_checkpoint_offset",
            "projection=\"orders\"",
        )
        .context("no projector_checkpoint_offset in /metrics")?;
        if checkpoint >= end {
            return Ok((end, start.elapsed()));
        }
        anyhow::ensure!(
            start.elapsed() < CATCH_UP_MAX,
            "the projector is at {checkpoint} of {end} after {CATCH_UP_MAX:?}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Sum of a metric's samples whose labels contain `label`; `None` if there is no such sample.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "offsets are counts, exact in a double up to 2^53"
)]
fn sum_of(metrics: &str, name: &str, label: &str) -> Option<u64> {
    let samples: Vec<f64> = metrics
        .lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let labels = series.strip_prefix(name)?;
            let is_this = labels.is_empty() || labels.starts_with('{');
            (is_this && labels.contains(label)).then(|| value.parse::<f64>().ok())?
        })
        .collect();
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() as u64)
}

/// Rows of `OrderView` over all files of the read model. To be called when the service has ended.
pub(super) fn count_rows(data: &Path) -> anyhow::Result<u64> {
    let mut rows = 0;
    for entry in fs::read_dir(data).with_context(|| format!("list {}", data.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if name.starts_with("read") && name.ends_with(".db") {
            let connection = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
                .with_context(|| format!("open {}", path.display()))?;
            let count = connection
                .query_row("select count(*) from OrderView", [], |row| {
                    row.get::<_, i64>(0)
                })
                .with_context(|| format!("count the rows of {}", path.display()))?;
            rows += u64::try_from(count).context("a count is not negative")?;
        }
    }
    Ok(rows)
}

/// What `log verify` says when it finds something; `None` if it finds nothing.
pub(super) fn verify_log(service: &Path, data: &Path) -> anyhow::Result<Option<String>> {
    let output = Command::new(service)
        .args(["log", "verify", "--data-dir"])
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {} log verify", service.display()))?;
    let words = || {
        let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    };
    Ok((!output.status.success()).then(words))
}

/// What one run of the service left behind.
#[derive(Debug, Clone)]
pub(super) struct Aftermath {
    pub(super) load: LoadResult,
    pub(super) records: u64,
    pub(super) rows: u64,
    pub(super) catch_up: Duration,
    pub(super) peak_memory_mib: Option<u64>,
    pub(super) verify_findings: Option<String>,
    pub(super) exit: String,
    pub(super) exited_cleanly: bool,
}

impl Aftermath {
    /// What does not hold, in words.
    pub(super) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let acknowledged = self.load.succeeded;
        if acknowledged == 0 {
            complaints.push("nothing was acknowledged".to_owned());
        }
        if self.load.not_ok > 0 || self.load.failed > 0 {
            complaints.push(format!(
                "{} requests were refused and {} had no answer: the figure is not that of the work",
                self.load.not_ok, self.load.failed
            ));
        }
        if self.rows < acknowledged || self.rows > acknowledged + self.load.unknown_max {
            complaints.push(format!(
                "{} rows for {acknowledged} acknowledged orders and at most {} whose answer was not awaited",
                self.rows, self.load.unknown_max
            ));
        }
        if self.rows != self.records {
            complaints.push(format!("{} rows for {} records", self.rows, self.records));
        }
        if let Some(findings) = &self.verify_findings {
            complaints.push(format!("log verify: {findings}"));
        }
        if !self.exited_cleanly {
            complaints.push(format!("it ended with {}", self.exit));
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_partitions_and_no_other_metric() {
        let metrics = "# HELP log_end_offset x\n\
                       log_end_offset{partition=\"0\"} 5\n\
                       log_end_offset{partition=\"1\"} 7\n\
                       log_end_offset_total{partition=\"1\"} 100\n\
                       projector_checkpoint_offset{partition=\"0\",projection=\"orders\"} 3\n\
                       projector_checkpoint_offset{partition=\"0\",projection=\"sku_demand\"} 4\n";
        assert_eq!(sum_of(metrics, "log_end_offset", ""), Some(12));
        let orders = "projection=\"orders\"";
        assert_eq!(
            sum_of(metrics, "projector_checkpoint_offset", orders),
            Some(3)
        );
        assert_eq!(sum_of(metrics, "missing", ""), None);
    }

    #[test]
    fn rows_are_counted_over_all_files() {
        let directory = tempfile::tempdir().unwrap();
        for (file, rows) in [("read-000.db", 2), ("read-001.db", 1), ("other.db", 5)] {
            let connection = Connection::open(directory.path().join(file)).unwrap();
            connection
                .execute("create table OrderView (id integer)", [])
                .unwrap();
            for _ in 0..rows {
                connection
                    .execute("insert into OrderView values (1)", [])
                    .unwrap();
            }
        }
        assert_eq!(count_rows(directory.path()).unwrap(), 3);
    }

    fn load() -> LoadResult {
        LoadResult {
            succeeded: 100,
            not_ok: 0,
            failed: 0,
            elapsed: Duration::from_secs(1),
            p50_us: 1,
            p99_us: 1,
            unknown_max: 4,
        }
    }

    fn aftermath(rows: u64, records: u64) -> Aftermath {
        Aftermath {
            load: load(),
            records,
            rows,
            catch_up: Duration::ZERO,
            peak_memory_mib: None,
            verify_findings: None,
            exit: "exit status: 0".to_owned(),
            exited_cleanly: true,
        }
    }

    #[test]
    fn a_row_too_few_or_too_many_is_a_complaint() {
        assert!(aftermath(100, 100).complaints().is_empty());
        assert!(aftermath(104, 104).complaints().is_empty());
        assert_eq!(aftermath(99, 99).complaints().len(), 1);
        assert_eq!(aftermath(105, 105).complaints().len(), 1);
        assert_eq!(aftermath(100, 101).complaints().len(), 1);
        let damaged = Aftermath {
            verify_findings: Some("bad".to_owned()),
            ..aftermath(100, 100)
        };
        assert_eq!(damaged.complaints(), ["log verify: bad"]);
    }

    #[test]
    fn a_load_that_was_refused_does_not_pass_for_one_that_was_served() {
        let refused = Aftermath {
            load: LoadResult {
                succeeded: 0,
                not_ok: 100,
                ..load()
            },
            ..aftermath(0, 0)
        };
        assert_eq!(refused.complaints().len(), 2, "{:?}", refused.complaints());
    }
}
