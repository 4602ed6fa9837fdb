//! Connections that are slow, broken or too many: none of them costs the others anything.

use std::time::Duration;

use axum::http::StatusCode;
use order_api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::world::{Served, World, an_order, config};

/// Limits small enough to meet, and long enough for a machine that has much else to do.
fn strict() -> ApiConfig {
    ApiConfig {
        header_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        drain_timeout: Duration::from_secs(20),
        ..config()
    }
}

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.address).await.unwrap()
}

/// Sends bytes, and reads until the service closes.
async fn exchange(served: &Served, bytes: &[u8]) -> String {
    let mut stream = connect(served).await;
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
    match read.await.expect("the service closes the connection") {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Most tries for what should happen by itself.
const ATTEMPTS: usize = 1000;

fn get(path: &str, connection: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: {connection}\r\n\r\n").into_bytes()
}

async fn assert_alive(served: &Served) {
    let answer = exchange(served, &get("/livez", "close")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_costs_its_connection_alone() {
    let world = World::with(strict());
    let served = world.serve().await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(&served).await;
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost:")
            .await
            .unwrap();
        slow.push(stream);
    }
    assert_alive(&served).await;
    for mut stream in slow {
        assert_eq!(read_to_end(&mut stream).await, "");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told_so() {
    let world = World::with(strict());
    let served = world.serve().await;
    let head = b"POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let answer = exchange(&served, head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"request-timeout\""), "{answer}");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_kept() {
    let world = World::with(strict());
    let served = world.serve().await;
    let mut stream = connect(&served).await;
    let body = an_order().to_string();
    let request = format!(
        "POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..20 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 201"), "{answer:?}");
    }
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn when_clients_take_every_connection_probes_and_operators_still_get_in() {
    let config = ApiConfig {
        connections_max: 1,
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    let mut first = connect(&served).await;
    first.write_all(&get("/livez", "keep-alive")).await.unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    for path in ["/livez", "/readyz", "/metrics", "/projections"] {
        // One request each: nobody settles in the reserve.
        let answer = exchange(&served, &get(path, "keep-alive")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let refused = exchange(&served, &get("/orders", "keep-alive")).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    assert!(refused.contains("\"code\":\"overloaded\""), "{refused}");
    drop(first);
    for _ in 0..ATTEMPTS {
        // The service learns of the closed connection in its own time.
        let answer = exchange(&served, &get("/orders", "close")).await;
        if answer.starts_with("HTTP/1.1 200") {
            return;
        }
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    panic!("the place of a closed connection stays taken");
}

#[tokio::test]
async fn a_connection_that_there_is_no_place_for_is_told_to_come_back() {
    let config = ApiConfig {
        connections_max: 1,
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    // Silent connections take the place and the whole reserve; one of them is one too many.
    let mut silent = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut stream = connect(&served).await;
        let mut answer = [0; 12];
        let told = tokio::time::timeout(Duration::from_millis(20), stream.read_exact(&mut answer));
        if told.await.is_ok() {
            assert_eq!(&answer, b"HTTP/1.1 503");
            return;
        }
        silent.push(stream);
    }
    panic!("{} connections were let in", silent.len());
}

#[tokio::test]
async fn a_listener_of_the_operators_has_connections_of_its_own() {
    let config = ApiConfig {
        connections_max: 1,
        ..config()
    };
    let world = World::with(config);
    let served = world.serve_apart().await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(TcpStream::connect(served.public).await.unwrap());
    }
    let mut operator = TcpStream::connect(served.admin).await.unwrap();
    for _ in 0..3 {
        operator
            .write_all(&get("/projections", "keep-alive"))
            .await
            .unwrap();
        let mut answer = vec![0; 16 * 1024];
        let length = operator.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{answer:?}");
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It is answered with this status, and closed.
    Refused(u16),
    /// It is answered with these, and closed as it asked.
    Served(&'static [u16]),
    /// It is closed without a word.
    Closed,
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_costs_nobody_anything() {
    use Fate::{Closed, Refused, Served};
    let world = World::with(strict());
    let served = world.serve().await;
    let json = "POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\n";
    let with_body = |head: &str| format!("{json}{head}").into_bytes();
    let text = |text: &str| text.as_bytes().to_vec();
    let cases: Vec<(&str, Vec<u8>, Fate)> = vec![
        ("nothing at all", vec![], Closed),
        ("line ends alone", text("\r\n\r\n\r\n"), Closed),
        ("half a request line", text("GET /live"), Closed),
        (
            "half a head",
            text("GET /livez HTTP/1.1\r\nhost: it\r\nx"),
            Closed,
        ),
        ("no request line", text("\0\0\0\0\r\n\r\n"), Refused(400)),
        (
            "TLS to a port without",
            vec![0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
            Refused(400),
        ),
        ("a method alone", text("GET\r\n\r\n"), Refused(400)),
        ("no version", text("GET /livez\r\n\r\n"), Refused(400)),
        (
            "a version of no year",
            text("GET /livez HTTP/9.9\r\n\r\n"),
            Refused(400),
        ),
        ("HTTP/2", text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Closed),
        (
            "a method with a space before it",
            text(" GET /livez HTTP/1.1\r\nhost: it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a NUL in the path",
            text("GET /li\0vez HTTP/1.1\r\nhost: it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a NUL in a header",
            text("GET /livez HTTP/1.1\r\nhost: it\r\nx: a\0b\r\n\r\n"),
            Refused(400),
        ),
        (
            "a header without a colon",
            text("GET /livez HTTP/1.1\r\nhost it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a space before the colon",
            text("GET /livez HTTP/1.1\r\nhost : it\r\n\r\n"),
            Refused(400),
        ),
        (
            "a folded header",
            text("GET /livez HTTP/1.1\r\nhost: it\r\nx: a\r\n b\r\n\r\n"),
            Refused(400),
        ),
        (
            "a long path",
            text(&format!("GET /{} HTTP/1.1\r\n\r\n", "p".repeat(100_000))),
            Refused(414),
        ),
        (
            "a huge header",
            text(&format!(
                "GET / HTTP/1.1\r\nx: {}\r\n\r\n",
                "y".repeat(200_000)
            )),
            Refused(431),
        ),
        (
            "a thousand headers",
            text(&format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                "a: b\r\n".repeat(1000)
            )),
            Refused(431),
        ),
        (
            "a negative length",
            with_body("content-length: -1\r\n\r\n"),
            Refused(400),
        ),
        (
            "a signed length",
            with_body("content-length: +5\r\n\r\nhello"),
            Refused(400),
        ),
        (
            "a length beyond 64 bits",
            with_body("content-length: 99999999999999999999\r\n\r\n"),
            Refused(400),
        ),
        (
            "two lengths",
            with_body("content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
            Refused(400),
        ),
        (
            "a list of lengths",
            with_body("content-length: 5, 6\r\n\r\nhello"),
            Refused(400),
        ),
        (
            "a length over the limit",
            with_body("content-length: 999999999\r\n\r\n"),
            Refused(413),
        ),
        (
            "a body that ends early",
            with_body("content-length: 100\r\n\r\n{"),
            Refused(400),
        ),
        (
            "an unknown coding",
            with_body("transfer-encoding: gzip\r\n\r\n"),
            Refused(400),
        ),
        (
            "a coding behind chunked",
            with_body("transfer-encoding: chunked, gzip\r\n\r\n"),
            Refused(400),
        ),
        (
            "a chunk without a size",
            with_body("transfer-encoding: chunked\r\n\r\nzz\r\n"),
            Refused(400),
        ),
        (
            "a chunk beyond 64 bits",
            with_body("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
            Refused(400),
        ),
        (
            "a chunk over the limit",
            with_body("transfer-encoding: chunked\r\n\r\n7fffffff\r\nx"),
            Refused(400),
        ),
        (
            "a chunk longer than its size",
            with_body("transfer-encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n"),
            Refused(400),
        ),
        // RFC 9112, 6.1: the coding counts, the length does not.
        (
            "a length beside a coding",
            with_body(
                "content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: it\r\n\r\n",
            ),
            Refused(400),
        ),
        (
            "line feeds alone",
            text("GET /livez HTTP/1.1\nhost: it\nconnection: close\n\n"),
            Served(&[200]),
        ),
        (
            "HTTP/1.0",
            text("GET /livez HTTP/1.0\r\n\r\n"),
            Served(&[200]),
        ),
        (
            "three requests at once",
            [
                get("/livez", "keep-alive"),
                get("/nowhere", "keep-alive"),
                get("/livez", "close"),
            ]
            .concat(),
            Served(&[200, 404, 200]),
        ),
        (
            "a good request before a bad one",
            [get("/livez", "keep-alive"), text("\0\r\n\r\n")].concat(),
            Served(&[200, 400]),
        ),
    ];
    for (what, bytes, fate) in cases {
        let mut stream = connect(&served).await;
        stream.write_all(&bytes).await.unwrap();
        // Nothing more comes: whatever waits for it has to see that.
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        let statuses: Vec<u16> = answer
            .split("HTTP/1.")
            .skip(1)
            .map(|answer| answer[2..5].parse().unwrap())
            .collect();
        match fate {
            Refused(status) => assert_eq!(statuses, [status], "{what}: {answer}"),
            Served(expected) => assert_eq!(statuses, expected, "{what}: {answer}"),
            Closed => assert_eq!(answer, "", "{what}"),
        }
        assert_alive(&served).await;
    }
    // Every thread that works for requests still does.
    let id = world.place().await;
    world
        .get(&format!("/orders/{id}"))
        .await
        .expect(StatusCode::OK);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let world = World::new();
    let served = world.serve().await;
    let head = b"POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: 999999999\r\n\r\n";
    let answer = exchange(&served, head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn the_shutdown_finishes_what_is_open_and_takes_no_more() {
    let world = World::new();
    let served = world.serve().await;
    let mut idle = connect(&served).await;
    let mut half = connect(&served).await;
    half.write_all(b"POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n")
        .await
        .unwrap();
    // Answered: so the service has the connections above, too.
    assert_alive(&served).await;
    served.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    half.write_all(b"{}").await.unwrap();
    let answer = read_to_end(&mut half).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    served.ended.await.unwrap().unwrap();
    assert!(
        TcpStream::connect(served.address).await.is_err(),
        "a stopped service accepts"
    );
}

/// An order whose event fills a good part of a connection's buffers.
fn a_large_order() -> serde_json::Value {
    let mut order = an_order();
    for number in 0..32 {
        order["metadata"][format!("note-{number}")] = "x".repeat(512).into();
    }
    order["metadata"].as_object_mut().unwrap().remove("channel");
    order
}

/// A feed with far more to tell than the machine keeps for a reader that does not read.
async fn unread_feed(world: &World, served: &Served) -> TcpStream {
    for _ in 0..600 {
        world
            .post("/orders", &a_large_order())
            .await
            .expect(StatusCode::CREATED);
    }
    // A reader of little memory of its own.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut feed = socket.connect(served.address).await.unwrap();
    feed.write_all(&get("/events", "keep-alive")).await.unwrap();
    let mut answer = [0; 12];
    feed.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    feed
}

#[tokio::test]
async fn a_feed_that_nobody_reads_is_cut_off_and_gives_its_place_back() {
    let config = ApiConfig {
        feeds_max: 1,
        ..strict()
    };
    let world = World::with(config);
    let served = world.serve().await;
    let _unread = unread_feed(&world, &served).await;
    for _ in 0..ATTEMPTS {
        let mut next = connect(&served).await;
        next.write_all(&get("/events?from=end", "close"))
            .await
            .unwrap();
        let mut answer = [0; 12];
        next.read_exact(&mut answer).await.unwrap();
        if &answer == b"HTTP/1.1 200" {
            return;
        }
        assert_eq!(&answer, b"HTTP/1.1 503");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a feed that nobody reads keeps its place");
}

#[tokio::test]
async fn the_shutdown_does_not_wait_for_who_does_not_read() {
    let never = Duration::from_secs(3600);
    let config = ApiConfig {
        request_timeout: never,
        drain_timeout: never,
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    let _unread = unread_feed(&world, &served).await;
    served.stop.send(()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(60), served.ended);
    ended.await.expect("the service ends").unwrap().unwrap();
}
