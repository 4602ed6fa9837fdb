//! Section 5, "rotate/compact": the log's files are sealed and archived when they become a burden, and everything is read as
//! before; events move between stores by export and import.

use std::process::Command;

use serde_json::json;

use crate::client::{Client, an_order};
use crate::history::History;
use crate::playbook::Playbook;
use crate::service::{Service, binary};
use crate::waits::caught_up;

pub(super) const PLAYED: &[&str] = &["Rotate and archive", "Import and export"];

#[tokio::test]
async fn the_log_is_rotated_and_archived_and_every_order_is_read_as_before() {
    let Some(mut book) = Playbook::open("Rotate and archive") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "1"]);
    let client = Client::of(&service);
    let placed = client.place(&an_order()).await.id();
    book.run("order-service log rotate");
    book.run("order-service log rotate");
    client.step(&placed, "confirm", &json!({})).await;
    let url = service.url("");
    crate::service::stdout_of(["log", "rotate", "--url", &url]);
    client.step(&placed, "cancel", &json!({})).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    let before = History::of(&book.data());

    book.run("order-service log archive --older-than 30d --dry-run");
    book.run("order-service log archive --keep-last 1");
    book.run("order-service log verify");

    assert_eq!(History::of(&book.data()).events, before.events);
    let service = Service::start(&book.data(), &[]);
    let client = Client::of(&service);
    let story = client.get(&format!("/orders/{placed}/events")).send().await;
    let story = story.expect(200).json();
    assert_eq!(story["events"].as_array().map(Vec::len), Some(3), "{story}");
    client.place(&an_order()).await;
    book.end();
}

#[tokio::test]
async fn events_are_exported_beside_the_service_and_imported_into_a_new_directory() {
    let Some(mut book) = Playbook::open("Import and export") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    for _ in 0..10 {
        client.place(&an_order()).await;
    }
    book.run("order-service log export --to events.jsonl");
    book.run("order-service log import --from events.jsonl");
    book.run("order-service log export --to -");
    assert!(service.terminate().success());
    let events = History::of(&book.data()).events;
    for copy in ["new", "other"] {
        let copy = book.place().join(copy);
        let service = Service::start(&copy, &[]);
        caught_up(&Client::of(&service)).await;
        assert!(service.terminate().success());
        let history = History::of(&copy);
        assert_eq!(history.events, events);
        history.assert_rows_equal_it(&copy);
    }
    book.end();
}
