//! A projection that stands still until an operator does something: its checkpoint is past the log's end, or SQLite found
//! bytes that it did not write.

use std::process::Command;

use rusqlite::Connection;

use super::place_many;
use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::service::binary;
use crate::waits::{caught_up, eventually};

pub(super) const PLAYED: &[&str] = &[
    "A projection has halted",
    "SQLite found bytes that it did not write",
];

#[tokio::test]
async fn a_checkpoint_past_the_end_pages_and_is_mended_by_a_rebuild() {
    let Some(mut book) = Playbook::open("A projection has halted") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "1"]);
    let client = Client::of(&service);
    let ids = place_many(&client, 20).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    Connection::open(book.data().join("read.db"))
        .and_then(|it| it.execute("UPDATE Checkpoint SET next_offset = next_offset + 7", []))
        .expect("SQLite writes");

    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    eventually("the halt is told", async || {
        let halted = Metrics::of(&client).await.sum("projector_halted");
        if halted == 3 {
            Ok(())
        } else {
            Err(format!("{halted}"))
        }
    })
    .await;
    let refused = client.post("/orders").json(&an_order()).send().await;
    assert_eq!(refused.expect(503).problem(), "partition-unavailable");
    let ready = client.get("/readyz?verbose").send().await.text;
    assert!(ready.contains("[-]projection-orders-0 halted"), "{ready}");

    book.run("order-service projections status orders");
    book.run("curl -s 127.0.0.1:8080/metrics | grep '^projector_halted");
    book.run("order-service projections rebuild all");
    book.eventually("order-service projections status");
    assert_eq!(Metrics::of(&client).await.sum("projector_halted"), 0);
    book.run("order-service projections diff");
    client.place(&an_order()).await;
    let read = client.get(&format!("/orders/{}", ids[0])).send().await;
    read.expect(200);
    book.end();
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_by_a_restart_and_made_anew() {
    let Some(mut book) = Playbook::open("SQLite found bytes that it did not write") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "2"]);
    let client = Client::of(&service);
    let ids = place_many(&client, 50).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    let file = book.data().join("read.db");
    let mut bytes = std::fs::read(&file).expect("the file reads");
    bytes[..4096].fill(0x5a);
    std::fs::write(&file, bytes).expect("the file is written");

    let service = book.serve("order-service serve");
    let client = Client::of(&service);
    for id in &ids {
        let read = client
            .get(&format!("/orders/{id}"))
            .header("prefer", "wait=30");
        read.send().await.expect(200);
    }
    book.run("ls data");
    caught_up(&client).await;
    book.run("order-service projections diff");
    book.end();
}
