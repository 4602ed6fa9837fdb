//! What operators ask for by POST, asked for again because no answer came: `docs/api.md` says of each what that does.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::world::{Answer, World};

async fn ask(world: &World, path: &str) -> Answer {
    world.post(path, &json!({})).await
}

#[tokio::test]
async fn what_operators_ask_for_may_be_asked_for_again() {
    let world = World::new();
    world.place().await;
    let paused = |answer: Answer| answer.expect(StatusCode::OK).json()["paused"].clone();
    for _ in 0..2 {
        let answer = ask(&world, "/projections/sku_demand/pause").await;
        assert_eq!(paused(answer), json!(true));
    }
    for _ in 0..2 {
        let answer = ask(&world, "/projections/sku_demand/resume").await;
        assert_eq!(paused(answer), json!(false));
    }
    let sealed = |answer: Answer| {
        let rotated = answer.expect(StatusCode::OK).json();
        let partitions = rotated["partitions"].as_array().unwrap().clone();
        partitions
            .iter()
            .filter(|partition| partition["sealed"] == Value::Bool(true))
            .count()
    };
    assert_eq!(sealed(ask(&world, "/log/rotate").await), 1);
    assert_eq!(sealed(ask(&world, "/log/rotate").await), 0);
    for _ in 0..2 {
        ask(&world, "/projections/orders/parked/redrive")
            .await
            .expect(StatusCode::OK);
    }
}

#[tokio::test]
async fn what_is_done_to_a_projections_tables_is_not_done_twice_by_mistake() {
    let world = World::new();
    world.place().await;
    let path = |action: &str| format!("/projections/sku_demand/{action}");
    let begun = async |action: &str| {
        ask(&world, &path(action))
            .await
            .expect(StatusCode::ACCEPTED);
        world.until_the_task_is_over().await;
    };
    let refused = async |action: &str| {
        let refused = ask(&world, &path(action))
            .await
            .expect(StatusCode::CONFLICT);
        assert_eq!(refused.json()["code"], "projection-busy", "{action}");
    };
    refused("switch-back").await;
    refused("cancel").await;
    for action in [
        "reindex",
        "reindex",
        "discard-old",
        "discard-old",
        "rebuild",
    ] {
        begun(action).await;
    }
    refused("rebuild").await;
    // The one that goes back and forth.
    begun("switch-back").await;
    begun("switch-back").await;
    begun("discard-old").await;
    refused("switch-back").await;
}
