//! What happened to an order. Events are facts: they are never rejected, only folded.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::names::named;
use crate::{Amount, Currency, CustomerId, Line, Metadata, OrderId};

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
            _ => None,
        }
    }
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
    /// Longest key a client may send, in characters.
    pub const KEY_CHARACTERS_MAX: usize = 255;

    /// What the key is looked up by: a 128-bit digest of the key within its scope. The scope is `None` for the command
    /// that makes an order, and the order for every other command. Keys are chosen by clients, so the digest is
    /// cryptographic: nobody can make two keys meet.
    #[must_use]
    pub fn digest(key: &str, scope: Option<OrderId>) -> [u8; 16] {
        let mut hash = Sha256::new_with_prefix(b"idempotency key\0");
        match scope {
            None => hash.update([0]),
            Some(order) => {
                hash.update([1]);
                hash.update(order.as_bytes());
            }
        }
        // The key is last and all before it has a length of its own: no two inputs are the same bytes.
        hash.update(key);
        first_half(hash)
    }

    /// The fingerprint of a request: a 128-bit digest of its parts (operation, target, body, …), each with its length,
    /// so that moving a byte from one part to the next gives another fingerprint.
    #[must_use]
    pub fn fingerprint(parts: &[&[u8]]) -> [u8; 16] {
        let mut hash = Sha256::new_with_prefix(b"request fingerprint\0");
        for part in parts {
            let length = part.len() as u64;
            hash.update(length.to_le_bytes());
            hash.update(part);
        }
        first_half(hash)
    }

    /// The same key, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Idempotency<'static> {
        Idempotency {
            key: Cow::Owned(self.key.into_owned()),
            fingerprint: self.fingerprint,
        }
    }
}

fn first_half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
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
    /// The same record, owning its texts.
    #[must_use]
    pub fn into_owned(self) -> RecordedEvent<'static> {
        RecordedEvent {
            event: self.event.into_owned(),
            context: self.context.into_owned(),
        }
    }
}
