//! Starting an outbox, waiting for it, reading its metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_outbox::{Outbox, OutboxConfig, SinkKind};
use prometheus::{Encoder, Registry, TextEncoder};

use crate::orders::OrderLog;

/// Longest wait for something that must happen; a passing test never waits this long.
const AT_MOST: Duration = Duration::from_secs(60);

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + AT_MOST;
    while !holds() {
        assert!(Instant::now() < deadline, "not in {AT_MOST:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn start(log: &OrderLog, config: OutboxConfig) -> (Arc<Outbox>, Registry) {
    let registry = Registry::new();
    (
        Outbox::start(&log.log, config, log.data(), &registry).unwrap(),
        registry,
    )
}

pub(crate) fn start_sink(log: &OrderLog, sink: SinkKind) -> (Arc<Outbox>, Registry) {
    let config = OutboxConfig {
        sink,
        ..OutboxConfig::default()
    };
    start(log, config)
}

/// The value of a series, as scraped.
pub(crate) fn value(registry: &Registry, series: &str) -> f64 {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .unwrap();
    let text = String::from_utf8(text).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}"))
        .parse()
        .unwrap()
}

/// What a consumer that may get events twice must be able to rely on: of every order, no version before the one below it.
#[derive(Debug, Default)]
pub(crate) struct Consumer {
    latest: HashMap<String, u64>,
}

impl Consumer {
    pub(crate) fn take(&mut self, order: &str, version: u64) {
        let latest = self.latest.entry(order.to_owned()).or_default();
        assert!(
            version <= *latest + 1,
            "version {version} of {order} came after version {latest}"
        );
        *latest = version.max(*latest);
    }

    /// Asserts that it was told of this many orders, each up to this version.
    pub(crate) fn assert_complete(&self, orders: usize, version: u64) {
        assert_eq!(self.latest.len(), orders);
        for (order, latest) in &self.latest {
            assert_eq!(*latest, version, "{order} is not told in full");
        }
    }
}
