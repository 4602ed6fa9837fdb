//! Section 5, "rollback", and section 9: what a start does with data that another release, or other flags, made. A binary of
//! before cannot be had here; what it does is what this one does with a format of after: refuse it, and touch nothing.

use std::process::Command;

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::playbook::Playbook;
use crate::service::{Service, binary};
use crate::waits::caught_up;

pub(super) const PLAYED: &[&str] = &["Roll back a release", "9. Change management"];

#[tokio::test]
async fn a_format_of_a_later_release_is_refused_and_that_release_goes_on() {
    let Some(mut book) = Playbook::open("Roll back a release") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let order = client.place(&an_order()).await.id();
    caught_up(&client).await;
    assert!(service.terminate().success());
    let manifest = book.data().join("manifest.json");
    let of_this_release = std::fs::read_to_string(&manifest).expect("there is a manifest");
    let mut of_a_later_one: Value = serde_json::from_str(&of_this_release).expect("it is JSON");
    of_a_later_one["format"] = json!(99);
    std::fs::write(&manifest, of_a_later_one.to_string()).expect("it can be written");

    book.fail("order-service serve", 2);
    book.fail("order-service log ls", 2);
    let unchanged = std::fs::read_to_string(&manifest).expect("there is a manifest");
    assert_eq!(unchanged, of_a_later_one.to_string());

    // The release that wrote it starts again, and has everything.
    std::fs::write(&manifest, of_this_release).expect("it can be written");
    let service = Service::start(&book.data(), &[]);
    let client = Client::of(&service);
    client
        .get(&format!("/orders/{order}"))
        .send()
        .await
        .expect(200);
    assert!(service.terminate().success());

    Connection::open(book.data().join("read.db"))
        .and_then(|it| it.pragma_update(None, "user_version", 99))
        .expect("SQLite writes");
    book.fail("order-service serve", 2);
    book.run("rm data/read.db*");
    let service = book.serve("order-service serve");
    let read = Client::of(&service).get(&format!("/orders/{order}"));
    read.header("prefer", "wait=30").send().await.expect(200);
    book.run("order-service projections diff");
    book.end();
}

#[tokio::test]
async fn a_start_with_another_partition_count_is_refused_with_the_command_that_changes_it() {
    let Some(mut book) = Playbook::open("9. Change management") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    Client::of(&service).place(&an_order()).await;
    assert!(service.terminate().success());
    book.fail("order-service serve --partitions 2", 2);
    book.end();
}
