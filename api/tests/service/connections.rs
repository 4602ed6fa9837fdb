//! Connections that are slow, broken or too many: none of them costs the others anything.

use std::time::Duration;

use axum::http::StatusCode;
use order_api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::raw::{assert_alive, connect, exchange, get, read_to_end, strict};
use crate::world::{Served, World, a_large_order, an_order, config};

/// Most tries for what should happen by itself.
const ATTEMPTS: usize = 1000;

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
async fn a_service_that_turns_traffic_away_ends_its_connections_with_their_next_answer() {
    let world = World::new();
    let served = world.serve().await;
    let mut stream = connect(&served).await;
    let request = b"GET /livez HTTP/1.1\r\nhost: it\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    let kept = String::from_utf8_lossy(&answer[..length]).to_ascii_lowercase();
    assert!(!kept.contains("connection: close"), "{kept}");

    world.api.turn_traffic_away();

    stream.write_all(request).await.unwrap();
    let last = read_to_end(&mut stream).await.to_ascii_lowercase();
    assert!(last.starts_with("http/1.1 200"), "{last}");
    assert!(last.contains("connection: close"), "{last}");
    assert_alive(&served).await;
}

#[tokio::test]
async fn when_clients_take_every_connection_probes_and_operators_still_get_in() {
    let config = ApiConfig {
        connections_max: 1,
        ..config()
    };
    let world = World::with(config);
    // Ready, whatever else the machine has to do.
    world.place().await;
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
        let mut first = [0; 1];
        let told = tokio::time::timeout(Duration::from_millis(20), stream.read_exact(&mut first));
        if told.await.is_ok() {
            let answer = format!("H{}", read_to_end(&mut stream).await);
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
            let length = format!("content-length: {}\r\n", body.len());
            assert!(format!("{head}\r\n").contains(&length), "{head}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["code"], "overloaded");
            assert_eq!(problem["instance"], "/");
            let id = problem["request_id"].as_str().unwrap();
            assert!(head.contains(&format!("x-request-id: {id}\r\n")), "{head}");
            assert!(head.contains("retry-after: 1\r\n"), "{head}");
            let metrics = world.get("/metrics").await.text;
            assert!(metrics.contains("\nhttp_connections_refused_total 1\n"));
            let open = format!("\nhttp_connections_open {}\n", silent.len());
            assert!(metrics.contains(&open), "{open} is not in {metrics}");
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
