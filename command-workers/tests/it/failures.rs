//! What a failed append, a bug, or a full disk leaves behind: nothing that was not promised, and nothing half.

use order_command_workers::CommandError;
use order_domain::{Command, Status, Version};
use order_log::Offset;

use crate::support::{Plan, ReadModel, Requests, Service, Setup, on, place, queue};

fn two_partitions() -> Service {
    Setup {
        partitions: 2,
        ..Setup::default()
    }
    .start()
}

/// An order in each of the two partitions.
async fn an_order_each(service: &Service) -> [std::sync::Arc<order_domain::Order>; 2] {
    let mut orders = [None, None];
    while orders.iter().any(Option::is_none) {
        let outcome = service.submit(place()).await.unwrap();
        orders[outcome.position.partition.index()] = Some(outcome.order);
    }
    orders.map(Option::unwrap)
}

#[tokio::test]
async fn a_full_disk_leaves_no_trace_in_memory_and_the_next_command_works() {
    let service = Setup::default().start();
    let order = service.place().await;
    let end = service.log.end(0);
    service.log.plan(0, [Plan::StorageFull, Plan::StorageFull]);

    let confirm = || on(order.id, Command::Confirm).keyed("c", 1);
    let error = service.submit(confirm()).await.unwrap_err();
    assert!(matches!(error, CommandError::StorageFull { .. }), "{error}");
    let error = service.submit(place().keyed("p", 1)).await.unwrap_err();
    assert!(matches!(error, CommandError::StorageFull { .. }), "{error}");
    assert_eq!(service.log.end(0), end);

    // Neither the order's version nor the keys were used up.
    let confirmed = service.submit(confirm().at_version(1)).await.unwrap();
    assert!(!confirmed.replayed);
    assert_eq!(confirmed.order.version, Version::new(2));
    assert!(
        !service
            .submit(place().keyed("p", 1))
            .await
            .unwrap()
            .replayed
    );
    assert!(service.workers.unavailable().is_empty());
}

#[tokio::test]
async fn no_answer_tells_of_a_state_that_did_not_get_into_the_log() {
    let service = Setup::default().start();
    let (order, other) = (service.place().await, service.place().await);
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan, Plan::StorageFull]);
    let first = queue(&service, place());
    gate.arrived();

    // All in one batch, on a state that only this batch knows.
    let confirm = || on(order.id, Command::Confirm);
    let voided = [
        queue(&service, confirm().keyed("k", 1)),
        queue(&service, confirm().keyed("k", 1)),
        queue(&service, confirm().keyed("k", 2)),
        queue(&service, confirm()),
        queue(&service, confirm().at_version(1)),
    ];
    // These stand whatever becomes of the batch.
    let deliver = queue(&service, on(other.id, Command::Deliver));
    let mismatch = queue(&service, on(other.id, Command::Confirm).at_version(9));
    gate.open();
    first.await.unwrap();

    for answer in voided {
        let error = answer.await.unwrap_err();
        assert!(matches!(error, CommandError::StorageFull { .. }), "{error}");
    }
    assert!(matches!(deliver.await, Err(CommandError::Rejected { .. })));
    assert!(matches!(
        mismatch.await,
        Err(CommandError::VersionMismatch { .. })
    ));
    assert_eq!(service.log.appends(0), [1, 1, 1, 1]);
    let confirmed = service.submit(confirm().at_version(1)).await.unwrap();
    assert_eq!(confirmed.order.status, Status::Confirmed);
}

#[tokio::test]
async fn a_state_that_was_rolled_back_is_the_one_before_the_batch() {
    let service = Setup::default().start();
    let order = service.place().await;
    service.run(order.id, Command::Confirm).await;
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan, Plan::StorageFull]);
    let first = queue(&service, place());
    gate.arrived();
    let pay = Command::Pay {
        amount: order.total,
        reference: None,
    };
    let steps = [
        queue(&service, on(order.id, pay.clone())),
        queue(&service, on(order.id, Command::Cancel { reason: None })),
    ];
    gate.open();
    first.await.unwrap();
    for step in steps {
        let error = step.await.unwrap_err();
        assert!(matches!(error, CommandError::StorageFull { .. }), "{error}");
    }

    let paid = service
        .submit(on(order.id, pay).at_version(2))
        .await
        .unwrap();

    assert_eq!(paid.order.status, Status::Paid);
    let last = service.log.frames(0).pop().unwrap();
    assert_eq!(last.sequence, 3);
    assert_eq!(last.previous.map(|base| base.get()), Some(1));
}

#[tokio::test]
async fn a_failed_sync_poisons_its_partition_and_no_other() {
    let service = two_partitions();
    let [here, there] = an_order_each(&service).await;
    service.log.plan(0, [Plan::SyncFails { survives: false }]);

    let error = service
        .submit(on(here.id, Command::Confirm))
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommandError::OutcomeUnknown { .. }),
        "{error}"
    );
    for _ in 0..3 {
        let error = service
            .submit(on(here.id, Command::Confirm))
            .await
            .unwrap_err();
        assert!(
            matches!(error, CommandError::PartitionUnavailable { .. }),
            "{error}"
        );
    }
    let unavailable = service.workers.unavailable();
    assert_eq!(unavailable.len(), 1);
    assert_eq!(unavailable[0].0.get(), 0);
    assert!(
        unavailable[0].1.contains("the disk is gone"),
        "{unavailable:?}"
    );

    let confirmed = service.run(there.id, Command::Confirm).await;
    assert_eq!(confirmed.status, Status::Confirmed);
    service.workers.stop();
    assert!(
        !service.log.is_closed(0),
        "a poisoned log is not touched again"
    );
    assert!(service.log.is_closed(1));
}

#[tokio::test]
async fn a_partition_that_cannot_be_written_does_not_keep_the_others_from_serving() {
    let service = two_partitions();
    let [here, there] = an_order_each(&service).await;
    service.log.damage(0);
    let model = ReadModel::of(&service.log);
    let service = service.restart(model);

    let error = service
        .submit(on(here.id, Command::Confirm))
        .await
        .unwrap_err();
    let CommandError::PartitionUnavailable { cause, .. } = error else {
        panic!("{error}");
    };
    assert!(cause.contains("a planned flipped bit"), "{cause}");
    service.run(there.id, Command::Confirm).await;
    let unavailable = service.workers.unavailable();
    assert_eq!(unavailable, [(order_log::PartitionId::new(0), cause)]);
    service.workers.stop();
}

#[tokio::test]
async fn everyone_in_the_batch_of_a_failed_sync_is_told_that_the_outcome_is_unknown() {
    let service = Setup::default().start();
    let order = service.place().await;
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    let failure = Plan::SyncFails { survives: true };
    service.log.plan(0, [plan, failure]);
    let first = queue(&service, place());
    gate.arrived();
    let batch = [
        queue(&service, place()),
        queue(&service, on(order.id, Command::Confirm)),
        // Refused on account of the confirmation, which may not have happened.
        queue(&service, on(order.id, Command::Confirm)),
    ];
    gate.open();
    first.await.unwrap();

    for answer in batch {
        let error = answer.await.unwrap_err();
        assert!(
            matches!(error, CommandError::OutcomeUnknown { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_bug_while_deciding_is_contained_and_says_that_nothing_was_appended() {
    let service = two_partitions();
    let [here, there] = an_order_each(&service).await;
    service.model.catch_up();
    // Another batch makes the worker forget the orders, so that it asks the read model.
    an_order_each(&service).await;
    let end = service.log.end(0);
    service.model.panic_when_asked(0);

    let error = service
        .submit(on(here.id, Command::Confirm))
        .await
        .unwrap_err();

    let CommandError::PartitionUnavailable { cause, .. } = error else {
        panic!("{error}");
    };
    assert!(cause.contains("a planned bug in the read model"), "{cause}");
    assert_eq!(service.log.end(0), end);
    let error = service
        .submit(on(here.id, Command::Confirm))
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::PartitionUnavailable { .. }));
    assert_eq!(service.workers.unavailable().len(), 1);
    service.run(there.id, Command::Confirm).await;
}

#[tokio::test]
async fn a_bug_in_an_append_is_contained_and_leaves_the_outcome_unknown() {
    let service = two_partitions();
    let [here, there] = an_order_each(&service).await;
    service.log.plan(0, [Plan::Panic]);

    let error = service
        .submit(on(here.id, Command::Confirm))
        .await
        .unwrap_err();

    assert!(
        matches!(error, CommandError::OutcomeUnknown { .. }),
        "{error}"
    );
    let error = service
        .submit(on(here.id, Command::Confirm))
        .await
        .unwrap_err();
    assert!(matches!(error, CommandError::PartitionUnavailable { .. }));
    service.run(there.id, Command::Confirm).await;
    service.workers.stop();
}

#[tokio::test]
async fn a_key_that_leads_to_another_orders_frame_or_to_none_is_refused_and_not_answered() {
    let service = Setup::default().start();
    service.submit(place().keyed("k", 1)).await.unwrap();
    service.place().await;
    let end = service.log.end(0);
    service.model.catch_up();

    for astray in [1, 2, 1_000] {
        service.model.lead_keys_astray(0, Offset::new(astray));
        let error = service.submit(place().keyed("k", 1)).await.unwrap_err();
        assert!(matches!(error, CommandError::Internal { .. }), "{error}");
    }
    assert_eq!(service.log.end(0), end);
}

#[tokio::test]
async fn an_order_the_read_model_has_set_aside_is_refused_until_its_row_is_right_again() {
    let service = Setup::default().start();
    let (bad, good) = (service.place().await, service.place().await);
    service.run(bad.id, Command::Confirm).await;
    service.run(good.id, Command::Confirm).await;
    let model = ReadModel::of(&service.log);
    // The row of the first order lacks its confirmation, which lies behind the checkpoint.
    model.advance(0, 2);
    model.set_aside(0, &[bad.id]);
    let service = service.restart(std::sync::Arc::clone(&model));

    let pay = |order: &order_domain::Order| Command::Pay {
        amount: order.total,
        reference: None,
    };
    let error = service.submit(on(bad.id, pay(&bad))).await.unwrap_err();
    assert!(matches!(error, CommandError::Internal { .. }), "{error}");
    service.run(good.id, pay(&good)).await;
    model.set_aside(0, &[]);
    let error = service.submit(on(bad.id, pay(&bad))).await.unwrap_err();
    assert!(matches!(error, CommandError::Internal { .. }), "{error}");

    model.catch_up();
    let paid = service.run(bad.id, pay(&bad)).await;

    assert_eq!(paid.status, Status::Paid);
    assert_eq!(paid.version, Version::new(3));
}
