//! What a service says of itself in `/metrics`: as much of the Prometheus text format as a look at figures needs.

use std::time::Duration;

use anyhow::Context;
use hyper::StatusCode;
use tokio::sync::watch;

use super::{Target, fetch};

/// Age of the oldest event that a projection has not applied.
const LAG_METRIC: &str = "projector_event_lag_seconds";

/// Time between two looks at the lag while a load runs: often enough to see it grow, seldom enough not to be the load.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The whole of `/metrics`.
///
/// # Errors
/// If there is no answer, or not one that says 200.
pub async fn metrics_of(target: &Target) -> anyhow::Result<String> {
    let (status, body) = fetch(target, "/metrics").await?;
    anyhow::ensure!(status == StatusCode::OK, "/metrics answers {status}");
    String::from_utf8(body.into()).context("/metrics is not text")
}

/// Values of a metric's samples whose labels contain `label`.
pub fn samples<'m>(
    metrics: &'m str,
    name: &'m str,
    label: &'m str,
) -> impl Iterator<Item = f64> + 'm {
    metrics.lines().filter_map(move |line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?;
        let is_this = labels.is_empty() || labels.starts_with('{');
        (is_this && labels.contains(label)).then(|| value.parse().ok())?
    })
}

/// Sum of a metric's samples whose labels contain `label`; `None` if there is no such sample.
#[must_use]
pub fn sum_of(metrics: &str, name: &str, label: &str) -> Option<f64> {
    samples(metrics, name, label).fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// The longest lag of any projection and partition; `None` if the service tells none.
#[must_use]
pub fn lag_seconds(metrics: &str) -> Option<f64> {
    samples(metrics, LAG_METRIC, "").reduce(f64::max)
}

/// Looks at the lag until `stop` says so; returns the longest seen, `None` if the service tells none.
pub(super) async fn longest_lag(target: Target, mut stop: watch::Receiver<bool>) -> Option<f64> {
    let mut longest: Option<f64> = None;
    loop {
        // A service too busy to answer is looked at again; what it does to requests is in their own figures.
        if let Ok(metrics) = metrics_of(&target).await
            && let Some(lag) = lag_seconds(&metrics)
        {
            longest = Some(longest.map_or(lag, |longest| longest.max(lag)));
        }
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return longest,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP log_end_offset x\n\
                           log_end_offset{partition=\"0\"} 5\n\
                           log_end_offset{partition=\"1\"} 7\n\
                           log_end_offset_total{partition=\"1\"} 100\n\
                           projector_checkpoint_offset{partition=\"0\",projection=\"orders\"} 3\n\
                           projector_checkpoint_offset{partition=\"0\",projection=\"sku_demand\"} 4\n\
                           projector_event_lag_seconds{partition=\"0\",projection=\"orders\"} 0.25\n\
                           projector_event_lag_seconds{partition=\"1\",projection=\"orders\"} 1.5\n";

    #[test]
    fn a_metric_is_summed_over_its_partitions_and_no_other_metric() {
        assert_eq!(sum_of(METRICS, "log_end_offset", ""), Some(12.0));
        let orders = "projection=\"orders\"";
        assert_eq!(
            sum_of(METRICS, "projector_checkpoint_offset", orders),
            Some(3.0)
        );
        assert_eq!(sum_of(METRICS, "missing", ""), None);
    }

    #[test]
    fn the_lag_is_that_of_whoever_is_furthest_behind() {
        assert_eq!(lag_seconds(METRICS), Some(1.5));
        assert_eq!(lag_seconds("up 1\n"), None);
    }
}
