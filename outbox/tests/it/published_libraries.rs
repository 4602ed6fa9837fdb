//! What is sent is read by libraries that others publish: PyPI `cloudevents` and `standardwebhooks`, in
//! `tests/rigs/outbox_receiver.py`. `./test setup` installs them below `target/tools`; left out, and loudly, where it could
//! not; `ORDER_TESTS_PYTHON` names another Python that has them.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use order_domain::EventContext;
use order_outbox::{OutboxConfig, RetryConfig, Secrets, SinkKind};
use serde_json::{Value, json};

use crate::orders::{OrderLog, TRACEPARENT, order, placed};
use crate::support::{Consumer, eventually, start, start_sink, value};

/// The one the receiver knows, and one it does not: as in the middle of a rotation.
const SECRETS: [&str; 2] = [
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_b3RoZXIgc2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXM=",
];

fn rig() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/rigs/outbox_receiver.py")
}

/// A Python that has the libraries, or none and a loud word.
fn python() -> Option<PathBuf> {
    let installed = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/tools/outbox-receiver/bin/python3"
    );
    let named = std::env::var_os("ORDER_TESTS_PYTHON").map(PathBuf::from);
    let pythons = named.map_or_else(
        || vec![PathBuf::from(installed), PathBuf::from("python3")],
        |python| vec![python],
    );
    let found = pythons.into_iter().find(|python| {
        Command::new(python)
            .args(["-c", "import cloudevents.core.v1.event, standardwebhooks"])
            .output()
            .is_ok_and(|answer| answer.status.success())
    });
    if found.is_none() {
        eprintln!(
            "LEFT OUT: no Python has `cloudevents` 2 and `standardwebhooks` (`./test setup` installs them), so nothing \
             was verified by libraries of others"
        );
    }
    found
}

/// The rig at work; it ends when this is dropped and its standard input with it.
struct Rig {
    child: Child,
    said: Receiver<String>,
}

impl Rig {
    fn start(python: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(python)
            .arg(rig())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, said) = channel();
        // Read as it comes: a rig that waits for room in a full pipe answers nobody.
        std::thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(line))
        });
        Self { child, said }
    }

    /// The next thing it said; `None` when it has ended.
    fn say(&mut self) -> Option<Value> {
        let line = self.said.recv().ok()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// Tells it to end, and takes what it said until then.
    fn end(mut self) -> Vec<Value> {
        drop(self.child.stdin.take());
        let said = std::iter::from_fn(|| self.say()).collect();
        assert!(self.child.wait().unwrap().success());
        said
    }
}

/// Asserts that the library understood an event as it was meant.
fn assert_understood(said: &Value, log_time: &str) {
    assert_eq!(said.get("error"), None, "{said}");
    let event = &said["event"];
    let (subject, version) = (
        event["subject"].as_str().unwrap(),
        said["data"]["version"].as_u64().unwrap(),
    );
    assert_eq!(event["id"], format!("{subject}-{version}"));
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["source"], "/order-service");
    assert_eq!(event["datacontenttype"], "application/json");
    assert_eq!(event["partitionkey"], subject);
    assert_eq!(said["data"]["order_id"], subject);
    assert!(
        event["time"].as_str().unwrap().starts_with(log_time),
        "{event}"
    );
    let known = ["order.placed.v1", "order.line_added.v1"];
    assert!(known.contains(&event["type"].as_str().unwrap()), "{event}");
}

#[test]
fn published_libraries_verify_every_request_and_understand_every_event() {
    let Some(python) = python() else { return };
    let mut log = OrderLog::new(2);
    log.append_interleaved(30, 3);
    let context = EventContext {
        traceparent: Some(TRACEPARENT.into()),
        ..EventContext::default()
    };
    log.append_with(order(30), &[placed()], &context);

    let mut rig = Rig::start(&python, &["serve", SECRETS[0], "--refuse-every", "7"]);
    let port = rig.say().unwrap()["listening"].as_u64().unwrap();
    let mut config = OutboxConfig {
        sink: SinkKind::Webhook,
        retry: RetryConfig {
            attempts: 100,
            base_ms: 2,
            cap_ms: 20,
        },
        ..OutboxConfig::default()
    };
    config.webhook.url = Some(format!("http://127.0.0.1:{port}/"));
    config.webhook.secret = Secrets::new(SECRETS.iter().rev().map(|secret| (*secret).to_owned()));
    config.webhook.allow_private = true;
    let (outbox, registry) = start(&log, config);
    eventually("all is delivered", || outbox.status().pending == 0);
    outbox.stop();
    assert!(value(&registry, "outbox_attempts_total{outcome=\"refused\"}") >= 13.0);

    let mut consumer = Consumer::default();
    let mut data = HashMap::new();
    let mut traced = 0;
    for said in rig.end() {
        assert_understood(&said, "2025-01-01T00:00:00");
        assert_eq!(said["webhook_id"], said["event"]["id"]);
        traced += u32::from(said["event"].get("traceparent") == Some(&json!(TRACEPARENT)));
        let id = said["webhook_id"].as_str().unwrap().to_owned();
        assert_eq!(
            *data.entry(id).or_insert_with(|| said["data"].clone()),
            said["data"]
        );
        if said["refused"] == false {
            let subject = said["event"]["subject"].as_str().unwrap();
            consumer.take(subject, said["data"]["version"].as_u64().unwrap());
        }
    }
    assert_eq!(data.len(), 91);
    assert!(
        traced >= 1,
        "the trace context arrives as an extension attribute"
    );
}

#[test]
fn published_libraries_understand_every_line_of_the_file() {
    let Some(python) = python() else { return };
    let mut log = OrderLog::new(2);
    log.append_interleaved(30, 3);
    let (outbox, _registry) = start_sink(&log, SinkKind::File);
    eventually("all is told", || outbox.status().pending == 0);
    outbox.stop();
    let file = log.data().join("outbox.jsonl");
    let said = Rig::start(&python, &["check", file.to_str().unwrap()]).end();
    assert_eq!(said.len(), 90);
    for said in &said {
        assert_understood(said, "2025-01-01T00:00:00");
    }
}
