//! 3D: the outbox does not drain. The target hangs: the age of the oldest event grows, and nobody else waits. It fails:
//! tries are used up, events are dead and their orders wait. An operator inspects and redrives them: all is told, in each
//! order's order, with the ids they had the first time.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};

use super::target::{Delivery, Target};
use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::service::{binary, run, stdout_of};
use crate::waits::eventually;

pub(super) const PLAYED: &[&str] = &["The outbox does not drain (3D)"];

/// The binary, with a webhook sink that gives up early.
fn with_webhook(target: &Target) -> Command {
    let mut command = Command::new(binary());
    for (name, value) in [
        ("SINK", "webhook"),
        ("WEBHOOK__URL", &target.url()),
        (
            "WEBHOOK__SECRET",
            "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ),
        ("WEBHOOK__ALLOW_PRIVATE", "true"),
        ("WEBHOOK__TIMEOUT_MS", "300000"),
        ("RETRY__ATTEMPTS", "3"),
        ("RETRY__BASE_MS", "1"),
        ("RETRY__CAP_MS", "1"),
    ] {
        command.env(format!("ORDER_SERVICE__OUTBOX__{name}"), value);
    }
    command
}

async fn oldest_age(client: &Client) -> f64 {
    let metrics = Metrics::of(client).await;
    let ages = metrics.with("outbox_oldest_age_seconds", &[]);
    ages.iter().map(|sample| sample.value).fold(0.0, f64::max)
}

async fn gauge_is(client: &Client, name: &str, expected: u64) {
    eventually(&format!("{name} is {expected}"), async || {
        let found = Metrics::of(client).await.sum(name);
        if found == expected {
            Ok(())
        } else {
            let outbox = client.get("/outbox").send().await.text;
            Err(format!("{found}: {outbox}"))
        }
    })
    .await;
}

/// Every event was delivered, each order's in order, whatever was tried before.
fn assert_all_told(seen: &[Delivery], events: &BTreeMap<String, u64>) {
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for delivery in seen.iter().filter(|it| it.status == 200) {
        let (order, version) = delivery.id.rsplit_once('-').expect("<order>-<version>");
        let version: u64 = version.parse().expect("a version");
        let before = told.insert(order.to_owned(), version).unwrap_or(0);
        assert!(version <= before + 1, "{} came too early", delivery.id);
    }
    assert_eq!(told, *events);
}

#[tokio::test]
async fn a_target_that_hangs_and_fails_is_seen_mended_and_everything_told() {
    let Some(mut book) = Playbook::open("The outbox does not drain (3D)") else {
        return;
    };
    let target = Target::hanging();
    let service = book.start(with_webhook(&target), &["--partitions", "2"]);
    let client = Client::of(&service);
    let one = client.place(&an_order()).await.id();
    client.step(&one, "confirm", &json!({})).await;
    let other = client.place(&an_order()).await.id();

    // The target hangs: it is seen by the age alone, and orders go on.
    gauge_is(&client, "outbox_pending", 3).await;
    let before = oldest_age(&client).await;
    assert!(before > 0.0);
    eventually("the age grows while the target hangs", async || {
        let now = oldest_age(&client).await;
        if now > before {
            Ok(())
        } else {
            Err(format!("{now}"))
        }
    })
    .await;
    let read = client
        .get(&format!("/orders/{one}"))
        .header("prefer", "wait=30");
    read.send().await.expect(200);
    book.run("curl -s 127.0.0.1:8080/metrics | grep '^outbox_'");

    // It answers, and not with success: the tries of two orders are used up.
    target.answer(500);
    gauge_is(&client, "outbox_dead", 3).await;
    gauge_is(&client, "outbox_pending", 0).await;
    book.run("order-service outbox status");
    let listed = book.run("order-service outbox list");
    let first = format!("{one}-1");
    assert!(listed.contains(&first), "{listed}");
    book.set("EVENT", first.clone());
    let inspected = book.run("order-service outbox inspect");
    let letter: Value = serde_json::from_str(&inspected).expect("it is JSON");
    assert_eq!(letter["cloud_event"]["id"], *first);
    assert_eq!(letter["cloud_event"]["subject"], *one);
    let failed = target.seen();
    let tried: BTreeSet<&str> = failed.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(tried.len(), 2, "a failing order's later events wait");

    // Mended, redriven, drained.
    target.answer(200);
    book.run("order-service outbox redrive $EVENT");
    gauge_is(&client, "outbox_dead", 1).await;
    book.run("order-service outbox redrive all");
    gauge_is(&client, "outbox_dead", 0).await;
    gauge_is(&client, "outbox_pending", 0).await;
    book.run("order-service outbox status");
    assert_eq!(oldest_age(&client).await, 0.0);
    let events = BTreeMap::from([(one.clone(), 2), (other, 1)]);
    assert_all_told(&target.seen(), &events);
    for id in tried {
        let delivered = target
            .seen()
            .iter()
            .any(|it| it.id == id && it.status == 200);
        assert!(delivered, "{id} was told under another id");
    }

    book.run("order-service outbox restart");
    book.run("order-service outbox enable");
    client.step(&one, "cancel", &json!({})).await;
    eventually("the restarted dispatcher tells what comes", async || {
        let seen = target.seen();
        let id = format!("{one}-3");
        if seen.iter().any(|it| it.id == id && it.status == 200) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    book.end();
}

#[tokio::test]
async fn a_target_that_answered_410_is_sent_to_again_when_it_is_enabled() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let target = Target::hanging();
    target.answer(410);
    let service = crate::service::Service::start_as(with_webhook(&target), data.path(), &[]);
    let client = Client::of(&service);
    let order = client.place(&an_order()).await.id();
    let url = service.url("");
    let trouble = eventually("the trouble is shown", async || {
        let told = stdout_of(["outbox", "status", "--url", &url]);
        if told.contains("TROUBLE") {
            Ok(told)
        } else {
            Err(told)
        }
    })
    .await;
    assert!(trouble.contains("410"), "{trouble}");
    target.answer(200);
    let restarted = stdout_of(["outbox", "restart", "--url", &url]);
    assert!(restarted.contains("webhook: running"), "{restarted}");
    assert_eq!(Metrics::of(&client).await.sum("outbox_pending"), 1);
    stdout_of(["outbox", "enable", "--url", &url]);
    gauge_is(&client, "outbox_pending", 0).await;
    assert_all_told(&target.seen(), &BTreeMap::from([(order, 1)]));
}

#[tokio::test]
async fn dead_events_of_a_stopped_service_are_listed_and_redriven_from_its_files() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let directory = data.path().to_string_lossy().into_owned();
    let offline = |rest: &[&str]| run([&["outbox"], rest, &["--data-dir", &directory]].concat());
    let refused = offline(&["status"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let target = Target::hanging();
    target.answer(500);
    let service = crate::service::Service::start_as(with_webhook(&target), data.path(), &[]);
    let client = Client::of(&service);
    let order = client.place(&an_order()).await.id();
    gauge_is(&client, "outbox_dead", 1).await;

    let refused = offline(&["status"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    for word in [&format!("process {}", service.pid()), "--url"] {
        assert!(message.contains(word), "{message}");
    }
    assert!(service.terminate().success());

    let told = |rest: &[&str]| {
        let output = offline(rest);
        assert!(output.status.success(), "{rest:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let event = format!("{order}-1");
    assert!(
        told(&["status"]).contains("dead 1"),
        "{}",
        told(&["status"])
    );
    assert!(told(&["list"]).contains(&event));
    let letter: Value = serde_json::from_str(&told(&["inspect", &event])).expect("it is JSON");
    assert_eq!(letter["cloud_event"]["id"], *event);
    for wrong in [
        &["inspect", "nonsense"][..],
        &["redrive", &format!("{order}-7")],
        &["redrive", "../outbox"],
        &["redrive"],
    ] {
        let output = offline(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
    assert!(told(&["redrive", &event]).contains("1 events are tried again at the next start"));
    let again = offline(&["redrive", &event]);
    assert_eq!(again.status.code(), Some(2), "it is not dead: {again:?}");

    target.answer(200);
    let service = crate::service::Service::start_as(with_webhook(&target), data.path(), &[]);
    gauge_is(&Client::of(&service), "outbox_pending", 0).await;
    assert_all_told(&target.seen(), &BTreeMap::from([(order, 1)]));
    let url = service.url("");
    for wrong in [
        &["outbox", "inspect", &event, "--url", &url][..],
        &["outbox", "inspect", "../..", "--url", &url],
        &["outbox", "redrive", "--url", &url],
        &["outbox", "enable"],
        &["outbox", "restart", "--url", "ftp://there"],
    ] {
        let output = run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
    }
}
