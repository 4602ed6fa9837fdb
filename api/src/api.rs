//! What the API stands on, and its door: one service that answers every request, with what all answers share.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::Response;
use bytes::Bytes;
use order_command_workers::CommandWorkers;
use order_domain::OrderId;
use order_outbox::Outbox;
use order_projector_workers::{Offset, PartitionId, PartitionReader, ReadModel, ReadModelError};
use tokio::sync::{Semaphore, watch};
use tower::Service;

use crate::ApiConfig;
use crate::answer::{self, Answer, AnswerBody, X_REQUEST_ID};
use crate::auth::authorize;
use crate::connection_clock::{ConnectionClock, Phase};
use crate::connection_metrics::ConnectionMetrics;
use crate::dispatch::dispatch;
use crate::door::Door;
use crate::error::{Problem, ProblemKind};
use crate::feed::Feeds;
use crate::http_metrics::HttpMetrics;
use crate::lag::ReadModelLag;
use crate::projector::Projector;
use crate::readers::Readers;
use crate::reads::{WaitBounds, put_retry_after};
use crate::route::{MethodLabel, Route};
use crate::router::{not_found, router};
use crate::sync_token::{Seal, SyncToken, sync_tokens};
use crate::{query, request_headers};

/// One thing `/readyz?verbose` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// A short name without spaces.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the service should get no traffic while it is not.
    pub required: bool,
    /// What there is to say, in one line.
    pub detail: String,
}

/// What the API stands on; the wiring hands it in.
pub struct ApiParts {
    /// The write side, if it runs in this process.
    pub commands: Option<CommandWorkers>,
    /// The rows.
    pub read_model: Arc<ReadModel>,
    /// Who keeps the rows.
    pub projector: Projector,
    /// What tells the outside world, if it runs in this process.
    pub outbox: Option<Arc<Outbox>>,
    /// A reading end of every partition of the log, in the order of their numbers.
    pub log: Vec<Box<dyn PartitionReader>>,
    /// The log's identity: tokens and cursors are bound to it.
    pub log_id: String,
    /// The partition of an order.
    pub partition_of: Box<dyn Fn(OrderId) -> PartitionId + Send + Sync>,
    /// Where the metrics of all rooms are registered; `/metrics` shows it.
    pub registry: prometheus::Registry,
    /// What `/readyz?verbose` tells beside the checks: name and value (`durability`, `store`, `version`, …).
    pub facts: Vec<(String, String)>,
    /// Further checks of the wiring, asked at each `/readyz`. Must not block.
    pub checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

impl fmt::Debug for ApiParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiParts")
            .field("partitions", &self.log.len())
            .field("log_id", &self.log_id)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Why the API could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A reader of the read model could not be opened.
    #[error("a reader of the read model cannot be opened: {0}")]
    Readers(#[from] ReadModelError),
    /// A thread could not be started.
    #[error("a reader thread cannot be started: {0}")]
    Threads(#[from] std::io::Error),
    /// A metric could not be registered.
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What all handlers share.
pub(crate) struct Shared {
    commands: Option<CommandWorkers>,
    pub(crate) read_model: Arc<ReadModel>,
    pub(crate) projector: Projector,
    pub(crate) outbox: Option<Arc<Outbox>>,
    pub(crate) log: Arc<[Box<dyn PartitionReader>]>,
    /// How far the rows are behind, by partition.
    pub(crate) lag: Arc<ReadModelLag>,
    pub(crate) partition_of: Box<dyn Fn(OrderId) -> PartitionId + Send + Sync>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
    pub(crate) readers: Readers,
    pub(crate) feeds: Feeds,
    /// A permit a bulk request that may be open.
    pub(crate) bulk_places: Arc<Semaphore>,
    pub(crate) seal: Seal,
    /// Of the log before it was rewritten: good for nothing but a clear answer.
    pub(crate) former_seals: Vec<Seal>,
    pub(crate) config: ApiConfig,
    pub(crate) waits: WaitBounds,
    http_metrics: HttpMetrics,
    pub(crate) connection_metrics: ConnectionMetrics,
    request_ids: RequestIds,
    /// Whether `/readyz` turns traffic away ahead of the shutdown.
    turning_away: AtomicBool,
    stopping: watch::Sender<bool>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Offset after the last record of a partition that a client may know of: what readers of the log can see, and what
    /// was acknowledged before it was synced.
    pub(crate) fn known_end(&self, partition: PartitionId) -> Offset {
        let Some(reader) = self.log.get(partition.index()) else {
            return Offset::ZERO;
        };
        let acknowledged = self.commands.as_ref().map_or(Offset::ZERO, |commands| {
            commands.acknowledged_end(partition)
        });
        acknowledged.max(reader.durable_end())
    }

    /// The places in the log that a request's `Sync-Token`s name.
    ///
    /// # Errors
    /// A problem if one of them is none of this log.
    pub(crate) fn sync_tokens(&self, headers: &HeaderMap) -> Result<Vec<SyncToken>, Problem> {
        sync_tokens(headers, self.seal, &self.former_seals, self.log.len())
    }

    /// The write side.
    ///
    /// # Errors
    /// A problem if it is not this process's; the listeners of such a process do not serve commands.
    pub(crate) fn commands(&self) -> Result<&CommandWorkers, Problem> {
        self.commands
            .as_ref()
            .ok_or_else(|| Problem::new(ProblemKind::NotFound, "this process takes no commands"))
    }

    /// An id for a request that has none.
    pub(crate) fn next_request_id(&self) -> HeaderValue {
        self.request_ids.next()
    }

    /// Whether the service should get no traffic because it stops, now or soon.
    pub(crate) fn is_turning_away(&self) -> bool {
        self.turning_away.load(Ordering::Relaxed) || self.is_stopping()
    }

    /// Whether connections are to end with the answer at hand, while there is time: the service stops soon.
    pub(crate) fn is_taking_leave(&self) -> bool {
        self.turning_away.load(Ordering::Relaxed)
    }

    /// Whether the shutdown signal came.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Becomes `true` with the shutdown signal.
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    /// Completes with the shutdown signal.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping();
        // The sender is a field of `self`: it cannot be gone.
        let _stopped = stopping.wait_for(|stopping| *stopping).await;
    }

    /// The shutdown signal came.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }
}

/// The API as a service: cheap to clone, shared by all connections.
#[derive(Debug, Clone)]
pub struct Api {
    pub(crate) shared: Arc<Shared>,
    router: Router,
}

impl Api {
    /// Registers the metrics and starts the reader threads. Answers requests from then on, through [`crate::serve`] or
    /// as a `tower::Service`.
    ///
    /// # Errors
    /// [`StartError`] if a reader, a thread or a metric cannot be made.
    pub fn new(parts: ApiParts, config: ApiConfig) -> Result<Self, StartError> {
        let log: Arc<[Box<dyn PartitionReader>]> = parts.log.into();
        let lag = Arc::new(ReadModelLag::new(log.len()));
        let readers = Readers::start(
            config.reader_threads,
            config.reads_queued_max,
            &parts.read_model,
            &log,
            &lag,
        )?;
        // Clients that repeat a command have to know how long that is safe.
        let retention = parts.commands.is_some().then(|| {
            let seconds = config.idempotency_retention.as_secs();
            (
                "idempotency_retention_seconds".to_owned(),
                seconds.to_string(),
            )
        });
        let shared = Arc::new(Shared {
            http_metrics: HttpMetrics::register(&parts.registry)?,
            connection_metrics: ConnectionMetrics::register(&parts.registry)?,
            commands: parts.commands,
            lag,
            read_model: parts.read_model,
            projector: parts.projector,
            outbox: parts.outbox,
            log,
            partition_of: parts.partition_of,
            registry: parts.registry,
            facts: parts.facts.into_iter().chain(retention).collect(),
            checks: parts.checks,
            readers,
            feeds: Feeds::new(),
            bulk_places: Arc::new(Semaphore::new(config.bulk_requests_max)),
            seal: Seal::of_log(&parts.log_id),
            former_seals: config
                .former_log_ids
                .iter()
                .map(|id| Seal::of_log(id))
                .collect(),
            waits: WaitBounds::of(&config),
            config,
            request_ids: RequestIds::new(),
            turning_away: AtomicBool::new(false),
            stopping: watch::Sender::new(false),
        });
        let router = router(Arc::clone(&shared));
        Ok(Self { shared, router })
    }

    /// Says "not ready" from now on, and serves on: whoever routes requests here gets the time to route them elsewhere
    /// before [`crate::serve`] takes no more.
    pub fn turn_traffic_away(&self) {
        self.shared.turning_away.store(true, Ordering::Relaxed);
    }

    /// A clock for a connection opened now, which has `head` for the head of a request.
    pub(crate) fn connection_clock(&self, head: Duration) -> ConnectionClock {
        ConnectionClock::new(head, self.shared.config.request_timeout)
    }

    /// Answers one request: routed, timed, counted, with its id.
    pub(crate) async fn answer<B>(
        mut self,
        mut request: axum::http::Request<B>,
        door: Door,
        clock: Arc<ConnectionClock>,
    ) -> Result<Answer, Infallible>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError> + fmt::Display,
    {
        let started = Instant::now();
        clock.begin_request(started);
        let route = Route::of(request.uri().path());
        let route = if door.endpoints.include(route) {
            route
        } else {
            Route::Unmatched
        };
        let method = MethodLabel::of(request.method());
        let request_id = match request_headers::request_id(request.headers()) {
            Some(id) => id.clone(),
            None => self.shared.next_request_id(),
        };
        // Needed for problems alone, but the request is gone by then. Cloning a path copies no text.
        let uri = request.uri().clone();

        let shared = &self.shared;
        let allowed = authorize(
            &shared.config.tokens,
            route,
            request.method(),
            request.headers(),
        );
        let allowed = allowed.and_then(|caller| {
            if uri.query().is_some() && route.takes_no_query(method) {
                query::refuse_any(&uri)?;
            }
            Ok(caller)
        });
        let answered = match allowed {
            _ if !door.admits(route) => Err(Problem::new(
                ProblemKind::Overloaded,
                "the service has as many connections as it takes",
            )),
            Err(problem) => Err(problem),
            Ok(_) if route == Route::Unmatched => Err(not_found(uri.clone()).await),
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                if route == Route::OrdersBulk {
                    let id = AnsweredAs(request_id.clone());
                    request.extensions_mut().insert(id);
                }
                let asked = (route, method);
                let mut answer = pin!(dispatch(shared, &mut self.router, &clock, asked, request));
                poll_fn(|context| match overdue(&clock, method) {
                    Some(problem) => Poll::Ready(Err(problem)),
                    None => answer.as_mut().poll(context),
                })
                .await
            }
        };

        let mut answer = match answered {
            Ok(mut answer) if answer.status().as_u16() >= 400 => {
                // What the router refused has its problem beside it.
                if let Some(problem) = answer.extensions_mut().remove::<Problem>() {
                    write_problem(&mut answer, &problem, &uri, &request_id);
                }
                answer
            }
            Ok(answer) => answer,
            Err(problem) => {
                let mut answer = Answer::new(AnswerBody::EMPTY);
                *answer.status_mut() = problem.kind().status();
                write_problem(&mut answer, &problem, &uri, &request_id);
                answer
            }
        };
        let status = answer.status();
        let read = matches!(method, MethodLabel::Get | MethodLabel::Head);
        if read && !route.tells_caches() {
            answer::put_no_store(&mut answer);
        }
        answer.headers_mut().insert(X_REQUEST_ID, request_id);
        let ended = Instant::now();
        clock.end_request(ended);
        shared
            .http_metrics
            .observe(route, method, status, ended - started);
        Ok(answer)
    }
}

/// The id that a request is answered with: for those whose answer tells of problems line by line.
#[derive(Debug, Clone)]
pub(crate) struct AnsweredAs(pub(crate) HeaderValue);

/// What a request whose time is over is answered with.
fn overdue(clock: &ConnectionClock, method: MethodLabel) -> Option<Problem> {
    match clock.phase() {
        Phase::BodyOverdue => Some(Problem::new(
            ProblemKind::RequestTimeout,
            "the body took too long to arrive",
        )),
        Phase::WorkOverdue => Some(Problem::new(
            ProblemKind::Timeout,
            match method {
                MethodLabel::Get | MethodLabel::Head => "the read took too long: ask again",
                _ => {
                    "a command may have been kept all the same: ask again with the same Idempotency-Key, or read the \
                     order"
                }
            },
        )),
        _ => None,
    }
}

/// Fills the answer of a problem, here where the path and the request's id are known.
#[cold]
fn write_problem(response: &mut Answer, problem: &Problem, uri: &Uri, request_id: &HeaderValue) {
    let request_id = request_id.to_str().unwrap_or_default();
    problem.log(request_id);
    let mut json = Vec::new();
    problem.write_json(uri.path(), request_id, &mut json);
    *response.body_mut() = AnswerBody::from(json);
    // The router has counted the empty body that this one replaces.
    response.headers_mut().remove(CONTENT_LENGTH);
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    // What was refused now may be allowed in a moment.
    answer::put_no_store(response);
    for (name, value) in problem.headers() {
        response.headers_mut().insert(name, value.clone());
    }
    if let Some(after) = problem.retry_after() {
        put_retry_after(response, after);
    }
    if let Some(version) = problem.current_version() {
        response
            .headers_mut()
            .insert(ETAG, answer::entity_tag(version));
    }
}

/// Ids for requests that come without one: unique within the process by a count, between processes by chance.
#[derive(Debug)]
struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    fn new() -> Self {
        let (process, _) = uuid::Uuid::now_v7().as_u64_pair();
        let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
        Self {
            process: process ^ random,
            next: AtomicU64::new(0),
        }
    }

    fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; 32];
        hex(self.process, &mut text[..16]);
        hex(number, &mut text[16..]);
        let text = Bytes::copy_from_slice(&text);
        HeaderValue::from_maybe_shared(text).expect("hexadecimal digits are printable")
    }
}

fn hex(number: u64, into: &mut [u8]) {
    for (place, digit) in into.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * place) & 15) as usize];
    }
}

/// One request as its own connection: for tests, and for whoever brings a server of their own.
impl<B> Service<axum::http::Request<B>> for Api
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError> + fmt::Display,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<B>) -> Self::Future {
        let clock = Arc::new(self.connection_clock(self.shared.config.header_timeout));
        let answer = self.clone().answer(request, Door::OPEN, clock);
        Box::pin(async move { Ok(answer.await?.map(AnswerBody::into_axum)) })
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
