//! Writing and reading over HTTP in a closed loop: the most that each contestant can do, what an order costs, and whether
//! all orders are there.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::checks::{Aftermath, CaughtUp, log_bytes, verify_log, wait_until_caught_up};
use super::evidence::Picture;
use super::experiment::{Entrant, Experiment, Metric, Values};
use super::program::Comparison;
use super::rows::rows_of;
use super::verdict::Pair;
use super::{Contestant, Generator, Load, LoadResult, Service};
use crate::load::{Ledger, LoadConfig, Target, run};
use crate::plot::Scale;
use crate::rooms::{Store, order_id};
use crate::sample::{ORDER_REQUEST, OrderRequest};

const ORDERS: Metric = Metric::higher("orders", "a second");
const OF_BARE: Metric = Metric::higher("of bare axum", "ratio");
const P50: Metric = Metric::lower("p50", "ms");
const P99: Metric = Metric::lower("p99", "ms");
const PROCESSOR: Metric = Metric::lower("processor", "µs an order");
const MEMORY: Metric = Metric::lower("peak anonymous memory", "MiB");
const LOG_BYTES: Metric = Metric::lower("log", "bytes an order");
const CATCH_UP: Metric = Metric::lower("projector behind at the end", "s");
const READS: Metric = Metric::higher("reads", "a second");
const READ_PROCESSOR: Metric = Metric::lower("processor", "µs a read");

/// What the lab's way has different besides its engine.
const NAIVE_DIFFERS: &str = "JSON lines have one append and one sync a request (`--group-commit off`), and one \
                             partition; the segmented log has group commit and four";

/// Connections that make them.
const PREPARING_CONNECTIONS: usize = 64;

/// What one writing run gave.
struct Written {
    load: LoadResult,
    processor_us: f64,
    memory_mib: Option<f64>,
    log_bytes: Option<f64>,
    catch_up: Option<Duration>,
}

impl Written {
    fn values(&self, bare: Option<f64>) -> Values {
        let rate = self.load.sample().per_second;
        vec![
            Some(rate),
            bare.map(|bare| rate / bare),
            Some(milliseconds(self.load.p50_us)),
            Some(milliseconds(self.load.p99_us)),
            Some(self.processor_us),
            self.memory_mib,
            self.log_bytes,
            self.catch_up.map(|time| time.as_secs_f64()),
        ]
    }
}

const WRITING: [Metric; 8] = [
    ORDERS, OF_BARE, P50, P99, PROCESSOR, MEMORY, LOG_BYTES, CATCH_UP,
];

/// What speaks for one or the other; the ratio to bare axum says the same as the rate.
const COMPARED: [&str; 7] = [
    ORDERS.name,
    P50.name,
    P99.name,
    PROCESSOR.name,
    MEMORY.name,
    LOG_BYTES.name,
    CATCH_UP.name,
];

impl Comparison<'_> {
    /// Orders a second, by engine and durability.
    pub(super) fn ask_ingest(&self, connections: usize) -> anyhow::Result<()> {
        let writers = self.config.plan.writers(connections);
        let is_first = self.config.plan.connections.first() == Some(&connections);
        let redis = if is_first { self.redis() } else { None };
        let further = redis
            .iter()
            .map(|redis| Entrant::new(redis.name(), move || self.append_to_redis(connections)))
            .collect();
        let experiment = self.writing(
            "ingest",
            format!("Writing over HTTP, {connections} connections"),
            &writers,
            connections,
            further,
        )?;
        let mut pairs: Vec<Pair> = writers
            .iter()
            .filter_map(|writer| match writer {
                Contestant::Service(service) if service.store == Store::Segmented => Some(Pair {
                    metrics: Some(COMPARED.to_vec()),
                    ..pair(*service, &format!("{connections} connections"))
                }),
                _ => None,
            })
            .collect();
        pairs.push(Pair {
            segmented: Contestant::Service(Service::on(Store::Segmented)).name(),
            json_lines: Contestant::Service(Service::naive()).name(),
            both: format!(
                "{connections} connections, every answer durable; JSON lines the lab's way"
            ),
            also: Some(NAIVE_DIFFERS),
            metrics: Some(COMPARED.to_vec()),
            goals: Vec::new(),
        });
        let pictures = if is_first {
            vec![
                Picture::of(
                    "ingest",
                    format!("POST /orders, {connections} connections"),
                    &experiment,
                    ORDERS.name,
                    Scale::Even,
                ),
                Picture::of(
                    "ingest-processor",
                    "Processor time of an order, from request to row",
                    &experiment,
                    PROCESSOR.name,
                    Scale::Even,
                ),
            ]
        } else {
            Vec::new()
        };
        self.keep(experiment, &pairs, pictures);
        Ok(())
    }

    /// Orders a second, by partitions and SQLite files.
    pub(super) fn ask_partitions(&self) -> anyhow::Result<()> {
        let plan = &self.config.plan;
        let connections = plan.connections.first().copied().unwrap_or(64);
        let services = plan.layouts.iter().map(|&(partitions, shards)| {
            Contestant::Service(Service::on(Store::Segmented).spread(partitions, shards))
        });
        let writers: Vec<Contestant> = [Contestant::Bare].into_iter().chain(services).collect();
        let experiment = self.writing(
            "partitions",
            format!("Writing by partitions and SQLite files, {connections} connections"),
            &writers,
            connections,
            Vec::new(),
        )?;
        let picture = Picture::of(
            "partitions",
            format!("POST /orders by partitions and SQLite files, {connections} connections"),
            &experiment,
            ORDERS.name,
            Scale::Even,
        );
        self.keep(experiment, &[], vec![picture]);
        Ok(())
    }

    fn writing<'e>(
        &'e self,
        key: &'static str,
        title: String,
        writers: &'e [Contestant],
        connections: usize,
        further: Vec<Entrant<'e>>,
    ) -> anyhow::Result<Experiment> {
        // What the bare reference gave in this round, for those that come after it.
        let bare = std::cell::Cell::new(None);
        let entrants = writers
            .iter()
            .map(|writer| {
                let bare = &bare;
                Entrant::new(writer.name(), move || {
                    let written = self.write(writer, connections)?;
                    if *writer == Contestant::Bare {
                        bare.set(Some(written.load.sample().per_second));
                    }
                    Ok(written.values(bare.get()))
                })
            })
            .chain(further)
            .collect();
        Experiment::run(
            key,
            title,
            "`POST /orders` of the documented order in a closed loop: latencies are those at full load. Each run starts empty. \
             Processor time and memory are the service's, until the last row: processor time from the first request, the peak of \
             memory from the start of the process. The load generator runs on the same processors. Memory is anonymous, \
             beside the page cache and without mapped files. Bytes are the log's, without what is allocated ahead. Redis, \
             where it takes part, is no order service: it appends the same JSON over a protocol of its own, sent by its own \
             generator; nothing is parsed, decided or made a row, and its stream is kept in memory.",
            &WRITING,
            self.config.plan.rounds,
            entrants,
        )
    }

    fn write(&self, contestant: &Contestant, connections: usize) -> anyhow::Result<Written> {
        let plan = &self.config.plan;
        let directory = self.directory()?;
        let process = self.start(contestant, directory.path())?;
        let processor_before = process.processor_seconds()?;
        let target = process.target.clone();
        let warm_up = self.load(
            &Load::Create,
            &target,
            connections,
            plan.warm_up,
            &directory,
        )?;
        let load = self.load(
            &Load::Create,
            &target,
            connections,
            plan.duration,
            &directory,
        )?;
        let all = warm_up.and(&load);
        if !matches!(contestant, Contestant::Service(_)) {
            let processor_us = per_order(process.processor_seconds()? - processor_before, &all);
            let memory_mib = process.peak_memory_mib();
            let name = contestant.name();
            let status = process.stop().with_context(|| format!("end {name}"))?;
            anyhow::ensure!(
                status.success() && load.succeeded > 0 && load.not_ok == 0 && load.failed == 0,
                "{name} ended with {status} and did not serve the load: {load:?}"
            );
            return Ok(Written {
                load,
                processor_us,
                memory_mib,
                log_bytes: None,
                catch_up: None,
            });
        }
        let catch_up = wait_until_caught_up(&target, &self.runtime)?.after;
        let processor_us = per_order(process.processor_seconds()? - processor_before, &all);
        let memory_mib = process.peak_memory_mib();
        let exit = process
            .stop()
            .with_context(|| format!("end {}", contestant.name()))?;
        let last = self.prove(contestant, directory.path(), all, &exit)?;
        let bytes = log_bytes(&self.config.service, &directory.path().join("data"), &last)?;
        Ok(Written {
            load,
            processor_us,
            memory_mib,
            log_bytes: Some(quotient(bytes, last.records)),
            catch_up: Some(catch_up),
        })
    }

    /// Starts an ended service again and holds its rows against what it acknowledged.
    fn prove(
        &self,
        contestant: &Contestant,
        directory: &Path,
        load: LoadResult,
        exit: &std::process::ExitStatus,
    ) -> anyhow::Result<CaughtUp> {
        // The generator left with requests on their way, so what the log held a moment ago may not be all. Started again on
        // the same data and left alone, the service has nothing to add.
        let restarted = self.start(contestant, directory)?;
        let last = wait_until_caught_up(&restarted.target, &self.runtime)?;
        let exit_again = restarted
            .stop()
            .with_context(|| format!("end {} again", contestant.name()))?;
        let data = directory.join("data");
        let aftermath = Aftermath {
            load,
            records: last.records,
            rows: rows_of(&data)?,
            // The own generator makes orders of all kinds.
            order_total: match self.config.generator {
                Generator::Wrk => Some(order_total()?),
                Generator::Own => None,
            },
            verify_findings: verify_log(&self.config.service, &data)?,
            exit: format!("{exit}, started again {exit_again}"),
            exited_cleanly: exit.success() && exit_again.success(),
        };
        let complaints = aftermath.complaints();
        let numbers = format!(
            "{}: {} acknowledged, {} rows, {} records",
            contestant.name(),
            aftermath.load.succeeded,
            aftermath.rows.rows,
            aftermath.records
        );
        self.claim(
            "Writing: every request was acknowledged, every acknowledged order has its row after a restart, rows are as many \
             as records, their totals add up, the log verifies, SIGTERM ends the service with 0",
            complaints.is_empty(),
            if complaints.is_empty() {
                numbers
            } else {
                format!("{numbers}: {}", complaints.join(", "))
            },
        );
        Ok(last)
    }

    /// Reads a second, nothing written meanwhile.
    pub(super) fn ask_reading(&self) -> anyhow::Result<()> {
        let connections = self.config.plan.connections.first().copied().unwrap_or(64);
        let readers = [
            Contestant::Bare,
            Contestant::Service(Service::on(Store::Segmented)),
            Contestant::Service(Service::on(Store::Jsonl)),
        ];
        let entrants = readers
            .iter()
            .map(|reader| Entrant::new(reader.name(), move || self.read(reader, connections)))
            .collect();
        let experiment = Experiment::run(
            "reading",
            format!("Reading over HTTP, {connections} connections"),
            format!(
                "`GET /orders/:id` of {} orders in turn, closed loop, nothing written meanwhile.",
                self.config.plan.read_orders
            ),
            &[READS, P50, P99, READ_PROCESSOR],
            self.config.plan.rounds,
            entrants,
        )?;
        let pairs = [pair(
            Service::on(Store::Segmented),
            &format!("reading, {connections} connections"),
        )];
        self.keep(experiment, &pairs, Vec::new());
        Ok(())
    }

    fn read(&self, contestant: &Contestant, connections: usize) -> anyhow::Result<Values> {
        let plan = &self.config.plan;
        let directory = self.directory()?;
        let process = self.start(contestant, directory.path())?;
        let target = process.target.clone();
        let ids = if let Contestant::Service(_) = contestant {
            let ids = self.make_orders(&target, directory.path())?;
            wait_until_caught_up(&target, &self.runtime)?;
            ids
        } else {
            (0..plan.read_orders)
                .map(|number| order_id(number).to_string())
                .collect()
        };
        let load = Load::Get { ids };
        let processor_before = process.processor_seconds()?;
        let warm_up = self.load(&load, &target, connections, plan.warm_up, &directory)?;
        let result = self.load(&load, &target, connections, plan.duration, &directory)?;
        let processor_us = per_order(
            process.processor_seconds()? - processor_before,
            &warm_up.and(&result),
        );
        let name = contestant.name();
        let exit = process.stop().with_context(|| format!("end {name}"))?;
        self.claim(
            "Reading: every read was answered with its order",
            result.succeeded > 0 && result.not_ok == 0 && result.failed == 0 && exit.success(),
            format!(
                "{name}: {} answered, {} not ok, {} without an answer, {exit}",
                result.succeeded, result.not_ok, result.failed
            ),
        );
        Ok(vec![
            Some(result.sample().per_second),
            Some(milliseconds(result.p50_us)),
            Some(milliseconds(result.p99_us)),
            Some(processor_us),
        ])
    }

    /// Makes the orders that are read; returns their ids.
    pub(super) fn make_orders(
        &self,
        target: &Target,
        directory: &Path,
    ) -> anyhow::Result<Vec<String>> {
        let orders = self.config.plan.read_orders;
        let path = directory.join("ledger.jsonl");
        let ledger = Ledger::create(&path)?;
        let config = LoadConfig {
            connections: PREPARING_CONNECTIONS,
            duration: Duration::from_secs(600),
            requests_max: orders,
            ..LoadConfig::new(target.clone())
        };
        let report = self.runtime.block_on(run(config, Some(ledger)))?;
        anyhow::ensure!(
            report.acknowledged_orders == orders,
            "only {} of {orders} orders were acknowledged:\n{report}",
            report.acknowledged_orders
        );
        Ok(Ledger::read(&path)?.into_keys().collect())
    }
}

/// A service on the segmented log, and the same on JSON lines.
pub(super) fn pair(segmented: Service, what: &str) -> Pair {
    let json_lines = Service {
        store: Store::Jsonl,
        ..segmented
    };
    let is_as_it_comes = segmented.durability == Service::on(Store::Segmented).durability;
    Pair {
        segmented: Contestant::Service(segmented).name(),
        json_lines: Contestant::Service(json_lines).name(),
        both: format!("{what}, {}", segmented.durability),
        also: None,
        metrics: None,
        goals: if is_as_it_comes {
            vec![(ORDERS.name, 1.0)]
        } else {
            Vec::new()
        },
    }
}

/// The total of the documented order, in minor units.
fn order_total() -> anyhow::Result<i64> {
    let order: OrderRequest = serde_json::from_str(ORDER_REQUEST)?;
    Ok(order.answer().total)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures are read to three digits"
)]
pub(super) fn quotient(number: u64, by: u64) -> f64 {
    number as f64 / by.max(1) as f64
}

/// Microseconds of processor time for each of a load's successes.
pub(super) fn per_order(seconds: f64, load: &LoadResult) -> f64 {
    seconds * 1e6 / quotient(load.succeeded, 1)
}

pub(super) fn milliseconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1_000.0
}
