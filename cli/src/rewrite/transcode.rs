//! Records from one encoding into the other, without loss: what does not come back the same stays as it is, or is refused.

use anyhow::{Context, anyhow};
use order_domain::RecordedEvent;
use order_domain::codec::{self, Codec, RecordHeader};
use order_log::RecordTag;

use super::OwnedFrame;

/// The event in a record.
///
/// # Errors
/// What does not decode.
pub(crate) fn event_of<'a>(tag: RecordTag, bytes: &'a [u8]) -> anyhow::Result<RecordedEvent<'a>> {
    let header = RecordHeader {
        event_type: tag.event_type,
        schema: tag.schema,
        codec: tag.codec,
    };
    Ok(codec::decode(header, bytes)?)
}

/// An event as the record it becomes.
pub(crate) fn encoded(codec: Codec, recorded: &RecordedEvent<'_>) -> (RecordTag, Vec<u8>) {
    let mut bytes = Vec::new();
    let header = codec::encode(codec, &recorded.event, &recorded.context, &mut bytes);
    let tag = RecordTag {
        event_type: header.event_type,
        schema: header.schema,
        codec: header.codec,
    };
    (tag, bytes)
}

/// The records of a frame as JSON. One that is JSON already stays byte for byte; one of an earlier schema becomes one of the
/// newest, which says the same.
///
/// # Errors
/// A record that does not decode, or says something else as JSON.
pub(crate) fn to_json(frame: &mut OwnedFrame) -> anyhow::Result<()> {
    for (tag, bytes) in &mut frame.records {
        if tag.codec == Codec::Json.number() {
            continue;
        }
        let json = {
            let recorded = event_of(*tag, bytes)?;
            let json = encoded(Codec::Json, &recorded);
            let again = event_of(json.0, &json.1).context("as JSON")?;
            if again != recorded {
                return Err(anyhow!("the event says something else as JSON"));
            }
            json
        };
        (*tag, *bytes) = json;
    }
    Ok(())
}

/// The records of a frame in the segmented log's encoding. One that would come back as other JSON than it is stays JSON,
/// which that log reads as well.
///
/// # Errors
/// A record that does not decode.
pub(crate) fn to_binary(frame: &mut OwnedFrame) -> anyhow::Result<()> {
    for (tag, bytes) in &mut frame.records {
        if tag.codec != Codec::Json.number() {
            continue;
        }
        let binary = encoded(Codec::Bincode, &event_of(*tag, bytes)?);
        let again = encoded(Codec::Json, &event_of(binary.0, &binary.1)?);
        if again.0 == *tag && again.1 == *bytes {
            (*tag, *bytes) = binary;
        }
    }
    Ok(())
}
