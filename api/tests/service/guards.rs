//! Tokens, required preconditions, request ids.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use order_api::{ApiConfig, BearerToken, Scope};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::world::{World, an_order, config};

fn token(text: &str, scopes: &[Scope]) -> BearerToken {
    let digest = Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    BearerToken::new(text, &digest, scopes).unwrap()
}

#[tokio::test]
async fn with_tokens_configured_a_request_needs_the_right_one() {
    let config = ApiConfig {
        tokens: vec![
            token("reads", &[Scope::Read]),
            token("operates", &[Scope::Admin]),
        ],
        ..config()
    };
    let world = World::with(config);
    let ask = |method: &str, path: &str, token: Option<&str>| {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        world.ask(request.body(Body::empty()).unwrap())
    };
    let unknown = ask("GET", "/orders", None)
        .await
        .expect(StatusCode::UNAUTHORIZED);
    assert_eq!(unknown.header("www-authenticate"), "Bearer");
    let wrong = ask("GET", "/orders", Some("nobody"))
        .await
        .expect(StatusCode::UNAUTHORIZED);
    let challenge = "Bearer error=\"invalid_token\"";
    assert_eq!(wrong.header("www-authenticate"), challenge);
    ask("GET", "/orders", Some("reads"))
        .await
        .expect(StatusCode::OK);
    let lacking = ask("POST", "/orders", Some("reads"))
        .await
        .expect(StatusCode::FORBIDDEN);
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"write\"";
    assert_eq!(lacking.header("www-authenticate"), challenge);
    ask("GET", "/projections", Some("reads"))
        .await
        .expect(StatusCode::FORBIDDEN);
    ask("GET", "/projections", Some("operates"))
        .await
        .expect(StatusCode::OK);
    ask("GET", "/livez", None).await.expect(StatusCode::OK);
    ask("GET", "/openapi.json", None)
        .await
        .expect(StatusCode::OK);
}

#[tokio::test]
async fn every_way_in_asks_for_its_own_scope() {
    let config = ApiConfig {
        tokens: vec![
            token("reads", &[Scope::Read]),
            token("writes", &[Scope::Write]),
            token("operates", &[Scope::Admin]),
        ],
        ..config()
    };
    let world = World::with(config);
    let id = "0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f";
    for (method, path, right) in [
        ("GET", format!("/orders/{id}"), "reads"),
        ("GET", format!("/orders/{id}/events"), "reads"),
        ("GET", "/events".to_owned(), "reads"),
        ("GET", "/metrics".to_owned(), "reads"),
        ("POST", "/orders".to_owned(), "writes"),
        ("POST", "/orders/bulk".to_owned(), "writes"),
        ("POST", format!("/orders/{id}/confirm"), "writes"),
        ("DELETE", format!("/orders/{id}/lines/1"), "writes"),
        ("GET", "/projections".to_owned(), "operates"),
        ("POST", "/projections/orders/pause".to_owned(), "operates"),
        ("GET", "/outbox".to_owned(), "operates"),
        ("GET", "/outbox/dead".to_owned(), "operates"),
        ("POST", "/outbox/dead/redrive".to_owned(), "operates"),
        ("POST", "/outbox/enable".to_owned(), "operates"),
        ("POST", "/outbox/restart".to_owned(), "operates"),
    ] {
        let status = async |token: Option<&str>| {
            let mut request = Request::builder().method(method).uri(&path);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            // The body of a feed has no end.
            let answer = world.send(request.body(Body::empty()).unwrap()).await;
            answer.status()
        };
        for token in [None, Some("nobody")] {
            assert_eq!(status(token).await, StatusCode::UNAUTHORIZED, "{path}");
        }
        for token in ["reads", "writes", "operates"] {
            let refused = matches!(
                status(Some(token)).await,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
            );
            assert_eq!(refused, token != right, "{token} at {method} {path}");
        }
    }
}

#[tokio::test]
async fn a_key_belongs_to_who_used_it() {
    let clerk = |text: &str, name: &str| {
        let digest = Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        BearerToken::new(name, &digest, &[Scope::Read, Scope::Write]).unwrap()
    };
    let config = ApiConfig {
        tokens: vec![
            clerk("a1", "shop a"),
            clerk("a2", "shop a"),
            clerk("b1", "shop b"),
        ],
        ..config()
    };
    let world = World::with(config);
    let place = async |token: &str, order: &serde_json::Value| {
        let request = Request::post("/orders")
            .header("content-type", "application/json")
            .header("idempotency-key", "checkout-17")
            .header("authorization", format!("Bearer {token}"));
        let request = request.body(Body::from(order.to_string())).unwrap();
        world.ask(request).await
    };
    let mut other = an_order();
    other["customer_id"] = json!("someone else");

    let of_a = place("a1", &an_order()).await.expect(StatusCode::CREATED);
    let of_b = place("b1", &other).await.expect(StatusCode::CREATED);
    assert!(!of_b.headers.contains_key("idempotency-replayed"));

    // The successor of a token is the same caller.
    let again = place("a2", &an_order()).await.expect(StatusCode::CREATED);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.text, of_a.text);
    let mistaken = place("b1", &an_order()).await;
    let mistaken = mistaken.expect(StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(mistaken.json()["code"], "idempotency-mismatch");

    // Whose it is, is nobody's business: not even an order's own history shows it.
    let path = format!("{}/events", of_a.header("location"));
    let request = Request::get(path).header("authorization", "Bearer b1");
    let events = world.ask(request.body(Body::empty()).unwrap()).await;
    assert!(!events.text.contains("checkout-17"), "{events:?}");
}

#[tokio::test]
async fn where_a_precondition_is_required_its_absence_is_told() {
    let config = ApiConfig {
        require_if_match: true,
        ..config()
    };
    let world = World::with(config);
    let id = world.place().await;
    let path = format!("/orders/{id}/confirm");
    let refused = world
        .post(&path, &json!({}))
        .await
        .expect(StatusCode::PRECONDITION_REQUIRED);
    assert_eq!(refused.json()["code"], "precondition-required");
    let request = Request::post(&path)
        .header("if-match", "*")
        .body(Body::empty())
        .unwrap();
    world.ask(request).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn who_prefers_not_to_wait_for_an_operation_is_told_that_it_need_not() {
    let world = World::new();
    for (prefer, applied) in [
        ("respond-async, wait=5", Some("respond-async")),
        ("wait=5", None),
    ] {
        let request = Request::post("/projections/sku_demand/discard-old")
            .header("prefer", prefer)
            .body(Body::empty())
            .unwrap();
        let begun = world.ask(request).await.expect(StatusCode::ACCEPTED);
        let told = begun.headers.get("preference-applied");
        assert_eq!(told.map(|value| value.to_str().unwrap()), applied);
        world.until_the_task_is_over().await;
    }
}

#[tokio::test]
async fn where_a_key_is_required_its_absence_is_told_and_changes_nothing() {
    let config = ApiConfig {
        require_idempotency_key: true,
        ..config()
    };
    let world = World::with(config);
    let ask = async |path: &str, kind: &str, key: Option<&str>| {
        let request = Request::post(path).header("content-type", kind);
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let body = Body::from(format!("{}\n", an_order()));
        world.ask(request.body(body).unwrap()).await
    };
    for (path, kind) in [
        ("/orders", "application/json"),
        ("/orders/bulk", "application/x-ndjson"),
    ] {
        let refused = ask(path, kind, None).await;
        let refused = refused.expect(StatusCode::BAD_REQUEST).json();
        assert_eq!(refused["code"], "idempotency-key-required", "{path}");
    }
    let none = world.get("/orders").await.expect(StatusCode::OK);
    assert_eq!(none.json()["orders"], json!([]));
    let placed = ask("/orders", "application/json", Some("k-1")).await;
    placed.expect(StatusCode::CREATED);
    let placed = ask("/orders/bulk", "application/x-ndjson", Some("k-2")).await;
    assert!(placed.text.contains("\"status\":201"), "{}", placed.text);
}

#[tokio::test]
async fn a_request_keeps_its_id_and_trace_through_the_log() {
    let world = World::new();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::post("/orders")
        .header("content-type", "application/json")
        .header("x-request-id", "client-7")
        .header("traceparent", trace)
        .body(Body::from(an_order().to_string()))
        .unwrap();
    let placed = world.ask(request).await.expect(StatusCode::CREATED);
    assert_eq!(placed.header("x-request-id"), "client-7");
    let path = placed.header("location");
    world.get(path).await.expect(StatusCode::OK);
    let events = world.get(&format!("{path}/events")).await.json();
    assert_eq!(events["events"][0]["request_id"], "client-7");
    assert_eq!(events["events"][0]["traceparent"], trace);
}

#[tokio::test]
async fn a_request_without_an_id_gets_one_of_its_own() {
    let world = World::new();
    let (one, two) = (world.get("/livez").await, world.get("/nowhere").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
    assert_eq!(two.json()["request_id"], two.header("x-request-id"));
}

#[tokio::test]
async fn a_compressed_body_is_refused_as_such() {
    let world = World::new();
    for (path, kind) in [
        ("/orders", "application/json"),
        ("/orders/bulk", "application/x-ndjson"),
    ] {
        let ask = |coding: &str| {
            let request = Request::post(path)
                .header("content-type", kind)
                .header("content-encoding", coding);
            world.ask(request.body(Body::from(an_order().to_string())).unwrap())
        };
        let refused = ask("gzip").await.expect(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(refused.json()["code"], "unsupported-media-type", "{path}");
        assert!(ask("identity").await.status.is_success(), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let world = World::new();
    let request = Request::delete("/orders").body(Body::empty()).unwrap();
    let refused = world
        .ask(request)
        .await
        .expect(StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(refused.json()["code"], "method-not-allowed");
    assert!(refused.header("allow").contains("POST"), "{refused:?}");
}

#[tokio::test]
async fn the_docs_page_comes_whole_out_of_the_binary() {
    let world = World::new();
    let moved = world
        .get("/docs")
        .await
        .expect(StatusCode::PERMANENT_REDIRECT);
    let page = world
        .get(moved.header("location"))
        .await
        .expect(StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(
        !page.text.contains("https://"),
        "the page loads something from elsewhere"
    );
    for file in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-initializer.js",
    ] {
        world
            .get(&format!("/docs/{file}"))
            .await
            .expect(StatusCode::OK);
    }
    let initializer = world.get("/docs/swagger-initializer.js").await;
    assert!(
        initializer.text.contains("/openapi.json"),
        "{}",
        initializer.text
    );
    world
        .get("/docs/nothing.js")
        .await
        .expect(StatusCode::NOT_FOUND);
}

/// What every operation of the document shares with others is described where it can happen, and only there.
#[tokio::test]
async fn the_document_says_which_requests_need_a_token_and_which_know_their_parameters() {
    let open = World::new();
    let guarded = World::with(ApiConfig {
        tokens: vec![token("nothing", &[Scope::Read])],
        ..config()
    });
    let document = open
        .get("/openapi.json")
        .await
        .expect(StatusCode::OK)
        .json();
    let ask = async |world: &World, method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let answer = world.ask(request.body(Body::empty()).unwrap()).await;
        let problem = serde_json::from_str::<serde_json::Value>(&answer.text);
        problem.map_or(json!(null), |problem| problem["code"].clone())
    };
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let described = |code: &str| {
                operation["responses"]
                    .to_string()
                    .contains(&format!("`{code}`"))
            };
            let path = path
                .replace("{name}", "orders")
                .replace("{id}", "0199c82c-0000-7000-8000-000000000001")
                .replace("{line_id}", "1");
            let method = method.to_uppercase();
            let unknown = ask(&open, &method, &format!("{path}?nobody_knows=1")).await;
            let refused = unknown == "invalid-query";
            assert_eq!(
                refused,
                described("invalid-query"),
                "{method} {path}: {unknown}"
            );
            let nobody = ask(&guarded, &method, &path).await;
            let refused = nobody == "unauthenticated";
            assert_eq!(
                refused,
                described("unauthenticated"),
                "{method} {path}: {nobody}"
            );
            assert_eq!(refused, described("forbidden"), "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked > 35, "{asked} operations");
}

/// RFC 9110, 13.1.1: nothing is there yet that could have the tag.
#[tokio::test]
async fn an_order_that_is_yet_to_be_placed_matches_no_version() {
    let world = World::new();
    let place = async |path: &str, condition: &str| {
        let kind = match path {
            "/orders" => "application/json",
            _ => "application/x-ndjson",
        };
        let request = Request::post(path)
            .header("content-type", kind)
            .header("if-match", condition);
        let body = Body::from(an_order().to_string());
        world.ask(request.body(body).unwrap()).await
    };
    for path in ["/orders", "/orders/bulk"] {
        for condition in ["\"1\"", "\"0\"", "W/\"1\"", "\"x\", \"y\""] {
            let refused = place(path, condition).await;
            let refused = refused.expect(StatusCode::PRECONDITION_FAILED);
            assert_eq!(refused.json()["code"], "version-mismatch", "{condition}");
            assert!(!refused.headers.contains_key("etag"));
        }
        let malformed = place(path, "1").await.expect(StatusCode::BAD_REQUEST);
        assert_eq!(malformed.json()["code"], "invalid-header", "{path}");
    }
    // What is wrong without the condition is told first.
    let mut unfit = an_order();
    unfit["metadata"] = json!({"\u{9b}": ""});
    for body in [String::new(), unfit.to_string()] {
        let request = Request::post("/orders")
            .header("content-type", "application/json")
            .header("if-match", "\"1\"");
        let refused = world.ask(request.body(Body::from(body)).unwrap()).await;
        let status = refused.status;
        assert!(
            [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY].contains(&status),
            "{status}"
        );
    }
    let none = world.get("/orders").await.expect(StatusCode::OK);
    assert_eq!(none.json()["orders"], json!([]));
    place("/orders", "*").await.expect(StatusCode::CREATED);
    let placed = place("/orders/bulk", "*").await.expect(StatusCode::OK);
    assert_eq!(placed.json()["status"], 201);
}
