//! What a stop and a start keep: everything. And how a stop ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::client::{Client, an_order};
use crate::history::History;
use crate::service::{Service, binary};
use crate::stores::on_both_stores;
use crate::waits::{caught_up, eventually};
use crate::writers::{Dice, Ledger, write_until_gone};

on_both_stores! {
    a_restart_keeps_every_order_and_goes_on_with_it,
    a_stop_under_load_loses_nothing_acknowledged,
    a_lost_read_model_is_rebuilt_to_the_same_rows,
    every_durability_keeps_what_a_stop_has_synced,
}

async fn a_restart_keeps_every_order_and_goes_on_with_it(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let client = Client::of(&service);
    let placed = client.place(&an_order()).await;
    let confirmed = client.step(&placed.id(), "confirm", &json!({})).await;
    assert!(service.terminate().success());

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    assert_eq!(client.order_after(&confirmed).await.text, confirmed.text);
    let paid = client
        .step(&placed.id(), "pay", &json!({"amount": 3998}))
        .await;
    assert_eq!(paid.version(), 3);
}

async fn a_stop_under_load_loses_nothing_acknowledged(store: &str) {
    const WRITERS: u64 = 8;
    const ACKNOWLEDGED: u64 = 200;
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let mut dice = Dice::seeded();
    let writers = write_until_gone(WRITERS, 1, &service, &ledger, &mut dice);
    eventually("enough is acknowledged", async || {
        let count = ledger.lock().expect("nobody panics with it").count;
        if count >= ACKNOWLEDGED {
            Ok(())
        } else {
            Err(format!("{count} of {ACKNOWLEDGED}"))
        }
    })
    .await;
    let status = tokio::task::spawn_blocking(|| service.terminate())
        .await
        .expect("it ends");
    assert_eq!(status.code(), Some(0));
    for writer in writers {
        writer.await.expect("a client ends when it gets no answer");
    }
    ledger
        .lock()
        .expect("nobody panics with it")
        .assert_is_in(&History::of(data.path()));
}

async fn a_lost_read_model_is_rebuilt_to_the_same_rows(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let client = Client::of(&service);
    let kept = client.place(&an_order()).await;
    let cancelled = client.place(&an_order()).await;
    client.step(&cancelled.id(), "cancel", &json!({})).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    History::of(data.path()).assert_rows_equal_it(data.path());
    let summary = || {
        let arguments = [
            "sql".as_ref(),
            "--data-dir".as_ref(),
            data.path().as_os_str(),
        ];
        let statement = "select * from CustomerSummary union all select sku, '', units_ordered, units_cancelled, \
                         units_wanted, 0, 0, last_ordered_at from SkuDemand";
        crate::service::stdout_of([&arguments[..], &[statement.as_ref()]].concat())
    };
    let before = summary();

    for name in ["read.db", "read.db-wal", "read.db-shm"] {
        let path = data.path().join(name);
        if path.exists() {
            std::fs::remove_file(path).expect("the file can be removed");
        }
    }
    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let read = client
        .get(&format!("/orders/{}", kept.id()))
        .header("prefer", "wait=30")
        .send()
        .await;
    assert_eq!(read.expect(200).text, kept.text);
    caught_up(&client).await;
    assert!(service.terminate().success());
    History::of(data.path()).assert_rows_equal_it(data.path());
    assert_eq!(summary(), before);
}

async fn every_durability_keeps_what_a_stop_has_synced(store: &str) {
    for mode in ["always", "interval=2", "os"] {
        for group_commit in ["on", "off"] {
            let data = tempfile::tempdir().expect("a temporary directory");
            let arguments = [
                "--store",
                store,
                "--durability",
                mode,
                "--group-commit",
                group_commit,
            ];
            let service = Service::start(data.path(), &arguments);
            let client = Client::of(&service);
            let placed = client.place(&an_order()).await;
            let readiness = client.get("/readyz?verbose").send().await.expect(200).text;
            assert!(
                readiness.contains(&format!("durability {mode}")),
                "{readiness}"
            );
            assert!(service.terminate().success());

            let service = Service::start(data.path(), &[]);
            let client = Client::of(&service);
            let read = client
                .get(&format!("/orders/{}", placed.id()))
                .header("prefer", "wait=30");
            assert_eq!(
                read.send().await.expect(200).text,
                placed.text,
                "{mode}, {group_commit}"
            );
        }
    }
}

#[test]
fn a_second_signal_ends_a_stop_that_waits_for_a_client() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut service = Service::start(data.path(), &[]);
    let mut client = TcpStream::connect(service.address()).expect("the service listens");
    client
        .write_all(
            b"POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
              expect: 100-continue\r\n\r\n",
        )
        .expect("the service reads");
    // The service says "continue" once it waits for the body, which never comes.
    let mut told = [0; 12];
    client.read_exact(&mut told).expect("the service answers");
    assert_eq!(&told, b"HTTP/1.1 100");

    service.signal("TERM");
    service.wait_for_message("draining");
    service.signal("TERM");
    assert_eq!(
        service.wait().code(),
        Some(128 + 15),
        "{}",
        service.messages()
    );
}

#[tokio::test]
async fn a_stop_with_a_pause_turns_traffic_away_and_serves_on_until_the_pause_ends() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let pausing = || {
        let mut command = Command::new(binary());
        // Longer than the test waits for anything: it is a second signal that ends the pause.
        command.env("ORDER_SERVICE__API__SHUTDOWN_PAUSE_MS", "600000");
        Service::start_as(command, data.path(), &[])
    };
    let mut service = pausing();
    let client = Client::of(&service);
    client.get("/readyz").send().await.expect(200);

    service.signal("TERM");
    service.wait_for_message("serving on");
    let readiness = client.get("/readyz").send().await.expect(503);
    assert!(
        readiness.text.contains("[-]serving stopping"),
        "{readiness:?}"
    );
    client.get("/livez").send().await.expect(200);
    // Who has not noticed yet opens a connection, and is served.
    let placed = Client::of(&service).place(&an_order()).await;
    assert_eq!(client.order_after(&placed).await.text, placed.text);

    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0), "{}", service.messages());

    let service = pausing();
    let kept = Client::of(&service).order_after(&placed).await;
    assert_eq!(kept.text, placed.text);
}

#[test]
fn a_pause_before_the_stop_ends_by_itself() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(binary());
    command.env("ORDER_SERVICE__API__SHUTDOWN_PAUSE_MS", "1");
    let mut service = Service::start_as(command, data.path(), &[]);
    service.signal("TERM");
    assert_eq!(service.wait().code(), Some(0), "{}", service.messages());
    service.wait_for_message("serving on");
}

#[test]
fn an_interrupt_stops_like_a_termination() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let mut service = Service::start(data.path(), &[]);
    service.signal("INT");
    assert_eq!(service.wait().code(), Some(0));
    // The last words may still be on their way to us.
    service.wait_for_message("stopped");
}

#[test]
fn everything_in_a_data_directory_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let outside = tempfile::tempdir().expect("a temporary directory");
    let data = outside.path().join("new").join("data");
    let service = Service::start(&data, &[]);
    let mut pending = vec![data.clone()];
    let mut seen = 0;
    while let Some(path) = pending.pop() {
        let metadata = std::fs::symlink_metadata(&path).expect("the file is there");
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
        seen += 1;
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&path).expect("the directory reads");
            pending.extend(entries.map(|entry| entry.expect("an entry reads").path()));
        }
    }
    assert!(seen > 8, "only {seen} files seen");
    drop(service);
}
