//! A reading end of a partition: walks segments through their maps, up to the durable end.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::partition::Partition;
use super::segment::Segment;
use crate::{AppendTime, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

/// A reader keeps nothing between calls: it can be shared.
#[derive(Debug)]
pub(super) struct SegmentedReader {
    pub(super) partition: Arc<Partition>,
}

/// Where the frames of `segments[at]` end: at the next segment, or at the durable end.
fn segment_end(segments: &[Arc<Segment>], at: usize, durable_end: u64) -> u64 {
    segments
        .get(at + 1)
        .map_or(durable_end, |next| next.base.min(durable_end))
}

impl PartitionReader for SegmentedReader {
    fn partition(&self) -> PartitionId {
        self.partition.id
    }

    fn start(&self) -> Offset {
        self.partition.start()
    }

    fn durable_end(&self) -> Offset {
        self.partition.durable_end.load()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.partition.durable_end.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        // The end first: every segment that holds a frame before it is in the list already.
        let durable_end = self.partition.durable_end.load();
        let segments = self.partition.segments();
        let start = Offset::new(segments.first().map_or(0, |segment| segment.base));
        if from < start || from > durable_end {
            let partition = self.partition.id;
            return Err(LogError::OutOfRange {
                partition,
                offset: from,
                start,
                end: durable_end,
            });
        }
        let end = durable_end.min(limit.until).get();
        let (mut records, mut bytes) = (0, 0);
        let mut next = from.get();
        let mut at = segments
            .partition_point(|segment| segment.base <= next)
            .saturating_sub(1);
        while next < end {
            let segment_end = segment_end(&segments, at, durable_end.get());
            let piece = segments[at].piece_at(next, segment_end)?;
            let mut cursor = piece.seek(next)?;
            while cursor.next_offset() < end {
                let frame = cursor.next_frame()?;
                next = cursor.next_offset();
                let Some((header, body)) = frame else {
                    break;
                };
                records += u64::from(header.records);
                bytes += header.total_bytes() as u64;
                let broke = visit(Frame::new(&header, body)).is_break();
                if broke || records >= limit.records || bytes >= limit.bytes {
                    return Ok(Offset::new(next));
                }
            }
            if next >= segment_end {
                at += 1;
            }
        }
        Ok(Offset::new(next))
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        let durable_end = self.partition.durable_end.load().get();
        let segments = self.partition.segments();
        // The last segment that starts before the time holds the answer, or the one behind it starts with it.
        for at in (0..segments.len()).rev() {
            let segment_end = segment_end(&segments, at, durable_end);
            if segments[at].base >= segment_end {
                continue;
            }
            let from = segments[at].offset_before_time(time.as_micros())?;
            match first_since(&segments[at], from.min(segment_end), segment_end, time)? {
                Some(since) if since.begins_segment && at > 0 => {}
                Some(since) => return Ok(Offset::new(since.offset)),
                None => return Ok(Offset::new(segment_end)),
            }
        }
        Ok(self.partition.start())
    }
}

/// A frame that was appended at or after a time.
struct Since {
    offset: u64,
    /// Whether it is the first of its segment, so that one before may be as late.
    begins_segment: bool,
}

/// The first frame of a segment at or behind `from` that was appended at or after a time.
fn first_since(
    segment: &Segment,
    from: u64,
    segment_end: u64,
    time: AppendTime,
) -> Result<Option<Since>, LogError> {
    let mut next = from;
    let mut begins_segment = from == segment.base;
    while next < segment_end {
        let piece = segment.piece_at(next, segment_end)?;
        let mut cursor = piece.seek(next)?;
        while let Some((header, _)) = cursor.next_frame()? {
            if header.appended_at >= time.as_micros() {
                return Ok(Some(Since {
                    offset: header.base,
                    begins_segment,
                }));
            }
            begins_segment = false;
        }
        next = cursor.next_offset();
    }
    Ok(None)
}
