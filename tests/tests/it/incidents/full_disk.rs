//! 3A: the disk is full. `POST /orders` is 503, says so and is counted; reads go on; when there is space again, writes
//! resume by themselves, and nothing acknowledged was lost.
//!
//! A small file system in memory makes a disk that is really full, which only root may mount.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::client::{Client, an_order};
use crate::history::History;
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::service::{binary, run};
use crate::waits::{caught_up, eventually};

pub(super) const PLAYED: &[&str] = &["POST /orders answers 5xx (3A)"];

/// The disk of this incident.
const DISK: &str = "size=128m,mode=0700";
/// What somebody else has on it: all but the room for a few of the smallest segments. When it is gone, there is room for the
/// rows of all events in the log as well, which come first.
const BALLAST_BYTES: usize = 104 << 20;
/// Orders of one bulk request.
const BULK: usize = 500;
/// Bulk requests after which the disk must be full.
const BULKS_MAX: usize = 400;

/// A file system of its own, gone with this.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where it may not be mounted.
    fn mounted_at(path: &Path) -> Option<Self> {
        std::fs::create_dir(path).expect("the directory is ours");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(path)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("LEFT OUT: no file system may be mounted here, so no disk was full");
            return None;
        }
        Some(Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: after a failed test the service may still have files open.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "the small disk stays mounted"
        );
    }
}

/// Orders sent one by one after that: fewer than a bulk request holds would do.
const ORDERS_MAX: usize = 4_000;

/// Sends orders until one is refused; returns the ids of those that were acknowledged.
async fn place_until_full(client: &Client) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let lines = format!("{}\n", an_order()).repeat(BULK);
    for _ in 0..BULKS_MAX {
        let answer = client
            .post("/orders/bulk")
            .bytes("application/x-ndjson", lines.clone())
            .send()
            .await
            .expect(200);
        let mut refused = false;
        for line in answer.text.lines() {
            let outcome: Value = serde_json::from_str(line).expect("an outcome is JSON");
            match outcome["status"].as_u64() {
                Some(201) => acknowledged.push(
                    outcome["id"]
                        .as_str()
                        .expect("a new order has an id")
                        .to_owned(),
                ),
                // The rows may be too far behind to decide more for a moment, all the more as they find no space either.
                Some(503) => {
                    refused |= outcome["problem"]["code"] == "storage-full";
                }
                _ => panic!("{line}"),
            }
        }
        if refused {
            return acknowledged;
        }
    }
    panic!("the disk never was full");
}

#[tokio::test]
async fn a_full_disk_is_told_and_writing_resumes_when_there_is_space() {
    let Some(mut book) = Playbook::open("POST /orders answers 5xx (3A)") else {
        return;
    };
    let Some(disk) = SmallDisk::mounted_at(&book.data()) else {
        return;
    };
    let mut command = Command::new(binary());
    command
        .env("ORDER_SERVICE__LOG__SEGMENT_BYTES_MAX", "1048576")
        .env("ORDER_SERVICE__OUTBOX__SINK", "none");
    let service = book.start(command, &["--partitions", "1"]);
    let client = Client::of(&service);
    // What fills a disk is usually somebody else.
    let ballast = disk.0.join("core.1234");
    std::fs::write(&ballast, vec![0x5a; BALLAST_BYTES]).expect("the disk has room for it");

    let mut acknowledged = place_until_full(&client).await;
    // Where many orders had no room, a few still may.
    let mut refused = None;
    for _ in 0..ORDERS_MAX {
        let answer = client.post("/orders").json(&an_order()).send().await;
        match answer.status.as_u16() {
            201 => acknowledged.push(answer.id()),
            _ if answer.problem() == "storage-full" => {
                refused = Some(answer);
                break;
            }
            _ => assert_eq!(answer.problem(), "projector-behind"),
        }
    }
    let refused = refused
        .expect("no room for a single order in the end")
        .expect(503);
    assert!(!refused.header("retry-after").is_empty());
    let first = client.get(&format!("/orders/{}", acknowledged[0]));
    first.send().await.expect(200);

    let failures = book.run("curl -s 127.0.0.1:8080/metrics | grep '^http_requests_total");
    assert!(!failures.trim_end().ends_with(" 0"), "{failures}");
    let reason = book.run("curl -s 127.0.0.1:8080/metrics | grep '^commands_total");
    assert!(!reason.trim_end().ends_with(" 0"), "{reason}");
    book.run("curl -s 127.0.0.1:8080/metrics | grep '^log_disk_free_bytes");
    book.run("curl -s '127.0.0.1:8080/readyz?verbose'");
    book.run("df -h data");

    std::fs::remove_file(&ballast).expect("the ballast is ours");

    book.eventually("curl -s 127.0.0.1:8080/orders -H");
    let free = Metrics::of(&client).await;
    assert!(free.sum("log_disk_free_bytes") > 0);
    acknowledged.push(client.place(&an_order()).await.id());
    eventually("the rows have caught up", async || {
        let lag = Metrics::of(&client).await.sum("projector_lag_events");
        if lag == 0 {
            Ok(())
        } else {
            Err(format!("{lag}"))
        }
    })
    .await;
    caught_up(&client).await;
    book.end();
    assert!(service.terminate().success());
    let data = disk.0.to_string_lossy().into_owned();
    let verified = run(["log", "verify", "--data-dir", &data]);
    assert!(verified.status.success(), "{verified:?}");
    let history = History::of(&disk.0);
    for id in &acknowledged {
        assert!(history.orders.contains_key(id), "order {id} is lost");
    }
    history.assert_rows_equal_it(&disk.0);
}
