//! From the log's frames to events: what history and feed have in common.

use std::ops::ControlFlow;

use order_domain::codec::{self, CodecError, RecordHeader};
use order_domain::{OrderId, RecordedEvent, Timestamp, Version};
use order_projector_workers::{Frame, LogError, Offset, PartitionReader, ScanLimit};

/// Why the log does not tell an order's story. The service's fault, all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoryError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A record is no event of this version.
    #[error("the record at offset {offset}: {source}")]
    Undecodable {
        /// Where it stands.
        offset: Offset,
        /// What is wrong.
        source: CodecError,
    },
    /// A frame is not the one that the walk was led to.
    #[error("the frame at offset {0} is not an earlier one of the order")]
    Astray(Offset),
    /// An event does not fit the order before it.
    #[error("the record at offset {offset}: {source}")]
    Unfoldable {
        /// Where it stands.
        offset: Offset,
        /// What does not fit.
        source: order_domain::FoldError,
    },
}

/// One event of a frame.
#[derive(Debug)]
pub(crate) struct StoryEvent<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) version: Version,
    pub(crate) at: Timestamp,
    pub(crate) offset: Offset,
    pub(crate) recorded: RecordedEvent<'a>,
}

/// Visits the events of a frame, in order, until `visit` breaks.
pub(crate) fn each_event<'a>(
    frame: &Frame<'a>,
    mut visit: impl FnMut(StoryEvent<'a>) -> Result<ControlFlow<()>, StoryError>,
) -> Result<ControlFlow<()>, StoryError> {
    for record in frame.records() {
        let offset = record.offset;
        let header = RecordHeader {
            event_type: record.tag.event_type,
            schema: record.tag.schema,
            codec: record.tag.codec,
        };
        let recorded = codec::decode(header, record.bytes)
            .map_err(|source| StoryError::Undecodable { offset, source })?;
        let event = StoryEvent {
            order_id: OrderId::from_bytes(*frame.key.as_bytes()),
            version: Version::new(record.sequence),
            at: Timestamp::from_micros(frame.appended_at.as_micros()),
            offset,
            recorded,
        };
        if visit(event)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Visits the one frame that begins at `base`.
pub(crate) fn visit_frame<T>(
    reader: &dyn PartitionReader,
    base: Offset,
    visit: impl FnOnce(&Frame<'_>) -> T,
) -> Result<T, StoryError> {
    let one = ScanLimit {
        records: 1,
        ..ScanLimit::NONE
    };
    let mut visit = Some(visit);
    let mut seen = None;
    reader.scan(base, one, &mut |frame| {
        if let Some(visit) = visit.take() {
            seen = Some(visit(&frame));
        }
        ControlFlow::Break(())
    })?;
    seen.ok_or(StoryError::Astray(base))
}
