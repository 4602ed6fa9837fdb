//! The reading end of a partition: parses its own lines of the shared file, up to the durable end.

use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::line::{FrameBuilder, Line, LineFault, not_the_record};
use super::line_source::{Found, LineSource};
use super::shared_file::{PartitionLines, SharedFile};
use crate::layout::index;
use crate::{AppendTime, Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

#[derive(Debug)]
pub(super) struct JsonlReader {
    shared: Arc<SharedFile>,
    partition: PartitionId,
}

impl JsonlReader {
    pub(super) fn new(shared: Arc<SharedFile>, partition: PartitionId) -> Self {
        Self { shared, partition }
    }

    fn lines(&self) -> &PartitionLines {
        &self.shared.partitions[self.partition.index()]
    }

    /// Reads lines up to `end`, a durable end.
    fn cursor(&self, end: Offset) -> Cursor<'_> {
        Cursor {
            shared: &self.shared,
            partition: self.partition,
            // Loaded after the durable end: every line before it is within.
            source: LineSource::new(&*self.shared.file, self.shared.synced()),
            starts: Starts {
                lines: self.lines(),
                end,
                first: Offset::ZERO,
                copied: Vec::new(),
            },
        }
    }
}

impl PartitionReader for JsonlReader {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn start(&self) -> Offset {
        Offset::ZERO
    }

    fn durable_end(&self) -> Offset {
        self.lines().durable_end.load()
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.lines().durable_end.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        let end = self.durable_end();
        if from > end {
            return Err(LogError::OutOfRange {
                partition: self.partition,
                offset: from,
                start: Offset::ZERO,
                end,
            });
        }
        let mut cursor = self.cursor(end);
        let mut builder = FrameBuilder::default();
        let (mut records, mut bytes) = (0, 0);
        let mut at = from;
        while at < end.min(limit.until) {
            let (frame, frame_bytes) = cursor.frame_at(at, &mut builder)?;
            at = frame.end();
            records += frame.len();
            bytes += frame_bytes;
            let broke = visit(frame).is_break();
            if broke || records >= limit.records || bytes >= limit.bytes {
                break;
            }
        }
        Ok(at)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        let end = self.durable_end();
        let mut cursor = self.cursor(end);
        // Times never decrease, and all records of a frame have the same: the first record at or after `time` is the
        // first of its frame.
        let (mut low, mut high) = (Offset::ZERO, end);
        while low < high {
            let middle = Offset::new(low.get() + (high.get() - low.get()) / 2);
            if cursor.line_at(middle)?.0.time < time {
                low = middle.plus(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// Reads the lines of one partition.
#[derive(Debug)]
struct Cursor<'a> {
    shared: &'a SharedFile,
    partition: PartitionId,
    source: LineSource<'a>,
    starts: Starts<'a>,
}

impl Cursor<'_> {
    /// The frame at `base`, and the bytes of its lines.
    fn frame_at<'b>(
        &mut self,
        base: Offset,
        builder: &'b mut FrameBuilder,
    ) -> Result<(Frame<'b>, u64), LogError> {
        builder.clear();
        let mut at = base;
        let mut bytes = 0;
        loop {
            let position = self.starts.of(at);
            let end = self.starts.end;
            let (partition, shared) = (self.partition, self.shared);
            let damaged =
                move |fault: LineFault| damaged_line(shared, partition, position, at, &fault);
            let (line, line_bytes) = self.line_at(at)?;
            bytes += line_bytes;
            if builder.add(&line, base).map_err(damaged)? {
                break;
            }
            at = at.plus(1);
            if at == end {
                let fault = not_the_record("the rest of its frame is missing".to_owned());
                return Err(damaged(fault));
            }
        }
        let frame = builder
            .whole()
            .expect("the loop ends when the frame is whole");
        Ok((frame, bytes))
    }

    /// The record at `offset`, which is before the end, and the bytes of its line.
    fn line_at(&mut self, offset: Offset) -> Result<(Line<'_>, u64), LogError> {
        let position = self.starts.of(offset);
        let (partition, shared) = (self.partition, self.shared);
        let damaged = |fault: LineFault| damaged_line(shared, partition, position, offset, &fault);
        let found = self
            .source
            .line_at(position)
            .map_err(|source| LogError::Io {
                action: "reading",
                path: shared.path.clone(),
                source,
            })?;
        let Found::Line(bytes) = found else {
            return Err(damaged(not_the_record("it has no end".to_owned())));
        };
        let line = Line::parse(bytes).map_err(damaged)?;
        if (line.partition, line.offset) != (partition, offset) {
            return Err(damaged(not_the_record(format!(
                "it is the record at {} of partition {}",
                line.offset, line.partition
            ))));
        }
        Ok((line, bytes.len() as u64 + 1))
    }
}

fn damaged_line(
    shared: &SharedFile,
    partition: PartitionId,
    position: u64,
    offset: Offset,
    fault: &LineFault,
) -> LogError {
    LogError::Damaged {
        partition,
        path: shared.path.clone(),
        position,
        offset,
        reason: format!("the line does not verify: {fault}"),
    }
}

/// How many lines' places are copied at a time, so that readers hold the lock the writer needs only in passing.
const STARTS_COPIED: u64 = 512;

/// Where the lines of a partition start, up to a durable end.
#[derive(Debug)]
struct Starts<'a> {
    lines: &'a PartitionLines,
    end: Offset,
    first: Offset,
    copied: Vec<u64>,
}

impl Starts<'_> {
    /// Position of the line of the record at `offset`, which is before the end.
    fn of(&mut self, offset: Offset) -> u64 {
        if let Some(start) = self.copy_of(offset) {
            return start;
        }
        assert!(offset < self.end, "a line is looked for before the end");
        let until = self.end.min(offset.plus(STARTS_COPIED));
        let starts = self
            .lines
            .starts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        self.copied.clear();
        self.copied
            .extend_from_slice(&starts[index(offset.get())..index(until.get())]);
        self.first = offset;
        self.copied[0]
    }

    fn copy_of(&self, offset: Offset) -> Option<u64> {
        let place = offset.get().checked_sub(self.first.get())?;
        self.copied.get(index(place)).copied()
    }
}
