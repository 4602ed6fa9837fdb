//! The comparison itself: what is asked in which order, and what every question needs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::contention::READING_CONNECTIONS;
use super::contestant::Programs;
use super::evidence::{Evidence, Picture};
use super::experiment::Experiment;
use super::origin::Origin;
use super::plan::{Plan, Question};
use super::process::Process;
use super::verdict::{Pair, Verdict};
use super::{Ceiling, Contestant, Generator, Load, LoadResult, ceiling};
use crate::load::{LoadConfig, LoadReport, RampReport, Target};
use crate::machine::{Machine, ProcessorTime};
use crate::report::Check;

/// What is compared, and how.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// The command line that asks for it, for the report.
    pub command: Vec<String>,
    /// The service's program.
    pub service: PathBuf,
    /// Further arguments of every service.
    pub service_arguments: Vec<String>,
    /// The bare reference's program.
    pub bare: PathBuf,
    /// Where data directories are made, and removed again.
    pub work_directory: PathBuf,
    /// What is measured.
    pub plan: Plan,
    /// What sends the closed loops.
    pub generator: Generator,
}

/// Connections of the open loops: more than are ever busy at the rates that hold.
pub(super) const OPEN_LOOP_CONNECTIONS: usize = 128;

pub(super) struct Comparison<'c> {
    pub(super) config: &'c CompareConfig,
    pub(super) programs: Programs,
    pub(super) runtime: Runtime,
    claims: RefCell<Claims>,
    found: RefCell<Found>,
    /// By count of events, the digest that the rows of their history had first.
    digests: RefCell<BTreeMap<u64, u128>>,
}

/// What was claimed of many runs: how often it held, and the numbers where it did not.
#[derive(Debug, Default)]
struct Claims(BTreeMap<String, Claim>);

#[derive(Debug, Default)]
struct Claim {
    runs: usize,
    failures: Vec<String>,
    last: String,
}

/// What the questions gave.
#[derive(Debug, Default)]
struct Found {
    experiments: Vec<Experiment>,
    verdicts: Vec<Verdict>,
    pictures: Vec<Picture>,
    loads: Vec<(String, LoadReport)>,
    ramps: Vec<(String, RampReport)>,
    ceiling: Option<Ceiling>,
    notes: Vec<(String, String)>,
}

/// Compares; says what it does on standard error.
///
/// A question that cannot be asked to its end, because a contestant does not start, answer or end, is a check that does not
/// hold, as wrong results are; the others are asked all the same, so that one failure does not lose the whole run.
///
/// # Errors
/// If the work directory cannot be made or the runtime does not start.
pub fn compare(config: &CompareConfig) -> anyhow::Result<Evidence> {
    fs::create_dir_all(&config.work_directory)
        .with_context(|| format!("make {}", config.work_directory.display()))?;
    let machine = Machine::look(&config.work_directory);
    let origin = Origin::of(config.command.clone(), &config.service, config.plan.clone());
    let before = ProcessorTime::now();
    let comparison = Comparison {
        config,
        programs: Programs {
            service: config.service.clone(),
            service_arguments: config.service_arguments.clone(),
            bare: config.bare.clone(),
        },
        runtime: Runtime::new().context("start the runtime")?,
        claims: RefCell::default(),
        found: RefCell::default(),
        digests: RefCell::default(),
    };
    comparison.ask();
    let disturbance = ProcessorTime::now()
        .zip(before)
        .map(|(now, before)| now.since(&before));
    let checks = comparison.claims.into_inner().checks();
    let found = comparison.found.into_inner();
    Ok(Evidence {
        origin,
        machine,
        disturbance,
        settings: [settings(config, found.ceiling.as_ref()), found.notes].concat(),
        experiments: found.experiments,
        verdicts: found.verdicts,
        checks,
        loads: found.loads,
        ramps: found.ramps,
        pictures: found.pictures,
    })
}

fn settings(config: &CompareConfig, ceiling: Option<&Ceiling>) -> Vec<(String, String)> {
    let plan = &config.plan;
    let seconds = |duration: Duration| format!("{} s", duration.as_secs_f64());
    let mut settings = vec![
        ("rounds, in turn".to_owned(), plan.rounds.to_string()),
        (
            "a closed loop, behind its warm-up".to_owned(),
            format!(
                "{} behind {}",
                seconds(plan.duration),
                seconds(plan.warm_up)
            ),
        ),
        (
            "generator of the closed loops".to_owned(),
            config.generator.name().to_owned(),
        ),
        (
            "generator of lag, knee and reads beside writes".to_owned(),
            format!(
                "`loadtest`'s, open loop, {OPEN_LOOP_CONNECTIONS} connections; reads beside writes, and writes in bulk beside \
                 them, {READING_CONNECTIONS}"
            ),
        ),
        (
            "the service".to_owned(),
            "4 partitions, 1 SQLite file, three projections, outbox to a file, unless said otherwise"
                .to_owned(),
        ),
    ];
    if let Some(ceiling) = ceiling {
        settings.push((
            "`loadtest`'s own ceiling".to_owned(),
            format!(
                "{:.0} requests a second in a closed loop against bare axum on the same processors",
                ceiling.per_second
            ),
        ));
    }
    if !config.service_arguments.is_empty() {
        settings.push((
            "further arguments of the service".to_owned(),
            config.service_arguments.join(" "),
        ));
    }
    settings
}

impl Comparison<'_> {
    /// Asks what is planned.
    fn ask(&self) {
        let plan = &self.config.plan;
        if plan.asks(Question::Ingest) {
            for &connections in &plan.connections {
                self.asked(
                    &format!("ingest, {connections} connections"),
                    self.ask_ingest(connections),
                );
            }
        }
        if plan.asks(Question::Partitions) {
            self.asked("partitions", self.ask_partitions());
        }
        if plan.asks(Question::Reading) {
            self.asked("reading", self.ask_reading());
            self.asked("reading beside writes", self.ask_reading_beside_writes());
        }
        if plan.asks(Question::Lag) {
            self.asked("lag", self.ask_lag());
        }
        if plan.asks(Question::Knee) {
            self.asked("knee", self.ask_knee());
        }
        if plan.asks(Question::ColdStart) {
            self.asked("start in an empty directory", self.ask_empty_start());
        }
        for (place, &events) in plan.events.iter().enumerate() {
            self.asked(
                &format!("logs of {events} events"),
                self.ask_history(events, place == 0),
            );
        }
    }

    /// Says whether a question was asked to its end.
    fn asked(&self, question: &str, ended: anyhow::Result<()>) {
        let numbers = match &ended {
            Ok(()) => question.to_owned(),
            Err(error) => format!("{question}: {error:#}"),
        };
        if ended.is_err() {
            eprintln!("{numbers}");
        }
        self.claim(
            "Every question was asked to its end",
            ended.is_ok(),
            numbers,
        );
    }

    /// Keeps an experiment, with what it says of pairs and with its pictures.
    pub(super) fn keep(&self, experiment: Experiment, pairs: &[Pair], pictures: Vec<Picture>) {
        let mut found = self.found.borrow_mut();
        let verdicts = pairs.iter().flat_map(|pair| Verdict::of(&experiment, pair));
        found.verdicts.extend(verdicts);
        found.experiments.push(experiment);
        found.pictures.extend(pictures);
    }

    pub(super) fn keep_load(&self, who: String, report: LoadReport) {
        self.found.borrow_mut().loads.push((who, report));
    }

    pub(super) fn keep_ramp(&self, who: String, report: RampReport) {
        self.found.borrow_mut().ramps.push((who, report));
    }

    /// Something a reader of the report must know about the run.
    pub(super) fn note(&self, name: &str, words: String) {
        self.found.borrow_mut().notes.push((name.to_owned(), words));
    }

    /// Measures what the own generator can do at most, and keeps it.
    pub(super) fn own_ceiling(&self, config: &LoadConfig) -> anyhow::Result<Ceiling> {
        let ceiling = ceiling(&self.programs.bare, config, &self.runtime)?;
        self.found.borrow_mut().ceiling = Some(ceiling.clone());
        Ok(ceiling)
    }

    /// Says whether something held in one run.
    pub(super) fn claim(&self, claim: impl Into<String>, holds: bool, numbers: impl Into<String>) {
        self.claims
            .borrow_mut()
            .add(claim.into(), holds, numbers.into());
    }

    /// The digest that the rows of a history of `events` had first: `digest`, if these are the first.
    pub(super) fn digest_of(&self, events: u64, digest: u128) -> u128 {
        *self.digests.borrow_mut().entry(events).or_insert(digest)
    }

    pub(super) fn start(
        &self,
        contestant: &Contestant,
        directory: &Path,
    ) -> anyhow::Result<Process> {
        Process::start(contestant, &self.programs, directory, &self.runtime)
            .with_context(|| format!("start {}", contestant.name()))
    }

    /// Sends a closed loop.
    pub(super) fn load(
        &self,
        load: &Load,
        target: &Target,
        connections: usize,
        duration: Duration,
        directory: &TempDir,
    ) -> anyhow::Result<LoadResult> {
        self.config.generator.run(
            load,
            target,
            connections,
            duration,
            directory.path(),
            &self.runtime,
        )
    }

    /// A new directory, removed with what is in it when it is let go.
    pub(super) fn directory(&self) -> anyhow::Result<TempDir> {
        let parent = &self.config.work_directory;
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        tempfile::tempdir_in(parent)
            .with_context(|| format!("make a directory in {}", parent.display()))
    }
}

impl Claims {
    fn add(&mut self, claim: String, holds: bool, numbers: String) {
        let claim = self.0.entry(claim).or_default();
        claim.runs += 1;
        if !holds {
            claim.failures.push(numbers.clone());
        }
        claim.last = numbers;
    }

    fn checks(self) -> Vec<Check> {
        self.0
            .into_iter()
            .map(|(words, claim)| Check {
                claim: words,
                holds: claim.failures.is_empty(),
                detail: if claim.failures.is_empty() {
                    format!("in all of {}; last: {}", claim.runs, claim.last)
                } else {
                    let failures = claim.failures.join("; ");
                    format!(
                        "not in {} of {}: {failures}",
                        claim.failures.len(),
                        claim.runs
                    )
                },
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_holds_when_it_held_in_every_run() {
        let mut claims = Claims::default();
        for (holds, numbers) in [(true, "7"), (false, "8 for 9"), (true, "9")] {
            claims.add("rows".to_owned(), holds, numbers.to_owned());
            claims.add("exit".to_owned(), true, "0".to_owned());
        }
        let checks = claims.checks();
        assert_eq!(checks.len(), 2);
        assert!(
            checks[0].holds && checks[0].detail.contains("all of 3"),
            "{checks:?}"
        );
        assert!(!checks[1].holds, "{checks:?}");
        assert_eq!(checks[1].detail, "not in 1 of 3: 8 for 9");
    }
}
