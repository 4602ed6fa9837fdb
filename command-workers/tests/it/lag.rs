//! How far commands may run ahead of the read model, and what happens when it is too far, or goes back.

use std::sync::Arc;

use order_command_workers::CommandError;
use order_domain::{Command, Status};
use order_log::Offset;

use crate::support::{ReadModel, Requests, Service, Setup, on, place};

fn at_most_behind(lag_events_max: u64) -> Setup {
    let mut setup = Setup::default();
    setup.config.lag_events_max = lag_events_max;
    setup
}

/// Waits until the partition serves; the bound only ends a test that would never end.
async fn served(service: &Service) {
    for _ in 0..30_000 {
        if service.workers.unavailable().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("{:?}", service.workers.unavailable());
}

#[tokio::test]
async fn past_the_limit_commands_are_refused_until_the_read_model_has_come_nearer() {
    let service = at_most_behind(10).start();
    // One more than the limit: the lag is looked at before a batch.
    for _ in 0..11 {
        service.place().await;
    }

    let error = service.submit(place()).await.unwrap_err();
    let CommandError::ProjectorBehind {
        lag_events,
        lag_events_max,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((lag_events, lag_events_max), (11, 10));
    assert!(service.workers.unavailable().is_empty(), "it is only slow");

    service.model.advance(0, 1);
    service.place().await;
    assert_eq!(service.log.end(0), Offset::new(12));
}

#[tokio::test]
async fn a_start_with_the_read_model_too_far_behind_waits_for_it() {
    let mut config = Setup::default().config;
    let service = Setup::default().start();
    let order = service.submit(place().keyed("k", 1)).await.unwrap().order;
    for _ in 0..20 {
        service.place().await;
    }
    service.workers.stop();
    config.lag_events_max = 10;
    let model = ReadModel::of(&service.log);
    let service = Service::start(service.log, Arc::clone(&model), config);

    let error = service
        .submit(on(order.id, Command::Confirm))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            CommandError::ProjectorBehind {
                lag_events: 21,
                lag_events_max: 10,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(service.workers.unavailable().len(), 1);

    model.advance(0, 15);
    served(&service).await;
    let confirmed = service.run(order.id, Command::Confirm).await;
    assert_eq!(confirmed.status, Status::Confirmed);
    assert!(
        service
            .submit(place().keyed("k", 1))
            .await
            .unwrap()
            .replayed
    );
}

#[tokio::test]
async fn an_older_read_model_in_the_place_of_a_newer_one_loses_nothing() {
    let service = Setup::default().start();
    let order = service.submit(place().keyed("k", 1)).await.unwrap().order;
    let confirmed = service.run(order.id, Command::Confirm).await;
    service.model.catch_up();
    service.place().await;

    // What was forgotten on the word of the newer one is not in the older one.
    service.model.go_back_to(0, 1);
    let error = service
        .submit(on(order.id, Command::Confirm))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::ProjectorBehind { .. }),
        "{error}"
    );
    served(&service).await;

    let error = service
        .submit(on(order.id, Command::Confirm))
        .await
        .unwrap_err();
    let CommandError::Rejected {
        order: Some(now), ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(now, confirmed);
    assert!(
        service
            .submit(place().keyed("k", 1))
            .await
            .unwrap()
            .replayed
    );
}

#[tokio::test]
async fn a_read_model_past_the_logs_end_keeps_the_partition_from_serving_and_says_why() {
    let service = Setup::default().start();
    service.place().await;
    let model = ReadModel::of(&service.log);
    model.set_checkpoint(0, Offset::new(5));
    let service = service.restart(Arc::clone(&model));

    let error = service.submit(place()).await.unwrap_err();
    let CommandError::PartitionUnavailable { cause, .. } = error else {
        panic!("{error}");
    };
    assert!(cause.contains("past the log's end 1"), "{cause}");

    // A rebuilt read model sets it right.
    model.set_checkpoint(0, Offset::ZERO);
    served(&service).await;
    service.place().await;
}
