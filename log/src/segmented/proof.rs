//! Proof of one sealed segment by plain reads through a bounded buffer: a bad sector is an error and not the end of the
//! process, and a segment of any size takes the same memory.

use std::io;
use std::ops::ControlFlow;

use crate::disk::DiskFile;
use crate::layout::{
    FRAME_BODY_BYTES_MAX, FRAME_HEADER_BYTES, FrameFault, FrameHeader, Identity,
    SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader, chain, frame_bytes,
    header_crc, index, is_zero,
};

/// Bytes a read.
const READ_BYTES: usize = 256 * 1024;
/// A frame is looked at when all of it that there can be is in memory.
const FRAME_BYTES_MAX: usize = frame_bytes(FRAME_BODY_BYTES_MAX);

/// What does not verify in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where in the file, in bytes.
    pub(super) position: u64,
    /// Offset of the record that should stand there.
    pub(super) offset: u64,
    pub(super) reason: String,
}

/// What a proof of a sealed segment found.
#[derive(Debug, Default)]
pub(super) struct SealedProof {
    pub(super) frames: u64,
    pub(super) records: u64,
    /// Records that a repair declared lost, as ranges of offsets.
    pub(super) lost: Vec<(u64, u64)>,
    pub(super) faults: Vec<Fault>,
    /// Whether the proof was broken off.
    pub(super) interrupted: bool,
}

/// Proves the segment that starts at `base` and has a successor at `next_base`. `pace` hears of every read's bytes before
/// the next one, and may break the proof off.
pub(super) fn prove_sealed(
    file: &dyn DiskFile,
    identity: Identity,
    base: u64,
    next_base: u64,
    pace: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> SealedProof {
    let mut proof = Prover {
        file,
        identity,
        pace,
        position: 0,
        offset: base,
        frames_end: 0,
        buffer: Vec::new(),
        buffer_start: 0,
        found: SealedProof::default(),
    };
    if let Err(stop) = proof.run(base, next_base) {
        match stop {
            Stop::Interrupted => proof.found.interrupted = true,
            Stop::Fault(reason) => proof.fault(reason),
        }
    }
    proof.found
}

/// Why a proof ends before the segment does.
enum Stop {
    Interrupted,
    Fault(String),
}

struct Prover<'p> {
    file: &'p dyn DiskFile,
    identity: Identity,
    pace: &'p mut dyn FnMut(u64) -> ControlFlow<()>,
    position: u64,
    offset: u64,
    /// Where frames may stand ends here.
    frames_end: u64,
    buffer: Vec<u8>,
    /// Position of the buffer's first byte.
    buffer_start: u64,
    found: SealedProof,
}

impl Prover<'_> {
    fn run(&mut self, base: u64, next_base: u64) -> Result<(), Stop> {
        let unreadable = |error: io::Error| Stop::Fault(format!("cannot be read: {error}"));
        let length = self.file.length().map_err(unreadable)?;
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let header_bytes = index(length.min(SEGMENT_HEADER_BYTES as u64));
        self.file
            .read_exact_at(&mut header[..header_bytes], 0)
            .map_err(unreadable)?;
        if let Err(reason) =
            SegmentHeader::read(&header[..header_bytes], self.identity, base, length)
        {
            self.fault(reason);
        }
        self.frames_end = length.saturating_sub(SEGMENT_FOOTER_BYTES as u64);
        let mut footer = [0; SEGMENT_FOOTER_BYTES];
        let footer_bytes = index(length - self.frames_end);
        self.file
            .read_exact_at(&mut footer[..footer_bytes], self.frames_end)
            .map_err(unreadable)?;
        let footer = SegmentFooter::read(&footer[..footer_bytes], self.identity, base);
        self.position = SEGMENT_HEADER_BYTES as u64;
        self.buffer_start = self.position;

        let chained = self.walk(footer.map(|footer| footer.end_position))?;
        let end_position = self.position;
        self.expect_zeros()?;
        self.position = self.frames_end;
        match footer {
            None => self.fault(format!(
                "a sealed segment's footer of {SEGMENT_FOOTER_BYTES} bytes does not verify"
            )),
            Some(footer)
                if footer.chain != chained
                    || footer.end != self.offset
                    || footer.end_position != end_position =>
            {
                self.fault("the footer does not fit the frames".to_owned());
            }
            Some(_) => {}
        }
        if self.offset != next_base {
            self.position = end_position;
            self.fault(format!(
                "the segment ends at offset {}, the next one starts at {next_base}",
                self.offset
            ));
        }
        Ok(())
    }

    /// Verifies the frames up to where the footer says that they end; without one, to the first zeros.
    fn walk(&mut self, end_position: Option<u64>) -> Result<u32, Stop> {
        let mut chained = 0;
        while self.position < end_position.unwrap_or(self.frames_end).min(self.frames_end) {
            self.fill(FRAME_BYTES_MAX)?;
            let at = index(self.position - self.buffer_start);
            let bytes = &self.buffer[at..];
            let read = FrameHeader::read_frame(bytes, self.identity, self.offset)
                .and_then(|frame| frame.ok_or(FrameFault::Missing));
            let header = match read {
                Ok((header, _)) => header,
                // Without a footer the end is not known: zeros may be it.
                Err(FrameFault::Missing) if end_position.is_none() => break,
                Err(fault) => return Err(Stop::Fault(fault.to_string())),
            };
            let used = FRAME_HEADER_BYTES + header.body_bytes as usize;
            let padded = is_zero(&bytes[used..header.total_bytes()]);
            chained = chain(chained, &header_crc(bytes));
            if !padded {
                self.fault(format!(
                    "the bytes that fill up the frame behind byte {} are not zero",
                    self.position + used as u64
                ));
            }
            self.found.frames += 1;
            self.found.records += u64::from(header.records);
            if header.is_void() {
                self.found
                    .lost
                    .push((header.base, header.base + header.span()));
            }
            self.offset += header.span();
            self.position += header.total_bytes() as u64;
        }
        Ok(chained)
    }

    /// Nothing was ever written between the last frame and the footer.
    fn expect_zeros(&mut self) -> Result<(), Stop> {
        while self.position < self.frames_end {
            self.fill(1)?;
            let at = index(self.position - self.buffer_start);
            if let Some(wrong) = self.buffer[at..].iter().position(|byte| *byte != 0) {
                self.position += wrong as u64;
                self.fault("bytes stand where nothing was written".to_owned());
                return Ok(());
            }
            self.position = self.buffer_start + self.buffer.len() as u64;
        }
        Ok(())
    }

    /// Has at least `wanted` bytes from the position on in the buffer, or all that there are.
    fn fill(&mut self, wanted: usize) -> Result<(), Stop> {
        let used = index(self.position - self.buffer_start);
        let buffered_to = self.buffer_start + self.buffer.len() as u64;
        let needed_to = (self.position + wanted as u64).min(self.frames_end);
        if buffered_to >= needed_to {
            return Ok(());
        }
        self.buffer.drain(..used.min(self.buffer.len()));
        self.buffer_start = self.position;
        let mut read_to = self.buffer_start + self.buffer.len() as u64;
        while read_to < needed_to {
            let step = index((self.frames_end - read_to).min(READ_BYTES as u64));
            let at = self.buffer.len();
            self.buffer.resize(at + step, 0);
            let read = self.file.read_exact_at(&mut self.buffer[at..], read_to);
            if let Err(error) = read {
                self.buffer.truncate(at);
                let reason =
                    format!("the {step} bytes from byte {read_to} on cannot be read: {error}");
                return Err(Stop::Fault(reason));
            }
            read_to += step as u64;
            if (self.pace)(step as u64).is_break() {
                return Err(Stop::Interrupted);
            }
        }
        Ok(())
    }

    fn fault(&mut self, reason: String) {
        self.found.faults.push(Fault {
            position: self.position,
            offset: self.offset,
            reason,
        });
    }
}
