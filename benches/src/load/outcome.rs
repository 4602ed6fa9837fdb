//! What came back: counted, timed, and kept apart by operation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use serde::Serialize;

use super::connection::{Answer, NoAnswer};
use super::series::SeriesPoint;

/// Longest latency told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// An empty histogram of microseconds with three significant digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_US_MAX, 3)
        .expect("three digits up to ten minutes is a valid histogram")
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// What one operation of one run gave.
#[derive(Debug)]
pub(super) struct Recording {
    /// Everything but refusals: answers, errors and time-outs alike, so that no failure makes the figures look better.
    latency: Histogram<u64>,
    refused_latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    refused_with_retry_after: u64,
    refused_without_retry_after: u64,
    succeeded: u64,
}

impl Recording {
    pub(super) fn new() -> Self {
        Self {
            latency: histogram(),
            refused_latency: histogram(),
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            refused_with_retry_after: 0,
            refused_without_retry_after: 0,
            succeeded: 0,
        }
    }

    pub(super) fn record(&mut self, latency: Duration, outcome: &Result<Answer, NoAnswer>) {
        let latency = micros(latency);
        match outcome {
            Ok(answer) => {
                *self.statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
                if is_refusal(answer.status) {
                    self.refused_latency.saturating_record(latency);
                    if answer.headers.contains_key(RETRY_AFTER) {
                        self.refused_with_retry_after += 1;
                    } else {
                        self.refused_without_retry_after += 1;
                    }
                } else {
                    self.latency.saturating_record(latency);
                    self.succeeded += u64::from(answer.status.is_success());
                }
            }
            Err(reason) => {
                *self.errors.entry(reason.name()).or_insert(0) += 1;
                self.latency.saturating_record(latency);
            }
        }
    }

    pub(super) fn report(&self, operation: &'static str) -> OperationReport {
        OperationReport {
            operation: operation.to_owned(),
            requests: self.statuses.values().sum::<u64>() + self.errors.values().sum::<u64>(),
            succeeded: self.succeeded,
            statuses: self.statuses.clone(),
            errors: self
                .errors
                .iter()
                .map(|(&name, &count)| (name.to_owned(), count))
                .collect(),
            refused_with_retry_after: self.refused_with_retry_after,
            refused_without_retry_after: self.refused_without_retry_after,
            latency: Quantiles::of(&self.latency),
            percentiles: percentiles(&self.latency),
            refused_latency: Quantiles::of(&self.refused_latency),
        }
    }
}

/// The two ways to say "not now".
pub(super) fn is_refusal(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    )
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// Half were not slower.
    pub p50_us: u64,
    /// 90 of 100 were not slower.
    pub p90_us: u64,
    /// 99 of 100 were not slower.
    pub p99_us: u64,
    /// 999 of 1,000 were not slower.
    pub p99_9_us: u64,
    /// The slowest.
    pub max_us: u64,
}

impl Quantiles {
    /// `None` when nothing was recorded.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self {
            p50_us: histogram.value_at_quantile(0.50),
            p90_us: histogram.value_at_quantile(0.90),
            p99_us: histogram.value_at_quantile(0.99),
            p99_9_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        })
    }
}

/// The parts of requests that a percentile curve shows.
const PARTS: [f64; 12] = [
    0.0, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0,
];

/// The whole distribution, as a curve.
fn percentiles(histogram: &Histogram<u64>) -> Vec<Percentile> {
    if histogram.is_empty() {
        return Vec::new();
    }
    PARTS
        .iter()
        .map(|&part| Percentile {
            part,
            us: histogram.value_at_quantile(part),
        })
        .collect()
}

/// A point of a percentile curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentile {
    /// Part of the requests, 0 to 1.
    pub part: f64,
    /// This part was not slower, in microseconds.
    pub us: u64,
}

/// What one operation gave within the measured time.
#[derive(Debug, Clone, Serialize)]
pub struct OperationReport {
    /// Name of the operation.
    pub operation: String,
    /// Requests that were due within the measured time.
    pub requests: u64,
    /// Answers with a status of 200 to 299.
    pub succeeded: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests without an answer, by reason.
    pub errors: BTreeMap<String, u64>,
    /// Answers 429 and 503 that say when to come back.
    pub refused_with_retry_after: u64,
    /// Answers 429 and 503 that do not.
    pub refused_without_retry_after: u64,
    /// From the moment a request was due to its end; refusals are not in it, errors are.
    pub latency: Option<Quantiles>,
    /// The same as a curve.
    pub percentiles: Vec<Percentile>,
    /// The same of the refusals.
    pub refused_latency: Option<Quantiles>,
}

/// What a run gave.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// `open loop` or `closed loop`.
    pub mode: &'static str,
    /// Requests a second that were to be sent; 0 in a closed loop.
    pub rate: f64,
    /// Connections.
    pub connections: usize,
    /// Proportion of the operations.
    pub mix: String,
    /// Measured time, in seconds; the warm-up came before it.
    pub seconds: f64,
    /// Successes a second that ended within the measured time.
    pub succeeded_per_second: f64,
    /// Answers a second of any kind that ended within the measured time.
    pub answered_per_second: f64,
    /// Requests that were due but could not be sent before the run was given up.
    pub unsent: u64,
    /// From the moment a request was due to the moment it was sent: waiting for a free connection, and the generator's own
    /// lateness. Latencies include it.
    pub send_delay: Option<Quantiles>,
    /// By operation; those never asked for are left out.
    pub operations: Vec<OperationReport>,
    /// Every request but read-backs, by when it was due.
    pub over_time: Vec<SeriesPoint>,
    /// Read-backs, by when their order was acknowledged: how long until it was visible.
    pub visible_over_time: Vec<SeriesPoint>,
    /// Lines of bulk requests that were not acknowledged, during the whole run.
    pub bulk_lines_refused: u64,
    /// Commands acknowledged during the whole run, warm-up included.
    pub acknowledged_commands: u64,
    /// New orders acknowledged during the whole run, warm-up included.
    pub acknowledged_orders: u64,
}

/// Below this part of the asked rate a run says that the service did not keep up.
const KEPT_UP_ABOVE: f64 = 0.99;

impl LoadReport {
    /// Whether answers came as fast as requests were due; always in a closed loop.
    #[must_use]
    pub fn kept_up(&self) -> bool {
        self.rate <= 0.0
            || (self.unsent == 0 && self.answered_per_second >= KEPT_UP_ABOVE * self.rate)
    }
}

impl fmt::Display for LoadReport {
    /// A table for people.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rate > 0.0 {
            writeln!(
                formatter,
                "open loop: {:.0} requests a second due, {:.0} answered, {:.0} succeeded, over {:.1} s; latency counts from \
                 when a request was due",
                self.rate, self.answered_per_second, self.succeeded_per_second, self.seconds
            )?;
        } else {
            writeln!(
                formatter,
                "CLOSED LOOP (saturating): {:.0} requests a second answered, {:.0} succeeded, over {:.1} s; latencies are \
                 those of a service that is never left idle, not of one under a given load",
                self.answered_per_second, self.succeeded_per_second, self.seconds
            )?;
        }
        writeln!(
            formatter,
            "connections {}, mix {}",
            self.connections, self.mix
        )?;
        if !self.kept_up() {
            writeln!(
                formatter,
                "DID NOT KEEP UP: {} requests were never sent; latencies grow with the length of the run",
                self.unsent
            )?;
        }
        writeln!(
            formatter,
            "\n{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "requests", "ok", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for operation in &self.operations {
            let label = (
                operation.requests.to_string(),
                operation.succeeded.to_string(),
            );
            row(formatter, &operation.operation, &label, operation.latency)?;
            if operation.refused_latency.is_some() {
                let refused =
                    operation.refused_with_retry_after + operation.refused_without_retry_after;
                row(
                    formatter,
                    "  refused",
                    &(refused.to_string(), String::new()),
                    operation.refused_latency,
                )?;
            }
        }
        row(
            formatter,
            "send delay",
            &(String::new(), String::new()),
            self.send_delay,
        )?;
        for operation in &self.operations {
            let statuses: Vec<String> = operation
                .statuses
                .iter()
                .map(|(status, count)| format!("{status}: {count}"))
                .chain(
                    operation
                        .errors
                        .iter()
                        .map(|(error, count)| format!("{error}: {count}")),
                )
                .collect();
            writeln!(
                formatter,
                "{} answers: {}",
                operation.operation,
                statuses.join(", ")
            )?;
            if operation.operation == "bulk" && self.bulk_lines_refused > 0 {
                writeln!(
                    formatter,
                    "bulk: {} lines were not acknowledged",
                    self.bulk_lines_refused
                )?;
            }
            if operation.refused_without_retry_after > 0 {
                writeln!(
                    formatter,
                    "{}: {} refusals did not say when to come back (Retry-After)",
                    operation.operation, operation.refused_without_retry_after
                )?;
            }
        }
        Ok(())
    }
}

fn row(
    formatter: &mut fmt::Formatter<'_>,
    name: &str,
    (requests, succeeded): &(String, String),
    quantiles: Option<Quantiles>,
) -> fmt::Result {
    write!(formatter, "{name:<10}{requests:>10}{succeeded:>10}")?;
    if let Some(quantiles) = quantiles {
        let Quantiles {
            p50_us,
            p90_us,
            p99_us,
            p99_9_us,
            max_us,
        } = quantiles;
        for micros in [p50_us, p90_us, p99_us, p99_9_us, max_us] {
            let time = Duration::from_micros(micros);
            write!(formatter, "{:>10.3}", time.as_secs_f64() * 1_000.0)?;
        }
    }
    writeln!(formatter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::header::HeaderMap;

    fn answer(status: StatusCode, retry_after: bool) -> Result<Answer, NoAnswer> {
        let mut headers = HeaderMap::new();
        if retry_after {
            headers.insert(RETRY_AFTER, "1".parse().unwrap());
        }
        Ok(Answer {
            status,
            headers,
            body: Bytes::new(),
        })
    }

    #[test]
    fn refusals_are_kept_apart_and_told_by_their_retry_after() {
        let mut recording = Recording::new();
        let millisecond = Duration::from_millis(1);
        recording.record(millisecond, &answer(StatusCode::CREATED, false));
        recording.record(millisecond, &answer(StatusCode::SERVICE_UNAVAILABLE, true));
        recording.record(millisecond, &answer(StatusCode::TOO_MANY_REQUESTS, false));
        recording.record(millisecond * 9, &answer(StatusCode::CONFLICT, false));
        let report = recording.report("create");
        assert_eq!((report.requests, report.succeeded), (4, 1));
        assert_eq!(
            (
                report.refused_with_retry_after,
                report.refused_without_retry_after
            ),
            (1, 1)
        );
        assert_eq!(
            report.statuses,
            BTreeMap::from([(201, 1), (409, 1), (429, 1), (503, 1)])
        );
        assert!(report.latency.unwrap().max_us >= 9_000);
        assert!(report.refused_latency.unwrap().max_us < 1_010);
    }

    #[test]
    fn a_request_without_an_answer_counts_with_the_time_it_took() {
        let mut recording = Recording::new();
        recording.record(Duration::from_secs(5), &Err(NoAnswer::TimedOut));
        let report = recording.report("get");
        assert_eq!(report.errors, BTreeMap::from([("timed-out".to_owned(), 1)]));
        assert!(report.latency.unwrap().p50_us >= 5_000_000);
    }

    #[test]
    fn a_report_says_when_the_service_did_not_keep_up_and_when_the_loop_was_closed() {
        let mut report = LoadReport {
            mode: "open loop",
            rate: 100.0,
            connections: 1,
            mix: "create=1".to_owned(),
            seconds: 1.0,
            succeeded_per_second: 50.0,
            answered_per_second: 50.0,
            unsent: 0,
            send_delay: None,
            operations: Vec::new(),
            over_time: Vec::new(),
            visible_over_time: Vec::new(),
            bulk_lines_refused: 0,
            acknowledged_commands: 50,
            acknowledged_orders: 50,
        };
        assert!(report.to_string().contains("DID NOT KEEP UP"));
        report.answered_per_second = 100.0;
        assert!(!report.to_string().contains("DID NOT KEEP UP"));
        report.rate = 0.0;
        assert!(report.to_string().contains("CLOSED LOOP"));
    }
}
