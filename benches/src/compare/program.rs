//! The comparison itself: which loads, which contestants, in turn, and the report.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;

use super::checks::{Aftermath, count_rows, verify_log, wait_until_caught_up};
use super::contestant::Programs;
use super::process::Process;
use super::{Contestant, Generator, Load};
use crate::load::{Ledger, LoadConfig, Mix, Target, run};
use crate::machine::{Machine, ProcessorTime};
use crate::measure::{Contest, Sample};
use crate::report::{Check, Report, Table};
use crate::rooms::{Store, order_id};

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// The service's program.
    pub service: PathBuf,
    /// Further arguments of every service.
    pub service_arguments: Vec<String>,
    /// The bare reference's program.
    pub bare: PathBuf,
    /// Where data directories are made, and removed again.
    pub work_directory: PathBuf,
    /// Who takes part; the first is the reference.
    pub contestants: Vec<Contestant>,
    /// Connections of the writing loads, one load each.
    pub post_connections: Vec<usize>,
    /// Connections of the reading loads, one load each.
    pub get_connections: Vec<usize>,
    /// How often each contestant runs.
    pub rounds: usize,
    /// Measured time of a run.
    pub duration: Duration,
    /// Time before it, with the same load.
    pub warm_up: Duration,
    /// What sends the load.
    pub generator: Generator,
}

/// Orders that reading loads read.
const READ_ORDERS: u64 = 10_000;

/// Connections that make them.
const PREPARING_CONNECTIONS: usize = 64;

struct Comparison<'c> {
    config: &'c CompareConfig,
    programs: Programs,
    runtime: Runtime,
    checks: RefCell<Vec<Check>>,
}

/// Compares; says what it does on standard error.
///
/// # Errors
/// If a contestant does not start, does not answer or does not end. Wrong results are not errors: they are in the report.
pub fn compare(config: &CompareConfig) -> anyhow::Result<Report> {
    fs::create_dir_all(&config.work_directory)
        .with_context(|| format!("make {}", config.work_directory.display()))?;
    let machine = Machine::look(&config.work_directory);
    let before = ProcessorTime::now();
    let comparison = Comparison {
        config,
        programs: Programs {
            service: config.service.clone(),
            service_arguments: config.service_arguments.clone(),
            bare: config.bare.clone(),
        },
        runtime: Runtime::new().context("start the runtime")?,
        checks: RefCell::default(),
    };
    let mut tables = Vec::new();
    for &connections in &config.post_connections {
        tables.push(comparison.post(connections)?);
    }
    for &connections in &config.get_connections {
        tables.push(comparison.get(connections)?);
    }
    let seconds = |duration: Duration| format!("{} s", duration.as_secs_f64());
    Ok(Report {
        title: "Comparison".to_owned(),
        machine,
        disturbance: ProcessorTime::now()
            .zip(before)
            .map(|(now, before)| now.since(&before)),
        settings: vec![
            ("generator".to_owned(), config.generator.name().to_owned()),
            ("rounds, in turn".to_owned(), config.rounds.to_string()),
            ("a run".to_owned(), seconds(config.duration)),
            ("warm-up".to_owned(), seconds(config.warm_up)),
            (
                "further arguments of the service".to_owned(),
                config.service_arguments.join(" "),
            ),
        ],
        tables,
        checks: comparison.checks.into_inner(),
    })
}

impl Comparison<'_> {
    fn post(&self, connections: usize) -> anyhow::Result<Table> {
        let mut contest =
            Contest::new(format!("POST /orders, {connections} connections"), "orders");
        for contestant in &self.config.contestants {
            let goal = match connections {
                64 => Some("≥ 0.45, then ≥ 0.70"),
                256 => Some("≥ 0.55, then ≥ 0.80"),
                _ => None,
            };
            contest = contest.with_goal(
                contestant.name(),
                goal.filter(|_| is_the_service_as_it_comes(contestant)),
                move || self.run_post(contestant, connections),
            );
        }
        Ok(Table {
            title: format!("Writing, {connections} connections"),
            note: "Each run starts empty. Durable modes acknowledge after the sync; the bare reference keeps nothing. Closed \
                   loop: latencies are those at full load."
                .to_owned(),
            rows: contest.run(self.config.rounds)?,
        })
    }

    fn get(&self, connections: usize) -> anyhow::Result<Table> {
        let work = format!("GET /orders/:id, {connections} connections");
        let mut contest = Contest::new(work, "reads");
        for contestant in &self.config.contestants {
            // To the bare reference, reading is reading; without group commit the service reads as with it.
            let differs = match contestant {
                Contestant::Bare => true,
                Contestant::BareDurable => false,
                Contestant::Service(service) => service.group_commit,
            };
            if differs {
                contest = contest.with_goal(
                    contestant.name(),
                    Some("≥ 0.50, then ≥ 0.75").filter(|_| is_the_service_as_it_comes(contestant)),
                    move || self.run_get(contestant, connections),
                );
            }
        }
        Ok(Table {
            title: format!("Reading, {connections} connections"),
            note: format!("{READ_ORDERS} orders, read in turn, nothing written meanwhile."),
            rows: contest.run(self.config.rounds)?,
        })
    }

    fn run_post(&self, contestant: &Contestant, connections: usize) -> anyhow::Result<Sample> {
        let name = contestant.name();
        eprintln!("POST, {connections} connections: {name}");
        let directory = self.directory()?;
        let process = self.start(contestant, directory.path())?;
        let warm_up = self.load(
            &Load::Create,
            &process,
            connections,
            self.config.warm_up,
            &directory,
        )?;
        let mut load = self.load(
            &Load::Create,
            &process,
            connections,
            self.config.duration,
            &directory,
        )?;
        let sample = load.sample();
        let peak_memory_mib = process.peak_memory_mib();
        if !matches!(contestant, Contestant::Service(_)) {
            let status = process.stop().with_context(|| format!("end {name}"))?;
            anyhow::ensure!(status.success(), "{name} ended with {status}");
            anyhow::ensure!(
                load.succeeded > 0 && load.not_ok == 0 && load.failed == 0,
                "{name} did not serve the load: {load:?}"
            );
            return Ok(sample);
        }
        let (_, catch_up) = wait_until_caught_up(&process.target, &self.runtime)?;
        let exit = process.stop().with_context(|| format!("end {name}"))?;
        // The generator left with requests on their way, so what the log held a moment ago may not be all. Started again on
        // the same data and left alone, the service has nothing to add.
        let restarted = self.start(contestant, directory.path())?;
        let (records, _) = wait_until_caught_up(&restarted.target, &self.runtime)?;
        let exit_again = restarted
            .stop()
            .with_context(|| format!("end {name} again"))?;
        let data = directory.path().join("data");
        load.succeeded += warm_up.succeeded;
        load.not_ok += warm_up.not_ok;
        load.failed += warm_up.failed;
        load.unknown_max += warm_up.unknown_max;
        let aftermath = Aftermath {
            load,
            records,
            rows: count_rows(&data)?,
            catch_up,
            peak_memory_mib,
            verify_findings: verify_log(&self.config.service, &data)?,
            exit: format!("{exit}, started again {exit_again}"),
            exited_cleanly: exit.success() && exit_again.success(),
        };
        self.check(&name, connections, &aftermath);
        Ok(sample)
    }

    fn run_get(&self, contestant: &Contestant, connections: usize) -> anyhow::Result<Sample> {
        let name = contestant.name();
        eprintln!("GET, {connections} connections: {name}");
        let directory = self.directory()?;
        let process = self.start(contestant, directory.path())?;
        let ids = match contestant {
            Contestant::Bare | Contestant::BareDurable => (0..READ_ORDERS)
                .map(|number| order_id(number).to_string())
                .collect(),
            Contestant::Service(_) => {
                let ids = self.make_orders(&process.target, directory.path())?;
                wait_until_caught_up(&process.target, &self.runtime)?;
                ids
            }
        };
        let load = Load::Get { ids };
        self.load(
            &load,
            &process,
            connections,
            self.config.warm_up,
            &directory,
        )?;
        let result = self.load(
            &load,
            &process,
            connections,
            self.config.duration,
            &directory,
        )?;
        let exit = process.stop().with_context(|| format!("end {name}"))?;
        self.checks.borrow_mut().push(Check {
            claim: format!(
                "{name}: every read of {connections} connections was answered with its order"
            ),
            holds: result.succeeded > 0
                && result.not_ok == 0
                && result.failed == 0
                && exit.success(),
            detail: format!(
                "{} answered, {} not ok, {} without an answer, {exit}",
                result.succeeded, result.not_ok, result.failed
            ),
        });
        Ok(result.sample())
    }

    fn check(&self, name: &str, connections: usize, aftermath: &Aftermath) {
        let complaints = aftermath.complaints();
        let memory = aftermath
            .peak_memory_mib
            .map_or_else(|| "unknown".to_owned(), |mib| format!("{mib} MiB"));
        let numbers = format!(
            "{} acknowledged, {} rows, {} records; caught up in {:.2} s; peak memory {memory}",
            aftermath.load.succeeded,
            aftermath.rows,
            aftermath.records,
            aftermath.catch_up.as_secs_f64(),
        );
        self.checks.borrow_mut().push(Check {
            claim: format!(
                "{name}, {connections} connections: every order was acknowledged and, after a restart, has its row; rows \
                 are as many as records, the log verifies, SIGTERM ends it with 0"
            ),
            holds: complaints.is_empty(),
            detail: if complaints.is_empty() { numbers } else { format!("{}; {numbers}", complaints.join("; ")) },
        });
    }

    /// Makes the orders that are read; returns their ids.
    fn make_orders(&self, target: &Target, directory: &Path) -> anyhow::Result<Vec<String>> {
        let path = directory.join("ledger.jsonl");
        let ledger = Ledger::create(&path)?;
        let config = LoadConfig {
            target: target.clone(),
            rate: 0.0,
            connections: PREPARING_CONNECTIONS,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(600),
            requests_max: READ_ORDERS,
            drain: Duration::ZERO,
            timeout: Duration::from_secs(10),
            mix: Mix {
                create: 1,
                advance: 0,
                get: 0,
            },
            idempotency_keys: false,
            read_back: false,
            seed: 1,
        };
        let report = self.runtime.block_on(run(config, Some(ledger)))?;
        anyhow::ensure!(
            report.acknowledged_orders == READ_ORDERS,
            "only {} of {READ_ORDERS} orders were acknowledged:\n{report}",
            report.acknowledged_orders
        );
        Ok(Ledger::read(&path)?.into_keys().collect())
    }

    fn start(&self, contestant: &Contestant, directory: &Path) -> anyhow::Result<Process> {
        Process::start(contestant, &self.programs, directory, &self.runtime)
            .with_context(|| format!("start {}", contestant.name()))
    }

    fn load(
        &self,
        load: &Load,
        process: &Process,
        connections: usize,
        duration: Duration,
        directory: &tempfile::TempDir,
    ) -> anyhow::Result<super::LoadResult> {
        let generator = self.config.generator;
        generator.run(
            load,
            &process.target,
            connections,
            duration,
            directory.path(),
            &self.runtime,
        )
    }

    fn directory(&self) -> anyhow::Result<tempfile::TempDir> {
        let parent = &self.config.work_directory;
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        tempfile::tempdir_in(parent)
            .with_context(|| format!("make a directory in {}", parent.display()))
    }
}

/// The goals are for the segmented log, every answer durable.
fn is_the_service_as_it_comes(contestant: &Contestant) -> bool {
    matches!(
        contestant,
        Contestant::Service(service)
            if service.store == Store::Segmented
                && service.durability == order_log::Durability::Always
                && service.group_commit
    )
}
