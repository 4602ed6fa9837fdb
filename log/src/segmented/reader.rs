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
            let mut cursor =
                segments[at].seek(next, segment_end(&segments, at, durable_end.get()))?;
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
            at += 1;
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
            let mut cursor = segments[at].seek_before_time(time.as_micros(), segment_end)?;
            let mut before_all = cursor.next_offset() == segments[at].base;
            loop {
                let offset = cursor.next_offset();
                match cursor.next_frame()? {
                    None => return Ok(Offset::new(segment_end)),
                    Some((header, _)) if header.appended_at >= time.as_micros() => {
                        if before_all && offset == segments[at].base && at > 0 {
                            break;
                        }
                        return Ok(Offset::new(offset));
                    }
                    Some(_) => before_all = false,
                }
            }
        }
        Ok(self.partition.start())
    }
}
