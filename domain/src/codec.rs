//! Events to bytes and back: a codec id and a schema version a record, upcast on the way in.
//!
//! The bytes are laid out in `stored`, apart from the domain's own types: renaming or moving a field of an event
//! changes no byte. A layout that was ever written is kept and decodes for ever; a change is a new layout with the next
//! schema number and an upcast from the one before.

mod binary;
mod stored;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{Event, EventContext, EventKind, RecordedEvent};
use stored::{Lines, Stored, v1, v2};

/// Longest record that is decoded, in bytes: over 5 times the longest that the limits of an order make possible.
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
        | EventKind::OrderCancelled
        | EventKind::OrderSnapshot => 1,
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
        Event::OrderSnapshot(snapshot) => {
            write(codec, buffer, &v1::OrderSnapshot::of(snapshot, context));
        }
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
    match (kind, header.schema) {
        (EventKind::OrderPlaced, 1) => read::<v1::OrderPlaced<'_>>(codec, kind, bytes),
        (EventKind::OrderPlaced, 2) => read::<v2::OrderPlaced<'_>>(codec, kind, bytes),
        (EventKind::LineAdded, 1) => read::<v1::LineAdded<'_>>(codec, kind, bytes),
        (EventKind::LineRemoved, 1) => read::<v1::LineRemoved<'_>>(codec, kind, bytes),
        (EventKind::OrderConfirmed, 1) => read::<v1::OrderConfirmed<'_>>(codec, kind, bytes),
        (EventKind::OrderPaid, 1) => read::<v1::OrderPaid<'_>>(codec, kind, bytes),
        (EventKind::OrderShipped, 1) => read::<v1::OrderShipped<'_>>(codec, kind, bytes),
        (EventKind::OrderDelivered, 1) => read::<v1::OrderDelivered<'_>>(codec, kind, bytes),
        (EventKind::OrderRefunded, 1) => read::<v1::OrderRefunded<'_>>(codec, kind, bytes),
        (EventKind::OrderCancelled, 1) => read::<v1::OrderCancelled<'_>>(codec, kind, bytes),
        (EventKind::OrderSnapshot, 1) => read::<v1::OrderSnapshot<'_>>(codec, kind, bytes),
        (
            EventKind::OrderPlaced
            | EventKind::LineAdded
            | EventKind::LineRemoved
            | EventKind::OrderConfirmed
            | EventKind::OrderPaid
            | EventKind::OrderShipped
            | EventKind::OrderDelivered
            | EventKind::OrderRefunded
            | EventKind::OrderCancelled
            | EventKind::OrderSnapshot,
            schema,
        ) => Err(CodecError::UnknownSchema { kind, schema }),
    }
}

fn write(codec: Codec, buffer: &mut Vec<u8>, layout: &impl Serialize) {
    match codec {
        Codec::Bincode => binary::write(buffer, layout),
        Codec::Json => serde_json::to_writer(buffer, layout)
            .expect("a Vec takes every byte, and every map of a layout has strings as keys"),
    }
}

fn read<'a, T>(
    codec: Codec,
    kind: EventKind,
    bytes: &'a [u8],
) -> Result<RecordedEvent<'a>, CodecError>
where
    T: Stored<'a> + binary::Read<'a> + Deserialize<'a>,
{
    if bytes.len() > RECORD_BYTES_MAX {
        let reason = format!(
            "{} bytes, at most {RECORD_BYTES_MAX} are possible",
            bytes.len()
        );
        return Err(CodecError::Malformed { kind, reason });
    }
    // A layout is large: each branch turns its own into the record, so that none is copied to where the branches meet.
    match codec {
        Codec::Bincode => recorded(kind, binary::read::<T>(bytes)),
        Codec::Json => recorded(kind, serde_json::from_slice::<T>(bytes)),
    }
}

#[inline]
fn recorded<'a>(
    kind: EventKind,
    layout: Result<impl Stored<'a>, impl ToString>,
) -> Result<RecordedEvent<'a>, CodecError> {
    let layout = match layout {
        Ok(layout) => layout,
        Err(error) => {
            let reason = error.to_string();
            return Err(CodecError::Malformed { kind, reason });
        }
    };
    match layout.event() {
        Ok((event, context)) => Ok(RecordedEvent {
            event,
            context: context.map(v1::Context::context).unwrap_or_default(),
        }),
        Err(reason) => Err(CodecError::Malformed { kind, reason }),
    }
}
