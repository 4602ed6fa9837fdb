//! Frames under construction: what one append takes.

use crate::frame::Frame;
use crate::layout::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_RECORDS_MAX, FrameHeader, RECORD_HEADER_BYTES,
    frame_bytes, write_record_header,
};
use crate::{AppendTime, Key, Offset, RecordTag};

/// Frames to be appended together, in their final layout. Reused from batch to batch without allocating.
///
/// ```
/// use order_log::{AppendTime, Batch, Key, Offset, RecordTag};
///
/// let mut batch = Batch::new();
/// batch.start_at(Offset::ZERO);
/// let tag = RecordTag { event_type: 1, schema: 1, codec: 1 };
/// batch.begin_frame(Key::new([7; 16]), 1, None, AppendTime::from_micros(1));
/// batch.record(|bytes| {
///     bytes.extend_from_slice(b"hello");
///     tag
/// });
/// let base = batch.end_frame();
/// assert_eq!((base, batch.end()), (Offset::ZERO, Offset::new(1)));
/// assert_eq!(batch.iter().next().unwrap().records().next().unwrap().bytes, b"hello");
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    /// The frames, one behind the other, complete but for what the log adds.
    bytes: Vec<u8>,
    /// Where each frame starts in `bytes`.
    starts: Vec<usize>,
    start: Offset,
    end: Offset,
    last_append_time: AppendTime,
    open: Option<OpenFrame>,
    /// A checksum of nothing: to find out how this processor makes one takes a while, next to making a short one.
    checksum: crc32fast::Hasher,
}

#[derive(Debug)]
struct OpenFrame {
    at: usize,
    header: FrameHeader,
}

impl Batch {
    /// An empty batch at offset 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the batch; its next record gets `offset`.
    pub fn start_at(&mut self, offset: Offset) {
        self.bytes.clear();
        self.starts.clear();
        self.open = None;
        self.start = offset;
        self.end = offset;
    }

    /// Begins a frame. `sequence` is the position of its first record in the stream of `key`, `previous` the base offset
    /// of the stream's previous frame, which may be in this batch. `at` must not be before the last frame's time.
    ///
    /// # Panics
    /// If the frame before was not ended: a bug of the caller.
    pub fn begin_frame(
        &mut self,
        key: Key,
        sequence: u32,
        previous: Option<Offset>,
        at: AppendTime,
    ) {
        assert!(self.open.is_none(), "the frame before was not ended");
        let start = self.bytes.len();
        self.bytes.resize(start + FRAME_HEADER_BYTES, 0);
        self.open = Some(OpenFrame {
            at: start,
            header: FrameHeader {
                body_crc: 0,
                body_bytes: 0,
                records: 0,
                base: self.end.get(),
                synced: 0,
                appended_at: at.as_micros(),
                key: *key.as_bytes(),
                previous: previous.map(Offset::get),
                sequence,
                epoch: 0,
            },
        });
        self.last_append_time = at;
    }

    /// Adds a record: `encode` appends its bytes to the buffer, touching nothing before them, and says what they are.
    ///
    /// # Panics
    /// Outside a frame, and past the limits of a frame (1,024 records, 512 KiB): the caller's own limits are tighter.
    pub fn record(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> RecordTag) {
        let open = self
            .open
            .as_mut()
            .expect("a record belongs to a frame that was begun");
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        let tag = encode(&mut self.bytes);
        let body_bytes = self
            .bytes
            .len()
            .saturating_sub(open.at + FRAME_HEADER_BYTES);
        assert!(
            body_bytes <= FRAME_BODY_BYTES_MAX,
            "a frame of {body_bytes} bytes is over the limit"
        );
        assert!(
            open.header.records < FRAME_RECORDS_MAX,
            "a frame has too many records"
        );
        let length = u32::try_from(self.bytes.len() - start - RECORD_HEADER_BYTES)
            .expect("within the frame's limit");
        write_record_header(
            &mut self.bytes[start..],
            tag.event_type,
            tag.schema,
            tag.codec,
            length,
        );
        open.header.records += 1;
    }

    /// Whether a frame can hold records of these lengths in bytes: what [`Batch::record`] takes for granted.
    #[must_use]
    pub fn fits_a_frame(lengths: impl IntoIterator<Item = usize>) -> bool {
        let (mut records, mut bytes) = (0_usize, 0_usize);
        for length in lengths {
            records += 1;
            bytes = bytes.saturating_add(RECORD_HEADER_BYTES.saturating_add(length));
        }
        (1..=usize::from(FRAME_RECORDS_MAX)).contains(&records) && bytes <= FRAME_BODY_BYTES_MAX
    }

    /// Ends the frame and returns its base offset.
    ///
    /// # Panics
    /// Without a frame, or if it has no record.
    pub fn end_frame(&mut self) -> Offset {
        let OpenFrame { at, mut header } = self.open.take().expect("a frame was begun");
        assert!(header.records > 0, "a frame has at least one record");
        let body = &self.bytes[at + FRAME_HEADER_BYTES..];
        header.body_bytes = u32::try_from(body.len()).expect("within the frame's limit");
        let mut crc = self.checksum.clone();
        crc.update(body);
        header.body_crc = crc.finalize();
        header.write_unsealed(&mut self.bytes[at..]);
        self.bytes
            .resize(at + frame_bytes(header.body_bytes as usize), 0);
        self.starts.push(at);
        let base = self.end;
        self.end = base.plus(u64::from(header.records));
        base
    }

    /// Offset of the first record.
    #[must_use]
    pub fn start(&self) -> Offset {
        self.start
    }

    /// Offset after the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Count of frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.starts.len()
    }

    /// Bytes of all frames as they will stand in the log.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The frames, in order.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        self.starts.iter().map(|start| {
            let bytes = &self.bytes[*start..];
            let header = FrameHeader::read_unchecked(bytes);
            Frame::new(
                &header,
                &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.body_bytes as usize],
            )
        })
    }

    /// The frames' bytes and where each starts.
    pub(crate) fn parts(&self) -> (&[u8], &[usize]) {
        assert!(self.open.is_none(), "the last frame was not ended");
        (&self.bytes, &self.starts)
    }

    /// Append time of the last frame.
    pub(crate) fn last_append_time(&self) -> AppendTime {
        self.last_append_time
    }
}
