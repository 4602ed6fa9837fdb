//! A target of the `webhook` sink that hangs, fails or answers as it is told to, and remembers what it took.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often a hanging answer looks whether it is told otherwise.
const LOOK: Duration = Duration::from_millis(5);
/// A status that stands for no answer at all.
const HANG: u16 = 0;

/// One delivery: the event's id and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) id: String,
    pub(super) status: u16,
}

/// Listens until the test's process ends.
pub(super) struct Target {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    seen: Arc<Mutex<Vec<Delivery>>>,
}

impl Target {
    /// A target that takes requests and never answers.
    pub(super) fn hanging() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let status = Arc::new(AtomicU16::new(HANG));
        let seen = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let (status, seen) = (Arc::clone(&status), Arc::clone(&seen));
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (status, seen) = (Arc::clone(&status), Arc::clone(&seen));
                    // A connection that breaks off concerns itself alone.
                    std::thread::spawn(move || answer_all(stream, &status, &seen).ok());
                }
            }
        });
        Self {
            address,
            status,
            seen,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// From now on requests, hanging ones included, are answered with `status`.
    pub(super) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What was answered so far, in order.
    pub(super) fn seen(&self) -> Vec<Delivery> {
        self.seen.lock().expect("nobody panics with it").clone()
    }
}

/// Answers the requests of a connection until it ends.
fn answer_all(
    stream: TcpStream,
    status: &AtomicU16,
    seen: &Mutex<Vec<Delivery>>,
) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(id) = request(&mut reader)? {
        let status = loop {
            match status.load(Ordering::SeqCst) {
                HANG => std::thread::sleep(LOOK),
                status => break status,
            }
        };
        seen.lock()
            .expect("nobody panics with it")
            .push(Delivery { id, status });
        write!(
            writer,
            "HTTP/1.1 {status} told\r\ncontent-length: 0\r\n\r\n"
        )?;
    }
    Ok(())
}

/// Reads one request; its `webhook-id`, or `None` at the end of the connection.
fn request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let (mut id, mut length) = (String::new(), 0);
    let mut begun = false;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end();
        if line.is_empty() && begun {
            break;
        }
        begun = true;
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "webhook-id" => value.trim().clone_into(&mut id),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    Ok(Some(id))
}
