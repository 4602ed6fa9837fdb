//! One order's events out of the log, told as one: back from its last frame to its first, then forward.

use std::ops::ControlFlow;

use anyhow::anyhow;
use order_domain::codec::{Codec, RECORD_BYTES_MAX};
use order_domain::{Event, EventContext, Life, OrderId, RecordedEvent, Snapshot, Timestamp};
use order_log::{Batch, Key, LogError, Offset, PartitionReader, ScanLimit};

use crate::failure::Failure;
use crate::rewrite::{OwnedFrame, encoded, event_of};

/// Most frames an order is told as one from: they are in memory together.
const FRAMES_MAX: usize = 100_000;

/// An order told as one.
#[derive(Debug)]
pub(super) struct Retold {
    /// The frame in the place of its frames: one snapshot, at the time of the last of them.
    pub(super) frame: OwnedFrame,
    /// How many events it stands for.
    pub(super) events: u64,
    /// What their frames had of bytes in them.
    pub(super) frame_bytes: u64,
}

/// Why an order is not told as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotRetold {
    /// It is not closed.
    Open,
    /// Its events do not fold, or they or their snapshot are over a limit.
    Unclear,
}

/// Tells the order whose last frame is at `last`. What comes out is held against what went in.
///
/// # Errors
/// Whatever the log says; a snapshot that says something else than its events, which would be a bug.
pub(super) fn retell(
    reader: &dyn PartitionReader,
    key: Key,
    last: Offset,
    codec: Codec,
) -> Result<Result<Retold, NotRetold>, Failure> {
    let Some(frames) = frames_of(reader, key, last)? else {
        return Ok(Err(NotRetold::Unclear));
    };
    let mut life = Life::new(OrderId::from_bytes(*key.as_bytes()));
    let folded = frames.iter().try_for_each(|frame| fold(&mut life, frame));
    let (Ok(()), Some(order)) = (folded, life.order()) else {
        return Ok(Err(NotRetold::Unclear));
    };
    if !order.is_closed() {
        return Ok(Err(NotRetold::Open));
    }
    let at = order.updated_at;
    let Some(frame) = snapshot_frame(&life, last, codec) else {
        return Ok(Err(NotRetold::Unclear));
    };
    let mut again = Life::new(OrderId::from_bytes(*key.as_bytes()));
    fold(&mut again, &frame)?;
    if again != life || frame.appended_at.as_micros() != at.as_micros() {
        return Err(anyhow!(
            "the snapshot of order {} says something else than its events, which is a bug: nothing was changed",
            OrderId::from_bytes(*key.as_bytes())
        )
        .into());
    }
    Ok(Ok(Retold {
        frame,
        events: frames.iter().map(|frame| frame.records.len() as u64).sum(),
        frame_bytes: frames
            .iter()
            .map(|frame| frame_bytes(frame.records.iter().map(|(_, bytes)| bytes.len())))
            .sum(),
    }))
}

/// The frame that tells a life as one, in the place of a frame at `base`; `None` if there is none, or no log holds it.
pub(super) fn snapshot_frame(life: &Life, base: Offset, codec: Codec) -> Option<OwnedFrame> {
    let order = life.order()?;
    let snapshot: Snapshot<'static> = life.snapshot()?;
    let recorded = RecordedEvent {
        event: Event::OrderSnapshot(Box::new(snapshot)),
        context: EventContext::default(),
    };
    let record = encoded(codec, &recorded);
    let length = record.1.len();
    (length <= RECORD_BYTES_MAX && Batch::fits_a_frame([length])).then(|| OwnedFrame {
        base,
        end: base.plus(1),
        key: Key::new(*order.id.as_bytes()),
        sequence: order.version.get(),
        previous: None,
        appended_at: order_log::AppendTime::from_micros(order.updated_at.as_micros()),
        records: vec![record],
    })
}

/// Folds a frame's events; they must be those that its versions say.
///
/// # Errors
/// What does not decode, fold or add up.
pub(super) fn fold(life: &mut Life, frame: &OwnedFrame) -> anyhow::Result<()> {
    let at = Timestamp::from_micros(frame.appended_at.as_micros());
    for (tag, bytes) in &frame.records {
        life.fold(&event_of(*tag, bytes)?.event, at)?;
    }
    let found = life.order().map(|order| u64::from(order.version.get()));
    let last = u64::from(frame.sequence) + frame.records.len() as u64 - 1;
    anyhow::ensure!(
        found == Some(last),
        "the frame at offset {} makes version {found:?} of its order, and says {last}",
        frame.base
    );
    Ok(())
}

/// About what a frame with records of these lengths takes in a file, in bytes.
pub(super) fn frame_bytes(records: impl IntoIterator<Item = usize>) -> u64 {
    /// A frame's header and a record's, as the segmented log has them; a line of JSON has more.
    const FRAME: u64 = 72;
    const RECORD: u64 = 8;
    let records = records.into_iter().map(|length| RECORD + length as u64);
    FRAME + records.sum::<u64>()
}

/// An order's frames, oldest first; `None` if the way back to the first is not one, or too long.
fn frames_of(
    reader: &dyn PartitionReader,
    key: Key,
    last: Offset,
) -> Result<Option<Vec<OwnedFrame>>, LogError> {
    let mut frames: Vec<OwnedFrame> = Vec::new();
    let mut next = Some(last);
    while let Some(base) = next {
        // Strictly back, or a damaged walk would never end.
        let led_back = frames.last().is_none_or(|later| base < later.base);
        if !led_back || frames.len() == FRAMES_MAX {
            return Ok(None);
        }
        let one = ScanLimit {
            records: 1,
            ..ScanLimit::NONE
        };
        let mut found = None;
        reader.scan(base, one, &mut |frame| {
            found = Some(OwnedFrame::of(&frame));
            ControlFlow::Break(())
        })?;
        let Some(frame) = found.filter(|frame| frame.key == key && frame.base == base) else {
            return Ok(None);
        };
        next = frame.previous;
        frames.push(frame);
    }
    frames.reverse();
    Ok(Some(frames))
}
