//! One event as the log holds it, not yet decoded: what is read, what is kept aside, what is tried again.

use std::borrow::Cow;

use order_domain::codec::{self, CodecError, RecordHeader};
use order_domain::{EventKind, OrderId, RecordedEvent, Version};
use order_log::{AppendTime, Frame, Offset, PartitionId, Record, RecordTag};

use crate::EventId;

/// One record of the log with what its frame says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEvent<'a> {
    pub(crate) id: EventId,
    pub(crate) partition: PartitionId,
    pub(crate) offset: Offset,
    pub(crate) appended_at: AppendTime,
    pub(crate) tag: RecordTag,
    pub(crate) bytes: Cow<'a, [u8]>,
    /// The trace context of the frame's first record, which alone carries it; `None` for the first record itself.
    pub(crate) frame_traceparent: Option<Cow<'a, str>>,
}

impl LogEvent<'_> {
    pub(crate) fn decode(&self) -> Result<RecordedEvent<'_>, CodecError> {
        codec::decode(header(self.tag), &self.bytes)
    }

    pub(crate) fn into_owned(self) -> LogEvent<'static> {
        LogEvent {
            id: self.id,
            partition: self.partition,
            offset: self.offset,
            appended_at: self.appended_at,
            tag: self.tag,
            bytes: Cow::Owned(self.bytes.into_owned()),
            frame_traceparent: self
                .frame_traceparent
                .map(|text| Cow::Owned(text.into_owned())),
        }
    }
}

/// The events of a frame, in order; none of a snapshot's: what it stands for was told before the log was compacted, and
/// nothing happened when it was written.
pub(crate) fn events_of<'a>(
    partition: PartitionId,
    frame: &Frame<'a>,
) -> impl Iterator<Item = LogEvent<'a>> + use<'a> {
    let order = OrderId::from_bytes(*frame.key.as_bytes());
    let appended_at = frame.appended_at;
    // Most frames have one record, and then nobody needs its context here.
    let traceparent = if frame.len() > 1 {
        frame_traceparent(frame)
    } else {
        None
    };
    let base = frame.base;
    let happened = |record: &Record<'_>| record.tag.event_type != EventKind::OrderSnapshot.number();
    frame
        .records()
        .filter(happened)
        .map(move |record| LogEvent {
            id: EventId::new(order, Version::new(record.sequence)),
            partition,
            offset: record.offset,
            appended_at,
            tag: record.tag,
            bytes: Cow::Borrowed(record.bytes),
            frame_traceparent: traceparent.clone().filter(|_| record.offset != base),
        })
}

fn frame_traceparent<'a>(frame: &Frame<'a>) -> Option<Cow<'a, str>> {
    let first = frame.records().next()?;
    codec::decode(header(first.tag), first.bytes)
        .ok()?
        .context
        .traceparent
}

const fn header(tag: RecordTag) -> RecordHeader {
    RecordHeader {
        event_type: tag.event_type,
        schema: tag.schema,
        codec: tag.codec,
    }
}
