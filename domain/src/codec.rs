//! Events to bytes and back: a codec id and a schema version a record, upcast on the way in.

use crate::{Event, EventContext, EventKind, RecordedEvent};

/// How a record's bytes are encoded; stored with each record, never reused for another encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// bincode 2, standard configuration: the segmented log.
    Bincode = 1,
    /// One JSON object: the JSONL baseline, `log dump`, import and export.
    Json = 2,
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
    #[error("{kind:?} has schema {schema}, newer than this version knows")]
    UnknownSchema {
        /// The event's kind.
        kind: EventKind,
        /// Its schema version.
        schema: u8,
    },
    /// Bytes that do not decode, or values outside the domain.
    #[error("{kind:?} does not decode: {reason}")]
    Malformed {
        /// The event's kind.
        kind: EventKind,
        /// What is wrong.
        reason: String,
    },
}

/// Appends the encoded event to `buffer` and says how it was encoded (the newest schema).
pub fn encode(
    codec: Codec,
    event: &Event<'_>,
    context: &EventContext<'_>,
    buffer: &mut Vec<u8>,
) -> RecordHeader {
    let _ = (codec, event, context, buffer);
    todo!()
}

/// Decodes a record, borrowing text from `bytes`; older schemas are upcast to the newest event.
///
/// # Errors
/// [`CodecError`] for bytes of another version, another codec, or none.
pub fn decode(header: RecordHeader, bytes: &[u8]) -> Result<RecordedEvent<'_>, CodecError> {
    let _ = (header, bytes);
    todo!()
}
