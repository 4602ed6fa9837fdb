//! The load generator is right about a service whose behaviour is known.
//!
//! Goal: figures that can be believed. Method: put load on small servers that answer, refuse, stall or are not there, and
//! compare what the generator says with what the server did. Nothing is asserted about how fast anything is: latencies
//! are only bounded from below, by stalls that were put in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::load::{
    Bounds, Ledger, LoadConfig, LoadReport, OperationReport, Ramp, Target, climb, prove_ledger, run,
};
use crate::reference::{Server, router};
use crate::sample::ORDER_ID;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::routing::{get, post};
use tokio::sync::oneshot;

/// A server for one test, on a port of its own.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(router: Router) -> Self {
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), router)
            .await
            .unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(server.serve_until(async move { stopped.await.unwrap() }));
        Self {
            address,
            stop,
            served,
        }
    }

    fn target(&self) -> Target {
        Target::parse(&format!("http://{}", self.address), false).unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

/// A short run of new orders alone, on one connection.
fn config(target: Target) -> LoadConfig {
    LoadConfig {
        duration: Duration::from_secs(3_600),
        requests_max: 100,
        drain: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        ..LoadConfig::new(target)
    }
}

fn operation<'r>(report: &'r LoadReport, name: &str) -> &'r OperationReport {
    report
        .operations
        .iter()
        .find(|operation| operation.operation == name)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_a_counted_run_is_sent_and_accounted_for() {
    let server = Running::start(router(None).unwrap()).await;
    let report = run(
        LoadConfig {
            connections: 8,
            requests_max: 1_000,
            mix: "create=1,get=1".parse().unwrap(),
            ..config(server.target())
        },
        None,
    )
    .await
    .unwrap();
    let (create, get) = (operation(&report, "create"), operation(&report, "get"));
    assert_eq!(create.succeeded + get.succeeded, 1_000);
    assert_eq!(create.statuses[&201], report.acknowledged_orders);
    assert_eq!(get.statuses[&200], get.requests);
    assert!(get.requests > 300, "{report:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_charged_to_every_request_that_had_to_wait_for_it() {
    const STALL: Duration = Duration::from_millis(300);
    let requests = Arc::new(AtomicU64::new(0));
    // Only the first answer is late. A conflict leaves nothing to learn from the answer.
    let stalling = Router::new().route(
        "/orders",
        post(move || async move {
            if requests.fetch_add(1, Ordering::Relaxed) == 0 {
                tokio::time::sleep(STALL).await;
            }
            StatusCode::CONFLICT
        }),
    );
    let server = Running::start(stalling).await;
    let report = run(
        LoadConfig {
            rate: 1_000.0,
            requests_max: 500,
            duration: Duration::from_secs(10),
            ..config(server.target())
        },
        None,
    )
    .await
    .unwrap();
    let create = operation(&report, "create");
    assert_eq!(create.statuses[&409], 500);
    // 200 of the 500 were due in the first 200 ms and so waited at least 100 ms, though only one was on the wire.
    assert!(create.latency.unwrap().p90_us >= 100_000, "{report:?}");
    assert!(report.send_delay.unwrap().p90_us >= 100_000, "{report:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_with_and_without_retry_after_are_told_apart() {
    let requests = Arc::new(AtomicU64::new(0));
    let refusing = Router::new().route(
        "/orders",
        post(move || async move {
            let with = requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let hint = if with { "retry-after" } else { "x-nothing" };
            (
                StatusCode::SERVICE_UNAVAILABLE,
                [(header::HeaderName::from_static(hint), "1")],
            )
        }),
    );
    let server = Running::start(refusing).await;
    let report = run(config(server.target()), None).await.unwrap();
    let create = operation(&report, "create");
    assert_eq!(
        (
            create.refused_with_retry_after,
            create.refused_without_retry_after
        ),
        (50, 50)
    );
    assert_eq!((create.latency, report.acknowledged_orders), (None, 0));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_never_answered_time_out_and_count() {
    let silent = Router::new().route("/orders", post(std::future::pending::<StatusCode>));
    let server = Running::start(silent).await;
    let timeout = Duration::from_millis(500);
    let report = run(
        LoadConfig {
            requests_max: 2,
            timeout,
            ..config(server.target())
        },
        None,
    )
    .await
    .unwrap();
    let create = operation(&report, "create");
    assert_eq!(create.errors["timed-out"], 2);
    assert!(create.latency.unwrap().p50_us >= 499_000, "{report:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_order_is_read_back_with_the_token_of_its_acknowledgement() {
    const VISIBLE_AFTER: Duration = Duration::from_millis(50);
    let service = Router::new()
        .route(
            "/orders",
            post(|| async {
                let headers = [("location", "/orders/7"), ("sync-token", "t-1")];
                (
                    StatusCode::CREATED,
                    headers,
                    "{\"id\":\"7\",\"version\":1,\"total\":1}",
                )
            }),
        )
        .route(
            "/orders/7",
            get(|headers: HeaderMap| async move {
                tokio::time::sleep(VISIBLE_AFTER).await;
                let waits = headers["sync-token"] == "t-1" && headers["prefer"] == "wait=5";
                if waits {
                    StatusCode::OK
                } else {
                    StatusCode::BAD_REQUEST
                }
            }),
        );
    let server = Running::start(service).await;
    let config = LoadConfig {
        requests_max: 4,
        read_back: true,
        ..config(server.target())
    };
    let report = run(config, None).await.unwrap();
    let read_back = operation(&report, "read-back");
    assert_eq!(
        (operation(&report, "create").succeeded, read_back.succeeded),
        (4, 4)
    );
    assert!(read_back.latency.unwrap().p50_us >= 50_000, "{report:?}");
    server.stop().await;
}

/// An order service of one order, which is made and cancelled again and again, with pages and bulk requests.
fn order_of_all_trades() -> Router {
    const ORDER: &str = "{\"id\":\"7\",\"version\":1,\"total\":1}";
    let bulk = |headers: HeaderMap, body: String| async move {
        assert_eq!(headers[header::CONTENT_TYPE], "application/x-ndjson");
        (0..body.lines().count())
            .map(|line| {
                // The last line of each is refused.
                if line + 1 == body.lines().count() {
                    "{\"line\":9,\"status\":422,\"problem\":{}}\n".to_owned()
                } else {
                    format!(
                        "{{\"line\":{line},\"status\":201,\"id\":\"b-{line}\",\"version\":1}}\n"
                    )
                }
            })
            .collect::<String>()
    };
    let page = |uri: Uri| async move {
        let query = uri.query().unwrap_or_default();
        if query.starts_with("customer_id=c-") && query.contains("limit=") {
            StatusCode::OK
        } else {
            StatusCode::BAD_REQUEST
        }
    };
    Router::new()
        .route(
            "/orders",
            post(|| async { (StatusCode::CREATED, ORDER) }).get(page),
        )
        .route("/orders/bulk", post(bulk))
        .route("/orders/7/cancel", post(|| async { ORDER }))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_bulk_requests_and_cancellations_are_asked_for_as_the_service_wants_them() {
    let server = Running::start(order_of_all_trades()).await;
    let report = run(
        LoadConfig {
            requests_max: 400,
            mix: "create=1,cancel=1,list=1,bulk=1".parse().unwrap(),
            bulk_lines: 5,
            ..config(server.target())
        },
        None,
    )
    .await
    .unwrap();
    for name in ["create", "cancel", "list", "bulk"] {
        let operation = operation(&report, name);
        assert!(operation.requests > 50, "{report:?}");
        assert_eq!(
            operation.succeeded, operation.requests,
            "{name}: {report:?}"
        );
    }
    let bulk = operation(&report, "bulk").requests;
    assert_eq!(report.bulk_lines_refused, bulk);
    assert_eq!(
        report.acknowledged_orders,
        operation(&report, "create").requests + 4 * bulk
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_told_over_time_and_as_a_curve() {
    let server = Running::start(router(None).unwrap()).await;
    let report = run(
        LoadConfig {
            rate: 200.0,
            connections: 8,
            requests_max: u64::MAX,
            duration: Duration::from_millis(1_500),
            ..config(server.target())
        },
        None,
    )
    .await
    .unwrap();
    let due: u64 = report.over_time.iter().map(|point| point.requests).sum();
    let create = operation(&report, "create");
    assert_eq!((report.over_time.len(), due), (2, create.requests));
    assert!(create.percentiles.is_sorted_by_key(|point| point.us));
    assert_eq!(
        create.percentiles.last().unwrap().us,
        create.latency.unwrap().max_us
    );
    server.stop().await;
}

/// A ramp over a server whose projector falls behind above a rate that is counted, not timed: the steps are all of one
/// length, so that the rate of a step is told by its requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_ramp_ends_at_the_lag_that_the_service_tells() {
    const HOLDS: u64 = 60;
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let service = Router::new()
        .route(
            "/orders",
            post(move || async move {
                counted.fetch_add(1, Ordering::Relaxed);
                (
                    StatusCode::CREATED,
                    "{\"id\":\"7\",\"version\":1,\"total\":1}",
                )
            }),
        )
        .route(
            "/metrics",
            get(move || async move {
                let behind = requests.swap(0, Ordering::Relaxed) > HOLDS;
                let lag = if behind { 9 } else { 0 };
                format!(
                    "projector_event_lag_seconds{{partition=\"0\",projection=\"orders\"}} {lag}\n"
                )
            }),
        );
    let server = Running::start(service).await;
    let config = LoadConfig {
        requests_max: u64::MAX,
        connections: 4,
        duration: Duration::from_millis(1_000),
        ..config(server.target())
    };
    let ramp = Ramp {
        from: 20.0,
        to: 10_000.0,
        factor: 50.0,
        refinements: 0,
    };
    let bounds = Bounds {
        p99_ms_max: f64::INFINITY,
        lag_seconds_max: 1.0,
    };
    let mut told = 0;
    let report = climb(&config, ramp, bounds, |_| told += 1).await.unwrap();
    assert_eq!((report.knee, report.steps.len(), told), (Some(20.0), 2, 2));
    assert_eq!(report.steps[1].lag_seconds, Some(9.0));
    assert!(
        report.steps[1]
            .objections
            .iter()
            .any(|it| it.contains("lag 9.00 s"))
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_that_is_not_an_order_ends_the_run() {
    let empty = Router::new().route("/orders", post(|| async { StatusCode::NO_CONTENT }));
    let server = Running::start(empty).await;
    let error = run(config(server.target()), None).await.unwrap_err();
    assert!(error.to_string().contains("is not an order"), "{error:#}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_against_nothing_says_so_at_once() {
    let server = Running::start(router(None).unwrap()).await;
    let target = server.target();
    server.stop().await;
    let error = run(config(target), None).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("connect to 127.0.0.1"),
        "{error:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_holds_every_acknowledgement_and_is_proven_against_the_service() {
    let server = Running::start(router(None).unwrap()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.jsonl");
    let ledger = Ledger::create(&path).unwrap();
    run(
        LoadConfig {
            connections: 4,
            ..config(server.target())
        },
        Some(ledger),
    )
    .await
    .unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);

    let mut versions = Ledger::read(&path).unwrap();
    assert_eq!(versions[ORDER_ID], 1);
    let proof = prove_ledger(&server.target(), &versions, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!((proof.orders, proof.kept), (1, 1));

    // A later version was acknowledged than the service has.
    versions.insert(ORDER_ID.to_owned(), 2);
    let proof = prove_ledger(&server.target(), &versions, Duration::ZERO)
        .await
        .unwrap();
    assert_eq!((proof.kept, proof.behind), (0, vec![ORDER_ID.to_owned()]));
    server.stop().await;
}
