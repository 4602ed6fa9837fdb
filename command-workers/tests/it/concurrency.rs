//! Many clients at one order: the single writer decides, whatever the order of arrival.

use std::collections::HashSet;

use order_command_workers::CommandError;
use order_domain::{Command, CommandKind, Rejection, Status, Version};

use crate::support::{Plan, Requests, Setup, on, place, queue};

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_that_expect_one_version_exactly_one_wins() {
    let service = Setup::default().start();
    for _ in 0..50 {
        let order = service.place().await;

        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let workers = service.workers.clone();
                let request = on(order.id, Command::Confirm).at_version(1);
                tokio::spawn(async move { workers.submit(request).await })
            })
            .collect();
        let mut winners = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(outcome) => {
                    winners += 1;
                    assert_eq!(outcome.order.version, Version::new(2));
                }
                Err(CommandError::VersionMismatch { actual }) => {
                    assert_eq!(actual, Version::new(2));
                }
                Err(other) => panic!("{other}"),
            }
        }

        assert_eq!(winners, 1);
    }
}

#[tokio::test]
async fn any_one_of_several_expected_versions_will_do() {
    let service = Setup::default().start();
    let order = service.place().await;
    let mut request = on(order.id, Command::Confirm);
    request.expected = Some(vec![Version::new(7), Version::new(1)]);

    let outcome = service.submit(request).await.unwrap();

    assert_eq!(outcome.order.status, Status::Confirmed);
}

#[tokio::test]
async fn a_refusal_carries_the_order_as_it_is_and_appends_nothing() {
    let service = Setup::default().start();
    let order = service.place().await;
    let end = service.log.end(0);

    let error = service
        .submit(on(order.id, Command::Deliver))
        .await
        .unwrap_err();

    let CommandError::Rejected {
        rejection: Rejection::InvalidTransition {
            status, allowed, ..
        },
        order: Some(refused),
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(status, Status::Placed);
    assert!(allowed.contains(&CommandKind::Confirm));
    assert_eq!(refused, order);
    assert_eq!(service.log.end(0), end);
}

#[tokio::test]
async fn an_order_that_nobody_placed_is_not_found_even_if_a_version_is_expected() {
    let service = Setup::default().start();
    let elsewhere = Setup::default().start().place().await.id;

    for request in [
        on(elsewhere, Command::Confirm).at_version(1),
        // The server makes ids; a client's own is not an order to be.
        on(elsewhere, place().command),
    ] {
        let error = service.submit(request).await.unwrap_err();
        assert!(
            matches!(
                error,
                CommandError::Rejected {
                    rejection: Rejection::NotFound,
                    order: None
                }
            ),
            "{error}"
        );
    }
}

#[tokio::test]
async fn commands_of_one_batch_build_on_each_other() {
    let service = Setup::default().start();
    let order = service.place().await;
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();

    let total = order.total;
    let pay = Command::Pay {
        amount: total,
        reference: None,
    };
    let steps = [
        queue(&service, on(order.id, Command::Confirm).at_version(1)),
        queue(&service, on(order.id, pay).at_version(2)),
        queue(
            &service,
            on(order.id, Command::Cancel { reason: None }).at_version(3),
        ),
        queue(&service, on(order.id, Command::Confirm)),
    ];
    gate.open();
    first.await.unwrap();
    let mut answers = Vec::new();
    for step in steps {
        answers.push(step.await);
    }

    let versions: Vec<_> = answers[..3]
        .iter()
        .map(|answer| answer.as_ref().unwrap().order.version.get())
        .collect();
    // A cancelled order that was paid takes two events: the refund and the end.
    assert_eq!(versions, [2, 3, 5]);
    assert!(matches!(answers[3], Err(CommandError::Rejected { .. })));
    assert_eq!(service.log.appends(0), [1, 1, 3]);
    let walk: Vec<_> = service
        .log
        .frames(0)
        .into_iter()
        .filter(|frame| frame.order == order.id)
        .map(|frame| {
            (
                frame.sequence,
                frame.previous.map(|base| base.get()),
                frame.base.get(),
            )
        })
        .collect();
    assert_eq!(
        walk,
        [
            (1, None, 0),
            (2, Some(0), 2),
            (3, Some(2), 3),
            (4, Some(3), 4)
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_new_order_has_an_id_of_its_own() {
    let service = Setup {
        partitions: 4,
        ..Setup::default()
    }
    .start();
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let workers = service.workers.clone();
            tokio::spawn(async move { workers.submit(place()).await.unwrap().order.id })
        })
        .collect();

    let mut ids = HashSet::new();
    for task in tasks {
        assert!(ids.insert(task.await.unwrap()));
    }
}
