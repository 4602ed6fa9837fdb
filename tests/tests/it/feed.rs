//! The live feed over a kill -9: whoever comes back with the last id they saw misses nothing and sees nothing twice.

use serde_json::Value;

use crate::client::{Client, an_order};
use crate::service::{PATIENCE, Service};
use crate::stores::on_both_stores;

on_both_stores! {
    a_feed_resumed_after_a_kill_goes_on_where_it_was,
}

/// One event: its opaque id, and the order it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    id: String,
    order: String,
}

/// Reads `count` events of the feed, the ones behind `last` if there is one.
async fn events(service: &Service, last: Option<&str>, count: usize) -> Vec<Event> {
    let mut request = reqwest::Client::new().get(service.url("/events"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    let mut answer = request.send().await.expect("the service answers");
    assert_eq!(answer.status(), 200);
    let mut text = String::new();
    loop {
        // What stands behind the last empty line is half an event.
        let whole = text.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
        let events: Vec<Event> = whole.split("\n\n").filter_map(parse).collect();
        if events.len() >= count {
            return events;
        }
        let piece = tokio::time::timeout(PATIENCE, answer.chunk())
            .await
            .expect("the feed goes on")
            .expect("the connection holds")
            .expect("the feed has no end");
        text.push_str(std::str::from_utf8(&piece).expect("events are UTF-8"));
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    let data: Value = serde_json::from_str(field("data: ")?).expect("the data is JSON");
    Some(Event {
        id: field("id: ")?.to_owned(),
        order: data["order_id"].as_str()?.to_owned(),
    })
}

async fn place(service: &Service, count: usize) -> Vec<String> {
    let client = Client::of(service);
    let mut placed = Vec::new();
    for _ in 0..count {
        placed.push(client.place(&an_order()).await.id());
    }
    placed
}

async fn a_feed_resumed_after_a_kill_goes_on_where_it_was(store: &str) {
    const BEFORE: usize = 20;
    const SEEN: usize = 7;
    const AFTER: usize = 5;
    let data = tempfile::tempdir().expect("a temporary directory");
    let flags = ["--store", store, "--partitions", "3"];
    let service = Service::start(data.path(), &flags);
    let mut placed = place(&service, BEFORE).await;
    let mut seen = events(&service, None, BEFORE).await;
    seen.truncate(SEEN);
    service.kill();

    let service = Service::start(data.path(), &flags);
    placed.extend(place(&service, AFTER).await);
    let last = seen.last().map(|event| event.id.clone());
    let resumed = events(&service, last.as_deref(), BEFORE + AFTER - SEEN).await;
    seen.extend(resumed);

    let mut shown: Vec<_> = seen.into_iter().map(|event| event.order).collect();
    shown.sort_unstable();
    placed.sort_unstable();
    assert_eq!(shown, placed);
    assert!(service.terminate().success());
}
