//! One record as one line of JSON: the names, the order, the checks. `docs/events-jsonl.md` tells the same to people.
//!
//! ```json
//! {"partition":0,"offset":12,"order_id":"0199c82c-…","version":1,"type":"OrderPlaced","time":"2026-11-22T19:00:00.000000Z","data":{…},"type_id":1,"schema":1,"codec":2,"previous":9,"frame":[0,2]}
//! ```
//!
//! `previous` is left out where there is none, `frame` where the record is its frame alone.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::timestamp;
use crate::frame::{Frame, Record};
use crate::layout::{
    FRAME_BODY_BYTES_MAX, FRAME_RECORDS_MAX, RECORD_HEADER_BYTES, write_record_header,
};
use crate::{AppendTime, Key, Offset, PartitionId, RecordTag};

/// Longest line: the longest record and everything around it.
pub(super) const LINE_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX + 4 * 1024;

/// Appends the lines of a frame as they stand in the file of the JSONL log: for tools that write such a file.
///
/// # Panics
/// If a record is not one JSON value without a newline.
pub fn write_frame(
    partition: PartitionId,
    frame: &Frame<'_>,
    type_names: fn(u16) -> &'static str,
    out: &mut Vec<u8>,
) {
    for (index, record) in (0..).zip(frame.records()) {
        let type_name = type_names(record.tag.event_type);
        write(partition, frame, &record, index, type_name, out);
    }
}

/// Appends the line of the record at `index` of `frame`, newline included.
///
/// # Panics
/// If the record's bytes hold a newline or are too long, and in debug builds if they are not JSON: bugs of the caller,
/// who was asked for one JSON value a record.
pub(super) fn write(
    partition: PartitionId,
    frame: &Frame<'_>,
    record: &Record<'_>,
    index: u16,
    type_name: &str,
    out: &mut Vec<u8>,
) {
    assert!(
        memchr::memchr(b'\n', record.bytes).is_none(),
        "a record of the JSONL log has no newline"
    );
    debug_assert!(
        serde_json::from_slice::<de::IgnoredAny>(record.bytes).is_ok(),
        "a record of the JSONL log is JSON"
    );
    let start = out.len();
    out.extend_from_slice(b"{\"partition\":");
    json(&partition.get(), out);
    out.extend_from_slice(b",\"offset\":");
    json(&record.offset.get(), out);
    out.extend_from_slice(b",\"order_id\":\"");
    write_key(frame.key, out);
    out.extend_from_slice(b"\",\"version\":");
    json(&record.sequence, out);
    out.extend_from_slice(b",\"type\":");
    json(type_name, out);
    out.extend_from_slice(b",\"time\":\"");
    timestamp::write(frame.appended_at, out);
    out.extend_from_slice(b"\",\"data\":");
    out.extend_from_slice(record.bytes);
    out.extend_from_slice(b",\"type_id\":");
    json(&record.tag.event_type, out);
    out.extend_from_slice(b",\"schema\":");
    json(&record.tag.schema, out);
    out.extend_from_slice(b",\"codec\":");
    json(&record.tag.codec, out);
    if let Some(previous) = frame.previous {
        out.extend_from_slice(b",\"previous\":");
        json(&previous.get(), out);
    }
    if frame.count > 1 {
        out.extend_from_slice(b",\"frame\":[");
        json(&index, out);
        out.push(b',');
        json(&frame.count, out);
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    assert!(
        out.len() - start <= LINE_BYTES_MAX,
        "a line is over the limit"
    );
}

/// Appends a number or a text as JSON.
fn json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("numbers and text are JSON, and a Vec takes them all");
}

/// Hyphens of the text form of a UUID stand before these bytes.
const HYPHEN_BEFORE: [usize; 4] = [4, 6, 8, 10];

fn write_key(key: Key, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in key.as_bytes().iter().enumerate() {
        if HYPHEN_BEFORE.contains(&index) {
            out.push(b'-');
        }
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

fn parse_key(text: &str) -> Option<Key> {
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    let mut rest = text.as_bytes();
    let mut key = [0; 16];
    for (index, byte) in key.iter_mut().enumerate() {
        if HYPHEN_BEFORE.contains(&index) {
            rest = rest.strip_prefix(b"-")?;
        }
        let [high, low, behind @ ..] = rest else {
            return None;
        };
        *byte = nibble(*high)? << 4 | nibble(*low)?;
        rest = behind;
    }
    rest.is_empty().then_some(Key::new(key))
}

/// A line, read. `type` is for people and not looked at: `type_id` is what counts. Fields nobody knows are passed over.
#[derive(Debug, serde::Deserialize)]
struct Fields<'a> {
    partition: u16,
    offset: u64,
    #[serde(deserialize_with = "key_text")]
    order_id: Key,
    version: u32,
    #[serde(deserialize_with = "time_text")]
    time: AppendTime,
    #[serde(borrow)]
    data: &'a RawValue,
    type_id: u16,
    schema: u8,
    codec: u8,
    #[serde(default)]
    previous: Option<u64>,
    #[serde(default = "alone")]
    frame: (u16, u16),
}

/// The first record of a frame of one.
const fn alone() -> (u16, u16) {
    (0, 1)
}

/// Reads a text in place, whether or not it has escapes.
struct TextVisitor<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

fn key_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
    deserializer.deserialize_str(TextVisitor {
        expected: "a UUID",
        parse: parse_key,
    })
}

fn time_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AppendTime, D::Error> {
    deserializer.deserialize_str(TextVisitor {
        expected: "a time in UTC",
        parse: timestamp::parse,
    })
}

/// Why a line is not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineFault {
    /// Not JSON at all: what a torn write leaves.
    #[error("it is not JSON: {0}")]
    NotJson(String),
    /// JSON, but not a record of this log, or not the one that belongs here.
    #[error("{0}")]
    NotTheRecord(Cow<'static, str>),
}

impl LineFault {
    fn of(error: &serde_json::Error) -> Self {
        // The parser counts lines within this line; only the column means something to whoever reads the file.
        let text = error.to_string();
        let what = text
            .rsplit_once(" at line ")
            .map_or(&*text, |(what, _)| what);
        match error.classify() {
            serde_json::error::Category::Syntax | serde_json::error::Category::Eof => {
                Self::NotJson(format!("{what} at column {}", error.column()))
            }
            serde_json::error::Category::Data | serde_json::error::Category::Io => {
                Self::NotTheRecord(format!("it is not a record: {what}").into())
            }
        }
    }
}

/// One record, borrowed from its line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) partition: PartitionId,
    pub(super) offset: Offset,
    pub(super) time: AppendTime,
    /// Which record of its frame, from 0, of how many.
    pub(super) index: u16,
    pub(super) count: u16,
    key: Key,
    version: u32,
    previous: Option<Offset>,
    tag: RecordTag,
    data: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its newline.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, LineFault> {
        let fields: Fields<'a> =
            serde_json::from_slice(bytes).map_err(|error| LineFault::of(&error))?;
        Ok(Self {
            partition: PartitionId::new(fields.partition),
            offset: Offset::new(fields.offset),
            time: fields.time,
            index: fields.frame.0,
            count: fields.frame.1,
            key: fields.order_id,
            version: fields.version,
            previous: fields.previous.map(Offset::new),
            tag: RecordTag {
                event_type: fields.type_id,
                schema: fields.schema,
                codec: fields.codec,
            },
            data: fields.data.get().as_bytes(),
        })
    }
}

/// A frame put together from its lines, which must follow each other.
#[derive(Debug, Default)]
pub(super) struct FrameBuilder {
    head: Option<FrameHead>,
    /// The records in the layout of a frame's body.
    body: Vec<u8>,
    seen: u16,
}

/// What all lines of a frame agree on.
#[derive(Debug, Clone, Copy)]
struct FrameHead {
    partition: PartitionId,
    base: Offset,
    key: Key,
    sequence: u32,
    previous: Option<Offset>,
    appended_at: AppendTime,
    count: u16,
}

impl FrameBuilder {
    /// Forgets the frame, keeps its memory.
    pub(super) fn clear(&mut self) {
        self.head = None;
        self.body.clear();
        self.seen = 0;
    }

    /// Whether a frame was begun and misses lines.
    fn is_incomplete(&self) -> bool {
        self.head.is_some_and(|head| self.seen < head.count)
    }

    /// Adds the next line of the frame that starts at `base`; after a whole frame, the first of another. Says whether
    /// the frame is whole.
    pub(super) fn add(&mut self, line: &Line<'_>, base: Offset) -> Result<bool, LineFault> {
        if !self.is_incomplete() {
            self.clear();
        }
        let expected = base.plus(u64::from(self.seen));
        let head = match self.head {
            Some(head) => self.continued(head, line)?,
            None => Self::begun(line, expected)?,
        };
        if line.offset != expected {
            return Err(not_the_record(format!(
                "it has offset {} of partition {} where {expected} is next",
                line.offset, line.partition
            )));
        }
        let start = self.body.len();
        let bytes = start + RECORD_HEADER_BYTES + line.data.len();
        if bytes > FRAME_BODY_BYTES_MAX {
            return Err(not_the_record(format!(
                "its frame is over the limit of {FRAME_BODY_BYTES_MAX} bytes"
            )));
        }
        self.body.resize(start + RECORD_HEADER_BYTES, 0);
        let length = u32::try_from(line.data.len()).expect("within the frame's limit");
        let RecordTag {
            event_type,
            schema,
            codec,
        } = line.tag;
        write_record_header(&mut self.body[start..], event_type, schema, codec, length);
        self.body.extend_from_slice(line.data);
        self.head = Some(head);
        self.seen += 1;
        Ok(self.seen == head.count)
    }

    /// The frame, when it is whole.
    pub(super) fn whole(&self) -> Option<Frame<'_>> {
        let head = self.head?;
        (self.seen == head.count).then_some(Frame {
            base: head.base,
            key: head.key,
            sequence: head.sequence,
            previous: head.previous,
            appended_at: head.appended_at,
            count: head.count,
            body: &self.body,
        })
    }

    fn begun(line: &Line<'_>, expected: Offset) -> Result<FrameHead, LineFault> {
        if line.index != 0 {
            return Err(not_the_record(format!(
                "it is record {} of a frame whose start is not before it",
                line.index
            )));
        }
        if line.count == 0 || line.count > FRAME_RECORDS_MAX {
            return Err(not_the_record(format!(
                "its frame has {} records, allowed are 1 to {FRAME_RECORDS_MAX}",
                line.count
            )));
        }
        if line.previous.is_some_and(|previous| previous >= expected) {
            return Err(not_the_record(
                "`previous` is not before `offset`".to_owned(),
            ));
        }
        Ok(FrameHead {
            partition: line.partition,
            base: line.offset,
            key: line.key,
            sequence: line.version,
            previous: line.previous,
            appended_at: line.time,
            count: line.count,
        })
    }

    fn continued(&self, head: FrameHead, line: &Line<'_>) -> Result<FrameHead, LineFault> {
        let belongs = line.partition == head.partition
            && line.key == head.key
            && line.version == head.sequence.saturating_add(u32::from(self.seen))
            && line.previous == head.previous
            && line.time == head.appended_at
            && (line.index, line.count) == (self.seen, head.count);
        if belongs {
            Ok(head)
        } else {
            Err(not_the_record(format!(
                "the frame at offset {} of partition {} has {} of its {} records before it, and it is not the next",
                head.base, head.partition, self.seen, head.count
            )))
        }
    }
}

pub(super) fn not_the_record(reason: String) -> LineFault {
    LineFault::NotTheRecord(reason.into())
}
