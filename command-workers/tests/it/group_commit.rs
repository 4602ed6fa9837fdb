//! One append for many commands, without a timer; and one for each, for the naive baseline.

use order_domain::Command;
use order_log::{AppendTime, PayloadFormat};

use crate::support::{Plan, Requests, Setup, on, place, queue};

#[tokio::test]
async fn a_batch_gathers_while_a_sync_is_in_flight() {
    let service = Setup::default().start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();

    let others: Vec<_> = (0..50).map(|_| queue(&service, place())).collect();
    assert_eq!(
        service.metric("command_queue_depth", &[("partition", "0")]),
        50.0
    );
    gate.open();
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }

    assert_eq!(service.log.appends(0), [1, 50]);
    assert_eq!(
        service.metric("command_queue_depth", &[("partition", "0")]),
        0.0
    );
}

#[tokio::test]
async fn a_batch_takes_no_more_commands_than_configured() {
    let mut setup = Setup::default();
    setup.config.batch_commands_max = 8;
    let service = setup.start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();

    let others: Vec<_> = (0..20).map(|_| queue(&service, place())).collect();
    gate.open();
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }

    assert_eq!(service.log.appends(0), [1, 8, 8, 4]);
}

#[tokio::test]
async fn without_group_commit_every_command_has_an_append_of_its_own() {
    let mut setup = Setup::default();
    setup.config.group_commit = false;
    let service = setup.start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();

    let others: Vec<_> = (0..20).map(|_| queue(&service, place())).collect();
    gate.open();
    first.await.unwrap();
    for other in others {
        other.await.unwrap();
    }

    assert_eq!(service.log.appends(0), [1; 21]);
}

#[tokio::test]
async fn answers_come_after_the_append_and_not_before() {
    let service = Setup::default().start();
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);

    let mut first = queue(&service, place());
    gate.arrived();

    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(first.as_mut().poll(&mut context).is_pending());
    gate.open();
    let outcome = first.await.unwrap();
    assert_eq!(outcome.position.end, service.log.end(0));
    assert!(!outcome.replayed);
}

#[tokio::test]
async fn a_command_whose_client_left_before_its_turn_is_not_run() {
    let service = Setup::default().start();
    let order = service.place().await;
    let (plan, gate) = Plan::wait_then(Plan::Succeed);
    service.log.plan(0, [plan]);
    let first = queue(&service, place());
    gate.arrived();

    drop(queue(&service, on(order.id, Command::Confirm)));
    let last = queue(
        &service,
        on(order.id, Command::Cancel { reason: None }).at_version(1),
    );
    gate.open();
    first.await.unwrap();

    last.await.unwrap();
    assert_eq!(
        service.metric("commands_total", &[("outcome", "abandoned")]),
        1.0
    );
}

#[tokio::test]
async fn the_log_is_told_once_when_there_is_no_work() {
    let service = Setup::default().start();
    service.place().await;

    // The worker says so by itself; the bound only ends a test that would never end.
    for _ in 0..30_000 {
        if service.log.idles(0) > 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }

    assert_eq!(service.log.idles(0), 1);
    service.place().await;
}

#[tokio::test]
async fn append_times_never_go_back_whatever_the_clock_says() {
    let service = Setup::default().start();
    let far_ahead = AppendTime::from_micros(9_000_000_000_000_000);
    service.log.set_clock(0, far_ahead);
    let order = service.place().await;
    service.log.set_clock(0, AppendTime::default());

    let confirmed = service.run(order.id, Command::Confirm).await;

    assert_eq!(order.placed_at.as_micros(), far_ahead.as_micros());
    assert_eq!(confirmed.updated_at, order.placed_at);
}

#[tokio::test]
async fn a_frame_says_once_where_its_events_came_from() {
    for format in [PayloadFormat::Binary, PayloadFormat::Json] {
        let service = Setup {
            format,
            ..Setup::default()
        }
        .start();
        let order = service.place().await;
        service.run(order.id, Command::Confirm).await;
        let pay = Command::Pay {
            amount: order.total,
            reference: None,
        };
        service.run(order.id, pay).await;
        let mut cancel = on(order.id, Command::Cancel { reason: None }).keyed("k-1", 1);
        cancel.traceparent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into());
        cancel.request_id = Some("r-7".into());
        service.submit(cancel).await.unwrap();

        let frame = service.log.frames(0).pop().unwrap();

        assert_eq!(frame.events.len(), 2, "{frame:?}");
        let (key, traceparent, request_id) = &frame.contexts[0];
        assert_eq!(key.as_deref(), Some("k-1"));
        assert!(traceparent.as_deref().unwrap().starts_with("00-0af7"));
        assert_eq!(request_id.as_deref(), Some("r-7"));
        assert_eq!(frame.contexts[1], (None, None, None));
    }
}

#[tokio::test]
async fn every_batch_leaves_its_size_and_its_sync_in_the_metrics() {
    let service = Setup::default().start();
    let order = service.place().await;
    service.run(order.id, Command::Confirm).await;
    service
        .submit(on(order.id, Command::Confirm))
        .await
        .unwrap_err();
    // The counters follow the answers; the thread's end comes after all of them.
    service.workers.stop();

    let text = prometheus::TextEncoder::new()
        .encode_to_string(&service.registry.gather())
        .unwrap();

    for line in [
        r#"command_batch_size_count{partition="0"} 3"#,
        r#"command_batch_size_bucket{partition="0",le="1024"} 3"#,
        r#"log_fsync_seconds_count{partition="0"} 2"#,
        r#"commands_total{outcome="accepted",partition="0"} 2"#,
        r#"commands_total{outcome="rejected",partition="0"} 1"#,
        r#"commands_total{outcome="overloaded",partition="0"} 0"#,
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}
