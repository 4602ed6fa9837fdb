//! A thousand clients that do nothing but hold on: to half a head, to half a body, to a connection they do not use. What
//! everybody else asks is answered meanwhile, and in the end the service lets go of each of them.
//!
//! More of them: `ORDER_TESTS_SLOW_CLIENTS=3900 cargo test -p order-tests slow_clients`.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Client, an_order};
use crate::metrics::Metrics;
use crate::service::{PATIENCE, Service, binary};

const CLIENTS: usize = 1000;
/// How long the service waits for a head and for a body here.
const TIMEOUT_MS: &str = "10000";
/// How often a slow client sends another byte.
const TRICKLE: Duration = Duration::from_millis(500);

/// What a client holds on to.
#[derive(Debug, Clone, Copy)]
enum Hold {
    Head,
    Body,
    Idle,
}

impl Hold {
    fn first_bytes(self) -> &'static [u8] {
        match self {
            Self::Head => b"GET /livez HTTP/1.1\r\nhost: it\r\nx: ",
            Self::Body => {
                b"POST /orders HTTP/1.1\r\nhost: it\r\ncontent-type: application/json\r\n\
                  content-length: 10000\r\n\r\n{"
            }
            Self::Idle => b"GET /livez HTTP/1.1\r\nhost: it\r\n\r\n",
        }
    }

    /// Keeps the connection busy until the service closes it; what it was told.
    async fn until_closed(self, mut stream: TcpStream) -> Vec<u8> {
        let mut told = Vec::new();
        loop {
            tokio::select! {
                read = stream.read_buf(&mut told) => match read {
                    Ok(0) | Err(_) => return told,
                    Ok(_) => {}
                },
                () = tokio::time::sleep(TRICKLE) => {
                    let failed = match self {
                        Self::Idle => false,
                        Self::Head | Self::Body => stream.write_all(b"x").await.is_err(),
                    };
                    if failed {
                        return told;
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_slow_clients_harm_nobody_and_are_let_go() {
    let clients = std::env::var("ORDER_TESTS_SLOW_CLIENTS").map_or(CLIENTS, |count| {
        count.parse().expect("ORDER_TESTS_SLOW_CLIENTS is a number")
    });
    // As the service does for itself.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).expect("the limit may be raised to the highest allowed");

    let data = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(binary());
    for name in ["HEADER_TIMEOUT_MS", "REQUEST_TIMEOUT_MS"] {
        command.env(format!("ORDER_SERVICE__API__{name}"), TIMEOUT_MS);
    }
    let service = Service::start_as(command, data.path(), &[]);
    let client = Client::of(&service);

    let mut held = Vec::new();
    for number in 0..clients {
        let hold = [Hold::Head, Hold::Body, Hold::Idle][number % 3];
        let mut stream = TcpStream::connect(service.address())
            .await
            .expect("the service takes the connection");
        stream
            .write_all(hold.first_bytes())
            .await
            .expect("it takes the first bytes");
        held.push((hold, tokio::spawn(hold.until_closed(stream))));
    }
    let open = Metrics::of(&client).await.sum("process_open_fds");
    assert!(
        open >= clients as u64,
        "{open} of {clients} connections are open"
    );

    for _ in 0..50 {
        let placed = client.place(&an_order()).await;
        let read = client.order_after(&placed).await;
        assert_eq!(read.text, placed.text);
    }

    for (hold, task) in held {
        let told = tokio::time::timeout(PATIENCE, task)
            .await
            .unwrap_or_else(|_| panic!("{hold:?}: the service never lets go"))
            .expect("a client does not panic");
        let told = String::from_utf8_lossy(&told);
        match hold {
            Hold::Head => assert_eq!(told, "", "{hold:?}"),
            Hold::Body => assert!(told.starts_with("HTTP/1.1 408"), "{hold:?}: {told}"),
            Hold::Idle => assert!(told.starts_with("HTTP/1.1 200"), "{hold:?}: {told}"),
        }
    }
    client.place(&an_order()).await;
    assert!(service.terminate().success());
}
