//! Producers that append one thing, wait until it is done, and append the next: the loop around every group commit.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::measure::{Sample, latencies, nanos};

/// Appends one thing at a time.
pub trait Producer: Send + 'static {
    /// Appends one thing; done when it is as durable as promised.
    fn append(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Runs before the clock does, so that queues, caches and the scheduler are as they will be.
const WARM_UP: Duration = Duration::from_millis(200);

/// Each producer in a task of its own, for `duration`; counts appends, times each to its end.
///
/// # Errors
/// The first error of a producer.
pub fn measure_waiting<P: Producer>(
    producers: impl IntoIterator<Item = P>,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .context("start the runtime")?;
    let start = Instant::now() + WARM_UP;
    let end = start + duration;
    let tasks: Vec<_> = producers
        .into_iter()
        .map(|mut producer| {
            runtime.spawn(async move {
                let mut latency = latencies();
                let mut before = Instant::now();
                while before < end {
                    producer.append().await?;
                    let after = Instant::now();
                    if after >= start && after < end {
                        latency.saturating_record(nanos(after - before));
                    }
                    before = after;
                }
                anyhow::Ok(latency)
            })
        })
        .collect();
    let mut all = latencies();
    for task in tasks {
        all += runtime.block_on(task).context("a producer panicked")??;
    }
    Ok(Sample::with_latency(all.len(), duration, &all))
}
