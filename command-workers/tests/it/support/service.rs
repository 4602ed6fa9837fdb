//! The write side under test, with its log and its read model at hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use order_command_workers::{
    CommandError, CommandOutcome, CommandRequest, CommandWorkers, CommandWorkersConfig,
};
use order_domain::{Command, Order, OrderId};
use order_log::{EventLog, PayloadFormat};
use order_partitioner::Partitioner;
use prometheus::Registry;

use super::{MemoryLog, ReadModel, on, place};

pub(crate) struct Setup {
    pub(crate) partitions: u16,
    pub(crate) format: PayloadFormat,
    pub(crate) config: CommandWorkersConfig,
}

impl Default for Setup {
    /// One partition, limits that no test meets by accident.
    fn default() -> Self {
        Self {
            partitions: 1,
            format: PayloadFormat::Binary,
            config: CommandWorkersConfig {
                queue_commands_max: 10_000,
                batch_commands_max: 1_024,
                lag_events_max: 1_000_000,
                group_commit: true,
                idempotency_retention: Duration::from_secs(86_400),
            },
        }
    }
}

impl Setup {
    pub(crate) fn start(self) -> Service {
        let log = MemoryLog::new(self.partitions, self.format);
        let model = ReadModel::of(&log);
        Service::start(log, model, self.config)
    }
}

pub(crate) struct Service {
    pub(crate) log: MemoryLog,
    pub(crate) model: Arc<ReadModel>,
    pub(crate) workers: CommandWorkers,
    pub(crate) registry: Registry,
    config: CommandWorkersConfig,
}

impl Service {
    pub(crate) fn start(
        log: MemoryLog,
        model: Arc<ReadModel>,
        config: CommandWorkersConfig,
    ) -> Self {
        let registry = Registry::new();
        let workers = CommandWorkers::start(
            &log,
            Partitioner::new(log.partition_count()).unwrap(),
            &mut |partition| model.port(partition),
            config.clone(),
            &registry,
        )
        .unwrap();
        Self {
            log,
            model,
            workers,
            registry,
            config,
        }
    }

    /// Stops, and starts new workers on the same log with the given read model.
    pub(crate) fn restart(self, model: Arc<ReadModel>) -> Self {
        self.workers.stop();
        Self::start(self.log, model, self.config)
    }

    pub(crate) async fn submit(
        &self,
        request: CommandRequest,
    ) -> Result<CommandOutcome, CommandError> {
        self.workers.submit(request).await
    }

    pub(crate) async fn place(&self) -> Arc<Order> {
        self.submit(place()).await.unwrap().order
    }

    /// Runs a command that must succeed.
    pub(crate) async fn run(&self, id: OrderId, command: Command) -> Arc<Order> {
        self.submit(on(id, command)).await.unwrap().order
    }

    /// The value of a counter or gauge, summed over the series with these labels.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let series = family.expect("the metric is registered").get_metric();
        series
            .iter()
            .filter(|series| {
                labels.iter().all(|(name, value)| {
                    let labels = series.get_label();
                    labels
                        .iter()
                        .any(|label| label.name() == *name && label.value() == *value)
                })
            })
            .map(|series| series.get_counter().get_value() + series.get_gauge().get_value())
            .sum()
    }
}

/// A command that has been put into its queue, in this very order, and whose answer is still to come.
pub(crate) type Queued = Pin<Box<dyn Future<Output = Result<CommandOutcome, CommandError>> + Send>>;

/// Puts a command into its queue and returns without waiting for the answer.
pub(crate) fn queue(service: &Service, request: CommandRequest) -> Queued {
    let workers = service.workers.clone();
    let mut future: Queued = Box::pin(async move { workers.submit(request).await });
    let mut context = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut context) {
        Poll::Pending => future,
        // Answered already: by a full queue, or by a very fast worker.
        Poll::Ready(answer) => Box::pin(std::future::ready(answer)),
    }
}
