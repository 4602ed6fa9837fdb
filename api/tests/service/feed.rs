//! The feed: what the log has, then what comes; resumed where it was left; ended by the shutdown.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::{Request, StatusCode};
use futures_util::StreamExt;
use order_api::ApiConfig;
use serde_json::{Value, json};

use crate::world::{World, config};

/// Longest wait for anything that should happen by itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// One event as a client sees it.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    kind: String,
    data: Value,
}

/// Reads a feed as a browser's `EventSource` does.
struct Feed {
    body: BodyDataStream,
    text: String,
    /// What it would send to come back.
    last_event_id: String,
}

impl Feed {
    async fn open(world: &World, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self {
            body: answer.into_body().into_data_stream(),
            text: String::new(),
            last_event_id: last.unwrap_or_default().to_owned(),
        }
    }

    /// Loses the connection and comes back.
    async fn reconnect(self, world: &World, path: &str) -> Self {
        let last = Some(self.last_event_id).filter(|id| !id.is_empty());
        Self::open(world, path, last.as_deref()).await
    }

    /// What the next block holds, if it is an event; `None` when the feed ends.
    async fn next_block(&mut self) -> Option<Option<Event>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(self.read_block(&block));
            }
            let piece = tokio::time::timeout(PATIENCE, self.body.next());
            let piece = piece.await.expect("the feed goes on or ends")?.unwrap();
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// WHATWG HTML, 9.2.6: an id counts with or without data, an event without data is none.
    fn read_block(&mut self, block: &str) -> Option<Event> {
        let (mut kind, mut data) = (String::new(), String::new());
        for line in block.lines() {
            match line.split_once(": ").expect("a field or a comment") {
                ("id", id) => self.last_event_id = id.to_owned(),
                ("event", name) => kind = name.to_owned(),
                ("data", text) => data.push_str(text),
                ("retry", milliseconds) => {
                    assert!(milliseconds.parse::<u32>().unwrap() > 0);
                }
                ("", _comment) => {}
                unknown => panic!("{unknown:?}"),
            }
        }
        (!data.is_empty()).then(|| Event {
            id: self.last_event_id.clone(),
            kind,
            data: serde_json::from_str(&data).unwrap(),
        })
    }

    /// The next event; `None` when the feed ends.
    async fn next(&mut self) -> Option<Event> {
        // Heartbeats come for ever.
        let event = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Some(event) = self.next_block().await? {
                    return Some(event);
                }
            }
        });
        event.await.expect("an event comes, or the feed ends")
    }

    async fn take(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.next().await.expect("an event"));
        }
        events
    }

    /// Reads the next block, which must not be an event.
    async fn nothing(&mut self) {
        let block = self.next_block().await;
        assert_eq!(block.expect("the feed goes on"), None);
    }
}

async fn confirm(world: &World, id: &str) {
    world
        .post(&format!("/orders/{id}/confirm"), &json!({}))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test]
async fn a_feed_shows_what_was_and_then_what_comes() {
    let world = World::new();
    let before = world.place().await;
    let mut feed = Feed::open(&world, "/events", None).await;
    let first = feed.next().await.unwrap();
    assert_eq!(
        (first.kind.as_str(), &first.data["order_id"]),
        ("OrderPlaced", &json!(before))
    );
    let after = world.place().await;
    assert_eq!(feed.next().await.unwrap().data["order_id"], json!(after));
    confirm(&world, &before).await;
    let third = feed.next().await.unwrap();
    assert_eq!(
        (third.kind.as_str(), &third.data["version"]),
        ("OrderConfirmed", &json!(2))
    );
}

#[tokio::test]
async fn a_feed_resumed_anywhere_misses_nothing() {
    let world = World::new();
    for _ in 0..5 {
        let id = world.place().await;
        confirm(&world, &id).await;
        let pay = json!({"amount": 3998});
        world
            .post(&format!("/orders/{id}/pay"), &pay)
            .await
            .expect(StatusCode::OK);
        // Two events in one frame.
        world
            .post(&format!("/orders/{id}/cancel"), &json!({}))
            .await
            .expect(StatusCode::OK);
    }
    let whole = Feed::open(&world, "/events", None).await.take(25).await;
    for (index, event) in whole.iter().enumerate() {
        let mut resumed = Feed::open(&world, "/events", Some(&event.id)).await;
        let behind = &whole[index + 1..];
        let shown = resumed.take(behind.len()).await;
        // An event that shares a frame with a later one is shown again; nothing is left out.
        for missed in behind {
            let again = shown.iter().any(|event| event.data == missed.data);
            let more = if again {
                true
            } else {
                resumed.next().await.unwrap().data == missed.data
            };
            assert!(again || more, "{missed:?} is missed behind {event:?}");
        }
    }
}

#[tokio::test]
async fn a_feed_can_be_of_one_kind_of_one_partition_and_of_the_future() {
    let world = World::new();
    let old = world.place().await;
    let mut future = Feed::open(&world, "/events?from=end&type=OrderConfirmed", None).await;
    let new = world.place().await;
    confirm(&world, &new).await;
    assert_eq!(future.next().await.unwrap().data["order_id"], json!(new));
    confirm(&world, &old).await;
    let mut found = Vec::new();
    for partition in ["0", "1"] {
        let path = format!("/events?type=OrderPlaced,OrderConfirmed&partition={partition}");
        let mut feed = Feed::open(&world, &path, None).await;
        for id in [&old, &new] {
            let read = world.get(&format!("/orders/{id}")).await;
            if read.header("read-model-position").starts_with(partition) {
                found.extend(
                    feed.take(2)
                        .await
                        .into_iter()
                        .map(|event| event.data["order_id"].clone()),
                );
            }
        }
    }
    assert_eq!(found.len(), 4);
}

#[tokio::test]
async fn a_feed_of_the_future_that_is_lost_before_its_first_event_misses_nothing() {
    for path in ["/events?from=end", "/events?from=end&type=OrderConfirmed"] {
        let world = World::new();
        let old = world.place().await;
        confirm(&world, &old).await;
        let mut feed = Feed::open(&world, path, None).await;
        feed.nothing().await;
        let missed = world.place().await;
        confirm(&world, &missed).await;
        let mut feed = feed.reconnect(&world, path).await;
        assert_eq!(feed.next().await.unwrap().data["order_id"], json!(missed));
    }
}

#[tokio::test]
async fn a_feed_that_shows_nothing_of_what_happens_says_how_far_it_has_looked() {
    const PATH: &str = "/events?type=OrderConfirmed";
    const HEARTBEATS_MAX: usize = 500;
    let config = ApiConfig {
        heartbeat_every: Duration::from_millis(20),
        ..config()
    };
    let world = World::with(config);
    let mut feed = Feed::open(&world, PATH, None).await;
    let mut first = String::new();
    for _ in 0..5 {
        first = world.place().await;
    }
    let all = Feed::open(&world, "/events", None).await.take(5).await;
    for _ in 0..HEARTBEATS_MAX {
        if feed.last_event_id == all[4].id {
            break;
        }
        feed.nothing().await;
    }
    assert_eq!(feed.last_event_id, all[4].id);
    confirm(&world, &first).await;
    let mut feed = feed.reconnect(&world, PATH).await;
    let shown = feed.next().await.unwrap();
    assert_eq!(shown.data["order_id"], json!(first));
}

#[tokio::test]
async fn a_feed_is_alive_however_much_happens_that_it_does_not_show() {
    let config = ApiConfig {
        heartbeat_every: Duration::from_millis(100),
        ..config()
    };
    let world = World::with(config);
    let mut feed = Feed::open(&world, "/events?type=OrderConfirmed", None).await;
    let heartbeats = async {
        for _ in 0..5 {
            feed.nothing().await;
        }
    };
    let traffic = async {
        loop {
            world.place().await;
        }
    };
    tokio::select! {
        () = heartbeats => {}
        () = traffic => {}
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused() {
    let world = World::new();
    for path in [
        "/events?partition=2",
        "/events?type=Nothing",
        "/events?type=",
        "/events?from=here",
    ] {
        let refused = world.get(path).await.expect(StatusCode::BAD_REQUEST);
        assert_eq!(refused.json()["code"], "invalid-query");
    }
    let request = Request::get("/events")
        .header("last-event-id", "42")
        .body(Body::empty())
        .unwrap();
    let refused = world.ask(request).await.expect(StatusCode::BAD_REQUEST);
    assert_eq!(refused.json()["code"], "invalid-header");
}

#[tokio::test]
async fn one_feed_too_many_is_refused_until_another_ends() {
    let config = ApiConfig {
        feeds_max: 1,
        ..config()
    };
    let world = World::with(config);
    world.place().await;
    let mut feed = Feed::open(&world, "/events", None).await;
    feed.next().await.unwrap();
    let refused = world
        .get("/events")
        .await
        .expect(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["code"], "overloaded");
    drop(feed);
    Feed::open(&world, "/events", None)
        .await
        .next()
        .await
        .unwrap();
}

#[tokio::test]
async fn the_shutdown_ends_open_feeds() {
    let world = World::new();
    world.place().await;
    let mut feed = Feed::open(&world, "/events", None).await;
    feed.next().await.unwrap();
    let served = world.serve().await;
    served.stop.send(()).unwrap();
    assert_eq!(feed.next().await, None);
    served.ended.await.unwrap().unwrap();
}
