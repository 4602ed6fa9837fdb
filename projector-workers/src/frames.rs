//! Frames copied out of the log for one batch: one scan, decoded later, and as often as it takes.
//!
//! The copy costs a few nanoseconds a record. It buys that old rows are known before the first event is decoded, that
//! events borrow from memory nobody unmaps, and that a batch can be folded a second time without another scan.

use std::ops::{ControlFlow, Range};

use order_domain::codec::{CodecError, RecordHeader, decode};
use order_domain::{OrderId, RecordedEvent, Timestamp};
use order_log::{AppendTime, Frame, Key, LogError, Offset, PartitionReader, RecordTag, ScanLimit};

/// One frame of a batch.
#[derive(Debug, Clone)]
pub(crate) struct BatchFrame {
    pub(crate) base: Offset,
    pub(crate) key: Key,
    pub(crate) sequence: u32,
    pub(crate) previous: Option<Offset>,
    pub(crate) appended_at: AppendTime,
    records: Range<usize>,
}

impl BatchFrame {
    pub(crate) fn id(&self) -> OrderId {
        OrderId::from_bytes(*self.key.as_bytes())
    }

    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.appended_at.as_micros())
    }

    /// Count of records.
    pub(crate) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether the frame begins its order: by placing it, or as the snapshot of events that are no more.
    pub(crate) fn is_first(&self) -> bool {
        self.previous.is_none()
    }

    /// The order's version after the frame.
    pub(crate) fn last_version(&self) -> u64 {
        (u64::from(self.sequence) + self.len()).saturating_sub(1)
    }
}

/// Frames in log order, all of one partition. Reused from batch to batch without allocating.
#[derive(Debug, Default)]
pub(crate) struct FrameBatch {
    bytes: Vec<u8>,
    records: Vec<(RecordTag, Range<usize>)>,
    frames: Vec<BatchFrame>,
}

impl FrameBatch {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.frames.clear();
    }

    /// Bytes of records.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Room kept for the bytes of records.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Copies the frames from `from` on, within the limit; returns the offset after the last of them.
    pub(crate) fn fill(
        &mut self,
        log: &dyn PartitionReader,
        from: Offset,
        limit: ScanLimit,
    ) -> Result<Offset, LogError> {
        self.clear();
        log.scan(from, limit, &mut |frame| {
            self.push(&frame);
            ControlFlow::Continue(())
        })
    }

    /// Adds the one frame at `base`.
    pub(crate) fn push_at(
        &mut self,
        log: &dyn PartitionReader,
        base: Offset,
    ) -> Result<(), LogError> {
        let one = ScanLimit {
            records: 1,
            ..ScanLimit::NONE
        };
        log.scan(base, one, &mut |frame| {
            self.push(&frame);
            ControlFlow::Break(())
        })?;
        Ok(())
    }

    fn push(&mut self, frame: &Frame<'_>) {
        let first = self.records.len();
        for record in frame.records() {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(record.bytes);
            self.records.push((record.tag, start..self.bytes.len()));
        }
        self.frames.push(BatchFrame {
            base: frame.base,
            key: frame.key,
            sequence: frame.sequence,
            previous: frame.previous,
            appended_at: frame.appended_at,
            records: first..self.records.len(),
        });
    }

    pub(crate) fn frames(&self) -> &[BatchFrame] {
        &self.frames
    }

    /// Decodes a frame's events into `events`, which is emptied first. They borrow from this batch.
    pub(crate) fn decode<'b>(
        &'b self,
        frame: &BatchFrame,
        events: &mut Vec<RecordedEvent<'b>>,
    ) -> Result<(), CodecError> {
        events.clear();
        for (tag, range) in &self.records[frame.records.clone()] {
            let header = RecordHeader {
                event_type: tag.event_type,
                schema: tag.schema,
                codec: tag.codec,
            };
            events.push(decode(header, &self.bytes[range.clone()])?);
        }
        Ok(())
    }
}
