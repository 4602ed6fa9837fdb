//! One run: connections that take what is due, send it, and learn from the answers which orders there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hdrhistogram::Histogram;
use hyper::Method;
use serde::Deserialize;

use super::connection::{Answer, Ask, Connection, NoAnswer};
use super::operation::Choice;
use super::orders::{KnownOrders, OpenOrder};
use super::outcome::{Recording, histogram, micros};
use super::pacing::Pacing;
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
    /// Whether each command gets an `Idempotency-Key` of its own.
    pub idempotency_keys: bool,
    /// Whether each new order is read at once, on the same connection, waiting until it is visible. These reads come on top
    /// of the rate.
    pub read_back: bool,
    /// Seed of everything random.
    pub seed: u64,
}

/// How often a connection that cannot be made is tried again, so that a run against a dead service does not spin.
const RECONNECT_DELAY: Duration = Duration::from_millis(10);

/// How long the service may let a read wait for the order just made.
const READ_BACK_WAIT_SECONDS: u32 = 5;

struct Shared {
    config: LoadConfig,
    pacing: Pacing,
    measured_from: Instant,
    measured_until: Instant,
    recordings: Vec<Mutex<Recording>>,
    send_delay: Mutex<Histogram<u64>>,
    orders: Mutex<KnownOrders>,
    ledger: Option<Mutex<Ledger>>,
    answered: AtomicU64,
    succeeded: AtomicU64,
    acknowledged_commands: AtomicU64,
    acknowledged_orders: AtomicU64,
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
        recordings: Operation::ALL
            .iter()
            .map(|_| Mutex::new(Recording::new()))
            .collect(),
        send_delay: Mutex::new(histogram()),
        orders: Mutex::new(KnownOrders::default()),
        ledger: ledger.map(Mutex::new),
        answered: AtomicU64::new(0),
        succeeded: AtomicU64::new(0),
        acknowledged_commands: AtomicU64::new(0),
        acknowledged_orders: AtomicU64::new(0),
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
        let ask = shared.ask(operation, order.as_ref(), &mut chance);
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

/// An order a request is about: to be read, or to be taken a step further.
#[derive(Debug)]
enum Subject {
    Read(String),
    Step(OpenOrder),
}

/// What the generator understands of an answer.
#[derive(Debug, Deserialize)]
struct Acknowledged {
    id: String,
    version: u32,
    total: i64,
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
        }
        .unwrap_or((Operation::Create, None))
    }

    fn ask(&self, operation: Operation, subject: Option<&Subject>, chance: &mut Chance) -> Ask {
        let mut headers = Vec::new();
        if self.config.idempotency_keys && operation != Operation::Get {
            headers.push((
                "idempotency-key",
                format!("{:016x}{:016x}", chance.draw(), chance.draw()),
            ));
        }
        match subject {
            None => Ask {
                method: Method::POST,
                path: "/orders".to_owned(),
                headers,
                body: Some(new_order(chance)),
            },
            Some(Subject::Read(id)) => Ask {
                method: Method::GET,
                path: format!("/orders/{id}"),
                headers,
                body: None,
            },
            Some(Subject::Step(order)) => {
                headers.push(("if-match", format!("\"{}\"", order.version)));
                let body = match operation {
                    Operation::Pay => format!("{{\"amount\":{}}}", order.total),
                    _ => "{}".to_owned(),
                };
                Ask {
                    method: Method::POST,
                    path: format!("/orders/{}/{}", order.id, operation.name()),
                    headers,
                    body: Some(body.into_bytes()),
                }
            }
        }
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
        let header = |name| Some(answer.headers.get(name)?.to_str().ok()?.to_owned());
        let location = header("location")?;
        let base = self.config.target.base.as_str();
        Some(Ask {
            method: Method::GET,
            path: location.strip_prefix(base).unwrap_or(&location).to_owned(),
            headers: vec![
                ("sync-token", header("sync-token")?),
                ("prefer", format!("wait={READ_BACK_WAIT_SECONDS}")),
            ],
            body: None,
        })
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
            lock(&self.recordings[operation.index()]).record(ended - due, outcome);
            if operation != Operation::ReadBack {
                let delay = sent.saturating_duration_since(due);
                lock(&self.send_delay).saturating_record(micros(delay));
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
        if operation == Operation::Get {
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
        let order: Acknowledged = serde_json::from_slice(&answer.body)
            .with_context(|| format!("the answer to `{}` is not an order", operation.name()))?;
        self.acknowledged_commands.fetch_add(1, Ordering::Relaxed);
        if let Some(ledger) = &self.ledger {
            lock(ledger).write(&LedgerEntry {
                order_id: order.id.clone(),
                version: order.version,
                operation: operation.name().to_owned(),
                acknowledged_at_us: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, micros),
            })?;
        }
        if operation == Operation::Create {
            self.acknowledged_orders.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(step) = operation.next_step() {
            let Acknowledged { id, version, total } = order;
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
            send_delay: Quantiles::of(&lock(&self.send_delay)),
            operations: Operation::ALL
                .iter()
                .map(|operation| lock(&self.recordings[operation.index()]).report(operation.name()))
                .filter(|report| report.requests > 0)
                .collect(),
            acknowledged_commands: self.acknowledged_commands.load(Ordering::Relaxed),
            acknowledged_orders: self.acknowledged_orders.load(Ordering::Relaxed),
        }
    }
}

/// Customers and goods that orders are drawn from: enough that none is hot, few enough that all come again.
const CUSTOMERS: usize = 10_000;
const GOODS: usize = 1_000;

/// An order of the size of the documented one.
fn new_order(chance: &mut Chance) -> Vec<u8> {
    format!(
        "{{\"customer_id\":\"c-{:04}\",\"currency\":\"EUR\",\"lines\":[{{\"sku\":\"SKU-{}\",\"quantity\":{},\
         \"unit_price\":{}}}],\"metadata\":{{\"channel\":\"web\"}}}}",
        chance.below(CUSTOMERS),
        chance.below(GOODS),
        chance.below(9) + 1,
        chance.below(9_000) + 1_000,
    )
    .into_bytes()
}

/// A panic elsewhere does not make counts and histograms wrong.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
