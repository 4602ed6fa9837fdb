//! `order-service log rotate | archive`: what they do to the files of a log, beside and without a service, and that
//! nothing a client sees changes by it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::service::{Service, run};

/// A command of the log on a data directory.
fn log(command: &str, data: &Path, more: &[&str]) -> Output {
    let data = data.to_str().expect("a temporary path is UTF-8");
    let fixed = ["log", command, "--data-dir", data];
    run(fixed.iter().chain(more))
}

/// Standard output of a command that must succeed.
fn told(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error of a command that must end with `code`.
fn refused(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `log ls` shows, a file each.
fn files(data: &Path) -> Vec<Value> {
    let listed = told(&log("ls", data, &["--json"]));
    listed
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line is JSON"))
        .collect()
}

/// Every event, as `log dump` prints it.
fn dump(data: &Path) -> String {
    told(&log("dump", data, &[]))
}

#[tokio::test]
async fn a_running_log_is_rotated_through_the_operators_endpoint_and_by_no_one_else() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "2"]);
    let client = Client::of(&service);
    let id = client.place(&an_order()).await.id();

    let refusal = refused(&log("rotate", data.path(), &[]), 1);
    assert!(
        refusal.contains(&format!("process {}", service.pid())),
        "{refusal}"
    );

    let url = service.url("");
    let sealed = told(&run(["log", "rotate", "--url", &url]));
    assert_eq!(sealed.matches("sealed, the next").count(), 1, "{sealed}");
    assert_eq!(files(data.path()).len(), 3, "one partition has two files");
    let again = told(&run(["log", "rotate", "--url", &url]));
    assert_eq!(again.matches("nothing to seal").count(), 2, "{again}");
    assert_eq!(files(data.path()).len(), 3);

    // The order's next event goes into the new segment; its history spans both.
    let confirmed = client.step(&id, "confirm", &json!({})).await;
    client.order_after(&confirmed).await;
    let story = client.get(&format!("/orders/{id}/events")).send().await;
    let story = story.expect(200).json();
    assert_eq!(story["events"].as_array().map(Vec::len), Some(2), "{story}");
    assert!(service.terminate().success());
    assert_eq!(dump(data.path()).lines().count(), 2);
    told(&log("verify", data.path(), &[]));
}

#[tokio::test]
async fn a_stopped_log_is_rotated_in_place_and_goes_on_from_there() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let id = client.place(&an_order()).await.id();
    assert!(service.terminate().success());
    let before = dump(data.path());

    for expected in ["sealed, the next", "nothing to seal"] {
        let told = told(&log("rotate", data.path(), &[]));
        assert!(told.contains(expected), "{told}");
        assert_eq!(files(data.path()).len(), 2);
    }
    assert_eq!(dump(data.path()), before);
    told(&log("verify", data.path(), &[]));

    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    client.step(&id, "confirm", &json!({})).await;
}

#[tokio::test]
async fn a_store_of_one_file_says_that_it_has_nothing_to_rotate() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", "jsonl"]);
    let url = service.url("");
    let online = refused(&run(["log", "rotate", "--url", &url]), 2);
    assert!(online.contains("409"), "{online}");
    assert!(service.terminate().success());
    let offline = refused(&log("rotate", data.path(), &[]), 2);
    assert!(offline.contains("jsonl store"), "{offline}");
}

#[test]
fn a_rotation_of_nothing_that_is_there_is_refused_without_a_change() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let nowhere = data.path().join("nowhere");
    refused(&log("rotate", &nowhere, &[]), 2);
    assert!(!nowhere.exists());
    for url in ["nonsense", "ftp://127.0.0.1:1"] {
        refused(&run(["log", "rotate", "--url", url]), 2);
    }
    // Port 1 is nobody's: the connection is refused.
    refused(&run(["log", "rotate", "--url", "http://127.0.0.1:1"]), 1);
}

/// A stopped service's directory of one partition with three sealed segments, and an order that has an event in each.
async fn three_sealed_segments() -> (tempfile::TempDir, String) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    let url = service.url("");
    let id = client.place(&an_order()).await.id();
    let steps = [
        ("confirm", json!({})),
        ("pay", json!({"amount": 3998, "reference": "psp-1"})),
        ("ship", json!({"carrier": "DHL"})),
    ];
    for (step, body) in steps {
        told(&run(["log", "rotate", "--url", &url]));
        client.step(&id, step, &body).await;
    }
    assert!(service.terminate().success());
    assert_eq!(files(data.path()).len(), 4);
    (data, id)
}

fn archived(data: &Path) -> Vec<bool> {
    let listed = files(data);
    listed
        .iter()
        .map(|file| file["archived"].as_bool().expect("it is told"))
        .collect()
}

#[tokio::test]
async fn an_archived_log_is_read_in_place_by_everything_that_reads_a_log() {
    let (data, id) = three_sealed_segments().await;
    let before = dump(data.path());

    let planned = told(&log(
        "archive",
        data.path(),
        &["--dry-run", "--keep-last", "1"],
    ));
    assert!(planned.contains("would archive 2 segments"), "{planned}");
    assert_eq!(archived(data.path()), [false; 4]);
    let young = told(&log("archive", data.path(), &["--older-than", "90d"]));
    assert!(young.contains("3 not old enough"), "{young}");
    let done = told(&log("archive", data.path(), &["--keep-last", "1"]));
    assert!(done.contains("archived 2 segments"), "{done}");
    assert_eq!(archived(data.path()), [true, true, false, false]);
    let again = told(&log("archive", data.path(), &[]));
    assert!(again.contains("archived 1 segments"), "{again}");
    assert_eq!(archived(data.path()), [true, true, true, false]);

    assert_eq!(dump(data.path()), before);
    told(&log("verify", data.path(), &[]));

    // History, feed and a read model that is rebuilt from nothing.
    for name in ["read.db", "read.db-wal", "read.db-shm"] {
        let file = data.path().join(name);
        if file.exists() {
            std::fs::remove_file(file).expect("the read model can be removed");
        }
    }
    let service = Service::start(data.path(), &[]);
    let client = Client::of(&service);
    let order = client
        .get(&format!("/orders/{id}?min_version=4"))
        .header("prefer", "wait=30")
        .send()
        .await
        .expect(200);
    assert_eq!(order.json()["status"], "shipped");
    let story = client.get(&format!("/orders/{id}/events")).send().await;
    assert_eq!(
        story.expect(200).json()["events"].as_array().map(Vec::len),
        Some(4)
    );
    client.step(&id, "deliver", &json!({})).await;

    let refusal = refused(&log("archive", data.path(), &[]), 1);
    assert!(
        refusal.contains(&format!("process {}", service.pid())),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_damaged_segment_keeps_an_archive_from_being_made_and_is_named() {
    let (data, _) = three_sealed_segments().await;
    let file = files(data.path())[1]["file"]
        .as_str()
        .expect("a path")
        .to_owned();
    let mut bytes = std::fs::read(&file).expect("the segment reads");
    bytes[100] ^= 1;
    std::fs::write(&file, &bytes).expect("the segment can be written");
    let failure = refused(&log("archive", data.path(), &[]), 1);
    assert!(failure.contains(&file), "{failure}");
    assert_eq!(archived(data.path()), [true, false, false, false]);
    assert_eq!(std::fs::read(&file).expect("the segment reads"), bytes);
}

#[test]
fn an_age_that_is_none_is_refused() {
    let data = tempfile::tempdir().expect("a temporary directory");
    for age in ["90", "1w", "-1d"] {
        refused(
            &log("archive", data.path(), &[&format!("--older-than={age}")]),
            2,
        );
    }
}
