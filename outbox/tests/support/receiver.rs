//! A target on the loopback: remembers what it was sent, and answers, hangs, drops or lies as told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self
            .headers
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        value.to_str().unwrap()
    }

    pub(crate) fn data(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// With this status, a header if there is one, and a body.
    Status(u16, Option<(&'static str, String)>, &'static str),
    /// Never.
    Hang,
    /// By closing the connection.
    Drop,
    /// With these bytes, whatever they are, and then silence.
    Bytes(&'static [u8]),
    /// With headers without end.
    HeadersForEver,
}

impl Reply {
    pub(crate) const OK: Self = Self::Status(200, None, "");

    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, None, "")
    }
}

/// Runs on a thread of its own until dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    /// Starts on a free port.
    pub(crate) fn start(reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), reply)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (stop, stopped) = oneshot::channel();
        let (bound, at) = std::sync::mpsc::channel();
        let thread = std::thread::spawn({
            let (seen, connections) = (Arc::clone(&seen), Arc::clone(&connections));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async move {
                    let listener = TcpListener::bind(address).await.unwrap();
                    bound.send(listener.local_addr().unwrap()).unwrap();
                    let serving = serve(listener, seen, connections, Arc::new(reply));
                    tokio::select! {
                        _ = stopped => {}
                        () = serving => {}
                    }
                });
            }
        });
        Self {
            address: at.recv().unwrap(),
            seen,
            connections,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// What arrived so far, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// How many requests arrived so far.
    pub(crate) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// How often it was connected to.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

type Replies = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

async fn serve(
    listener: TcpListener,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    replies: Replies,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        *connections.lock().unwrap() += 1;
        let (seen, replies) = (Arc::clone(&seen), Arc::clone(&replies));
        tokio::spawn(connection(stream, seen, replies));
    }
}

/// Serves requests over HTTP until one is to be answered in raw bytes.
async fn connection(stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, replies: Replies) {
    let stream = stream.into_std().unwrap();
    let mut raw = TcpStream::from_std(stream.try_clone().unwrap()).unwrap();
    let io = TokioIo::new(TcpStream::from_std(stream).unwrap());
    let raw_reply = Arc::new(Mutex::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let (seen, replies, raw_reply) = (
            Arc::clone(&seen),
            Arc::clone(&replies),
            Arc::clone(&raw_reply),
        );
        async move {
            let (head, body) = request.into_parts();
            let request = Seen {
                path: head.uri.path().to_owned(),
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            };
            let reply = replies(&request);
            seen.lock().unwrap().push(request);
            match reply {
                Reply::Status(status, header, body) => {
                    let mut response = Response::builder().status(status);
                    if let Some((name, value)) = header {
                        response = response.header(name, value);
                    }
                    Ok::<_, Infallible>(
                        response
                            .body(Full::new(Bytes::from_static(body.as_bytes())))
                            .unwrap(),
                    )
                }
                raw => {
                    *raw_reply.lock().unwrap() = Some(raw);
                    // The connection is taken over below; this answer is never waited for.
                    std::future::pending().await
                }
            }
        }
    });
    let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    tokio::pin!(serving);
    let reply = loop {
        tokio::select! {
            _ = &mut serving => return,
            () = tokio::time::sleep(Duration::from_millis(1)) => {
                if let Some(reply) = raw_reply.lock().unwrap().take() {
                    break reply;
                }
            }
        }
    };
    match reply {
        Reply::Status(..) => unreachable!("answered above"),
        Reply::Drop => {}
        Reply::Hang => std::future::pending().await,
        Reply::Bytes(bytes) => {
            raw.write_all(bytes).await.unwrap();
            std::future::pending::<()>().await;
        }
        Reply::HeadersForEver => {
            if raw.write_all(b"HTTP/1.1 200 OK\r\n").await.is_ok() {
                while raw
                    .write_all(b"x-more: and more and more and more\r\n")
                    .await
                    .is_ok()
                {}
            }
        }
    }
}
