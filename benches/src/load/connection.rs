//! One keep-alive connection: one request at a time, made again when it breaks.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Target;

/// Largest answer that is read: an order of the most lines is a tenth of it.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NoAnswer {
    /// No connection could be made.
    Connect,
    /// The connection broke, or what came was not HTTP.
    Broken,
    /// It took too long. The connection is given up: its answer may still come.
    TimedOut,
}

impl NoAnswer {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "no-connection",
            Self::Broken => "connection-broken",
            Self::TimedOut => "timed-out",
        }
    }
}

/// What is to be sent; `Host` is added, and `Authorization` if the target has one.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query behind the target's base.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    /// JSON, unless the headers say otherwise.
    pub(super) body: Option<Vec<u8>>,
}

/// A connection to a target.
#[derive(Debug)]
pub(super) struct Connection {
    target: Target,
    timeout: Duration,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Connects when the first request is sent.
    pub(super) fn new(target: Target, timeout: Duration) -> Self {
        Self {
            target,
            timeout,
            sender: None,
        }
    }

    /// Connects now, so that the first request need not.
    pub(super) async fn connect(&mut self) -> anyhow::Result<()> {
        let stream = tokio::time::timeout(self.timeout, TcpStream::connect(self.target.address))
            .await
            .context("connecting takes too long")?
            .with_context(|| format!("connect to {}", self.target.address))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The connection's end shows in the next request on it.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        self.sender = Some(sender);
        Ok(())
    }

    /// Sends one request and reads the whole answer.
    pub(super) async fn send(&mut self, ask: Ask) -> Result<Answer, NoAnswer> {
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            self.connect().await.map_err(|_| NoAnswer::Connect)?;
        }
        let request = self.request(ask).map_err(|_| NoAnswer::Broken)?;
        // Taken out, so that a connection with an unread answer is never used again.
        let mut sender = self.sender.take().ok_or(NoAnswer::Connect)?;
        let answer = tokio::time::timeout(self.timeout, async {
            sender.ready().await.map_err(|_| NoAnswer::Broken)?;
            let response = sender
                .send_request(request)
                .await
                .map_err(|_| NoAnswer::Broken)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|_| NoAnswer::Broken)?
                .to_bytes();
            Ok(Answer {
                status: head.status,
                headers: head.headers,
                body,
            })
        })
        .await
        .map_err(|_| NoAnswer::TimedOut)??;
        self.sender = Some(sender);
        Ok(answer)
    }

    fn request(&self, ask: Ask) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(format!("{}{}", self.target.base, ask.path))
            .header(HOST, &self.target.host);
        if let Some(authorization) = &self.target.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let names_its_type = ask.headers.iter().any(|(name, _)| CONTENT_TYPE == *name);
        for (name, value) in ask.headers {
            request = request.header(name, value);
        }
        if ask.body.is_some() && !names_its_type {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        Ok(request.body(Full::new(ask.body.unwrap_or_default().into()))?)
    }
}

/// How long a single look at a service may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// `GET` on a connection of its own: for looking at a service, not for load.
///
/// # Errors
/// If there is no answer.
pub async fn fetch(target: &Target, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let ask = Ask {
        method: Method::GET,
        path: path.to_owned(),
        headers: Vec::new(),
        body: None,
    };
    let answer = Connection::new(target.clone(), FETCH_TIMEOUT)
        .send(ask)
        .await
        .map_err(|reason| anyhow::anyhow!("GET {path}: {}", reason.name()))?;
    Ok((answer.status, answer.body))
}
