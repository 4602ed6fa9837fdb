//! Reading while others write: how much later an answer comes than from a service that does nothing else.
//!
//! Both are open loops, so that reads which a busy service keeps waiting are charged with the wait. The same process is
//! asked twice, idle and then under writes: the ratio is one of two moments of one service.

use std::time::Duration;

use anyhow::Context;

use super::checks::wait_until_caught_up;
use super::experiment::{Entrant, Experiment, Metric, Values};
use super::ingest::milliseconds;
use super::plan::Plan;
use super::program::{Comparison, OPEN_LOOP_CONNECTIONS};
use super::{Contestant, Service};
use crate::load::{LoadConfig, LoadReport, Mix, OperationReport, Target, run};
use crate::rooms::Store;

const IDLE_P50: Metric = Metric::lower("GET p50, idle", "ms");
const IDLE_P99: Metric = Metric::lower("GET p99, idle", "ms");
const BESIDE_P50: Metric = Metric::lower("GET p50, written meanwhile", "ms");
const BESIDE_P99: Metric = Metric::lower("GET p99, written meanwhile", "ms");
const TIMES: Metric = Metric::lower("GET p99, times idle", "ratio");
const WRITTEN: Metric = Metric::higher("written", "orders a second");

/// Orders of one bulk request.
const BULK_LINES: usize = 100;

/// Connections that read, and that write in bulk.
pub(super) const READING_CONNECTIONS: usize = 32;

/// How long reads that are overdue may still be sent.
const DRAIN: Duration = Duration::from_secs(60);

/// How the orders come that are written meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// In bulk requests: the orders are written, and little of the processors goes to requests and to their generator.
    Bulk,
    /// Each in a request of its own.
    Single,
}

impl Writes {
    const fn name(self) -> &'static str {
        match self {
            Self::Bulk => "in bulk",
            Self::Single => "one a request",
        }
    }

    /// Orders of a request.
    const fn lines(self) -> usize {
        match self {
            Self::Bulk => BULK_LINES,
            Self::Single => 1,
        }
    }
}

/// Who is read from, and how it is written to.
const CONTESTANTS: [(Service, Writes); 2] = [
    (Service::on(Store::Segmented), Writes::Bulk),
    (Service::on(Store::Segmented), Writes::Single),
];

/// How many there are, for the estimate.
pub(super) const CONTENDERS: usize = CONTESTANTS.len();

fn who((service, writes): (Service, Writes)) -> String {
    let name = Contestant::Service(service).name();
    format!("{name}; written {}", writes.name())
}

impl Comparison<'_> {
    /// Latency of reads while orders are written, beside that of an idle service.
    pub(super) fn ask_reading_beside_writes(&self) -> anyhow::Result<()> {
        let plan = &self.config.plan;
        let entrants = CONTESTANTS
            .iter()
            .map(|&it| Entrant::new(who(it), move || self.read_beside(it)))
            .collect();
        let experiment = Experiment::run(
            "reading-beside-writes",
            format!(
                "Reading while {:.0} orders a second are due",
                plan.write_rate
            ),
            format!(
                "`GET /orders/:id` in an open loop of {:.0} a second, first with nothing else to do, then while orders are \
                 due in an open loop of their own: {BULK_LINES} a bulk request, or one a request. What is written of them \
                 stands beside it: where it is less than was due, service and generator were at the end of the processors they \
                 share, and the latency is that.",
                plan.read_rate
            ),
            &[IDLE_P50, IDLE_P99, BESIDE_P50, BESIDE_P99, TIMES, WRITTEN],
            plan.rounds,
            entrants,
        )?;
        self.keep(experiment, &[], Vec::new());
        Ok(())
    }

    fn read_beside(&self, (service, writes): (Service, Writes)) -> anyhow::Result<Values> {
        let plan = &self.config.plan;
        let directory = self.directory()?;
        let process = self.start(&Contestant::Service(service), directory.path())?;
        let target = process.target.clone();
        let known = self.make_orders(&target, directory.path())?;
        wait_until_caught_up(&target, &self.runtime)?;
        let reads = LoadConfig {
            rate: plan.read_rate,
            connections: READING_CONNECTIONS,
            mix: Mix {
                get: 1,
                ..Mix::default()
            },
            known,
            // None is given up: what had to wait until the writes ended is charged with all of it.
            drain: DRAIN,
            ..timed(plan, target.clone())
        };
        let idle = self.runtime.block_on(run(reads.clone(), None))?;
        let (beside, written) = self.runtime.block_on(async {
            tokio::try_join!(
                run(reads, None),
                run(writing(plan, target.clone(), writes), None)
            )
        })?;
        let name = who((service, writes));
        let exit = process.stop().with_context(|| format!("end {name}"))?;
        let reads = [get_of(&idle)?, get_of(&beside)?];
        let unsent = [idle.unsent, beside.unsent];
        self.claim(
            "Reading while orders are due: every read that was due was sent and answered with its order, before and meanwhile",
            reads.iter().all(|it| it.succeeded == it.requests)
                && unsent == [0, 0]
                && exit.success(),
            format!(
                "{name}: {} of {} and {} unsent idle, {} of {} and {} unsent meanwhile, {exit}",
                reads[0].succeeded,
                reads[0].requests,
                unsent[0],
                reads[1].succeeded,
                reads[1].requests,
                unsent[1]
            ),
        );
        let (all_written, numbers) = accepted(&written);
        self.claim(
            "Reading while orders are due: orders were written meanwhile, and none was refused",
            all_written,
            format!("{name}: {numbers}"),
        );
        let [idle, beside] = reads.map(|it| it.latency);
        let (idle, beside) = idle.zip(beside).context("no read was timed")?;
        let lines = u32::try_from(writes.lines())?;
        Ok(vec![
            Some(milliseconds(idle.p50_us)),
            Some(milliseconds(idle.p99_us)),
            Some(milliseconds(beside.p50_us)),
            Some(milliseconds(beside.p99_us)),
            Some(milliseconds(beside.p99_us) / milliseconds(idle.p99_us.max(1))),
            Some(written.succeeded_per_second * f64::from(lines)),
        ])
    }
}

/// As long as a closed loop of the plan.
fn timed(plan: &Plan, target: Target) -> LoadConfig {
    LoadConfig {
        warm_up: plan.warm_up,
        duration: plan.duration,
        drain: Duration::from_secs(2),
        ..LoadConfig::new(target)
    }
}

fn writing(plan: &Plan, target: Target, writes: Writes) -> LoadConfig {
    let timed = timed(plan, target);
    match writes {
        Writes::Single => LoadConfig {
            rate: plan.write_rate,
            connections: OPEN_LOOP_CONNECTIONS,
            ..timed
        },
        Writes::Bulk => LoadConfig {
            rate: plan.write_rate / f64::from(u32::try_from(BULK_LINES).unwrap_or(u32::MAX)),
            connections: READING_CONNECTIONS,
            mix: Mix {
                bulk: 1,
                ..Mix::default()
            },
            bulk_lines: BULK_LINES,
            ..timed
        },
    }
}

/// Whether something was written, and every answer and every line of it a success; with the numbers. Requests without an
/// answer say nothing of the service: those on their way at the end are among them.
fn accepted(written: &LoadReport) -> (bool, String) {
    let sum =
        |count: fn(&OperationReport) -> u64| written.operations.iter().map(count).sum::<u64>();
    let answered = sum(|it| it.requests) - sum(|it| it.errors.values().sum());
    let succeeded = sum(|it| it.succeeded);
    let numbers = format!(
        "{succeeded} of {answered} answered requests succeeded, {:.0} a second, {} lines refused",
        written.succeeded_per_second, written.bulk_lines_refused
    );
    let all = succeeded == answered
        && written.bulk_lines_refused == 0
        && written.succeeded_per_second > 0.0;
    (all, numbers)
}

fn get_of(report: &LoadReport) -> anyhow::Result<&OperationReport> {
    let find = |name: &str| report.operations.iter().find(|it| it.operation == name);
    find("get").with_context(|| format!("nothing was read:\n{report}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Of ten requests of two lines nine succeeded and one had no answer.
    fn written() -> LoadReport {
        let bulk = OperationReport {
            operation: "bulk".to_owned(),
            requests: 10,
            succeeded: 9,
            statuses: BTreeMap::from([(200, 9)]),
            errors: BTreeMap::from([("timed-out".to_owned(), 1)]),
            refused_with_retry_after: 0,
            refused_without_retry_after: 0,
            latency: None,
            percentiles: Vec::new(),
            refused_latency: None,
        };
        LoadReport {
            mode: "open loop",
            rate: 10.0,
            connections: 1,
            mix: "bulk=1".to_owned(),
            seconds: 1.0,
            succeeded_per_second: 9.0,
            answered_per_second: 9.0,
            unsent: 0,
            send_delay: None,
            operations: vec![bulk],
            over_time: Vec::new(),
            visible_over_time: Vec::new(),
            bulk_lines_refused: 0,
            acknowledged_commands: 18,
            acknowledged_orders: 18,
        }
    }

    #[test]
    fn writes_that_were_refused_or_never_came_are_no_writes_beside_reads() {
        let (all, numbers) = accepted(&written());
        assert!(all, "{numbers}");
        let mut refused = written();
        refused.operations[0].succeeded -= 1;
        let lines = LoadReport {
            bulk_lines_refused: 1,
            ..written()
        };
        let nothing = LoadReport {
            succeeded_per_second: 0.0,
            operations: Vec::new(),
            ..written()
        };
        for report in [refused, lines, nothing] {
            let (all, numbers) = accepted(&report);
            assert!(!all, "{numbers}");
        }
    }
}
