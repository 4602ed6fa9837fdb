//! An order as it was: folded from its own frames, found by walking `previous` back from a known one.

use std::ops::ControlFlow;

use order_domain::codec::{CodecError, RecordHeader, decode};
use order_domain::{FoldError, Order, OrderId, Timestamp, Version, fold_owned};
use order_log::{Frame, Key, LogError, Offset, PartitionReader, ScanLimit};

use crate::tail::KeyDigest;

/// The log does not tell an order's story.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HistoryError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the record at offset {offset}: {source}")]
    Undecodable { offset: Offset, source: CodecError },
    #[error("the record at offset {offset}: {source}")]
    Unfoldable { offset: Offset, source: FoldError },
    #[error("the frame at offset {at} is not a frame of order {order}, or not an earlier one")]
    Astray { at: Offset, order: OrderId },
    #[error("order {order} has no version {version} at offset {frame}")]
    NoSuchVersion {
        order: OrderId,
        version: Version,
        frame: Offset,
    },
}

/// The key of an order's frames.
pub(crate) fn key_of(id: OrderId) -> Key {
    Key::new(*id.as_bytes())
}

/// Visits the one frame that begins at `base`.
pub(crate) fn visit_frame<T>(
    reader: &dyn PartitionReader,
    base: Offset,
    mut visit: impl FnMut(&Frame<'_>) -> T,
) -> Result<T, LogError> {
    let limit = ScanLimit {
        records: 1,
        ..ScanLimit::NONE
    };
    let mut seen = None;
    reader.scan(base, limit, &mut |frame| {
        seen = Some(visit(&frame));
        ControlFlow::Break(())
    })?;
    // Nothing is visited only at the durable end.
    seen.ok_or_else(|| LogError::OutOfRange {
        partition: reader.partition(),
        offset: base,
        start: reader.start(),
        end: reader.durable_end(),
    })
}

/// Folds a frame's events onto the order, and says which idempotency key made them. The order is unchanged, or part-way,
/// on error.
pub(crate) fn fold_frame(
    order: &mut Option<Order>,
    id: OrderId,
    frame: &Frame<'_>,
) -> Result<Option<(KeyDigest, [u8; 16])>, HistoryError> {
    let at = Timestamp::from_micros(frame.appended_at.as_micros());
    let mut used = None;
    for record in frame.records() {
        let offset = record.offset;
        let header = RecordHeader {
            event_type: record.tag.event_type,
            schema: record.tag.schema,
            codec: record.tag.codec,
        };
        let recorded = decode(header, record.bytes)
            .map_err(|source| HistoryError::Undecodable { offset, source })?;
        if let Some(key) = recorded.used_key(id) {
            used = Some((key.digest, key.fingerprint));
        }
        fold_owned(order, id, recorded.event, at)
            .map_err(|source| HistoryError::Unfoldable { offset, source })?;
    }
    Ok(used)
}

/// The order right after the frame at `last`.
pub(crate) fn order_after(
    reader: &dyn PartitionReader,
    id: OrderId,
    last: Offset,
) -> Result<Order, HistoryError> {
    let mut bases = vec![last];
    let mut at = last;
    while let Some(previous) = visit_frame(reader, at, |frame| {
        (frame.key == key_of(id)).then_some(frame.previous)
    })?
    .ok_or(HistoryError::Astray { at, order: id })?
    {
        // Strictly back, or a damaged walk would never end.
        if previous >= at {
            return Err(HistoryError::Astray { at, order: id });
        }
        bases.push(previous);
        at = previous;
    }
    let mut order = None;
    for base in bases.into_iter().rev() {
        visit_frame(reader, base, |frame| fold_frame(&mut order, id, frame))??;
    }
    order.ok_or(HistoryError::NoSuchVersion {
        order: id,
        version: Version::NONE,
        frame: last,
    })
}
