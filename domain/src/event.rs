//! What happened to an order. Events are facts: they are never rejected, only folded.

use std::borrow::Cow;

use crate::{Amount, Currency, CustomerId, Line, Metadata};

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
}

/// The idempotency key a command came with, kept with the event it made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency<'a> {
    /// The client's key, at most 255 characters.
    pub key: Cow<'a, str>,
    /// Digest of the request (operation, target and body): the same key with another digest is refused.
    pub fingerprint: [u8; 16],
}

impl Idempotency<'_> {
    /// What the key is looked up by: a 128-bit digest of the key within its scope. The scope is `None` for the command
    /// that makes an order, and the order for every other command.
    #[must_use]
    pub fn digest(key: &str, scope: Option<crate::OrderId>) -> [u8; 16] {
        let _ = (key, scope);
        todo!()
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

/// An event with where it came from: what one record of the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent<'a> {
    /// What happened.
    pub event: Event<'a>,
    /// Where it came from.
    pub context: EventContext<'a>,
}
