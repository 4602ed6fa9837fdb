//! The same promises on the engines that keep bytes in files, in every durability mode, over a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use order_command_workers::{CommandError, CommandOutcome, CommandWorkers};
use order_domain::{Command, EventKind, OrderId, Status};
use order_log::disk::{Disk, RealDisk};
use order_log::jsonl::{JsonlConfig, JsonlLog};
use order_log::segmented::{SegmentedConfig, SegmentedLog};
use order_log::{Durability, EventLog};
use order_partitioner::Partitioner;
use prometheus::Registry;

use crate::support::{ReadModel, Requests, Setup, on, place};

const PARTITIONS: u16 = 2;

#[derive(Debug, Clone, Copy)]
enum Engine {
    Segmented,
    Jsonl,
}

impl Engine {
    fn open(self, directory: &Path, durability: Durability) -> Box<dyn EventLog> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        match self {
            Self::Segmented => {
                let directory = directory.join("log");
                let config = SegmentedConfig::new(directory, [7; 16], PARTITIONS, durability);
                Box::new(SegmentedLog::open(config, disk).unwrap())
            }
            Self::Jsonl => {
                let config = JsonlConfig {
                    path: directory.join("events.jsonl"),
                    partitions: PARTITIONS,
                    durability,
                    type_names: |number| EventKind::from_number(number).unwrap().name(),
                };
                Box::new(JsonlLog::open(config, &disk).unwrap())
            }
        }
    }
}

fn start(log: &dyn EventLog) -> CommandWorkers {
    let model = ReadModel::of(log);
    CommandWorkers::start(
        log,
        Partitioner::new(PARTITIONS).unwrap(),
        &mut |partition| model.port(partition),
        Setup::default().config,
        &Registry::new(),
    )
    .unwrap()
}

/// Uses two keys on one order, then moves it on: placed by `key`, confirmed by `key`, paid.
async fn live(workers: &CommandWorkers, key: &str) -> [CommandOutcome; 2] {
    let placed = workers.submit(place().keyed(key, 1)).await.unwrap();
    let confirm = on(placed.order.id, Command::Confirm).keyed(key, 2);
    let confirmed = workers.submit(confirm).await.unwrap();
    let pay = Command::Pay {
        amount: placed.order.total,
        reference: None,
    };
    workers.submit(on(placed.order.id, pay)).await.unwrap();
    [placed, confirmed]
}

async fn check_replays(workers: &CommandWorkers, key: &str, first: &[CommandOutcome; 2]) {
    let [placed, confirmed] = first;
    let id: OrderId = placed.order.id;
    for (request, first) in [
        (place().keyed(key, 1), placed),
        (on(id, Command::Confirm).keyed(key, 2), confirmed),
    ] {
        let again = workers.submit(request).await.unwrap();
        assert!(again.replayed);
        assert_eq!(again.order, first.order);
        assert_eq!(again.position, first.position);
    }
    let error = workers.submit(place().keyed(key, 9)).await.unwrap_err();
    assert!(
        matches!(error, CommandError::IdempotencyMismatch),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_commands_and_their_keys_are_there_after_a_restart() {
    let modes = [
        Durability::Always,
        Durability::Interval(Duration::from_millis(50)),
        Durability::Os,
    ];
    for engine in [Engine::Segmented, Engine::Jsonl] {
        for durability in modes {
            let directory = tempfile::tempdir().unwrap();
            let log = engine.open(directory.path(), durability);
            let workers = start(&*log);
            let tasks: Vec<_> = (0..16)
                .map(|number| {
                    let workers = workers.clone();
                    tokio::spawn(async move {
                        let key = format!("key-{number}");
                        let first = live(&workers, &key).await;
                        // Perhaps before anybody can read it back from the log.
                        check_replays(&workers, &key, &first).await;
                        (key, first)
                    })
                })
                .collect();
            let mut lives = Vec::new();
            for task in tasks {
                lives.push(task.await.unwrap());
            }
            workers.stop();
            drop((workers, log));

            let log = engine.open(directory.path(), durability);
            let workers = start(&*log);

            for (key, first) in &lives {
                check_replays(&workers, key, first).await;
                let ship = Command::Ship {
                    carrier: None,
                    tracking_number: None,
                };
                let request = on(first[0].order.id, ship).at_version(3);
                let shipped = workers.submit(request).await.unwrap();
                assert_eq!(
                    shipped.order.status,
                    Status::Shipped,
                    "{engine:?} {durability}"
                );
            }
            workers.stop();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_from_the_log_are_those_from_memory() {
    for engine in [Engine::Segmented, Engine::Jsonl] {
        let directory = tempfile::tempdir().unwrap();
        let log = engine.open(directory.path(), Durability::Always);
        let workers = start(&*log);
        let first = live(&workers, "k").await;
        workers.stop();
        drop((workers, log));

        let log = engine.open(directory.path(), Durability::Always);
        let model = ReadModel::of(&*log);
        // Nothing is left for memory.
        model.catch_up();
        let workers = CommandWorkers::start(
            &*log,
            Partitioner::new(PARTITIONS).unwrap(),
            &mut |partition| model.port(partition),
            Setup::default().config,
            &Registry::new(),
        )
        .unwrap();

        check_replays(&workers, "k", &first).await;
        workers.stop();
    }
}
