//! One try against a real socket: what is sent, and how every kind of answer is taken.

use std::borrow::Cow;

use order_domain::EventContext;
use order_log::PartitionReader;

use super::*;
use crate::config::OutboxConfig;
use crate::log_event::events_of;
use crate::test_receiver::{Receiver, Reply};
use crate::test_support::{OrderLog, TRACEPARENT, order, placed};
use crate::webhook::SystemLookup;
use crate::webhook::resolver::tests::Script;
use crate::webhook::secrets::Secrets;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ORDER: &str = "0199c82c-0000-7000-8000-000000000003";

fn config(url: &str) -> OutboxConfig {
    let mut config = OutboxConfig::default();
    config.webhook.url = Some(url.to_owned());
    config.webhook.secret = Secrets::new([SECRET.to_owned()]);
    config.webhook.allow_private = true;
    config.webhook.timeout_ms = 30_000;
    config
}

/// A placed order, with a trace context.
fn event() -> LogEvent<'static> {
    let mut log = OrderLog::new(1);
    let context = EventContext {
        traceparent: Some(Cow::Borrowed(TRACEPARENT)),
        ..EventContext::default()
    };
    log.append_with(order(3), &[placed()], &context);
    let reader: Box<dyn PartitionReader> = log.reader(0);
    let mut found = None;
    let mut visit = |frame: order_log::Frame<'_>| {
        found = events_of(reader.partition(), &frame)
            .next()
            .map(LogEvent::into_owned);
        std::ops::ControlFlow::Break(())
    };
    reader
        .scan(
            order_log::Offset::ZERO,
            order_log::ScanLimit::NONE,
            &mut visit,
        )
        .unwrap();
    found.unwrap()
}

async fn send(config: &OutboxConfig) -> Outcome {
    let target = Target::new(config, Arc::new(SystemLookup)).unwrap();
    target.send(&event()).await
}

/// Sends one event to a receiver that replies so, with this much patience.
async fn send_to(reply: Reply, timeout_ms: u64) -> Outcome {
    let receiver = Receiver::start(move |_| reply.clone());
    let mut config = config(&receiver.url());
    config.webhook.timeout_ms = timeout_ms;
    send(&config).await
}

/// Patience for an answer that comes.
const LONG: u64 = 30_000;
/// Patience for an answer that never comes.
const SHORT: u64 = 100;

#[tokio::test]
async fn a_request_is_a_cloud_event_in_binary_mode_signed_after_standard_webhooks() {
    let receiver = Receiver::start(|_| Reply::status(204));
    let mut config = config(&receiver.url());
    config.source = "/shop%20one".to_owned();
    assert_eq!(send(&config).await, Outcome::Delivered);
    let seen = &receiver.seen()[0];
    assert_eq!((receiver.requests(), seen.path.as_str()), (1, "/hook"));
    for (name, value) in [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", &format!("{ORDER}-1")),
        ("ce-source", "/shop%2520one"),
        ("ce-type", "order.placed.v1"),
        ("ce-subject", ORDER),
        ("ce-time", "2025-01-01T00:00:00.000Z"),
        ("ce-partitionkey", ORDER),
        ("ce-traceparent", TRACEPARENT),
        ("traceparent", TRACEPARENT),
        ("webhook-id", &format!("{ORDER}-1")),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!(seen.data()["order_id"], ORDER);
    assert_eq!(seen.data()["version"], 1);
    let keys = Secrets::new([SECRET.to_owned()]).keys().unwrap();
    let timestamp = seen.header("webhook-timestamp");
    assert!(timestamp.parse::<u64>().is_ok(), "{timestamp}");
    let expected = keys.sign(seen.header("webhook-id"), timestamp, &seen.body);
    assert_eq!(seen.header("webhook-signature"), expected);
}

#[tokio::test]
async fn only_2xx_is_success_and_no_redirect_is_followed() {
    for status in [200, 201, 202, 204, 299] {
        assert_eq!(
            send_to(Reply::status(status), LONG).await,
            Outcome::Delivered,
            "{status}"
        );
    }
    for status in [300, 304, 400, 401, 404, 409, 422, 500, 502, 504] {
        let Outcome::Refused {
            retry_after: None,
            whole_target: false,
            ..
        } = send_to(Reply::status(status), LONG).await
        else {
            panic!("{status} was not taken as a failure");
        };
    }
    let elsewhere = Receiver::start(|_| Reply::OK);
    let location = elsewhere.url();
    for status in [301, 302, 303, 307, 308] {
        let redirect = Reply::Status(status, Some(("location", location.clone())), "");
        assert!(
            matches!(send_to(redirect, LONG).await, Outcome::Refused { .. }),
            "{status}"
        );
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn retry_after_is_read_and_capped() {
    let reply =
        |status, wait: &str| Reply::Status(status, Some(("retry-after", wait.to_owned())), "");
    for (status, wait, seconds, whole) in [
        (503, "7", 7, true),
        (429, "7", 7, true),
        (500, "7", 7, false),
        (503, "31536000", 3_600, true),
    ] {
        let Outcome::Refused {
            retry_after: Some(found),
            whole_target,
            ..
        } = send_to(reply(status, wait), LONG).await
        else {
            panic!("{status} with Retry-After: {wait}");
        };
        assert_eq!(
            (found.as_secs(), whole_target),
            (seconds, whole),
            "{status} {wait}"
        );
    }
}

#[tokio::test]
async fn gone_is_told_apart() {
    assert!(matches!(
        send_to(Reply::status(410), LONG).await,
        Outcome::Gone { .. }
    ));
}

#[tokio::test]
async fn a_refusal_quotes_the_answer_in_printable_characters() {
    let reply = Reply::Status(422, None, "no such\r\ncustomer \u{1b}[31m\u{7}");
    let Outcome::Refused { reason, .. } = send_to(reply, LONG).await else {
        panic!("422 was not taken as a refusal");
    };
    assert_eq!(
        reason,
        "answered 422 Unprocessable Entity: no such  customer  [31m"
    );
}

#[tokio::test]
async fn no_answer_is_a_failure_whatever_its_kind() {
    for (reply, timeout_ms) in [
        (Reply::Drop, LONG),
        (Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n"), LONG),
        (Reply::HeadersForEver, LONG),
        (Reply::Hang, SHORT),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-le"), SHORT),
    ] {
        let outcome = send_to(reply.clone(), timeout_ms).await;
        assert!(
            matches!(outcome, Outcome::Failed { .. }),
            "{reply:?}: {outcome:?}"
        );
    }
    // A port where nobody listens: bound, and given back.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let Outcome::Failed { reason } = send(&config(&format!("http://{free}/"))).await else {
        panic!("nobody took it");
    };
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_is_an_answer() {
    let endless = Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nthe beginning");
    assert_eq!(send_to(endless, LONG).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_name_that_leads_to_this_host_is_refused_without_a_connection() {
    let receiver = Receiver::start(|_| Reply::OK);
    let mut config = config(&format!(
        "http://receiver.example:{}/",
        receiver.address.port()
    ));
    let rebinding = || Script::new(&[&["127.0.0.1:0"]]);
    config.webhook.allow_private = false;
    let target = Target::new(&config, rebinding()).unwrap();
    let Outcome::Failed { reason } = target.send(&event()).await else {
        panic!("a private address was connected to");
    };
    assert!(
        reason.contains("receiver.example is at 127.0.0.1, which is loopback"),
        "{reason}"
    );
    assert_eq!(receiver.connections(), 0);

    config.webhook.allow_private = true;
    let target = Target::new(&config, rebinding()).unwrap();
    assert_eq!(target.send(&event()).await, Outcome::Delivered);
}

#[test]
fn a_url_that_cannot_be_is_refused_by_its_name() {
    for (url, reason) in [
        ("ftp://example.com/", "must begin with http:// or https://"),
        ("/relative", "must begin with http:// or https://"),
        (
            "http://user:pass@example.com/",
            "must not hold a user or password",
        ),
        ("not a url", "is not a URL"),
        (
            "http://127.0.0.1:8080/",
            "is at 127.0.0.1, which is loopback",
        ),
        ("http://[::1]/", "is at ::1, which is loopback"),
        (
            "http://[::ffff:10.0.0.1]/",
            "is at ::ffff:10.0.0.1, which is private",
        ),
        (
            "http://169.254.169.254/latest/meta-data",
            "which is link-local",
        ),
    ] {
        let mut config = config(url);
        config.webhook.allow_private = false;
        let error = Target::new(&config, Arc::new(SystemLookup))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("outbox.webhook.url: ") && error.contains(reason),
            "{url}: {error}"
        );
    }
    let mut config = config("http://example.com/");
    config.webhook.secret = Secrets::default();
    let error = Target::new(&config, Arc::new(SystemLookup))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("outbox.webhook.secret: "), "{error}");
}

#[tokio::test]
async fn numbers_that_are_addresses_in_disguise_do_not_pass() {
    // Written so, an address is a name to the URL, and the system's resolver understands it.
    for host in [
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "localhost",
    ] {
        let mut config = config(&format!("http://{host}:9/"));
        config.webhook.allow_private = false;
        let Outcome::Failed { reason } = send(&config).await else {
            panic!("{host} was connected to");
        };
        assert!(
            !reason.contains("refused (os error"),
            "{host} was connected to: {reason}"
        );
    }
}
