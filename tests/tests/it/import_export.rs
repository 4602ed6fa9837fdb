//! Goal: a log written as JSON lines and read back is the same log, in either engine, record by record; a file that is not
//! a whole log is refused by the number of its line, and nothing of it is kept.
//!
//! Method: a service writes a log over HTTP; it goes through files and pipes from engine to engine. Then lines are changed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::client::{Answer, Client, an_order};
use crate::history::History;
use crate::renames::{Run, run_killed_at_rename};
use crate::service::{Service, binary, run, stdout_of};
use crate::stores::on_both_stores;
use crate::waits::{caught_up, eventually};

on_both_stores! {
    what_is_exported_and_imported_is_the_same_log_in_either_engine,
    a_line_that_is_no_record_is_refused_by_its_number_and_nothing_is_kept,
    orders_are_spread_anew_only_when_asked_for,
}

const OTHER_STORE: [(&str, &str); 2] = [("segmented", "jsonl"), ("jsonl", "segmented")];

fn other(store: &str) -> &'static str {
    let found = OTHER_STORE.iter().find(|(one, _)| *one == store);
    found.expect("there are two engines").1
}

fn import(from: &Path, data: &Path, more: &[&str]) -> Output {
    let fixed = [
        "log".as_ref(),
        "import".as_ref(),
        "--from".as_ref(),
        from.as_os_str(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ];
    run(fixed.into_iter().chain(more.iter().map(AsRef::as_ref)))
}

fn export(data: &Path, to: &Path) -> Output {
    run([
        "log".as_ref(),
        "export".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
        "--to".as_ref(),
        to.as_os_str(),
    ])
}

fn done(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn dump(data: &Path) -> String {
    stdout_of([
        "log".as_ref(),
        "dump".as_ref(),
        "--data-dir".as_ref(),
        data.as_os_str(),
    ])
}

fn lines_of(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the file reads");
    text.lines().map(str::to_owned).collect()
}

async fn place_keyed(client: &Client, number: usize) -> Answer {
    eventually("the keys of before are known", async || {
        let answer = client
            .post("/orders")
            .header("idempotency-key", &format!("key-{number}"))
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .json(&an_order())
            .send()
            .await;
        match answer.status.as_u16() {
            503 => Err(answer.text),
            _ => Ok(answer.expect(201)),
        }
    })
    .await
}

/// Orders placed with a key.
const KEYED: usize = 10;

/// A stopped service's directory: orders with keys and traces, some with frames of several events.
async fn written(store: &str, data: &Path, partitions: &str) -> Vec<Answer> {
    let service = Service::start(data, &["--store", store, "--partitions", partitions]);
    let client = Client::of(&service);
    let mut keyed = Vec::new();
    for number in 0..KEYED {
        let placed = place_keyed(&client, number).await;
        let id = placed.id();
        client.step(&id, "confirm", &json!({})).await;
        if number % 2 == 0 {
            client.step(&id, "pay", &json!({"amount": 3998})).await;
            // Refund and cancellation: two events in one frame.
            let why = json!({"reason": "too slow: \u{1f40c} \"quoted\"\n"});
            client.step(&id, "cancel", &why).await;
        }
        keyed.push(placed);
    }
    caught_up(&client).await;
    assert!(service.terminate().success());
    keyed
}

async fn what_is_exported_and_imported_is_the_same_log_in_either_engine(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| -> PathBuf { place.path().join(name) };
    let data = path("data");
    let keyed = written(store, &data, "3").await;
    done(&export(&data, &path("first.jsonl")));
    if store == "jsonl" {
        let kept = std::fs::read(data.join("events.jsonl")).expect("the log reads");
        let exported = std::fs::read(path("first.jsonl")).expect("the file reads");
        assert!(kept == exported, "the file is the log, byte for byte");
    }

    // Into the other engine, and from there into this one again, through a pipe.
    let flags = ["--partitions", "3", "--store", other(store)];
    done(&import(&path("first.jsonl"), &path("there"), &flags));
    assert_eq!(dump(&path("there")), dump(&data));
    let mut exporting = Command::new(binary())
        .args(["log", "export", "--to", "-", "--data-dir"])
        .arg(path("there"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary starts");
    let pipe = exporting.stdout.take().expect("the output is piped");
    let importing = Command::new(binary())
        .args([
            "log",
            "import",
            "--from",
            "-",
            "--partitions",
            "3",
            "--store",
        ])
        .args([store, "--already-told", "--data-dir"])
        .arg(path("back"))
        .stdin(pipe)
        .output()
        .expect("the binary runs");
    done(&importing);
    assert!(exporting.wait().is_ok_and(|status| status.success()));
    assert_eq!(dump(&path("back")), dump(&data));

    done(&export(&path("back"), &path("second.jsonl")));
    let (mut first, mut second) = (
        lines_of(&path("first.jsonl")),
        lines_of(&path("second.jsonl")),
    );
    if store == "segmented" {
        assert!(first == second, "the same lines in the same order");
    }
    first.sort();
    second.sort();
    assert!(first == second, "the same lines");

    // It is a log like any other: rows, keys, histories, and nothing is told that was told.
    let service = Service::start(&path("back"), &[]);
    let client = Client::of(&service);
    for (number, placed) in keyed.iter().enumerate() {
        assert_eq!(place_keyed(&client, number).await.text, placed.text);
    }
    client.place(&an_order()).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    History::of(&path("back")).assert_rows_equal_it(&path("back"));
    assert_eq!(lines_of(&path("back").join("outbox.jsonl")).len(), 1);

    // Without saying that they were told, all of them are.
    let service = Service::start(&path("there"), &[]);
    caught_up(&Client::of(&service)).await;
    assert!(service.terminate().success());
    History::of(&path("there")).assert_all_was_told(&path("there"));
}

/// What a line is changed into; `None` for a line that is left out.
type Change = fn(&str) -> Option<String>;

fn changed(line: &str, field: &str, value: &Value) -> Option<String> {
    let mut record: Value = serde_json::from_str(line).expect("a line is JSON");
    record[field] = value.clone();
    Some(record.to_string())
}

async fn a_line_that_is_no_record_is_refused_by_its_number_and_nothing_is_kept(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, file) = (place.path().join("data"), place.path().join("file.jsonl"));
    written(store, &data, "2").await;
    done(&export(&data, &file));
    let whole = lines_of(&file);
    let wrong = place.path().join("wrong.jsonl");
    let new = place.path().join("new");

    // The second event of an order, with others behind it.
    let at = whole
        .iter()
        .position(|line| line.contains("\"version\":2,"))
        .expect("there is a second event");
    let cases: [(&str, Change); 7] = [
        ("not JSON", |_| Some("{\"partition\":0,".to_owned())),
        ("offset", |line| changed(line, "offset", &json!(100_000))),
        ("event type 99", |line| changed(line, "type_id", &json!(99))),
        ("codec 7", |line| changed(line, "codec", &json!(7))),
        ("does not decode", |line| {
            changed(line, "data", &json!({"no": "event"}))
        }),
        ("version 7", |line| changed(line, "version", &json!(7))),
        ("its order's frame before it", |line| {
            changed(line, "previous", &Value::Null)
        }),
    ];
    for (words, change) in cases {
        let mut lines = whole.clone();
        lines[at] = change(&whole[at]).expect("the line is changed");
        std::fs::write(&wrong, lines.join("\n") + "\n").expect("the file can be written");
        refused(
            &import(&wrong, &new, &["--partitions", "2"]),
            &[&format!("line {} ", at + 1), words],
            &new,
        );
    }

    // A file that ends in the middle of a line, and one without a line.
    std::fs::write(&wrong, whole.join("\n")).expect("the file can be written");
    let cut = import(&wrong, &new, &["--partitions", "2"]);
    refused(&cut, &[&format!("line {} ", whole.len()), "cut off"], &new);
    let nothing = import(&place.path().join("nothing"), &new, &[]);
    assert_eq!(nothing.status.code(), Some(2), "{nothing:?}");

    // What was refused is no obstacle, what is there is.
    done(&import(&file, &new, &["--partitions", "2"]));
    assert_eq!(dump(&new), dump(&data));
    let again = import(&file, &new, &["--partitions", "2"]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert_eq!(dump(&new), dump(&data));
    let over = export(&new, &file);
    assert_eq!(over.status.code(), Some(2), "{over:?}");
}

/// The import must have been refused with each of `words`, and have kept nothing in `data`.
fn refused(output: &Output, words: &[&str], data: &Path) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // A place is told as `line 7 (byte 99)` or `line 7: …`.
    let told = String::from_utf8_lossy(&output.stderr).replace(": ", " : ");
    for word in words {
        assert!(told.contains(word), "`{word}` is not in: {told}");
    }
    let mut kept: Vec<_> = std::fs::read_dir(data)
        .expect("the directory is there")
        .map(|entry| entry.expect("it can be listed").file_name())
        .collect();
    kept.sort();
    assert_eq!(kept, ["LOCK", "PROJECTOR.LOCK"]);
}

async fn orders_are_spread_anew_only_when_asked_for(store: &str) {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, file) = (place.path().join("data"), place.path().join("file.jsonl"));
    let keyed = written(store, &data, "4").await;
    done(&export(&data, &file));
    let new = place.path().join("new");
    let flags = ["--partitions", "3", "--store", store];
    refused(&import(&file, &new, &flags), &["--repartition"], &new);

    done(&import(
        &file,
        &new,
        &[&flags[..], &["--repartition"]].concat(),
    ));
    let events = |data: &Path| {
        let mut events: Vec<_> = History::of(data)
            .orders
            .into_iter()
            .map(|(id, events)| {
                let events = events
                    .into_iter()
                    .map(|event| (event.version, event.kind, event.time, event.data));
                (id, events.collect::<Vec<_>>())
            })
            .collect();
        events.sort_by(|one, other| one.0.cmp(&other.0));
        events
    };
    assert!(events(&new) == events(&data));
    let service = Service::start(&new, &[]);
    let client = Client::of(&service);
    for (number, placed) in keyed.iter().enumerate() {
        assert_eq!(place_keyed(&client, number).await.text, placed.text);
    }
    caught_up(&client).await;
    assert!(service.terminate().success());
    History::of(&new).assert_rows_equal_it(&new);
}

#[tokio::test]
async fn an_import_killed_at_any_rename_is_run_again_or_finished_by_the_next_start() {
    const RENAMES_MAX: usize = 60;
    let place = tempfile::tempdir().expect("a temporary directory");
    let (data, file) = (place.path().join("data"), place.path().join("file.jsonl"));
    written("segmented", &data, "2").await;
    done(&export(&data, &file));
    let events = dump(&data);
    let from = file.to_str().expect("the path is UTF-8");
    for when in 1..RENAMES_MAX {
        let new = place.path().join(format!("killed-at-{when}"));
        let arguments = [
            "log",
            "import",
            "--partitions",
            "2",
            "--from",
            from,
            "--data-dir",
        ];
        match run_killed_at_rename(&arguments, &new, when) {
            None => return,
            Some(Run::Done) => {
                assert!(when > 4, "only {when} renames were met");
                return;
            }
            Some(Run::Killed) => {}
        }
        match Service::try_start(&new, &[]) {
            Ok(service) => assert!(service.terminate().success()),
            Err(refusal) => {
                assert_eq!(refusal.status.code(), Some(2), "{refusal:?}");
                assert!(refusal.message.contains("run that again"), "{refusal:?}");
                done(&import(&file, &new, &["--partitions", "2"]));
            }
        }
        assert_eq!(dump(&new), events, "killed at rename {when}");
    }
    panic!("an import makes more than {RENAMES_MAX} renames");
}
