//! Parameters of requests and headers of answers, each described once.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Header, RefOr, Required, Schema};

use super::{header, schemas};

/// Every parameter with its name in the components.
pub(super) fn all() -> Vec<(&'static str, Parameter)> {
    let path = |name: &str, schema: RefOr<Schema>, description: &str| {
        parameter(name, ParameterIn::Path, Required::True, schema, description)
    };
    let query = |name: &str, schema: RefOr<Schema>, description: &str| {
        parameter(
            name,
            ParameterIn::Query,
            Required::False,
            schema,
            description,
        )
    };
    let header = |name: &str, schema: RefOr<Schema>, description: &str| {
        parameter(
            name,
            ParameterIn::Header,
            Required::False,
            schema,
            description,
        )
    };
    vec![
        ("OrderId", path("id", uuid(), "The order.")),
        (
            "LineId",
            path("line_id", integer(1, i64::from(u32::MAX)), "The line."),
        ),
        (
            "ProjectionName",
            path(
                "name",
                names(&["orders", "customer_summary", "sku_demand"]),
                "The projection.",
            ),
        ),
        (
            "EventId",
            path(
                "id",
                custom("event-id"),
                "The event: `<order id>-<version>`.",
            ),
        ),
        (
            "Status",
            query("status", schemas::status(), "Only orders of this status."),
        ),
        (
            "CustomerId",
            query(
                "customer_id",
                schemas::text_id("Only orders of this customer."),
                "Only orders of this customer.",
            ),
        ),
        (
            "CreatedAfter",
            query("created_after", time(), "Placed at or after this time."),
        ),
        (
            "CreatedBefore",
            query("created_before", time(), "Placed before this time."),
        ),
        (
            "Limit",
            query(
                "limit",
                integer(1, 200),
                "Most orders of the page; 50 if not given.",
            ),
        ),
        (
            "Cursor",
            query(
                "cursor",
                custom("cursor"),
                "From the page before, with the same filters.",
            ),
        ),
        (
            "MinVersion",
            query(
                "min_version",
                integer(0, i64::from(u32::MAX)),
                "The version the answer must at least have: 503 while the read model is behind, or if it does not come \
                 within the wait that `Prefer` asks for; 412 if there is no such version and no wait was asked for.",
            ),
        ),
        (
            "AtVersion",
            query(
                "at_version",
                integer(1, i64::from(u32::MAX)),
                "The order as it was at this version; 410 if its history begins later, because the log was compacted.",
            ),
        ),
        (
            "AsOf",
            query(
                "as_of",
                time(),
                "The order as it was at this time, to the millisecond: the time that an event is shown with gives the order \
                 with that event. 410 if its history begins later, because the log was compacted.",
            ),
        ),
        (
            "AfterVersion",
            query(
                "after_version",
                integer(0, i64::from(u32::MAX)),
                "Only events behind this version.",
            ),
        ),
        (
            "EventLimit",
            query(
                "limit",
                integer(1, 1000),
                "Most events of the page; 100 if not given.",
            ),
        ),
        (
            "Partition",
            query(
                "partition",
                integer(0, 1023),
                "Only events of this partition.",
            ),
        ),
        (
            "EventType",
            query(
                "type",
                custom("event-types"),
                "Only events of these types, separated by commas.",
            ),
        ),
        (
            "From",
            query(
                "from",
                names(&["start", "end"]),
                "Where to begin without `Last-Event-ID`: `start` if not given.",
            ),
        ),
        (
            "ParkedLimit",
            query(
                "limit",
                integer(1, 1000),
                "Most orders of the page; 100 if not given.",
            ),
        ),
        (
            "ParkedAfter",
            query("after", uuid(), "Begin behind this order."),
        ),
        (
            "DeadLimit",
            query(
                "limit",
                integer(1, 1000),
                "Most events of the page; 100 if not given.",
            ),
        ),
        (
            "DeadAfter",
            query("after", event_id(), "Begin behind this event."),
        ),
        (
            "Verbose",
            query("verbose", text(), "Tell every check and fact."),
        ),
        (
            "IfMatch",
            header(
                "If-Match",
                custom("entity-tags"),
                "The version, or versions, that the order must have, each as its `ETag` has it; `*` for any. What is neither is 400.",
            ),
        ),
        (
            "IfNoneMatch",
            header(
                "If-None-Match",
                custom("entity-tags"),
                "Versions that the client has: 304 if it is one of them.",
            ),
        ),
        (
            "IdempotencyKey",
            header(
                "Idempotency-Key",
                shaped(IDEMPOTENCY_KEY),
                "Sent again with the same key and body, the command is not done twice: the first answer comes again. \
                 1 to 255 printable characters, quoted or not. How long a key is remembered is told by `/readyz?verbose`, as \
                 `idempotency_retention_seconds`.",
            ),
        ),
        (
            "SyncToken",
            header(
                "Sync-Token",
                custom("sync-token"),
                "From the answer of a write: the read waits until it shows that write.",
            ),
        ),
        (
            "Prefer",
            header(
                "Prefer",
                custom("preferences"),
                "`wait=N`: how many seconds the read may wait, at most 25, and at most five sixths of what a request may take.",
            ),
        ),
        (
            "PreferAsync",
            header(
                "Prefer",
                custom("preferences"),
                "`respond-async`: told back in `Preference-Applied`, as this is always answered before it is done.",
            ),
        ),
        (
            "LastEventId",
            header(
                "Last-Event-ID",
                custom("event-position"),
                "The id of the last event seen: the feed goes on behind it.",
            ),
        ),
        (
            "RequestId",
            header(
                "X-Request-Id",
                custom("request-id"),
                "Echoed in the answer and kept with the event.",
            ),
        ),
        (
            "Traceparent",
            header(
                "traceparent",
                custom("traceparent"),
                "W3C trace context, kept with the event and handed on.",
            ),
        ),
    ]
}

/// Every header of an answer, by its name.
pub(super) fn response_headers() -> Vec<(&'static str, Header)> {
    vec![
        (
            "X-Request-Id",
            header(text(), "The request's id, or one made for it."),
        ),
        ("Location", header(text(), "The order's path.")),
        ("ETag", header(text(), "The order's version, in quotes.")),
        (
            "Cache-Control",
            header(
                text(),
                "`private, no-cache`: a cache must ask before it shows the answer again; `no-store`: it must not keep it.",
            ),
        ),
        (
            "Sync-Token",
            header(text(), "Send it with a read that must show this write."),
        ),
        (
            "Idempotency-Replayed",
            header(
                names(&["true"]),
                "The command had been done before: this is its stored answer.",
            ),
        ),
        (
            "Read-Model-Lag-Seconds",
            header(
                text(),
                "Age of the oldest event that the answer does not show yet; 0 when it shows all.",
            ),
        ),
        (
            "Read-Model-Position",
            header(
                text(),
                "Partition and offset: the answer shows every record of that partition before that offset.",
            ),
        ),
        (
            "Preference-Applied",
            header(text(), "The preference that was honoured, and how far."),
        ),
        (
            "WWW-Authenticate",
            header(
                text(),
                "`Bearer`: how to say who asks. With `error` (RFC 6750) if the token is unknown or lacks a scope.",
            ),
        ),
        ("Link", header(text(), "The next page, as `rel=\"next\"`.")),
        (
            "Retry-After",
            header(integer(1, 3600), "When to come back, in seconds."),
        ),
    ]
}

fn parameter(
    name: &str,
    place: ParameterIn,
    required: Required,
    schema: RefOr<Schema>,
    description: &str,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .description(Some(description))
        .build()
}

fn text() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// A text that only this service, or only a rule that JSON Schema cannot say, makes.
fn custom(format: &str) -> RefOr<Schema> {
    let format = SchemaFormat::Custom(format.to_owned());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .into()
}

/// Printable characters without white space at an end, or such characters in quotes, with a backslash before each quote
/// and backslash: 1 to 255 of them.
const IDEMPOTENCY_KEY: &str =
    r#"^([!#-~]|[!#-~][ -~]{0,253}[!-~]|"([ !#-\[\]-~]|\\["\\]){1,255}")$"#;
/// An order's id and a version.
const EVENT_ID: &str =
    "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}-[1-9][0-9]{0,8}$";

/// A text of a pattern.
fn shaped(pattern: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(pattern))
        .into()
}

fn event_id() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(EVENT_ID))
        .into()
}

fn uuid() -> RefOr<Schema> {
    let format = SchemaFormat::Custom("uuid".to_owned());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .into()
}

fn time() -> RefOr<Schema> {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(format))
        .into()
}

fn names(names: &[&str]) -> RefOr<Schema> {
    let names = names.iter().copied();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
        .into()
}

fn integer(least: i64, most: i64) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(least))
        .maximum(Some(most))
        .into()
}
