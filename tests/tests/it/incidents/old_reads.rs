//! 3C: clients see old data. Every read says how old it is; the check names the projection that stands still; it goes on,
//! and a read that waits shows the newest.

use std::process::Command;

use serde_json::json;

use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::service::binary;
use crate::waits::eventually;

pub(super) const PLAYED: &[&str] = &["Reads are old (3C)"];

#[tokio::test]
async fn a_read_says_how_old_it_is_until_the_projection_goes_on() {
    let Some(mut book) = Playbook::open("Reads are old (3C)") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "1"]);
    let client = Client::of(&service);
    let placed = client.place(&an_order()).await;
    client.order_after(&placed).await;
    client
        .post("/projections/orders/pause")
        .send()
        .await
        .expect(200);
    let confirmed = client.step(&placed.id(), "confirm", &json!({})).await;
    book.set("ID", placed.id());
    book.set("SYNC_TOKEN", confirmed.header("sync-token"));

    let lag = async || {
        let metrics = Metrics::of(&client).await;
        let samples = metrics.with("projector_event_lag_seconds", &[("projection", "orders")]);
        samples[0].value
    };
    let before = lag().await;
    assert!(before > 0.0, "an event waits: the lag is not 0");
    eventually("the lag grows while nothing is applied", async || {
        let now = lag().await;
        if now > before {
            Ok(())
        } else {
            Err(format!("{now}"))
        }
    })
    .await;
    let old = book.run("curl -si 127.0.0.1:8080/orders/$ID");
    assert!(!old.contains("read-model-lag-seconds: 0\n"), "{old}");
    let impatient = client
        .get(&format!("/orders/{}", placed.id()))
        .header("sync-token", confirmed.header("sync-token"))
        .header("prefer", "wait=0");
    assert_eq!(
        impatient.send().await.expect(503).problem(),
        "read-model-behind"
    );

    book.run("order-service projections status orders");
    book.run("curl -s 127.0.0.1:8080/metrics | grep '^projector_paused");
    book.run("order-service projections resume orders");
    book.run("curl -si 127.0.0.1:8080/orders/$ID -H");
    eventually("nothing is behind", async || match lag().await {
        0.0 => Ok(()),
        behind => Err(format!("{behind}")),
    })
    .await;
    book.end();
}
