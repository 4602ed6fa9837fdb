//! Every byte of a segment file, laid out once: diagram, constants, arithmetic. `docs/log-format.md` tells the same to
//! people.
//!
//! ```text
//! segment   header (64) | frame | frame | … | zeros … | footer (64, zeros until the segment is sealed)
//! frame     header (72) | record | record | …  | zeros to a multiple of 8
//! record    event type u16 | schema u8 | codec u8 | length u32 | bytes
//!
//! frame header, little-endian
//!   0 header crc u32     4 body crc u32       8 body bytes u32    12 records u16   14 format u8   15 zero
//!  16 base offset u64   24 synced u64        32 append time u64   40 key [16]
//!  56 previous u64      64 sequence u32      68 epoch u32
//! ```
//!
//! The header's checksum starts from the checksum of the *identity* (log id, partition), which is not stored, and covers
//! bytes 4 to 72: base offset, epoch and body checksum among them. So bytes of another log, partition, place or time never
//! pass. An all-zero header is the end. A frame without records is a *marker*: it only says how far the log was synced.
//! A *void*, of a format of its own, stands where a repair found records lost: it keeps their offsets from being given
//! again.
//!
//! Long because the bytes are laid out once.

pub(crate) mod archive;

use std::fmt;

use crate::mutants::{Mutant, keeps};

/// Version of everything in this file.
pub(crate) const FORMAT: u8 = 1;
/// Format of a void: a frame that stands for lost records, from its base to the offset in its *previous* field.
pub(crate) const FORMAT_VOID: u8 = 2;
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const SEGMENT_FOOTER_BYTES: usize = 64;
pub(crate) const FRAME_HEADER_BYTES: usize = 72;
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
/// Frames start at multiples of this, so that a search behind damage has few places to look.
pub(crate) const FRAME_ALIGNMENT: usize = 8;
/// Longest body of a frame: the largest command the service takes (256 KiB of JSON) encodes to less.
pub(crate) const FRAME_BODY_BYTES_MAX: usize = 512 * 1024;
/// Most records of a frame.
pub(crate) const FRAME_RECORDS_MAX: u16 = 1024;
/// Smallest segment; a batch that does not fit gets one of its own size.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 4096;
/// Largest segment: positions fit the index's 32 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

const SEGMENT_MAGIC: [u8; 8] = *b"ORDERSEG";
const FOOTER_MAGIC: [u8; 8] = *b"ORDERFIN";
const NO_PREVIOUS: u64 = u64::MAX;

const _: () = assert!(FRAME_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(FRAME_ALIGNMENT));
const _: () = assert!(usize::BITS >= 64, "positions are 64 bits");

/// A position or length as an index into memory.
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has at least 64 bits, asserted above"
)]
pub(crate) const fn index(position: u64) -> usize {
    position as usize
}

/// Bytes a frame takes in a segment.
pub(crate) const fn frame_bytes(body_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(FRAME_ALIGNMENT)
}

/// Checksum every checksum of one partition's segments starts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) log_id: [u8; 16],
    pub(crate) partition: u16,
    crc: u32,
}

impl Identity {
    pub(crate) fn new(log_id: [u8; 16], partition: u16) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&log_id);
        hasher.update(&partition.to_le_bytes());
        Self {
            log_id,
            partition,
            crc: hasher.finalize(),
        }
    }

    fn initial(self) -> u32 {
        if keeps(Mutant::Identity) { self.crc } else { 0 }
    }

    fn crc_of(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.initial());
        hasher.update(bytes);
        hasher.finalize()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Identity(partition {}, {:08x})",
            self.partition, self.crc
        )
    }
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of 4"))
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of 8"))
}

#[inline]
fn key_at(bytes: &[u8], at: usize) -> [u8; 16] {
    bytes[at..at + 16].try_into().expect("a slice of 16")
}

#[inline]
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// What does not verify in bytes that should be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameFault {
    #[error("the header runs over the end of the segment")]
    HeaderCut,
    #[error("the header's checksum does not match")]
    HeaderChecksum,
    #[error("frame format {0} is unknown")]
    Format(u8),
    #[error("offset {found} stands where {expected} should")]
    Misplaced { expected: u64, found: u64 },
    #[error("the body of {0} bytes runs over the end of the segment or the limit")]
    BodyCut(u32),
    #[error("the body's checksum does not match")]
    BodyChecksum,
    #[error("the records do not fill the body")]
    Records,
    #[error("a frame of epoch {found} stands behind one of epoch {before}: it is a leftover")]
    Stale { before: u32, found: u32 },
    #[error("zeros stand where a synced frame should")]
    Missing,
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_crc: u32,
    pub(crate) body_bytes: u32,
    pub(crate) records: u16,
    pub(crate) base: u64,
    /// The log's synced end when this frame was written: proof that everything before it was on stable storage.
    pub(crate) synced: u64,
    pub(crate) appended_at: u64,
    pub(crate) key: [u8; 16],
    pub(crate) previous: Option<u64>,
    pub(crate) sequence: u32,
    pub(crate) epoch: u32,
}

impl FrameHeader {
    /// Writes all but what only the log knows: the synced end, the epoch and the header's checksum ([`seal_frame`]).
    #[inline]
    pub(crate) fn write_unsealed(&self, bytes: &mut [u8]) {
        let bytes = bytes
            .first_chunk_mut::<FRAME_HEADER_BYTES>()
            .expect("a frame has a header");
        put(bytes, 4, &self.body_crc.to_le_bytes());
        put(bytes, 8, &self.body_bytes.to_le_bytes());
        put(bytes, 12, &self.records.to_le_bytes());
        bytes[14] = FORMAT;
        bytes[15] = 0;
        put(bytes, 16, &self.base.to_le_bytes());
        put(bytes, 32, &self.appended_at.to_le_bytes());
        put(bytes, 40, &self.key);
        put(
            bytes,
            56,
            &self.previous.unwrap_or(NO_PREVIOUS).to_le_bytes(),
        );
        put(bytes, 64, &self.sequence.to_le_bytes());
    }

    /// Reads the fields without believing them: for bytes this process made itself.
    #[inline]
    pub(crate) fn read_unchecked(bytes: &[u8]) -> Self {
        let bytes = bytes
            .first_chunk::<FRAME_HEADER_BYTES>()
            .expect("a frame has a header");
        let previous = u64_at(bytes, 56);
        Self {
            body_crc: u32_at(bytes, 4),
            body_bytes: u32_at(bytes, 8),
            records: u16_at(bytes, 12),
            base: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            appended_at: u64_at(bytes, 32),
            key: key_at(bytes, 40),
            previous: (previous != NO_PREVIOUS).then_some(previous),
            sequence: u32_at(bytes, 64),
            epoch: u32_at(bytes, 68),
        }
    }

    /// Reads a header that stands at the start of `bytes`, which end where frames may end. `None` is the end of the log:
    /// zeros.
    pub(crate) fn read(bytes: &[u8], identity: Identity) -> Result<Option<Self>, FrameFault> {
        FrameReader::new(identity).header(bytes)
    }

    /// Reads and verifies a whole frame at the start of `bytes`: both checksums, its place, its records' arithmetic.
    pub(crate) fn read_frame(
        bytes: &[u8],
        identity: Identity,
        expected_base: u64,
    ) -> Result<Option<(Self, &[u8])>, FrameFault> {
        FrameReader::new(identity).frame(bytes, expected_base)
    }

    /// Whether readers see nothing of the frame: a marker, or a void.
    pub(crate) const fn is_silent(&self) -> bool {
        self.records == 0
    }

    /// Whether the frame stands for lost records.
    pub(crate) const fn is_void(&self) -> bool {
        self.records == 0 && self.previous.is_some()
    }

    /// How many offsets the frame takes: its records, or those it says are lost.
    pub(crate) const fn span(&self) -> u64 {
        match (self.records, self.previous) {
            (0, Some(end)) => end.saturating_sub(self.base),
            (records, _) => records as u64,
        }
    }

    /// Bytes the frame takes in the segment.
    pub(crate) const fn total_bytes(&self) -> usize {
        frame_bytes(self.body_bytes as usize)
    }
}

/// Reads and verifies the frames of one partition, one after another. What is the same for all of them is found out once.
/// Inlined by force: left to the compiler, a frame is copied from call to call, which takes as long as verifying it.
#[derive(Debug, Clone)]
pub(crate) struct FrameReader {
    /// Stands behind the identity.
    header: crc32fast::Hasher,
    body: crc32fast::Hasher,
}

impl FrameReader {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            header: crc32fast::Hasher::new_with_initial(identity.initial()),
            body: crc32fast::Hasher::new(),
        }
    }

    /// [`FrameHeader::read`].
    #[inline(always)]
    pub(crate) fn header(&self, bytes: &[u8]) -> Result<Option<FrameHeader>, FrameFault> {
        let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            return if is_zero(bytes) {
                Ok(None)
            } else {
                Err(FrameFault::HeaderCut)
            };
        };
        let mut crc = self.header.clone();
        crc.update(&header[4..]);
        if u32_at(header, 0) != crc.finalize() && keeps(Mutant::HeaderChecksum) {
            return if is_zero(header) {
                Ok(None)
            } else {
                Err(FrameFault::HeaderChecksum)
            };
        }
        let fields = FrameHeader::read_unchecked(header);
        if header[14] != FORMAT {
            if is_zero(header) {
                return Ok(None);
            }
            if header[14] != FORMAT_VOID {
                return Err(FrameFault::Format(header[14]));
            }
            let lost = fields.previous.is_some_and(|end| end > fields.base);
            if !lost || fields.records > 0 || fields.body_bytes > 0 {
                return Err(FrameFault::Records);
            }
        } else if fields.is_void() {
            // Only a void is taken for one: a marker leads nowhere.
            return Err(FrameFault::Records);
        }
        let body_bytes = fields.body_bytes as usize;
        if body_bytes > FRAME_BODY_BYTES_MAX
            || fields.records > FRAME_RECORDS_MAX
            || frame_bytes(body_bytes) > bytes.len()
        {
            return Err(FrameFault::BodyCut(fields.body_bytes));
        }
        Ok(Some(fields))
    }

    /// [`FrameHeader::read_frame`].
    #[inline(always)]
    pub(crate) fn frame<'b>(
        &self,
        bytes: &'b [u8],
        expected_base: u64,
    ) -> Result<Option<(FrameHeader, &'b [u8])>, FrameFault> {
        let Some(header) = self.header(bytes)? else {
            return Ok(None);
        };
        if header.base != expected_base {
            return Err(FrameFault::Misplaced {
                expected: expected_base,
                found: header.base,
            });
        }
        let body = &bytes[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + header.body_bytes as usize];
        let mut crc = self.body.clone();
        crc.update(body);
        if crc.finalize() != header.body_crc && keeps(Mutant::BodyChecksum) {
            return Err(FrameFault::BodyChecksum);
        }
        if !records_fill(body, header.records) {
            return Err(FrameFault::Records);
        }
        Ok(Some((header, body)))
    }
}

/// A frame that says the records from `base` to `end` are lost.
pub(crate) fn void_frame(
    base: u64,
    end: u64,
    appended_at: u64,
    epoch: u32,
    identity: Identity,
) -> [u8; FRAME_HEADER_BYTES] {
    debug_assert!(end > base, "a void stands for at least one record");
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let header = FrameHeader {
        body_crc: crc32fast::hash(&[]),
        body_bytes: 0,
        records: 0,
        base,
        synced: 0,
        appended_at,
        key: [0; 16],
        previous: Some(end),
        sequence: 0,
        epoch,
    };
    header.write_unsealed(&mut bytes);
    bytes[14] = FORMAT_VOID;
    seal_frame(&mut bytes, base, epoch, identity);
    bytes
}

/// Completes frames made by [`FrameHeader::write_unsealed`] for their place in the log. What is the same for all of them is
/// found out once.
#[derive(Debug)]
pub(crate) struct FrameSealer {
    /// Stands behind the identity.
    header: crc32fast::Hasher,
    synced: u64,
    epoch: u32,
}

impl FrameSealer {
    pub(crate) fn new(identity: Identity, synced: u64, epoch: u32) -> Self {
        Self {
            header: crc32fast::Hasher::new_with_initial(identity.initial()),
            synced,
            epoch,
        }
    }

    /// Completes the frame at the start of `bytes`; returns its header's checksum, as stored.
    #[inline]
    pub(crate) fn seal(&self, bytes: &mut [u8]) -> [u8; 4] {
        let header = bytes
            .first_chunk_mut::<FRAME_HEADER_BYTES>()
            .expect("a frame has a header");
        put(header, 24, &self.synced.to_le_bytes());
        put(header, 68, &self.epoch.to_le_bytes());
        let mut crc = self.header.clone();
        crc.update(&header[4..]);
        let stored = crc.finalize().to_le_bytes();
        put(header, 0, &stored);
        stored
    }
}

/// Completes one frame: see [`FrameSealer`].
pub(crate) fn seal_frame(bytes: &mut [u8], synced: u64, epoch: u32, identity: Identity) {
    FrameSealer::new(identity, synced, epoch).seal(bytes);
}

/// Makes the checksum of a body right, if there are as many bytes.
#[cfg(fuzzing)]
pub(crate) fn put_body_crc(frame: &mut [u8], body_bytes: usize) {
    if let Some(body) = frame.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + body_bytes) {
        let crc = crc32fast::hash(body);
        put(frame, 4, &crc.to_le_bytes());
    }
}

/// The header checksum of a frame, as stored: what the segment's chain is made of.
pub(crate) fn header_crc(frame: &[u8]) -> [u8; 4] {
    frame[..4].try_into().expect("a slice of 4")
}

/// Adds frames, by their header checksums as stored, to the checksum over all frames of a segment.
pub(crate) fn chain(crc: u32, header_crcs: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(header_crcs);
    hasher.finalize()
}

/// The header of a record at the start of `bytes`: event type, schema, codec, length of what follows.
#[inline]
pub(crate) fn read_record_header(bytes: &[u8]) -> Option<(u16, u8, u8, usize)> {
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    Some((
        u16_at(header, 0),
        header[2],
        header[3],
        u32_at(header, 4) as usize,
    ))
}

/// Writes a record's header into the [`RECORD_HEADER_BYTES`] in front of its bytes.
pub(crate) fn write_record_header(
    bytes: &mut [u8],
    event_type: u16,
    schema: u8,
    codec: u8,
    length: u32,
) {
    put(bytes, 0, &event_type.to_le_bytes());
    bytes[2] = schema;
    bytes[3] = codec;
    put(bytes, 4, &length.to_le_bytes());
}

#[inline]
fn records_fill(body: &[u8], records: u16) -> bool {
    let mut rest = body;
    for _ in 0..records {
        let Some((_, _, _, length)) = read_record_header(rest) else {
            return false;
        };
        let Some(behind) = rest.get(RECORD_HEADER_BYTES + length..) else {
            return false;
        };
        rest = behind;
    }
    rest.is_empty()
}

/// Whether all bytes are zero; a run of words a step.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (head, words, tail) = (bytes.chunks_exact(64), bytes.len() / 64 * 64, bytes);
    head.into_iter()
        .all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
        && tail[words..].iter().all(|byte| *byte == 0)
}

/// The head of a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) identity: Identity,
    pub(crate) epoch: u32,
    pub(crate) base: u64,
    pub(crate) capacity: u64,
    pub(crate) created_at: u64,
}

impl SegmentHeader {
    pub(crate) fn to_bytes(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        put(&mut bytes, 0, &SEGMENT_MAGIC);
        bytes[12] = FORMAT;
        put(&mut bytes, 16, &self.identity.log_id);
        put(&mut bytes, 32, &self.identity.partition.to_le_bytes());
        put(&mut bytes, 36, &self.epoch.to_le_bytes());
        put(&mut bytes, 40, &self.base.to_le_bytes());
        put(&mut bytes, 48, &self.capacity.to_le_bytes());
        put(&mut bytes, 56, &self.created_at.to_le_bytes());
        let crc = crc32fast::hash(&bytes[12..]);
        put(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    /// Reads the head of a file of `file_bytes`; the error says what does not fit.
    pub(crate) fn read(
        bytes: &[u8],
        identity: Identity,
        base: u64,
        file_bytes: u64,
    ) -> Result<Self, String> {
        let Some(bytes) = bytes.get(..SEGMENT_HEADER_BYTES) else {
            return Err(format!(
                "a segment of {} bytes has no room for its header",
                bytes.len()
            ));
        };
        if bytes[..8] != SEGMENT_MAGIC {
            return Err("this is not a segment: its first bytes are wrong".to_owned());
        }
        if u32_at(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return Err("the segment header's checksum does not match".to_owned());
        }
        if bytes[12] != FORMAT {
            return Err(format!(
                "segment format {} is unknown; this version knows {FORMAT}",
                bytes[12]
            ));
        }
        let log_id = key_at(bytes, 16);
        let partition = u16_at(bytes, 32);
        if log_id != identity.log_id || partition != identity.partition {
            return Err(format!(
                "the segment belongs to partition {partition} of log {}, not to partition {} of log {}",
                hex(&log_id),
                identity.partition,
                hex(&identity.log_id)
            ));
        }
        let header = Self {
            identity,
            epoch: u32_at(bytes, 36),
            base: u64_at(bytes, 40),
            capacity: u64_at(bytes, 48),
            created_at: u64_at(bytes, 56),
        };
        if header.base != base {
            return Err(format!(
                "the segment starts at offset {}, its name says {base}",
                header.base
            ));
        }
        if header.capacity != file_bytes {
            return Err(format!(
                "the segment has {file_bytes} bytes, its header says {}",
                header.capacity
            ));
        }
        Ok(header)
    }
}

impl SegmentHeader {
    /// Why an intact header says that the file is another segment than its place says, if it does. A header that does not
    /// verify says nothing.
    pub(crate) fn foreign(bytes: &[u8], identity: Identity, base: u64) -> Option<String> {
        let header = bytes.get(..SEGMENT_HEADER_BYTES)?;
        if header[..8] != SEGMENT_MAGIC || u32_at(header, 8) != crc32fast::hash(&header[12..]) {
            return None;
        }
        // Its length is judged by its own idea of it: a file that was cut is damaged, not foreign.
        Self::read(bytes, identity, base, u64_at(header, 48)).err()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The foot of a sealed segment: the proof that all its frames were synced, and a digest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentFooter {
    /// [`chain`] over all frames' header checksums.
    pub(crate) chain: u32,
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) end_position: u64,
    pub(crate) first_append_time: u64,
    pub(crate) last_append_time: u64,
    pub(crate) epoch: u32,
}

impl SegmentFooter {
    pub(crate) fn to_bytes(self, identity: Identity) -> [u8; SEGMENT_FOOTER_BYTES] {
        let mut bytes = [0; SEGMENT_FOOTER_BYTES];
        put(&mut bytes, 0, &FOOTER_MAGIC);
        put(&mut bytes, 12, &self.chain.to_le_bytes());
        put(&mut bytes, 16, &self.base.to_le_bytes());
        put(&mut bytes, 24, &self.end.to_le_bytes());
        put(&mut bytes, 32, &self.end_position.to_le_bytes());
        put(&mut bytes, 40, &self.first_append_time.to_le_bytes());
        put(&mut bytes, 48, &self.last_append_time.to_le_bytes());
        put(&mut bytes, 56, &self.epoch.to_le_bytes());
        let crc = identity.crc_of(&bytes[12..]);
        put(&mut bytes, 8, &crc.to_le_bytes());
        bytes
    }

    /// Reads a footer; `None` if the bytes are not the footer of this segment.
    pub(crate) fn read(bytes: &[u8], identity: Identity, base: u64) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_FOOTER_BYTES)?;
        if bytes[..8] != FOOTER_MAGIC || u32_at(bytes, 8) != identity.crc_of(&bytes[12..]) {
            return None;
        }
        let footer = Self {
            chain: u32_at(bytes, 12),
            base: u64_at(bytes, 16),
            end: u64_at(bytes, 24),
            end_position: u64_at(bytes, 32),
            first_append_time: u64_at(bytes, 40),
            last_append_time: u64_at(bytes, 48),
            epoch: u32_at(bytes, 56),
        };
        (footer.base == base && footer.end >= base).then_some(footer)
    }
}
