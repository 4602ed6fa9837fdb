//! Reading orders: the same bytes as the command's answer, pages that miss nothing, waits that tell the truth.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use order_log::Durability;
use order_projector_workers::Projection;
use serde_json::json;

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
    let read = world
        .get(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
    assert_eq!(read.header("read-model-lag-seconds"), "0");
    let (partition, position) = read.header("read-model-position").split_once(':').unwrap();
    assert!(partition.parse::<u16>().unwrap() < 2);
    assert_eq!(position, "1");
}
