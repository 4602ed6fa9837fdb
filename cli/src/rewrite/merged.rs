//! All frames of a log in one sequence: each partition's in its order, and all of them by append time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::ControlFlow;

use order_log::{
    AppendTime, EventLog, Frame, Key, LogError, Offset, PartitionId, PartitionReader, RecordTag,
    ScanLimit,
};

/// Read from one partition at once.
const READ_RECORDS: u64 = 4_096;
const READ_BYTES: u64 = 1024 * 1024;

/// A frame copied out of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedFrame {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) key: Key,
    pub(crate) sequence: u32,
    pub(crate) previous: Option<Offset>,
    pub(crate) appended_at: AppendTime,
    pub(crate) records: Vec<(RecordTag, Vec<u8>)>,
}

impl OwnedFrame {
    pub(crate) fn of(frame: &Frame<'_>) -> Self {
        Self {
            base: frame.base,
            end: frame.end(),
            key: frame.key,
            sequence: frame.sequence,
            previous: frame.previous,
            appended_at: frame.appended_at,
            records: frame
                .records()
                .map(|record| (record.tag, record.bytes.to_vec()))
                .collect(),
        }
    }

    /// Bytes of its records.
    pub(crate) fn bytes(&self) -> u64 {
        self.records
            .iter()
            .map(|(_, bytes)| bytes.len() as u64)
            .sum()
    }
}

/// One partition, read ahead.
#[derive(Debug)]
struct Source {
    reader: Box<dyn PartitionReader>,
    next: Offset,
    ahead: VecDeque<OwnedFrame>,
}

impl Source {
    fn fill(&mut self) -> Result<(), LogError> {
        if !self.ahead.is_empty() || self.next >= self.reader.durable_end() {
            return Ok(());
        }
        let limit = ScanLimit {
            records: READ_RECORDS,
            bytes: READ_BYTES,
            ..ScanLimit::NONE
        };
        let ahead = &mut self.ahead;
        self.next = self.reader.scan(self.next, limit, &mut |frame| {
            ahead.push_back(OwnedFrame::of(&frame));
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}

/// The frames of all partitions, by append time. Memory: what is read ahead, a megabyte a partition.
#[derive(Debug)]
pub(crate) struct Merged {
    sources: Vec<Source>,
    /// The time of each source's next frame.
    order: BinaryHeap<Reverse<(AppendTime, u16)>>,
}

impl Merged {
    /// Begins at the start of every partition.
    ///
    /// # Errors
    /// Whatever the log says.
    pub(crate) fn new(log: &dyn EventLog) -> Result<Self, LogError> {
        let mut merged = Self {
            sources: Vec::new(),
            order: BinaryHeap::new(),
        };
        for partition in 0..log.partition_count() {
            let reader = log.reader(PartitionId::new(partition))?;
            merged.sources.push(Source {
                next: reader.start(),
                reader,
                ahead: VecDeque::new(),
            });
            merged.announce(partition)?;
        }
        Ok(merged)
    }

    fn announce(&mut self, partition: u16) -> Result<(), LogError> {
        let source = &mut self.sources[usize::from(partition)];
        source.fill()?;
        if let Some(frame) = source.ahead.front() {
            self.order.push(Reverse((frame.appended_at, partition)));
        }
        Ok(())
    }

    /// The next frame and its partition.
    ///
    /// # Errors
    /// [`LogError::Damaged`] where a frame does not verify.
    pub(crate) fn next(&mut self) -> Result<Option<(PartitionId, OwnedFrame)>, LogError> {
        let Some(Reverse((_, partition))) = self.order.pop() else {
            return Ok(None);
        };
        let frame = self.sources[usize::from(partition)].ahead.pop_front();
        self.announce(partition)?;
        Ok(frame.map(|frame| (PartitionId::new(partition), frame)))
    }
}
