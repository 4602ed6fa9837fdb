//! Connections without a client's help: bytes out, bytes in.

use std::time::Duration;

use order_api::ApiConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Served, config};

/// Limits small enough to meet, and long enough for a machine that has much else to do.
pub(crate) fn strict() -> ApiConfig {
    ApiConfig {
        header_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(2),
        drain_timeout: Duration::from_secs(20),
        ..config()
    }
}

pub(crate) async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.address).await.unwrap()
}

/// Sends bytes, and reads until the service closes.
pub(crate) async fn exchange(served: &Served, bytes: &[u8]) -> String {
    let mut stream = connect(served).await;
    stream.write_all(bytes).await.unwrap();
    read_to_end(&mut stream).await
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
    match read.await.expect("the service closes the connection") {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn get(path: &str, connection: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: it\r\nconnection: {connection}\r\n\r\n").into_bytes()
}

pub(crate) async fn assert_alive(served: &Served) {
    let answer = exchange(served, &get("/livez", "close")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
