//! The load of a comparison: a closed loop, which finds the most that a contestant can do.

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::wrk;
use crate::load::{LoadConfig, Mix, Target, run};
use crate::measure::{Latency, Sample};

/// What is sent.
#[derive(Debug, Clone)]
pub enum Load {
    /// `POST /orders`, always the documented order.
    Create,
    /// `GET /orders/:id`, these in turn.
    Get {
        /// Orders that are there.
        ids: Vec<String>,
    },
}

/// What sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generator {
    /// The `wrk` program.
    Wrk,
    /// This project's own; it takes several times wrk's share of the processor.
    Own,
}

impl Generator {
    /// `wrk` if it is installed.
    #[must_use]
    pub fn best() -> Self {
        if wrk::is_installed() {
            Self::Wrk
        } else {
            Self::Own
        }
    }

    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wrk => "wrk, closed loop, on the same processors",
            Self::Own => "own generator, closed loop, on the same processors",
        }
    }

    /// Runs `load` against `target` for `duration`.
    ///
    /// # Errors
    /// If the generator does not run.
    pub fn run(
        self,
        load: &Load,
        target: &Target,
        connections: usize,
        duration: Duration,
        directory: &Path,
        runtime: &Runtime,
    ) -> anyhow::Result<LoadResult> {
        match (self, load) {
            (Self::Wrk, load) => wrk::run(load, target, connections, duration, directory),
            (Self::Own, Load::Create) => {
                runtime.block_on(own(target, connections, duration, Mix::CREATE))
            }
            // Its reads are of orders that it made itself.
            (Self::Own, Load::Get { .. }) => runtime.block_on(own(
                target,
                connections,
                duration,
                Mix {
                    get: 999,
                    ..Mix::CREATE
                },
            )),
        }
    }
}

/// What a load gave.
#[derive(Debug, Clone, Copy)]
pub struct LoadResult {
    /// Answers below 400.
    pub succeeded: u64,
    /// Other answers.
    pub not_ok: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// Median latency, in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the latency, in microseconds.
    pub p99_us: u64,
    /// Requests that may have been served without having been counted: on their way at the end.
    pub unknown_max: u64,
}

impl LoadResult {
    /// What this load and a later one gave together, but for the times.
    #[must_use]
    pub const fn and(&self, later: &Self) -> Self {
        Self {
            succeeded: self.succeeded + later.succeeded,
            not_ok: self.not_ok + later.not_ok,
            failed: self.failed + later.failed,
            unknown_max: self.unknown_max + later.unknown_max,
            ..*later
        }
    }

    /// How many succeed in `time`, going on like this.
    #[must_use]
    pub fn in_time(&self, time: Duration) -> u64 {
        let elapsed = self.elapsed.as_micros().max(1);
        let count = u128::from(self.succeeded) * time.as_micros() / elapsed;
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Successes a second.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures are read to three digits"
    )]
    pub fn sample(&self) -> Sample {
        let rate = Sample::rate(self.succeeded, self.elapsed);
        let latency = Latency {
            p50_us: self.p50_us as f64,
            p99_us: self.p99_us as f64,
        };
        Sample {
            latency: Some(latency),
            ..rate
        }
    }
}

async fn own(
    target: &Target,
    connections: usize,
    duration: Duration,
    mix: Mix,
) -> anyhow::Result<LoadResult> {
    let report = run(
        LoadConfig {
            connections,
            duration,
            drain: Duration::ZERO,
            mix,
            ..LoadConfig::new(target.clone())
        },
        None,
    )
    .await?;
    let sum = |count: fn(&crate::load::OperationReport) -> u64| {
        report.operations.iter().map(count).sum::<u64>()
    };
    let requests = sum(|operation| operation.requests);
    let succeeded = sum(|operation| operation.succeeded);
    let failed = sum(|operation| operation.errors.values().sum());
    let busiest = report
        .operations
        .iter()
        .max_by_key(|operation| operation.requests);
    let latency = busiest.and_then(|operation| operation.latency);
    Ok(LoadResult {
        succeeded,
        not_ok: requests - succeeded - failed,
        failed,
        elapsed: Duration::from_secs_f64(report.seconds),
        p50_us: latency.map_or(0, |latency| latency.p50_us),
        p99_us: latency.map_or(0, |latency| latency.p99_us),
        unknown_max: failed,
    })
}
