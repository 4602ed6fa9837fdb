//! `POST /orders/bulk`: a new order a line, streamed in, and what came of each streamed out, in the same order.
//!
//! Memory is bounded by the lines in flight, whatever the length of the request: when that many wait for their outcome,
//! no more is read. A client must therefore read answers while it sends; one that does not is cut off. Where the command
//! workers have too much to do, lines wait here for a while, and with them the stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Extension, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use order_command_workers::{CommandOutcome, CommandRequest, IdempotencyRequest, Target};
use order_domain::Idempotency;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::{AnsweredAs, Shared};
use crate::body::refuse_coding;
use crate::connection_clock::ConnectionClock;
use crate::error::{Problem, ProblemKind};
use crate::order_body::{PlaceOrderBody, parse};
use crate::request_headers;
use crate::sync_token::SyncToken;
use crate::writes::key_required;

/// How long a line waits before it asks again for room in a queue: at first about as long as a batch takes, then longer.
const BUSY_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(320));
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
    let lines = Lines::new(
        request.into_body(),
        shared.config.body_bytes_max,
        shared.config.request_timeout,
        shared.stopping(),
    );
    let answers = lines
        .stream()
        .map(move |line| place(Arc::clone(&shared), Arc::clone(&context), line))
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

/// One line of the request, or why there is none.
#[derive(Debug)]
struct Line {
    /// From 1.
    number: u64,
    content: Result<Bytes, Problem>,
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
        let problem: Problem = match commands.submit(request).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error.into(),
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

/// Cuts a body into lines as it comes.
struct Lines {
    body: BodyDataStream,
    line_bytes_max: usize,
    /// Longest time for a whole line: bytes alone, or empty lines, do not keep a stream open.
    line_timeout: Duration,
    stopping: watch::Receiver<bool>,
    /// What came and is no whole line yet; at most a line and a piece.
    rest: BytesMut,
    /// How much of `rest` is known to hold no line feed.
    searched: usize,
    number: u64,
    /// Whether the line at hand is over the limit: its rest is skipped.
    skipping: bool,
    ended: bool,
}

impl Lines {
    fn new(
        body: Body,
        line_bytes_max: usize,
        line_timeout: Duration,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            body: body.into_data_stream(),
            line_bytes_max,
            line_timeout,
            stopping,
            rest: BytesMut::new(),
            searched: 0,
            number: 0,
            skipping: false,
            ended: false,
        }
    }

    fn stream(self) -> impl Stream<Item = Line> {
        stream::unfold(self, async |mut lines| {
            let line = lines.next().await?;
            Some((line, lines))
        })
    }

    /// The next line that is not empty; `None` behind the last.
    async fn next(&mut self) -> Option<Line> {
        let deadline = Instant::now() + self.line_timeout;
        loop {
            if let Some(content) = self.cut() {
                self.number += 1;
                if content.len() > self.line_bytes_max {
                    return Some(self.too_long());
                }
                if !content.trim_ascii().is_empty() {
                    return Some(self.line(Ok(content)));
                }
                continue;
            }
            if self.ended {
                return None;
            }
            if self.rest.len() > self.line_bytes_max && !self.skipping {
                self.skipping = true;
                self.number += 1;
                return Some(self.too_long());
            }
            if let Err(problem) = self.receive(deadline).await {
                self.ended = true;
                self.rest.clear();
                self.searched = 0;
                self.number += 1;
                return Some(self.line(Err(problem)));
            }
        }
    }

    fn too_long(&self) -> Line {
        let limit = self.line_bytes_max;
        self.line(Err(Problem::new(
            ProblemKind::BodyTooLarge,
            format!("a line has at most {limit} bytes"),
        )))
    }

    fn line(&self, content: Result<Bytes, Problem>) -> Line {
        Line {
            number: self.number,
            content,
        }
    }

    /// The next whole line that has come, without its line feed; when all has come, what stands behind the last.
    fn cut(&mut self) -> Option<Bytes> {
        loop {
            let unsearched = &self.rest[self.searched..];
            let line_feed = unsearched.iter().position(|byte| *byte == b'\n');
            let line = match line_feed {
                Some(at) => {
                    let line = self.rest.split_to(self.searched + at);
                    self.rest.advance(1);
                    line
                }
                None if self.ended && !self.rest.is_empty() => self.rest.split(),
                None => {
                    if self.skipping {
                        self.rest.clear();
                    }
                    self.searched = self.rest.len();
                    return None;
                }
            };
            self.searched = 0;
            if !std::mem::take(&mut self.skipping) {
                return Some(line.freeze());
            }
        }
    }

    /// Waits for more of the body. What has come is taken even if the time is over: the stream may have been held up by
    /// answers that were not read.
    async fn receive(&mut self, deadline: Instant) -> Result<(), Problem> {
        let piece = tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Problem::new(
                ProblemKind::Stopping,
                "this line and all behind it were not looked at",
            )),
            piece = tokio::time::timeout_at(deadline, self.body.next()) => piece,
        };
        match piece {
            Ok(Some(Ok(piece))) => self.rest.extend_from_slice(&piece),
            Ok(None) => self.ended = true,
            Ok(Some(Err(error))) => {
                let broken = format!("the body broke off: {error}");
                return Err(Problem::new(ProblemKind::InvalidRequest, broken));
            }
            Err(_elapsed) => {
                return Err(Problem::new(
                    ProblemKind::RequestTimeout,
                    "the next line took too long to arrive",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// The lines of a body that comes in pieces: number and content, `None` for one that is too long.
    fn lines(pieces: Vec<Vec<u8>>, line_bytes_max: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, Infallible>(Bytes::from(piece)));
        let stopping = watch::Sender::new(false);
        let body = Body::from_stream(stream::iter(pieces.collect::<Vec<_>>()));
        let lines = Lines::new(body, line_bytes_max, PATIENCE, stopping.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let lines: Vec<Line> = runtime.block_on(lines.stream().collect());
        let shown = |line: Line| {
            (
                line.number,
                line.content.ok().map(|content| content.to_vec()),
            )
        };
        lines.into_iter().map(shown).collect()
    }

    fn whole(text: &str) -> Vec<(u64, Option<Vec<u8>>)> {
        lines(vec![text.as_bytes().to_vec()], 8)
    }

    #[test]
    fn lines_are_numbered_and_empty_ones_only_counted() {
        let line = |number, text: &str| (number, Some(text.as_bytes().to_vec()));
        assert_eq!(whole("a\n\n \nb"), [line(1, "a"), line(4, "b")]);
        assert_eq!(whole("a\nb\n"), [line(1, "a"), line(2, "b")]);
        assert_eq!(whole(""), []);
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_alone() {
        let line = |number, text: &str| (number, Some(text.as_bytes().to_vec()));
        let expected = [line(1, "a"), (2, None), line(3, "12345678")];
        assert_eq!(whole("a\n123456789\n12345678\n"), expected);
        let pieces = ["a\n12345", "6789", "0", "1\n1234", "5678"];
        let pieces = pieces.map(|piece| piece.as_bytes().to_vec()).to_vec();
        assert_eq!(lines(pieces, 8), expected);
    }

    #[tokio::test]
    async fn bytes_and_empty_lines_do_not_keep_a_stream_open() {
        const TIMEOUT: Duration = Duration::from_millis(50);
        let stopping = watch::Sender::new(false);
        for piece in ["x", "\n", "\r\n"] {
            let pieces = stream::unfold((), move |()| async move {
                tokio::time::sleep(TIMEOUT / 10).await;
                let piece = Bytes::from_static(piece.as_bytes());
                Some((Ok::<_, Infallible>(piece), ()))
            });
            let body = Body::from_stream(pieces);
            let mut lines = Lines::new(body, 1024 * 1024, TIMEOUT, stopping.subscribe());
            let line = tokio::time::timeout(PATIENCE, lines.next()).await;
            let line = line.expect("it ends").expect("it is told why");
            let problem = line.content.expect_err("no line came");
            assert_eq!(problem.kind(), ProblemKind::RequestTimeout, "{piece:?}");
            assert!(lines.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn whoever_sends_lines_in_time_goes_on_for_longer_than_a_line_may_take() {
        const TIMEOUT: Duration = Duration::from_secs(2);
        const PAUSE: Duration = Duration::from_millis(25);
        const LINES: u32 = 50;
        const _: () = assert!(PAUSE.as_millis() * 2 * (LINES as u128) > TIMEOUT.as_millis());
        let stopping = watch::Sender::new(false);
        let pieces = stream::iter(0..2 * LINES).then(|number| async move {
            tokio::time::sleep(PAUSE).await;
            let piece = if number % 2 == 0 { "half" } else { " a line\n" };
            Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes()))
        });
        let lines = Lines::new(
            Body::from_stream(pieces),
            1024,
            TIMEOUT,
            stopping.subscribe(),
        );
        let lines: Vec<Line> = lines.stream().collect().await;
        assert_eq!(lines.len(), 50);
        assert!(lines.iter().all(|line| line.content.is_ok()));
    }

    #[test]
    fn a_stopping_service_says_which_lines_it_did_not_look_at() {
        let stopping = watch::Sender::new(true);
        let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        let mut lines = Lines::new(body, 8, PATIENCE, stopping.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let line = runtime.block_on(lines.next()).expect("a last line");
        assert_eq!(
            line.content.expect_err("stopping").kind(),
            ProblemKind::Stopping
        );
        assert!(runtime.block_on(lines.next()).is_none());
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_into_pieces_makes_no_difference(
            text in "[ab\n]{0,60}",
            cuts in proptest::collection::vec(0_usize..10, 0..30),
        ) {
            let mut rest = text.as_bytes();
            let mut pieces = Vec::new();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece.to_vec());
                rest = behind;
            }
            pieces.push(rest.to_vec());
            prop_assert_eq!(lines(pieces, 8), whole(&text));
        }
    }
}
