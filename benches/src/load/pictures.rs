//! Pictures of a run and of a ramp.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{LoadReport, OperationReport, RampReport, SeriesPoint};
use crate::plot::{Curve, Scale, Words, curves};

/// A curve of percentiles runs over how many requests there are to one that is slower: 1 is the fastest, 1,000 is p99.9.
const TAIL_MAX: f64 = 100_000.0;

#[expect(clippy::cast_precision_loss, reason = "a picture shows three digits")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1_000.0
}

/// One quantile of a run's intervals, where anything was due.
#[must_use]
pub fn over_time(name: &str, points: &[SeriesPoint], quantile: fn(&SeriesPoint) -> u64) -> Curve {
    Curve {
        name: name.to_owned(),
        points: points
            .iter()
            .filter(|point| point.requests > 0)
            .map(|point| (point.from_seconds, milliseconds(quantile(point))))
            .collect(),
    }
}

/// The distribution of an operation's latency: one in how many requests was slower, and how slow that is.
#[must_use]
pub fn percentile_curve(name: &str, operation: &OperationReport) -> Curve {
    Curve {
        name: name.to_owned(),
        points: operation
            .percentiles
            .iter()
            .map(|point| {
                (
                    (1.0 / (1.0 - point.part)).min(TAIL_MAX),
                    milliseconds(point.us).max(0.001),
                )
            })
            .collect(),
    }
}

/// Latency and lag of a ramp's steps, by rate.
#[must_use]
pub fn ramp_curves(name: &str, ramp: &RampReport) -> [Curve; 2] {
    let mut steps: Vec<_> = ramp.steps.iter().collect();
    steps.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let curve = |what: &str, value: fn(&super::Step) -> Option<f64>| Curve {
        name: format!("{name}{what}"),
        points: steps
            .iter()
            .filter_map(|step| Some((step.rate, value(step)?.max(0.1))))
            .collect(),
    };
    [
        curve("p99", |step| Some(step.p99_ms)),
        curve("projector lag", |step| {
            step.lag_seconds.map(|lag| lag * 1_000.0)
        }),
    ]
}

/// Draws a run's latency over time and its percentile curves into `directory`; returns the files.
///
/// # Errors
/// If nothing was answered, or a file cannot be written.
pub fn draw_run(report: &LoadReport, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let [time, percentiles] =
        ["latency-over-time.svg", "percentiles.svg"].map(|name| directory.join(name));
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut lines = vec![
        over_time("p50", &report.over_time, |point| point.p50_us),
        over_time("p99", &report.over_time, |point| point.p99_us),
        over_time("max", &report.over_time, |point| point.max_us),
    ];
    if !report.visible_over_time.is_empty() {
        lines.push(over_time(
            "acknowledged to visible, p99",
            &report.visible_over_time,
            |point| point.p99_us,
        ));
    }
    let title = if report.rate > 0.0 {
        format!(
            "{:.0} requests a second due: latency over time",
            report.rate
        )
    } else {
        "Closed loop: latency over time".to_owned()
    };
    curves(
        &time,
        Words {
            title: &title,
            across: "seconds of the measured time in which requests were due",
            up: "ms",
        },
        Scale::Even,
        Scale::Even,
        &lines,
    )?;
    let lines: Vec<Curve> = report
        .operations
        .iter()
        .map(|operation| percentile_curve(&operation.operation, operation))
        .filter(|curve| !curve.points.is_empty())
        .collect();
    curves(
        &percentiles,
        Words {
            title: "Latency by percentile",
            across: "one request in so many is slower (100 is p99, 1k is p99.9)",
            up: "ms",
        },
        Scale::Logarithmic,
        Scale::Logarithmic,
        &lines,
    )?;
    Ok(vec![time, percentiles])
}

/// Draws a ramp's latency and lag by rate into `directory`; returns the file.
///
/// # Errors
/// If the file cannot be written.
pub fn draw_ramp(ramp: &RampReport, directory: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let path = directory.join("ramp.svg");
    curves(
        &path,
        Words {
            title: &ramp.verdict(),
            across: "requests a second due",
            up: "ms",
        },
        Scale::Even,
        Scale::Logarithmic,
        &ramp_curves("", ramp),
    )?;
    Ok(path)
}
