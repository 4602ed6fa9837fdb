//! What an operator waits for: a read model made anew from the log, a start with a long log, a start after kill -9.
//!
//! The logs are written beforehand with the log's own writers; the same events are in all of them, so that every read
//! model can be held against every other by digest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use super::checks::{log_bytes, verify_log, wait_until_caught_up};
use super::evidence::Picture;
use super::experiment::{Entrant, Experiment, Metric, Values};
use super::history::{Totals, write_history};
use super::ingest::quotient;
use super::plan::Question;
use super::program::Comparison;
use super::rows::{Rows, forget_rows, rows_of};
use super::verdict::Pair;
use super::{Contestant, Service};
use crate::load::{Ledger, LoadConfig, prove_ledger, run};
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
const READY_AFTER_KILL: Metric = Metric::lower("start to ready after kill -9", "ms");
const CAUGHT_UP: Metric = Metric::lower("then to caught up", "ms");
const ACKNOWLEDGED: Metric = Metric::higher("acknowledged before the kill", "orders");

/// Time after the last row until memory is looked at, in which the allocator gives back what it holds for nobody.
const SETTLE: Duration = Duration::from_millis(300);

/// Connections of the load that is cut off.
const KILLED_CONNECTIONS: usize = 32;

/// How long the read model may take to catch up while a ledger is proven.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);

/// A data directory with a history, and whom it belongs to.
struct Prepared {
    service: Service,
    directory: TempDir,
    totals: Totals,
}

impl Prepared {
    fn who(&self) -> String {
        Contestant::Service(self.service).name()
    }

    fn data(&self) -> PathBuf {
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
            "The service is started with its log and without a read model; counted until the row of the last event is there, \
             the start included. Processor time, memory and bytes are the service's; three projections, no outbox. Memory is \
             anonymous, beside the page cache and without mapped files: the most that was seen, and what it has a moment \
             after the last row. Bytes of the log are without what is allocated ahead.",
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
        let pairs = main_pair(prepared, format!("{events} events"), goals);
        if self.config.plan.asks(Question::Replay) {
            self.keep(experiment, &pairs, pictures);
        }
        Ok(())
    }

    fn replay(&self, prepared: &Prepared) -> anyhow::Result<Values> {
        let data = prepared.data();
        forget_rows(&data)?;
        let started = std::time::Instant::now();
        let process = self.start(
            &Contestant::Service(prepared.service),
            prepared.directory.path(),
        )?;
        let last = wait_until_caught_up(&process.target, &self.runtime)?;
        let records = last.records;
        let elapsed = started.elapsed().as_secs_f64();
        let processor = process.processor_seconds()?;
        let peak_memory = process.peak_memory_mib();
        std::thread::sleep(SETTLE);
        let memory = process.memory_mib();
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
            "From the start of the process until `/readyz` says 200, the read model current; what the operating system held of \
             the data directory in memory was dropped before. Memory is anonymous, a moment after that.",
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
            "From the start of the process until `/readyz` says 200, everything made anew: partitions, segments, read model. \
             Memory is anonymous, a moment after that, with nothing to do.",
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
        std::thread::sleep(SETTLE);
        let memory = process.memory_mib();
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
        std::thread::sleep(SETTLE);
        let memory = process.memory_mib();
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

    /// Kill -9 under load, and the start after it.
    fn ask_recovery(&self, events: u64, prepared: &[Prepared]) -> anyhow::Result<()> {
        let entrants = prepared
            .iter()
            .map(|it| Entrant::new(it.who(), move || self.recover(it)))
            .collect();
        let experiment = Experiment::run(
            "recovery",
            format!("After kill -9 under load, {events} events in the log before"),
            format!(
                "{KILLED_CONNECTIONS} connections place orders in a closed loop until the service is killed; then it is started \
                 again. The acknowledged orders are in a ledger outside of the data directory."
            ),
            &[READY_AFTER_KILL, CAUGHT_UP, ACKNOWLEDGED],
            self.config.plan.rounds,
            entrants,
        )?;
        let mut pairs = main_pair(
            prepared,
            format!("{events} events, killed under load"),
            Vec::new(),
        );
        for pair in &mut pairs {
            pair.metrics = Some(vec![READY_AFTER_KILL.name, CAUGHT_UP.name]);
        }
        let picture = Picture::of(
            "recovery",
            "From start to ready after kill -9 under load",
            &experiment,
            READY_AFTER_KILL.name,
            Scale::Logarithmic,
        );
        self.keep(experiment, &pairs, vec![picture]);
        Ok(())
    }

    fn recover(&self, prepared: &Prepared) -> anyhow::Result<Values> {
        let plan = &self.config.plan;
        let contestant = Contestant::Service(prepared.service);
        let who = prepared.who();
        let process = self.start(&contestant, prepared.directory.path())?;
        wait_until_caught_up(&process.target, &self.runtime)?;
        let path = prepared.directory.path().join("ledger.jsonl");
        let load = LoadConfig {
            connections: KILLED_CONNECTIONS,
            // The load goes on behind the kill, so that it comes in the middle of it.
            duration: plan.warm_up + plan.duration + Duration::from_millis(500),
            drain: Duration::ZERO,
            ..LoadConfig::new(process.target.clone())
        };
        let loading = self.runtime.spawn(run(load, Some(Ledger::create(&path)?)));
        std::thread::sleep(plan.warm_up + plan.duration);
        process.kill().with_context(|| format!("kill {who}"))?;
        let report = self
            .runtime
            .block_on(loading)
            .context("the load panicked")??;
        let restarted = self.start(&contestant, prepared.directory.path())?;
        let ready = restarted.ready_after;
        let last = wait_until_caught_up(&restarted.target, &self.runtime)?;
        let versions = Ledger::read(&path)?;
        let proof =
            self.runtime
                .block_on(prove_ledger(&restarted.target, &versions, LEDGER_PATIENCE))?;
        let exit = restarted.stop().with_context(|| format!("end {who}"))?;
        let data = prepared.data();
        let rows = rows_of(&data)?;
        let findings = verify_log(&self.config.service, &data)?;
        let failed: u64 = report
            .operations
            .iter()
            .flat_map(|it| it.errors.values())
            .sum();
        self.claim(
            "Kill -9: it came under load, every acknowledged order is there after it, rows add up to the log, the log verifies",
            failed > 0
                && proof.orders > 0
                && proof.kept == proof.orders
                && rows.events == last.records
                && findings.is_none()
                && exit.success(),
            format!(
                "{who}: {} acknowledged, {} kept, {} events in rows, {} in the log, verify: {}",
                proof.orders,
                proof.kept,
                rows.events,
                last.records,
                findings.as_deref().unwrap_or("nothing found")
            ),
        );
        Ok(vec![
            Some(ready.as_secs_f64() * 1_000.0),
            Some(last.after.as_secs_f64() * 1_000.0),
            Some(quotient(proof.orders, 1)),
        ])
    }
}

/// The first two are the segmented log and JSON lines, alike in all else.
fn main_pair(prepared: &[Prepared], both: String, goals: Vec<(&'static str, f64)>) -> Vec<Pair> {
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
