//! Open loops: at a fixed rate how late an answer and its row are, and the highest rate that is borne.

use std::time::Duration;

use anyhow::Context;

use super::evidence::{Picture, Shows};
use super::experiment::{Entrant, Experiment, Metric, Values};
use super::ingest::{milliseconds, pair};
use super::plan::{INTERVAL, LAG_CONTESTANTS};
use super::program::{Comparison, OPEN_LOOP_CONNECTIONS};
use super::{Contestant, Service};
use crate::load::{LoadConfig, LoadReport, climb, over_time, percentile_curve, ramp_curves, run};
use crate::plot::{Curve, Scale};
use crate::rooms::Store;

const VISIBLE_P50: Metric = Metric::lower("append to visible, p50", "ms");
const VISIBLE_P99: Metric = Metric::lower("append to visible, p99", "ms");
const ANSWER_P50: Metric = Metric::lower("answer, p50", "ms");
const ANSWER_P99: Metric = Metric::lower("answer, p99", "ms");
const PROCESSOR: Metric = Metric::lower("processor", "% of one");
const KNEE: Metric = Metric::higher("knee", "orders a second");

/// Whose knee is looked for.
const KNEE_CONTESTANTS: [Service; 3] = [
    Service::on(Store::Segmented),
    Service::on(Store::Jsonl),
    Service::naive(),
];

impl Comparison<'_> {
    /// At a fixed rate: latency of the answer, and from the answer to the visible row.
    pub(super) fn ask_lag(&self) -> anyhow::Result<()> {
        let plan = &self.config.plan;
        let mut over = Vec::new();
        let mut distribution = Vec::new();
        let curves = std::cell::RefCell::new((&mut over, &mut distribution));
        let entrants = LAG_CONTESTANTS
            .iter()
            .map(|&service| {
                let curves = &curves;
                let mut is_first = true;
                let who = Contestant::Service(service).name();
                Entrant::new(who.clone(), move || {
                    let (report, values) = self.bear(service)?;
                    if std::mem::take(&mut is_first) {
                        let (over, distribution) = &mut *curves.borrow_mut();
                        over.push(over_time(&who, &report.visible_over_time, |it| it.p99_us));
                        distribution.extend(
                            report
                                .operations
                                .iter()
                                .filter(|it| it.operation == "read-back")
                                .map(|it| percentile_curve(&who, it)),
                        );
                        self.keep_load(who.clone(), report);
                    }
                    Ok(values)
                })
            })
            .collect();
        let experiment = Experiment::run(
            "lag",
            format!(
                "At {:.0} orders a second: late answers and late rows",
                plan.lag_rate
            ),
            "An open loop: the moment of each request is fixed beforehand, and its latency counts from it. Each order is read \
             back at once with the token of its answer, waiting until it is visible: that counts from the answer, which in \
             `always` is when the append was durable. Two processes are `order-service api` and `order-service projector` on \
             one data directory; their processor time is that of both. With `interval` an order is answered before it is synced, and visible \
             only after.",
            &[VISIBLE_P50, VISIBLE_P99, ANSWER_P50, ANSWER_P99, PROCESSOR],
            plan.rounds,
            entrants,
        )?;
        let pairs = [
            pair(Service::on(Store::Segmented), "fixed rate"),
            pair(
                Service {
                    durability: INTERVAL,
                    ..Service::on(Store::Segmented)
                },
                "fixed rate",
            ),
        ];
        let rate = plan.lag_rate;
        let pictures = vec![
            Picture {
                name: "lag-over-time",
                title: format!("{rate:.0} orders/s: append to visible row, p99 of each second"),
                shows: Shows::Curves {
                    across: "second in which orders were acknowledged",
                    up: "ms",
                    scales: [Scale::Even, Scale::Even],
                    curves: over,
                },
            },
            Picture {
                name: "lag-percentiles",
                title: format!("{rate:.0} orders/s: append to visible row, by percentile"),
                shows: Shows::Curves {
                    across: "one order in so many is later (100 is p99)",
                    up: "ms",
                    scales: [Scale::Logarithmic, Scale::Logarithmic],
                    curves: distribution,
                },
            },
        ];
        self.keep(experiment, &pairs, pictures);
        Ok(())
    }

    fn bear(&self, service: Service) -> anyhow::Result<(LoadReport, Values)> {
        let plan = &self.config.plan;
        let contestant = Contestant::Service(service);
        let directory = self.directory()?;
        let process = self.start(&contestant, directory.path())?;
        let before = process.processor_seconds()?;
        let report = self.runtime.block_on(run(
            LoadConfig {
                rate: plan.lag_rate,
                connections: OPEN_LOOP_CONNECTIONS,
                warm_up: plan.warm_up,
                duration: plan.lag_duration,
                read_back: true,
                ..LoadConfig::new(process.target.clone())
            },
            None,
        ))?;
        let used = process.processor_seconds()? - before;
        let name = contestant.name();
        let exit = process.stop().with_context(|| format!("end {name}"))?;
        let find = |name: &str| report.operations.iter().find(|it| it.operation == name);
        let (create, visible) = find("create")
            .zip(find("read-back"))
            .with_context(|| format!("{name} acknowledged nothing:\n{report}"))?;
        let all = create.requests == create.succeeded && visible.requests == visible.succeeded;
        self.claim(
            "Fixed rate: every order was acknowledged, and then visible to whoever had its token",
            all && exit.success(),
            format!(
                "{name}: {} orders, {} acknowledged, {} of {} visible",
                create.requests, create.succeeded, visible.succeeded, visible.requests
            ),
        );
        let (answer, seen) = create
            .latency
            .zip(visible.latency)
            .context("nothing was timed")?;
        let seconds = (plan.warm_up + plan.lag_duration).as_secs_f64();
        let values = vec![
            Some(milliseconds(seen.p50_us)),
            Some(milliseconds(seen.p99_us)),
            Some(milliseconds(answer.p50_us)),
            Some(milliseconds(answer.p99_us)),
            Some(100.0 * used / seconds),
        ];
        Ok((report, values))
    }

    /// The highest rate with latency and lag in bounds.
    pub(super) fn ask_knee(&self) -> anyhow::Result<()> {
        let plan = &self.config.plan;
        let curves = std::cell::RefCell::new(Vec::<Curve>::new());
        let knees = std::cell::RefCell::new(Vec::new());
        let entrants = KNEE_CONTESTANTS
            .iter()
            .map(|&service| {
                let (curves, knees) = (&curves, &knees);
                Entrant::new(Contestant::Service(service).name(), move || {
                    let who = Contestant::Service(service).name();
                    let directory = self.directory()?;
                    let process = self.start(&Contestant::Service(service), directory.path())?;
                    let config = self.step(&process.target);
                    let report =
                        self.runtime
                            .block_on(climb(&config, plan.ramp, plan.bounds, |step| {
                                eprintln!(
                                    "  {:.0}/s: p99 {:.1} ms {}",
                                    step.rate,
                                    step.p99_ms,
                                    step.objections.join(", ")
                                );
                            }))?;
                    let exit = process.stop().with_context(|| format!("end {who}"))?;
                    anyhow::ensure!(exit.success(), "{who} ended with {exit}");
                    self.claim(
                        "Knee: a rate held, and the projector's lag was told in every step that did",
                        report.lag_known,
                        format!("{who}: {}", report.verdict()),
                    );
                    let [latency, _] = ramp_curves(&format!("{who}: "), &report);
                    curves.borrow_mut().push(latency);
                    let knee = report.knee;
                    knees.borrow_mut().extend(knee);
                    self.keep_ramp(who, report);
                    Ok(vec![knee])
                })
            })
            .collect();
        let bounds = plan.bounds;
        let experiment = Experiment::run(
            "knee",
            "The knee: the highest rate that is borne",
            format!(
                "`POST /orders` in an open loop, rates growing by {} and then halving the gap {} times, {:.0} s a step. A rate \
                 holds when every answer is a success, none falls behind, p99 ≤ {} ms and the projector's lag ≤ {} s. One \
                 search each.",
                plan.ramp.factor,
                plan.ramp.refinements,
                plan.step.as_secs_f64(),
                bounds.p99_ms_max,
                bounds.lag_seconds_max
            ),
            &[KNEE],
            1,
            entrants,
        )?;
        // A server that does nothing is the target of the ceiling: the address below is replaced by its own.
        let anywhere = crate::load::Target::parse("http://127.0.0.1:1", false)?;
        let ceiling = self.own_ceiling(&self.step(&anywhere))?;
        let highest = knees.into_inner().into_iter().fold(0.0, f64::max);
        self.claim(
            "Knee: the load generator could have sent more",
            !ceiling.may_limit(highest),
            format!(
                "the highest knee is {highest:.0}, the generator's ceiling {:.0}",
                ceiling.per_second
            ),
        );
        let picture = Picture {
            name: "knee",
            title: format!(
                "p99 by rate; the knee is where it leaves {} ms",
                bounds.p99_ms_max
            ),
            shows: Shows::Curves {
                across: "orders a second due",
                up: "ms",
                scales: [Scale::Even, Scale::Logarithmic],
                curves: curves.into_inner(),
            },
        };
        let pairs = [pair(Service::on(Store::Segmented), "knee")];
        self.keep(experiment, &pairs, vec![picture]);
        Ok(())
    }

    /// A step of a ramp.
    fn step(&self, target: &crate::load::Target) -> LoadConfig {
        LoadConfig {
            connections: OPEN_LOOP_CONNECTIONS,
            warm_up: self.config.plan.warm_up,
            duration: self.config.plan.step,
            drain: Duration::from_secs(2),
            ..LoadConfig::new(target.clone())
        }
    }
}
