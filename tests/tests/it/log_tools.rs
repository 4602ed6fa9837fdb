//! `order-service log ls | dump | verify`: what they print of a sound log, and what of a damaged one.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::service::{Service, run, stdout_of};
use crate::stores::on_both_stores;

on_both_stores! {
    dump_prints_every_event_as_a_json_object,
    dump_can_be_narrowed_to_an_order_a_partition_and_an_offset,
    dump_and_ls_look_at_a_log_that_is_being_written,
    ls_tells_what_each_file_holds,
    verify_proves_a_sound_log,
    verify_names_the_place_of_a_changed_byte,
}

fn log(command: &str, data: &Path, more: &[&str]) -> Output {
    let fixed: [&OsStr; 4] = [
        "log".as_ref(),
        command.as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ];
    run(fixed.into_iter().chain(more.iter().map(AsRef::as_ref)))
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

/// A stopped service's directory with two orders of three events each.
async fn stopped(store: &str, partitions: &str) -> (tempfile::TempDir, [String; 2]) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store, "--partitions", partitions]);
    let client = Client::of(&service);
    let mut ids = [String::new(), String::new()];
    for id in &mut ids {
        *id = client.place(&an_order()).await.id();
        client.step(id, "confirm", &json!({})).await;
        client
            .step(id, "pay", &json!({"amount": 3998, "reference": "psp-1"}))
            .await;
    }
    assert!(service.terminate().success());
    (data, ids)
}

async fn dump_prints_every_event_as_a_json_object(store: &str) {
    let (data, ids) = stopped(store, "1").await;
    let events = lines(&log("dump", data.path(), &[]));
    assert_eq!(events.len(), 6);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["partition"], 0);
        assert_eq!(event["offset"], number);
        assert_eq!(event["order_id"], ids[number / 3]);
        assert_eq!(event["version"], number % 3 + 1);
        assert_eq!(
            event["type"],
            ["OrderPlaced", "OrderConfirmed", "OrderPaid"][number % 3]
        );
        let time = event["time"].as_str().expect("a time is a text");
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
    }
    assert_eq!(events[0]["data"]["customer_id"], "c-1042");
    assert_eq!(
        events[2]["data"],
        json!({"amount": 3998, "reference": "psp-1"})
    );
}

async fn dump_can_be_narrowed_to_an_order_a_partition_and_an_offset(store: &str) {
    let (data, ids) = stopped(store, "4").await;
    let of_one = lines(&log("dump", data.path(), &["--order", &ids[1]]));
    assert_eq!(of_one.len(), 3);
    assert!(of_one.iter().all(|event| event["order_id"] == ids[1]));

    let partition = of_one[0]["partition"].to_string();
    let last = of_one[2]["offset"].to_string();
    let from = lines(&log(
        "dump",
        data.path(),
        &["--partition", &partition, "--from", &last],
    ));
    assert_eq!(from[0], of_one[2]);

    for wrong in [["--partition", "4"], ["--order", "7"]] {
        assert_eq!(
            log("dump", data.path(), &wrong).status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
}

async fn dump_and_ls_look_at_a_log_that_is_being_written(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store]);
    let client = Client::of(&service);
    for number in 1..=3 {
        client.place(&an_order()).await;
        assert_eq!(lines(&log("dump", data.path(), &[])).len(), number);
        assert!(!lines(&log("ls", data.path(), &["--json"])).is_empty());
    }
}

async fn ls_tells_what_each_file_holds(store: &str) {
    let (data, _) = stopped(store, "2").await;
    let files = lines(&log("ls", data.path(), &["--json"]));
    let records: u64 = files
        .iter()
        .map(|file| {
            file["end_offset"].as_u64().unwrap_or(0) - file["base_offset"].as_u64().unwrap_or(0)
        })
        .sum();
    assert_eq!(records, 6);
    for file in &files {
        let path = Path::new(file["file"].as_str().expect("a file has a path"));
        assert!(path.is_file(), "{}", path.display());
    }
    let table = log("ls", data.path(), &[]);
    assert_eq!(
        String::from_utf8_lossy(&table.stdout).lines().count(),
        files.len() + 1
    );
}

async fn verify_proves_a_sound_log(store: &str) {
    let (data, _) = stopped(store, "2").await;
    let proven = stdout_of([
        "log".as_ref(),
        "verify".as_ref(),
        "--data-dir".as_ref(),
        data.path().as_os_str(),
    ]);
    assert!(proven.contains("6 records"), "{proven}");
    let nowhere = log("verify", &data.path().join("nowhere"), &[]);
    assert_eq!(nowhere.status.code(), Some(2), "{nowhere:?}");
}

/// The file of partition 0 that holds its first events.
fn first_file(data: &Path, store: &str) -> PathBuf {
    match store {
        "jsonl" => data.join("events.jsonl"),
        _ => data.join("log/p000/00000000000000000000.seg"),
    }
}

/// Changes one byte of the customer's name in the first event.
fn damage(data: &Path, store: &str) -> PathBuf {
    let path = first_file(data, store);
    let mut bytes = std::fs::read(&path).expect("the file reads");
    // In JSON a changed letter is another letter, which nothing could notice: there a quote goes.
    let (needle, at): (&[u8], usize) = if store == "jsonl" {
        (b"\"c-1042\"", 0)
    } else {
        (b"c-1042", 2)
    };
    let position = bytes
        .windows(needle.len())
        .position(|window| window == needle);
    bytes[position.expect("the customer is in the file") + at] ^= 1;
    std::fs::write(&path, bytes).expect("the file can be written");
    path
}

async fn verify_names_the_place_of_a_changed_byte(store: &str) {
    let (data, _) = stopped(store, "1").await;
    let path = damage(data.path(), store);
    let found = log("verify", data.path(), &[]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let told = String::from_utf8_lossy(&found.stdout) + String::from_utf8_lossy(&found.stderr);
    for word in [&path.display().to_string(), "byte", "damaged"] {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    let dumped = log("dump", data.path(), &[]);
    assert_eq!(dumped.status.code(), Some(1), "{dumped:?}");
}

#[tokio::test]
async fn a_damaged_partition_serves_what_is_proven_and_takes_no_writes() {
    let (data, ids) = stopped("segmented", "1").await;
    let path = damage(data.path(), "segmented");
    let before = std::fs::read(&path).expect("the segment reads");

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let refused = client
        .post("/orders")
        .json(&an_order())
        .send()
        .await
        .expect(503);
    assert_eq!(refused.problem(), "partition-unavailable");
    assert!(!refused.header("retry-after").is_empty());
    let read = client
        .get(&format!("/orders/{}", ids[0]))
        .send()
        .await
        .expect(200);
    assert_eq!(read.version(), 3, "the rows are still there");
    let readiness = client.get("/readyz").send().await.expect(503).text;
    assert!(
        readiness.contains("damaged") && readiness.contains(".seg"),
        "{readiness}"
    );
    drop(service);
    let after = std::fs::read(&path).expect("the segment reads");
    assert!(before == after, "damage is never cut off or overwritten");
}
