//! Goal: a backup taken while the service works restores to a service that has every order acknowledged before the backup
//! began; anything less than a whole, unchanged backup is never restored.
//!
//! Method: clients write without pause and remember every answer; the backup runs in the middle, beside them. Then the
//! original is killed, the backup restored, and log, rows and integration events are held against what was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::client::{Client, an_order};
use crate::history::History;
use crate::renames::{Run, run_killed_at_rename};
use crate::service::{Service, run};
use crate::stores::on_both_stores;
use crate::waits::{caught_up, eventually};
use crate::writers::{Dice, Ledger, write_until_gone};

on_both_stores! {
    a_backup_taken_under_load_restores_with_every_order_acknowledged_before_it,
    a_backup_of_a_stopped_service_restores_to_the_same_events,
    a_changed_or_missing_file_is_found_and_nothing_is_restored,
    only_an_empty_directory_of_nobody_is_restored_into,
}

/// Clients that write while the backup is made.
const CLIENTS: u64 = 8;
/// Acknowledgements before the backup begins.
const ACKNOWLEDGED_MIN: u64 = 600;

fn backup(data: &Path, to: &Path) -> Output {
    run([
        "backup".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
        "--to".as_ref(),
        to.as_os_str(),
    ])
}

fn restore(from: &Path, data: &Path) -> Output {
    run([
        "restore".as_ref(),
        "--from".as_ref(),
        from.as_os_str(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ])
}

fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// The command must have ended with `code`, and said each of `words`.
fn refused(output: &Output, code: i32, words: &[&str]) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
}

async fn a_backup_taken_under_load_restores_with_every_order_acknowledged_before_it(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, copy) = (place.path().join("data"), place.path().join("backup"));
    let service = Service::start(&data, &["--store", store, "--partitions", "3"]);
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let mut dice = Dice::seeded();
    let clients = write_until_gone(CLIENTS, 1, &service, &ledger, &mut dice);
    let acknowledged = |least: u64| {
        let ledger = Arc::clone(&ledger);
        eventually("enough is acknowledged", async move || {
            let count = ledger.lock().expect("nobody panics with it").count;
            if count >= least {
                Ok(count)
            } else {
                Err(format!("{count} of {least}"))
            }
        })
    };
    acknowledged(ACKNOWLEDGED_MIN).await;

    let before = ledger
        .lock()
        .expect("nobody panics with it")
        .acknowledged
        .clone();
    let made = tokio::task::spawn_blocking({
        let (data, copy) = (data.clone(), copy.clone());
        move || backup(&data, &copy)
    });
    done(&made.await.expect("the backup runs"));
    let beyond = ledger.lock().expect("nobody panics with it").count;
    acknowledged(beyond + 1).await;
    service.kill();
    for client in clients {
        client.await.expect("a client ends when it gets no answer");
    }

    let restored = place.path().join("restored");
    done(&run([
        "backup".as_ref(),
        "--verify".as_ref(),
        copy.as_os_str(),
    ]));
    done(&restore(&copy, &restored));
    assert_holds(&History::of(&restored), &before);
    lives_on(&restored).await;
    assert_holds(&History::of(&restored), &before);
}

/// Every answer of `ledger` is in the log as it was shown.
fn assert_holds(
    history: &History,
    ledger: &std::collections::HashMap<String, BTreeMap<u64, Value>>,
) {
    assert!(!ledger.is_empty());
    for (id, versions) in ledger {
        for (version, shown) in versions {
            assert_eq!(history.order_at(id, *version), *shown);
        }
    }
}

/// The service starts on `data`, takes writes, survives a kill, and its rows and integration events are those of its log.
async fn lives_on(data: &Path) {
    let mut written = Vec::new();
    for _ in 0..2 {
        let service = Service::start(data, &[]);
        let client = Client::of(&service);
        for _ in 0..5 {
            written.push(client.place(&an_order()).await.id());
        }
        for id in &written {
            let path = format!("/orders/{id}?min_version=1");
            let wait = client.get(&path).header("prefer", "wait=30");
            wait.send().await.expect(200);
        }
        service.kill();
    }
    let service = Service::start(data, &[]);
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());
    let history = History::of(data);
    for id in &written {
        assert_eq!(history.orders[id].len(), 1, "order {id}");
    }
    history.assert_rows_equal_it(data);
    history.assert_all_was_told(data);
}

/// A stopped service's directory with a few orders, and a backup of it.
async fn backed_up(store: &str, place: &Path) -> (PathBuf, PathBuf) {
    let (data, copy) = (place.join("data"), place.join("backup"));
    let service = Service::start(&data, &["--store", store, "--partitions", "2"]);
    let client = Client::of(&service);
    for _ in 0..20 {
        client.place(&an_order()).await;
    }
    caught_up(&client).await;
    assert!(service.terminate().success());
    done(&backup(&data, &copy));
    (data, copy)
}

fn dump(data: &Path) -> String {
    crate::service::stdout_of([
        "log".as_ref(),
        "dump".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ])
}

async fn a_backup_of_a_stopped_service_restores_to_the_same_events(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, copy) = backed_up(store, place.path()).await;
    let restored = place.path().join("deep/er/restored");
    done(&restore(&copy, &restored));
    assert_eq!(dump(&data), dump(&restored));
    // Nothing is told again: the cursor was at the end.
    let told = std::fs::read(data.join("outbox.jsonl")).expect("there is an outbox");
    let service = Service::start(&restored, &[]);
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());
    assert!(told == std::fs::read(restored.join("outbox.jsonl")).expect("there is an outbox"));
    History::of(&restored).assert_rows_equal_it(&restored);
}

async fn a_changed_or_missing_file_is_found_and_nothing_is_restored(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (_, copy) = backed_up(store, place.path()).await;
    let restored = place.path().join("restored");
    let events = match store {
        "jsonl" => copy.join("events.jsonl"),
        _ => copy.join("log/p001/00000000000000000000.seg"),
    };
    let whole = std::fs::read(&events).expect("the events read");
    let mut changed = whole.clone();
    changed[100] ^= 1;
    let name = events.display().to_string();
    for wrong in [Some(&changed[..]), Some(&whole[..whole.len() - 1]), None] {
        match wrong {
            Some(bytes) => std::fs::write(&events, bytes).expect("the file can be written"),
            None => std::fs::remove_file(&events).expect("the file can be removed"),
        }
        let verified = run(["backup".as_ref(), "--verify".as_ref(), copy.as_os_str()]);
        refused(&verified, 1, &["damaged", &name]);
        refused(&restore(&copy, &restored), 1, &["damaged", &name]);
        assert!(!restored.exists(), "nothing was made");
    }
    std::fs::write(&events, &whole).expect("the file can be written");

    // A changed digit of the manifest is not another backup.
    let manifest = copy.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("the manifest reads");
    assert!(text.contains("\\\"partitions\\\": 2") || text.contains("\"partitions\": 2"));
    std::fs::write(
        &manifest,
        text.replace("\"partitions\": 2", "\"partitions\": 1"),
    )
    .expect("the file can be written");
    refused(&restore(&copy, &restored), 2, &["digest"]);
    std::fs::write(&manifest, &text).expect("the file can be written");
    done(&restore(&copy, &restored));
}

async fn only_an_empty_directory_of_nobody_is_restored_into(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, copy) = backed_up(store, place.path()).await;
    refused(&restore(&copy, &data), 2, &["not empty"]);
    refused(&backup(&data, &copy), 2, &["not empty"]);
    refused(
        &backup(&data, &data.join("backup")),
        2,
        &["in the data directory"],
    );
    refused(
        &restore(&place.path().join("nowhere"), &place.path().join("new")),
        2,
        &["no backup"],
    );

    // An owned directory that is empty still: whoever owns it is about to fill it.
    let owned = place.path().join("owned");
    std::fs::create_dir(&owned).expect("the directory can be made");
    let mut owner = Command::new("flock")
        .arg(owned.join("LOCK"))
        .args(["sh", "-c", "echo locked; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock runs");
    let mut said = String::new();
    let stdout = owner.stdout.take().expect("the output is piped");
    BufReader::new(stdout)
        .read_line(&mut said)
        .expect("it says that it has the lock");
    refused(&restore(&copy, &owned), 1, &["held by process"]);
    drop(owner.stdin.take());
    owner.wait().expect("it ends with its input");

    let refusal = match Service::try_start(&copy, &[]) {
        Err(refusal) => refusal,
        Ok(_) => panic!("a service started on a backup"),
    };
    assert_eq!(refusal.status.code(), Some(2));
    assert!(refusal.message.contains("is a backup"), "{refusal:?}");
}

#[tokio::test]
async fn an_interrupted_backup_is_never_restored_and_can_be_begun_anew() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, copy) = backed_up("segmented", place.path()).await;
    // What a kill before the last rename leaves.
    std::fs::rename(
        copy.join("manifest.json"),
        copy.join("manifest.json.unfinished"),
    )
    .expect("the manifest can be renamed");

    let restored = place.path().join("restored");
    refused(&restore(&copy, &restored), 2, &["not finished"]);
    assert!(!restored.exists(), "nothing was made");
    let verified = run(["backup".as_ref(), "--verify".as_ref(), copy.as_os_str()]);
    refused(&verified, 2, &["not finished"]);
    let started = Service::try_start(&copy, &[]);
    assert!(started.is_err(), "a service started on half a backup");

    done(&backup(&data, &copy));
    done(&restore(&copy, &restored));
    assert_eq!(dump(&data), dump(&restored));
}

#[tokio::test]
async fn a_restore_killed_at_any_rename_is_run_again_or_finished_by_the_next_start() {
    const RENAMES_MAX: usize = 60;
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, copy) = backed_up("segmented", place.path()).await;
    let events = dump(&data);
    let from = copy.to_str().expect("the path is UTF-8");
    for when in 1..RENAMES_MAX {
        let restored = place.path().join(format!("killed-at-{when}"));
        let arguments = ["restore", "--from", from, "--data-dir"];
        match run_killed_at_rename(&arguments, &restored, when) {
            None => return,
            Some(Run::Done) => {
                assert!(when > 6, "only {when} renames were met");
                return;
            }
            Some(Run::Killed) => {}
        }
        match Service::try_start(&restored, &[]) {
            // It had been decided: the start has finished it.
            Ok(service) => assert!(service.terminate().success()),
            Err(refusal) => {
                assert_eq!(refusal.status.code(), Some(2), "{refusal:?}");
                assert!(refusal.message.contains("run that again"), "{refusal:?}");
                done(&restore(&copy, &restored));
            }
        }
        assert_eq!(dump(&restored), events, "killed at rename {when}");
    }
    panic!("a restore makes more than {RENAMES_MAX} renames");
}

#[tokio::test]
async fn a_backup_of_many_segments_and_read_model_files_is_whole() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, copy) = (place.path().join("data"), place.path().join("backup"));
    let service = Service::start(&data, &["--partitions", "2", "--read-model-shards", "2"]);
    let client = Client::of(&service);
    // A segment has 1 MiB at first: a few large orders fill it.
    let mut large = an_order();
    large["metadata"] = Value::Object(
        (0..30)
            .map(|number| (format!("note-{number}"), Value::from("x".repeat(200))))
            .collect(),
    );
    let sealed = || {
        data.join("log/p000").read_dir().is_ok_and(|files| {
            files
                .filter_map(Result::ok)
                .filter(|file| file.path().extension().is_some_and(|it| it == "seg"))
                .count()
                > 1
        })
    };
    const ORDERS_MAX: usize = 2_000;
    let mut placed = 0;
    while !sealed() {
        placed += 1;
        assert!(placed < ORDERS_MAX, "no segment was sealed");
        client.place(&large).await;
    }
    done(&backup(&data, &copy));
    drop(service);
    let restored = place.path().join("restored");
    done(&restore(&copy, &restored));
    assert_eq!(dump(&data), dump(&restored));
    assert!(restored.join("read-001.db").exists());
    let service = Service::start(&restored, &["--read-model-shards", "2"]);
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());
    History::of(&restored).assert_rows_equal_it(&restored);
}
