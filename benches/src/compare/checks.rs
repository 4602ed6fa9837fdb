//! Whether a run's figures count something: rows, records and acknowledgements agree, and the log verifies.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use tokio::runtime::Runtime;

use super::LoadResult;
use super::rows::Rows;
use crate::load::{Target, metrics_of, sum_of};

/// How long a projector may take to catch up: ten million events take a minute or two.
const CATCH_UP_MAX: Duration = Duration::from_secs(900);
/// Time between two looks at it: how exactly catching up is timed.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A service that has nothing left to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct CaughtUp {
    /// Records of the log.
    pub(super) records: u64,
    /// How long was waited for it.
    pub(super) after: Duration,
    /// Bytes that the segments that are being written hold, over all partitions.
    active_bytes: u64,
}

/// Waits until the core projection has applied every record of the log.
pub(super) fn wait_until_caught_up(target: &Target, runtime: &Runtime) -> anyhow::Result<CaughtUp> {
    let start = Instant::now();
    loop {
        let metrics = runtime.block_on(metrics_of(target))?;
        let end =
            sum_of(&metrics, "log_end_offset", "").context("no log_end_offset in /metrics")?;
        let checkpoint = sum_of(
            &metrics,
            "projector_checkpoint_offset",
            "projection=\"orders\"",
        )
        .context("no projector_checkpoint_offset in /metrics")?;
        if checkpoint >= end {
            let active_bytes = sum_of(&metrics, "log_active_segment_bytes", "")
                .context("no log_active_segment_bytes in /metrics")?;
            return Ok(CaughtUp {
                records: count(end),
                after: start.elapsed(),
                active_bytes: count(active_bytes),
            });
        }
        anyhow::ensure!(
            start.elapsed() < CATCH_UP_MAX,
            "the projector is at {checkpoint} of {end} after {CATCH_UP_MAX:?}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
}

/// An offset or a sum of them: a count, exact in a double up to 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "offsets are counts, exact in a double up to 2^53"
)]
fn count(value: f64) -> u64 {
    value as u64
}

/// A line of `log ls --json`: what is needed of it.
#[derive(Debug, Deserialize)]
struct Segment {
    bytes: u64,
    /// `None` while it is being written.
    sealed_at: Option<String>,
}

/// Bytes that the log's events take, without what is allocated ahead of them. To be called when the service that told
/// `last` has ended.
pub(super) fn log_bytes(service: &Path, data: &Path, last: &CaughtUp) -> anyhow::Result<u64> {
    // All partitions of JSON lines are in one file, which nothing is allocated ahead of.
    let json_lines = data.join("events.jsonl");
    if json_lines.is_file() {
        return Ok(fs::metadata(&json_lines)?.len());
    }
    let output = Command::new(service)
        .args(["log", "ls", "--json", "--data-dir"])
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {} log ls", service.display()))?;
    anyhow::ensure!(
        output.status.success(),
        "log ls: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = String::from_utf8_lossy(&output.stdout);
    Ok(sealed_bytes(&listed)? + last.active_bytes)
}

/// Sum over the segments that are no longer written to.
fn sealed_bytes(listed: &str) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for line in listed.lines() {
        let segment: Segment = serde_json::from_str(line).context("read a line of `log ls`")?;
        if segment.sealed_at.is_some() {
            bytes += segment.bytes;
        }
    }
    Ok(bytes)
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
    pub(super) rows: Rows,
    /// Total of each order, in minor units, if all are the same.
    pub(super) order_total: Option<i64>,
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
        let rows = self.rows.rows;
        if rows < acknowledged || rows > acknowledged + self.load.unknown_max {
            complaints.push(format!(
                "{rows} rows for {acknowledged} acknowledged orders and at most {} whose answer was not awaited",
                self.load.unknown_max
            ));
        }
        if rows != self.records || self.rows.events != self.records {
            complaints.push(format!(
                "{rows} rows of {} events for {} records",
                self.rows.events, self.records
            ));
        }
        if let Some(total) = self.order_total
            && i64::try_from(rows).map_or(true, |rows| rows * total != self.rows.ordered)
        {
            complaints.push(format!(
                "{rows} orders of {total} add up to {}",
                self.rows.ordered
            ));
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
    fn a_segment_that_is_being_written_is_not_counted_by_the_length_of_its_file() {
        let listed = "{\"partition\":0,\"bytes\":100,\"sealed_at\":\"2026-11-22T19:00:00Z\"}\n\
                      {\"partition\":0,\"bytes\":4096,\"sealed_at\":null}\n";
        assert_eq!(sealed_bytes(listed).unwrap(), 100);
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
            rows: Rows {
                rows,
                events: rows,
                ordered: 7 * i64::try_from(rows).unwrap(),
                ..Rows::default()
            },
            order_total: Some(7),
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
        let mut cheap = aftermath(100, 100);
        cheap.rows.ordered -= 1;
        assert_eq!(cheap.complaints(), ["100 orders of 7 add up to 699"]);
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
