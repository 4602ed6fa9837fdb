//! One run: connections that take what is due, send it, and learn from the answers which orders there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hdrhistogram::Histogram;

use super::asking::{self, Subject};
use super::connection::{Answer, Ask, Connection, NoAnswer};
use super::operation::Choice;
use super::orders::{KnownOrders, OpenOrder};
use super::outcome::{Recording, histogram, micros};
use super::pacing::Pacing;
use super::series::Series;
use super::{Ledger, LedgerEntry, LoadReport, Mix, Operation, Quantiles, Target};
use crate::sample::Chance;

/// What a run does.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Where the requests go.
    pub target: Target,
    /// Requests a second; 0 for a closed loop.
    pub rate: f64,
    /// Keep-alive connections, each with one request at a time.
    pub connections: usize,
    /// Time before the measured time, at the same rate.
    pub warm_up: Duration,
    /// Measured time.
    pub duration: Duration,
    /// Most requests of the whole run.
    pub requests_max: u64,
    /// How long a backlog may take to be sent after the measured time, before it counts as unsent.
    pub drain: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Proportion of the operations.
    pub mix: Mix,
    /// Orders of one bulk request.
    pub bulk_lines: usize,
    /// Whether each command gets an `Idempotency-Key` of its own.
    pub idempotency_keys: bool,
    /// Whether each new order is read at once, on the same connection, waiting until it is visible. These reads come on top
    /// of the rate.
    pub read_back: bool,
    /// Orders that are there already: reads choose from these and from what the run makes.
    pub known: Vec<String>,
    /// Where the projector's lag is told, if not by the target itself: by a projector in a process of its own.
    pub metrics: Option<Target>,
    /// Seed of everything random.
    pub seed: u64,
}

impl LoadConfig {
    /// New orders on one connection in a closed loop, for as long as the answers to 10 s of it take.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        Self {
            target,
            rate: 0.0,
            connections: 1,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(10),
            requests_max: u64::MAX,
            drain: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
            mix: Mix::CREATE,
            bulk_lines: 20,
            idempotency_keys: false,
            read_back: false,
            known: Vec::new(),
            metrics: None,
            seed: 1,
        }
    }
}

/// How often a connection that cannot be made is tried again, so that a run against a dead service does not spin.
const RECONNECT_DELAY: Duration = Duration::from_millis(10);

/// What was recorded, under one lock: a request is recorded once, in all of it.
struct Tally {
    recordings: Vec<Recording>,
    send_delay: Histogram<u64>,
    /// Everything but read-backs.
    over_time: Series,
    /// Read-backs.
    visible_over_time: Series,
}

impl Tally {
    fn new(duration: Duration) -> Self {
        Self {
            recordings: Operation::ALL.iter().map(|_| Recording::new()).collect(),
            send_delay: histogram(),
            over_time: Series::new(duration),
            visible_over_time: Series::new(duration),
        }
    }
}

struct Shared {
    config: LoadConfig,
    pacing: Pacing,
    measured_from: Instant,
    measured_until: Instant,
    tally: Mutex<Tally>,
    orders: Mutex<KnownOrders>,
    ledger: Option<Mutex<Ledger>>,
    answered: AtomicU64,
    succeeded: AtomicU64,
    acknowledged_commands: AtomicU64,
    acknowledged_orders: AtomicU64,
    bulk_lines_refused: AtomicU64,
}

/// Runs the load to its end. Acknowledged commands go to `ledger`.
///
/// # Errors
/// If no connection can be made at the start, or the ledger cannot be written.
pub async fn run(config: LoadConfig, ledger: Option<Ledger>) -> anyhow::Result<LoadReport> {
    anyhow::ensure!(
        config.connections > 0,
        "a run needs at least one connection"
    );
    anyhow::ensure!(
        config.rate.is_finite() && config.rate >= 0.0,
        "the rate must be 0 (closed loop) or above"
    );
    let mut connections = Vec::with_capacity(config.connections);
    for _ in 0..config.connections {
        let mut connection = Connection::new(config.target.clone(), config.timeout);
        connection.connect().await?;
        connections.push(connection);
    }

    let start = Instant::now();
    let shared = Arc::new(Shared {
        pacing: Pacing::new(
            start,
            (config.rate > 0.0).then_some(config.rate),
            config.requests_max,
            config.warm_up + config.duration,
            config.drain,
        ),
        measured_from: start + config.warm_up,
        measured_until: start + config.warm_up + config.duration,
        tally: Mutex::new(Tally::new(config.duration)),
        orders: Mutex::new(KnownOrders::of(config.known.clone())),
        ledger: ledger.map(Mutex::new),
        answered: AtomicU64::new(0),
        succeeded: AtomicU64::new(0),
        acknowledged_commands: AtomicU64::new(0),
        acknowledged_orders: AtomicU64::new(0),
        bulk_lines_refused: AtomicU64::new(0),
        config,
    });

    let pacer = {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("pacer".to_owned())
            .spawn(move || shared.pacing.pace())
            .context("start the pacing thread")?
    };
    let tasks: Vec<_> = (0_u64..)
        .zip(connections)
        .map(|(number, connection)| tokio::spawn(work(Arc::clone(&shared), number, connection)))
        .collect();
    for task in tasks {
        task.await.context("a connection's task panicked")??;
    }
    let ended = Instant::now();
    let unsent = pacer
        .join()
        .map_err(|_| anyhow::anyhow!("the pacing thread panicked"))?;

    let shared = Arc::into_inner(shared).context("a task still holds the run")?;
    let report = shared.report(ended, unsent);
    if let Some(ledger) = shared.ledger {
        ledger
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .finish()?;
    }
    Ok(report)
}

async fn work(shared: Arc<Shared>, number: u64, mut connection: Connection) -> anyhow::Result<()> {
    let mut chance = Chance::new(shared.config.seed.wrapping_add(number << 32));
    while let Some(due) = shared.pacing.next().await {
        let (operation, order) = shared.choose(&mut chance);
        let ask = asking::ask(
            operation,
            order.as_ref(),
            shared.config.idempotency_keys,
            shared.config.bulk_lines,
            &mut chance,
        );
        let sent = Instant::now();
        let outcome = connection.send(ask).await;
        let ended = Instant::now();
        shared.count(ended, &outcome);
        shared.record(operation, due, sent, ended, &outcome);
        if let Some(ask) = shared.read_back_of(operation, &outcome) {
            let read = connection.send(ask).await;
            shared.record(Operation::ReadBack, ended, ended, Instant::now(), &read);
        }
        shared.learn(operation, order, &outcome, &mut chance)?;
        if matches!(outcome, Err(NoAnswer::Connect)) {
            tokio::time::sleep(RECONNECT_DELAY).await;
        }
    }
    Ok(())
}

impl Shared {
    /// The next operation, with the order it is about.
    fn choose(&self, chance: &mut Chance) -> (Operation, Option<Subject>) {
        match self.config.mix.choose(chance) {
            Choice::Create => None,
            Choice::Get => lock(&self.orders)
                .any(chance)
                .map(|id| (Operation::Get, Some(Subject::Read(id)))),
            Choice::Advance => lock(&self.orders)
                .take_open()
                .map(|order| (order.step, Some(Subject::Step(order)))),
            Choice::Cancel => lock(&self.orders)
                .take_cancellable()
                .map(|order| (Operation::Cancel, Some(Subject::Step(order)))),
            Choice::List => Some((Operation::List, None)),
            Choice::Bulk => Some((Operation::Bulk, None)),
        }
        .unwrap_or((Operation::Create, None))
    }

    /// Reads an order that was just made, with the token of its acknowledgement.
    fn read_back_of(
        &self,
        operation: Operation,
        outcome: &Result<Answer, NoAnswer>,
    ) -> Option<Ask> {
        if !self.config.read_back || operation != Operation::Create {
            return None;
        }
        let answer = outcome
            .as_ref()
            .ok()
            .filter(|answer| answer.status.is_success())?;
        asking::read_back(answer, &self.config.target.base)
    }

    /// Counts an answer for the rate that was reached.
    fn count(&self, ended: Instant, outcome: &Result<Answer, NoAnswer>) {
        if (self.measured_from..self.measured_until).contains(&ended)
            && let Ok(answer) = outcome
        {
            self.answered.fetch_add(1, Ordering::Relaxed);
            if answer.status.is_success() {
                self.succeeded.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn record(
        &self,
        operation: Operation,
        due: Instant,
        sent: Instant,
        ended: Instant,
        outcome: &Result<Answer, NoAnswer>,
    ) {
        if (self.measured_from..self.measured_until).contains(&due) {
            let (at, latency) = (due - self.measured_from, ended - due);
            let mut tally = lock(&self.tally);
            tally.recordings[operation.index()].record(latency, outcome);
            if operation == Operation::ReadBack {
                tally.visible_over_time.record(at, latency, outcome);
            } else {
                let delay = sent.saturating_duration_since(due);
                tally.send_delay.saturating_record(micros(delay));
                tally.over_time.record(at, latency, outcome);
            }
        }
    }

    /// Keeps what an acknowledged command says. An order whose step was refused waits for the same step again; one whose
    /// fate is not known is left alone.
    fn learn(
        &self,
        operation: Operation,
        subject: Option<Subject>,
        outcome: &Result<Answer, NoAnswer>,
        chance: &mut Chance,
    ) -> anyhow::Result<()> {
        if !operation.is_command() {
            return Ok(());
        }
        let Ok(answer) = outcome else { return Ok(()) };
        if !answer.status.is_success() {
            if let Some(Subject::Step(order)) = subject
                && answer.status.is_server_error()
            {
                lock(&self.orders).reopen(order);
            }
            return Ok(());
        }
        if operation == Operation::Bulk {
            return self.learn_bulk(answer);
        }
        let order = asking::acknowledged(operation, answer)?;
        self.acknowledge(operation, &order.id, order.version)?;
        if let Some(step) = operation.next_step() {
            let asking::Acknowledged { id, version, total } = order;
            let order = OpenOrder {
                id,
                version,
                total,
                step,
            };
            if operation == Operation::Create {
                lock(&self.orders).made(order, chance);
            } else {
                lock(&self.orders).reopen(order);
            }
        }
        Ok(())
    }

    /// Keeps what the lines of a bulk answer say. These orders are not taken further: their totals are not in the answer.
    fn learn_bulk(&self, answer: &Answer) -> anyhow::Result<()> {
        for line in asking::bulk_lines(answer, self.config.bulk_lines)? {
            match (line.id, line.version) {
                (Some(id), Some(version)) if (200..300).contains(&line.status) => {
                    self.acknowledge(Operation::Bulk, &id, version)?;
                }
                _ => {
                    self.bulk_lines_refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// Counts an acknowledged command and writes it down.
    fn acknowledge(&self, operation: Operation, id: &str, version: u32) -> anyhow::Result<()> {
        self.acknowledged_commands.fetch_add(1, Ordering::Relaxed);
        if matches!(operation, Operation::Create | Operation::Bulk) {
            self.acknowledged_orders.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(ledger) = &self.ledger {
            lock(ledger).write(&LedgerEntry {
                order_id: id.to_owned(),
                version,
                operation: operation.name().to_owned(),
                acknowledged_at_us: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, micros),
            })?;
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "rates are read to a few digits")]
    fn report(&self, ended: Instant, unsent: u64) -> LoadReport {
        // A run that used up its requests ended early.
        let seconds = (ended.min(self.measured_until))
            .saturating_duration_since(self.measured_from)
            .as_secs_f64();
        let per_second = |count: &AtomicU64| {
            if seconds > 0.0 {
                count.load(Ordering::Relaxed) as f64 / seconds
            } else {
                0.0
            }
        };
        let tally = lock(&self.tally);
        LoadReport {
            mode: if self.config.rate > 0.0 {
                "open loop"
            } else {
                "closed loop"
            },
            rate: self.config.rate,
            connections: self.config.connections,
            mix: self.config.mix.to_string(),
            seconds,
            succeeded_per_second: per_second(&self.succeeded),
            answered_per_second: per_second(&self.answered),
            unsent,
            send_delay: Quantiles::of(&tally.send_delay),
            operations: Operation::ALL
                .iter()
                .map(|operation| tally.recordings[operation.index()].report(operation.name()))
                .filter(|report| report.requests > 0)
                .collect(),
            over_time: tally.over_time.points(),
            visible_over_time: tally.visible_over_time.points(),
            bulk_lines_refused: self.bulk_lines_refused.load(Ordering::Relaxed),
            acknowledged_commands: self.acknowledged_commands.load(Ordering::Relaxed),
            acknowledged_orders: self.acknowledged_orders.load(Ordering::Relaxed),
        }
    }
}

/// A panic elsewhere does not make counts and histograms wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
