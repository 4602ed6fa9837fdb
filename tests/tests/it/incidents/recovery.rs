//! Section 8: the data directory is gone, and a backup is restored in its place.

use std::process::Command;

use crate::client::{Client, an_order};
use crate::history::History;
use crate::playbook::Playbook;
use crate::service::binary;
use crate::waits::caught_up;

pub(super) const PLAYED: &[&str] = &["Backup and restore"];

#[tokio::test]
async fn what_was_lost_comes_back_from_the_backup_and_goes_on() {
    let Some(mut book) = Playbook::open("Backup and restore") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let mut placed = Vec::new();
    for _ in 0..20 {
        placed.push(client.place(&an_order()).await);
    }
    book.run("order-service backup --to");
    book.run("order-service backup --verify");
    let beyond = client.place(&an_order()).await.id();
    service.kill();

    book.run("mv data data.lost");
    book.run("order-service restore");
    let service = book.serve("order-service serve");
    let client = Client::of(&service);
    for answer in &placed {
        let read = client.order_after(answer).await;
        assert_eq!(read.text, answer.text);
    }
    let gone = client.get(&format!("/orders/{beyond}")).send().await;
    gone.expect(404);
    client.place(&an_order()).await;
    caught_up(&client).await;
    book.run("order-service projections diff");
    book.end();
    assert!(service.terminate().success());
    let history = History::of(&book.data());
    assert_eq!(history.orders.len(), placed.len() + 1);
}
