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
    Ledger, LoadConfig, LoadReport, Mix, OperationReport, Target, prove_ledger, run,
};
use crate::reference::{Server, router};
use crate::sample::ORDER_ID;
use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
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
        target,
        rate: 0.0,
        connections: 1,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(3_600),
        requests_max: 100,
        drain: Duration::from_secs(60),
        timeout: Duration::from_secs(60),
        mix: Mix {
            create: 1,
            advance: 0,
            get: 0,
        },
        idempotency_keys: false,
        read_back: false,
        seed: 1,
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
