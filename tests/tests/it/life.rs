//! The life of an order over HTTP: every step a client can take, what it gets back, and what the row shows afterwards.
//! The same on both stores.

use serde_json::json;

use crate::client::{Answer, Client, an_order};
use crate::service::Service;
use crate::stores::on_both_stores;

on_both_stores! {
    an_order_lives_from_placed_to_refunded,
    lines_change_only_while_placed,
    a_cancelled_order_gives_back_what_was_paid,
    an_illegal_step_is_refused_with_what_is_allowed_and_changes_nothing,
    exactly_one_of_two_writers_with_the_same_version_wins,
    a_repeated_key_gets_the_first_answer_again,
    orders_are_listed_by_what_is_asked_for,
}

fn start(store: &str) -> (tempfile::TempDir, Service, Client) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let client = Client::of(&service);
    (data, service, client)
}

/// The read model's answer must be the writer's answer, byte for byte.
async fn assert_row_shows(client: &Client, written: &Answer) {
    let read = client.order_after(written).await;
    assert_eq!(read.text, written.text);
    assert_eq!(read.header("etag"), written.header("etag"));
}

async fn an_order_lives_from_placed_to_refunded(store: &str) {
    let (_data, _service, client) = start(store);

    let placed = client.place(&an_order()).await;
    let id = placed.id();
    assert_eq!(placed.header("location"), format!("/orders/{id}"));
    assert_eq!(placed.header("etag"), "\"1\"");
    let order = placed.json();
    assert_eq!(order["status"], "placed");
    assert_eq!(order["total"], 3998);
    assert_eq!(order["customer_id"], "c-1042");
    assert_eq!(order["metadata"], json!({"channel": "web"}));
    assert_eq!(
        order["lines"],
        json!([{"line_id": 1, "sku": "SKU-1", "quantity": 2, "unit_price": 1999}])
    );
    assert_row_shows(&client, &placed).await;

    let steps = [
        ("confirm", json!({}), "confirmed"),
        ("pay", json!({"amount": 3998, "reference": "psp-7"}), "paid"),
        (
            "ship",
            json!({"carrier": "dhl", "tracking_number": "JD01"}),
            "shipped",
        ),
        ("deliver", json!({}), "delivered"),
        (
            "refund",
            json!({"amount": 1000, "reason": "scratched"}),
            "delivered",
        ),
        ("refund", json!({}), "refunded"),
    ];
    for (number, (step, body, status)) in steps.into_iter().enumerate() {
        let answer = client.step(&id, step, &body).await;
        assert_eq!(answer.json()["status"], status, "after {step}");
        assert_eq!(answer.version(), number as u64 + 2, "after {step}");
        assert_eq!(answer.header("etag"), format!("\"{}\"", number + 2));
        assert_row_shows(&client, &answer).await;
    }
    let last = client
        .get(&format!("/orders/{id}"))
        .send()
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&last["paid"], &last["refunded"]),
        (&json!(3998), &json!(3998))
    );
}

async fn lines_change_only_while_placed(store: &str) {
    let (_data, _service, client) = start(store);
    let id = client.place(&an_order()).await.id();
    let line = json!({"sku": "SKU-2", "quantity": 1, "unit_price": 2});

    let added = client.step(&id, "lines", &line).await;
    assert_eq!(added.json()["total"], 4000);
    assert_eq!(added.json()["lines"][1]["line_id"], 2);
    let remove = |line: u32| {
        client.request(
            reqwest::Method::DELETE,
            &format!("/orders/{id}/lines/{line}"),
        )
    };
    let removed = remove(1).send().await.expect(200);
    assert_eq!(removed.json()["total"], 2);
    assert_row_shows(&client, &removed).await;

    assert_eq!(
        remove(1).send().await.expect(404).problem(),
        "line-not-found"
    );
    assert_eq!(remove(2).send().await.expect(409).problem(), "last-line");
    let again = client.step(&id, "lines", &line).await;
    assert_eq!(
        again.json()["lines"][1]["line_id"],
        3,
        "a line's id is never used again"
    );

    client.step(&id, "confirm", &json!({})).await;
    let late = client
        .post(&format!("/orders/{id}/lines"))
        .json(&line)
        .send()
        .await;
    assert_eq!(late.expect(409).problem(), "invalid-transition");
    assert_eq!(
        remove(2).send().await.expect(409).problem(),
        "invalid-transition"
    );
}

async fn a_cancelled_order_gives_back_what_was_paid(store: &str) {
    let (_data, _service, client) = start(store);
    let id = client.place(&an_order()).await.id();
    client.step(&id, "confirm", &json!({})).await;
    client.step(&id, "pay", &json!({"amount": 3998})).await;
    let cancelled = client
        .step(&id, "cancel", &json!({"reason": "changed my mind"}))
        .await;
    assert_eq!(cancelled.json()["status"], "cancelled");
    assert_eq!(cancelled.json()["refunded"], 3998);
    assert_eq!(
        cancelled.version(),
        5,
        "the refund and the cancellation are two events"
    );
    assert_row_shows(&client, &cancelled).await;
}

async fn an_illegal_step_is_refused_with_what_is_allowed_and_changes_nothing(store: &str) {
    let (_data, _service, client) = start(store);
    let placed = client.place(&an_order()).await;
    let path = |step: &str| format!("/orders/{}/{step}", placed.id());
    for (step, body) in [
        ("pay", json!({"amount": 3998})),
        ("ship", json!({})),
        ("deliver", json!({})),
        ("refund", json!({})),
    ] {
        let refused = client
            .post(&path(step))
            .json(&body)
            .send()
            .await
            .expect(409);
        assert_eq!(refused.problem(), "invalid-transition", "{step}");
        assert_eq!(refused.json()["order_status"], "placed");
        let allowed = refused.json()["allowed"].clone();
        assert_eq!(
            allowed,
            json!(["add-line", "remove-line", "confirm", "cancel"]),
            "{step}"
        );
    }
    client.step(&placed.id(), "confirm", &json!({})).await;
    let short = client
        .post(&path("pay"))
        .json(&json!({"amount": 3997}))
        .send()
        .await;
    assert_eq!(short.expect(422).problem(), "payment-mismatch");
    let unchanged = client
        .get(&format!("/orders/{}?min_version=2", placed.id()))
        .send()
        .await;
    assert_eq!(unchanged.expect(200).version(), 2);
}

async fn exactly_one_of_two_writers_with_the_same_version_wins(store: &str) {
    let (_data, _service, client) = start(store);
    let id = client.place(&an_order()).await.id();
    let confirm = || {
        let request = client
            .post(&format!("/orders/{id}/confirm"))
            .header("if-match", "\"1\"");
        request.json(&json!({})).send()
    };
    let (left, right) = tokio::join!(confirm(), confirm());
    let mut statuses = [left.status.as_u16(), right.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    let loser = if left.status.is_success() {
        right
    } else {
        left
    };
    assert_eq!(loser.problem(), "version-mismatch");
    assert_eq!(loser.json()["current_version"], 2);
}

async fn a_repeated_key_gets_the_first_answer_again(store: &str) {
    let (data, service, client) = start(store);
    let send = |client: &Client, key: &str, quantity: u32| {
        let mut body = an_order();
        body["lines"][0]["quantity"] = quantity.into();
        client
            .post("/orders")
            .header("idempotency-key", key)
            .json(&body)
            .send()
    };
    let first = send(&client, "\"key-1\"", 2).await.expect(201);
    let again = send(&client, "key-1", 2).await.expect(201);
    assert_eq!(again.text, first.text);
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = send(&client, "key-1", 3).await.expect(422);
    assert_eq!(other.problem(), "idempotency-mismatch");
    let fresh = send(&client, "key-2", 2).await.expect(201);
    assert_ne!(fresh.id(), first.id());

    service.kill();
    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let after_restart = send(&client, "key-1", 2).await.expect(201);
    assert_eq!(after_restart.text, first.text, "the key lives in the log");
}

async fn orders_are_listed_by_what_is_asked_for(store: &str) {
    let (_data, _service, client) = start(store);
    let mut written = Vec::new();
    for customer in ["c-1", "c-2", "c-1"] {
        let mut body = an_order();
        body["customer_id"] = customer.into();
        written.push(client.place(&body).await);
    }
    for answer in &written {
        client.order_after(answer).await;
    }
    let listed = client
        .get("/orders?customer_id=c-1&limit=1")
        .send()
        .await
        .expect(200);
    let page = listed.json();
    let orders = page["orders"].as_array().expect("a page lists orders");
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0]["id"], written[2].id(), "the newest comes first");

    let link = listed.header("link");
    let next = link.split(['<', '>']).nth(1).expect("a link has a target");
    assert!(link.contains("rel=\"next\""), "{link}");
    let next = client.get(next).send().await.expect(200).json();
    assert_eq!(next["orders"][0]["id"], written[0].id());
}
