//! `order-service log repair`, and damage that one partition has and the others do not.
//!
//! Method: a real service writes, is stopped, and bytes of its files are changed; then commands and another service look at
//! what is left.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::json;

use crate::client::{Client, an_order};
use crate::service::{Service, run};

fn log(command: &str, data: &Path, more: &[&str]) -> Output {
    let fixed: [&OsStr; 4] = [
        "log".as_ref(),
        command.as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ];
    run(fixed.into_iter().chain(more.iter().map(AsRef::as_ref)))
}

fn told(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn segment(data: &Path, partition: u16) -> PathBuf {
    data.join(format!("log/p{partition:03}/00000000000000000000.seg"))
}

/// Changes a byte of a segment `at` bytes behind the first or the last place of `needle`.
pub(crate) fn change(path: &Path, needle: &[u8], last: bool, at: usize) {
    let mut bytes = std::fs::read(path).expect("the segment reads");
    let mut places = bytes.windows(needle.len());
    let place = if last {
        places.rposition(|window| window == needle)
    } else {
        places.position(|window| window == needle)
    };
    bytes[place.expect("the needle is in the segment") + at] ^= 1;
    std::fs::write(path, bytes).expect("the segment can be written");
}

/// A stopped service's directory with one partition and three orders of two events each.
async fn stopped() -> (tempfile::TempDir, Vec<String>) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let mut ids = Vec::new();
    for number in 0..3 {
        let mut order = an_order();
        order["customer_id"] = json!(format!("customer-{number}"));
        let id = client.place(&order).await.id();
        let paid = client.step(&id, "confirm", &json!({})).await;
        client.order_after(&paid).await;
        ids.push(id);
    }
    assert!(service.terminate().success());
    (data, ids)
}

#[tokio::test]
async fn a_damaged_segment_header_stops_one_partition_and_no_other() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    let mut ids = Vec::new();
    for _ in 0..16 {
        ids.push(client.place(&an_order()).await.id());
    }
    assert!(service.terminate().success());
    let path = segment(data.path(), 0);
    change(&path, b"ORDERSEG", false, 20);
    let before = std::fs::read(&path).expect("the segment reads");

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    for id in &ids {
        client
            .get(&format!("/orders/{id}/events"))
            .send()
            .await
            .expect(200);
    }
    client.place_until_accepted().await;
    let readiness = client.get("/readyz?verbose").send().await.text;
    for word in ["log-partition-0", "damaged at byte 0", ".seg", "header"] {
        assert!(readiness.contains(word), "`{word}` is not in: {readiness}");
    }
    assert!(service.terminate().success());
    assert!(std::fs::read(&path).expect("the segment reads") == before);
    let found = log("verify", data.path(), &[]);
    assert_eq!(found.status.code(), Some(1), "{}", told(&found));
}

#[tokio::test]
async fn a_damaged_log_is_repaired_on_request_and_goes_on() {
    let (data, ids) = stopped().await;
    let data = data.path();
    let path = segment(data, 0);
    change(&path, b"customer-1", false, 3);
    let damaged = std::fs::read(&path).expect("the segment reads");

    // While a service has the directory: refused, with its process id.
    let service = Service::start(data, &[]);
    let refused = log("repair", data, &["--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(
        told(&refused).contains(&service.pid().to_string()),
        "{}",
        told(&refused)
    );
    assert!(service.terminate().success());

    // Not asked for twice: shown, and nothing changed.
    let shown = log("repair", data, &[]);
    assert_eq!(shown.status.code(), Some(1), "{}", told(&shown));
    for word in [
        "damaged: partition 0",
        "lost: partition 0, offsets 2 to 2 (1 records)",
        &format!("offset 2: order {}, version 1", ids[1]),
        "nothing was changed",
    ] {
        assert!(
            told(&shown).contains(word),
            "`{word}` is not in: {}",
            told(&shown)
        );
    }
    assert!(std::fs::read(&path).expect("the segment reads") == damaged);

    let repaired = log("repair", data, &["--yes"]);
    assert!(repaired.status.success(), "{}", told(&repaired));
    let aside = std::fs::read_dir(data.join("repair"))
        .expect("damaged files are kept")
        .next()
        .expect("a repair has a directory")
        .expect("the directory reads")
        .path();
    let copy = aside.join("p000/00000000000000000000.seg");
    assert!(std::fs::read(copy).expect("the copy reads") == damaged);
    let report = std::fs::read_to_string(aside.join("report.txt")).expect("the report reads");
    assert!(report.contains(&ids[1]), "{report}");

    let verified = log("verify", data, &[]);
    assert!(verified.status.success(), "{}", told(&verified));
    assert!(told(&verified).contains("1 records in 1 places were declared lost"));
    let again = log("repair", data, &["--yes"]);
    assert!(again.status.success() && told(&again).contains("no repair"));

    // It starts, appends, is killed, and recovers; what stood behind the loss is where it was.
    let service = Service::start(data, &[]);
    let client = Client::of(&service);
    client.get("/readyz").send().await.expect(200);
    let read = client.get(&format!("/orders/{}", ids[1])).send().await;
    assert_eq!(read.expect(200).version(), 2, "the row was applied before");
    let placed = client.place(&an_order()).await;
    service.kill();
    let service = Service::start(data, &[]);
    let client = Client::of(&service);
    for id in [&ids[0], &ids[2], &placed.id()] {
        client
            .get(&format!("/orders/{id}/events"))
            .send()
            .await
            .expect(200);
    }
    let lines = log("dump", data, &[]);
    assert!(told(&lines).contains(r#""offset":6,"#), "{}", told(&lines));
    assert!(service.terminate().success());
    assert!(log("verify", data, &[]).status.success());
}

#[tokio::test]
async fn a_log_whose_end_is_lost_gives_no_offset_twice_and_everybody_passes_over_it() {
    let (data, ids) = stopped().await;
    let data = data.path();
    let path = segment(data, 0);
    // From the last order's first event on nothing is left, not even the marker behind it.
    let mut bytes = std::fs::read(&path).expect("the segment reads");
    let place = bytes
        .windows(10)
        .position(|window| window == b"customer-2")
        .expect("the customer is in the segment");
    bytes[place..].fill(0);
    bytes[8] ^= 1;
    std::fs::write(&path, bytes).expect("the segment can be written");
    let repaired = log("repair", data, &["--yes"]);
    assert!(repaired.status.success(), "{}", told(&repaired));
    assert!(
        told(&repaired).contains("offsets 4 to 5 (2 records)"),
        "{}",
        told(&repaired)
    );

    // Everybody begins anew, and meets the loss at the log's end.
    for name in ["read.db", "outbox.db"] {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(data.join(format!("{name}{suffix}"))).ok();
        }
    }
    let service = Service::start(data, &[]);
    let client = Client::of(&service);
    let mut pending = None;
    for _ in 0..600 {
        let outbox = client.get("/outbox").send().await.expect(200).json();
        pending = outbox["pending"].as_u64();
        if pending == Some(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(pending, Some(0), "the outbox passes over what is lost");
    client
        .get(&format!("/orders/{}", ids[2]))
        .send()
        .await
        .expect(404);
    let placed = client.place(&an_order()).await;
    client.order_after(&placed).await.expect(200);
    assert!(service.terminate().success());
    let lines = told(&log("dump", data, &[]));
    assert!(lines.contains(r#""offset":6,"#), "{lines}");
    assert!(!lines.contains(r#""offset":5,"#), "{lines}");

    // Nobody knows which orders end earlier than they did: a rewritten log could not say so.
    let compacted = log("compact", data, &["--older-than", "0s", "--even-untold"]);
    assert!(!compacted.status.success(), "{}", told(&compacted));
    assert!(
        told(&compacted).contains("lost: nobody knows which orders end earlier"),
        "{}",
        told(&compacted)
    );
    assert_eq!(told(&log("dump", data, &[])), lines, "nothing was changed");
}

#[tokio::test]
async fn a_log_that_a_start_has_to_complete_is_not_rewritten_before() {
    let (data, _) = stopped().await;
    let data = data.path();
    let lines = told(&log("dump", data, &[]));
    // As a kill in durability mode `os` leaves it; here with nothing in it that was ever written.
    let waiting = segment(data, 0).with_file_name("00000000000000000006.next");
    std::fs::write(&waiting, [0; 4096]).expect("the directory is writable");

    for (command, flags) in [
        ("compact", &["--older-than", "0s"][..]),
        ("repartition", &["--partitions", "2"]),
        ("repair", &["--yes"]),
    ] {
        let refused = log(command, data, flags);
        assert!(!refused.status.success(), "{}", told(&refused));
        let said = told(&refused);
        assert!(said.contains("1 segments in"), "{command}: {said}");
        assert!(
            said.contains("order-service log rotate"),
            "{command}: {said}"
        );
    }
    let verified = log("verify", data, &[]);
    assert!(verified.status.success(), "{}", told(&verified));
    assert!(told(&verified).contains("1 segments wait for their names"));

    let rotated = log("rotate", data, &[]);
    assert!(rotated.status.success(), "{}", told(&rotated));
    assert!(!waiting.exists());
    assert_eq!(told(&log("dump", data, &[])), lines);
    let repartitioned = log("repartition", data, &["--partitions", "2"]);
    assert!(repartitioned.status.success(), "{}", told(&repartitioned));
}

#[test]
fn repair_refuses_what_is_no_segmented_log() {
    let nowhere = tempfile::tempdir().expect("a temporary directory");
    let refused = log("repair", nowhere.path(), &["--yes"]);
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    let service = Service::start(nowhere.path(), &["--store", "jsonl"]);
    assert!(service.terminate().success());
    let refused = log("repair", nowhere.path(), &["--yes"]);
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
}

#[tokio::test]
async fn rot_in_a_sealed_segment_is_told_before_anybody_needs_it() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let mut large = an_order();
    let line = large["lines"][0].clone();
    large["lines"] = (0..500).map(|_| line.clone()).collect();
    let segments = || {
        let entries = std::fs::read_dir(data.path().join("log/p000")).expect("the log is there");
        entries
            .filter(|entry| {
                let name = entry.as_ref().expect("an entry reads").file_name();
                name.to_string_lossy().ends_with(".seg")
            })
            .count()
    };
    for _ in 0..1000 {
        client.place(&large).await;
        if segments() > 1 {
            break;
        }
    }
    assert!(segments() > 1, "the log has a sealed segment");
    assert!(service.terminate().success());
    // The customer of the second order: whoever reads on from the last checkpoint does not meet it.
    let path = segment(data.path(), 0);
    let mut bytes = std::fs::read(&path).expect("the segment reads");
    bytes[20_000] ^= 0x10;
    std::fs::write(&path, bytes).expect("the segment can be written");

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let mut told = String::new();
    for _ in 0..1200 {
        told = client.get("/readyz").send().await.expect(200).text;
        if told.contains("degraded") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told.contains("degraded"), "{told}");
    let why = client.get("/readyz?verbose").send().await.expect(200).text;
    for word in [
        "log-scrub",
        &path.display().to_string(),
        "(offset ",
        "checksum",
    ] {
        assert!(why.contains(word), "`{word}` is not in: {why}");
    }
    let metrics = client.metrics().await;
    assert!(
        metrics.contains("log_scrub_damaged_segments{partition=\"0\"} 1"),
        "{metrics}"
    );
    client.place(&an_order()).await;
}
