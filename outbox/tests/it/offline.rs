//! Tools at work on the outbox while the service does not run.

use order_domain::Version;
use order_log::Offset;
use order_outbox::{EventId, OfflineOutbox, OutboxError, SinkKind};

use crate::orders::{OrderLog, line_added, order, placed};
use crate::support::{eventually, start_sink};

const SOURCE: &str = "/order-service";

/// Tells everything that can be told.
fn run(log: &OrderLog) {
    let (outbox, _registry) = start_sink(log, SinkKind::File);
    eventually("nothing is pending", || outbox.status().pending == 0);
    outbox.stop();
}

fn lines(log: &OrderLog) -> usize {
    let text = std::fs::read_to_string(log.data().join("outbox.jsonl")).unwrap();
    text.lines().count()
}

#[test]
fn where_no_outbox_ever_ran_there_is_nothing_to_open_and_nothing_is_made() {
    let log = OrderLog::new(1);
    assert!(OfflineOutbox::open(log.data(), SOURCE).unwrap().is_none());
    assert!(!log.data().join("outbox.db").exists());
}

#[test]
fn dead_events_are_listed_inspected_and_redriven_without_the_service() {
    let mut log = OrderLog::new(2);
    log.append_unreadable(order(1));
    log.append(order(1), &[line_added(1)]);
    log.append(order(2), &[placed()]);
    run(&log);
    let first = EventId::new(order(1), Version::new(1));
    {
        let mut outbox = OfflineOutbox::open(log.data(), SOURCE).unwrap().unwrap();
        assert_eq!((outbox.dead_events(), outbox.backing_off()), (2, 0));
        assert_eq!(outbox.cursors(), [Offset::new(1), Offset::new(2)]);
        assert_eq!(outbox.dead(10, None).unwrap().len(), 2);
        assert!(outbox.inspect(first).unwrap().held.dead);
        let stranger = EventId::new(order(2), Version::new(1));
        assert!(matches!(
            outbox.redrive(stranger),
            Err(OutboxError::NotHeld(_))
        ));
        assert_eq!(outbox.redrive(first).unwrap(), 2);
    }
    let mut outbox = OfflineOutbox::open(log.data(), SOURCE).unwrap().unwrap();
    assert_eq!(
        (outbox.dead_events(), outbox.backing_off()),
        (0, 2),
        "a redrive lasts"
    );
    assert_eq!(outbox.redrive_all().unwrap(), 0);
}

#[test]
fn a_log_that_was_rewritten_is_followed_from_where_its_rewriter_says() {
    let mut old = OrderLog::new(1);
    old.append_interleaved(6, 2);
    run(&old);
    // The same orders in three partitions, as a repartition would leave them, and one event more.
    let mut new = OrderLog::new(3);
    new.append_interleaved(6, 2);
    let ends: Vec<Offset> = (0..3)
        .map(|partition| new.reader(partition).durable_end())
        .collect();
    new.append(order(4), &[line_added(9)]);
    for file in ["outbox.db", "outbox.jsonl"] {
        std::fs::copy(old.data().join(file), new.data().join(file)).unwrap();
    }
    let mut outbox = OfflineOutbox::open(new.data(), SOURCE).unwrap().unwrap();
    outbox.relocate(&ends).unwrap();
    drop(outbox);
    run(&new);
    assert_eq!(
        lines(&new),
        13,
        "nothing is told twice, and what is new is told"
    );
}
