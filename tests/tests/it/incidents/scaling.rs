//! Section 5, "scale projector": the read model is spread over files, and the log over more partitions; each stream keeps
//! its one writer, and rows stay what the log says.

use std::process::Command;

use super::place_many;
use crate::client::{Client, an_order};
use crate::playbook::Playbook;
use crate::service::{Service, binary};
use crate::waits::caught_up;

pub(super) const PLAYED: &[&str] = &["Scale the projector", "Repartition"];

#[tokio::test]
async fn the_read_model_is_spread_over_files_and_made_anew_from_the_log() {
    let Some(mut book) = Playbook::open("Scale the projector") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let ids = place_many(&client, 20).await;
    caught_up(&client).await;
    assert!(service.terminate().success());

    book.run("rm data/read.db*");
    let service = book.serve("order-service serve --read-model-shards 2");
    let client = Client::of(&service);
    caught_up(&client).await;
    for id in &ids {
        client
            .get(&format!("/orders/{id}"))
            .send()
            .await
            .expect(200);
    }
    book.run("order-service sql");
    book.run("ls data");
    book.run("order-service projections diff");
    book.end();
    // A second projector of any partition is refused, and so is a second writer.
    for part in ["projector", "serve", "api"] {
        let refusal = Service::try_start_part(part, &book.data(), &[]);
        let refusal = refusal
            .err()
            .unwrap_or_else(|| panic!("a second {part} starts"));
        let owner = format!("process {}", service.pid());
        assert!(refusal.message.contains(&owner), "{}", refusal.message);
    }
}

#[tokio::test]
async fn the_log_gets_more_partitions_and_every_order_is_there_once() {
    let Some(mut book) = Playbook::open("Repartition") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let ids = place_many(&client, 40).await;
    caught_up(&client).await;
    assert!(service.terminate().success());

    book.run("order-service log repartition --partitions 8");
    let service = book.serve("order-service serve --partitions 8");
    let client = Client::of(&service);
    caught_up(&client).await;
    for id in &ids {
        client
            .get(&format!("/orders/{id}"))
            .send()
            .await
            .expect(200);
    }
    client.place(&an_order()).await;
    caught_up(&client).await;
    book.run("order-service projections diff");
    book.end();
}
