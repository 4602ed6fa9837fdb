//! How much is measured, and how long that takes: two profiles, and what of them was asked for.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use order_log::Durability;
use serde::{Serialize, Serializer};

use super::contention::CONTENDERS;
use super::restart::SETTLE;
use super::{Contestant, Service};
use crate::load::{Bounds, Ramp};
use crate::rooms::Store;

/// A question that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// Orders a second over HTTP, by engine and durability.
    Ingest,
    /// The same by partitions and SQLite files.
    Partitions,
    /// Reads a second over HTTP.
    Reading,
    /// At a fixed rate: latency, and how long until an order is visible.
    Lag,
    /// The highest rate with latency and lag in bounds.
    Knee,
    /// A read model made anew from the log, by engine, partitions and SQLite files; bytes and memory.
    Replay,
    /// From start to ready, with a log of many events.
    ColdStart,
    /// From a start after kill -9 under load to ready, and to caught up.
    Recovery,
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// What is measured. Times are written in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// What is asked.
    pub questions: Vec<Question>,
    /// How often everybody runs, in turn.
    pub rounds: usize,
    /// Measured time of a closed loop.
    #[serde(serialize_with = "seconds")]
    pub duration: Duration,
    /// Time before it, with the same load.
    #[serde(serialize_with = "seconds")]
    pub warm_up: Duration,
    /// Connections of the writing loads; the first is what partitions and reads are measured with.
    pub connections: Vec<usize>,
    /// Partitions and SQLite files that are compared.
    pub layouts: Vec<(u16, u16)>,
    /// Orders that are there to be read.
    pub read_orders: u64,
    /// Reads a second while orders are written.
    pub read_rate: f64,
    /// Orders a second that are written while others are read.
    pub write_rate: f64,
    /// Orders a second while lag is measured.
    pub lag_rate: f64,
    /// Measured time of that.
    #[serde(serialize_with = "seconds")]
    pub lag_duration: Duration,
    /// The rates that are tried to find the knee.
    pub ramp: Ramp,
    /// What a rate must keep.
    pub bounds: Bounds,
    /// Measured time of a step.
    #[serde(serialize_with = "seconds")]
    pub step: Duration,
    /// Events of the generated logs; layouts and recoveries are compared with the first.
    pub events: Vec<u64>,
}

impl Plan {
    /// What a report is made of.
    #[must_use]
    pub fn full() -> Self {
        Self {
            questions: Question::value_variants().to_vec(),
            rounds: 3,
            duration: Duration::from_secs(3),
            warm_up: Duration::from_secs(1),
            connections: vec![64, 256],
            layouts: vec![(1, 1), (2, 1), (2, 2), (4, 1), (4, 4), (8, 1), (8, 8)],
            read_orders: 10_000,
            read_rate: 1_000.0,
            write_rate: 20_000.0,
            lag_rate: 1_000.0,
            lag_duration: Duration::from_secs(5),
            ramp: Ramp {
                from: 4_000.0,
                to: 100_000.0,
                factor: 1.6,
                refinements: 3,
            },
            bounds: Bounds {
                p99_ms_max: 20.0,
                lag_seconds_max: 1.0,
            },
            step: Duration::from_secs(3),
            events: vec![1_000_000, 10_000_000],
        }
    }

    /// Whether everything works, and roughly what comes of it.
    #[must_use]
    pub fn quick() -> Self {
        Self {
            rounds: 1,
            duration: Duration::from_secs(1),
            warm_up: Duration::from_secs(1),
            connections: vec![64],
            layouts: vec![(1, 1), (4, 1), (4, 4)],
            read_orders: 2_000,
            read_rate: 200.0,
            write_rate: 2_000.0,
            lag_duration: Duration::from_secs(2),
            ramp: Ramp {
                factor: 3.0,
                refinements: 1,
                ..Self::full().ramp
            },
            step: Duration::from_secs(1),
            events: vec![100_000],
            ..Self::full()
        }
    }

    /// In words: what is asked, of how much.
    pub(super) fn words(&self) -> String {
        let list = |words: Vec<String>| words.join(", ");
        format!(
            "{}; {} rounds; {} connections; {} events",
            list(self.questions.iter().map(Question::to_string).collect()),
            self.rounds,
            list(self.connections.iter().map(usize::to_string).collect()),
            list(self.events.iter().map(u64::to_string).collect())
        )
    }

    /// Whether something is asked.
    #[must_use]
    pub fn asks(&self, question: Question) -> bool {
        self.questions.contains(&question)
    }

    /// About how long it takes on two processors.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "an estimate is read to two digits"
    )]
    pub fn estimate(&self) -> Duration {
        let rounds = self.rounds as f64;
        let closed_loop = (self.duration + self.warm_up).as_secs_f64();
        // Per run of a service: start, catch up, end, start again, prove. More was written, the longer.
        let proven = closed_loop + 1.0 + 0.5 * closed_loop;
        let events = self.events.iter().map(|&events| events as f64);
        let first = events.clone().next().unwrap_or(0.0);
        let seconds = |question| match question {
            Question::Ingest => {
                let runs: usize = self
                    .connections
                    .iter()
                    .map(|&connections| self.writers(connections).len())
                    .sum();
                // Redis takes part with the first count.
                rounds * (runs as f64 * proven + 2.0 * closed_loop)
            }
            Question::Partitions => rounds * (self.layouts.len() + 1) as f64 * proven,
            Question::Reading => {
                let beside_writes = CONTENDERS as f64 * (2.0 * closed_loop + 3.0);
                rounds * (3.0 * (closed_loop + 3.0) + beside_writes)
            }
            Question::Lag => {
                rounds
                    * LAG_CONTESTANTS.len() as f64
                    * ((self.lag_duration + self.warm_up).as_secs_f64() + 2.0)
            }
            Question::Knee => 3.0 * 9.0 * ((self.step + self.warm_up).as_secs_f64() + 0.5),
            Question::Replay => {
                let layouts = self.layouts.len() as f64 + 1.0;
                let settled = SETTLE.as_secs_f64();
                let replay = rounds * (first * REPLAY_SECONDS + settled);
                let sweep = layouts * (first * WRITE_SECONDS + replay);
                let others: f64 = events
                    .clone()
                    .skip(1)
                    .map(|events| 2.0 * (events * (WRITE_SECONDS + REPLAY_SECONDS) + settled))
                    .sum();
                sweep + others
            }
            Question::ColdStart => {
                let two = rounds * (2.0 + 2.0 * SETTLE.as_secs_f64());
                let starts = events
                    .clone()
                    .map(|events| two + rounds * events * JSON_LINES_OPEN_SECONDS);
                two + starts.sum::<f64>()
            }
            Question::Recovery => rounds * 2.0 * (2.0 * closed_loop + 6.0),
        };
        Duration::from_secs_f64(self.questions.iter().copied().map(seconds).sum())
    }

    /// Who writes with so many connections: everybody with the first count, the main ones with the others.
    pub(super) fn writers(&self, connections: usize) -> Vec<Contestant> {
        let segmented = Service::on(Store::Segmented);
        let json_lines = Service::on(Store::Jsonl);
        let mut writers = vec![
            Contestant::Bare,
            Contestant::BareDurable,
            Contestant::Service(segmented),
            Contestant::Service(json_lines),
            Contestant::Service(Service::naive()),
        ];
        if self.connections.first() == Some(&connections) {
            for durability in [INTERVAL, Durability::Os] {
                for service in [segmented, json_lines] {
                    writers.push(Contestant::Service(Service {
                        durability,
                        ..service
                    }));
                }
            }
        }
        writers
    }
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// Seconds an event takes to write, to replay, and to read at the start of the engine of JSON lines, on two processors.
const WRITE_SECONDS: f64 = 2e-6;
const REPLAY_SECONDS: f64 = 5e-6;
const JSON_LINES_OPEN_SECONDS: f64 = 1.5e-6;

/// The interval that stands for all: the loss of a power failure is at most so much.
pub(super) const INTERVAL: Durability = Durability::Interval(Duration::from_millis(10));

/// Whose lag is measured.
pub(super) const LAG_CONTESTANTS: [Service; 6] = [
    Service::on(Store::Segmented),
    Service::on(Store::Segmented).in_two_processes(),
    Service::on(Store::Jsonl),
    Service::naive(),
    Service {
        durability: INTERVAL,
        ..Service::on(Store::Segmented)
    },
    Service {
        durability: INTERVAL,
        ..Service::on(Store::Jsonl)
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_full_run_is_bounded_and_a_quick_one_is_quick() {
        let full = Plan::full().estimate();
        assert!(full > 10 * MINUTE && full <= 23 * MINUTE, "{full:?}");
        let quick = Plan::quick().estimate();
        assert!(quick < 4 * MINUTE, "{quick:?}");
    }

    #[test]
    fn what_is_not_asked_takes_no_time() {
        let nothing = Plan {
            questions: Vec::new(),
            ..Plan::full()
        };
        assert_eq!(nothing.estimate(), Duration::ZERO);
        let reading = Plan {
            questions: vec![Question::Reading],
            ..Plan::full()
        };
        assert!(reading.asks(Question::Reading) && !reading.asks(Question::Knee));
        assert!(reading.estimate() < Plan::full().estimate());
    }

    #[test]
    fn questions_are_called_what_the_command_line_calls_them() {
        assert_eq!(Question::ColdStart.to_string(), "cold-start");
    }

    #[test]
    fn the_naive_way_and_the_bare_references_are_always_there() {
        for connections in [64, 256] {
            let writers = Plan::full().writers(connections);
            assert!(writers.contains(&Contestant::Service(Service::naive())));
            assert_eq!(writers[0], Contestant::Bare);
        }
        assert!(Plan::full().writers(64).len() > Plan::full().writers(256).len());
    }
}
