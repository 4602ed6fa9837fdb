//! Reading orders: the same bytes as the command's answer, pages that miss nothing, waits that tell the truth.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use order_api::ApiConfig;
use order_log::Durability;
use order_projector_workers::Projection;
use serde_json::json;

use crate::raw::exchange;
use crate::world::{World, an_order, config};

#[tokio::test]
async fn a_read_shows_the_bytes_of_the_commands_answer() {
    let world = World::new();
    let mut order = an_order();
    order["customer_id"] = json!("c \"quoted\" / é");
    order["metadata"] = json!({"b": "2\n", "a": "1", "é": "\u{1F600}"});
    order["lines"] = json!([
        {"sku": "one \\ two", "quantity": 1, "unit_price": 0},
        {"sku": "é", "quantity": 1_000_000, "unit_price": 9_000_000_000_i64}
    ]);
    let placed = world
        .post("/orders", &order)
        .await
        .expect(StatusCode::CREATED);
    let path = placed.header("location").to_owned();
    assert_eq!(world.get(&path).await.text, placed.text);
    for (step, body) in [
        ("confirm", json!({})),
        ("pay", json!({"amount": placed.json()["total"]})),
        ("refund", json!({"amount": 1})),
    ] {
        let answer = world
            .post(&format!("{path}/{step}"), &body)
            .await
            .expect(StatusCode::OK);
        let version = answer.json()["version"].clone();
        let read = world.get(&format!("{path}?min_version={version}")).await;
        assert_eq!(read.text, answer.text);
        assert_eq!(read.header("etag"), answer.header("etag"));
    }
}

#[tokio::test]
async fn pages_show_every_order_once_newest_first() {
    let world = World::new();
    let mut placed = Vec::new();
    for _ in 0..7 {
        placed.push(world.place().await);
    }
    let last = placed.last().unwrap();
    world
        .get(&format!("/orders/{last}"))
        .await
        .expect(StatusCode::OK);
    placed.reverse();
    let mut seen = Vec::new();
    let mut path = Some("/orders?limit=3&customer_id=c-1042".to_owned());
    while let Some(next) = path {
        let page = world.get(&next).await.expect(StatusCode::OK);
        let json = page.json();
        seen.extend(
            json["orders"]
                .as_array()
                .unwrap()
                .iter()
                .map(|order| order["id"].as_str().unwrap().to_owned()),
        );
        path = page.next();
        assert_eq!(path.is_some(), json["next_cursor"].is_string());
    }
    assert_eq!(seen, placed);
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let world = World::new();
    world.place().await;
    let last = world.place().await;
    world
        .get(&format!("/orders/{last}"))
        .await
        .expect(StatusCode::OK);
    let page = world.get("/orders?limit=1").await;
    let cursor = page.json()["next_cursor"].as_str().unwrap().to_owned();
    world
        .get(&format!("/orders?limit=2&cursor={cursor}"))
        .await
        .expect(StatusCode::OK);
    let refused = world
        .get(&format!("/orders?status=placed&cursor={cursor}"))
        .await;
    assert_eq!(
        refused.expect(StatusCode::BAD_REQUEST).json()["code"],
        "invalid-query"
    );
}

#[tokio::test]
async fn an_order_that_was_acknowledged_is_never_missed() {
    let world = World::new();
    for _ in 0..50 {
        let placed = world
            .post("/orders", &an_order())
            .await
            .expect(StatusCode::CREATED);
        let read = world
            .get(placed.header("location"))
            .await
            .expect(StatusCode::OK);
        assert_eq!(read.text, placed.text);
    }
}

#[tokio::test]
async fn an_order_acknowledged_before_its_sync_is_never_missed() {
    for durability in [
        Durability::Interval(Duration::from_millis(20)),
        Durability::Os,
    ] {
        let world = World::lasting(config(), durability);
        for _ in 0..10 {
            let placed = world
                .post("/orders", &an_order())
                .await
                .expect(StatusCode::CREATED);
            let path = placed.header("location");
            let read = world.get(path).await.expect(StatusCode::OK);
            assert_eq!(read.text, placed.text, "{durability}");
        }
    }
}

#[tokio::test]
async fn what_is_acknowledged_and_not_synced_is_behind_and_not_absent() {
    // The sync comes when the world ends.
    let world = World::lasting(config(), Durability::Interval(Duration::from_secs(60)));
    let placed = world
        .post("/orders", &an_order())
        .await
        .expect(StatusCode::CREATED);
    let path = placed.header("location");
    for path in [
        path.to_owned(),
        format!("{path}/events"),
        format!("{path}?at_version=1"),
        format!("{path}?as_of=2999-01-01T00:00:00Z"),
    ] {
        let request = Request::get(&path).header("prefer", "wait=0");
        let behind = world.ask(request.body(Body::empty()).unwrap()).await;
        let behind = behind.expect(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(behind.json()["code"], "read-model-behind", "{path}");
    }
}

#[tokio::test]
async fn a_wait_for_a_version_that_does_not_come_ends_as_behind() {
    let world = World::new();
    let id = world.place().await;
    let request = Request::get(format!("/orders/{id}?min_version=2")).header("prefer", "wait=1");
    let behind = world.ask(request.body(Body::empty()).unwrap()).await;
    let behind = behind.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(behind.json()["code"], "read-model-behind");
    assert!(behind.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn while_the_read_model_stands_still_a_missing_order_is_no_404() {
    let world = World::new();
    world.projector.pause(Projection::Orders).unwrap();
    let placed = world
        .post("/orders", &an_order())
        .await
        .expect(StatusCode::CREATED);
    let read = |wait: &str, token: Option<&str>| {
        let mut request = Request::get(placed.header("location")).header("prefer", wait);
        if let Some(token) = token {
            request = request.header("sync-token", token);
        }
        world.ask(request.body(Body::empty()).unwrap())
    };
    for token in [None, Some(placed.header("sync-token"))] {
        let behind = read("wait=0", token)
            .await
            .expect(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(behind.json()["code"], "read-model-behind");
        assert!(behind.headers.contains_key("retry-after"));
    }
    world.projector.resume(Projection::Orders).unwrap();
    let token = placed.header("sync-token");
    let shown = read("wait=20", Some(token)).await.expect(StatusCode::OK);
    assert_eq!(shown.header("preference-applied"), "wait=20");
    assert_eq!(shown.text, placed.text);
}

#[tokio::test]
async fn a_version_that_does_not_exist_is_the_clients_mistake() {
    let world = World::new();
    let id = world.place().await;
    let refused = world.get(&format!("/orders/{id}?min_version=2")).await;
    assert_eq!(
        refused.expect(StatusCode::PRECONDITION_FAILED).json()["code"],
        "version-not-reached"
    );
}

#[tokio::test]
async fn who_waits_for_a_version_is_shown_it_when_it_comes() {
    let world = World::new();
    let id = world.place().await;
    let path = format!("/orders/{id}?min_version=2");
    let waiting = Request::get(path)
        .header("prefer", "wait=20")
        .body(Body::empty())
        .unwrap();
    let confirm = format!("/orders/{id}/confirm");
    let body = json!({});
    let (shown, _) = tokio::join!(world.ask(waiting), world.post(&confirm, &body));
    assert_eq!(shown.expect(StatusCode::OK).json()["status"], "confirmed");
}

#[tokio::test]
async fn a_known_version_is_not_sent_again() {
    let world = World::new();
    let id = world.place().await;
    let request = |tag: &str| {
        let request = Request::get(format!("/orders/{id}")).header("if-none-match", tag);
        request.body(Body::empty()).unwrap()
    };
    let unchanged = world
        .ask(request("\"1\""))
        .await
        .expect(StatusCode::NOT_MODIFIED);
    assert_eq!(unchanged.text, "");
    assert_eq!(unchanged.header("etag"), "\"1\"");
    world.ask(request("\"2\"")).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn every_read_says_how_fresh_it_is() {
    let world = World::new();
    let id = world.place().await;
    let order = format!("/orders/{id}");
    world
        .post(&format!("{order}/confirm"), &json!({}))
        .await
        .expect(StatusCode::OK);
    world
        .get(&format!("{order}?min_version=2"))
        .await
        .expect(StatusCode::OK);
    for (path, tag, status) in [
        (order.clone(), None, StatusCode::OK),
        (order.clone(), Some("\"2\""), StatusCode::NOT_MODIFIED),
        (format!("{order}?at_version=1"), None, StatusCode::OK),
        (
            format!("{order}?at_version=1"),
            Some("\"1\""),
            StatusCode::NOT_MODIFIED,
        ),
        (
            format!("{order}?as_of=2100-01-01T00:00:00Z"),
            None,
            StatusCode::OK,
        ),
        (format!("{order}/events"), None, StatusCode::OK),
    ] {
        let mut request = Request::get(&path).header("prefer", "wait=7");
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        let read = world.ask(request.body(Body::empty()).unwrap()).await;
        let read = read.expect(status);
        assert_eq!(read.header("read-model-lag-seconds"), "0", "{path}");
        let (partition, position) = read.header("read-model-position").split_once(':').unwrap();
        assert!(partition.parse::<u16>().unwrap() < 2, "{path}");
        assert_eq!(position, "2", "{path}");
        assert_eq!(read.header("preference-applied"), "wait=7", "{path}");
        if !path.ends_with("/events") {
            let version = if path.contains("at_version") { 1 } else { 2 };
            assert_eq!(read.header("etag"), format!("\"{version}\""), "{path}");
        }
    }
    let list = world.get("/orders").await.expect(StatusCode::OK);
    assert_eq!(list.header("read-model-lag-seconds"), "0");
}

#[tokio::test]
async fn a_read_that_waited_in_vain_says_how_far_the_rows_are() {
    let world = World::new();
    let id = world.place().await;
    let order = format!("/orders/{id}");
    world.get(&order).await.expect(StatusCode::OK);
    world.projector.pause(Projection::Orders).unwrap();
    let written = world.post(&format!("{order}/confirm"), &json!({})).await;
    let token = written.header("sync-token");
    let behind = async |path: &str| {
        let mut request = Request::get(path).header("prefer", "wait=0");
        if !path.contains('?') {
            request = request.header("sync-token", token);
        }
        let behind = world.ask(request.body(Body::empty()).unwrap()).await;
        let behind = behind.expect(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(behind.json()["code"], "read-model-behind", "{path}");
        assert_eq!(behind.header("preference-applied"), "wait=0");
        let (_, position) = behind
            .header("read-model-position")
            .split_once(':')
            .unwrap();
        assert_eq!(position, "1", "{path}");
        if path.ends_with("min_version=2") {
            assert_eq!(behind.json()["known_version"], 1);
        }
        behind
    };
    // Nobody has looked yet how old it is that the rows do not have, and who comes too late does not.
    for path in [&order, "/orders"] {
        let unknown = behind(path).await;
        assert!(
            !unknown.headers.contains_key("read-model-lag-seconds"),
            "{path}"
        );
    }
    world.get(&order).await.expect(StatusCode::OK);
    for path in [
        order.clone(),
        format!("{order}?min_version=2"),
        format!("{order}/events"),
        format!("{order}?as_of=2100-01-01T00:00:00Z"),
        "/orders".to_owned(),
    ] {
        let known = behind(&path).await;
        let lag = known.header("read-model-lag-seconds");
        assert!(lag.parse::<f64>().is_ok(), "{path}: {lag}");
    }
}

/// A wait as long as a request may take would end as `timeout`, which does not say what is wrong.
#[tokio::test]
async fn no_wait_outlasts_the_time_that_a_request_may_take() {
    let config = ApiConfig {
        request_timeout: Duration::from_secs(6),
        read_patience: Duration::from_secs(60),
        prefer_wait_max: Duration::from_secs(60),
        ..config()
    };
    let world = World::with(config);
    let id = world.place().await;
    world.projector.pause(Projection::Orders).unwrap();
    let written = world
        .post(&format!("/orders/{id}/confirm"), &json!({}))
        .await;
    let token = written.header("sync-token");
    let served = world.serve().await;
    let ask = async |prefer: &str| {
        let request = format!(
            "GET /orders/{id} HTTP/1.1\r\nhost: it\r\nconnection: close\r\nsync-token: {token}\r\n{prefer}\r\n"
        );
        exchange(&served, request.as_bytes()).await
    };
    // Whether the client prefers more than there is, more than a number of 32 bits, or nothing.
    let (preferred, endless, patient) = tokio::join!(
        ask("prefer: wait=60\r\n"),
        ask("prefer: wait=99999999999\r\n"),
        ask("")
    );
    for answer in [&preferred, &endless, &patient] {
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("\"read-model-behind\""), "{answer}");
    }
    for answer in [&preferred, &endless] {
        assert!(
            answer.contains("preference-applied: wait=5\r\n"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn caches_ask_for_orders_again_and_keep_nothing_else() {
    let world = World::new();
    let id = world.place().await;
    let order = format!("/orders/{id}");
    world.get(&order).await.expect(StatusCode::OK);
    let (asked, kept_nowhere) = ("private, no-cache", "no-store");
    for (path, expected) in [
        (order.clone(), asked),
        (format!("{order}?at_version=1"), asked),
        ("/orders".to_owned(), asked),
        (format!("{order}/events"), kept_nowhere),
        (format!("{order}?at_version=9"), kept_nowhere),
        ("/orders/none".to_owned(), kept_nowhere),
        ("/orders?limit=0".to_owned(), kept_nowhere),
        ("/projections".to_owned(), kept_nowhere),
        ("/projections/orders/parked".to_owned(), kept_nowhere),
        ("/outbox".to_owned(), kept_nowhere),
        ("/readyz".to_owned(), kept_nowhere),
        ("/metrics".to_owned(), kept_nowhere),
        ("/nowhere".to_owned(), kept_nowhere),
        ("/docs/nothing.html".to_owned(), kept_nowhere),
        ("/docs/index.html".to_owned(), "public, max-age=3600"),
    ] {
        let answer = world.get(&path).await;
        assert_eq!(answer.header("cache-control"), expected, "{path}");
    }
    let refused = world.post("/orders", &json!({})).await;
    assert_eq!(refused.header("cache-control"), kept_nowhere);
}

#[tokio::test]
async fn how_long_a_key_is_remembered_is_published() {
    let world = World::with(ApiConfig {
        idempotency_retention: Duration::from_secs(7200),
        ..config()
    });
    let ready = world.get("/readyz?verbose").await.expect(StatusCode::OK);
    let published = "[i]idempotency_retention_seconds 7200\n";
    assert!(ready.text.contains(published), "{}", ready.text);
}
