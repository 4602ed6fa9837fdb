//! The endpoints that change an order: each makes one command and shows what came of it.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::header::LOCATION;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use bytes::Bytes;
use order_command_workers::{CommandOutcome, CommandRequest, IdempotencyRequest, Target};
use order_domain::{Command, Idempotency, OrderId, decide};

use crate::answer::{self, Answer, IDEMPOTENCY_REPLAYED};
use crate::api::Shared;
use crate::body::JsonBody;
use crate::conditions::{IfMatch, expected_versions};
use crate::error::{Problem, ProblemKind};
use crate::order_body::{
    CancelBody, EmptyBody, NewLineBody, PayBody, PlaceOrderBody, RefundBody, ShipBody, parse,
    parse_optional,
};
use crate::order_json;
use crate::order_path::{LinePath, OrderPath};
use crate::reads::parked;
use crate::request_headers;
use crate::sync_token::SyncToken;

/// What usually holds an order's JSON, in bytes.
const ORDER_JSON_BYTES: usize = 512;

/// What the headers of a command say.
#[derive(Debug)]
pub(crate) struct CommandHeaders {
    if_match: IfMatch,
    /// As it is kept: with the caller.
    key: Option<String>,
    traceparent: Option<String>,
    request_id: Option<String>,
}

impl FromRequestParts<Arc<Shared>> for CommandHeaders {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Problem> {
        Self::of(parts)
    }
}

impl CommandHeaders {
    /// Reads the head of a request that was let pass.
    pub(crate) fn of(head: &Parts) -> Result<Self, Problem> {
        let headers = &head.headers;
        let request_id = request_headers::request_id(headers);
        Ok(Self {
            if_match: expected_versions(headers)?,
            key: request_headers::idempotency_key(headers)?
                .map(|key| Idempotency::kept_key(head.extensions.get().copied(), &key)),
            traceparent: request_headers::traceparent(headers).map(str::to_owned),
            // Only an id that the client knows is worth its bytes in the log.
            request_id: request_id
                .and_then(|id| id.to_str().ok())
                .map(str::to_owned),
        })
    }
}

/// `POST /orders`
pub(crate) async fn place(
    State(shared): State<Arc<Shared>>,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    let command = parse::<PlaceOrderBody<'_>>(&body)?.into_command()?;
    // A precondition counts only where the answer would be a success without it (RFC 9110, 13.2.1): an order that the rules
    // do not allow goes on, to be refused for that.
    if let Err(problem) = headers.if_match.of_a_new_order()
        && decide(None, &command).is_ok()
    {
        return Err(problem);
    }
    submit(&shared, Target::New, command, headers, &body).await
}

/// `POST /orders/:id/lines`
pub(crate) async fn add_line(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    let command = parse::<NewLineBody<'_>>(&body)?.into_command()?;
    on_existing(&shared, id, command, headers, &body).await
}

/// `DELETE /orders/:id/lines/:line_id`
pub(crate) async fn remove_line(
    State(shared): State<Arc<Shared>>,
    LinePath(id, line): LinePath,
    headers: CommandHeaders,
) -> Result<Answer, Problem> {
    // The line is named by the path, so it belongs into the key's fingerprint.
    let target = line.get().to_be_bytes();
    on_existing(&shared, id, Command::RemoveLine(line), headers, &target).await
}

/// `POST /orders/:id/confirm`
pub(crate) async fn confirm(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    parse_optional::<EmptyBody>(&body)?;
    on_existing(&shared, id, Command::Confirm, headers, &body).await
}

/// `POST /orders/:id/pay`
pub(crate) async fn pay(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    let command = parse::<PayBody>(&body)?.into_command()?;
    on_existing(&shared, id, command, headers, &body).await
}

/// `POST /orders/:id/ship`
pub(crate) async fn ship(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    let command = parse_optional::<ShipBody>(&body)?.into_command();
    on_existing(&shared, id, command, headers, &body).await
}

/// `POST /orders/:id/deliver`
pub(crate) async fn deliver(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    parse_optional::<EmptyBody>(&body)?;
    on_existing(&shared, id, Command::Deliver, headers, &body).await
}

/// `POST /orders/:id/cancel`
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    let command = parse_optional::<CancelBody>(&body)?.into_command();
    on_existing(&shared, id, command, headers, &body).await
}

/// `POST /orders/:id/refund`
pub(crate) async fn refund(
    State(shared): State<Arc<Shared>>,
    OrderPath(id): OrderPath,
    headers: CommandHeaders,
    JsonBody(body): JsonBody,
) -> Result<Answer, Problem> {
    let command = parse_optional::<RefundBody>(&body)?.into_command()?;
    on_existing(&shared, id, command, headers, &body).await
}

/// The problem of a command that could not be told from its repetition.
pub(crate) fn key_required() -> Problem {
    Problem::new(
        ProblemKind::IdempotencyKeyRequired,
        "send Idempotency-Key, and the same one when you send the request again",
    )
}

async fn on_existing(
    shared: &Shared,
    id: OrderId,
    command: Command,
    headers: CommandHeaders,
    fingerprinted: &[u8],
) -> Result<Answer, Problem> {
    if shared.config.require_if_match && headers.if_match == IfMatch::Absent {
        return Err(Problem::new(
            ProblemKind::PreconditionRequired,
            "send If-Match with the ETag of the order you decided on",
        ));
    }
    let target = Target::Existing(id);
    match submit(shared, target, command, headers, fingerprinted).await {
        Err(problem) if problem.kind() == ProblemKind::Internal => {
            Err(Box::pin(parked_or(shared, id, problem)).await)
        }
        submitted => submitted,
    }
}

/// No command is decided on the row of an order that was set aside. That is no fault of this moment, and the client can
/// tell it from one.
async fn parked_or(shared: &Shared, id: OrderId, problem: Problem) -> Problem {
    let read = shared.readers.order((shared.partition_of)(id), id).await;
    match read {
        Ok(read) if read.parked => parked(id, &read),
        _ => problem,
    }
}

async fn submit(
    shared: &Shared,
    target: Target,
    command: Command,
    headers: CommandHeaders,
    fingerprinted: &[u8],
) -> Result<Answer, Problem> {
    // A line is removed by DELETE, which can be repeated as it is.
    let repeatable = matches!(command, Command::RemoveLine(_));
    if shared.config.require_idempotency_key && headers.key.is_none() && !repeatable {
        return Err(key_required());
    }
    let idempotency = headers.key.map(|key| {
        let operation = command.kind().name().as_bytes();
        let order: &[u8] = match &target {
            Target::New => &[],
            Target::Existing(id) => id.as_bytes(),
        };
        IdempotencyRequest {
            key,
            fingerprint: Idempotency::fingerprint(&[operation, order, fingerprinted]),
        }
    });
    let request = CommandRequest {
        target,
        command,
        expected: match (headers.if_match, target) {
            (IfMatch::Versions(versions), Target::Existing(_)) => Some(versions),
            // `*` asks for any version there is, and a command on an order that is not there is refused anyway. For a new
            // order, versions were refused before.
            (IfMatch::Absent | IfMatch::Any | IfMatch::Versions(_), _) => None,
        },
        idempotency,
        traceparent: headers.traceparent,
        request_id: headers.request_id,
    };
    let outcome = shared.commands()?.submit(request).await?;
    Ok(answer(shared, target, &outcome))
}

fn answer(shared: &Shared, target: Target, outcome: &CommandOutcome) -> Answer {
    let order = &outcome.order;
    let mut json = Vec::with_capacity(ORDER_JSON_BYTES);
    order_json::write_order(order, &mut json);
    let status = match target {
        Target::New => StatusCode::CREATED,
        Target::Existing(_) => StatusCode::OK,
    };
    let mut response = answer::json(status, json);
    answer::put_version(&mut response, order.version);
    let token = SyncToken {
        partition: outcome.position.partition,
        end: outcome.position.end,
    };
    answer::put_sync_token(&mut response, token, shared.seal);
    let headers = response.headers_mut();
    if target == Target::New {
        headers.insert(LOCATION, location(order.id));
    }
    if outcome.replayed {
        headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn location(id: OrderId) -> HeaderValue {
    let mut path = *b"/orders/000000000000000000000000000000000000";
    let text = &mut [0; 36];
    path[8..].copy_from_slice(id.text(text).as_bytes());
    let path = Bytes::copy_from_slice(&path);
    HeaderValue::from_maybe_shared(path).expect("a path of hexadecimal digits is printable")
}
