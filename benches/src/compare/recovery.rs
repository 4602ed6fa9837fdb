//! A start after kill -9 under load: how long it takes, and whether everything acknowledged is there.

use std::time::Duration;

use anyhow::Context;

use super::Contestant;
use super::checks::{verify_log, wait_until_caught_up};
use super::evidence::Picture;
use super::experiment::{Entrant, Experiment, Metric, Values};
use super::ingest::quotient;
use super::program::Comparison;
use super::restart::{Prepared, main_pair};
use super::rows::rows_of;
use crate::load::{Ledger, LoadConfig, prove_ledger, run};
use crate::plot::Scale;

const READY_AFTER_KILL: Metric = Metric::lower("start to ready after kill -9", "ms");
const CAUGHT_UP: Metric = Metric::lower("then to caught up", "ms");
const ACKNOWLEDGED: Metric = Metric::higher("acknowledged before the kill", "orders");

/// Connections of the load that is cut off.
const KILLED_CONNECTIONS: usize = 32;

/// How long the read model may take to catch up while a ledger is proven.
const LEDGER_PATIENCE: Duration = Duration::from_secs(60);

impl Comparison<'_> {
    /// Kill -9 under load, and the start after it.
    pub(super) fn ask_recovery(&self, events: u64, prepared: &[Prepared]) -> anyhow::Result<()> {
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
