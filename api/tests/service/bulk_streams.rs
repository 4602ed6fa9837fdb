//! Bulk requests as streams: answered line by line while they come, held up where the service is, cut off where the client
//! is, and kept up to where they break.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use order_api::ApiConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::raw::{connect, read_to_end, strict};
use crate::slow_readers::{connect_with_little_memory, serve_with_little_memory};
use crate::world::{Served, Setup, World, an_order, config};

const PATIENCE: Duration = Duration::from_secs(60);

fn bulk(body: impl Into<Body>) -> Request<Body> {
    Request::post("/orders/bulk")
        .header("content-type", "application/x-ndjson")
        .body(body.into())
        .unwrap()
}

fn outcomes(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A bulk request over a connection of its own, a chunk a time.
struct Chunked {
    stream: TcpStream,
    came: String,
}

impl Chunked {
    async fn open(served: &Served) -> Self {
        let mut stream = connect(served).await;
        let head = "POST /orders/bulk HTTP/1.1\r\nhost: it\r\ncontent-type: application/x-ndjson\r\n\
                    transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let came = String::new();
        Self { stream, came }
    }

    async fn send(&mut self, text: &str) {
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        self.stream.write_all(chunk.as_bytes()).await.unwrap();
    }

    /// Waits for the outcome of a line; no chunk ends within one.
    async fn outcome(&mut self, number: usize) -> Value {
        let begin = format!("{{\"line\":{number},");
        loop {
            let line = self
                .came
                .split_inclusive('\n')
                .find(|line| line.starts_with(&begin) && line.ends_with('\n'));
            if let Some(line) = line {
                return serde_json::from_str(line).unwrap();
            }
            let mut bytes = vec![0; 4096];
            let read = tokio::time::timeout(PATIENCE, self.stream.read(&mut bytes));
            let read = read.await.expect("the line is answered").unwrap();
            assert_ne!(read, 0, "the answer ends: {}", self.came);
            self.came
                .push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
    }
}

#[tokio::test]
async fn a_line_is_answered_before_the_next_one_is_sent() {
    let world = World::new();
    let served = world.serve().await;
    let mut request = Chunked::open(&served).await;
    for number in 1..=5 {
        request.send(&format!("{}\n", an_order())).await;
        assert_eq!(request.outcome(number).await["status"], 201);
    }
    // Half a line is none, wherever it was cut.
    let (half, rest) = ("{\"customer_id\"", ":1}\n");
    request.send(half).await;
    request.send(rest).await;
    assert_eq!(request.outcome(6).await["status"], 400);
    request.stream.write_all(b"0\r\n\r\n").await.unwrap();
    let end = read_to_end(&mut request.stream).await;
    assert!(end.ends_with("0\r\n\r\n"), "{end}");
}

#[tokio::test]
async fn lines_end_with_or_without_a_carriage_return_and_the_last_one_with_nothing() {
    let world = World::new();
    let order = an_order();
    let body = format!("{order}\r\n\r\n   \n\n{order}\n\t\r\n{order}\r\n{order}");
    let answer = world.ask(bulk(body)).await.expect(StatusCode::OK);
    let shown: Vec<_> = outcomes(&answer.text)
        .iter()
        .map(|outcome| (outcome["line"].clone(), outcome["status"].clone()))
        .collect();
    assert_eq!(
        shown,
        [1, 5, 7, 8].map(|line| (json!(line), json!(201))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn what_came_before_a_body_broke_off_is_kept_and_told() {
    let world = World::new();
    let served = world.serve().await;
    let mut stream = connect(&served).await;
    let line = an_order().to_string();
    let sent = format!("{line}\n{line}\n{}", &line[..line.len() / 2]);
    let head = format!(
        "POST /orders/bulk HTTP/1.1\r\nhost: it\r\ncontent-type: application/x-ndjson\r\n\
         content-length: {}\r\n\r\n",
        10 * sent.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let told = outcomes(&read_to_end(&mut stream).await);
    let statuses: Vec<_> = told.iter().map(|outcome| &outcome["status"]).collect();
    assert_eq!(statuses, [201, 201, 400]);
    assert_eq!(told[2]["problem"]["code"], "invalid-request");
    for outcome in &told[..2] {
        let path = format!("/orders/{}", outcome["id"].as_str().unwrap());
        world.get(&path).await.expect(StatusCode::OK);
    }
}

/// Sends `count` lines of a body that counts how many were asked for, while no line can have an outcome; how many of them
/// were, after looking again and again. In the end all of them are placed.
async fn lines_read_without_an_outcome(setup: Setup, line: String, count: usize) -> usize {
    const LOOKS: usize = 200;
    let gate = setup.disk.gate.clone();
    let world = setup.start();
    let closed = gate.close();
    let read = Arc::new(AtomicUsize::new(0));
    let line = Bytes::from(line);
    let counted = Arc::clone(&read);
    let body = stream::iter(0..count).map(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(line.clone())
    });
    let answer = world.send(bulk(Body::from_stream(body))).await;
    let mut answers = answer.into_body().into_data_stream();
    for _ in 0..LOOKS {
        // However often anybody asks.
        assert!(answers.next().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    closed.until_somebody_waits().await;
    assert!(answers.next().now_or_never().is_none());
    let read = read.load(Ordering::Relaxed);

    drop(closed);
    let mut text = String::new();
    while let Some(piece) = answers.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    let outcomes = outcomes(&text);
    assert_eq!(outcomes.len(), count);
    assert!(outcomes.iter().all(|outcome| outcome["status"] == 201));
    read
}

#[tokio::test]
async fn no_more_lines_are_read_than_may_wait_for_their_outcome() {
    const IN_FLIGHT: usize = 5;
    let setup = Setup {
        config: ApiConfig {
            bulk_lines_max: IN_FLIGHT,
            ..config()
        },
        ..Setup::default()
    };
    let line = format!("{}\n", an_order());
    let read = lines_read_without_an_outcome(setup, line, 50).await;
    assert_eq!(read, IN_FLIGHT);
}

#[tokio::test]
async fn of_long_lines_fewer_are_read_than_of_short_ones() {
    /// As in `bulk.rs`.
    const BYTES_IN_FLIGHT_MAX: usize = 4 * 1024 * 1024;
    const LINE_BYTES: usize = 256 * 1024;
    let order = an_order().to_string();
    let padding = " ".repeat(LINE_BYTES - order.len());
    let line = format!("{order}{padding}\n");
    let read = lines_read_without_an_outcome(Setup::default(), line, 50).await;
    // One more waits for room.
    assert_eq!(read, BYTES_IN_FLIGHT_MAX / LINE_BYTES + 1);
}

#[tokio::test]
async fn whoever_reads_no_answers_is_cut_off_and_nothing_grows() {
    /// More than the kernel keeps for both sides, and what is answered to it far more than that.
    const BYTES_MAX: usize = 64 * 1024 * 1024;
    let world = World::with(strict());
    let served = serve_with_little_memory(&world);
    let mut stream = connect_with_little_memory(&served).await;
    let head = "POST /orders/bulk HTTP/1.1\r\nhost: it\r\ncontent-type: application/x-ndjson\r\n\
                content-length: 999999999\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let lines = "x\n".repeat(32 * 1024);
    let mut sent = 0;
    let sending = async {
        while stream.write_all(lines.as_bytes()).await.is_ok() {
            sent += lines.len();
            assert!(sent < BYTES_MAX, "lines are read without end");
        }
    };
    let cut_off = tokio::time::timeout(PATIENCE, sending);
    cut_off.await.expect("the service cuts it off");
}

#[tokio::test]
async fn one_bulk_request_too_many_is_refused_until_another_ends() {
    let config = ApiConfig {
        bulk_requests_max: 1,
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    let line = format!("{}\n", an_order());
    let mut open = Chunked::open(&served).await;
    open.send(&line).await;
    assert_eq!(open.outcome(1).await["status"], 201);
    let refused = world.ask(bulk(line.clone())).await;
    let refused = refused.expect(StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["code"], "overloaded");
    assert_eq!(refused.header("retry-after"), "1");

    open.stream.write_all(b"0\r\n\r\n").await.unwrap();
    read_to_end(&mut open.stream).await;
    world.ask(bulk(line)).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn lines_wait_for_room_in_a_full_queue() {
    let setup = Setup {
        queue_commands_max: 1,
        ..Setup::default()
    };
    let gate = setup.disk.gate.clone();
    let world = setup.start();
    let closed = gate.close();
    let lines = format!("{}\n", an_order()).repeat(50);
    let asked = world.ask(bulk(lines));
    let opened = async {
        closed.until_somebody_waits().await;
        // By now most lines have found the queue full: both are polled by this one thread.
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(closed);
    };
    let (answer, ()) = tokio::join!(asked, opened);
    let outcomes = outcomes(&answer.text);
    assert_eq!(outcomes.len(), 50);
    for outcome in outcomes {
        assert_eq!(outcome["status"], 201, "{outcome}");
    }
}

#[tokio::test]
async fn a_line_that_waited_in_vain_says_when_to_come_back() {
    let setup = Setup {
        config: ApiConfig {
            bulk_patience: Duration::from_millis(1),
            ..config()
        },
        queue_commands_max: 1,
        ..Setup::default()
    };
    let gate = setup.disk.gate.clone();
    let world = setup.start();
    let closed = gate.close();
    let lines = format!("{}\n", an_order()).repeat(50);
    let asked = world.ask(bulk(lines));
    let opened = async {
        closed.until_somebody_waits().await;
        drop(closed);
    };
    let (answer, ()) = tokio::join!(asked, opened);
    let refused: Vec<_> = outcomes(&answer.text)
        .into_iter()
        .filter(|outcome| outcome["status"] != 201)
        .collect();
    assert!(!refused.is_empty(), "{answer:?}");
    for line in refused {
        assert_eq!(line["status"], 503, "{line}");
        assert_eq!(line["problem"]["code"], "overloaded");
        assert_eq!(line["retry_after"], 1);
    }
}

#[tokio::test]
async fn a_lines_key_is_no_other_requests_whatever_that_calls_it() {
    let world = World::new();
    let single = Request::post("/orders")
        .header("content-type", "application/json")
        .header("idempotency-key", "nightly#1")
        .body(Body::from(an_order().to_string()))
        .unwrap();
    let single = world.ask(single).await.expect(StatusCode::CREATED);
    let mut request = bulk(format!("{}\n", an_order()));
    let key = "nightly".parse().unwrap();
    request.headers_mut().insert("idempotency-key", key);
    let answer = world.ask(request).await.expect(StatusCode::OK);
    let line = &outcomes(&answer.text)[0];
    assert_eq!(line["status"], 201, "{line}");
    assert_ne!(line["id"], single.json()["id"]);
}
