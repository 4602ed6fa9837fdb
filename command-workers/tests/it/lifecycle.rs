//! Start, overload, stop.

use std::time::Duration;

use order_command_workers::{CommandError, CommandWorkers};
use order_domain::Command;
use order_log::LogError;
use order_partitioner::Partitioner;

use crate::support::{Plan, ReadModel, Setup, on, place, queue};

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let mut setup = Setup::default();
    setup.config.queue_commands_max = 4;
    let service = setup.start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();
    let queued: Vec<_> = (0..4).map(|_| queue(&service, place())).collect();

    let error = service.submit(place()).await.unwrap_err();

    let CommandError::Overloaded {
        depth, retry_after, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(depth, 4);
    assert!(retry_after > Duration::ZERO);
    assert_eq!(
        service.metric("commands_total", &[("outcome", "overloaded")]),
        1.0
    );
    gate.open();
    first.await.unwrap();
    for command in queued {
        command.await.unwrap();
    }
    service.place().await;
}

#[tokio::test]
async fn stop_works_off_what_was_accepted_and_refuses_the_rest() {
    let service = Setup::default().start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();
    let queued: Vec<_> = (0..100).map(|_| queue(&service, place())).collect();

    gate.open();
    service.workers.stop();

    first.await.unwrap();
    for command in queued {
        command.await.unwrap();
    }
    assert_eq!(service.log.frames(0).len(), 101);
    assert!(service.log.is_closed(0));
    let error = service.submit(place()).await.unwrap_err();
    assert!(matches!(error, CommandError::Stopping));
    service.workers.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_race_with_the_stop_are_all_answered() {
    for _ in 0..50 {
        let service = Setup {
            partitions: 2,
            ..Setup::default()
        }
        .start();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let workers = service.workers.clone();
                tokio::spawn(async move { workers.submit(place()).await })
            })
            .collect();
        let workers = service.workers.clone();
        tokio::task::spawn_blocking(move || workers.stop())
            .await
            .unwrap();

        let mut accepted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => accepted += 1,
                Err(error) => assert!(matches!(error, CommandError::Stopping), "{error}"),
            }
        }
        let frames = service.log.frames(0).len() + service.log.frames(1).len();
        assert_eq!(frames, accepted);
    }
}

#[tokio::test]
async fn workers_that_are_dropped_end_and_close_their_partitions() {
    let service = Setup::default().start();
    let order = service.place().await;
    let (log, config) = (service.log.clone(), Setup::default().config);
    drop(service);

    // The writer comes back when the thread has ended; the bound only ends a test that would never end.
    let model = ReadModel::of(&log);
    for _ in 0..30_000 {
        let registry = prometheus::Registry::new();
        let partitioner = Partitioner::new(1).unwrap();
        let port = &mut |partition| model.port(partition);
        match CommandWorkers::start(&log, partitioner, port, config.clone(), &registry) {
            Ok(workers) => {
                let outcome = workers.submit(on(order.id, Command::Confirm)).await;
                assert_eq!(outcome.unwrap().order.version.get(), 2);
                return;
            }
            Err(LogError::WriterTaken(_)) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the writer never came back");
}

#[tokio::test]
async fn a_partition_has_one_worker() {
    let service = Setup::default().start();

    let second = CommandWorkers::start(
        &service.log,
        Partitioner::new(1).unwrap(),
        &mut |partition| service.model.port(partition),
        Setup::default().config,
        &prometheus::Registry::new(),
    );

    assert!(matches!(second.unwrap_err(), LogError::WriterTaken(_)));
    service.place().await;
}
