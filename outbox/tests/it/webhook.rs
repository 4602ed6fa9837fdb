//! Targets that work, fail, hang, lie and give up, through the outbox's door.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, Mac};
use order_domain::Version;
use order_outbox::{EventId, Outbox, OutboxConfig, OutboxError, RetryConfig, Secrets, SinkKind};
use prometheus::Registry;
use sha2::Sha256;

use crate::orders::{OrderLog, line_added, order, placed};
use crate::receiver::{Receiver, Reply, Seen};
use crate::support::{Consumer, eventually, start, value};

const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Sends to `url`, retries quickly, and gives up after this many tries.
fn config(url: &str, attempts: u32) -> OutboxConfig {
    let mut config = OutboxConfig {
        sink: SinkKind::Webhook,
        retry: RetryConfig {
            attempts,
            base_ms: 2,
            cap_ms: 20,
        },
        ..OutboxConfig::default()
    };
    config.webhook.url = Some(url.to_owned());
    config.webhook.secret = Secrets::new([format!("whsec_{KEY}")]);
    config.webhook.allow_private = true;
    config
}

fn order_and_version(seen: &Seen) -> (String, u64) {
    (
        seen.header("ce-subject").to_owned(),
        seen.data()["version"].as_u64().unwrap(),
    )
}

/// Verifies a signature as the specification says, with nothing of the outbox's own.
fn assert_signed(seen: &Seen) {
    let mut mac = Hmac::<Sha256>::new_from_slice(&BASE64_STANDARD.decode(KEY).unwrap()).unwrap();
    mac.update(
        format!(
            "{}.{}.",
            seen.header("webhook-id"),
            seen.header("webhook-timestamp")
        )
        .as_bytes(),
    );
    mac.update(&seen.body);
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    assert_eq!(seen.header("webhook-signature"), format!("v1,{signature}"));
}

#[test]
fn a_target_that_works_gets_every_event_once_and_in_order() {
    let mut log = OrderLog::new(3);
    log.append_interleaved(40, 5);
    let receiver = Receiver::start(|_| Reply::OK);
    let (outbox, registry) = start(&log, config(&receiver.url(), 3));
    eventually("all is delivered", || outbox.status().pending == 0);
    outbox.stop();
    let seen = receiver.seen();
    assert_eq!(seen.len(), 200);
    let mut consumer = Consumer::default();
    for seen in &seen {
        assert_signed(seen);
        let (order, version) = order_and_version(seen);
        consumer.take(&order, version);
    }
    consumer.assert_complete(40, 5);
    assert_eq!(
        value(&registry, "outbox_attempts_total{outcome=\"delivered\"}"),
        200.0
    );
    assert!(receiver.connections() <= 64, "connections are used again");
}

#[test]
fn a_target_that_hangs_fails_and_drops_loses_nothing_and_sees_one_id_an_event() {
    const ORDERS: u16 = 200;
    const EVENTS_IN_ALL: usize = 2_000;
    let in_all = std::env::var("ORDER_OUTBOX_EVENTS")
        .map_or(EVENTS_IN_ALL, |text| text.parse().expect("a number"));
    let events = in_all.div_ceil(usize::from(ORDERS));
    let mut log = OrderLog::new(4);
    log.append_interleaved(ORDERS, events);
    let consumer = Arc::new(Mutex::new(Consumer::default()));
    let random = Mutex::new(fastrand::Rng::with_seed(11));
    let receiver = Receiver::start({
        let consumer = Arc::clone(&consumer);
        move |seen| {
            let (taken, reply) = match random.lock().unwrap().u8(0..100) {
                0..70 => (true, Reply::OK),
                // It has the event, and nobody learns of it.
                70..75 => (true, Reply::Drop),
                75..78 => (true, Reply::Hang),
                78..82 => (false, Reply::Drop),
                82..84 => (false, Reply::Hang),
                84..86 => (false, Reply::Bytes(b"HTTP/1.1 200 O")),
                86..90 => (
                    false,
                    Reply::Status(307, Some(("location", "/elsewhere".to_owned())), ""),
                ),
                90..93 => (
                    false,
                    Reply::Status(503, Some(("retry-after", "0".to_owned())), ""),
                ),
                _ => (false, Reply::status(500)),
            };
            if taken {
                let (order, version) = order_and_version(seen);
                consumer.lock().unwrap().take(&order, version);
            }
            reply
        }
    });
    let mut config = config(&receiver.url(), 1_000);
    config.webhook.timeout_ms = 150;
    let (outbox, registry) = start(&log, config);
    // A soak takes as long as it takes, as long as something arrives.
    let mut before = 0;
    while outbox.status().pending > 0 {
        eventually("something more is delivered", || {
            outbox.status().pending == 0 || receiver.requests() > before
        });
        before = receiver.requests();
    }
    outbox.stop();
    consumer
        .lock()
        .unwrap()
        .assert_complete(usize::from(ORDERS), events as u64);
    let mut bodies = HashMap::new();
    for seen in receiver.seen() {
        assert_eq!(seen.path, "/hook", "no redirect is followed");
        assert_signed(&seen);
        let id = seen.header("webhook-id").to_owned();
        assert_eq!(id, seen.header("ce-id"));
        assert_eq!(*bodies.entry(id).or_insert(seen.body.clone()), seen.body);
    }
    assert_eq!(bodies.len(), usize::from(ORDERS) * events);
    assert_eq!(value(&registry, "outbox_dead"), 0.0);
    for outcome in ["refused", "failed"] {
        let series = format!("outbox_attempts_total{{outcome=\"{outcome}\"}}");
        assert!(value(&registry, &series) > 0.0, "{series}");
    }
    println!(
        "{} events to a target that hangs, fails, drops and lies: 0 lost, {} requests",
        bodies.len(),
        receiver.requests()
    );
}

#[test]
fn an_order_the_target_refuses_dies_alone_and_is_redriven_in_order() {
    let mut log = OrderLog::new(2);
    log.append_interleaved(6, 3);
    let well = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start({
        let well = Arc::clone(&well);
        let poison = order(2).to_string();
        move |seen| {
            if seen.header("ce-subject") == poison && !well.load(Ordering::SeqCst) {
                Reply::Status(422, None, "no such customer")
            } else {
                Reply::OK
            }
        }
    });
    let (outbox, registry) = start(&log, config(&receiver.url(), 3));
    eventually("the order is dead and all others are told", || {
        outbox.status().dead == 3 && outbox.status().pending == 0
    });
    assert_eq!(
        value(&registry, "outbox_attempts_total{outcome=\"refused\"}"),
        3.0
    );
    let first = EventId::new(order(2), Version::new(1));
    let letter = &outbox.dead(1, None).unwrap()[0];
    assert_eq!(
        (letter.id, letter.attempts, letter.event_type),
        (first, 3, Some("order.placed.v1"))
    );
    assert_eq!(
        letter.error,
        "answered 422 Unprocessable Entity: no such customer"
    );
    assert!(
        outbox
            .status()
            .last_failure
            .unwrap()
            .contains("no such customer")
    );

    log.append(order(2), &[line_added(7)]);
    eventually("the newest event queues behind the dead ones", || {
        outbox.status().dead == 4
    });
    well.store(true, Ordering::SeqCst);
    assert_eq!(outbox.redrive(first).unwrap(), 4);
    eventually("the order is told", || outbox.status().pending == 0);
    assert_eq!(outbox.status().dead, 0);
    outbox.stop();
    let told: Vec<_> = receiver.seen().iter().map(order_and_version).collect();
    let of_order: Vec<_> = told
        .iter()
        .filter(|(told, _)| *told == order(2).to_string())
        .collect();
    let versions: Vec<_> = of_order.iter().map(|(_, version)| *version).collect();
    assert_eq!(versions, [1, 1, 1, 1, 2, 3, 4]);
}

#[test]
fn the_age_of_what_is_tried_again_is_told_apart_from_what_waits() {
    let mut log = OrderLog::new(1);
    log.append(order(0), &[placed()]);
    let receiver = Receiver::start(|_| Reply::status(500));
    let mut config = config(&receiver.url(), 10);
    config.retry.base_ms = 3_600_000;
    config.retry.cap_ms = 3_600_000;
    let (outbox, registry) = start(&log, config);
    eventually("the event is backing off", || {
        outbox.status().backing_off == 1
    });
    let age = |state: &str| {
        value(
            &registry,
            &format!("outbox_oldest_age_seconds{{state=\"{state}\"}}"),
        )
    };
    eventually("nothing waits for its first try", || age("waiting") == 0.0);
    assert!(age("backing_off") > 86_400.0, "it was appended years ago");
    assert_eq!(value(&registry, "outbox_pending"), 1.0);
}

#[test]
fn a_target_that_is_gone_is_left_alone_until_it_is_enabled() {
    let mut log = OrderLog::new(1);
    log.append_interleaved(3, 2);
    let gone = Arc::new(AtomicBool::new(true));
    let receiver = Receiver::start({
        let gone = Arc::clone(&gone);
        move |_| {
            if gone.load(Ordering::SeqCst) {
                Reply::status(410)
            } else {
                Reply::OK
            }
        }
    });
    let gone_is_shown = |outbox: &Outbox| {
        let trouble = outbox.status().trouble;
        trouble.is_some_and(|trouble| trouble.contains("410 Gone"))
    };
    {
        let (outbox, _registry) = start(&log, config(&receiver.url(), 3));
        eventually("the trouble is shown", || gone_is_shown(&outbox));
        outbox.stop();
    }
    let asked = receiver.requests();
    assert!(asked <= 3, "{asked} requests, of 3 orders");
    gone.store(false, Ordering::SeqCst);
    let (outbox, _registry) = start(&log, config(&receiver.url(), 3));
    eventually("the trouble is shown again after a restart", || {
        gone_is_shown(&outbox)
    });
    assert_eq!(
        receiver.requests(),
        asked,
        "nothing is sent after 410, across restarts"
    );
    assert_eq!((outbox.status().pending, outbox.status().dead), (6, 0));
    outbox.enable().unwrap();
    eventually("all is told", || outbox.status().pending == 0);
    assert_eq!(outbox.status().trouble, None);
    assert_eq!(receiver.requests(), asked + 6);
}

#[test]
fn a_target_that_hangs_does_not_keep_the_outbox_from_stopping() {
    let mut log = OrderLog::new(2);
    log.append_interleaved(100, 2);
    let asked = Arc::new(AtomicUsize::new(0));
    let receiver = Receiver::start({
        let asked = Arc::clone(&asked);
        move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            Reply::Hang
        }
    });
    // Patience for minutes: only a stop that does not wait for it comes back in time.
    let mut patient = config(&receiver.url(), 3);
    patient.webhook.timeout_ms = 300_000;
    {
        let (outbox, _registry) = start(&log, patient);
        eventually("as many requests as allowed hang", || {
            asked.load(Ordering::SeqCst) == 64
        });
        outbox.stop();
        assert!(!outbox.status().running);
    }
    let well = Receiver::start(|_| Reply::OK);
    let (outbox, _registry) = start(&log, config(&well.url(), 3));
    eventually("another target gets all of it", || {
        outbox.status().pending == 0
    });
    let mut consumer = Consumer::default();
    for seen in well.seen() {
        let (order, version) = order_and_version(&seen);
        consumer.take(&order, version);
    }
    consumer.assert_complete(100, 2);
}

#[test]
fn retry_after_pauses_everything_sent_to_the_target() {
    // With one at a time, the first answer is the last; with many, what is on its way when it comes still ends. After that,
    // silence, although every retry would be due within 20 ms.
    for in_flight_max in [1, 64] {
        let mut log = OrderLog::new(1);
        log.append_interleaved(300, 1);
        let receiver =
            Receiver::start(|_| Reply::Status(503, Some(("retry-after", "3600".to_owned())), ""));
        let mut config = config(&receiver.url(), 3);
        config.webhook.in_flight_max = in_flight_max;
        let (outbox, registry) = start(&log, config);
        eventually("an answer has come", || {
            value(&registry, "outbox_attempts_total{outcome=\"refused\"}") > 0.0
                && outbox.status().backing_off > 0
        });
        log.append(order(999), &[placed()]);
        eventually("a few commits later", || {
            outbox.status().partitions[0].end.get() == 301
        });
        let asked = receiver.requests();
        assert!((1..=in_flight_max).contains(&asked), "{asked} requests");
        assert_eq!(outbox.status().dead, 0);
    }
}

#[test]
fn a_private_target_is_refused_at_start_or_at_the_connection() {
    let mut log = OrderLog::new(1);
    log.append(order(0), &[placed()]);
    let receiver = Receiver::start(|_| Reply::OK);
    let mut strict = config(&receiver.url(), 1_000_000);
    strict.webhook.allow_private = false;
    let refused = Outbox::start(&log.log, strict.clone(), log.data(), &Registry::new());
    assert!(matches!(
        refused,
        Err(OutboxError::Config {
            field: "webhook.url",
            ..
        })
    ));

    strict.webhook.url = Some(format!("http://localhost:{}/hook", receiver.address.port()));
    let (outbox, _registry) = start(&log, strict);
    eventually("the refusal is shown", || {
        let failure = outbox.status().last_failure;
        failure.is_some_and(|failure| {
            failure.contains("which is loopback; set outbox.webhook.allow_private")
        })
    });
    assert_eq!(outbox.status().pending, 1);
    assert_eq!(receiver.connections(), 0);
}
