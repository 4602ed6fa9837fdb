//! The knee: the highest rate that a service bears with its latency and its lag under a bound.
//!
//! Rates grow by a factor until a step does not hold, and then the gap between the last that held and the first that did
//! not is halved a few times. What is decided here is pure; the steps are run by [`climb`].

use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use tokio::sync::watch;

use super::metrics::{lag_seconds, longest_lag, metrics_of};
use super::{LoadConfig, LoadReport, OperationReport, Target, run};

/// Requests that an operation needs in a step for its 99th percentile to mean anything.
const REQUESTS_MIN: u64 = 100;

/// How long the projector may take to catch up between two steps.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Time between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a step must keep to hold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bounds {
    /// 99th percentile of every operation's latency, in milliseconds.
    pub p99_ms_max: f64,
    /// Projector lag at any moment, in seconds.
    pub lag_seconds_max: f64,
}

/// Which rates are tried.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ramp {
    /// The first rate, in requests a second.
    pub from: f64,
    /// No rate above this.
    pub to: f64,
    /// Each rate of the way up is the one before, times this.
    pub factor: f64,
    /// How often the gap is halved after the first step that did not hold.
    pub refinements: usize,
}

/// What one step gave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Requests a second that were due.
    pub rate: f64,
    /// Requests a second that succeeded.
    pub succeeded_per_second: f64,
    /// The 99th percentile of the slowest operation, in milliseconds; of those with too few requests for one, where there
    /// is no other, the slowest of all. 0 if nothing was timed, and then the step does not hold.
    pub p99_ms: f64,
    /// The longest projector lag seen, in seconds; `None` if the service tells none.
    pub lag_seconds: Option<f64>,
    /// Whether answers came as fast as requests were due.
    pub kept_up: bool,
    /// Requests refused with 429 or 503.
    pub refused: u64,
    /// Requests without an answer, and answers of other kinds than success and refusal.
    pub failed: u64,
    /// Why it does not hold; empty if it does.
    pub objections: Vec<String>,
}

/// A whole ramp.
#[derive(Debug, Clone, Serialize)]
pub struct RampReport {
    /// What a step had to keep.
    pub bounds: Bounds,
    /// The rates that were asked for.
    pub ramp: Ramp,
    /// The steps, in the order they were run.
    pub steps: Vec<Step>,
    /// The highest rate that held with every lower one; `None` if none did.
    pub knee: Option<f64>,
    /// Whether the highest rate allowed still held: the knee lies above it.
    pub reached_the_end: bool,
    /// Whether a step held, and the lag was told in every one that did: only then is its bound known to be kept.
    pub lag_known: bool,
}

impl Step {
    fn of(report: &LoadReport, lag_seconds: Option<f64>, bounds: &Bounds) -> Self {
        let sum =
            |count: fn(&OperationReport) -> u64| report.operations.iter().map(count).sum::<u64>();
        let refused =
            sum(|it| it.refused_with_retry_after) + sum(|it| it.refused_without_retry_after);
        let slowest_us = slowest_us(&report.operations);
        let mut step = Self {
            rate: report.rate,
            succeeded_per_second: report.succeeded_per_second,
            p99_ms: Duration::from_micros(slowest_us.unwrap_or(0)).as_secs_f64() * 1_000.0,
            lag_seconds,
            kept_up: report.kept_up(),
            refused,
            failed: sum(|it| it.requests) - sum(|it| it.succeeded) - refused,
            objections: Vec::new(),
        };
        step.objections = step.objections(bounds);
        if slowest_us.is_none() {
            step.objections.push("nothing was timed".to_owned());
        }
        step
    }

    /// Whether every bound was kept.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.objections.is_empty()
    }

    fn objections(&self, bounds: &Bounds) -> Vec<String> {
        let mut objections = Vec::new();
        if !self.kept_up {
            objections.push(format!(
                "answers did not come as fast as requests were due ({:.0} a second)",
                self.succeeded_per_second
            ));
        }
        if self.p99_ms > bounds.p99_ms_max {
            objections.push(format!(
                "p99 {:.1} ms above {} ms",
                self.p99_ms, bounds.p99_ms_max
            ));
        }
        if let Some(lag) = self.lag_seconds
            && lag > bounds.lag_seconds_max
        {
            objections.push(format!("lag {lag:.2} s above {} s", bounds.lag_seconds_max));
        }
        if self.refused > 0 {
            objections.push(format!("{} refused", self.refused));
        }
        if self.failed > 0 {
            objections.push(format!("{} failed", self.failed));
        }
        objections
    }
}

/// The 99th percentile of the slowest operation. Few requests say nothing of it: they count only where no operation has
/// many, and then by the slowest of them, which is no less.
fn slowest_us(operations: &[OperationReport]) -> Option<u64> {
    let many = operations
        .iter()
        .filter(|operation| operation.requests >= REQUESTS_MIN)
        .filter_map(|operation| operation.latency)
        .map(|latency| latency.p99_us)
        .max();
    let few = operations.iter().filter_map(|operation| operation.latency);
    many.or_else(|| few.map(|latency| latency.max_us).max())
}

impl Ramp {
    /// The rate of the next step, after these; `None` when the knee is known as well as was asked for.
    #[must_use]
    pub fn next(&self, steps: &[Step]) -> Option<f64> {
        let Some(last) = steps.last() else {
            return Some(self.from.min(self.to));
        };
        let failing = lowest_failing(steps);
        let Some(failing) = failing else {
            return (last.rate < self.to).then(|| (last.rate * self.factor).min(self.to));
        };
        let first_failure = steps.iter().position(|step| !step.holds())?;
        let refined = steps.len() - first_failure - 1;
        if refined >= self.refinements {
            return None;
        }
        let holding = knee(steps).unwrap_or(0.0);
        Some(f64::midpoint(holding, failing))
    }
}

fn lowest_failing(steps: &[Step]) -> Option<f64> {
    steps
        .iter()
        .filter(|step| !step.holds())
        .map(|step| step.rate)
        .reduce(f64::min)
}

/// The highest rate that held and lies below every rate that did not.
fn knee(steps: &[Step]) -> Option<f64> {
    let failing = lowest_failing(steps).unwrap_or(f64::INFINITY);
    steps
        .iter()
        .filter(|step| step.holds() && step.rate < failing)
        .map(|step| step.rate)
        .reduce(f64::max)
}

impl RampReport {
    fn of(ramp: Ramp, bounds: Bounds, steps: Vec<Step>) -> Self {
        let mut held = steps.iter().filter(|step| step.holds()).peekable();
        Self {
            bounds,
            ramp,
            reached_the_end: lowest_failing(&steps).is_none(),
            lag_known: held.peek().is_some() && held.all(|step| step.lag_seconds.is_some()),
            knee: knee(&steps),
            steps,
        }
    }

    /// The knee in a sentence.
    #[must_use]
    pub fn verdict(&self) -> String {
        let Bounds {
            p99_ms_max,
            lag_seconds_max,
        } = self.bounds;
        let lag = if self.lag_known || self.knee.is_none() {
            format!("lag ≤ {lag_seconds_max} s")
        } else {
            "lag UNKNOWN, as /metrics does not tell it".to_owned()
        };
        let bounds = format!("p99 ≤ {p99_ms_max} ms and {lag}");
        match self.knee {
            None => format!("no rate tried kept all bounds, which are {bounds}"),
            Some(rate) if self.reached_the_end => {
                format!(
                    "{rate:.0} requests a second kept {bounds}, the highest rate allowed: the knee lies above it"
                )
            }
            Some(rate) => format!("knee: {rate:.0} requests a second kept {bounds}"),
        }
    }
}

/// Runs steps until the knee is found; `config` gives everything but the rate, and its times are those of a step. `tell`
/// hears of each step as it ends.
///
/// # Errors
/// Those of [`run`]; and if the projector does not catch up between two steps.
pub async fn climb(
    config: &LoadConfig,
    ramp: Ramp,
    bounds: Bounds,
    mut tell: impl FnMut(&Step),
) -> anyhow::Result<RampReport> {
    anyhow::ensure!(
        ramp.from > 0.0 && ramp.factor > 1.0 && ramp.to.is_finite(),
        "a ramp needs a first rate above 0, a factor above 1 and an end"
    );
    let mut steps: Vec<Step> = Vec::new();
    while let Some(rate) = ramp.next(&steps) {
        let (stop, stopped) = watch::channel(false);
        let lag = tokio::spawn(longest_lag(lag_source(config).clone(), stopped));
        let report = run(
            LoadConfig {
                rate,
                ..config.clone()
            },
            None,
        )
        .await?;
        stop.send_replace(true);
        let lag = lag.await.context("looking at the lag panicked")?;
        let step = Step::of(&report, lag, &bounds);
        tell(&step);
        steps.push(step);
        settle(config).await?;
    }
    Ok(RampReport::of(ramp, bounds, steps))
}

/// Who tells the lag.
fn lag_source(config: &LoadConfig) -> &Target {
    config.metrics.as_ref().unwrap_or(&config.target)
}

/// Waits until the service has applied what it acknowledged, so that one step does not pay for another.
async fn settle(config: &LoadConfig) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    loop {
        let lag = metrics_of(lag_source(config))
            .await
            .ok()
            .and_then(|metrics| lag_seconds(&metrics));
        if lag.is_none_or(|lag| lag <= 0.0) {
            return Ok(());
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the projector has not caught up {SETTLE_MAX:?} after a step"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::NoAnswer;
    use super::*;

    const BOUNDS: Bounds = Bounds {
        p99_ms_max: 20.0,
        lag_seconds_max: 1.0,
    };

    const RAMP: Ramp = Ramp {
        from: 1_000.0,
        to: 10_000.0,
        factor: 2.0,
        refinements: 3,
    };

    fn step(rate: f64, p99_ms: f64) -> Step {
        let mut step = Step {
            rate,
            succeeded_per_second: rate,
            p99_ms,
            lag_seconds: Some(0.0),
            kept_up: true,
            refused: 0,
            failed: 0,
            objections: Vec::new(),
        };
        step.objections = step.objections(&BOUNDS);
        step
    }

    /// The steps of a service whose latency jumps above `limit` requests a second.
    fn climbed(limit: f64) -> Vec<Step> {
        let mut steps = Vec::new();
        while let Some(rate) = RAMP.next(&steps) {
            steps.push(step(rate, if rate > limit { 500.0 } else { 2.0 }));
            assert!(steps.len() < 20, "a ramp ends: {steps:?}");
        }
        steps
    }

    #[test]
    fn rates_grow_until_one_does_not_hold_and_then_the_gap_is_halved() {
        let steps = climbed(5_200.0);
        let rates: Vec<f64> = steps.iter().map(|step| step.rate).collect();
        assert_eq!(
            rates,
            [
                1_000.0, 2_000.0, 4_000.0, 8_000.0, 6_000.0, 5_000.0, 5_500.0
            ]
        );
        assert_eq!(knee(&steps), Some(5_000.0));
    }

    #[test]
    fn a_service_that_bears_everything_has_its_knee_above_the_end() {
        let report = RampReport::of(RAMP, BOUNDS, climbed(f64::INFINITY));
        assert_eq!(
            (report.knee, report.reached_the_end),
            (Some(10_000.0), true)
        );
        assert!(report.verdict().contains("lies above"));
    }

    #[test]
    fn a_service_that_does_not_bear_the_first_rate_is_tried_below_it() {
        let report = RampReport::of(RAMP, BOUNDS, climbed(300.0));
        assert_eq!(report.knee, Some(250.0));
        let report = RampReport::of(RAMP, BOUNDS, climbed(0.0));
        assert_eq!(report.knee, None);
        assert!(report.verdict().contains("no rate tried kept all bounds"));
        // Nothing held, so nothing is known of what holds.
        assert!(!report.lag_known);
    }

    #[test]
    fn a_rate_that_held_by_luck_above_one_that_did_not_is_no_knee() {
        let steps = [step(1_000.0, 1.0), step(2_000.0, 50.0), step(3_000.0, 1.0)];
        assert_eq!(knee(&steps), Some(1_000.0));
    }

    #[test]
    fn every_bound_that_is_not_kept_is_named() {
        let bad = Step {
            lag_seconds: Some(3.0),
            kept_up: false,
            refused: 1,
            failed: 2,
            ..step(1_000.0, 21.0)
        };
        assert_eq!(bad.objections(&BOUNDS).len(), 5, "{bad:?}");
        // A service without a projector is judged by its answers alone.
        let silent = Step {
            lag_seconds: None,
            ..step(1_000.0, 20.0)
        };
        assert_eq!(silent.objections(&BOUNDS), Vec::<String>::new());
    }

    #[test]
    fn a_bound_that_nobody_looked_at_is_not_said_to_be_kept() {
        let told = RampReport::of(RAMP, BOUNDS, climbed(5_200.0));
        assert!(told.lag_known);
        assert!(told.verdict().contains("lag ≤ 1 s"), "{}", told.verdict());
        let mut steps = climbed(5_200.0);
        steps[0].lag_seconds = None;
        let silent = RampReport::of(RAMP, BOUNDS, steps);
        assert_eq!(silent.knee, told.knee);
        let verdict = silent.verdict();
        assert!(
            verdict.contains("lag UNKNOWN") && !verdict.contains("lag ≤"),
            "{verdict}"
        );
    }

    /// An operation with so many requests, nearly all of 1 ms and the slowest of `max_us`.
    fn operation(requests: u64, max_us: u64) -> OperationReport {
        let mut recording = super::super::outcome::Recording::new();
        for number in 0..requests {
            let us = if number == 0 { max_us } else { 1_000 };
            let late: Result<_, NoAnswer> = Err(NoAnswer::TimedOut);
            recording.record(Duration::from_micros(us), &late);
        }
        recording.report("create")
    }

    #[test]
    fn few_requests_are_judged_by_the_slowest_and_not_by_nothing() {
        let few = operation(REQUESTS_MIN - 1, 64_000);
        assert!(slowest_us(std::slice::from_ref(&few)) >= Some(64_000));
        // Beside an operation with many they say nothing.
        let many = operation(2 * REQUESTS_MIN, 64_000);
        let p99 = slowest_us(&[few, many]);
        assert!(p99 < Some(2_000), "{p99:?}");
        assert_eq!(slowest_us(&[]), None);
    }
}
