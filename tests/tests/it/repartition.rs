//! Goal: the same events in another number of partitions are the same events. Every order's history, every row, every
//! idempotency key is what it was; nothing is told twice; and a kill at any moment loses nothing.
//!
//! Method: clients write a log over HTTP; it is rewritten from four partitions into one, seven and four again, and held
//! against what it was. Then the rewriting is killed at every rename it makes, and the data directory opened as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::client::{Answer, Client, an_order};
use crate::history::History;
use crate::renames::{REMOVALS, RENAMES, Run, run_killed_at, run_with_fault};
use crate::service::{Service, run, stdout_of};
use crate::stores::on_both_stores;
use crate::waits::{caught_up, eventually};
use crate::writers::{Dice, Ledger, write_until_gone};

on_both_stores! {
    from_four_partitions_to_one_to_seven_and_back_nothing_is_lost_doubled_or_told_twice,
    killed_at_every_rename_the_data_are_those_of_before_or_of_after,
    a_disk_that_is_full_or_fails_leaves_the_data_as_they_were,
    what_cannot_be_rewritten_is_refused_and_not_touched,
}

/// Clients that write the log, and how much of it.
const CLIENTS: u64 = 8;
const ACKNOWLEDGED_MIN: u64 = 800;
/// Orders placed with a key, to be placed again after each rewriting.
const KEYED: usize = 24;

fn repartition(data: &Path, partitions: &str, more: &[&str]) -> Output {
    let fixed = [
        "log".as_ref(),
        "repartition".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
        "--partitions".as_ref(),
        partitions.as_ref(),
    ];
    run(fixed.into_iter().chain(more.iter().map(AsRef::as_ref)))
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every order's events as they are, wherever they are.
fn events_of(data: &Path) -> BTreeMap<String, Vec<(u64, String, String, Value)>> {
    let orders = History::of(data).orders.into_iter().map(|(id, events)| {
        let events = events
            .into_iter()
            .map(|event| (event.version, event.kind, event.time, event.data));
        (id, events.collect())
    });
    orders.collect()
}

/// All rows of all projections, but for where in the log they come from.
fn rows_of(data: &Path) -> String {
    [
        "select order_id, version, status, customer_id, currency, total, paid, refunded, next_line_id, lines, metadata, \
         placed_at, updated_at from OrderView order by order_id",
        "select * from CustomerSummary order by customer_id, currency",
        "select * from SkuDemand order by sku",
    ]
    .map(|statement| {
        stdout_of([
            "sql".as_ref(),
            "--format".as_ref(),
            "csv".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            statement.as_ref(),
        ])
    })
    .concat()
}

fn lines_told(data: &Path) -> usize {
    let told = std::fs::read_to_string(data.join("outbox.jsonl")).expect("there is an outbox");
    told.lines().count()
}

/// Starts the service, waits until everything is applied and told, and stops it.
async fn settle(data: &Path) {
    let service = Service::start(data, &[]);
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());
}

/// The id of the first event that the live feed shows.
async fn first_feed_id(service: &Service) -> String {
    const CHUNKS_MAX: usize = 100;
    let mut feed = reqwest::get(service.url("/events?from=start"))
        .await
        .expect("the service answers");
    let mut text = String::new();
    for _ in 0..CHUNKS_MAX {
        let chunk = feed.chunk().await.expect("the feed goes on");
        text += &String::from_utf8_lossy(&chunk.expect("the feed has no end"));
        let lines = text.split_inclusive('\n');
        let mut ids = lines.filter_map(|line| line.strip_prefix("id:")?.strip_suffix('\n'));
        if let Some(id) = ids.next() {
            return id.trim().to_owned();
        }
    }
    panic!("no event in {text}");
}

/// Places an order with a key, for as long as the read model is being rebuilt again and again.
async fn place_keyed(client: &Client, number: usize) -> Answer {
    let mut body = an_order();
    body["customer_id"] = json!(format!("keyed-{number}"));
    eventually("the keys of before are known", async || {
        let answer = client
            .post("/orders")
            .header("idempotency-key", &format!("a-key-{number}"))
            .json(&body)
            .send()
            .await;
        match answer.status.as_u16() {
            503 => Err(answer.text),
            _ => Ok(answer.expect(201)),
        }
    })
    .await
}

/// A stopped service's directory with a lively log in four partitions, and the answers to its keyed orders.
async fn lively(store: &str) -> (tempfile::TempDir, Vec<Answer>) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = Service::start(data.path(), &["--store", store, "--partitions", "4"]);
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let mut dice = Dice::seeded();
    let clients = write_until_gone(CLIENTS, 1, &service, &ledger, &mut dice);
    let client = Client::of(&service);
    let mut keyed = Vec::new();
    for number in 0..KEYED {
        keyed.push(place_keyed(&client, number).await);
    }
    // What a key made is replayed as it was then, whatever became of the order.
    client.step(&keyed[0].id(), "confirm", &json!({})).await;
    eventually("enough is acknowledged", async || {
        let count = ledger.lock().expect("nobody panics with it").count;
        if count >= ACKNOWLEDGED_MIN {
            Ok(())
        } else {
            Err(format!("{count}"))
        }
    })
    .await;
    service.kill();
    for client in clients {
        client.await.expect("a client ends when it gets no answer");
    }
    settle(data.path()).await;
    (data, keyed)
}

async fn from_four_partitions_to_one_to_seven_and_back_nothing_is_lost_doubled_or_told_twice(
    store: &str,
) {
    let (data, keyed) = lively(store).await;
    let data = data.path();
    let (events, rows, told) = (events_of(data), rows_of(data), lines_told(data));
    let old_token = keyed[0].header("sync-token").to_owned();
    let service = Service::start(data, &[]);
    let old_feed_id = first_feed_id(&service).await;
    assert!(service.terminate().success());

    for partitions in ["1", "7", "4"] {
        let said = done(&repartition(data, partitions, &[]));
        assert!(said.contains("proven"), "{said}");
        assert!(events_of(data) == events, "{partitions}: other events");
        let verified = run([
            "log".as_ref(),
            "verify".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
        ]);
        done(&verified);

        let service = Service::start(data, &["--partitions", partitions]);
        let client = Client::of(&service);
        for (number, first) in keyed.iter().enumerate() {
            let again = place_keyed(&client, number).await;
            assert_eq!(again.text, first.text, "key {number}");
        }
        let other_body = client
            .post("/orders")
            .header("idempotency-key", "a-key-1")
            .json(&an_order());
        assert_eq!(
            other_body.send().await.expect(422).problem(),
            "idempotency-mismatch"
        );
        let path = format!("/orders/{}", keyed[0].id());
        let outdated = client.get(&path).header("sync-token", &old_token);
        let outdated = outdated.send().await.expect(400);
        assert_eq!(outdated.problem(), "invalid-sync-token");
        assert!(outdated.text.contains("rewritten"), "{outdated:?}");
        let outdated = client.get("/events").header("last-event-id", &old_feed_id);
        let outdated = outdated.send().await.expect(400);
        assert!(outdated.text.contains("rewritten"), "{outdated:?}");
        caught_up(&client).await;
        assert!(service.terminate().success());

        assert!(events_of(data) == events, "a key made another event");
        assert!(rows_of(data) == rows, "{partitions}: other rows");
        assert_eq!(lines_told(data), told, "nothing is told again");
    }
    let history = History::of(data);
    history.assert_rows_equal_it(data);
    history.assert_all_was_told(data);

    // It lives on as any log does.
    let service = Service::start(data, &[]);
    let written = Client::of(&service).place(&an_order()).await;
    service.kill();
    settle(data).await;
    let history = History::of(data);
    assert_eq!(history.orders[&written.id()].len(), 1);
    history.assert_rows_equal_it(data);
    history.assert_all_was_told(data);
}

/// A stopped service's directory with a small log in three partitions, in `place`.
async fn small(store: &str, place: &Path) -> PathBuf {
    let original = place.join("original");
    let service = Service::start(&original, &["--store", store, "--partitions", "3"]);
    let client = Client::of(&service);
    for _ in 0..12 {
        let placed = client.place(&an_order()).await;
        client.step(&placed.id(), "confirm", &json!({})).await;
    }
    caught_up(&client).await;
    assert!(service.terminate().success());
    original
}

fn copy_of(original: &Path, name: &str) -> PathBuf {
    let copy = original.with_file_name(name);
    let copied = Command::new("cp")
        .arg("-r")
        .args([original, &copy])
        .status();
    assert!(copied.is_ok_and(|status| status.success()));
    copy
}

/// Goes on with a directory in which the rewriting ended somehow, in one of three ways in turn: a service that starts, the
/// command once more, and a look that only reads before the log is proven. What is there must be what was there.
async fn go_on(data: &Path, turn: usize) {
    match turn % 3 {
        0 => {
            settle(data).await;
            History::of(data).assert_rows_equal_it(data);
        }
        1 => drop(done(&repartition(data, "2", &["--discard-old"]))),
        _ => {
            let log = |command: &str| {
                run([
                    "log".as_ref(),
                    command.as_ref(),
                    "--data-dir".as_ref(),
                    data.as_os_str(),
                ])
            };
            let look = log("ls");
            let told = String::from_utf8_lossy(&look.stderr);
            assert!(
                look.status.success() || told.contains("nothing is lost"),
                "{look:?}"
            );
            done(&log("verify"));
        }
    }
}

async fn killed_at_every_rename_the_data_are_those_of_before_or_of_after(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let original = small(store, place.path()).await;
    killed_at_every(RENAMES, &original, 6).await;
}

#[tokio::test]
async fn killed_at_every_removal_the_data_are_those_of_before_or_of_after() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let original = small("jsonl", place.path()).await;
    killed_at_every(REMOVALS, &original, 6).await;
}

/// Kills the rewriting at each of `calls`, of which there are more than `calls_min`.
async fn killed_at_every(calls: &str, original: &Path, calls_min: usize) {
    const CALLS_MAX: usize = 200;
    let (events, told) = (events_of(original), lines_told(original));
    let arguments = ["log", "repartition", "--partitions", "2"];
    let arguments = [&arguments[..], &["--discard-old", "--data-dir"]].concat();
    for when in 1..CALLS_MAX {
        let data = copy_of(original, &format!("killed-at-{when}"));
        match run_killed_at(calls, when, &arguments, &data) {
            None => return,
            Some(Run::Done) => {
                assert!(events_of(&data) == events);
                assert!(when > calls_min, "only {when} calls were met");
                return;
            }
            Some(Run::Killed) => {}
        }
        go_on(&data, when).await;
        assert!(events_of(&data) == events, "killed at call {when}");
        settle(&data).await;
        assert_eq!(lines_told(&data), told, "killed at call {when}");
        std::fs::remove_dir_all(&data).expect("the copy can be removed");
    }
    panic!("the rewriting makes more than {CALLS_MAX} calls");
}

async fn a_disk_that_is_full_or_fails_leaves_the_data_as_they_were(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let original = small(store, place.path()).await;
    let (events, told) = (events_of(&original), lines_told(&original));
    let faults = [
        ("pwrite64", "error=ENOSPC:when=1+"),
        ("pwrite64", "error=ENOSPC:when=6+"),
        ("fdatasync", "error=EIO:when=2"),
        ("fsync", "error=EIO:when=1"),
        ("fsync", "error=EIO:when=4"),
    ];
    let arguments = ["log", "repartition", "--partitions", "2", "--data-dir"];
    let mut failures = 0;
    for (turn, (call, fault)) in faults.into_iter().enumerate() {
        let data = copy_of(&original, &format!("fault-{turn}"));
        let Some(output) = run_with_fault(call, fault, &arguments, &data) else {
            return;
        };
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{call}, {fault}: {output:?}");
        failures += i32::from(code == Some(1));
        go_on(&data, turn).await;
        assert!(events_of(&data) == events, "{call}, {fault}");
        settle(&data).await;
        assert_eq!(lines_told(&data), told, "{call}, {fault}");
        std::fs::remove_dir_all(&data).expect("the copy can be removed");
    }
    assert!(failures >= 3, "only {failures} faults were met");
}

async fn what_cannot_be_rewritten_is_refused_and_not_touched(store: &str) {
    let data = tempfile::tempdir().expect("a temporary directory");
    let data = data.path();
    let service = Service::start(data, &["--store", store, "--partitions", "2"]);
    Client::of(&service).place(&an_order()).await;

    let refused = |output: Output, code: i32, word: &str| {
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(word), "`{word}` is not in: {told}");
    };
    let pid = format!("process {}", service.pid());
    refused(repartition(data, "3", &[]), 1, &pid);
    drop(service);
    settle(data).await;
    let names = || {
        let mut names: Vec<_> = std::fs::read_dir(data)
            .expect("the directory lists")
            .map(|entry| entry.expect("the directory lists").file_name())
            .collect();
        names.sort();
        names
    };
    let before = names();
    for partitions in ["0", "1025"] {
        refused(repartition(data, partitions, &[]), 2, "are possible");
    }
    let nowhere = data.join("nowhere");
    refused(repartition(&nowhere, "3", &[]), 2, "not a data directory");
    assert!(!nowhere.exists());
    assert!(done(&repartition(data, "2", &[])).contains("nothing to change"));
    assert_eq!(names(), before);

    // A start with another count names this command, and this command takes what it names.
    let refusal = match Service::try_start(data, &["--partitions", "3"]) {
        Err(refusal) => refusal,
        Ok(_) => panic!("a service started with another count"),
    };
    assert!(
        refusal
            .message
            .contains("order-service log repartition --partitions 3 --data-dir"),
        "{refusal:?}"
    );
    done(&repartition(data, "3", &["--discard-old"]));
    drop(Service::start(data, &["--partitions", "3"]));
    let left: Vec<_> = names()
        .into_iter()
        .filter(|name| name.to_string_lossy().contains("before-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
