//! Waiting for what should happen by itself: asked again and again, up to a bound, never slept for.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::metrics::Metrics;
use crate::service::PATIENCE;

/// Asks `question` until it answers, at most [`PATIENCE`]; until then it says what it sees instead.
pub(crate) async fn eventually<T>(
    what: &str,
    mut question: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match question().await {
            Ok(answer) => return answer,
            Err(seen) => assert!(Instant::now() < deadline, "in vain: {what}; {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until every projection and the outbox have seen the whole log.
pub(crate) async fn caught_up(client: &Client) {
    eventually("projector and outbox have caught up", async || {
        let metrics = Metrics::of(client).await;
        let lag = metrics.sum("projector_lag_events");
        let pending = metrics.sum("outbox_pending");
        if lag + pending == 0 {
            return Ok(());
        }
        let readiness = client.get("/readyz?verbose").send().await.text;
        Err(format!(
            "{lag} events to apply, {pending} to tell:\n{readiness}"
        ))
    })
    .await;
}
