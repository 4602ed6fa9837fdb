//! Orders that were set aside, and rows that drifted: listed, redriven, proven, rebuilt.
//!
//! Both are made by hand, while the service is down: an event that cannot be applied would need a version that is not there
//! yet, and a row that is wrong a bug that is not there.

use std::process::Command;

use rusqlite::Connection;
use serde_json::json;

use super::place_many;
use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::projections::{park, tamper};
use crate::service::binary;
use crate::waits::caught_up;

pub(super) const PLAYED: &[&str] = &["Parked orders", "Prove and rebuild rows"];

#[tokio::test]
async fn a_parked_order_is_seen_and_redriven() {
    let Some(mut book) = Playbook::open("Parked orders") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "1"]);
    let client = Client::of(&service);
    let order = client.place(&an_order()).await.id();
    client.step(&order, "confirm", &json!({})).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    park(&book.data(), &order);

    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    assert_eq!(Metrics::of(&client).await.sum("projector_parked_orders"), 1);
    let read = client.get(&format!("/orders/{order}")).send().await;
    assert_eq!(read.expect(503).problem(), "order-parked");
    let listed = book.run("order-service projections parked");
    assert!(listed.contains(&order), "{listed}");
    book.run("order-service projections redrive orders");
    book.run("order-service projections parked");
    assert_eq!(Metrics::of(&client).await.sum("projector_parked_orders"), 0);
    let read = client.get(&format!("/orders/{order}")).send().await;
    assert_eq!(read.expect(200).version(), 2);
    book.end();
}

#[tokio::test]
async fn rows_that_drifted_are_named_and_rebuilt() {
    let Some(mut book) = Playbook::open("Prove and rebuild rows") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let ids = place_many(&client, 20).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    tamper(&book.data(), &ids[3]);

    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let told = std::fs::read(book.data().join("outbox.jsonl")).expect("the outbox has told");
    let found = book.fail("order-service projections diff", 1);
    assert!(found.contains(&ids[3]), "{found}");
    book.run("order-service projections rebuild orders");
    book.run("order-service projections diff");
    book.run("order-service projections discard-old orders");
    let order = client.get(&format!("/orders/{}", ids[3])).send().await;
    assert_eq!(order.expect(200).json()["currency"], "EUR");
    let kept = Connection::open(book.data().join("read.db")).and_then(|read_model| {
        read_model.query_row(
            "SELECT count(1) FROM OrderView WHERE currency = 'XXX'",
            [],
            |row| row.get::<_, u32>(0),
        )
    });
    assert_eq!(kept.expect("SQLite answers"), 0);
    let after = std::fs::read(book.data().join("outbox.jsonl")).expect("the outbox has told");
    assert_eq!(after, told, "a rebuild tells nobody anything");
    book.end();
}
