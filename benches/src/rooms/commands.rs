//! The command workers behind the same loop: decide, encode, append, answer; everything of a `POST` but HTTP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use order_command_workers::{
    CommandRequest, CommandWorkers, CommandWorkersConfig, IdempotencyEntry, OrderSnapshot,
    SnapshotError, Snapshots, Target,
};
use order_domain::{
    Amount, Command, Currency, CustomerId, NewLine, OrderId, PlaceOrder, Quantity, Sku,
};
use order_log::{EventLog, Offset, PartitionId, PartitionReader};
use order_partitioner::Partitioner;

use crate::measure::Sample;
use crate::reference::{Producer, measure_waiting};

/// A read model that has seen everything the moment it is durable, and holds nothing: the write side alone is measured.
#[derive(Debug)]
struct AlwaysCurrent(Box<dyn PartitionReader>);

impl Snapshots for AlwaysCurrent {
    fn checkpoint(&self) -> Offset {
        self.0.durable_end()
    }

    fn order(&mut self, _id: OrderId) -> Result<Option<OrderSnapshot>, SnapshotError> {
        Ok(None)
    }

    fn idempotency(
        &mut self,
        _key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyEntry>, SnapshotError> {
        Ok(None)
    }
}

#[derive(Clone)]
struct Placing {
    workers: CommandWorkers,
    request: CommandRequest,
}

impl Producer for Placing {
    async fn append(&mut self) -> anyhow::Result<()> {
        self.workers.submit(self.request.clone()).await?;
        Ok(())
    }
}

/// The command that the documented request is.
///
/// # Errors
/// None: the documented request is within the domain.
pub fn place_command() -> anyhow::Result<Command> {
    Ok(Command::Place(PlaceOrder {
        customer_id: CustomerId::new("c-1042")?,
        currency: Currency::parse("EUR")?,
        lines: vec![NewLine {
            sku: Sku::new("SKU-1")?,
            quantity: Quantity::new(2)?,
            unit_price: Amount::new(1_999)?,
        }],
        metadata: [("channel".to_owned(), "web".to_owned())].into(),
    }))
}

/// `producers` tasks that each place an order, wait for its acknowledgement, and place the next, for `duration`.
///
/// # Errors
/// If a command is refused.
pub fn measure_commands(
    log: &Arc<dyn EventLog>,
    producers: usize,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let placing = Placing::start(log)?;
    let workers = placing.workers.clone();
    let sample = measure_waiting(vec![placing; producers], duration);
    workers.stop();
    sample
}

impl Placing {
    /// Starts command workers on all partitions of `log`.
    fn start(log: &Arc<dyn EventLog>) -> anyhow::Result<Self> {
        let partitioner =
            Partitioner::new(log.partition_count()).context("a count of partitions")?;
        let mut readers = (0..log.partition_count())
            .map(|partition| log.reader(PartitionId::new(partition)))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let workers = CommandWorkers::start(
            &**log,
            partitioner,
            &mut |_| Box::new(AlwaysCurrent(readers.next().expect("one port a partition"))),
            CommandWorkersConfig {
                queue_commands_max: 8192,
                batch_commands_max: 4096,
                lag_events_max: u64::MAX,
                group_commit: true,
                idempotency_retention: Duration::from_secs(3_600),
            },
            &prometheus::Registry::new(),
        )?;
        let request = CommandRequest {
            target: Target::New,
            command: place_command()?,
            expected: None,
            idempotency: None,
            traceparent: None,
            request_id: None,
        };
        Ok(Self { workers, request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::{Depth, Store, open_log, replay};
    use order_log::Durability;

    #[test]
    fn every_acknowledged_order_is_in_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = open_log(Store::Segmented, directory.path(), 1, Durability::Always).unwrap();
        let mut placing = Placing::start(&log).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        for _ in 0..20 {
            runtime.block_on(placing.append()).unwrap();
        }
        placing.workers.stop();
        let reader = log.reader(PartitionId::default()).unwrap();
        assert_eq!(replay(&*reader, Depth::Fold).unwrap(), 20);
    }
}
