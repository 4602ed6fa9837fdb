//! 3A: the log is damaged. The scrub finds it before anybody needs it, and names the place; writes of what is sound go on;
//! without a backup, a repair keeps what is proven and declares lost what is not.

use std::process::Command;

use serde_json::json;

use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::playbook::Playbook;
use crate::repair;
use crate::service::{Service, binary, stdout_of};
use crate::waits::{caught_up, eventually};

pub(super) const PLAYED: &[&str] = &["The log is damaged"];

#[tokio::test]
async fn a_damaged_segment_is_found_named_and_repaired() {
    let Some(mut book) = Playbook::open("The log is damaged") else {
        return;
    };
    let service = book.start(Command::new(binary()), &["--partitions", "1"]);
    let client = Client::of(&service);
    let mut ids = Vec::new();
    for number in 0..3 {
        let mut order = an_order();
        order["customer_id"] = json!(format!("customer-{number}"));
        ids.push(client.place(&order).await.id());
    }
    caught_up(&client).await;
    let url = service.url("");
    stdout_of(["log", "rotate", "--url", &url]);
    client.place(&an_order()).await;
    caught_up(&client).await;
    assert!(service.terminate().success());
    let sealed = book.data().join("log/p000/00000000000000000000.seg");
    repair::change(&sealed, b"customer-1", false, 3);

    let service = book.start(Command::new(binary()), &[]);
    let client = Client::of(&service);
    eventually("the scrub has found it", async || {
        let damaged = Metrics::of(&client).await.sum("log_scrub_damaged_segments");
        if damaged == 1 {
            Ok(())
        } else {
            Err(format!("{damaged}"))
        }
    })
    .await;
    book.run("curl -s 127.0.0.1:8080/metrics");
    book.run("curl -s '127.0.0.1:8080/readyz?verbose'");
    client.place(&an_order()).await;
    assert!(service.terminate().success());

    book.fail("order-service log verify", 1);
    let plan = book.fail("order-service log repair", 1);
    assert!(plan.contains(&ids[1]), "what is lost is named: {plan}");
    book.run("order-service log repair --yes");
    book.run("order-service log verify");
    book.end();
    let service = Service::start(&book.data(), &[]);
    let client = Client::of(&service);
    for id in [&ids[0], &ids[2]] {
        let story = client.get(&format!("/orders/{id}/events")).send().await;
        story.expect(200);
    }
    client.place(&an_order()).await;
}
