//! Methods: `HEAD` is `GET` without a body, what a path does not have is refused with what it has, and a method that
//! nobody knows is counted under one label.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use order_api::ApiConfig;

use crate::raw::exchange;
use crate::world::{Answer, World, config};

async fn ask(world: &World, method: &str, path: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    world.ask(request.body(Body::empty()).unwrap()).await
}

/// Status line and headers, but for those that differ between two requests; and the body.
fn parts(answer: &str) -> (BTreeSet<&str>, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let own = ["date: ", "x-request-id: "];
    let lines = head
        .split("\r\n")
        .filter(|line| !own.iter().any(|name| line.starts_with(name)));
    (lines.collect(), body)
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let world = World::new();
    let id = world.place().await;
    world
        .get(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
    let served = world.serve().await;
    for path in [
        format!("/orders/{id}"),
        format!("/orders/{id}?at_version=1"),
        format!("/orders/{id}?at_version=9"),
        format!("/orders/{id}?colour=red"),
        format!("/orders/{id}/events"),
        "/orders/0199c82c-0000-7000-8000-000000000001".to_owned(),
        "/orders".to_owned(),
        "/outbox".to_owned(),
        "/livez".to_owned(),
        "/openapi.json".to_owned(),
        "/docs".to_owned(),
        "/nowhere".to_owned(),
    ] {
        let ask = |method: &str| {
            format!("{method} {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n")
        };
        let get = exchange(&served, ask("GET").as_bytes()).await;
        let head = exchange(&served, ask("HEAD").as_bytes()).await;
        let ((get, whole), (head, none)) = (parts(&get), parts(&head));
        assert_eq!(head, get, "{path}");
        assert_eq!(none, "", "{path}");
        let length = format!("content-length: {}", whole.len());
        assert!(head.contains(length.as_str()), "{path}: {head:?}");
    }
}

/// A feed is no answer that ends.
#[tokio::test]
async fn head_shows_the_head_of_a_feed_and_leaves_none_open() {
    let world = World::with(ApiConfig {
        feeds_max: 1,
        ..config()
    });
    let served = world.serve().await;
    // The second would be one too many if the first were still open.
    for _ in 0..2 {
        let head = exchange(
            &served,
            b"HEAD /events HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n",
        );
        let head = head.await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.contains("content-type: text/event-stream\r\n"),
            "{head}"
        );
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
    for _ in 0..2 {
        let head = ask(&world, "HEAD", "/events").await.expect(StatusCode::OK);
        assert_eq!(head.text, "");
    }
    let request = Request::get("/events").body(Body::empty()).unwrap();
    let feed = world.send(request).await;
    assert_eq!(feed.status(), StatusCode::OK);
    let refused = ask(&world, "HEAD", "/events").await;
    refused.expect(StatusCode::SERVICE_UNAVAILABLE);
    drop(feed);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_told_those_it_has() {
    let world = World::new();
    let order = "/orders/0199c82c-0000-7000-8000-000000000001";
    for (path, allowed) in [
        ("/orders", "GET,HEAD,POST"),
        (order, "GET,HEAD"),
        (&format!("{order}/confirm"), "POST"),
        (&format!("{order}/lines"), "POST"),
        (&format!("{order}/lines/1"), "DELETE"),
        (&format!("{order}/events"), "GET,HEAD"),
        ("/orders/bulk", "POST"),
        ("/events", "GET,HEAD"),
        ("/projections", "GET,HEAD"),
        ("/projections/orders/pause", "POST"),
        ("/outbox/dead/redrive", "POST"),
        ("/log/rotate", "POST"),
        ("/livez", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
        ("/openapi.json", "GET,HEAD"),
    ] {
        for method in ["OPTIONS", "PUT", "PATCH", "TRACE", "BREW"] {
            let refused = ask(&world, method, path).await;
            let refused = refused.expect(StatusCode::METHOD_NOT_ALLOWED);
            assert_eq!(refused.json()["code"], "method-not-allowed");
            let told: BTreeSet<_> = refused.header("allow").split(',').map(str::trim).collect();
            let expected: BTreeSet<_> = allowed.split(',').collect();
            assert_eq!(told, expected, "{method} {path}");
        }
    }
    // The method is what is wrong, whatever the query says.
    ask(&world, "PUT", "/orders?dry_run=true")
        .await
        .expect(StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_method_that_nobody_knows_is_counted_under_one_label() {
    let world = World::new();
    for method in ["BREW", "PROPFIND", "brew"] {
        ask(&world, method, "/orders").await;
    }
    let metrics = world.get("/metrics").await.expect(StatusCode::OK);
    let counted = r#"http_requests_total{method="_OTHER",route="/orders",status="405"} 3"#;
    assert!(metrics.text.contains(counted), "{}", metrics.text);
    let timed = r#"http_server_request_duration_seconds_count{method="_OTHER",route="/orders"} 3"#;
    assert!(metrics.text.contains(timed), "{}", metrics.text);
    assert!(!metrics.text.contains("BREW"), "{}", metrics.text);
}

#[tokio::test]
async fn a_parameter_where_none_is_taken_is_refused_and_nothing_is_done() {
    let world = World::new();
    let id = world.place().await;
    let order = format!("/orders/{id}");
    for (method, path) in [
        ("POST", "/orders?dry_run=true".to_owned()),
        ("POST", "/orders/bulk?dry_run=true".to_owned()),
        ("POST", format!("{order}/confirm?force")),
        ("POST", format!("{order}/cancel?force=1")),
        ("DELETE", format!("{order}/lines/1?force=1")),
        (
            "POST",
            "/projections/sku_demand/pause?partition=1".to_owned(),
        ),
        ("POST", "/outbox/dead/redrive?limit=1".to_owned()),
        ("GET", "/projections?name=orders".to_owned()),
        ("GET", "/outbox?verbose".to_owned()),
        ("HEAD", "/outbox?verbose".to_owned()),
        ("GET", format!("{order}?colour=red")),
        ("GET", format!("{order}/events?colour=red")),
        ("GET", "/orders?colour=red".to_owned()),
        ("GET", "/orders?customer_id=%ff".to_owned()),
        ("GET", "/events?colour=red".to_owned()),
        ("GET", "/projections/orders/parked?colour=red".to_owned()),
    ] {
        let refused = ask(&world, method, &path).await;
        let refused = refused.expect(StatusCode::BAD_REQUEST);
        assert_eq!(refused.json()["code"], "invalid-query", "{path}");
    }
    let unchanged = world.get(&order).await.expect(StatusCode::OK);
    assert_eq!(unchanged.header("etag"), "\"1\"");
    let placed = world.get("/orders").await.expect(StatusCode::OK).json();
    assert_eq!(placed["orders"].as_array().unwrap().len(), 1);
    // Probes, scrapers and browsers add their own.
    for path in [
        "/livez?probe=1",
        "/readyz?verbose&x=1",
        "/metrics?x=1",
        "/docs?x=1",
    ] {
        let answer = world.get(path).await;
        assert!(!answer.status.is_client_error(), "{path}: {answer:?}");
    }
}
