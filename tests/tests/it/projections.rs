//! Projections as an operator runs them: what is parked is told and redriven.
//!
//! A parked order is made by hand, while the service is down: a row in `ParkedEvent` is what is left of an event that an
//! earlier version could not apply.

use std::path::Path;

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::service::Service;
use crate::waits::caught_up;

/// Sets an order aside in a stopped service, as if the event at the end of its partition had not been applicable: the
/// next one waits behind it.
fn park(data: &Path, order: &str) {
    let read_model = Connection::open(data.join("read.db")).expect("the read model opens");
    let (partition, last_frame): (i64, i64) = read_model
        .query_row(
            "SELECT partition, last_frame FROM OrderView WHERE order_id = ?1",
            [order],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .expect("the order has a row");
    for table in ["OrderView", "ParkedEvent"] {
        let changed = match table {
            "OrderView" => read_model.execute(
                "UPDATE OrderView SET version = 1, status = 'placed' WHERE order_id = ?1",
                [order],
            ),
            _ => read_model.execute(
                "INSERT INTO ParkedEvent VALUES ('orders', ?1, ?2, ?3, 1, 'made by a test')",
                params![partition, order, last_frame],
            ),
        };
        assert_eq!(changed.expect("SQLite writes"), 1, "{table}");
    }
}

#[tokio::test]
async fn a_parked_order_is_no_404_and_no_stale_200_until_it_is_redriven() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let parked = client.place(&an_order()).await.id();
    client.step(&parked, "confirm", &json!({})).await;
    let other = client.place(&an_order()).await.id();
    caught_up(&client).await;
    assert!(service.terminate().success());
    park(data.path(), &parked);

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let path = format!("/orders/{parked}");
    for query in [
        "",
        "?min_version=1",
        "?min_version=9",
        "?at_version=2",
        "/events",
    ] {
        let answer = client.get(&format!("{path}{query}")).send().await;
        let answer = answer.expect(503);
        assert_eq!(answer.problem(), "order-parked", "{query}");
        assert_eq!(answer.json()["known_version"], 1, "{query}");
        assert!(answer.headers.contains_key("retry-after"), "{query}");
        assert!(!answer.headers.contains_key("etag"), "{query}");
    }
    let known = client.get(&format!("{path}?at_version=1")).send().await;
    assert_eq!(known.expect(200).version(), 1);
    client
        .get(&format!("/orders/{other}"))
        .send()
        .await
        .expect(200);
    let list = client.get("/projections/orders/parked").send().await;
    let list = list.expect(200).json();
    assert_eq!(list["parked"][0]["order_id"], parked, "{list}");
    assert_eq!(list["parked"][0]["reason"], "made by a test", "{list}");
    assert_eq!(list["parked"].as_array().map(Vec::len), Some(1), "{list}");
    let none = client.get("/projections/sku_demand/parked").send().await;
    assert_eq!(none.expect(200).json()["parked"], json!([]));
    let metric = "projector_parked_orders{partition=\"0\",projection=\"orders\"} ";
    let metrics = client.metrics().await;
    assert!(metrics.contains(&format!("{metric}1")), "{metrics}");

    let redriven = client
        .post("/projections/orders/parked/redrive")
        .send()
        .await;
    let redriven = redriven.expect(200).json();
    let expected: Value = json!({"applied": 1, "parked_orders": 0});
    assert_eq!(redriven, expected);
    let whole = client.get(&path).send().await.expect(200).json();
    assert_eq!(whole["version"], 2, "{whole}");
    assert_eq!(whole["status"], "confirmed", "{whole}");
    let metrics = client.metrics().await;
    assert!(metrics.contains(&format!("{metric}0")), "{metrics}");
    client
        .post("/projections/nothing/parked/redrive")
        .send()
        .await
        .expect(404);
}
