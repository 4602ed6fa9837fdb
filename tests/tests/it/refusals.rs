//! What a start is refused for: each with exit code and a message that says what to do, and nothing changed.

use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Client, an_order};
use crate::service::{Refusal, Service, run};

/// Exit code of what does not fit; of what was tried and failed.
const USAGE: i32 = 2;
const FAILED: i32 = 1;

fn used_directory(arguments: &[&str]) -> tempfile::TempDir {
    let data = tempfile::tempdir().expect("a temporary directory");
    let status = Service::start(data.path(), arguments).terminate();
    assert!(status.success(), "{status}");
    data
}

fn refused(data: &Path, arguments: &[&str]) -> Refusal {
    match Service::try_start(data, arguments) {
        Ok(service) => panic!("the service started: {}", service.messages()),
        Err(refusal) => refusal,
    }
}

fn assert_says(refusal: &Refusal, code: i32, words: &[&str]) {
    assert_eq!(refusal.status.code(), Some(code), "{refusal:?}");
    for word in words {
        assert!(
            refusal.message.contains(word),
            "`{word}` is not in: {}",
            refusal.message
        );
    }
}

fn change_manifest(data: &Path, change: impl FnOnce(&mut Value)) {
    let path = data.join("manifest.json");
    let text = std::fs::read_to_string(&path).expect("there is a manifest");
    let mut manifest = serde_json::from_str(&text).expect("the manifest is JSON");
    change(&mut manifest);
    std::fs::write(&path, manifest.to_string()).expect("the manifest can be written");
}

#[test]
fn another_partition_count_is_refused_with_the_command_that_changes_it() {
    let data = used_directory(&["--partitions", "2"]);
    let refusal = refused(data.path(), &["--partitions", "8"]);
    assert_says(
        &refusal,
        USAGE,
        &[
            "2 partitions",
            "--partitions 2",
            "order-service log repartition --partitions 8",
        ],
    );
    // Without the flag, and with the count there is, it starts.
    assert!(Service::start(data.path(), &[]).terminate().success());
    assert!(
        Service::start(data.path(), &["--partitions", "2"])
            .terminate()
            .success()
    );
}

#[test]
fn another_store_is_refused_with_the_one_there_is() {
    let data = used_directory(&["--store", "jsonl"]);
    let refusal = refused(data.path(), &["--store", "segmented"]);
    assert_says(&refusal, USAGE, &["jsonl", "--store jsonl", "--data-dir"]);
    assert!(Service::start(data.path(), &[]).terminate().success());
}

#[test]
fn a_directory_of_another_version_or_hash_is_refused() {
    let data = used_directory(&[]);
    change_manifest(data.path(), |manifest| manifest["format"] = json!(99));
    assert_says(
        &refused(data.path(), &[]),
        USAGE,
        &["format 99", "formats 1 to", "version"],
    );

    let data = used_directory(&[]);
    change_manifest(data.path(), |manifest| manifest["hash"] = json!("crc32"));
    assert_says(
        &refused(data.path(), &[]),
        USAGE,
        &["crc32", "murmur2", "version"],
    );
}

#[test]
fn a_damaged_or_missing_manifest_is_refused_and_never_made_anew() {
    let data = used_directory(&[]);
    let path = data.path().join("manifest.json");
    std::fs::write(&path, "{\"format\":1,").expect("the manifest can be written");
    assert_says(
        &refused(data.path(), &[]),
        USAGE,
        &["manifest.json", "backup"],
    );

    std::fs::remove_file(&path).expect("the manifest can be removed");
    assert_says(
        &refused(data.path(), &[]),
        USAGE,
        &["log", "manifest.json", "backup"],
    );
    assert!(!path.exists());
}

#[test]
fn a_log_of_another_identity_is_refused() {
    let data = used_directory(&[]);
    change_manifest(data.path(), |manifest| {
        manifest["log_id"] = json!("00000000-0000-7000-8000-000000000000");
    });
    assert_says(&refused(data.path(), &[]), USAGE, &[".seg"]);
}

#[tokio::test]
async fn a_second_process_is_refused_with_the_first_ones_process_id() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let first = Service::start(data.path(), &[]);
    let refusal = refused(data.path(), &[]);
    assert_says(
        &refusal,
        FAILED,
        &[&format!("process {}", first.pid()), "LOCK"],
    );

    let verify = run([
        "log".as_ref(),
        "verify".as_ref(),
        "--data-dir".as_ref(),
        data.path().as_os_str(),
    ]);
    assert_eq!(verify.status.code(), Some(FAILED), "{verify:?}");

    // The first one has not noticed.
    Client::of(&first).place(&an_order()).await;
    first.kill();
    assert!(
        Service::start(data.path(), &[]).terminate().success(),
        "a killed holder holds nothing"
    );
}

#[test]
fn a_taken_port_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken
        .local_addr()
        .expect("a bound socket has an address")
        .to_string();
    let data = tempfile::tempdir().expect("a temporary directory");
    let refusal = refused(data.path(), &["--listen", &address]);
    assert_says(&refusal, FAILED, &[&address, "--listen"]);
}

#[test]
fn more_read_model_files_than_partitions_are_refused_and_nothing_is_made() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let data = place.path().join("data");
    for (arguments, count) in [
        (
            &["--partitions", "2", "--read-model-shards", "3"][..],
            "2 partitions",
        ),
        (&["--read-model-shards", "9"], "4 partitions"),
    ] {
        let refusal = refused(&data, arguments);
        assert_says(&refusal, USAGE, &["read_model_shards", count]);
        assert!(!data.exists(), "{arguments:?}");
    }
    let used = used_directory(&["--partitions", "2"]);
    let refusal = refused(used.path(), &["--read-model-shards", "3"]);
    assert_says(&refusal, USAGE, &["read_model_shards", "2 partitions"]);
}
