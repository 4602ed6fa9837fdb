//! Clients that read slowly, or not at all, what they asked for: the first get all of it, the others are cut off, and no
//! answer is larger than a connection should hold.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use order_api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::raw::{get, read_to_end};
use crate::world::{Served, World, a_large_order, config};

/// What either side's kernel keeps of a connection, far less than an answer.
const BUFFER_BYTES: u32 = 16 * 1024;
/// Orders of some 17 KiB each, so that all of them are more than a page may hold.
const ORDERS: usize = 80;
/// As `PAGE_BYTES_MAX` of `list.rs`.
const PAGE_BYTES_MAX: usize = 1024 * 1024;
const ORDER_HEAD_BYTES_MAX: usize = 512;
const LIST: &str = "/orders?limit=200";

/// A service with more orders than a page holds, all of them in the rows.
async fn with_large_orders(config: ApiConfig) -> World {
    let world = World::with(config);
    let post = Request::post("/orders/bulk").header("content-type", "application/x-ndjson");
    let body = Body::from(format!("{}\n", a_large_order()).repeat(ORDERS));
    let answer = world.ask(post.body(body).unwrap()).await;
    let tokens: Vec<String> = answer
        .expect(StatusCode::OK)
        .text
        .lines()
        // A request takes so many of them, and they are of both partitions.
        .skip(ORDERS / 2)
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|outcome| outcome["sync_token"].as_str().unwrap().to_owned())
        .collect();
    let read = Request::get("/orders?limit=1").header("sync-token", tokens.join(","));
    world
        .ask(read.body(Body::empty()).unwrap())
        .await
        .expect(StatusCode::OK);
    world
}

pub(crate) fn serve_with_little_memory(world: &World) -> Served {
    let socket = TcpSocket::new_v4().unwrap();
    // What is accepted inherits it.
    socket.set_send_buffer_size(BUFFER_BYTES).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener: TcpListener = socket.listen(64).unwrap();
    world.serve_on(listener)
}

pub(crate) async fn connect_with_little_memory(served: &Served) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER_BYTES).unwrap();
    socket.connect(served.address).await.unwrap()
}

async fn ask_with_little_memory(served: &Served) -> TcpStream {
    let mut stream = connect_with_little_memory(served).await;
    stream.write_all(&get(LIST, "close")).await.unwrap();
    stream
}

/// Length of an answer's body as it should be and as it is.
fn lengths(answer: &[u8]) -> (usize, usize) {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head came");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .expect("the answer has a length");
    (length.parse().unwrap(), body.len())
}

#[tokio::test]
async fn a_page_of_large_orders_ends_early_and_leads_on() {
    let world = with_large_orders(config()).await;
    let mut path = Some(LIST.to_owned());
    let mut pages = Vec::new();
    while let Some(next) = path {
        let page = world.get(&next).await.expect(StatusCode::OK);
        let count = page.json()["orders"].as_array().unwrap().len();
        assert!(page.text.len() <= PAGE_BYTES_MAX + count * ORDER_HEAD_BYTES_MAX);
        path = page.next();
        pages.push(count);
    }
    assert_eq!(pages.iter().sum::<usize>(), ORDERS, "{pages:?}");
    assert_eq!(pages.len(), 2, "{pages:?}");
}

#[tokio::test]
async fn whoever_reads_slowly_gets_the_whole_answer() {
    /// Reads of this much, with this pause behind each, take twice the time that a client may do nothing.
    const READ_BYTES: u64 = 16 * 1024;
    const PAUSE: Duration = Duration::from_millis(100);
    const IDLE: Duration = Duration::from_secs(3);
    let config = ApiConfig {
        header_timeout: IDLE,
        ..config()
    };
    let world = with_large_orders(config).await;
    let served = serve_with_little_memory(&world);
    let mut stream = ask_with_little_memory(&served).await;
    let mut answer = Vec::new();
    let mut reads = 0;
    loop {
        let mut some = (&mut stream).take(READ_BYTES);
        if some.read_to_end(&mut answer).await.unwrap() == 0 {
            break;
        }
        reads += 1;
        tokio::time::sleep(PAUSE).await;
    }
    assert!(PAUSE * reads >= 2 * IDLE, "{reads} reads prove nothing");
    let (whole, came) = lengths(&answer);
    assert_eq!(came, whole);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let config = ApiConfig {
        header_timeout: Duration::from_secs(1),
        ..config()
    };
    let world = with_large_orders(config).await;
    let served = serve_with_little_memory(&world);
    let mut stream = ask_with_little_memory(&served).await;
    // It is answered: the first bytes are there.
    stream.readable().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !world
        .get("/metrics")
        .await
        .text
        .contains("\nhttp_connections_open 0\n")
    {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it is held for ever"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = read_to_end(&mut stream).await;
    let (whole, came) = lengths(answer.as_bytes());
    assert!(came < whole, "all {whole} bytes were in the buffers");
}
