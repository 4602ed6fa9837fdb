//! 3B: reads are slow. What is not critical is paused, so that `orders` has the machine; indexes are made anew; then
//! everything goes on. And a process that holds the SQLite file is seen in the metrics.

use std::process::Command;

use rusqlite::Connection;

use super::place_many;
use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::service::binary;
use crate::waits::{caught_up, eventually};

pub(super) const PLAYED: &[&str] = &["Reads are slow (3B)", "Pause what is not critical"];

#[tokio::test]
async fn what_is_not_critical_is_paused_and_indexes_are_made_anew() {
    let Some(mut book) = Playbook::open("Reads are slow (3B)") else {
        return;
    };
    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    let ids = place_many(&client, 40).await;
    caught_up(&client).await;

    book.run("order-service projections status");
    book.run("curl -s 127.0.0.1:8080/metrics | grep '^sqlite_'");
    book.run("order-service projections pause sku_demand");
    book.run("order-service projections pause customer_summary");
    let placed = client.place(&an_order()).await;
    client.order_after(&placed).await;
    let metrics = Metrics::of(&client).await;
    for (projection, paused) in [("orders", 0), ("customer_summary", 4), ("sku_demand", 4)] {
        let found = metrics.with("projector_paused", &[("projection", projection)]);
        let count = found.iter().filter(|sample| sample.value == 1.0).count();
        assert_eq!(count, paused, "{projection}");
    }
    book.run("order-service projections reindex orders");
    for id in &ids {
        let read = client.get(&format!("/orders/{id}")).send().await;
        read.expect(200);
    }
    book.run("order-service projections resume customer_summary");
    book.run("order-service projections resume sku_demand");
    caught_up(&client).await;
    book.end();
}

#[tokio::test]
async fn a_paused_projection_stands_still_alone_and_goes_on_where_it_was() {
    let Some(mut book) = Playbook::open("Pause what is not critical") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "1"]);
    let client = Client::of(&service);
    book.run("order-service projections pause sku_demand");
    place_many(&client, 10).await;
    eventually("the other projections have applied all", async || {
        let metrics = Metrics::of(&client).await;
        let lag = |projection| {
            let samples = metrics.with("projector_lag_events", &[("projection", projection)]);
            samples.iter().map(|sample| sample.value).sum::<f64>()
        };
        let seen = (lag("orders"), lag("customer_summary"), lag("sku_demand"));
        if seen == (0.0, 0.0, 11.0) {
            Ok(())
        } else {
            Err(format!("{seen:?}"))
        }
    })
    .await;
    book.run("order-service projections status sku_demand");
    book.run("order-service projections resume sku_demand");
    book.eventually("order-service projections status sku_demand");
    caught_up(&client).await;
    book.end();
}

#[tokio::test]
async fn a_process_that_holds_the_file_is_seen_and_the_rows_follow_when_it_ends() {
    let data = tempfile::tempdir().expect("a temporary directory");
    let service = crate::service::Service::start(data.path(), &["--partitions", "1"]);
    let client = Client::of(&service);
    client.place(&an_order()).await;
    caught_up(&client).await;

    let intruder = Connection::open(data.path().join("read.db")).expect("the file opens");
    intruder
        .execute_batch("BEGIN IMMEDIATE")
        .expect("the file is free for a moment");
    client.place(&an_order()).await;
    eventually("transactions give way, and lag is shown", async || {
        let metrics = Metrics::of(&client).await;
        let (busy, lag) = (
            metrics.sum("sqlite_busy_total"),
            metrics.sum("projector_lag_events"),
        );
        if busy > 0 && lag > 0 {
            Ok(())
        } else {
            Err(format!("busy {busy}, {lag} behind"))
        }
    })
    .await;
    intruder.execute_batch("ROLLBACK").expect("it lets go");
    caught_up(&client).await;
}
