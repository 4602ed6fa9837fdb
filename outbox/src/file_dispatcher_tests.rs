//! The file holds every event, each order's in order, wherever a crash stops the dispatcher.
//!
//! A crash is the end of a dispatcher between two of its steps: what it wrote stays, what it did not commit is gone. The
//! kill -9 of a whole process is in `tests/`.

use std::collections::HashMap;
use std::fs;
use std::io::Write;

use order_domain::{Event, OrderId};
use prometheus::Registry;
use serde_json::Value;

use super::*;
use crate::EventId;
use crate::config::OutboxConfig;
use crate::dead_letters::DeadLetters;
use crate::metrics::Attempts;
use crate::progress::Progress;
use crate::test_support::{OrderLog, line_added, order, placed};

fn shared(log: &OrderLog, config: OutboxConfig) -> Arc<Shared> {
    use order_log::EventLog;
    let readers: Arc<[_]> = (0..log.log.partition_count())
        .map(|partition| log.reader(partition))
        .collect();
    Arc::new(Shared {
        progress: Arc::new(Progress::new(&vec![order_log::Offset::ZERO; readers.len()])),
        attempts: Attempts::register(&Registry::new()).unwrap(),
        directory: log.data().to_owned(),
        config,
        readers,
    })
}

fn dispatcher(log: &OrderLog) -> FileDispatcher {
    FileDispatcher::open(shared(log, OutboxConfig::default())).unwrap()
}

/// Runs rounds until nothing is left.
fn drain(log: &OrderLog) {
    let mut dispatcher = dispatcher(log);
    for _ in 0..1_000 {
        dispatcher.round().unwrap();
        if dispatcher.lines.is_empty() {
            return;
        }
    }
    panic!("there is no end to what is told");
}

fn lines(log: &OrderLog) -> Vec<Value> {
    let text = fs::read_to_string(log.data().join("outbox.jsonl")).unwrap();
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line is torn"
    );
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn versions_of(lines: &[Value], order: OrderId) -> Vec<u64> {
    let subject = order.to_string();
    let of_order = lines.iter().filter(|line| line["subject"] == subject);
    of_order
        .map(|line| line["data"]["version"].as_u64().unwrap())
        .collect()
}

/// The first time each id is told, the order's versions go up one by one.
fn assert_told_in_order_at_least_once(lines: &[Value], orders: u16, events: u64) {
    for number in 0..orders {
        let mut seen = 0;
        for version in versions_of(lines, order(number)) {
            assert!(
                version <= seen + 1,
                "order {number}: version {version} was told after {seen}"
            );
            seen = seen.max(version);
        }
        assert_eq!(seen, events, "order {number}");
    }
}

#[test]
fn without_a_crash_every_event_is_told_once_and_in_order() {
    let mut log = OrderLog::new(3);
    log.append_interleaved(50, 6);
    drain(&log);
    let lines = lines(&log);
    assert_eq!(lines.len(), log.events());
    for number in 0..50 {
        assert_eq!(
            versions_of(&lines, order(number)),
            [1, 2, 3, 4, 5, 6],
            "order {number}"
        );
    }
}

#[test]
fn a_new_start_goes_on_where_the_last_one_ended() {
    let mut log = OrderLog::new(2);
    log.append_interleaved(10, 1);
    drain(&log);
    drain(&log);
    assert_eq!(lines(&log).len(), 10);
    log.append(order(4), &[line_added(1)]);
    drain(&log);
    assert_eq!(lines(&log).len(), 11);
    assert_eq!(versions_of(&lines(&log), order(4)), [1, 2]);
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing_and_keeps_ids_and_order() {
    let steps = FileDispatcher::STEPS;
    for survived in 0..=steps.len() {
        let mut log = OrderLog::new(2);
        log.append_interleaved(20, 3);
        for _ in 0..4 {
            let mut dispatcher = dispatcher(&log);
            for step in &steps[..survived] {
                step(&mut dispatcher).unwrap();
            }
            drop(dispatcher);
        }
        drain(&log);
        let lines = lines(&log);
        assert_told_in_order_at_least_once(&lines, 20, 3);
        let mut by_id: HashMap<String, &Value> = HashMap::new();
        for line in &lines {
            let id = line["id"].as_str().unwrap().to_owned();
            assert_eq!(
                *by_id.entry(id).or_insert(line),
                line,
                "an id means one event for ever"
            );
        }
        // Committed before the crash: told once. Written and not committed: told once more a crash.
        let expected = [60, 60, 5 * 60, 60];
        assert_eq!(lines.len(), expected[survived], "after {survived} steps");
    }
}

#[test]
fn a_line_torn_by_a_crash_is_cut_and_told_again_whole() {
    let mut log = OrderLog::new(1);
    log.append_interleaved(5, 2);
    let mut dispatcher = dispatcher(&log);
    dispatcher.gather().unwrap();
    let half = dispatcher.lines.len() / 2;
    let mut file = fs::File::create(log.data().join("outbox.jsonl")).unwrap();
    file.write_all(&dispatcher.lines[..half]).unwrap();
    drop(dispatcher);
    drain(&log);
    assert_told_in_order_at_least_once(&lines(&log), 5, 2);
}

#[test]
fn an_event_that_does_not_decode_sets_its_order_aside_and_nobody_elses() {
    let mut log = OrderLog::new(2);
    log.append(order(0), &[placed()]);
    log.append_unreadable(order(0));
    log.append(order(0), &[line_added(1), Event::OrderConfirmed]);
    log.append(order(2), &[placed(), line_added(1)]);
    drain(&log);
    assert_eq!(versions_of(&lines(&log), order(0)), [1]);
    assert_eq!(versions_of(&lines(&log), order(2)), [1, 2]);

    let dead = DeadLetters::open(log.data(), "/")
        .unwrap()
        .page(10, None)
        .unwrap();
    let ids: Vec<_> = dead
        .iter()
        .map(|letter| letter.id.version().get())
        .collect();
    assert_eq!(ids, [2, 3, 4]);
    assert!(dead[0].dead && dead[0].behind.is_none() && dead[0].event_type.is_none());
    assert!(dead[0].error.contains("999"), "{}", dead[0].error);
    assert_eq!(dead[1].behind, Some(dead[0].id));

    // Later events of the order queue, across a restart too.
    log.append(order(0), &[Event::OrderDelivered]);
    drain(&log);
    assert_eq!(versions_of(&lines(&log), order(0)), [1]);
    assert_eq!(
        DeadLetters::open(log.data(), "/")
            .unwrap()
            .page(10, None)
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn pages_of_dead_events_follow_one_another_without_gap_or_repetition() {
    let mut log = OrderLog::new(2);
    for number in 0..7 {
        log.append_unreadable(order(number));
        log.append(order(number), &[line_added(1)]);
    }
    drain(&log);
    let dead_letters = DeadLetters::open(log.data(), "/").unwrap();
    let all = dead_letters.page(100, None).unwrap();
    assert_eq!(all.len(), 14);
    let mut paged: Vec<crate::HeldEvent> = Vec::new();
    for _ in 0..all.len().div_ceil(3) {
        let after = paged.last().map(|letter| letter.id);
        paged.extend(dead_letters.page(3, after).unwrap());
    }
    assert_eq!(paged, all);
}

#[test]
fn an_order_is_redriven_in_order_and_before_what_is_new_of_it() {
    let mut log = OrderLog::new(1);
    log.append(order(0), &[placed(), line_added(1)]);
    log.append_unreadable(order(1));
    log.append(order(1), &[line_added(1)]);
    drain(&log);
    // As if a later version could decode it: the store's copy becomes the event it should be.
    let mut bytes = Vec::new();
    let header = order_domain::codec::encode(
        order_domain::codec::Codec::Bincode,
        &placed(),
        &order_domain::EventContext::default(),
        &mut bytes,
    );
    let store = rusqlite::Connection::open(log.data().join("outbox.db")).unwrap();
    let changed = store.execute(
        "UPDATE held_event SET event_type = ?1, schema = ?2, codec = ?3, bytes = ?4 WHERE version = 1",
        rusqlite::params![header.event_type, header.schema, header.codec, bytes],
    );
    assert_eq!(changed, Ok(1));

    let mut dispatcher = dispatcher(&log);
    let first = EventId::new(order(1), order_domain::Version::new(1));
    assert_eq!(
        dispatcher
            .ledger
            .redrive(Some(first), Instant::now())
            .unwrap(),
        2
    );
    log.append(order(1), &[Event::OrderConfirmed]);
    dispatcher.round().unwrap();
    assert_eq!(versions_of(&lines(&log), order(1)), [1, 2, 3]);
    assert_eq!(dispatcher.ledger.dead_events(), 0);
    drop(dispatcher);
    drain(&log);
    assert_eq!(lines(&log).len(), 5);
}

#[test]
fn redriving_what_is_still_unreadable_leaves_it_dead() {
    let mut log = OrderLog::new(1);
    log.append_unreadable(order(1));
    log.append(order(1), &[line_added(1)]);
    drain(&log);
    let mut dispatcher = dispatcher(&log);
    assert_eq!(dispatcher.ledger.redrive(None, Instant::now()).unwrap(), 2);
    dispatcher.round().unwrap();
    assert_eq!(dispatcher.ledger.dead_events(), 2);
    assert_eq!(lines(&log).len(), 0);
}

#[test]
fn an_outbox_full_of_dead_events_stops_reading_and_says_so() {
    let mut log = OrderLog::new(1);
    for number in 0..5 {
        log.append_unreadable(order(number));
    }
    let config = OutboxConfig {
        dead_events_max: 5,
        ..OutboxConfig::default()
    };
    let shared = shared(&log, config);
    let mut dispatcher = FileDispatcher::open(Arc::clone(&shared)).unwrap();
    dispatcher.round().unwrap();
    log.append(order(9), &[placed()]);
    dispatcher.round().unwrap();
    assert!(
        shared
            .progress
            .trouble()
            .unwrap()
            .contains("outbox.dead_events_max")
    );
    assert_eq!(shared.progress.pending(&shared.readers), 1);
    assert_eq!(lines(&log).len(), 0);
}

#[test]
fn a_round_over_events_that_make_no_line_ends_all_the_same() {
    let mut log = OrderLog::new(1);
    log.append_unreadable(order(0));
    let behind: Vec<_> = (0..100).map(|_| line_added(1)).collect();
    let frames = ROUND_EVENTS_MAX / behind.len() + 5;
    for _ in 0..frames {
        log.append(order(0), &behind);
    }
    let mut dispatcher = dispatcher(&log);
    dispatcher.round().unwrap();
    assert!(dispatcher.is_full(), "the next round begins at once");
    let held = dispatcher.ledger.dead_events();
    let most = u64::try_from(ROUND_EVENTS_MAX + behind.len()).unwrap();
    assert!(held <= most, "{held} events were taken in one round");
    dispatcher.round().unwrap();
    let all = u64::try_from(1 + frames * behind.len()).unwrap();
    assert_eq!(dispatcher.ledger.dead_events(), all);
}

#[test]
fn what_does_not_decode_stops_at_the_bound_of_dead_events_within_a_round() {
    let mut log = OrderLog::new(1);
    for number in 0..9 {
        log.append_unreadable(order(number));
    }
    let config = OutboxConfig {
        dead_events_max: 4,
        ..OutboxConfig::default()
    };
    let mut dispatcher = FileDispatcher::open(shared(&log, config)).unwrap();
    dispatcher.round().unwrap();
    assert_eq!(dispatcher.ledger.dead_events(), 4);
}

#[test]
fn a_cursor_beyond_the_log_stops_the_partition_and_says_what_to_do() {
    let mut log = OrderLog::new(1);
    log.append(order(0), &[placed()]);
    drain(&log);
    let other = {
        let mut other = OrderLog::new(1);
        fs::copy(log.data().join("outbox.db"), other.data().join("outbox.db")).unwrap();
        other.append_interleaved(0, 0);
        other
    };
    let shared = shared(&other, OutboxConfig::default());
    FileDispatcher::open(Arc::clone(&shared))
        .unwrap()
        .round()
        .unwrap();
    let trouble = shared.progress.partition_trouble(0).unwrap();
    assert!(
        trouble.contains("offset 1") && trouble.contains("outbox.db"),
        "{trouble}"
    );
}
