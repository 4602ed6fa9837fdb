//! Frames under construction: what one append takes.

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
/// batch.record(|bytes| { bytes.extend_from_slice(b"hello"); tag });
/// let base = batch.end_frame();
/// assert_eq!((base, batch.end()), (Offset::ZERO, Offset::new(1)));
/// ```
#[derive(Debug, Default)]
pub struct Batch {
    _bytes: Vec<u8>,
}

impl Batch {
    /// An empty batch at offset 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the batch; its next record gets `offset`.
    pub fn start_at(&mut self, offset: Offset) {
        let _ = offset;
        todo!()
    }

    /// Begins a frame. `sequence` is the position of its first record in the stream of `key`, `previous` the base offset
    /// of the stream's previous frame, which may be in this batch.
    pub fn begin_frame(
        &mut self,
        key: Key,
        sequence: u32,
        previous: Option<Offset>,
        at: AppendTime,
    ) {
        let _ = (key, sequence, previous, at);
        todo!()
    }

    /// Adds a record: `encode` appends its bytes to the buffer, touching nothing before them, and says what they are.
    pub fn record(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> RecordTag) {
        let _ = encode;
        todo!()
    }

    /// Ends the frame, which must have at least one record, and returns its base offset.
    pub fn end_frame(&mut self) -> Offset {
        todo!()
    }

    /// Offset after the last record.
    #[must_use]
    pub fn end(&self) -> Offset {
        todo!()
    }

    /// Count of frames.
    #[must_use]
    pub fn frames(&self) -> usize {
        todo!()
    }

    /// Bytes of all frames as they will stand in the log.
    #[must_use]
    pub fn bytes(&self) -> usize {
        todo!()
    }

    /// Whether there is no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames() == 0
    }
}
