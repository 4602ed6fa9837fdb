//! The operations: one a route and method, with everything they answer.
//!
//! Long because every answer of every endpoint is described here, failures included.

use crate::error::ProblemKind;
use crate::route::{MethodLabel, Route};

/// One operation as the document describes it.
pub(super) struct Operation {
    pub(super) route: Route,
    pub(super) method: MethodLabel,
    pub(super) id: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) description: &'static str,
    /// Names in the components.
    pub(super) parameters: &'static [&'static str],
    pub(super) body: Option<RequestBody>,
    pub(super) answers: &'static [Outcome],
    /// Beside those that follow from the route: of the door, of the query, of the token.
    pub(super) problems: &'static [ProblemKind],
}

/// A request's body.
pub(super) struct RequestBody {
    pub(super) media_type: &'static str,
    /// Name in the components.
    pub(super) schema: &'static str,
    pub(super) required: bool,
}

/// An answer that is no failure.
pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) description: &'static str,
    /// Media type, and the schema's name in the components.
    pub(super) content: Option<(&'static str, &'static str)>,
    /// Names in the components, beside `X-Request-Id`.
    pub(super) headers: &'static [&'static str],
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

const fn json(schema: &'static str, required: bool) -> Option<RequestBody> {
    Some(RequestBody {
        media_type: JSON,
        schema,
        required,
    })
}

/// An answer of 200 with JSON.
const fn ok(
    schema: &'static str,
    description: &'static str,
    headers: &'static [&'static str],
) -> Outcome {
    Outcome {
        status: 200,
        description,
        content: Some((JSON, schema)),
        headers,
    }
}

const PLACE_PARAMETERS: &[&str] = &["IfMatch", "IdempotencyKey", "RequestId", "Traceparent"];

const STEP_PARAMETERS: &[&str] = &[
    "OrderId",
    "IfMatch",
    "IdempotencyKey",
    "RequestId",
    "Traceparent",
];

const COMMANDED: &[&str] = &["ETag", "Sync-Token", "Idempotency-Replayed"];

const STEPPED: &[Outcome] = &[ok("Order", "The order after the step.", COMMANDED)];

const PLACE_PROBLEMS: &[ProblemKind] = &[
    ProblemKind::InvalidJson,
    ProblemKind::InvalidRequest,
    ProblemKind::InvalidHeader,
    ProblemKind::IdempotencyKeyRequired,
    ProblemKind::RequestTimeout,
    ProblemKind::VersionMismatch,
    ProblemKind::BodyTooLarge,
    ProblemKind::UnsupportedMediaType,
    ProblemKind::InvalidValue,
    ProblemKind::AmountOverflow,
    ProblemKind::IdempotencyMismatch,
    ProblemKind::ProjectorBehind,
    ProblemKind::StorageFull,
    ProblemKind::PartitionUnavailable,
    ProblemKind::OutcomeUnknown,
    ProblemKind::Stopping,
];

const STEP_PROBLEMS: &[ProblemKind] = &[
    ProblemKind::InvalidJson,
    ProblemKind::InvalidRequest,
    ProblemKind::InvalidHeader,
    ProblemKind::IdempotencyKeyRequired,
    ProblemKind::OrderNotFound,
    ProblemKind::RequestTimeout,
    ProblemKind::InvalidTransition,
    ProblemKind::VersionMismatch,
    ProblemKind::BodyTooLarge,
    ProblemKind::UnsupportedMediaType,
    ProblemKind::InvalidValue,
    ProblemKind::AmountOverflow,
    ProblemKind::PaymentMismatch,
    ProblemKind::RefundMismatch,
    ProblemKind::IdempotencyMismatch,
    ProblemKind::PreconditionRequired,
    ProblemKind::ProjectorBehind,
    ProblemKind::OrderParked,
    ProblemKind::StorageFull,
    ProblemKind::PartitionUnavailable,
    ProblemKind::OutcomeUnknown,
    ProblemKind::Stopping,
];

const LINE_PROBLEMS: &[ProblemKind] = &[
    ProblemKind::InvalidHeader,
    ProblemKind::OrderNotFound,
    ProblemKind::LineNotFound,
    ProblemKind::InvalidTransition,
    ProblemKind::LastLine,
    ProblemKind::VersionMismatch,
    ProblemKind::IdempotencyMismatch,
    ProblemKind::PreconditionRequired,
    ProblemKind::ProjectorBehind,
    ProblemKind::OrderParked,
    ProblemKind::StorageFull,
    ProblemKind::PartitionUnavailable,
    ProblemKind::OutcomeUnknown,
    ProblemKind::Stopping,
];

const READ_PROBLEMS: &[ProblemKind] = &[
    ProblemKind::InvalidHeader,
    ProblemKind::InvalidSyncToken,
    ProblemKind::OrderNotFound,
    ProblemKind::VersionNotFound,
    ProblemKind::VersionCompacted,
    ProblemKind::VersionNotReached,
    ProblemKind::HistoryTooLong,
    ProblemKind::OrderParked,
    ProblemKind::ReadModelBehind,
];

/// Of what is done to a projection's tables.
const TASK_PROBLEMS: &[ProblemKind] = &[
    ProblemKind::ProjectionNotFound,
    ProblemKind::ProjectionBusy,
    ProblemKind::ProjectorElsewhere,
];

const fn step(
    route: Route,
    id: &'static str,
    summary: &'static str,
    description: &'static str,
    body: Option<RequestBody>,
) -> Operation {
    Operation {
        route,
        method: MethodLabel::Post,
        id,
        tag: "orders",
        summary,
        description,
        parameters: STEP_PARAMETERS,
        body,
        answers: STEPPED,
        problems: STEP_PROBLEMS,
    }
}

const fn health(route: Route, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        route,
        method: MethodLabel::Get,
        id,
        tag: "machines",
        summary,
        description: "",
        parameters: &[],
        body: None,
        answers: &[Outcome {
            status: 200,
            description: "Alive.",
            content: Some((TEXT, "Text")),
            headers: &[],
        }],
        problems: &[],
    }
}

/// Every operation of the service.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        route: Route::Orders,
        method: MethodLabel::Post,
        id: "placeOrder",
        tag: "orders",
        summary: "Place an order",
        description: "Acknowledged means: kept as durably as the service is configured to. There is no version to match yet: \
                      `If-Match` with an entity tag is 412, `*` asks for nothing.",
        parameters: PLACE_PARAMETERS,
        body: json("PlaceOrder", true),
        answers: &[Outcome {
            status: 201,
            description: "The order as it was placed.",
            content: Some((JSON, "Order")),
            headers: &["Location", "ETag", "Sync-Token", "Idempotency-Replayed"],
        }],
        problems: PLACE_PROBLEMS,
    },
    Operation {
        route: Route::Orders,
        method: MethodLabel::Get,
        id: "listOrders",
        tag: "orders",
        summary: "List orders, newest first",
        description: "Follow `Link: rel=\"next\"` for the next page. A cursor belongs to its filters.",
        parameters: &[
            "Status",
            "CustomerId",
            "CreatedAfter",
            "CreatedBefore",
            "Limit",
            "Cursor",
            "SyncToken",
            "Prefer",
            "RequestId",
        ],
        body: None,
        answers: &[ok(
            "OrderPage",
            "A page of orders.",
            &["Link", "Read-Model-Lag-Seconds", "Preference-Applied"],
        )],
        problems: &[ProblemKind::InvalidSyncToken, ProblemKind::ReadModelBehind],
    },
    Operation {
        route: Route::Order,
        method: MethodLabel::Get,
        id: "getOrder",
        tag: "orders",
        summary: "Read an order, now or as it was",
        description: "At most one of `min_version`, `at_version` and `as_of`. An order that was acknowledged is never \
                      answered with 404: the read waits for the read model, and is 503 `read-model-behind` if that \
                      takes too long.",
        parameters: &[
            "OrderId",
            "MinVersion",
            "AtVersion",
            "AsOf",
            "IfNoneMatch",
            "SyncToken",
            "Prefer",
            "RequestId",
        ],
        body: None,
        answers: &[
            ok(
                "Order",
                "The order.",
                &[
                    "ETag",
                    "Read-Model-Lag-Seconds",
                    "Read-Model-Position",
                    "Preference-Applied",
                ],
            ),
            Outcome {
                status: 304,
                description: "The order still has a version of `If-None-Match`.",
                content: None,
                headers: &[
                    "ETag",
                    "Read-Model-Lag-Seconds",
                    "Read-Model-Position",
                    "Preference-Applied",
                ],
            },
        ],
        problems: READ_PROBLEMS,
    },
    step(
        Route::Confirm,
        "confirmOrder",
        "Confirm an order",
        "Fixes its lines. Only while placed.",
        json("NoFields", false),
    ),
    step(
        Route::Pay,
        "payOrder",
        "Pay an order",
        "The whole total at once. Only while confirmed.",
        json("PayOrder", true),
    ),
    step(
        Route::Ship,
        "shipOrder",
        "Ship an order",
        "Hands it to a carrier. Only while paid.",
        json("ShipOrder", false),
    ),
    step(
        Route::Deliver,
        "deliverOrder",
        "Deliver an order",
        "Only while shipped.",
        json("NoFields", false),
    ),
    step(
        Route::Cancel,
        "cancelOrder",
        "Cancel an order",
        "Before it is shipped. What was paid and not paid back is refunded.",
        json("CancelOrder", false),
    ),
    step(
        Route::Refund,
        "refundOrder",
        "Refund an order",
        "In part, or all that is left if no amount is given. After it was paid.",
        json("RefundOrder", false),
    ),
    step(
        Route::Lines,
        "addLine",
        "Add a line to an order",
        "Only while placed.",
        json("NewLine", true),
    ),
    Operation {
        route: Route::Line,
        method: MethodLabel::Delete,
        id: "removeLine",
        tag: "orders",
        summary: "Remove a line of an order",
        description: "Only while placed, and never the last one.",
        parameters: &[
            "OrderId",
            "LineId",
            "IfMatch",
            "IdempotencyKey",
            "RequestId",
            "Traceparent",
        ],
        body: None,
        answers: STEPPED,
        problems: LINE_PROBLEMS,
    },
    Operation {
        route: Route::OrdersBulk,
        method: MethodLabel::Post,
        id: "placeOrders",
        tag: "orders",
        summary: "Place many orders, streamed",
        description: "One order a line in, one outcome a line out, in the same order, while more lines come in. A \
                      line's failure concerns that line alone. Read answers while you send: when 1,000 lines wait for \
                      their outcome, no more are read. An Idempotency-Key counts for every line, with its number. `If-Match` \
                      with an entity tag is 412, and no line is looked at.",
        parameters: PLACE_PARAMETERS,
        body: Some(RequestBody {
            media_type: "application/x-ndjson",
            schema: "OrderLines",
            required: true,
        }),
        answers: &[Outcome {
            status: 200,
            description: "An outcome a line.",
            content: Some(("application/x-ndjson", "OutcomeLines")),
            headers: &[],
        }],
        problems: &[
            ProblemKind::InvalidHeader,
            ProblemKind::IdempotencyKeyRequired,
            ProblemKind::VersionMismatch,
            ProblemKind::UnsupportedMediaType,
        ],
    },
    Operation {
        route: Route::OrderEvents,
        method: MethodLabel::Get,
        id: "listOrderEvents",
        tag: "history",
        summary: "What happened to an order",
        description: "Oldest first, from the log. Follow `Link: rel=\"next\"` for more. Where the log was compacted, the \
                      events of an order that was closed long ago are told as one, `OrderSnapshot`.",
        parameters: &[
            "OrderId",
            "AfterVersion",
            "EventLimit",
            "SyncToken",
            "Prefer",
            "RequestId",
        ],
        body: None,
        answers: &[ok(
            "OrderEvents",
            "A page of events.",
            &[
                "Link",
                "Read-Model-Lag-Seconds",
                "Read-Model-Position",
                "Preference-Applied",
            ],
        )],
        problems: &[
            ProblemKind::InvalidSyncToken,
            ProblemKind::OrderNotFound,
            ProblemKind::HistoryTooLong,
            ProblemKind::OrderParked,
            ProblemKind::ReadModelBehind,
        ],
    },
    Operation {
        route: Route::Events,
        method: MethodLabel::Get,
        id: "followEvents",
        tag: "history",
        summary: "Follow everything that happens",
        description: "Server-sent events: what the log has, then what comes. An event's id is opaque; a client that \
                      reconnects sends it as `Last-Event-ID` and goes on behind it. Events of one order keep their \
                      order; an event may be shown again after a reconnect. Ends when the service stops.",
        parameters: &["Partition", "EventType", "From", "LastEventId", "RequestId"],
        body: None,
        answers: &[Outcome {
            status: 200,
            description: "A stream without an end; `event` is the type, `data` an event.",
            content: Some(("text/event-stream", "FeedEvent")),
            headers: &[],
        }],
        problems: &[ProblemKind::InvalidHeader],
    },
    Operation {
        route: Route::Projections,
        method: MethodLabel::Get,
        id: "listProjections",
        tag: "operators",
        summary: "How the projections stand",
        description: "",
        parameters: &["RequestId"],
        body: None,
        answers: &[ok(
            "Projections",
            "Every projection of every partition.",
            &[],
        )],
        problems: &[ProblemKind::ReadModelBehind],
    },
    Operation {
        route: Route::Pause,
        method: MethodLabel::Post,
        id: "pauseProjection",
        tag: "operators",
        summary: "Pause a projection",
        description: "It stays paused over restarts. While `orders` is paused, commands are refused once it is too \
                      far behind.",
        parameters: &["ProjectionName", "RequestId"],
        body: None,
        answers: &[ok("Projection", "The projection.", &[])],
        problems: &[
            ProblemKind::ProjectionNotFound,
            ProblemKind::ProjectorElsewhere,
            ProblemKind::ReadModelBehind,
        ],
    },
    Operation {
        route: Route::Resume,
        method: MethodLabel::Post,
        id: "resumeProjection",
        tag: "operators",
        summary: "Resume a projection",
        description: "It goes on from its checkpoint.",
        parameters: &["ProjectionName", "RequestId"],
        body: None,
        answers: &[ok("Projection", "The projection.", &[])],
        problems: &[
            ProblemKind::ProjectionNotFound,
            ProblemKind::ProjectorElsewhere,
            ProblemKind::ReadModelBehind,
        ],
    },
    Operation {
        route: Route::Parked,
        method: MethodLabel::Get,
        id: "listParkedOrders",
        tag: "operators",
        summary: "Orders that a projection has set aside",
        description: "An event of each could not be applied; later ones of the same order wait behind it. By order.",
        parameters: &["ProjectionName", "ParkedLimit", "ParkedAfter", "RequestId"],
        body: None,
        answers: &[ok("ParkedOrders", "A page of parked orders.", &[])],
        problems: &[
            ProblemKind::ProjectionNotFound,
            ProblemKind::ReadModelBehind,
        ],
    },
    Operation {
        route: Route::RedriveParked,
        method: MethodLabel::Post,
        id: "redriveParkedOrders",
        tag: "operators",
        summary: "Try a projection's parked orders again",
        description: "Each from its first parked event on. Those that still cannot be applied stay parked.",
        parameters: &["ProjectionName", "RequestId"],
        body: None,
        answers: &[ok("ParkedRedriven", "What came of it.", &[])],
        problems: &[
            ProblemKind::ProjectionNotFound,
            ProblemKind::ProjectorElsewhere,
            ProblemKind::ProjectorHalted,
        ],
    },
    Operation {
        route: Route::Rebuild,
        method: MethodLabel::Post,
        id: "rebuildProjection",
        tag: "operators",
        summary: "Rebuild a projection beside the live one",
        description: "The log is folded into new tables, compared with the live ones, and switched to in one step; the old tables are kept. Reads see no gap, and nothing is told to the outside world. `GET /projections` shows how it goes.",
        parameters: &["ProjectionName", "PreferAsync", "RequestId"],
        body: None,
        answers: &[Outcome {
            status: 202,
            description: "It has begun.",
            content: Some((JSON, "ProjectionTask")),
            headers: &["Preference-Applied"],
        }],
        problems: TASK_PROBLEMS,
    },
    Operation {
        route: Route::SwitchBack,
        method: MethodLabel::Post,
        id: "switchProjectionBack",
        tag: "operators",
        summary: "Switch back to the old tables",
        description: "The tables that a rebuild replaced are brought up to date, compared, and switched to.",
        parameters: &["ProjectionName", "PreferAsync", "RequestId"],
        body: None,
        answers: &[Outcome {
            status: 202,
            description: "It has begun.",
            content: Some((JSON, "ProjectionTask")),
            headers: &["Preference-Applied"],
        }],
        problems: TASK_PROBLEMS,
    },
    Operation {
        route: Route::DiscardOld,
        method: MethodLabel::Post,
        id: "discardOldProjection",
        tag: "operators",
        summary: "Discard the old tables",
        description: "Those that a rebuild replaced, and what an unfinished one left.",
        parameters: &["ProjectionName", "PreferAsync", "RequestId"],
        body: None,
        answers: &[Outcome {
            status: 202,
            description: "It has begun.",
            content: Some((JSON, "ProjectionTask")),
            headers: &["Preference-Applied"],
        }],
        problems: TASK_PROBLEMS,
    },
    Operation {
        route: Route::Reindex,
        method: MethodLabel::Post,
        id: "reindexProjection",
        tag: "operators",
        summary: "Make a projection's indexes anew",
        description: "The projection stands still meanwhile; reads go on.",
        parameters: &["ProjectionName", "PreferAsync", "RequestId"],
        body: None,
        answers: &[Outcome {
            status: 202,
            description: "It has begun.",
            content: Some((JSON, "ProjectionTask")),
            headers: &["Preference-Applied"],
        }],
        problems: TASK_PROBLEMS,
    },
    Operation {
        route: Route::CancelTask,
        method: MethodLabel::Post,
        id: "cancelProjectionTask",
        tag: "operators",
        summary: "Stop what is being done to a projection's tables",
        description: "The live tables stay as they are; a rebuild that is asked for later begins anew.",
        parameters: &["ProjectionName", "RequestId"],
        body: None,
        answers: &[ok("ProjectionTask", "It stops within moments.", &[])],
        problems: TASK_PROBLEMS,
    },
    Operation {
        route: Route::Outbox,
        method: MethodLabel::Get,
        id: "getOutbox",
        tag: "operators",
        summary: "How the outbox stands",
        description: "",
        parameters: &["RequestId"],
        body: None,
        answers: &[ok("Outbox", "The outbox.", &[])],
        problems: &[ProblemKind::NotFound],
    },
    Operation {
        route: Route::DeadLetters,
        method: MethodLabel::Get,
        id: "listDeadLetters",
        tag: "operators",
        summary: "Events that wait for an operator",
        description: "By order and version.",
        parameters: &["DeadLimit", "DeadAfter", "RequestId"],
        body: None,
        answers: &[ok("DeadLetters", "A page of dead letters.", &[])],
        problems: &[ProblemKind::NotFound, ProblemKind::OutboxUnavailable],
    },
    Operation {
        route: Route::DeadLetter,
        method: MethodLabel::Get,
        id: "getDeadLetter",
        tag: "operators",
        summary: "One event that is dead or being retried",
        description: "With the CloudEvent as its receiver would see it.",
        parameters: &["EventId", "RequestId"],
        body: None,
        answers: &[ok("DeadLetter", "The event.", &[])],
        problems: &[ProblemKind::EventNotHeld, ProblemKind::NotFound],
    },
    Operation {
        route: Route::Redrive,
        method: MethodLabel::Post,
        id: "redriveDeadLetter",
        tag: "operators",
        summary: "Try a dead event again",
        description: "With the dead events of its order before it: an order's events are told in order.",
        parameters: &["EventId", "RequestId"],
        body: None,
        answers: &[ok("Redriven", "How many events are tried again.", &[])],
        problems: &[
            ProblemKind::EventNotHeld,
            ProblemKind::NotFound,
            ProblemKind::EventNotDead,
            ProblemKind::OutboxUnavailable,
        ],
    },
    Operation {
        route: Route::RedriveAll,
        method: MethodLabel::Post,
        id: "redriveDeadLetters",
        tag: "operators",
        summary: "Try all dead events again",
        description: "",
        parameters: &["RequestId"],
        body: None,
        answers: &[ok("Redriven", "How many events are tried again.", &[])],
        problems: &[ProblemKind::NotFound, ProblemKind::OutboxUnavailable],
    },
    Operation {
        route: Route::EnableOutbox,
        method: MethodLabel::Post,
        id: "enableOutbox",
        tag: "operators",
        summary: "Send again to a target that answered 410 Gone",
        description: "Lasts over restarts. Harmless if nothing was disabled.",
        parameters: &["RequestId"],
        body: None,
        answers: &[ok("Outbox", "The outbox as it stands then.", &[])],
        problems: &[ProblemKind::NotFound, ProblemKind::OutboxUnavailable],
    },
    Operation {
        route: Route::RestartOutbox,
        method: MethodLabel::Post,
        id: "restartOutbox",
        tag: "operators",
        summary: "Restart the dispatcher",
        description: "Whatever stopped it. What was on its way may be told twice, with the same ids; nothing is left \
                      out, and what backs off keeps its time.",
        parameters: &["RequestId"],
        body: None,
        answers: &[ok("Outbox", "The outbox as it stands then.", &[])],
        problems: &[ProblemKind::NotFound],
    },
    Operation {
        route: Route::LogRotate,
        method: MethodLabel::Post,
        id: "rotateLog",
        tag: "operators",
        summary: "Seal the log's active segments",
        description: "The next append of each partition begins a new segment. Harmless to repeat: an empty segment \
                      stays. If a partition fails, the others have been tried.",
        parameters: &["RequestId"],
        body: None,
        answers: &[ok(
            "Rotated",
            "Which partitions had something to seal.",
            &[],
        )],
        problems: &[
            ProblemKind::RotationUnsupported,
            ProblemKind::Overloaded,
            ProblemKind::StorageFull,
            ProblemKind::PartitionUnavailable,
            ProblemKind::Stopping,
        ],
    },
    health(Route::Livez, "livez", "Whether the process answers"),
    health(Route::Healthz, "healthz", "The same as /livez"),
    Operation {
        route: Route::Readyz,
        method: MethodLabel::Get,
        id: "readyz",
        tag: "machines",
        summary: "Whether this process should get traffic",
        description: "`degraded` is ready, with something that an operator should see.",
        parameters: &["Verbose"],
        body: None,
        answers: &[
            Outcome {
                status: 200,
                description: "Ready.",
                content: Some((TEXT, "Text")),
                headers: &[],
            },
            Outcome {
                status: 503,
                description: "Not ready, and why.",
                content: Some((TEXT, "Text")),
                headers: &[],
            },
        ],
        problems: &[],
    },
    Operation {
        route: Route::Metrics,
        method: MethodLabel::Get,
        id: "metrics",
        tag: "machines",
        summary: "Metrics in the Prometheus text format",
        description: "",
        parameters: &[],
        body: None,
        answers: &[Outcome {
            status: 200,
            description: "The metrics.",
            content: Some(("text/plain; version=0.0.4", "Text")),
            headers: &[],
        }],
        problems: &[],
    },
    Operation {
        route: Route::OpenApi,
        method: MethodLabel::Get,
        id: "openapi",
        tag: "machines",
        summary: "This document",
        description: "",
        parameters: &[],
        body: None,
        answers: &[ok("AnyObject", "The document.", &[])],
        problems: &[],
    },
];
