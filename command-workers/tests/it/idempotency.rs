//! A key is used once: every later use gets the first answer, for as long as keys are remembered, whatever happens to
//! the process, to the order, or to the read model in between.

use std::time::Duration;

use order_command_workers::CommandError;
use order_domain::{Caller, Command, Idempotency, Status, Version};
use order_log::{AppendTime, PayloadFormat};
use order_partitioner::Partitioner;

use crate::support::{Plan, ReadModel, Requests, Rewritten, Service, Setup, on, place, queue};

#[tokio::test(flavor = "multi_thread")]
async fn one_key_from_many_clients_makes_one_order_and_one_answer() {
    let service = Setup {
        partitions: 4,
        ..Setup::default()
    }
    .start();
    for round in 0..20 {
        let key = format!("round-{round}");
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let workers = service.workers.clone();
                let request = place().keyed(&key, 1);
                tokio::spawn(async move { workers.submit(request).await.unwrap() })
            })
            .collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap());
        }

        let first = &outcomes[0];
        for outcome in &outcomes {
            assert_eq!(outcome.order, first.order);
            assert_eq!(outcome.position, first.position);
        }
        assert_eq!(
            outcomes.iter().filter(|outcome| !outcome.replayed).count(),
            1
        );
    }
    let frames: usize = (0..4)
        .map(|partition| service.log.frames(partition).len())
        .sum();
    assert_eq!(frames, 20);
}

#[tokio::test]
async fn both_uses_of_a_key_in_one_batch_get_one_answer() {
    let service = Setup::default().start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let other = queue(&service, place());
    gate.arrived();

    let first = queue(&service, place().keyed("k", 1));
    let second = queue(&service, place().keyed("k", 1));
    let third = queue(&service, place().keyed("k", 2));
    gate.open();
    other.await.unwrap();

    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first.order, second.order);
    assert!(!first.replayed && second.replayed);
    assert!(matches!(
        third.await.unwrap_err(),
        CommandError::IdempotencyMismatch
    ));
    assert_eq!(service.log.appends(0), [1, 1]);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_in_memory_and_in_the_read_model() {
    let service = Setup::default().start();
    service.submit(place().keyed("k", 1)).await.unwrap();

    let in_memory = service.submit(place().keyed("k", 2)).await.unwrap_err();
    service.model.catch_up();
    let in_read_model = service.submit(place().keyed("k", 2)).await.unwrap_err();

    assert!(matches!(in_memory, CommandError::IdempotencyMismatch));
    assert!(matches!(in_read_model, CommandError::IdempotencyMismatch));
    assert_eq!(service.log.frames(0).len(), 1);
}

#[tokio::test]
async fn a_key_of_two_callers_is_two_keys_in_one_partition() {
    let service = Setup {
        partitions: 8,
        ..Setup::default()
    }
    .start();
    let [a, b] =
        ["a", "b"].map(|name| Idempotency::kept_key(Some(Caller::named(name)), "checkout-17"));

    let of_a = service.submit(place().keyed(&a, 1)).await.unwrap();
    let of_b = service.submit(place().keyed(&b, 2)).await.unwrap();
    service.model.catch_up();
    let again = service.submit(place().keyed(&a, 1)).await.unwrap();

    assert!(!of_a.replayed && !of_b.replayed && again.replayed);
    assert_eq!(again.order, of_a.order);
    assert_eq!(of_a.position.partition, of_b.position.partition);
}

#[tokio::test]
async fn a_key_used_before_callers_were_told_apart_is_still_used() {
    for caught_up in [false, true] {
        let service = Setup {
            partitions: 8,
            ..Setup::default()
        }
        .start();
        let first = service.submit(place().keyed("k", 1)).await.unwrap();
        let confirm = || on(first.order.id, Command::Confirm);
        let step = service.submit(confirm().keyed("s", 1)).await.unwrap();
        if caught_up {
            service.model.catch_up();
        }

        let of_caller = |key| Idempotency::kept_key(Some(Caller::named("shop")), key);
        let again = service.submit(place().keyed(&of_caller("k"), 1)).await;
        let step_again = service.submit(confirm().keyed(&of_caller("s"), 1)).await;
        let other = service.submit(place().keyed(&of_caller("k"), 2)).await;

        assert_eq!(again.unwrap().order, first.order);
        assert_eq!(step_again.unwrap().order, step.order);
        assert!(matches!(
            other.unwrap_err(),
            CommandError::IdempotencyMismatch
        ));
    }
}

#[tokio::test]
async fn a_key_of_a_request_and_of_a_line_never_meet_whatever_a_client_sends() {
    for caller in [None, Some(Caller::named("shop"))] {
        let service = Setup {
            partitions: 8,
            ..Setup::default()
        }
        .start();
        let line = Idempotency::line_key(&Idempotency::kept_key(caller, "nightly"), 1);
        let request = Idempotency::kept_key(caller, "nightly#1");

        let of_request = service.submit(place().keyed(&request, 1)).await.unwrap();
        let of_line = service.submit(place().keyed(&line, 2)).await.unwrap();
        service.model.catch_up();
        let again = service.submit(place().keyed(&line, 2)).await.unwrap();

        assert!(!of_request.replayed && !of_line.replayed && again.replayed);
        assert_eq!(again.order, of_line.order);
        assert_eq!(of_request.position.partition, of_line.position.partition);
    }
}

#[tokio::test]
async fn a_line_that_was_placed_under_its_former_key_is_not_placed_again() {
    for (caller, with_caller) in [
        (None, false),
        (Some(Caller::named("shop")), false),
        (Some(Caller::named("shop")), true),
    ] {
        let service = Setup {
            partitions: 8,
            ..Setup::default()
        }
        .start();
        let former = Idempotency::kept_key(caller.filter(|_| with_caller), "nightly#1");
        let first = service.submit(place().keyed(&former, 1)).await.unwrap();

        let line = Idempotency::line_key(&Idempotency::kept_key(caller, "nightly"), 1);
        let again = service.submit(place().keyed(&line, 1)).await.unwrap();

        assert!(again.replayed, "{former}");
        assert_eq!(again.order, first.order);
    }
}

#[tokio::test]
async fn one_key_on_two_orders_is_two_keys() {
    let service = Setup::default().start();
    let (one, other) = (service.place().await, service.place().await);

    for id in [one.id, other.id] {
        let outcome = service
            .submit(on(id, Command::Confirm).keyed("k", 1))
            .await
            .unwrap();
        assert!(!outcome.replayed);
    }
    assert!(
        !service
            .submit(place().keyed("k", 1))
            .await
            .unwrap()
            .replayed
    );
}

#[tokio::test]
async fn a_replayed_answer_is_the_order_as_it_was_then_and_not_as_it_is_now() {
    for format in [PayloadFormat::Binary, PayloadFormat::Json] {
        let service = Setup {
            format,
            ..Setup::default()
        }
        .start();
        let placed = service.submit(place().keyed("p", 1)).await.unwrap();
        let id = placed.order.id;
        let confirm = || on(id, Command::Confirm).keyed("c", 2);
        let confirmed = service.submit(confirm()).await.unwrap();
        let pay = Command::Pay {
            amount: placed.order.total,
            reference: None,
        };
        service.run(id, pay).await;

        // Frame by frame, what answers moves from memory to the read model and the log.
        for applied in 0..=3 {
            let again = service.submit(place().keyed("p", 1)).await.unwrap();
            assert_eq!(again.order, placed.order, "{applied} frames applied");
            assert_eq!(again.position, placed.position);
            assert!(again.replayed);
            let again = service.submit(confirm()).await.unwrap();
            assert_eq!(again.order, confirmed.order, "{applied} frames applied");
            assert_eq!(again.position, confirmed.position);
            assert_eq!(again.order.status, Status::Confirmed);
            service.model.advance(0, 1);
        }
    }
}

#[tokio::test]
async fn the_promise_survives_a_restart_with_the_read_model_at_any_checkpoint() {
    let mut service = Setup::default().start();
    let placed = service.submit(place().keyed("p", 1)).await.unwrap();
    let id = placed.order.id;
    let confirm = || on(id, Command::Confirm).keyed("c", 2);
    let confirmed = service.submit(confirm()).await.unwrap();
    let cancelled = service.run(id, Command::Cancel { reason: None }).await;
    let end = service.log.end(0);

    for applied in 0..=3 {
        let model = ReadModel::of(&service.log);
        model.advance(0, applied);
        service = service.restart(model);

        for (request, first) in [(place().keyed("p", 1), &placed), (confirm(), &confirmed)] {
            let again = service.submit(request).await.unwrap();
            assert_eq!(again.order, first.order, "{applied} frames applied");
            assert_eq!(again.position, first.position, "{applied} frames applied");
            assert!(again.replayed);
        }
        let error = service.submit(confirm().keyed("c", 3)).await.unwrap_err();
        assert!(matches!(error, CommandError::IdempotencyMismatch));
        let error = service.submit(on(id, Command::Confirm)).await.unwrap_err();
        let CommandError::Rejected { order, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(order.unwrap(), cancelled);
    }
    assert_eq!(service.log.end(0), end);
}

#[tokio::test]
async fn asking_again_after_an_unknown_outcome_makes_one_order_whether_the_first_survived_or_not() {
    for survives in [true, false] {
        let service = Setup::default().start();
        service.log.plan(0, [Plan::SyncFails { survives }]);
        let error = service.submit(place().keyed("k", 1)).await.unwrap_err();
        assert!(
            matches!(error, CommandError::OutcomeUnknown { .. }),
            "{error}"
        );

        let model = ReadModel::of(&service.log);
        let service = service.restart(model);
        let outcome = service.submit(place().keyed("k", 1)).await.unwrap();

        assert_eq!(outcome.replayed, survives);
        assert_eq!(service.log.frames(0).len(), 1);
    }
}

#[tokio::test]
async fn a_key_older_than_the_retention_counts_as_unused() {
    let start = || {
        let mut setup = Setup::default();
        setup.config.idempotency_retention = Duration::from_secs(60);
        setup.start()
    };
    let at = |micros: u64| AppendTime::from_micros(9_000_000_000_000_000 + micros);
    let use_key = async |service: &Service| service.submit(place().keyed("k", 1)).await.unwrap();

    for in_memory in [true, false] {
        let service = start();
        service.log.set_clock(0, at(0));
        let first = use_key(&service).await;
        if !in_memory {
            service.model.catch_up();
        }

        // A batch has one time; an accepted command ends the batch it is in.
        service.log.set_clock(0, at(60_000_000));
        service.place().await;
        let at_the_last_moment = use_key(&service).await;
        service.log.set_clock(0, at(60_000_001));
        service.place().await;
        let too_late = use_key(&service).await;
        let again = use_key(&service).await;

        assert!(at_the_last_moment.replayed, "in memory: {in_memory}");
        assert!(!too_late.replayed, "in memory: {in_memory}");
        assert_ne!(too_late.order.id, first.order.id);
        assert!(again.replayed);
        assert_eq!(again.order, too_late.order);
    }
}

#[tokio::test]
async fn a_refused_command_does_not_use_its_key_up() {
    let service = Setup::default().start();
    let order = service.place().await;
    let ship = || {
        let ship = Command::Ship {
            carrier: None,
            tracking_number: None,
        };
        on(order.id, ship).keyed("k", 1)
    };
    let error = service.submit(ship()).await.unwrap_err();
    assert!(matches!(error, CommandError::Rejected { .. }));

    service.run(order.id, Command::Confirm).await;
    let pay = Command::Pay {
        amount: order.total,
        reference: None,
    };
    service.run(order.id, pay).await;
    let outcome = service.submit(ship()).await.unwrap();

    assert!(!outcome.replayed);
    assert_eq!(outcome.order.version, Version::new(4));
}

#[tokio::test]
async fn a_key_is_asked_before_the_expected_version() {
    let service = Setup::default().start();
    let order = service.place().await;
    let confirm = || on(order.id, Command::Confirm).keyed("k", 1).at_version(1);
    let first = service.submit(confirm()).await.unwrap();

    let again = service.submit(confirm()).await.unwrap();

    assert!(again.replayed);
    assert_eq!(again.order, first.order);
}

#[tokio::test]
async fn a_key_from_before_the_log_was_rewritten_is_found_wherever_its_order_is() {
    let service = Setup {
        partitions: 2,
        ..Setup::default()
    }
    .start();
    // Two keys that lead to two partitions: in a rewritten log the second one's order may be where the first one leads.
    let partitioner = Partitioner::new(2).unwrap();
    let leads_to = |wanted: u16| {
        let mut keys = (0..100).map(|number| format!("key-{number}"));
        keys.find(|key| partitioner.partition_of(key.as_bytes()) == wanted)
            .unwrap()
    };
    let (here, there) = (leads_to(0), leads_to(1));
    let first = service.submit(place().keyed(&here, 1)).await.unwrap();
    service.run(first.order.id, Command::Confirm).await;
    service.model.catch_up();
    service.model.rename_key(0, &here, &there);

    service.model.set_rewritten(Rewritten::Behind);
    let refused = service.submit(place().keyed(&there, 1)).await.unwrap_err();
    assert!(
        matches!(refused, CommandError::ProjectorBehind { lag_events: 7, .. }),
        "{refused}"
    );

    service.model.set_rewritten(Rewritten::Known);
    let again = service.submit(place().keyed(&there, 1)).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.order, first.order, "as it was then");
    assert_eq!(again.position, first.position, "where it is");
    let other = service.submit(place().keyed(&there, 2)).await.unwrap_err();
    assert!(matches!(other, CommandError::IdempotencyMismatch));
    assert_eq!(service.log.frames(1).len(), 0, "nothing was written for it");

    // A key that was never used makes an order, and a command on an order asks only where that is.
    let new = service
        .submit(place().keyed("never used", 1))
        .await
        .unwrap();
    assert!(!new.replayed);
}
