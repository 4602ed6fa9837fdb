//! Sections 1, 2, 4 and 7: where an operator looks first. What is asked of a healthy service, of its files, and of its
//! configuration.

use std::process::Command;

use serde_json::json;

use crate::client::{Client, an_order};
use crate::playbook::Playbook;
use crate::service::binary;
use crate::waits::caught_up;

pub(super) const PLAYED: &[&str] = &[
    "1. Summary",
    "2. Key SLOs and signals",
    "4. Diagnostics",
    "7. Dependencies and configuration",
];

#[tokio::test]
async fn a_healthy_service_says_so_and_shows_its_signals() {
    let Some(mut book) = Playbook::open("1. Summary") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    client.place(&an_order()).await;
    caught_up(&client).await;
    book.run("curl -s '127.0.0.1:8080/readyz?verbose'");
    book.end();
    drop(service);

    let Some(mut book) = Playbook::open("2. Key SLOs and signals") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    client.place(&an_order()).await;
    caught_up(&client).await;
    book.run("curl -s 127.0.0.1:8080/metrics");
    book.end();
}

#[tokio::test]
async fn the_files_are_looked_into_beside_a_service_and_proven_without_one() {
    let Some(mut book) = Playbook::open("4. Diagnostics") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let placed = client.place(&an_order()).await;
    client.step(&placed.id(), "confirm", &json!({})).await;
    for _ in 0..2 {
        client.place(&an_order()).await;
    }
    caught_up(&client).await;
    book.set("ID", placed.id());
    book.run("sqlite3 data/read.db '.tables'");
    book.run("sqlite3 data/read.db 'select count(1)");
    book.run("order-service sql");
    book.run("order-service log ls");
    book.run("order-service log dump");
    assert!(service.terminate().success());
    book.run("order-service log verify");
    book.end();
}

#[test]
fn the_effective_configuration_says_where_each_setting_came_from() {
    let Some(mut book) = Playbook::open("7. Dependencies and configuration") else {
        return;
    };
    book.run("ORDER_SERVICE__OUTBOX__SINK=none order-service config");
    book.end();
}
