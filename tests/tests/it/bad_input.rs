//! Whatever a client sends that it should not: the right problem, and nothing changes. What "nothing" means is read from
//! `/metrics`: the log has not grown by a record.

use std::io::{Read, Write};
use std::net::TcpStream;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::service::{PATIENCE, Service};
use crate::stores::on_both_stores;

on_both_stores! {
    every_wrong_body_is_refused_and_changes_nothing,
    every_wrong_request_is_refused_and_changes_nothing,
    bytes_that_are_not_http_are_refused_and_change_nothing,
}

const JSON: &str = "application/json";

async fn records_in_the_log(client: &Client) -> u64 {
    Metrics::of(client).await.sum("log_end_offset")
}

/// An order with one thing changed.
fn order_with(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut order = an_order();
    change(&mut order);
    order.to_string().into_bytes()
}

fn line(quantity: impl Into<Value>, unit_price: impl Into<Value>) -> Value {
    json!({"sku": "S", "quantity": quantity.into(), "unit_price": unit_price.into()})
}

async fn every_wrong_body_is_refused_and_changes_nothing(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let client = Client::of(&service);

    let too_many_lines: Vec<Value> = (0..501).map(|_| line(1, 1)).collect();
    let long = "x".repeat(65);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let bodies: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("nothing", vec![], 400, "invalid-json"),
        ("half an object", b"{\"customer_id\":\"c".to_vec(), 400, "invalid-json"),
        ("not UTF-8", b"{\"customer_id\":\"\xff\xfe\"}".to_vec(), 400, "invalid-json"),
        ("two objects", [order_with(|_| {}), b"{}".to_vec()].concat(), 400, "invalid-json"),
        ("an array", b"[]".to_vec(), 400, "invalid-request"),
        ("nesting without end", deep.into_bytes(), 400, "invalid-request"),
        ("no lines", order_with(|it| it["lines"] = json!([])), 422, "invalid-value"),
        ("too many lines", order_with(|it| it["lines"] = too_many_lines.into()), 422, "invalid-value"),
        ("a missing field", br#"{"currency":"EUR","lines":[]}"#.to_vec(), 400, "invalid-request"),
        ("an unknown field", order_with(|it| it["discount"] = json!(1)), 400, "invalid-request"),
        (
            "an unknown field of a line",
            order_with(|it| it["lines"][0]["vat"] = json!(1)),
            400,
            "invalid-request",
        ),
        (
            "a field twice",
            br#"{"customer_id":"a","customer_id":"b","currency":"EUR","lines":[]}"#.to_vec(),
            400,
            "invalid-request",
        ),
        ("a float", order_with(|it| it["lines"] = json!([line(1, 19.99)])), 400, "invalid-request"),
        ("a quantity of 0", order_with(|it| it["lines"] = json!([line(0, 1)])), 422, "invalid-value"),
        ("a negative price", order_with(|it| it["lines"] = json!([line(1, -1)])), 422, "invalid-value"),
        (
            "a price beyond 64 bits",
            br#"{"customer_id":"c","currency":"EUR","lines":[{"sku":"S","quantity":1,"unit_price":9223372036854775808}]}"#
                .to_vec(),
            400,
            "invalid-request",
        ),
        (
            "a line beyond 64 bits",
            order_with(|it| it["lines"] = json!([line(2, i64::MAX)])),
            422,
            "amount-overflow",
        ),
        (
            "a total beyond 64 bits",
            order_with(|it| it["lines"] = json!([line(1, i64::MAX), line(1, 1)])),
            422,
            "amount-overflow",
        ),
        ("no currency of this world", order_with(|it| it["currency"] = json!("EUX")), 422, "invalid-value"),
        ("an empty customer", order_with(|it| it["customer_id"] = json!("")), 422, "invalid-value"),
        ("a long customer", order_with(|it| it["customer_id"] = json!(long)), 422, "invalid-value"),
        (
            "a control character",
            order_with(|it| it["lines"][0]["sku"] = json!("a\u{7}b")),
            422,
            "invalid-value",
        ),
        (
            "a long label",
            order_with(|it| it["metadata"]["note"] = json!("x".repeat(513))),
            422,
            "invalid-value",
        ),
        ("a body over the limit", vec![b' '; 256 * 1024 + 1], 413, "body-too-large"),
    ];
    for (what, body, status, code) in bodies {
        let answer = client
            .post("/orders")
            .bytes(JSON, body)
            .send()
            .await
            .expect(status);
        assert_eq!(answer.problem(), code, "{what}: {answer:?}");
    }
    assert_eq!(records_in_the_log(&client).await, 0);
    client.place(&an_order()).await;
    assert_eq!(
        records_in_the_log(&client).await,
        1,
        "a good one still goes in"
    );
}

async fn every_wrong_request_is_refused_and_changes_nothing(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let client = Client::of(&service);
    let id = client.place(&an_order()).await.id();
    let before = records_in_the_log(&client).await;

    let order = |suffix: &str| format!("/orders/{id}{suffix}");
    let nobody = "/orders/0199c82c-0000-7000-8000-000000000000";
    let place = || client.post("/orders").json(&an_order());
    let requests = [
        (client.get(nobody), 404, "order-not-found"),
        (
            client.post(&format!("{nobody}/confirm")).json(&json!({})),
            404,
            "order-not-found",
        ),
        (client.get("/orders/7"), 404, "order-not-found"),
        (client.get("/nothing"), 404, "not-found"),
        (
            client.request(Method::PUT, &order("")),
            405,
            "method-not-allowed",
        ),
        (
            client.request(Method::DELETE, "/orders"),
            405,
            "method-not-allowed",
        ),
        (
            client.post("/orders").bytes("text/plain", "{}"),
            415,
            "unsupported-media-type",
        ),
        (
            client.post(&order("/pay")).json(&json!({"amount": "1"})),
            400,
            "invalid-request",
        ),
        (
            client.post(&order("/pay")).json(&json!({"amount": -1})),
            422,
            "invalid-value",
        ),
        (
            client.post(&order("/confirm")).json(&json!({"sure": true})),
            400,
            "invalid-request",
        ),
        (
            client
                .post(&order("/confirm"))
                .header("if-match", "\"9\"")
                .json(&json!({})),
            412,
            "version-mismatch",
        ),
        (
            client
                .post(&order("/confirm"))
                .header("if-match", "nine")
                .json(&json!({})),
            400,
            "invalid-header",
        ),
        (
            place().header("idempotency-key", "\"no end"),
            400,
            "invalid-header",
        ),
        (
            place().header("idempotency-key", &"k".repeat(256)),
            400,
            "invalid-header",
        ),
        (client.get(&order("?versoin=1")), 400, "invalid-query"),
        (client.get(&order("?min_version=x")), 400, "invalid-query"),
        (
            client.get(&order("")).header("sync-token", "made-up"),
            400,
            "invalid-sync-token",
        ),
        (client.get("/orders?limit=0"), 400, "invalid-query"),
        (client.get("/orders?limit=1001"), 400, "invalid-query"),
        (client.get("/orders?cursor=made-up"), 400, "invalid-query"),
        (client.get("/orders?status=lost"), 400, "invalid-query"),
    ];
    for (number, (request, status, code)) in requests.into_iter().enumerate() {
        let answer = request.send().await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "request {number}: {answer:?}"
        );
        assert_eq!(answer.problem(), code, "request {number}: {answer:?}");
    }
    assert_eq!(records_in_the_log(&client).await, before);
    let unchanged = client
        .get(&order("?min_version=1"))
        .send()
        .await
        .expect(200);
    assert_eq!(unchanged.version(), 1);
}

async fn bytes_that_are_not_http_are_refused_and_change_nothing(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let address = service.address();
    let raw = |bytes: Vec<u8>| {
        let mut connection = TcpStream::connect(address).expect("the service listens");
        connection
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        // The service may refuse and close before all is sent.
        let sent = connection.write_all(&bytes);
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        assert!(
            read.is_ok() || sent.is_err() || !answer.is_empty(),
            "{read:?}"
        );
        String::from_utf8_lossy(&answer).into_owned()
    };
    let refused = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"POST /orders HTTP/9.9\r\n\r\n".to_vec(),
        b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"
            .to_vec(),
        [
            b"GET /".to_vec(),
            vec![b'a'; 1 << 20],
            b" HTTP/1.1\r\n\r\n".to_vec(),
        ]
        .concat(),
    ];
    for bytes in refused {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let answer = raw(bytes);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{shown:?}: {answer}"
        );
    }
    let client = Client::of(&service);
    assert_eq!(records_in_the_log(&client).await, 0);
    client.place(&an_order()).await;
}
