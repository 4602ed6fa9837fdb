//! Many orders in one request: an outcome a line, in order, whatever the lines are.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use order_api::ApiConfig;
use serde_json::{Value, json};

use crate::world::{World, an_order, config};

fn bulk(body: impl Into<Body>, key: Option<&str>) -> Request<Body> {
    let mut request = Request::post("/orders/bulk").header("content-type", "application/x-ndjson");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(body.into()).unwrap()
}

async fn outcomes(world: &World, request: Request<Body>) -> Vec<Value> {
    let answer = world.ask(request).await.expect(StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    answer
        .text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn every_line_has_its_outcome_in_its_place() {
    let world = World::new();
    let mut wrong = an_order();
    wrong["currency"] = json!("eur");
    let body = format!("{}\n\nnot json\n{}\n{}", an_order(), wrong, an_order());
    let outcomes = outcomes(&world, bulk(body, None)).await;
    let shown: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome["line"].clone(), outcome["status"].clone()))
        .collect();
    assert_eq!(
        shown,
        [(1, 201), (3, 400), (4, 422), (5, 201)].map(|(line, status)| (json!(line), json!(status)))
    );
    assert_eq!(outcomes[1]["problem"]["code"], "invalid-json");
    assert_eq!(outcomes[2]["problem"]["errors"][0]["pointer"], "/currency");
    for placed in [&outcomes[0], &outcomes[3]] {
        let id = placed["id"].as_str().unwrap();
        let read = world
            .get(&format!("/orders/{id}"))
            .await
            .expect(StatusCode::OK);
        assert_eq!(read.json()["version"], placed["version"]);
    }
}

#[tokio::test]
async fn a_lines_problem_has_the_id_that_the_answer_has() {
    let world = World::new();
    for sent in [None, Some("nightly-1")] {
        let mut request = bulk("not json\n", None);
        if let Some(id) = sent {
            let id = id.parse().unwrap();
            request.headers_mut().insert("x-request-id", id);
        }
        let answer = world.ask(request).await.expect(StatusCode::OK);
        let outcome: Value = serde_json::from_str(answer.text.trim()).unwrap();
        let told = answer.header("x-request-id");
        assert_eq!(outcome["problem"]["request_id"], *told);
        assert_eq!(sent.unwrap_or(told), told);
    }
}

#[tokio::test]
async fn more_lines_than_may_be_in_flight_are_all_placed() {
    let config = ApiConfig {
        bulk_lines_max: 7,
        ..config()
    };
    let world = World::with(config);
    let body = format!("{}\n", an_order()).repeat(500);
    let outcomes = outcomes(&world, bulk(body, None)).await;
    assert_eq!(outcomes.len(), 500);
    for (index, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome["line"], index + 1);
        assert_eq!(outcome["status"], 201);
    }
}

#[tokio::test]
async fn a_request_sent_again_with_its_key_places_nothing_twice() {
    let world = World::new();
    let body = format!("{}\n{}\n", an_order(), an_order());
    let first = outcomes(&world, bulk(body.clone(), Some("nightly"))).await;
    let again = outcomes(&world, bulk(body, Some("nightly"))).await;
    for (first, again) in first.iter().zip(&again) {
        assert_eq!(first["id"], again["id"]);
        assert_eq!(
            (&first["replayed"], &again["replayed"]),
            (&json!(false), &json!(true))
        );
    }
    assert_ne!(first[0]["id"], first[1]["id"]);
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let world = World::new();
    let request = Request::post("/orders/bulk").header("content-type", "application/json");
    let refused = world.ask(request.body(Body::from("{}")).unwrap()).await;
    assert_eq!(
        refused.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE).json()["code"],
        "unsupported-media-type"
    );
}
