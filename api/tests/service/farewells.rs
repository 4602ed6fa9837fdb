//! Answers to clients that are still sending: they arrive, and nobody is read on for ever.

use std::time::Duration;

use order_api::{ApiConfig, BearerToken, Scope};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{assert_alive, connect, exchange, read_to_end};
use crate::world::{Served, World, config};

/// More than the connection's buffers of the service hold, and than a body may have.
const BODY_BYTES: usize = 300 * 1024;
const PIECE_BYTES: usize = 10 * 1024;
/// Between two pieces: the service answers long before the last.
const PAUSE: Duration = Duration::from_millis(10);

/// Sends a head, then the whole body bit by bit, and only then reads.
async fn send_all_then_read(served: &Served, head: &str) -> String {
    let mut stream = connect(served).await;
    let head = format!("{head}host: it\r\ncontent-length: {BODY_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..BODY_BYTES / PIECE_BYTES {
        tokio::time::sleep(PAUSE).await;
        let sent = stream.write_all(&[b' '; PIECE_BYTES]).await;
        sent.unwrap_or_else(|error| panic!("{head}: closed while sending: {error}"));
    }
    // Nothing more comes; kept alive, the connection would stay open.
    stream.shutdown().await.unwrap();
    read_to_end(&mut stream).await
}

#[tokio::test]
async fn who_is_refused_while_sending_reads_why() {
    let json = "content-type: application/json\r\n";
    let ndjson = "content-type: application/x-ndjson\r\n";
    let long = "k".repeat(250);
    let cases = [
        (format!("POST /orders HTTP/1.1\r\n{json}"), 413),
        (
            format!("POST /orders HTTP/1.1\r\n{json}idempotency-key: {long}{long}\r\n"),
            400,
        ),
        (
            format!("POST /orders/confirm/confirm HTTP/1.1\r\n{json}"),
            404,
        ),
        (format!("PATCH /orders HTTP/1.1\r\n{json}"), 405),
        (format!("POST /orders/bulk HTTP/1.1\r\n{json}"), 415),
        (
            format!("POST /orders/bulk HTTP/1.1\r\n{ndjson}idempotency-key: {long}\r\n"),
            400,
        ),
        // The head itself is none.
        (format!("POST /orders HTTP/1.1\r\nno header\r\n{json}"), 400),
    ];
    let world = World::new();
    let served = world.serve().await;
    for (head, status) in cases {
        let answer = send_all_then_read(&served, &head).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(answer.starts_with(&expected), "{head}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{head}: {answer}");
    }
}

#[tokio::test]
async fn who_may_not_is_told_so_while_sending() {
    let digest = Sha256::digest("reads");
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let config = ApiConfig {
        tokens: vec![BearerToken::new("reader", &digest, &[Scope::Read]).unwrap()],
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    for path in ["/orders", "/orders/bulk"] {
        for (token, status, code) in [
            ("guessed", 401, "unauthenticated"),
            ("reads", 403, "forbidden"),
        ] {
            let head = format!("POST {path} HTTP/1.1\r\nauthorization: Bearer {token}\r\n");
            let answer = send_all_then_read(&served, &head).await;
            let expected = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&expected), "{head}: {answer}");
            assert!(answer.contains(code), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_where_it_is_over_and_not_when_it_ends() {
    let world = World::new();
    let served = world.serve().await;
    let mut stream = connect(&served).await;
    let head = "POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{BODY_BYTES:x}\r\n{}\r\n", " ".repeat(BODY_BYTES));
    stream.write_all(chunk.as_bytes()).await.unwrap();
    // The last chunk never comes.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn who_waits_to_be_told_to_go_on_with_too_much_is_refused_at_once() {
    let world = World::new();
    let served = world.serve().await;
    let head = |length: usize| {
        format!(
            "POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n\
             content-length: {length}\r\n\r\n"
        )
    };
    let answer = exchange(&served, head(BODY_BYTES).as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let mut stream = connect(&served).await;
    stream.write_all(head(2).as_bytes()).await.unwrap();
    let mut told = [0; 12];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"HTTP/1.1 100", "what fits is asked for");
}

#[tokio::test]
async fn nobody_is_read_on_for_ever() {
    const MUCH: usize = 256 * 1024 * 1024;
    let world = World::new();
    let served = world.serve().await;
    let mut stream = connect(&served).await;
    let head = format!("POST /nothing HTTP/1.1\r\nhost: it\r\ncontent-length: {MUCH}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 64 * 1024];
    let mut sent = 0;
    while stream.write_all(&piece).await.is_ok() {
        sent += piece.len();
        assert!(sent < MUCH, "all of it is read");
    }
    assert_alive(&served).await;
}
