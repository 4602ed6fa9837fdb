//! What happened to an order. Events are facts: they are never rejected, only folded.

use std::borrow::Cow;

use crate::idempotency::{Idempotency, UsedKey};
use crate::names::named;
use crate::{Amount, Currency, CustomerId, Line, Metadata, OrderId, Snapshot};

/// One fact about one order. Its time is the append time of its frame; its order is the key of its frame.
///
/// Borrows from the log's bytes when decoded for replay; `Event<'static>` owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// A new order.
    OrderPlaced {
        /// Who ordered.
        customer_id: CustomerId<'a>,
        /// Currency of every amount of the order.
        currency: Currency,
        /// The lines, numbered from 1.
        lines: Vec<Line<'a>>,
        /// The client's labels.
        metadata: Metadata,
    },
    /// A line was added.
    LineAdded {
        /// The line with its id.
        line: Line<'a>,
    },
    /// A line was removed.
    LineRemoved {
        /// The line as it was: readers of the log need not look it up.
        line: Line<'a>,
    },
    /// The lines are fixed.
    OrderConfirmed,
    /// The total was paid.
    OrderPaid {
        /// The order's total.
        amount: Amount,
        /// The payment provider's reference.
        reference: Option<Cow<'a, str>>,
    },
    /// Handed to a carrier.
    OrderShipped {
        /// Who carries it.
        carrier: Option<Cow<'a, str>>,
        /// The carrier's number.
        tracking_number: Option<Cow<'a, str>>,
    },
    /// Arrived.
    OrderDelivered,
    /// Money went back. Status becomes `Refunded` when all of it did, unless the order was cancelled.
    OrderRefunded {
        /// How much, in minor units of the order's currency.
        amount: Amount,
        /// Why, in the client's words.
        reason: Option<Cow<'a, str>>,
    },
    /// Ended before shipping. Follows an `OrderRefunded` in the same frame if anything was paid.
    OrderCancelled {
        /// Why, in the client's words.
        reason: Option<Cow<'a, str>>,
    },
    /// All events up to a version, told as one, in a log that was compacted: always the order's first. No command makes it,
    /// and nothing happened when it was written. Boxed: it is large and rare.
    OrderSnapshot(Box<Snapshot<'a>>),
}

impl Event<'_> {
    /// What kind of event this is.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::OrderPlaced { .. } => EventKind::OrderPlaced,
            Self::LineAdded { .. } => EventKind::LineAdded,
            Self::LineRemoved { .. } => EventKind::LineRemoved,
            Self::OrderConfirmed => EventKind::OrderConfirmed,
            Self::OrderPaid { .. } => EventKind::OrderPaid,
            Self::OrderShipped { .. } => EventKind::OrderShipped,
            Self::OrderDelivered => EventKind::OrderDelivered,
            Self::OrderRefunded { .. } => EventKind::OrderRefunded,
            Self::OrderCancelled { .. } => EventKind::OrderCancelled,
            Self::OrderSnapshot(_) => EventKind::OrderSnapshot,
        }
    }

    /// The same event, owning its texts.
    #[must_use]
    pub fn into_owned(self) -> Event<'static> {
        match self {
            Self::OrderPlaced {
                customer_id,
                currency,
                lines,
                metadata,
            } => Event::OrderPlaced {
                customer_id: customer_id.into_owned(),
                currency,
                lines: lines.into_iter().map(Line::into_owned).collect(),
                metadata,
            },
            Self::LineAdded { line } => Event::LineAdded {
                line: line.into_owned(),
            },
            Self::LineRemoved { line } => Event::LineRemoved {
                line: line.into_owned(),
            },
            Self::OrderConfirmed => Event::OrderConfirmed,
            Self::OrderPaid { amount, reference } => Event::OrderPaid {
                amount,
                reference: owned(reference),
            },
            Self::OrderShipped {
                carrier,
                tracking_number,
            } => Event::OrderShipped {
                carrier: owned(carrier),
                tracking_number: owned(tracking_number),
            },
            Self::OrderDelivered => Event::OrderDelivered,
            Self::OrderRefunded { amount, reason } => Event::OrderRefunded {
                amount,
                reason: owned(reason),
            },
            Self::OrderCancelled { reason } => Event::OrderCancelled {
                reason: owned(reason),
            },
            Self::OrderSnapshot(snapshot) => Event::OrderSnapshot(Box::new(snapshot.into_owned())),
        }
    }
}

fn owned(text: Option<Cow<'_, str>>) -> Option<Cow<'static, str>> {
    text.map(|text| Cow::Owned(text.into_owned()))
}

/// The kind of an event: a stable number in the log and a stable name for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum EventKind {
    /// [`Event::OrderPlaced`]
    OrderPlaced = 1,
    /// [`Event::LineAdded`]
    LineAdded = 2,
    /// [`Event::LineRemoved`]
    LineRemoved = 3,
    /// [`Event::OrderConfirmed`]
    OrderConfirmed = 4,
    /// [`Event::OrderPaid`]
    OrderPaid = 5,
    /// [`Event::OrderShipped`]
    OrderShipped = 6,
    /// [`Event::OrderDelivered`]
    OrderDelivered = 7,
    /// [`Event::OrderRefunded`]
    OrderRefunded = 8,
    /// [`Event::OrderCancelled`]
    OrderCancelled = 9,
    /// [`Event::OrderSnapshot`]
    OrderSnapshot = 10,
}

named!(EventKind {
    OrderPlaced => "OrderPlaced",
    LineAdded => "LineAdded",
    LineRemoved => "LineRemoved",
    OrderConfirmed => "OrderConfirmed",
    OrderPaid => "OrderPaid",
    OrderShipped => "OrderShipped",
    OrderDelivered => "OrderDelivered",
    OrderRefunded => "OrderRefunded",
    OrderCancelled => "OrderCancelled",
    OrderSnapshot => "OrderSnapshot",
});

impl EventKind {
    /// Its number in the log, never used again for another kind.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The kind with this number in the log; `None` if this version knows none.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::OrderPlaced),
            2 => Some(Self::LineAdded),
            3 => Some(Self::LineRemoved),
            4 => Some(Self::OrderConfirmed),
            5 => Some(Self::OrderPaid),
            6 => Some(Self::OrderShipped),
            7 => Some(Self::OrderDelivered),
            8 => Some(Self::OrderRefunded),
            9 => Some(Self::OrderCancelled),
            10 => Some(Self::OrderSnapshot),
            _ => None,
        }
    }
}

/// Where an event came from; stored with the first event of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventContext<'a> {
    /// The idempotency key of the command.
    pub idempotency: Option<Idempotency<'a>>,
    /// W3C trace context of the request.
    pub traceparent: Option<Cow<'a, str>>,
    /// The request's id.
    pub request_id: Option<Cow<'a, str>>,
}

impl EventContext<'_> {
    /// Whether there is nothing to tell.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.idempotency.is_none() && self.traceparent.is_none() && self.request_id.is_none()
    }

    /// The same context, owning its texts.
    #[must_use]
    pub fn into_owned(self) -> EventContext<'static> {
        EventContext {
            idempotency: self.idempotency.map(Idempotency::into_owned),
            traceparent: owned(self.traceparent),
            request_id: owned(self.request_id),
        }
    }
}

/// An event with where it came from: what one record of the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent<'a> {
    /// What happened.
    pub event: Event<'a>,
    /// Where it came from.
    pub context: EventContext<'a>,
}

impl RecordedEvent<'_> {
    /// The idempotency key that made this event of `order`, as it is looked up; `None` if the command had none, or if
    /// an earlier event of its frame tells. The one place that says in which scope an event's key counts.
    #[must_use]
    pub fn used_key(&self, order: OrderId) -> Option<UsedKey> {
        let idempotency = self.context.idempotency.as_ref()?;
        Some(UsedKey {
            digest: Idempotency::digest(&idempotency.key, self.event.key_scope(order)),
            fingerprint: idempotency.fingerprint,
        })
    }

    /// The same record, owning its texts.
    #[must_use]
    pub fn into_owned(self) -> RecordedEvent<'static> {
        RecordedEvent {
            event: self.event.into_owned(),
            context: self.context.into_owned(),
        }
    }
}
