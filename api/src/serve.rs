//! The accept loop: connections capped, slow ones cut off, drained on shutdown within a bound.
//!
//! Its own loop, because `axum::serve` arms no timeout: a client that sends half a head would hold its connection for
//! ever.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Api;
use crate::answer_stream::AnswerStream;
use crate::door::{Admission, Doorkeeper, RESERVED_HEAD_TIMEOUT};
use crate::farewell::{read_on, refuse};
use crate::request_body::RequestBody;
use crate::route::Route;
use crate::tls::Tls;

/// Most bytes of a request's head and of what is buffered of its body at once.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// How long to pause when the process has no descriptor left for a connection: others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Most connections at once that are told that there is no place for them; more are closed without a word.
const REFUSALS_MAX: usize = 64;

/// Which endpoints a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// All of them.
    All,
    /// All but the operators': those are not found here.
    Public,
    /// The operators' alone, with health and metrics.
    Admin,
    /// The projections', with health and metrics: of a process that projects and does nothing else.
    Projector,
}

impl Endpoints {
    /// Whether a route is among them.
    pub(crate) const fn include(self, route: Route) -> bool {
        match self {
            Self::All => true,
            Self::Public => !route.is_for_operators(),
            Self::Admin => route.is_for_operators() || route.is_for_machines(),
            Self::Projector => route.is_of_projections() || route.is_for_machines(),
        }
    }
}

/// Where connections come in, and what is served to them.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: TcpListener,
    /// What is served there.
    pub endpoints: Endpoints,
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self {
            socket,
            endpoints: Endpoints::All,
        }
    }
}

/// Serves `api` on every listener until `shutdown` completes; then answers "not ready", takes no new connection, lets
/// open requests finish within [`crate::ApiConfig::drain_timeout`], and returns.
///
/// # Errors
/// If a task that accepts connections panicked: a bug, reported as an error so that the process can end in order.
pub async fn serve(
    listeners: Vec<impl Into<Listener>>,
    api: Api,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(api.shared.config.connections_max));
    let mut acceptors = JoinSet::new();
    if let Some(tls) = &api.shared.config.tls {
        acceptors.spawn(keep_renewed(tls.clone(), api.clone()));
    }
    for listener in listeners {
        acceptors.spawn(accept(listener.into(), api.clone(), Arc::clone(&slots)));
    }
    let failed = {
        let mut shutdown = pin!(shutdown);
        poll_fn(|context| {
            if shutdown.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            acceptors.poll_join_next(context)
        })
        .await
    };
    api.shared.stop();
    let deadline = tokio::time::Instant::now() + api.shared.config.drain_timeout;
    let mut result = failed.unwrap_or(Ok(()));
    // Every acceptor drains its own connections; when the time is over, what is open is cut off with its task.
    let drained = tokio::time::timeout_at(deadline, async {
        while let Some(ended) = acceptors.join_next().await {
            result = result.and(ended);
        }
        result.map_err(io::Error::other)
    });
    drained.await.unwrap_or_else(|_| {
        tracing::warn!(
            "requests were still open when the time to drain was over; they are cut off"
        );
        Ok(())
    })
}

/// Looks for another certificate from time to time, until the service stops.
async fn keep_renewed(tls: Tls, api: Api) {
    let every = api.shared.config.certificate_look_every;
    let mut stopped = pin!(api.shared.stopped());
    loop {
        tokio::select! {
            biased;
            () = &mut stopped => return,
            () = tokio::time::sleep(every) => {}
        }
        let looking = tls.clone();
        match tokio::task::spawn_blocking(move || looking.renew()).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!("the certificate was renewed: new connections get it"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the certificate cannot be renewed; the old one stays");
            }
            Err(error) => tracing::error!(%error, "looking for another certificate panicked"),
        }
    }
}

/// Accepts until the service stops, then waits for the connections it accepted.
async fn accept(listener: Listener, api: Api, slots: Arc<Semaphore>) {
    let Listener {
        socket: listener,
        endpoints,
    } = listener;
    let metrics = api.shared.connection_metrics.clone();
    let doorkeeper = Doorkeeper::new(endpoints, &slots, metrics);
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    let speaks_tls = api.shared.config.tls.is_some();
    let mut stopped = pin!(api.shared.stopped());
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = &mut stopped => break,
            // Ended connections are taken out as they end: the set holds the open ones alone.
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_of_one_connection(&error) => continue,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted for now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        match doorkeeper.admit() {
            Some(admission) => {
                drop(connections.spawn(serve_connection(stream, admission, api.clone())))
            }
            // A client that waits for a handshake would not understand the refusal.
            None if speaks_tls => drop(stream),
            None => {
                if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                    let api = api.clone();
                    connections.spawn(async move {
                        refuse(stream, &api.shared).await;
                        drop(place);
                    });
                }
            }
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task ended by a panic");
    }
}

/// Whether an error of `accept` concerns the connection that was to be accepted, and not the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Serves one connection until it ends, is too slow, or the service stops.
async fn serve_connection(stream: TcpStream, admission: Admission, api: Api) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "the connection ended before it began");
        return;
    }
    let Some(tls) = &api.shared.config.tls else {
        return speak_http(stream, admission, &api).await;
    };
    let limit = head_timeout(&admission, &api);
    let greeted = tokio::select! {
        biased;
        () = api.shared.stopped() => return,
        greeted = tokio::time::timeout(limit, tls.accept(stream)) => greeted,
    };
    match greeted {
        Ok(Ok(stream)) => speak_http(stream, admission, &api).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_elapsed) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// How long a connection may take for the head of a request.
fn head_timeout(admission: &Admission, api: &Api) -> Duration {
    let configured = api.shared.config.header_timeout;
    if admission.door.reserved {
        configured.min(RESERVED_HEAD_TIMEOUT)
    } else {
        configured
    }
}

/// Speaks HTTP on an open stream until it ends; the place it takes is free again on return.
async fn speak_http<S>(mut stream: S, admission: Admission, api: &Api)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let door = admission.door;
    let limit = head_timeout(&admission, api);
    let clock = Arc::new(api.connection_clock(limit));
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let request = request.map(|body| RequestBody::new(body, Arc::clone(&clock)));
        let answer = api.clone().answer(request, door, Arc::clone(&clock));
        let clock = &clock;
        async move {
            let mut answer = answer.await?;
            // It ends with this answer: a client must not put its next request on it.
            if clock.has_unread() || api.shared.is_taking_leave() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(CONNECTION, close);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let ended = {
        let mut connection = pin!(
            http1::Builder::new()
            .max_buf_size(READ_BUFFER_BYTES)
            // The connection's clock does this job for heads, bodies and answers alike.
            .header_read_timeout(None)
            .keep_alive(!door.reserved)
            .serve_connection(
                TokioIo::new(AnswerStream::new(&mut stream, Arc::clone(&clock))),
                service
            )
        );
        let mut stopped = pin!(api.shared.stopped());
        let mut timer = pin!(tokio::time::sleep(limit));
        let mut stops = false;
        poll_fn(|context| {
            if !stops && stopped.as_mut().poll(context).is_ready() {
                stops = true;
                connection.as_mut().graceful_shutdown();
                let now = Instant::now();
                clock.stop(now);
                timer.as_mut().reset((now + clock.left(now)).into());
            }
            loop {
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(Some(ended));
                }
                let mut told = false;
                // Only a timer that fires looks at the clock, and is then set to what the clock says.
                while timer.as_mut().poll(context).is_ready() {
                    let now = Instant::now();
                    let left = clock.left(now);
                    if !left.is_zero() {
                        timer.as_mut().reset((now + left).into());
                    } else if clock.expire(now) {
                        timer.as_mut().reset((now + clock.left(now)).into());
                        told = true;
                    } else {
                        return Poll::Ready(None);
                    }
                }
                // A request that was told its time is over answers when it is polled again.
                if !told {
                    return Poll::Pending;
                }
            }
        })
        .await
    };
    let still_sends = match ended {
        // It had its time.
        None => false,
        Some(Ok(())) => clock.has_unread(),
        Some(Err(error)) => {
            tracing::debug!(%error, "a connection ended in an error");
            // A head that cannot be read was answered, wherever it ends.
            error.is_parse() || error.is_parse_too_large()
        }
    };
    if still_sends {
        read_on(&mut stream, limit, api.shared.stopped()).await;
    }
}
