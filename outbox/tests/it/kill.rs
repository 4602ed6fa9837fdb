//! SIGKILL, again and again, in the middle of deliveries: everything is told, each order in order, under the same ids.
//!
//! A child process reads the log and delivers; the parent kills it whenever some more has arrived, appends more, and
//! starts the next. In the end one run is left alone, and what arrived is compared with the log.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use order_outbox::{OfflineOutbox, Outbox};
use prometheus::Registry;

use crate::child::{PARTITIONS, config, start, this_program};
use crate::orders::OrderLog;
use crate::receiver::{Receiver, Reply};
use crate::support::{Consumer, eventually};

const KILLS: usize = 20;

/// Appends an event to each of `orders` orders, starts a child and kills it when a random part of `step` has `arrived`;
/// so many times.
fn kill_again_and_again(
    log: &mut OrderLog,
    orders: u16,
    url: Option<&str>,
    arrived: impl Fn() -> u64,
    step: u64,
) {
    let mut random = fastrand::Rng::with_seed(step);
    for _ in 0..KILLS {
        log.append_interleaved(orders, 1);
        let enough = arrived() + random.u64(1..=step);
        let mut child = start(&mut Command::new(this_program()), log.data(), url);
        eventually("some more arrives", || arrived() >= enough);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// The last run: in this process, until nothing is left.
fn finish(log: &OrderLog, url: Option<String>) {
    let outbox = Outbox::start(&log.log, config(url), log.data(), &Registry::new()).unwrap();
    eventually("all is told", || outbox.status().pending == 0);
    outbox.stop();
    assert_eq!(outbox.status().dead, 0);
}

#[test]
fn a_file_holds_everything_after_kill_9_at_any_moment() {
    const ORDERS: u16 = 1_000;
    let mut log = OrderLog::new(PARTITIONS);
    let path = log.data().join("outbox.jsonl");
    let length = || path.metadata().map_or(0, |metadata| metadata.len());
    kill_again_and_again(&mut log, ORDERS, None, length, 256 * 1024);
    finish(&log, None);

    let mut consumer = Consumer::default();
    let mut events: HashMap<String, serde_json::Value> = HashMap::new();
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("no line is torn");
        consumer.take(
            event["subject"].as_str().unwrap(),
            event["data"]["version"].as_u64().unwrap(),
        );
        let id = event["id"].as_str().unwrap().to_owned();
        assert_eq!(*events.entry(id).or_insert_with(|| event.clone()), event);
    }
    consumer.assert_complete(usize::from(ORDERS), KILLS as u64);
    assert_eq!(events.len(), log.events());
}

#[test]
fn a_target_gets_everything_after_kill_9_at_any_moment() {
    const ORDERS: u16 = 400;
    let mut log = OrderLog::new(PARTITIONS);
    let random = std::sync::Mutex::new(fastrand::Rng::with_seed(5));
    let receiver = Receiver::start(move |_| match random.lock().unwrap().u8(0..20) {
        0 => Reply::status(500),
        1 => Reply::Drop,
        _ => Reply::OK,
    });
    let arrived = || receiver.requests() as u64;
    kill_again_and_again(&mut log, ORDERS, Some(&receiver.url()), arrived, 300);
    finish(&log, Some(receiver.url()));

    let mut consumer = Consumer::default();
    let mut bodies = HashMap::new();
    for seen in receiver.seen() {
        consumer.take(
            seen.header("ce-subject"),
            seen.data()["version"].as_u64().unwrap(),
        );
        let id = seen.header("webhook-id").to_owned();
        assert_eq!(*bodies.entry(id).or_insert(seen.body.clone()), seen.body);
    }
    consumer.assert_complete(usize::from(ORDERS), KILLS as u64);
    assert_eq!(bodies.len(), log.events());
}

#[test]
fn a_sync_that_fails_delivers_nothing_and_moves_no_cursor() {
    if !Command::new("strace")
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!(
            "LEFT OUT: `strace` is not installed or not allowed, so no sync was made to fail"
        );
        return;
    }
    let mut log = OrderLog::new(PARTITIONS);
    log.append_interleaved(50, 2);
    let file = log.data().join("outbox.jsonl");
    let trace = log.data().join("trace");
    std::fs::write(&file, "").unwrap();
    let mut strace = Command::new("strace");
    strace.args([
        "-f",
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:error=EIO",
        "-P",
    ]);
    strace.arg(&file).arg("-o").arg(&trace).arg(this_program());
    let mut child = start(&mut strace, log.data(), None);
    eventually("three syncs of the file have failed", || {
        let trace = std::fs::read_to_string(&trace).unwrap_or_default();
        trace.matches("INJECTED").count() >= 3
    });
    drop(child.stdin.take());
    child.wait().unwrap();
    let outbox = OfflineOutbox::open(log.data(), "/").unwrap().unwrap();
    assert_eq!(
        outbox
            .cursors()
            .iter()
            .map(|cursor| cursor.get())
            .sum::<u64>(),
        0
    );
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        "",
        "what was not synced is cut off again"
    );
    drop(outbox);

    finish(&log, None);
    assert_eq!(
        std::fs::read_to_string(&file).unwrap().lines().count(),
        log.events()
    );
}
