//! Events to bytes and back: a codec id and a schema version a record, upcast on the way in.
//!
//! The bytes are laid out in [`stored`], apart from the domain's own types: renaming or moving a field of an event
//! changes no byte. A layout that was ever written is kept and decodes for ever; a change is a new layout with the next
//! schema number and an upcast from the one before.

mod stored;

use std::borrow::Cow;

use bincode::config;
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::{Deserialize, Serialize};

use crate::{Event, EventContext, EventKind, RecordedEvent};
use stored::{Lines, Stored, v1, v2};

/// Longest record that is decoded, in bytes: 5 times the longest that the limits of an order make possible in JSON.
/// Decoding allocates no more than a small multiple of it, whatever the bytes say.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// How a record's bytes are encoded; stored with each record, never reused for another encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// bincode 2, standard configuration: the segmented log.
    Bincode = 1,
    /// One JSON object: the JSONL baseline, `log dump`, import and export.
    Json = 2,
}

impl Codec {
    /// Its number in the log.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The codec with this number in the log; `None` if this version knows none.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Bincode),
            2 => Some(Self::Json),
            _ => None,
        }
    }
}

/// What stands beside a record's bytes in the log and says how to read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Number of the event's kind.
    pub event_type: u16,
    /// Schema version of that kind, from 1.
    pub schema: u8,
    /// Number of the codec.
    pub codec: u8,
}

/// Bytes that are not an event this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A codec number this version does not know.
    #[error("codec {0} is unknown; was this log written by a newer version?")]
    UnknownCodec(u8),
    /// An event number this version does not know.
    #[error("event type {0} is unknown; was this log written by a newer version?")]
    UnknownEvent(u16),
    /// A schema version this version does not know.
    #[error(
        "{kind} has schema {schema}, which is unknown; was this log written by a newer version?"
    )]
    UnknownSchema {
        /// The event's kind.
        kind: EventKind,
        /// Its schema version.
        schema: u8,
    },
    /// Bytes that do not decode, or values outside the domain.
    #[error("{kind} does not decode: {reason}")]
    Malformed {
        /// The event's kind.
        kind: EventKind,
        /// What is wrong.
        reason: String,
    },
}

/// The schema version that [`encode`] writes for a kind of event; [`decode`] reads it and every one before it.
#[must_use]
pub const fn newest_schema(kind: EventKind) -> u8 {
    match kind {
        EventKind::OrderPlaced => 2,
        EventKind::LineAdded
        | EventKind::LineRemoved
        | EventKind::OrderConfirmed
        | EventKind::OrderPaid
        | EventKind::OrderShipped
        | EventKind::OrderDelivered
        | EventKind::OrderRefunded
        | EventKind::OrderCancelled => 1,
    }
}

/// Appends the encoded event to `buffer` and says how it was encoded (the newest schema).
pub fn encode(
    codec: Codec,
    event: &Event<'_>,
    context: &EventContext<'_>,
    buffer: &mut Vec<u8>,
) -> RecordHeader {
    let context = v1::Context::of(context);
    match event {
        Event::OrderPlaced {
            customer_id,
            currency,
            lines,
            metadata,
        } => write(
            codec,
            buffer,
            &v2::OrderPlaced {
                customer_id: customer_id.as_str().into(),
                currency: (*currency).into(),
                lines: Lines::Written(lines),
                metadata: Cow::Borrowed(metadata),
                context,
            },
        ),
        Event::LineAdded { line } => write(
            codec,
            buffer,
            &v1::LineAdded {
                line: line.into(),
                context,
            },
        ),
        Event::LineRemoved { line } => write(
            codec,
            buffer,
            &v1::LineRemoved {
                line: line.into(),
                context,
            },
        ),
        Event::OrderConfirmed => write(codec, buffer, &v1::OrderConfirmed { context }),
        Event::OrderPaid { amount, reference } => write(
            codec,
            buffer,
            &v1::OrderPaid {
                amount: (*amount).into(),
                reference: reference.as_deref().map(Into::into),
                context,
            },
        ),
        Event::OrderShipped {
            carrier,
            tracking_number,
        } => write(
            codec,
            buffer,
            &v1::OrderShipped {
                carrier: carrier.as_deref().map(Into::into),
                tracking_number: tracking_number.as_deref().map(Into::into),
                context,
            },
        ),
        Event::OrderDelivered => write(codec, buffer, &v1::OrderDelivered { context }),
        Event::OrderRefunded { amount, reason } => write(
            codec,
            buffer,
            &v1::OrderRefunded {
                amount: (*amount).into(),
                reason: reason.as_deref().map(Into::into),
                context,
            },
        ),
        Event::OrderCancelled { reason } => write(
            codec,
            buffer,
            &v1::OrderCancelled {
                reason: reason.as_deref().map(Into::into),
                context,
            },
        ),
    }
    let kind = event.kind();
    RecordHeader {
        event_type: kind.number(),
        schema: newest_schema(kind),
        codec: codec.number(),
    }
}

/// Decodes a record, borrowing text from `bytes`; older schemas are upcast to the newest event.
///
/// # Errors
/// [`CodecError`] for bytes of another version, another codec, or none; also for bytes behind the event's last.
pub fn decode(header: RecordHeader, bytes: &[u8]) -> Result<RecordedEvent<'_>, CodecError> {
    let codec = Codec::from_number(header.codec).ok_or(CodecError::UnknownCodec(header.codec))?;
    let kind = EventKind::from_number(header.event_type)
        .ok_or(CodecError::UnknownEvent(header.event_type))?;
    let recorded = match (kind, header.schema) {
        (EventKind::OrderPlaced, 1) => read::<v1::OrderPlaced<'_>>(codec, bytes),
        (EventKind::OrderPlaced, 2) => read::<v2::OrderPlaced<'_>>(codec, bytes),
        (EventKind::LineAdded, 1) => read::<v1::LineAdded<'_>>(codec, bytes),
        (EventKind::LineRemoved, 1) => read::<v1::LineRemoved<'_>>(codec, bytes),
        (EventKind::OrderConfirmed, 1) => read::<v1::OrderConfirmed<'_>>(codec, bytes),
        (EventKind::OrderPaid, 1) => read::<v1::OrderPaid<'_>>(codec, bytes),
        (EventKind::OrderShipped, 1) => read::<v1::OrderShipped<'_>>(codec, bytes),
        (EventKind::OrderDelivered, 1) => read::<v1::OrderDelivered<'_>>(codec, bytes),
        (EventKind::OrderRefunded, 1) => read::<v1::OrderRefunded<'_>>(codec, bytes),
        (EventKind::OrderCancelled, 1) => read::<v1::OrderCancelled<'_>>(codec, bytes),
        (
            EventKind::OrderPlaced
            | EventKind::LineAdded
            | EventKind::LineRemoved
            | EventKind::OrderConfirmed
            | EventKind::OrderPaid
            | EventKind::OrderShipped
            | EventKind::OrderDelivered
            | EventKind::OrderRefunded
            | EventKind::OrderCancelled,
            schema,
        ) => return Err(CodecError::UnknownSchema { kind, schema }),
    };
    recorded.map_err(|reason| CodecError::Malformed { kind, reason })
}

fn write(codec: Codec, buffer: &mut Vec<u8>, layout: &impl Serialize) {
    match codec {
        Codec::Bincode => {
            bincode::serde::encode_into_writer(layout, Appender(buffer), config::standard())
                .expect("a Vec takes every byte, and no layout has a value without an encoding");
        }
        Codec::Json => serde_json::to_writer(buffer, layout)
            .expect("a Vec takes every byte, and every map of a layout has strings as keys"),
    }
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a> + Stored<'a>>(
    codec: Codec,
    bytes: &'a [u8],
) -> Result<RecordedEvent<'a>, String> {
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(format!(
            "it is {} bytes long, at most {RECORD_BYTES_MAX} are possible",
            bytes.len()
        ));
    }
    let layout: T = match codec {
        Codec::Bincode => {
            // The limit also bounds what a length inside the bytes can make bincode allocate.
            let config = config::standard().with_limit::<RECORD_BYTES_MAX>();
            let (layout, length) = bincode::serde::borrow_decode_from_slice(bytes, config)
                .map_err(|error| error.to_string())?;
            if length < bytes.len() {
                return Err(format!("{} bytes follow its end", bytes.len() - length));
            }
            layout
        }
        Codec::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string())?,
    };
    layout.recorded()
}
