//! `POST /orders/bulk`: a new order a line, streamed in, and what came of each streamed out, in the same order.
//!
//! Memory is bounded by the lines in flight and their bytes, whatever the length of the request: when that many wait for
//! their outcome, no more is read. A client must therefore read answers while it sends; one that does not is cut off. Where the command
//! workers have too much to do, lines wait here for a while, and with them the stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use order_command_workers::{CommandOutcome, CommandRequest, IdempotencyRequest, Target};
use order_domain::Idempotency;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::api::{AnsweredAs, Shared};
use crate::body::refuse_coding;
use crate::bulk_lines::{Line, Lines};
use crate::conditions::expected_versions;
use crate::connection_clock::ConnectionClock;
use crate::error::{Problem, ProblemKind};
use crate::order_body::{PlaceOrderBody, parse};
use crate::request_headers;
use crate::sync_token::SyncToken;
use crate::writes::key_required;

/// How long a line waits before it asks again for room in a queue: at first about as long as a batch takes, then longer.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(320));
/// Most bytes of a request's lines in flight: a thousand lines of the largest size would be a quarter of a gigabyte.
const BYTES_IN_FLIGHT_MAX: usize = 4 * 1024 * 1024;
/// Most answers written at once.
const ANSWERS_A_CHUNK: usize = 256;
/// What a line's idempotency key needs behind the request's: a separator and the longest number.
const KEY_SUFFIX_CHARACTERS: usize = 21;

/// `POST /orders/bulk`
pub(crate) async fn orders(
    State(shared): State<Arc<Shared>>,
    Extension(clock): Extension<Arc<ConnectionClock>>,
    request: Request,
) -> Result<Response, Problem> {
    if !request.headers().get(CONTENT_TYPE).is_some_and(is_ndjson) {
        return Err(Problem::new(
            ProblemKind::UnsupportedMediaType,
            "send orders as Content-Type: application/x-ndjson, one JSON object a line",
        ));
    }
    refuse_coding(request.headers())?;
    let if_match = expected_versions(request.headers())?;
    let key = request_headers::idempotency_key(request.headers())?;
    if let Some(key) = &key
        && key.len() + KEY_SUFFIX_CHARACTERS > Idempotency::KEY_CHARACTERS_MAX
    {
        return Err(Problem::new(
            ProblemKind::InvalidHeader,
            format!(
                "Idempotency-Key has more than {} characters, the most for a bulk request",
                Idempotency::KEY_CHARACTERS_MAX - KEY_SUFFIX_CHARACTERS
            ),
        ));
    }
    if key.is_none() && shared.config.require_idempotency_key {
        return Err(key_required());
    }
    if_match.of_a_new_order()?;
    let room = Arc::clone(&shared.bulk_places).try_acquire_owned();
    let room = room.map_err(|_| {
        let open = shared.config.bulk_requests_max;
        Problem::new(
            ProblemKind::Overloaded,
            format!("{open} bulk requests are open"),
        )
    })?;
    let request_id = request_headers::request_id(request.headers());
    let context = Arc::new(LineContext {
        key: key.map(|key| Idempotency::kept_key(request.extensions().get().copied(), &key)),
        traceparent: request_headers::traceparent(request.headers()).map(str::to_owned),
        request_id: request_id
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned),
        answered_as: request
            .extensions()
            .get()
            .and_then(|AnsweredAs(id)| id.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
    });
    let in_flight = shared.config.bulk_lines_max;
    let bytes = Arc::new(Semaphore::new(BYTES_IN_FLIGHT_MAX));
    let lines = Lines::new(
        request.into_body(),
        shared.config.body_bytes_max,
        shared.config.request_timeout,
        shared.stopping(),
    );
    let answers = lines
        .stream()
        .then(move |line| admitted(Arc::clone(&bytes), line))
        .map(move |(line, room)| {
            let placed = place(Arc::clone(&shared), Arc::clone(&context), line);
            async move {
                let answer = placed.await;
                drop(room);
                answer
            }
        })
        .buffered(in_flight)
        .ready_chunks(ANSWERS_A_CHUNK)
        .map(move |answers| {
            // Held for as long as there may be more of them.
            let _held = &room;
            Ok::<_, Infallible>(Bytes::from(answers.concat()))
        });
    // The stream's end is the answer's end, and with it the guard's.
    let answers = ConnectionClock::stream(&clock).watch(answers);
    let mut response = Response::new(Body::from_stream(answers));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

fn is_ndjson(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
    ]
    .iter()
    .any(|known| essence.eq_ignore_ascii_case(known))
}

/// What all lines of a request share.
#[derive(Debug)]
struct LineContext {
    /// As it is kept: with the caller.
    key: Option<String>,
    traceparent: Option<String>,
    request_id: Option<String>,
    /// What problems are told under: the client's id, or the one it is answered with.
    answered_as: String,
}

/// The line when there is room for its bytes, with the room it takes.
async fn admitted(bytes: Arc<Semaphore>, line: Line) -> (Line, Option<OwnedSemaphorePermit>) {
    let length = line.content.as_ref().map_or(0, Bytes::len);
    let wanted = u32::try_from(length.min(BYTES_IN_FLIGHT_MAX)).unwrap_or(u32::MAX);
    // Nobody closes it.
    let room = bytes.acquire_many_owned(wanted).await.ok();
    (line, room)
}

/// Places the order of a line and writes the line that answers it.
async fn place(shared: Arc<Shared>, context: Arc<LineContext>, line: Line) -> Vec<u8> {
    let number = line.number;
    let outcome = match line.content {
        Ok(content) => submit(&shared, &context, number, &content).await,
        Err(problem) => Err(problem),
    };
    let mut answer = match outcome {
        Ok(outcome) => {
            let token = SyncToken {
                partition: outcome.position.partition,
                end: outcome.position.end,
            };
            let token = token.text(shared.seal);
            format!(
                "{{\"line\":{number},\"status\":{},\"id\":\"{}\",\"version\":{},\"sync_token\":\"{}\",\"replayed\":{}}}",
                StatusCode::CREATED.as_u16(),
                outcome.order.id,
                outcome.order.version,
                String::from_utf8_lossy(&token),
                outcome.replayed,
            )
            .into_bytes()
        }
        Err(problem) => {
            let request_id = &context.answered_as;
            problem.log(request_id);
            let status = problem.kind().status().as_u16();
            // The head of the whole answer has gone, and with it the place of Retry-After.
            let after = problem.retry_after().map_or_else(String::new, |after| {
                format!("\"retry_after\":{},", after.as_secs().max(1))
            });
            let head = format!("{{\"line\":{number},\"status\":{status},{after}\"problem\":");
            let mut answer = head.into_bytes();
            problem.write_json("/orders/bulk", request_id, &mut answer);
            answer.push(b'}');
            answer
        }
    };
    answer.push(b'\n');
    answer
}

/// Submits the command of a line, again and again while there is no room for it: nothing has changed then.
async fn submit(
    shared: &Shared,
    context: &LineContext,
    number: u64,
    content: &Bytes,
) -> Result<CommandOutcome, Problem> {
    let commands = shared.commands()?;
    let (mut pause, longest) = BUSY_PAUSES;
    let until = Instant::now() + shared.config.bulk_patience;
    loop {
        // Read anew each time: most lines need it once, and none is copied for the others.
        let request = request(context, number, content)?;
        let submitted = timeout(shared.config.request_timeout, commands.submit(request));
        let problem: Problem = match submitted.await {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) => error.into(),
            Err(_elapsed) => Problem::new(
                ProblemKind::Timeout,
                "the order may have been placed all the same: ask again with the same Idempotency-Key",
            ),
        };
        let is_busy = matches!(
            problem.kind(),
            ProblemKind::Overloaded | ProblemKind::ProjectorBehind
        );
        if !is_busy || shared.is_stopping() || Instant::now() + pause > until {
            return Err(problem);
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(longest);
    }
}

fn request(context: &LineContext, number: u64, content: &Bytes) -> Result<CommandRequest, Problem> {
    Ok(CommandRequest {
        target: Target::New,
        // A request's key with the line's number: sent again, every line finds its own answer.
        idempotency: context.key.as_ref().map(|key| IdempotencyRequest {
            key: Idempotency::line_key(key, number),
            fingerprint: Idempotency::fingerprint(&[b"bulk", content]),
        }),
        command: parse::<PlaceOrderBody<'_>>(content)?.into_command()?,
        expected: None,
        traceparent: context.traceparent.clone(),
        request_id: context.request_id.clone(),
    })
}
