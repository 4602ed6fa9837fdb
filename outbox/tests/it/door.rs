//! Start, look, redrive, stop: what the API and the command line use.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use order_domain::Version;
use order_log::{
    AppendTime, EventLog, Frame, LogError, Offset, PartitionId, PartitionReader, PartitionStatus,
    PartitionWriter, PayloadFormat, ScanLimit,
};
use order_outbox::{EventId, Outbox, OutboxConfig, OutboxError, SinkKind};
use prometheus::Registry;

use crate::orders::{OrderLog, line_added, order, placed};
use crate::support::{eventually, start_sink as start, value};

fn lines(log: &OrderLog) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(log.data().join("outbox.jsonl")).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn events_are_told_while_they_are_appended() {
    let mut log = OrderLog::new(4);
    log.append_interleaved(20, 1);
    let (outbox, registry) = start(&log, SinkKind::File);
    log.append_interleaved(0, 0);
    for round in 1..5 {
        for number in 0..20 {
            log.append(order(number), &[line_added(round)]);
        }
    }
    eventually("100 events are recorded as told", || {
        value(&registry, "outbox_attempts_total{outcome=\"delivered\"}") == 100.0
            && outbox.status().pending == 0
    });
    outbox.stop();
    assert_eq!(lines(&log).len(), 100);
    for partition in outbox.status().partitions {
        assert_eq!(partition.cursor, partition.end);
    }
}

#[test]
fn every_series_is_there_from_the_start_and_zero() {
    let log = OrderLog::new(2);
    let (_outbox, registry) = start(&log, SinkKind::File);
    for series in [
        "outbox_pending",
        "outbox_dead",
        "outbox_oldest_age_seconds{state=\"waiting\"}",
        "outbox_oldest_age_seconds{state=\"backing_off\"}",
        "outbox_attempts_total{outcome=\"delivered\"}",
        "outbox_attempts_total{outcome=\"refused\"}",
        "outbox_attempts_total{outcome=\"failed\"}",
        "outbox_attempts_total{outcome=\"unreadable\"}",
    ] {
        assert_eq!(value(&registry, series), 0.0, "{series}");
    }
}

#[test]
fn size_and_age_of_a_backlog_are_computed_at_scrape_also_when_nothing_runs() {
    let mut log = OrderLog::new(2);
    let (outbox, registry) = start(&log, SinkKind::File);
    outbox.stop();
    assert!(!outbox.status().running);
    log.append_interleaved(10, 2);
    assert_eq!(value(&registry, "outbox_pending"), 20.0);
    // The age is from the append, which the log dates to a fixed day, to now.
    let appended = std::time::UNIX_EPOCH + Duration::from_micros(crate::orders::EPOCH_US);
    let least = appended.elapsed().unwrap().as_secs_f64().floor();
    let age = value(&registry, "outbox_oldest_age_seconds{state=\"waiting\"}");
    assert!(age >= least, "{age} s, at least {least} s are true");
    outbox.restart().unwrap();
    eventually("the backlog is told after a restart", || {
        value(&registry, "outbox_pending") == 0.0
    });
    assert_eq!(
        value(&registry, "outbox_oldest_age_seconds{state=\"waiting\"}"),
        0.0
    );
}

#[test]
fn with_no_sink_nothing_is_told_and_a_later_sink_goes_on_from_there() {
    let mut log = OrderLog::new(2);
    log.append_interleaved(5, 1);
    {
        let (outbox, registry) = start(&log, SinkKind::None);
        assert_eq!(value(&registry, "outbox_pending"), 0.0);
        assert_eq!(
            value(&registry, "outbox_oldest_age_seconds{state=\"waiting\"}"),
            0.0
        );
        assert!(!outbox.status().running);
        let error = outbox.redrive_all().unwrap_err().to_string();
        assert!(error.contains("`none`"), "{error}");
    }
    assert_eq!(lines(&log).len(), 0);
    let (outbox, _registry) = start(&log, SinkKind::File);
    eventually("all is told", || outbox.status().pending == 0);
    outbox.stop();
    assert_eq!(lines(&log).len(), 5);
}

#[test]
fn dead_events_are_listed_inspected_and_redriven_while_it_runs() {
    let mut log = OrderLog::new(1);
    log.append_unreadable(order(1));
    log.append(order(1), &[placed()]);
    let (outbox, registry) = start(&log, SinkKind::File);
    eventually("both events are dead", || {
        value(&registry, "outbox_dead") == 2.0
    });
    assert_eq!(value(&registry, "outbox_pending"), 0.0);

    let dead = outbox.dead(10, None).unwrap();
    let [first, second] = [
        EventId::new(order(1), Version::new(1)),
        EventId::new(order(1), Version::new(2)),
    ];
    assert_eq!(
        dead.iter().map(|letter| letter.id).collect::<Vec<_>>(),
        [first, second]
    );
    assert!(
        outbox
            .inspect(first)
            .unwrap()
            .cloud_event
            .unwrap_err()
            .contains("999")
    );
    let inspected = outbox.inspect(second).unwrap();
    let event: serde_json::Value = serde_json::from_str(&inspected.cloud_event.unwrap()).unwrap();
    assert_eq!(event["id"], second.to_string());

    assert_eq!(
        outbox.redrive(second).unwrap(),
        2,
        "a redrive takes the order from its first dead event on"
    );
    eventually("the first one failed again", || {
        value(&registry, "outbox_attempts_total{outcome=\"unreadable\"}") == 2.0
            && outbox.status().dead == 2
    });
    assert_eq!(outbox.redrive_all().unwrap(), 2);
    let stranger = EventId::new(order(2), Version::new(1));
    assert!(matches!(
        outbox.redrive(stranger),
        Err(OutboxError::NotHeld(_))
    ));
    assert!(matches!(
        outbox.inspect(stranger),
        Err(OutboxError::NotHeld(_))
    ));
    outbox.stop();
    assert!(matches!(
        outbox.redrive_all(),
        Err(OutboxError::NotRunning(_))
    ));
}

#[test]
fn a_file_that_cannot_be_written_is_shown_and_tried_again_until_it_can() {
    let mut log = OrderLog::new(1);
    log.append_interleaved(3, 1);
    let obstacle = log.data().join("outbox.jsonl");
    std::fs::create_dir(&obstacle).unwrap();
    let (outbox, _registry) = start(&log, SinkKind::File);
    eventually("the trouble is shown", || {
        outbox
            .status()
            .trouble
            .is_some_and(|trouble| trouble.contains("outbox.jsonl"))
    });
    assert_eq!(outbox.status().pending, 3);
    assert!(outbox.status().running);
    std::fs::remove_dir(&obstacle).unwrap();
    eventually("all is told", || outbox.status().pending == 0);
    assert_eq!(outbox.status().trouble, None);
    outbox.stop();
    assert_eq!(lines(&log).len(), 3);
}

/// A log whose readers do as told: fail to verify, or panic.
#[derive(Debug)]
struct Faulty<'a> {
    log: &'a dyn EventLog,
    fault: Arc<AtomicU8>,
}

const NO_FAULT: u8 = 0;
const DAMAGED: u8 = 1;
const PANIC: u8 = 2;

#[derive(Debug)]
struct FaultyReader {
    reader: Box<dyn PartitionReader>,
    fault: Arc<AtomicU8>,
}

impl EventLog for Faulty<'_> {
    fn partition_count(&self) -> u16 {
        self.log.partition_count()
    }

    fn payload_format(&self) -> PayloadFormat {
        self.log.payload_format()
    }

    fn writer(&self, partition: PartitionId) -> Result<Box<dyn PartitionWriter>, LogError> {
        self.log.writer(partition)
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, LogError> {
        Ok(Box::new(FaultyReader {
            reader: self.log.reader(partition)?,
            fault: Arc::clone(&self.fault),
        }))
    }

    fn status(&self) -> Vec<PartitionStatus> {
        self.log.status()
    }
}

impl PartitionReader for FaultyReader {
    fn partition(&self) -> PartitionId {
        self.reader.partition()
    }

    fn start(&self) -> Offset {
        self.reader.start()
    }

    fn durable_end(&self) -> Offset {
        self.reader.durable_end()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.reader.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        match self.fault.load(Ordering::SeqCst) {
            NO_FAULT => self.reader.scan(from, limit, visit),
            PANIC if std::thread::current().name() == Some("outbox") => panic!("made to panic"),
            _ => Err(LogError::Damaged {
                partition: self.partition(),
                path: "made up".into(),
                position: 0,
                offset: from,
                reason: "made to be damaged".to_owned(),
            }),
        }
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        self.reader.seek_time(time)
    }
}

fn start_faulty(log: &OrderLog, fault: u8) -> (Arc<Outbox>, Registry, Arc<AtomicU8>) {
    let fault = Arc::new(AtomicU8::new(fault));
    let faulty = Faulty {
        log: &log.log,
        fault: Arc::clone(&fault),
    };
    let registry = Registry::new();
    let outbox = Outbox::start(&faulty, OutboxConfig::default(), log.data(), &registry).unwrap();
    (outbox, registry, fault)
}

#[test]
fn a_panic_is_shown_and_a_restart_goes_on() {
    let mut log = OrderLog::new(2);
    log.append_interleaved(5, 2);
    let (outbox, registry, fault) = start_faulty(&log, PANIC);
    eventually("the dispatcher has ended", || !outbox.status().running);
    let trouble = outbox.status().trouble.unwrap();
    assert!(trouble.contains("panicked: made to panic"), "{trouble}");
    assert_eq!(value(&registry, "outbox_pending"), 10.0);
    let error = outbox.redrive_all().unwrap_err().to_string();
    assert!(error.contains("made to panic"), "{error}");
    fault.store(NO_FAULT, Ordering::SeqCst);
    outbox.restart().unwrap();
    eventually("all is told", || outbox.status().pending == 0);
    assert_eq!(outbox.status().trouble, None);
}

#[test]
fn a_log_that_does_not_verify_is_shown_with_an_age_that_grows() {
    let mut log = OrderLog::new(1);
    log.append_interleaved(5, 2);
    let (outbox, registry, fault) = start_faulty(&log, DAMAGED);
    let trouble = || outbox.status().partitions[0].trouble.clone();
    eventually("the damage is shown", || {
        trouble().is_some_and(|trouble| trouble.contains("made to be damaged"))
    });
    let age = || value(&registry, "outbox_oldest_age_seconds{state=\"waiting\"}");
    let before = age();
    eventually("the age grows", || age() > before);
    assert_eq!(value(&registry, "outbox_pending"), 10.0);
    fault.store(NO_FAULT, Ordering::SeqCst);
    eventually("all is told", || outbox.status().pending == 0);
    assert_eq!(trouble(), None);
}

#[test]
fn a_log_put_in_anothers_place_is_refused_before_anything_is_told_or_skipped() {
    let mut first = OrderLog::new(1);
    first.append(order(1), &[placed()]);
    let (outbox, _registry) = start(&first, SinkKind::File);
    eventually("all is told", || outbox.status().pending == 0);
    outbox.stop();
    let mut second = OrderLog::new(1);
    second.append(order(2), &[placed(), line_added(1)]);
    std::fs::copy(
        first.data().join("outbox.db"),
        second.data().join("outbox.db"),
    )
    .unwrap();
    let config = OutboxConfig::default();
    let error = Outbox::start(&second.log, config, second.data(), &Registry::new()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OutboxError::Incompatible { .. }), "{text}");
    assert!(
        text.contains("belongs to another log") && text.contains(&order(2).to_string()),
        "{text}"
    );
}

#[test]
fn a_setting_that_cannot_be_is_refused_by_its_name() {
    let log = OrderLog::new(1);
    let mut config = OutboxConfig::default();
    config.retry.attempts = 0;
    let error = Outbox::start(&log.log, config, log.data(), &Registry::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "outbox.retry.attempts: must be at least 1"
    );
}
