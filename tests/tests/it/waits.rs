//! Waiting for what should happen by itself: asked again and again, up to a bound, never slept for.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::metrics::Metrics;
use crate::service::PATIENCE;

/// Asks `question` until it answers, at most [`PATIENCE`].
pub(crate) async fn eventually<T>(what: &str, mut question: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until every projection and the outbox have seen the whole log.
pub(crate) async fn caught_up(client: &Client) {
    eventually("projector and outbox have caught up", async || {
        let metrics = Metrics::of(client).await;
        let behind = metrics.sum("projector_lag_events") + metrics.sum("outbox_pending");
        (behind == 0).then_some(())
    })
    .await;
}
