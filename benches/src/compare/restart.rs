//! What an operator waits for: a read model made anew from the log, and a start with a long log or none.
//!
//! The logs are written beforehand with the log's own writers; the same events are in all of them, so that every read
//! model can be held against every other by digest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use super::checks::{log_bytes, wait_until_caught_up};
use super::evidence::Picture;
use super::experiment::{Entrant, Experiment, Metric, Values};
use super::history::{Totals, write_history};
use super::ingest::quotient;
use super::plan::Question;
use super::process::Process;
use super::program::Comparison;
use super::rows::{Rows, forget_rows, rows_of};
use super::verdict::Pair;
use super::{Contestant, Service};
use crate::load::metrics_of;
use crate::plot::Scale;
use crate::rooms::Store;

const REPLAYED: Metric = Metric::higher("replay", "events a second");
const REPLAY_TIME: Metric = Metric::lower("start to caught up", "s");
const PROCESSOR: Metric = Metric::lower("processor", "µs an event");
const PEAK_MEMORY: Metric = Metric::lower("peak anonymous memory", "MiB");
const MEMORY: Metric = Metric::lower("anonymous memory, projector current", "MiB");
const LOG_BYTES: Metric = Metric::lower("log", "bytes an event");
const ROW_BYTES: Metric = Metric::lower("read model", "bytes an order");
const READY: Metric = Metric::lower("start to ready", "ms");

/// What speaks for one or the other; the time of a replay says the same as its rate.
const REPLAY_COMPARED: [&str; 6] = [
    REPLAYED.name,
    PROCESSOR.name,
    PEAK_MEMORY.name,
    MEMORY.name,
    LOG_BYTES.name,
    ROW_BYTES.name,
];

/// Time after the last row until memory is looked at. The allocator keeps freed pages for a second (mimalloc's `purge_delay`)
/// and gives them back only while it is asked for more, so the service is asked for its metrics meanwhile.
pub(super) const SETTLE: Duration = Duration::from_millis(1_500);

/// Time between two of those questions: each allocates little, so a few do not move the allocator.
const SETTLE_STEP: Duration = Duration::from_millis(5);

/// What the figure of memory at rest holds, for the notes.
const SETTLED: &str = "what it has after 1.5 s more, asked for `/metrics` all the while: the allocator keeps what is freed for a \
                       second, and gives it back only while it is asked for more. What was freed and not given back by then \
                       is included";

/// A data directory with a history, and whom it belongs to.
pub(super) struct Prepared {
    pub(super) service: Service,
    pub(super) directory: TempDir,
    totals: Totals,
}

impl Prepared {
    pub(super) fn who(&self) -> String {
        Contestant::Service(self.service).name()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

impl Comparison<'_> {
    /// Everything that is asked of logs with so many events; layouts and recoveries only of the first count.
    pub(super) fn ask_history(&self, events: u64, is_first: bool) -> anyhow::Result<()> {
        let plan = &self.config.plan;
        let asked = plan.asks(Question::Replay)
            || plan.asks(Question::ColdStart)
            || (plan.asks(Question::Recovery) && is_first);
        if !asked {
            return Ok(());
        }
        let segmented = Service::on(Store::Segmented).without_outbox();
        let json_lines = Service::on(Store::Jsonl).without_outbox();
        let mut services = vec![segmented, json_lines];
        if is_first && plan.asks(Question::Replay) {
            services.extend(
                plan.layouts
                    .iter()
                    .map(|&(partitions, shards)| segmented.spread(partitions, shards))
                    .filter(|service| *service != segmented),
            );
        }
        let prepared = services
            .into_iter()
            .map(|service| self.prepare(service, events))
            .collect::<anyhow::Result<Vec<_>>>()?;
        // Many events are replayed once: that is minutes.
        let rounds = if is_first { plan.rounds } else { 1 };
        self.ask_replay(events, rounds, &prepared)?;
        let main = prepared.get(..2).unwrap_or_default();
        if plan.asks(Question::ColdStart) {
            self.ask_cold_start(events, main)?;
        }
        if plan.asks(Question::Recovery) && is_first {
            self.ask_recovery(events, main)?;
        }
        Ok(())
    }

    fn prepare(&self, service: Service, events: u64) -> anyhow::Result<Prepared> {
        let directory = self.directory()?;
        eprintln!(
            "writing {events} events: {}",
            Contestant::Service(service).name()
        );
        let totals = write_history(
            &directory.path().join("data"),
            service.store,
            service.partitions,
            events,
        )?;
        Ok(Prepared {
            service,
            directory,
            totals,
        })
    }

    /// Makes every read model anew; they are needed by what is asked afterwards, so this is always run.
    fn ask_replay(&self, events: u64, rounds: usize, prepared: &[Prepared]) -> anyhow::Result<()> {
        let entrants = prepared
            .iter()
            .map(|it| Entrant::new(it.who(), move || self.replay(it)))
            .collect();
        let experiment = Experiment::run(
            "replay",
            format!("The read model made anew from {events} events"),
            format!(
                "The service is started with its log and without a read model; counted until the row of the last event is there, \
             the start included. Processor time, memory and bytes are the service's; three projections, no outbox. Memory is \
             anonymous, beside the page cache and without mapped files: the most that was seen until the last row, and {SETTLED}. \
             Bytes of the log are without what is allocated ahead."
            ),
            &[
                REPLAYED,
                REPLAY_TIME,
                PROCESSOR,
                PEAK_MEMORY,
                MEMORY,
                LOG_BYTES,
                ROW_BYTES,
            ],
            rounds,
            entrants,
        )?;
        let goals = vec![(REPLAYED.name, 4.0), (LOG_BYTES.name, 1.0 / 0.6)];
        let pictures = if prepared.len() > 2 {
            vec![
                Picture::of(
                    "replay",
                    format!("{events} events to rows, by engine, partitions and SQLite files"),
                    &experiment,
                    REPLAYED.name,
                    Scale::Even,
                ),
                Picture::of(
                    "log-bytes",
                    "Bytes an event on disk",
                    &experiment,
                    LOG_BYTES.name,
                    Scale::Even,
                ),
            ]
        } else {
            Vec::new()
        };
        let mut pairs = main_pair(prepared, format!("{events} events"), goals);
        for pair in &mut pairs {
            pair.metrics = Some(REPLAY_COMPARED.to_vec());
        }
        if self.config.plan.asks(Question::Replay) {
            self.keep(experiment, &pairs, pictures);
        }
        Ok(())
    }

    fn replay(&self, prepared: &Prepared) -> anyhow::Result<Values> {
        let data = prepared.data();
        forget_rows(&data)?;
        let started = Instant::now();
        let process = self.start(
            &Contestant::Service(prepared.service),
            prepared.directory.path(),
        )?;
        let last = wait_until_caught_up(&process.target, &self.runtime)?;
        let records = last.records;
        let elapsed = started.elapsed().as_secs_f64();
        let processor = process.processor_seconds()?;
        let peak_memory = process.peak_memory_mib();
        let memory = self.settled_memory_mib(&process)?;
        let exit = process
            .stop()
            .with_context(|| format!("end {}", prepared.who()))?;
        let rows = rows_of(&data)?;
        let totals = prepared.totals;
        self.claim_rows(prepared, &rows, records, exit.success());
        Ok(vec![
            Some(quotient(records, 1) / elapsed),
            Some(elapsed),
            Some(processor * 1e6 / quotient(records, 1)),
            peak_memory,
            memory,
            Some(quotient(
                log_bytes(&self.config.service, &data, &last)?,
                totals.events,
            )),
            Some(quotient(rows.bytes, totals.orders)),
        ])
    }

    fn claim_rows(&self, prepared: &Prepared, rows: &Rows, records: u64, exited: bool) {
        let totals = prepared.totals;
        let who = prepared.who();
        self.claim(
            format!(
                "Replay of {} events: as many orders, events and money in the rows as were written, and the service ends \
                 with 0",
                totals.events
            ),
            exited
                && records == totals.events
                && rows.events == totals.events
                && rows.rows == totals.orders
                && rows.ordered == totals.ordered,
            format!(
                "{who}: {} orders of {} events for {} in total; written were {}, {} and {}",
                rows.rows, rows.events, rows.ordered, totals.orders, totals.events, totals.ordered
            ),
        );
        let expected = self.digest_of(totals.events, rows.digest);
        self.claim(
            format!(
                "Replay of {} events: the digest of all rows is the same in every engine and layout, in every round",
                totals.events
            ),
            rows.digest == expected,
            format!("{who}: {:032x}", rows.digest),
        );
    }

    /// From start to ready, the read model current.
    fn ask_cold_start(&self, events: u64, prepared: &[Prepared]) -> anyhow::Result<()> {
        let entrants = prepared
            .iter()
            .map(|it| Entrant::new(it.who(), move || self.start_cold(it)))
            .collect();
        let experiment = Experiment::run(
            "cold-start",
            format!("Start with {events} events in the log"),
            format!(
                "From the start of the process until `/readyz` says 200, the read model current; what the operating system held of \
             the data directory in memory was dropped before. Memory is anonymous, {SETTLED}."
            ),
            &[READY, MEMORY],
            self.config.plan.rounds,
            entrants,
        )?;
        let goals = if events >= 10_000_000 {
            vec![(READY.name, 100.0)]
        } else {
            Vec::new()
        };
        let pairs = main_pair(prepared, format!("start with {events} events"), goals);
        let pictures = if self.config.plan.events.last() == Some(&events) {
            vec![Picture::of(
                "cold-start",
                format!("From start to ready with {events} events"),
                &experiment,
                READY.name,
                Scale::Logarithmic,
            )]
        } else {
            Vec::new()
        };
        self.keep(experiment, &pairs, pictures);
        Ok(())
    }

    /// From start to ready without any data, and what the service has in memory when it does nothing.
    pub(super) fn ask_empty_start(&self) -> anyhow::Result<()> {
        let services = [Store::Segmented, Store::Jsonl].map(Service::on);
        let entrants = services
            .into_iter()
            .map(|service| {
                let contestant = Contestant::Service(service);
                Entrant::new(contestant.name(), move || self.start_empty(&contestant))
            })
            .collect();
        let experiment = Experiment::run(
            "cold-start",
            "Start in an empty directory",
            format!(
                "From the start of the process until `/readyz` says 200, everything made anew: partitions, segments, read model. \
             Memory is anonymous, {SETTLED}."
            ),
            &[READY, MEMORY],
            self.config.plan.rounds,
            entrants,
        )?;
        let [segmented, json_lines] = services.map(|it| Contestant::Service(it).name());
        let pair = Pair {
            segmented,
            json_lines,
            both: "start in an empty directory".to_owned(),
            also: None,
            metrics: None,
            goals: Vec::new(),
        };
        self.keep(experiment, &[pair], Vec::new());
        Ok(())
    }

    fn start_empty(&self, contestant: &Contestant) -> anyhow::Result<Values> {
        let directory = self.directory()?;
        let process = self.start(contestant, directory.path())?;
        let ready = process.ready_after;
        let records = wait_until_caught_up(&process.target, &self.runtime)?.records;
        let memory = self.settled_memory_mib(&process)?;
        let name = contestant.name();
        let exit = process.stop().with_context(|| format!("end {name}"))?;
        self.claim(
            "Start in an empty directory: the log is empty, and the service ends with 0",
            exit.success() && records == 0,
            format!("{name}: {records} records, {exit}"),
        );
        Ok(vec![Some(ready.as_secs_f64() * 1_000.0), memory])
    }

    fn start_cold(&self, prepared: &Prepared) -> anyhow::Result<Values> {
        drop_cached(&prepared.data())?;
        let process = self.start(
            &Contestant::Service(prepared.service),
            prepared.directory.path(),
        )?;
        let ready = process.ready_after;
        let records = wait_until_caught_up(&process.target, &self.runtime)?.records;
        let memory = self.settled_memory_mib(&process)?;
        let exit = process
            .stop()
            .with_context(|| format!("end {}", prepared.who()))?;
        self.claim(
            "Cold start: the whole log is there, and the service ends with 0",
            exit.success() && records == prepared.totals.events,
            format!("{}: {records} records", prepared.who()),
        );
        Ok(vec![Some(ready.as_secs_f64() * 1_000.0), memory])
    }

    /// What a service that has nothing to do has in memory.
    fn settled_memory_mib(&self, process: &Process) -> anyhow::Result<Option<f64>> {
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            std::thread::sleep(SETTLE_STEP);
            self.runtime.block_on(metrics_of(&process.target))?;
        }
        Ok(process.memory_mib())
    }
}

/// The first two are the segmented log and JSON lines, alike in all else.
pub(super) fn main_pair(
    prepared: &[Prepared],
    both: String,
    goals: Vec<(&'static str, f64)>,
) -> Vec<Pair> {
    let [segmented, json_lines, ..] = prepared else {
        return Vec::new();
    };
    vec![Pair {
        segmented: segmented.who(),
        json_lines: json_lines.who(),
        both,
        also: None,
        metrics: None,
        goals,
    }]
}

/// Drops what the operating system holds of a directory's files in memory: the next start reads them from the disk.
fn drop_cached(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            drop_cached(&path)?;
        } else if path.is_file() {
            let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            // Only what is on the disk can be dropped.
            file.sync_all()
                .with_context(|| format!("sync {}", path.display()))?;
            fadvise(&file, 0, None, Advice::DontNeed)
                .with_context(|| format!("drop {} from memory", path.display()))?;
        }
    }
    Ok(())
}
