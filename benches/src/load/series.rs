//! Latency over time: what a whole run's quantiles hide, such as one bad second in a minute.
//!
//! A request belongs to the interval in which it was due, not to the one in which its answer came: a stall shows where it
//! began, and in everything that was due while it lasted.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::connection::{Answer, NoAnswer};
use super::outcome::{is_refusal, micros};

/// Longest latency told apart, in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Most intervals of a run: a long one has longer intervals.
const INTERVALS_MAX: u32 = 600;

/// Shortest interval.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What was due within one interval.
#[derive(Debug)]
struct Interval {
    latency: Histogram<u64>,
    requests: u64,
    succeeded: u64,
    refused: u64,
    failed: u64,
}

impl Interval {
    fn new() -> Self {
        Self {
            latency: Histogram::new_with_max(LATENCY_US_MAX, 2)
                .expect("two digits up to ten minutes is a valid histogram"),
            requests: 0,
            succeeded: 0,
            refused: 0,
            failed: 0,
        }
    }
}

/// A run's intervals.
#[derive(Debug)]
pub(super) struct Series {
    interval: Duration,
    intervals: Vec<Interval>,
}

/// One interval of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SeriesPoint {
    /// When the interval began, after the beginning of the measured time.
    pub from_seconds: f64,
    /// Requests that were due in it.
    pub requests: u64,
    /// Of these, answered with a status of 200 to 299.
    pub succeeded: u64,
    /// Of these, refused with 429 or 503.
    pub refused: u64,
    /// Of these, without an answer.
    pub failed: u64,
    /// Median latency of everything but refusals, in microseconds.
    pub p50_us: u64,
    /// 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The slowest, in microseconds.
    pub max_us: u64,
}

impl Series {
    /// For a run of `duration`.
    pub(super) fn new(duration: Duration) -> Self {
        Self {
            interval: (duration / INTERVALS_MAX).max(INTERVAL_MIN),
            intervals: Vec::new(),
        }
    }

    /// Counts a request that was due at `due` after the beginning of the measured time.
    pub(super) fn record(
        &mut self,
        due: Duration,
        latency: Duration,
        outcome: &Result<Answer, NoAnswer>,
    ) {
        let number = due.as_nanos() / self.interval.as_nanos();
        let number = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .min(INTERVALS_MAX as usize);
        while self.intervals.len() <= number {
            self.intervals.push(Interval::new());
        }
        let interval = &mut self.intervals[number];
        interval.requests += 1;
        match outcome {
            Ok(answer) if is_refusal(answer.status) => {
                interval.refused += 1;
                return;
            }
            Ok(answer) => interval.succeeded += u64::from(answer.status.is_success()),
            Err(_) => interval.failed += 1,
        }
        interval.latency.saturating_record(micros(latency));
    }

    pub(super) fn points(&self) -> Vec<SeriesPoint> {
        (0_u32..)
            .zip(&self.intervals)
            .map(|(number, interval)| SeriesPoint {
                from_seconds: (self.interval * number).as_secs_f64(),
                requests: interval.requests,
                succeeded: interval.succeeded,
                refused: interval.refused,
                failed: interval.failed,
                p50_us: interval.latency.value_at_quantile(0.50),
                p99_us: interval.latency.value_at_quantile(0.99),
                max_us: interval.latency.max(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::StatusCode;
    use hyper::header::HeaderMap;

    fn answer(status: StatusCode) -> Result<Answer, NoAnswer> {
        Ok(Answer {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        })
    }

    #[test]
    fn a_request_belongs_to_the_interval_in_which_it_was_due() {
        let mut series = Series::new(Duration::from_secs(10));
        let second = Duration::from_secs(1);
        series.record(second / 2, 3 * second, &answer(StatusCode::CREATED));
        series.record(2 * second, second / 100, &answer(StatusCode::CREATED));
        series.record(2 * second, second, &answer(StatusCode::SERVICE_UNAVAILABLE));
        series.record(2 * second, second, &Err(NoAnswer::TimedOut));
        let points = series.points();
        assert_eq!(points.len(), 3);
        assert!(points[0].max_us >= 2_900_000, "{points:?}");
        assert_eq!((points[1].requests, points[1].max_us), (0, 0));
        let last = points[2];
        assert_eq!(
            (last.requests, last.succeeded, last.refused, last.failed),
            (3, 1, 1, 1)
        );
    }

    #[test]
    fn a_run_of_a_day_has_no_more_points_than_can_be_looked_at() {
        let day = Duration::from_secs(86_400);
        let mut series = Series::new(day);
        series.record(day, Duration::ZERO, &answer(StatusCode::OK));
        assert!(series.points().len() <= 601);
    }
}
