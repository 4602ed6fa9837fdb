//! A frame as readers see it: one atomic append, all records of one command.

use crate::layout::{FrameHeader, RECORD_HEADER_BYTES, read_record_header};
use crate::{AppendTime, Key, Offset, RecordTag};

/// One verified frame, borrowed from the log.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Offset of the frame's first record.
    pub base: Offset,
    /// The stream this frame belongs to.
    pub key: Key,
    /// Position of the frame's first record in its stream, from 1; the first frame of a key may begin later, in a log that
    /// was compacted.
    pub sequence: u32,
    /// Base offset of the previous frame of the same key.
    pub previous: Option<Offset>,
    /// When it was appended.
    pub appended_at: AppendTime,
    /// Count of records.
    pub(crate) count: u16,
    /// Encoded records.
    pub(crate) body: &'a [u8],
}

/// One record of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Offset of this record.
    pub offset: Offset,
    /// Position of this record in its stream.
    pub sequence: u32,
    /// What the bytes are.
    pub tag: RecordTag,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// A frame whose body is known to be filled by its records.
    pub(crate) fn new(header: &FrameHeader, body: &'a [u8]) -> Self {
        Self {
            base: Offset::new(header.base),
            key: Key::new(header.key),
            sequence: header.sequence,
            previous: header.previous.map(Offset::new),
            appended_at: AppendTime::from_micros(header.appended_at),
            count: header.records,
            body,
        }
    }

    /// Count of records.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.count)
    }

    /// Whether the frame has no record; readers never see such a frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Offset after the frame's last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.base.plus(self.len())
    }

    /// The records, in order.
    #[must_use]
    #[inline]
    pub fn records(&self) -> RecordIter<'a> {
        RecordIter {
            base: self.base,
            sequence: self.sequence,
            index: 0,
            rest: self.body,
        }
    }
}

/// The records of a frame, in order.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    base: Offset,
    sequence: u32,
    index: u16,
    rest: &'a [u8],
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let (event_type, schema, codec, length) = read_record_header(self.rest)?;
        let (bytes, rest) = self.rest[RECORD_HEADER_BYTES..].split_at_checked(length)?;
        let index = u32::from(self.index);
        self.index += 1;
        self.rest = rest;
        Some(Record {
            offset: self.base.plus(u64::from(index)),
            sequence: self.sequence.saturating_add(index),
            tag: RecordTag {
                event_type,
                schema,
                codec,
            },
            bytes,
        })
    }
}
