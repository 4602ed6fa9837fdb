//! What goes wrong, as clients see it: RFC 9457 problems with a stable `code`. The only file that knows status codes of
//! failures.
//!
//! A client gets the code and what it can act on; the cause of a server's fault goes to the log, once, in [`Problem::log`].

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use order_command_workers::CommandError;
use order_domain::{CommandKind, MoneyError, Rejection, Version};

macro_rules! problem_kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $status:ident, $code:literal, $title:literal;)+) => {
        /// Every kind of problem there is. Codes are promises: never renamed, never used for anything else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum ProblemKind {
            $($(#[doc = $doc])+ $name,)+
        }

        impl ProblemKind {
            /// All of them, by status.
            #[cfg(test)]
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The status it is answered with.
            pub(crate) const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The stable code.
            pub(crate) const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The title: the same for every occurrence.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }

            /// What it means and what to do.
            #[cfg(test)]
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }
        }
    };
}

problem_kinds! {
    /// The body is not JSON at all. Nothing changed.
    InvalidJson = BAD_REQUEST, "invalid-json", "The body is not JSON";
    /// The body is JSON of the wrong shape: a field is missing, unknown, or of the wrong type. `errors` points at it.
    InvalidRequest = BAD_REQUEST, "invalid-request", "The body has the wrong shape";
    /// This service is configured to take commands only with `Idempotency-Key`. Nothing changed.
    IdempotencyKeyRequired = BAD_REQUEST, "idempotency-key-required", "Idempotency-Key is required";
    /// A header cannot be read. `detail` names it.
    InvalidHeader = BAD_REQUEST, "invalid-header", "A header cannot be read";
    /// A query parameter is unknown or cannot be read. `detail` names it.
    InvalidQuery = BAD_REQUEST, "invalid-query", "A query parameter cannot be read";
    /// The `Sync-Token` was not made by this log, or before it was repartitioned or compacted: `detail` says which.
    InvalidSyncToken = BAD_REQUEST, "invalid-sync-token", "The Sync-Token is not one of this service";
    /// The request has no bearer token that this service knows.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "A bearer token is needed";
    /// The bearer token is known and does not allow this.
    Forbidden = FORBIDDEN, "forbidden", "The token does not allow this";
    /// There is no such order. Said only when the read model has caught up with every order acknowledged before.
    OrderNotFound = NOT_FOUND, "order-not-found", "There is no such order";
    /// The order has no such line.
    LineNotFound = NOT_FOUND, "line-not-found", "The order has no such line";
    /// The order exists, and did not have this version, or did not exist at this time.
    VersionNotFound = NOT_FOUND, "version-not-found", "The order has no such version";
    /// There is no such projection.
    ProjectionNotFound = NOT_FOUND, "projection-not-found", "There is no such projection";
    /// The outbox holds no such event: it was delivered, is on its way, or does not exist.
    EventNotHeld = NOT_FOUND, "event-not-held", "The outbox does not hold this event";
    /// Nothing is at this path.
    NotFound = NOT_FOUND, "not-found", "Nothing is here";
    /// The path is right, the method is not. `Allow` lists what is.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    /// The body did not arrive in time.
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout", "The body did not arrive in time";
    /// The order's status does not allow the step. `order_status` and `allowed` say where it is and what may follow.
    InvalidTransition = CONFLICT, "invalid-transition", "The order's status does not allow this";
    /// The order exists already.
    AlreadyPlaced = CONFLICT, "already-placed", "The order exists already";
    /// The last line of an order cannot be removed. Cancel the order instead.
    LastLine = CONFLICT, "last-line", "An order keeps at least one line";
    /// The event is not dead: it is being tried again by itself.
    EventNotDead = CONFLICT, "event-not-dead", "The event is not dead";
    /// The projection's tables, or what is being done to them, do not allow this now; `detail` says why. Nothing changed.
    ProjectionBusy = CONFLICT, "projection-busy", "The projection cannot do this now";
    /// The store keeps all events in one file, which has no segments to rotate. Nothing changed.
    RotationUnsupported = CONFLICT, "rotation-unsupported", "This store has nothing to rotate";
    /// The order had this version, or existed at this time, and its history of then is no longer kept: the log was
    /// compacted. `detail` says with which version the history begins.
    VersionCompacted = GONE, "version-compacted", "The order's history of then is no longer kept";
    /// `If-Match` names no version that the order has. `ETag` and `current_version` tell the present one; an order that is
    /// yet to be placed has none.
    VersionMismatch = PRECONDITION_FAILED, "version-mismatch", "The order has another version";
    /// `min_version` is more than the order has, and the read model has caught up: no such version exists yet.
    VersionNotReached = PRECONDITION_FAILED, "version-not-reached", "The order has not reached this version";
    /// The body is longer than the limit.
    BodyTooLarge = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    /// The body must be `application/json`, of a bulk request `application/x-ndjson`, and not compressed.
    UnsupportedMediaType = UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body has an unsupported type";
    /// This process does not run the projector. `detail` says where to ask.
    ProjectorElsewhere = MISDIRECTED_REQUEST, "projector-elsewhere", "Another process runs the projector";
    /// The body is well formed, and a value in it is not possible. `errors` points at each.
    InvalidValue = UNPROCESSABLE_ENTITY, "invalid-value", "A value is not possible";
    /// The order has had too many commands to tell its history from the beginning. Ask for its latest events with
    /// `after_version`.
    HistoryTooLong = UNPROCESSABLE_ENTITY, "history-too-long", "The order's history is too long";
    /// A sum of money leaves the range of 64-bit minor units.
    AmountOverflow = UNPROCESSABLE_ENTITY, "amount-overflow", "An amount is out of range";
    /// A payment is not the order's total.
    PaymentMismatch = UNPROCESSABLE_ENTITY, "payment-mismatch", "The payment is not the order's total";
    /// A refund is nothing, or more than what is left of the payment.
    RefundMismatch = UNPROCESSABLE_ENTITY, "refund-mismatch", "The refund is not possible";
    /// The `Idempotency-Key` was used for another request.
    IdempotencyMismatch = UNPROCESSABLE_ENTITY, "idempotency-mismatch", "The key was used for another request";
    /// This service is configured to take commands on an order only with `If-Match`.
    PreconditionRequired = PRECONDITION_REQUIRED, "precondition-required", "If-Match is required";
    /// A fault of the service; its log has the cause under the request's id.
    Internal = INTERNAL_SERVER_ERROR, "internal", "The service failed";
    /// More is waiting than the service takes. Nothing changed; come back after `Retry-After`.
    Overloaded = SERVICE_UNAVAILABLE, "overloaded", "The service is overloaded";
    /// The read model is too far behind to take more commands. Nothing changed; come back after `Retry-After`.
    ProjectorBehind = SERVICE_UNAVAILABLE, "projector-behind", "The read model is too far behind";
    /// An event of the order could not be applied, so the order was set aside and what could be shown is not its present
    /// state. `known_version`, if there is one, is the last that could be applied; it and earlier ones can be read with
    /// `at_version`. An operator has to redrive the order.
    OrderParked = SERVICE_UNAVAILABLE, "order-parked", "The order was set aside";
    /// The read model did not reach what the read depends on in time. Come back after `Retry-After`.
    ReadModelBehind = SERVICE_UNAVAILABLE, "read-model-behind", "The read model is behind";
    /// The disk is full. Nothing changed; writing resumes by itself when there is space.
    StorageFull = SERVICE_UNAVAILABLE, "storage-full", "The storage is full";
    /// This order's partition takes no writes since a failure. Nothing changed; others go on.
    PartitionUnavailable = SERVICE_UNAVAILABLE, "partition-unavailable", "The partition takes no writes";
    /// The command may or may not have been kept. Ask again with the same `Idempotency-Key`, or read the order.
    OutcomeUnknown = SERVICE_UNAVAILABLE, "outcome-unknown", "The outcome is unknown";
    /// The projector of a partition stands still and cannot do what was asked; `detail` says why. What it had done stays
    /// done.
    ProjectorHalted = SERVICE_UNAVAILABLE, "projector-halted", "The projector stands still";
    /// The outbox does not run, or has too much to do.
    OutboxUnavailable = SERVICE_UNAVAILABLE, "outbox-unavailable", "The outbox cannot do this now";
    /// The answer took longer than a request may take.
    Timeout = SERVICE_UNAVAILABLE, "timeout", "The request took too long";
    /// The service is stopping. Nothing changed.
    Stopping = SERVICE_UNAVAILABLE, "stopping", "The service is stopping";
}

/// One place in the body, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// RFC 6901 pointer; empty for the whole body.
    pub(crate) pointer: String,
    /// What is wrong.
    pub(crate) detail: String,
}

/// One occurrence of a problem. Boxed inside, so that the way without problems stays light.
#[derive(Debug, Clone)]
pub(crate) struct Problem(Box<Occurrence>);

#[derive(Debug, Clone)]
struct Occurrence {
    kind: ProblemKind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    current_version: Option<Version>,
    known_version: Option<Version>,
    transition: Option<(&'static str, &'static [CommandKind])>,
    cause: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// When to come back if nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to come back if an operator has to do something first.
const RETRY_AFTER_REPAIR: Duration = Duration::from_secs(10);

impl Problem {
    /// A problem with what there is to say of this occurrence.
    pub(crate) fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = match kind {
            ProblemKind::StorageFull
            | ProblemKind::PartitionUnavailable
            | ProblemKind::OrderParked
            | ProblemKind::ProjectorHalted => Some(RETRY_AFTER_REPAIR),
            _ if kind.status() == StatusCode::SERVICE_UNAVAILABLE => Some(RETRY_AFTER),
            _ => None,
        };
        Self(Box::new(Occurrence {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after,
            current_version: None,
            known_version: None,
            transition: None,
            cause: None,
            headers: Vec::new(),
        }))
    }

    /// A problem with places in the body.
    pub(crate) fn with_errors(kind: ProblemKind, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.pointer.is_empty() => only.detail.clone(),
            [only] => format!("{}: {}", only.pointer, only.detail),
            several => format!("{} values are wrong", several.len()),
        };
        let mut problem = Self::new(kind, detail);
        problem.0.errors = errors;
        problem
    }

    /// A fault of the service: the client gets no detail, the log gets the cause.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        let mut problem = Self::new(
            ProblemKind::Internal,
            "the cause is in the service's log under this request's id",
        );
        problem.0.cause = Some(cause.into());
        problem
    }

    /// Tells the last version that is known of an order whose present one is not.
    pub(crate) fn with_known_version(mut self, version: Option<Version>) -> Self {
        self.0.known_version = version;
        self
    }

    /// A header of the answer, beside those that all problems of its kind have.
    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    fn caused_by(mut self, cause: String) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The kind.
    pub(crate) fn kind(&self) -> ProblemKind {
        self.0.kind
    }

    /// The order's version, where that is what did not match.
    pub(crate) fn current_version(&self) -> Option<Version> {
        self.0.current_version
    }

    /// What [`Self::with_header`] was given.
    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.headers
    }

    /// When to come back.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Tells the log of a fault that has a cause; the client's own mistakes are counted, not told.
    pub(crate) fn log(&self, request_id: &str) {
        if let Some(cause) = &self.0.cause {
            tracing::error!(
                code = self.0.kind.code(),
                request_id,
                cause,
                "request failed"
            );
        }
    }

    /// Writes the problem as a JSON object.
    pub(crate) fn write_json(&self, instance: &str, request_id: &str, out: &mut Vec<u8>) {
        let occurrence = &*self.0;
        let allowed = occurrence
            .transition
            .map(|(_, allowed)| allowed.iter().map(|step| step.name()).collect());
        let shape = ProblemJson {
            r#type: &format!("urn:order-service:problem:{}", occurrence.kind.code()),
            title: occurrence.kind.title(),
            status: occurrence.kind.status().as_u16(),
            code: occurrence.kind.code(),
            detail: &occurrence.detail,
            instance,
            request_id,
            errors: occurrence
                .errors
                .iter()
                .map(|error| FieldErrorJson {
                    pointer: &error.pointer,
                    detail: &error.detail,
                })
                .collect(),
            current_version: occurrence.current_version.map(Version::get),
            known_version: occurrence.known_version.map(Version::get),
            order_status: occurrence.transition.map(|(status, _)| status),
            allowed,
        };
        serde_json::to_writer(out, &shape).expect("texts and numbers always serialize");
    }
}

#[derive(serde::Serialize)]
struct ProblemJson<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    instance: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldErrorJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<&'static str>>,
}

#[derive(serde::Serialize)]
struct FieldErrorJson<'a> {
    pointer: &'a str,
    detail: &'a str,
}

/// The bare status with the problem beside it: the service's outer edge, which knows the path and the request's id,
/// writes the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind().status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let detail = rejection.to_string();
        let at = |pointer: &str| {
            let error = FieldError {
                pointer: pointer.to_owned(),
                detail: detail.clone(),
            };
            Self::with_errors(ProblemKind::InvalidValue, vec![error])
        };
        match rejection {
            Rejection::NotFound => Self::new(ProblemKind::OrderNotFound, detail),
            Rejection::AlreadyPlaced => Self::new(ProblemKind::AlreadyPlaced, detail),
            Rejection::InvalidTransition {
                status, allowed, ..
            } => {
                let mut problem = Self::new(ProblemKind::InvalidTransition, detail);
                problem.0.transition = Some((status.name(), allowed));
                problem
            }
            Rejection::PaymentMismatch { .. } => Self::new(ProblemKind::PaymentMismatch, detail),
            Rejection::RefundMismatch { .. } => Self::new(ProblemKind::RefundMismatch, detail),
            Rejection::UnknownLine(_) => Self::new(ProblemKind::LineNotFound, detail),
            Rejection::LastLine => Self::new(ProblemKind::LastLine, detail),
            Rejection::NoLines | Rejection::TooManyLines { .. } => at("/lines"),
            Rejection::TooManyMetadataEntries { .. } => at("/metadata"),
            Rejection::InvalidText { field, .. } if field.starts_with("metadata") => {
                at("/metadata")
            }
            Rejection::InvalidText { field, .. } => at(&format!("/{field}")),
            Rejection::Money(MoneyError::Overflow) => {
                Self::new(ProblemKind::AmountOverflow, detail)
            }
            Rejection::Money(_) => at(""),
        }
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let told = error.to_string();
        match error {
            CommandError::Rejected { rejection, .. } => rejection.into(),
            CommandError::VersionMismatch { actual } => {
                let mut problem = Self::new(ProblemKind::VersionMismatch, told);
                problem.0.current_version = Some(actual);
                problem
            }
            CommandError::IdempotencyMismatch => Self::new(ProblemKind::IdempotencyMismatch, told),
            CommandError::Overloaded { retry_after, .. } => {
                let mut problem = Self::new(ProblemKind::Overloaded, told);
                problem.0.retry_after = Some(retry_after);
                problem
            }
            CommandError::ProjectorBehind { .. } => Self::new(ProblemKind::ProjectorBehind, told),
            CommandError::StorageFull { .. } => Self::new(ProblemKind::StorageFull, told),
            CommandError::OutcomeUnknown { partition, .. } => Self::new(
                ProblemKind::OutcomeUnknown,
                format!("partition {partition}: the command may or may not have been kept"),
            )
            .caused_by(told),
            CommandError::PartitionUnavailable { partition, .. } => Self::new(
                ProblemKind::PartitionUnavailable,
                format!("partition {partition} takes no writes since an earlier failure"),
            ),
            CommandError::Internal { .. } => Self::internal(told),
            CommandError::NotSupported { .. } => Self::new(ProblemKind::RotationUnsupported, told),
            CommandError::Stopping => Self::new(ProblemKind::Stopping, told),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn the_catalogue_of_problems_is_documented() {
        let mut page = String::from(
            "# Problems\n\n\
             Every failure is answered with `application/problem+json` (RFC 9457). `code` is stable and is what a \
             program should look at; `type` is `urn:order-service:problem:<code>`; `title` and `detail` are for \
             people. `errors` lists places in the body as JSON pointers (RFC 6901), `request_id` is also in the \
             answer's `X-Request-Id`. Every 503 has `Retry-After`.\n\n\
             Except for what is no request: a head that is malformed, or gives its body no length or coding that can be \
             (400), a target (414) or headers (431) that are too long or too many are refused before the service sees \
             a request. Such an answer has no body and no `X-Request-Id`, is counted nowhere, and the connection is \
             closed.\n\n\
             This page is written from `api/src/error.rs` and checked by its tests.\n\n\
             | status | code | title | what it means |\n|---|---|---|---|\n",
        );
        for kind in ProblemKind::ALL {
            let (status, code) = (kind.status().as_u16(), kind.code());
            let (title, meaning) = (kind.title(), kind.meaning().trim());
            writeln!(page, "| {status} | `{code}` | {title} | {meaning} |").unwrap();
        }
        crate::golden::assert_golden("docs/problems.md", &page);
    }

    #[test]
    fn codes_are_unique_and_in_the_order_of_their_statuses() {
        let codes: std::collections::BTreeSet<_> =
            ProblemKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ProblemKind::ALL.len());
        assert!(ProblemKind::ALL.is_sorted_by_key(|kind| kind.status()));
    }

    #[test]
    fn every_503_says_when_to_come_back() {
        for kind in ProblemKind::ALL {
            let told = Problem::new(*kind, "").retry_after().is_some();
            if kind.status() == StatusCode::SERVICE_UNAVAILABLE {
                assert!(told, "{kind:?}");
            }
        }
    }

    #[test]
    fn an_illegal_step_says_what_is_allowed() {
        let problem = Problem::from(Rejection::InvalidTransition {
            status: order_domain::Status::Placed,
            attempted: CommandKind::Ship,
            allowed: order_domain::Status::Placed.allowed(),
        });
        let mut json = Vec::new();
        problem.write_json("/orders/1/ship", "r-1", &mut json);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["status"], 409);
        assert_eq!(json["code"], "invalid-transition");
        assert_eq!(json["order_status"], "placed");
        assert_eq!(
            json["allowed"],
            serde_json::json!(["add-line", "remove-line", "confirm", "cancel"])
        );
        assert_eq!(json["instance"], "/orders/1/ship");
        assert_eq!(json["request_id"], "r-1");
    }
}
