//! The shapes of bodies. Requests are described from the structs they are parsed into; answers that are written by hand
//! are described by the structs here.

use std::collections::BTreeMap;

use order_domain::{
    Currency, EventKind, METADATA_ENTRIES_MAX, METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX,
    Status, TEXT_ID_BYTES_MAX,
};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::admin::{
    DeadLetterJson, DeadLettersJson, OutboxJson, OutboxPartitionJson, RedrivenJson, RotatedJson,
    RotatedPartitionJson,
};
use crate::order_body::{
    CancelBody, EmptyBody, NewLineBody, PayBody, PlaceOrderBody, RefundBody, ShipBody,
};
use crate::projections::{
    DifferenceJson, ParkedOrderJson, ParkedOrdersJson, ParkedRedrivenJson, ProjectionJson,
    ProjectionPartitionJson, ProjectionsJson, TaskJson,
};

/// Every schema with its name in the components.
pub(super) fn all() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = vec![
        ("Status".to_owned(), status()),
        ("Currency".to_owned(), currency()),
        ("EventType".to_owned(), event_type()),
        (
            "Text".to_owned(),
            ObjectBuilder::new().schema_type(Type::String).into(),
        ),
        (
            "AnyObject".to_owned(),
            ObjectBuilder::new()
                .schema_type(Type::Object)
                .additional_properties(Some(AdditionalProperties::FreeForm(true)))
                .into(),
        ),
        (
            "OrderLines".to_owned(),
            described("Orders as of POST /orders, one JSON object a line."),
        ),
        (
            "OutcomeLines".to_owned(),
            described(
                "For each line: {\"line\", \"status\": 201, \"id\", \"version\", \"sync_token\", \"replayed\"}, or \
                 {\"line\", \"status\", \"problem\"}, with \"retry_after\" in seconds where an answer has \
                 Retry-After.",
            ),
        ),
    ];
    add::<PlaceOrderBody<'static>>(&mut schemas);
    add::<NewLineBody<'static>>(&mut schemas);
    add::<PayBody>(&mut schemas);
    add::<ShipBody>(&mut schemas);
    add::<CancelBody>(&mut schemas);
    add::<RefundBody>(&mut schemas);
    add::<EmptyBody>(&mut schemas);
    add::<Order>(&mut schemas);
    add::<OrderLine>(&mut schemas);
    add::<OrderPage>(&mut schemas);
    add::<OrderEvents>(&mut schemas);
    add::<OrderEvent>(&mut schemas);
    add::<FeedEvent>(&mut schemas);
    add::<Problem>(&mut schemas);
    add::<FieldError>(&mut schemas);
    add::<ProjectionsJson>(&mut schemas);
    add::<ProjectionJson>(&mut schemas);
    add::<ProjectionPartitionJson>(&mut schemas);
    add::<TaskJson>(&mut schemas);
    add::<DifferenceJson>(&mut schemas);
    add::<ParkedOrdersJson>(&mut schemas);
    add::<ParkedOrderJson>(&mut schemas);
    add::<ParkedRedrivenJson>(&mut schemas);
    add::<OutboxJson>(&mut schemas);
    add::<OutboxPartitionJson>(&mut schemas);
    add::<DeadLettersJson>(&mut schemas);
    add::<DeadLetterJson>(&mut schemas);
    add::<RedrivenJson>(&mut schemas);
    add::<RotatedJson>(&mut schemas);
    add::<RotatedPartitionJson>(&mut schemas);
    schemas
}

fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
}

fn described(description: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    text.description(Some(description)).into()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(names))
}

/// The status of an order.
pub(super) fn status() -> RefOr<Schema> {
    names(Status::ALL.iter().map(|status| status.name())).into()
}

/// The type of an event.
fn event_type() -> RefOr<Schema> {
    names(EventKind::ALL.iter().map(|kind| kind.name())).into()
}

/// The currencies an order can have: asked of the domain, which holds the table.
fn currency() -> RefOr<Schema> {
    let letters = || b'A'..=b'Z';
    let mut codes = Vec::new();
    for (a, b) in letters().flat_map(|a| letters().map(move |b| (a, b))) {
        for c in letters() {
            let code = [a, b, c].map(char::from).iter().collect::<String>();
            if Currency::parse(&code).is_ok() {
                codes.push(code);
            }
        }
    }
    names(codes.iter().map(String::as_str))
        .description(Some("ISO 4217, active codes."))
        .into()
}

/// The currency of a new order.
pub(crate) fn currency_ref() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name("Currency"))
}

/// The status of an order, wherever one is shown.
fn status_ref() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name("Status"))
}

/// The type of an event, wherever one is shown.
fn event_type_ref() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name("EventType"))
}

/// A client's labels.
pub(crate) fn metadata() -> RefOr<Schema> {
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(METADATA_KEY_BYTES_MAX))
        .pattern(Some(TEXT_ID_PATTERN));
    let value = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(METADATA_VALUE_BYTES_MAX))
        .pattern(Some("^[ -~]*$"));
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(key))
        .additional_properties(Some(value))
        .max_properties(Some(METADATA_ENTRIES_MAX))
        .description(Some("Labels of the client's own."))
        .into()
}

/// A text chosen by clients: `CustomerId`, `Sku`.
pub(super) fn text_id(description: &str) -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        // The limit is in bytes, which is this many characters only of ASCII; the pattern keeps to that.
        .max_length(Some(TEXT_ID_BYTES_MAX))
        .pattern(Some(TEXT_ID_PATTERN))
        .description(Some(description))
        .into()
}

/// Printable ASCII without white space at an end: what every client can rely on. Other scripts are taken too, up to the
/// limit in bytes.
const TEXT_ID_PATTERN: &str = "^[!-~]([ -~]*[!-~])?$";

/// An order as it stands.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what order_json writes")]
struct Order {
    #[schema(format = "uuid")]
    id: String,
    #[schema(schema_with = status_ref)]
    status: String,
    /// Count of its events; the `ETag` is this in quotes.
    #[schema(minimum = 1)]
    version: u32,
    customer_id: String,
    /// ISO 4217. An old order may have a currency that new ones cannot have.
    currency: String,
    /// Sum over the lines, in minor units.
    #[schema(minimum = 0)]
    total: i64,
    /// What was paid, in minor units; left out while that is nothing.
    #[schema(minimum = 1, required = false)]
    paid: i64,
    /// What was paid back, in minor units; left out while that is nothing.
    #[schema(minimum = 1, required = false)]
    refunded: i64,
    lines: Vec<OrderLine>,
    metadata: BTreeMap<String, String>,
    #[schema(format = "date-time")]
    placed_at: String,
    #[schema(format = "date-time")]
    updated_at: String,
}

/// One line of an order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what order_json writes")]
struct OrderLine {
    /// Unique within the order, never used again.
    #[schema(minimum = 1)]
    line_id: u32,
    sku: String,
    #[schema(minimum = 1, maximum = 1_000_000)]
    quantity: u32,
    /// Minor units.
    #[schema(minimum = 0)]
    unit_price: i64,
}

/// A page of orders, newest first.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the list writes")]
struct OrderPage {
    orders: Vec<Order>,
    /// `cursor` of the next page; left out on the last.
    #[schema(required = false)]
    next_cursor: String,
}

/// A page of an order's events, oldest first.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the history writes")]
struct OrderEvents {
    #[schema(format = "uuid")]
    order_id: String,
    events: Vec<OrderEvent>,
    /// `after_version` of the next page; left out on the last.
    #[schema(required = false)]
    next_after_version: u32,
}

/// Something that happened to an order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what event_json writes")]
struct OrderEvent {
    #[schema(format = "uuid")]
    order_id: String,
    /// The order's version after it.
    #[schema(minimum = 1)]
    version: u32,
    #[schema(schema_with = event_type_ref)]
    r#type: String,
    #[schema(format = "date-time")]
    time: String,
    /// The event's own fields.
    #[schema(value_type = Object)]
    data: (),
    /// `X-Request-Id` of the command, if the client sent one.
    #[schema(required = false)]
    request_id: String,
    /// `traceparent` of the command, if the client sent one.
    #[schema(required = false)]
    traceparent: String,
}

/// One event of the feed, by the fields of a server-sent event.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what the feed writes")]
struct FeedEvent {
    /// Opaque: send it as `Last-Event-ID` to go on behind this event.
    id: String,
    #[schema(schema_with = event_type_ref)]
    event: String,
    /// An `OrderEvent` as JSON.
    data: String,
}

/// What went wrong: RFC 9457.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what error writes")]
struct Problem {
    /// `urn:order-service:problem:<code>`
    r#type: String,
    /// The same for every occurrence of the code.
    title: String,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// Stable: what a program should look at.
    code: String,
    /// About this occurrence, for people.
    detail: String,
    /// The request's path.
    instance: String,
    request_id: String,
    /// Places in the body, with `invalid-request` and `invalid-value`.
    #[schema(required = false)]
    errors: Vec<FieldError>,
    /// The order's version, with `version-mismatch`.
    #[schema(required = false)]
    current_version: u32,
    /// The last version that is known of the order, with `order-parked` and `read-model-behind`.
    #[schema(required = false)]
    known_version: u32,
    /// Where the order is, with `invalid-transition`.
    #[schema(required = false, schema_with = status_ref)]
    order_status: String,
    /// The steps that may follow, with `invalid-transition`.
    #[schema(required = false)]
    allowed: Vec<String>,
}

/// One place in the body, and what is wrong with it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what error writes")]
struct FieldError {
    /// RFC 6901 pointer; empty for the whole body.
    pointer: String,
    detail: String,
}
