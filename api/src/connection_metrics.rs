//! The metrics of connections: how many are open, how many found no place.

use prometheus::{IntCounter, IntGauge, Registry};

/// Cheap to clone: the numbers are shared.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionMetrics {
    /// Connections that have a place, of all listeners.
    pub(crate) open: IntGauge,
    /// Connections above the cap.
    pub(crate) refused: IntCounter,
}

impl ConnectionMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            open: IntGauge::new("http_connections_open", "Connections that are open.")?,
            refused: IntCounter::new(
                "http_connections_refused_total",
                "Connections that there was no place for.",
            )?,
        };
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        Ok(metrics)
    }
}
