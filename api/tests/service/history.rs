//! An order's story: every event in order, and the order as it was after each.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::World;

/// An order that was placed, confirmed, paid, cancelled (which refunds): five events, the last two in one frame. With
/// the answer after each command.
async fn a_life(world: &World) -> (String, Vec<Value>) {
    let placed = world
        .post("/orders", &crate::world::an_order())
        .await
        .expect(StatusCode::CREATED);
    let id = placed.json()["id"].as_str().unwrap().to_owned();
    let mut answers = vec![placed.json()];
    for (step, body) in [
        ("confirm", json!({})),
        ("pay", json!({"amount": 3998, "reference": "p-1"})),
        ("cancel", json!({"reason": "changed my mind"})),
    ] {
        let answer = world.post(&format!("/orders/{id}/{step}"), &body).await;
        answers.push(answer.expect(StatusCode::OK).json());
    }
    (id, answers)
}

#[tokio::test]
async fn every_event_is_told_in_order_with_what_it_changed() {
    let world = World::new();
    let (id, answers) = a_life(&world).await;
    let version = answers.last().unwrap()["version"].clone();
    world
        .get(&format!("/orders/{id}?min_version={version}"))
        .await
        .expect(StatusCode::OK);
    let told = world
        .get(&format!("/orders/{id}/events"))
        .await
        .expect(StatusCode::OK)
        .json();
    assert_eq!(told["order_id"], id);
    let events = told["events"].as_array().unwrap();
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    let expected = [
        "OrderPlaced",
        "OrderConfirmed",
        "OrderPaid",
        "OrderRefunded",
        "OrderCancelled",
    ];
    assert_eq!(types, expected);
    let versions: Vec<_> = events
        .iter()
        .map(|event| event["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
    assert_eq!(
        events[2]["data"],
        json!({"amount": 3998, "reference": "p-1"})
    );
    assert_eq!(events[4]["data"], json!({"reason": "changed my mind"}));
    assert_eq!(events[0]["time"], answers[0]["placed_at"]);
}

#[tokio::test]
async fn pages_of_events_join_without_gap_or_repeat() {
    let world = World::new();
    let (id, _) = a_life(&world).await;
    world
        .get(&format!("/orders/{id}?min_version=5"))
        .await
        .expect(StatusCode::OK);
    let mut versions = Vec::new();
    let mut path = Some(format!("/orders/{id}/events?limit=2"));
    while let Some(next) = path {
        let page = world.get(&next).await.expect(StatusCode::OK);
        let events = page.json()["events"].as_array().unwrap().clone();
        versions.extend(
            events
                .iter()
                .map(|event| event["version"].as_u64().unwrap()),
        );
        path = page.next();
    }
    assert_eq!(versions, [1, 2, 3, 4, 5]);
    let none = world
        .get(&format!("/orders/{id}/events?after_version=5"))
        .await;
    assert_eq!(none.json()["events"], json!([]));
}

#[tokio::test]
async fn an_order_is_shown_as_it_was_at_every_version() {
    let world = World::new();
    let (id, answers) = a_life(&world).await;
    for answer in &answers {
        let version = answer["version"].as_u64().unwrap();
        let shown = world
            .get(&format!("/orders/{id}?at_version={version}"))
            .await;
        assert_eq!(shown.header("etag"), format!("\"{version}\""));
        assert_eq!(&shown.json(), answer);
    }
    // Between the two events of the last command: refunded, and not yet cancelled.
    let between = world
        .get(&format!("/orders/{id}?at_version=4"))
        .await
        .json();
    assert_eq!(between["refunded"], 3998);
    let beyond = world.get(&format!("/orders/{id}?at_version=6")).await;
    assert_eq!(
        beyond.expect(StatusCode::NOT_FOUND).json()["code"],
        "version-not-found"
    );
}

#[tokio::test]
async fn an_order_is_shown_as_it_was_at_a_time() {
    let world = World::new();
    let (id, answers) = a_life(&world).await;
    let now = world
        .get(&format!("/orders/{id}?as_of=2100-01-01T00:00:00Z"))
        .await;
    assert_eq!(&now.expect(StatusCode::OK).json(), answers.last().unwrap());
    let before = world
        .get(&format!("/orders/{id}?as_of=2020-01-01T00:00:00Z"))
        .await;
    assert_eq!(
        before.expect(StatusCode::NOT_FOUND).json()["code"],
        "version-not-found"
    );
}

/// Events keep microseconds, answers show milliseconds: what is shown is what a client can ask for.
#[tokio::test]
async fn the_time_that_an_event_is_shown_with_gives_the_order_with_that_event() {
    let world = World::new();
    // So many that the events of one are in different milliseconds, and hardly any at the beginning of one.
    for _ in 0..8 {
        let (id, answers) = a_life(&world).await;
        let as_of = |time: &str| format!("/orders/{id}?as_of={}", time.replace(':', "%3A"));
        let placed_at = answers[0]["placed_at"].as_str().unwrap();
        let placed = world.get(&as_of(placed_at)).await.expect(StatusCode::OK);
        assert!(placed.json()["version"].as_u64() >= Some(1));
        let events = world.get(&format!("/orders/{id}/events")).await.json();
        let events = events["events"].as_array().unwrap();
        for event in events {
            let time = event["time"].as_str().unwrap();
            let last_of_then = events.iter().rfind(|event| event["time"] == time).unwrap();
            let shown = world.get(&as_of(time)).await.expect(StatusCode::OK);
            assert_eq!(shown.json()["version"], last_of_then["version"], "{time}");
            assert_eq!(shown.json()["updated_at"], time);
        }
        // More digits are allowed, and say nothing that a client could have seen.
        let finer = placed_at.replace('Z', "000Z");
        let finer = world.get(&as_of(&finer)).await.expect(StatusCode::OK);
        assert_eq!(finer.text, placed.text);
    }
}

#[tokio::test]
async fn moments_cannot_be_mixed() {
    let world = World::new();
    let id = world.place().await;
    let mixed = world
        .get(&format!("/orders/{id}?at_version=1&min_version=1"))
        .await;
    assert_eq!(
        mixed.expect(StatusCode::BAD_REQUEST).json()["code"],
        "invalid-query"
    );
}

#[tokio::test]
async fn the_history_of_no_order_is_not_found() {
    let world = World::new();
    let nobody = "/orders/0199c82c-0000-7000-8000-000000000001";
    for path in [format!("{nobody}/events"), format!("{nobody}?at_version=1")] {
        let missing = world.get(&path).await.expect(StatusCode::NOT_FOUND);
        assert_eq!(missing.json()["code"], "order-not-found");
    }
}
