//! The metrics of requests. Every handle is made once and kept in a table: a request finds its own by index, without
//! hashing or allocating a label.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::StatusCode;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::route::{METHODS, MethodLabel, ROUTES, Route};

/// Bounds of the duration histogram in seconds: OpenTelemetry's for HTTP, finer below 5 ms, and the runbook's 400 ms.
const DURATION_BOUNDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0, 2.5,
    5.0, 7.5, 10.0,
];

/// Statuses the service answers with; any other is looked up by label.
const STATUSES: [u16; 24] = [
    200, 201, 202, 204, 304, 308, 400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 422, 428, 429,
    431, 500, 501, 503, 504,
];

/// Statuses whose counters exist from the start for every known route and method, beside success.
const KNOWN_FAILURES: [u16; 4] = [400, 404, 500, 503];
/// The same for commands.
const KNOWN_COMMAND_FAILURES: [u16; 6] = [409, 412, 413, 415, 422, 428];

/// Counters and histograms by route, method and status.
#[derive(Debug)]
pub(crate) struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
    request_handles: Vec<OnceLock<IntCounter>>,
    duration_handles: Vec<OnceLock<Histogram>>,
}

impl HttpMetrics {
    /// Registers the metrics, with the known labels at 0.
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("http_requests_total", "HTTP requests answered."),
            &["route", "method", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new(
                "http_server_request_duration_seconds",
                "Time from a request's head to its answer's head.",
            )
            .buckets(DURATION_BOUNDS.to_vec()),
            &["route", "method"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        let metrics = Self {
            requests,
            durations,
            request_handles: empty(ROUTES * METHODS * STATUSES.len()),
            duration_handles: empty(ROUTES * METHODS),
        };
        for (route, methods) in Route::ALL {
            for method in *methods {
                metrics.start_at_zero(*route, *method);
            }
        }
        Ok(metrics)
    }

    fn start_at_zero(&self, route: Route, method: MethodLabel) {
        self.duration(route, method);
        let command = !matches!(method, MethodLabel::Get);
        let failures = KNOWN_COMMAND_FAILURES.iter().filter(|_| command);
        for status in successes(route, method)
            .iter()
            .chain(&KNOWN_FAILURES)
            .chain(failures)
        {
            if let Some(index) = status_index(*status) {
                self.counter(route, method, index);
            }
        }
    }

    /// Counts one answered request.
    pub(crate) fn observe(
        &self,
        route: Route,
        method: MethodLabel,
        status: StatusCode,
        duration: Duration,
    ) {
        self.duration(route, method).observe(duration.as_secs_f64());
        match status_index(status.as_u16()) {
            Some(index) => self.counter(route, method, index).inc(),
            None => self
                .requests
                .with_label_values(&[route.label(), method.label(), status.as_str()])
                .inc(),
        }
    }

    fn duration(&self, route: Route, method: MethodLabel) -> &Histogram {
        let slot = route as usize * METHODS + method as usize;
        self.duration_handles[slot].get_or_init(|| {
            self.durations
                .with_label_values(&[route.label(), method.label()])
        })
    }

    fn counter(&self, route: Route, method: MethodLabel, status: usize) -> &IntCounter {
        let slot = (route as usize * METHODS + method as usize) * STATUSES.len() + status;
        self.request_handles[slot].get_or_init(|| {
            let status = STATUSES[status].to_string();
            self.requests
                .with_label_values(&[route.label(), method.label(), &status])
        })
    }
}

/// How a route answers when all is well.
fn successes(route: Route, method: MethodLabel) -> &'static [u16] {
    match (route, method) {
        (Route::Orders, MethodLabel::Post) => &[201],
        (Route::Order, _) => &[200, 304],
        (Route::Rebuild | Route::SwitchBack | Route::DiscardOld | Route::Reindex, _) => &[202],
        (Route::Docs, _) => &[308],
        _ => &[200],
    }
}

fn empty<T>(count: usize) -> Vec<OnceLock<T>> {
    std::iter::repeat_with(OnceLock::new).take(count).collect()
}

fn status_index(status: u16) -> Option<usize> {
    STATUSES.binary_search(&status).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exposed(registry: &Registry) -> String {
        prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[test]
    fn the_runbooks_series_are_there_before_the_first_request() {
        let registry = Registry::new();
        HttpMetrics::register(&registry).unwrap();
        let text = exposed(&registry);
        for line in [
            r#"http_requests_total{method="POST",route="/orders",status="201"} 0"#,
            r#"http_requests_total{method="POST",route="/orders",status="503"} 0"#,
            r#"http_server_request_duration_seconds_bucket{method="GET",route="/orders/:id",le="0.4"} 0"#,
            r#"http_server_request_duration_seconds_bucket{method="GET",route="/orders/:id",le="0.0005"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn the_bounds_are_opentelemetrys_with_finer_ones_and_the_runbooks() {
        let registry = Registry::new();
        HttpMetrics::register(&registry).unwrap();
        let text = exposed(&registry);
        let series =
            r#"http_server_request_duration_seconds_bucket{method="GET",route="/orders/:id",le=""#;
        let bounds: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix(series)?.split_once('"'))
            .map(|(bound, _)| bound)
            .collect();
        let expected = [
            "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
            "0.4", "0.5", "0.75", "1", "2.5", "5", "7.5", "10", "+Inf",
        ];
        assert_eq!(bounds, expected);
    }

    #[test]
    fn every_route_starts_with_the_successes_that_the_document_has_and_no_other() {
        let registry = Registry::new();
        HttpMetrics::register(&registry).unwrap();
        let text = exposed(&registry);
        let started = |route: Route, method: MethodLabel| -> Vec<u16> {
            let (route, method) = (route.label(), method.label());
            let series =
                format!("http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"");
            let statuses = text
                .lines()
                .filter_map(|line| line.strip_prefix(&series)?.split_once('"'));
            let statuses = statuses.map(|(status, _)| status.parse().unwrap());
            statuses.filter(|status| *status < 400).collect()
        };
        for (route, method, statuses) in crate::openapi::successes() {
            assert_eq!(started(route, method), statuses, "{}", route.label());
        }
        assert_eq!(started(Route::Docs, MethodLabel::Get), [308]);
    }

    #[test]
    fn a_request_is_counted_under_its_labels_once() {
        let registry = Registry::new();
        let metrics = HttpMetrics::register(&registry).unwrap();
        let teapot = StatusCode::IM_A_TEAPOT;
        metrics.observe(
            Route::Unmatched,
            MethodLabel::Other,
            teapot,
            Duration::from_millis(3),
        );
        metrics.observe(
            Route::Order,
            MethodLabel::Get,
            StatusCode::OK,
            Duration::from_millis(3),
        );
        let text = exposed(&registry);
        for line in [
            r#"http_requests_total{method="_OTHER",route="unmatched",status="418"} 1"#,
            r#"http_requests_total{method="GET",route="/orders/:id",status="200"} 1"#,
            r#"http_server_request_duration_seconds_bucket{method="GET",route="/orders/:id",le="0.0025"} 0"#,
            r#"http_server_request_duration_seconds_bucket{method="GET",route="/orders/:id",le="0.005"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn statuses_are_sorted_as_the_search_needs() {
        assert!(STATUSES.is_sorted());
    }
}
