//! A log, a store, and a clock and a target that exist only in tests: where schedules of deliveries are played.

use std::sync::Arc;
use std::time::{Duration, Instant};

use order_domain::Version;
use order_log::{EventLog, Offset, PartitionReader};

use crate::EventId;
use crate::config::{OutboxConfig, RetryConfig};
use crate::ledger::{Ledger, Verdict};
use crate::progress::Progress;
use crate::test_support::{OrderLog, order};
use crate::webhook::deliveries::Deliveries;
use crate::webhook::outcome::Outcome;

/// A log, a store and a clock, and the deliveries between them.
pub(crate) struct World {
    pub(crate) log: OrderLog,
    config: OutboxConfig,
    pub(crate) readers: Arc<[Box<dyn PartitionReader>]>,
    pub(crate) progress: Progress,
    start: Instant,
    elapsed: Duration,
    pub(crate) seed: u64,
    deliveries: Option<Deliveries>,
}

impl World {
    pub(crate) fn new(log: OrderLog, config: OutboxConfig) -> Self {
        let partitions = log.log.partition_count();
        let mut world = Self {
            readers: (0..partitions)
                .map(|partition| log.reader(partition))
                .collect(),
            progress: Progress::new(&vec![Offset::ZERO; usize::from(partitions)]),
            log,
            config,
            start: Instant::now(),
            elapsed: Duration::ZERO,
            seed: 7,
            deliveries: None,
        };
        world.restart();
        world
    }

    pub(crate) fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.elapsed += time;
    }

    /// Ends the process without a word, and starts it again: what was not committed is gone.
    pub(crate) fn restart(&mut self) {
        self.deliveries = None;
        let partitions = self.log.log.partition_count();
        let cap = Duration::from_millis(self.config.retry.cap_ms);
        let ledger = Ledger::open(self.log.data(), partitions, self.now(), cap).unwrap();
        let random = fastrand::Rng::with_seed(self.seed);
        self.deliveries = Some(Deliveries::new(ledger, partitions, &self.config, random));
    }

    pub(crate) fn deliveries(&mut self) -> &mut Deliveries {
        self.deliveries.as_mut().unwrap()
    }

    /// Reads what there is room for.
    pub(crate) fn read(&mut self) {
        let deliveries = self.deliveries.as_mut().unwrap();
        for reader in self.readers.iter() {
            while let Some((from, limit)) = deliveries.room(reader.partition())
                && from < reader.durable_end()
            {
                let mut visit = |frame: order_log::Frame<'_>| {
                    let events = crate::log_event::events_of(reader.partition(), &frame);
                    deliveries
                        .admit(reader.partition(), frame.base, frame.end(), events)
                        .unwrap();
                    std::ops::ControlFlow::Continue(())
                };
                reader.scan(from, limit, &mut visit).unwrap();
            }
        }
    }

    pub(crate) fn next(&mut self) -> Option<EventId> {
        let now = self.now();
        self.deliveries().next(now).unwrap().map(|event| event.id)
    }

    /// All that may be sent now.
    pub(crate) fn send(&mut self) -> Vec<EventId> {
        self.read();
        std::iter::from_fn(|| self.next()).collect()
    }

    pub(crate) fn settle(&mut self, id: EventId, outcome: &Outcome) -> Option<Verdict> {
        let now = self.now();
        self.deliveries().settle(id, outcome, now).unwrap()
    }

    pub(crate) fn commit(&mut self) {
        self.deliveries
            .as_mut()
            .unwrap()
            .commit(&self.progress)
            .unwrap();
    }

    pub(crate) fn cursor(&self) -> u64 {
        let cursors =
            (0..self.readers.len()).map(|partition| self.progress.cursor(partition).get());
        cursors.sum()
    }

    /// Delivers all that can be, letting time pass as long as something is tried again; returns it in order.
    pub(crate) fn drain(&mut self) -> Vec<EventId> {
        let mut delivered = Vec::new();
        for _ in 0..10_000 {
            let sent = self.send();
            for id in &sent {
                self.settle(*id, &Outcome::Delivered);
            }
            delivered.extend(&sent);
            self.commit();
            if sent.is_empty() {
                if self.progress.retrying() == 0 {
                    return delivered;
                }
                self.pass(Duration::from_millis(self.config.retry.cap_ms));
            }
        }
        panic!("there is no end to what is delivered");
    }
}

pub(crate) fn id(number: u16, version: u32) -> EventId {
    EventId::new(order(number), Version::new(version))
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed {
        reason: "connection reset".to_owned(),
    }
}

pub(crate) fn refused(retry_after_ms: u64, whole_target: bool) -> Outcome {
    Outcome::Refused {
        reason: "answered 503 Service Unavailable".to_owned(),
        retry_after: Some(Duration::from_millis(retry_after_ms)),
        whole_target,
    }
}

pub(crate) fn config() -> OutboxConfig {
    OutboxConfig {
        retry: RetryConfig {
            attempts: 4,
            base_ms: 100,
            cap_ms: 1_000,
        },
        ..OutboxConfig::default()
    }
}
