//! Connections that are slow, broken or too many: none of them costs the others anything.

use std::process::Command;
use std::time::Duration;

use order_api::{ApiConfig, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

const GET: &[u8] = b"GET /livez HTTP/1.1\r\nhost: it\r\nconnection: close\r\n\r\n";

async fn assert_alive(served: &Served) {
    let answer = exchange(served, GET).await;
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
async fn a_connection_too_many_is_told_to_come_back() {
    let config = ApiConfig {
        connections_max: 1,
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    let mut first = connect(&served).await;
    first
        .write_all(b"GET /livez HTTP/1.1\r\nhost: it\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let refused = read_to_end(&mut connect(&served).await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    drop(first);
    loop {
        // The service learns of the closed connection in its own time.
        let answer = exchange(&served, GET).await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_forgotten() {
    let world = World::with(strict());
    let served = world.serve().await;
    let long_header = format!(
        "GET / HTTP/1.1\r\nhost: it\r\nx: {}\r\n\r\n",
        "y".repeat(100_000)
    );
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let cases: [&[u8]; 8] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nhost: it\r\ncontent-length: -1\r\n\r\n",
        b"POST /orders HTTP/1.1\r\nhost: it\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /orders HTTP/1.1\r\nhost: it\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\nzz\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
    ];
    for case in cases {
        let answer = exchange(&served, case).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(
            refused,
            "{:?}: {answer}",
            String::from_utf8_lossy(&case[..case.len().min(80)])
        );
        assert_alive(&served).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_knows_the_certificate_speaks_tls() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("LEFT OUT: `openssl` is not installed, so TLS was not tried");
        return;
    }
    let unfit = Tls::from_pem_files(&key, &certificate).expect_err("the files are swapped");
    assert!(unfit.to_string().contains("key.pem"), "{unfit}");
    let config = ApiConfig {
        tls: Some(Tls::from_pem_files(&certificate, &key).unwrap()),
        ..config()
    };
    let world = World::with(config);
    let served = world.serve().await;
    let curl = |trust: &[&std::ffi::OsStr]| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "--max-time", "20"]).args(trust);
        curl.arg(format!("https://localhost:{}/livez", served.address.port()));
        curl.arg("--resolve")
            .arg(format!("localhost:{}:127.0.0.1", served.address.port()));
        async move {
            tokio::task::spawn_blocking(move || curl.output().unwrap())
                .await
                .unwrap()
        }
    };
    let trusting = curl(&["--cacert".as_ref(), certificate.as_ref()]).await;
    assert_eq!(
        String::from_utf8_lossy(&trusting.stdout),
        "ok\n",
        "{trusting:?}"
    );
    assert!(
        !curl(&[]).await.status.success(),
        "a stranger's certificate is believed"
    );
    let plain = exchange(&served, GET).await;
    assert!(!plain.starts_with("HTTP/1.1 200"), "{plain}");
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
