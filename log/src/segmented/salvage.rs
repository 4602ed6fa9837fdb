//! What of a damaged segment is proven, and what is lost: the decision, apart from any file.
//!
//! Every frame that verifies at its place stays where it is, offset by offset. Between two such frames stands a void for
//! what is lost: offsets are what read models, cursors and an order's own chain of frames refer to, so none is ever moved
//! or given again.

use std::ops::Range;

use super::recovery::{Verdict, judge, proven_loss};
use super::segment::{behind, footer_of, frames_of};
use crate::layout::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameFault, FrameHeader, Identity, SEGMENT_BYTES_MIN,
    SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader, chain, header_crc,
    index, is_zero, void_frame,
};

/// Where a segment's offsets end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Where its successor starts.
    Sealed { next_base: u64 },
    /// Nobody knows, but somebody has seen every offset before this one.
    Last { seen: u64 },
}

/// A frame of which only the header is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LostFrame {
    pub(super) base: u64,
    pub(super) records: u16,
    pub(super) key: [u8; 16],
    pub(super) sequence: u32,
}

/// A range of offsets that is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the damaged file it stood, in bytes.
    pub(super) position: usize,
    pub(super) reason: String,
    /// Frames of the range whose headers tell what they were.
    pub(super) frames: Vec<LostFrame>,
}

enum Piece {
    Frame(Range<usize>),
    Void { base: u64, end: u64 },
}

/// What is left of a segment.
pub(super) struct Salvage {
    pieces: Vec<Piece>,
    base: u64,
    pub(super) end: u64,
    pub(super) frames: u64,
    pub(super) records: u64,
    pub(super) losses: Vec<Loss>,
    /// The base offsets and keys that kept frames say their orders' frames before them have.
    pub(super) previous: Vec<(u64, [u8; 16])>,
    epoch: u32,
    sealed: bool,
}

/// Sorts the bytes of a segment into what is proven and what is lost.
pub(super) fn salvage(segment: &[u8], identity: Identity, base: u64, end: End) -> Salvage {
    let frames = frames_of(segment);
    let mut kept = Salvage {
        pieces: Vec::new(),
        base,
        end: base,
        frames: 0,
        records: 0,
        losses: Vec::new(),
        previous: Vec::new(),
        epoch: 0,
        sealed: matches!(end, End::Sealed { .. }),
    };
    let mut position = SEGMENT_HEADER_BYTES;
    loop {
        let fault = match kept.frame_at(frames, position, kept.end, identity, end) {
            Ok(header) => {
                kept.keep(&header, position);
                position += header.total_bytes();
                continue;
            }
            Err(fault) => fault,
        };
        let reason = match end {
            End::Sealed { next_base } if kept.end >= next_base => return kept,
            End::Sealed { .. } => fault.to_string(),
            End::Last { seen } => match judge(frames, identity, kept.end, position, Some(fault)) {
                Verdict::Damaged { fault, proof } => proven_loss(fault, proof),
                Verdict::Clean | Verdict::Torn { .. } if kept.end >= seen => return kept,
                Verdict::Clean | Verdict::Torn { .. } => {
                    format!("{fault}, and everything before offset {seen} was applied or told")
                }
            },
        };
        let found = kept.search(frames, position, identity, end);
        let loss_end = found.resume.map_or(found.end, |(_, base)| base);
        if loss_end > kept.end {
            kept.lose(Loss {
                start: kept.end,
                end: loss_end,
                position,
                reason,
                frames: found.lost,
            });
        }
        let Some((resume, _)) = found.resume else {
            kept.epoch = kept.epoch.max(found.epoch);
            return kept;
        };
        position = resume;
    }
}

/// What stands behind a fault.
struct Found {
    /// Position and base of the next frame that verifies.
    resume: Option<(usize, u64)>,
    /// Without one: the end of what is known to have been there.
    end: u64,
    epoch: u32,
    lost: Vec<LostFrame>,
}

impl Salvage {
    fn frame_at(
        &self,
        frames: &[u8],
        position: usize,
        base: u64,
        identity: Identity,
        end: End,
    ) -> Result<FrameHeader, FrameFault> {
        let (header, _) = FrameHeader::read_frame(behind(frames, position), identity, base)?
            .ok_or(FrameFault::Missing)?;
        if header.epoch < self.epoch {
            return Err(FrameFault::Stale {
                before: self.epoch,
                found: header.epoch,
            });
        }
        match end {
            End::Sealed { next_base } if base + header.span() > next_base => {
                Err(FrameFault::Misplaced {
                    expected: next_base,
                    found: base,
                })
            }
            _ => Ok(header),
        }
    }

    fn keep(&mut self, header: &FrameHeader, position: usize) {
        self.pieces
            .push(Piece::Frame(position..position + header.total_bytes()));
        self.end += header.span();
        self.frames += 1;
        self.records += u64::from(header.records);
        self.epoch = header.epoch;
        if let (false, Some(previous)) = (header.is_silent(), header.previous) {
            self.previous.push((previous, header.key));
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.pieces.push(Piece::Void {
            base: loss.start,
            end: loss.end,
        });
        self.end = loss.end;
        self.losses.push(loss);
    }

    /// Looks behind a fault for the next frame that verifies, and for headers that say what is lost.
    fn search(&self, frames: &[u8], position: usize, identity: Identity, end: End) -> Found {
        let mut found = Found {
            resume: None,
            end: match end {
                End::Sealed { next_base } => next_base,
                End::Last { seen } => seen.max(self.end),
            },
            epoch: self.epoch,
            lost: Vec::new(),
        };
        for at in (position..frames.len()).step_by(FRAME_ALIGNMENT) {
            let bytes = behind(frames, at);
            if bytes.len() < FRAME_HEADER_BYTES || is_zero(&bytes[..4]) {
                continue;
            }
            let Ok(Some(header)) = FrameHeader::read(bytes, identity) else {
                continue;
            };
            let after = header.base.saturating_add(header.span());
            let fits = match end {
                End::Sealed { next_base } => after <= next_base,
                End::Last { .. } => true,
            };
            let rises = found
                .lost
                .last()
                .is_none_or(|last| header.base >= last.base + u64::from(last.records));
            // No frame was written when more than what is before it was synced.
            let plausible = header.synced <= header.base && after < u64::MAX;
            if header.base < self.end || header.epoch < self.epoch || !fits || !rises || !plausible
            {
                continue;
            }
            if self
                .frame_at(frames, at, header.base, identity, end)
                .is_ok()
            {
                found.resume = Some((at, header.base));
                return found;
            }
            if matches!(end, End::Last { .. }) {
                found.end = found.end.max(after).max(header.synced);
            }
            found.epoch = found.epoch.max(header.epoch);
            if header.records > 0 {
                found.lost.push(LostFrame {
                    base: header.base,
                    records: header.records,
                    key: header.key,
                    sequence: header.sequence,
                });
            }
        }
        found
    }

    /// The segment that takes the damaged one's place.
    pub(super) fn rebuild(&self, damaged: &[u8], identity: Identity) -> Vec<u8> {
        let mut segment = vec![0; SEGMENT_HEADER_BYTES];
        let (mut chained, mut epoch) = (0, 0);
        let mut times: Option<(u64, u64)> = None;
        for (at, piece) in self.pieces.iter().enumerate() {
            let start = segment.len();
            match piece {
                Piece::Frame(range) => {
                    let header = FrameHeader::read_unchecked(&damaged[range.clone()]);
                    let used = range.start + FRAME_HEADER_BYTES + header.body_bytes as usize;
                    segment.extend_from_slice(&damaged[range.start..used]);
                    segment.resize(start + range.len(), 0);
                    epoch = header.epoch;
                    let first = times.map_or(header.appended_at, |(first, _)| first);
                    times = Some((first, header.appended_at));
                }
                Piece::Void { base, end } => {
                    // Epochs never fall: a void takes the one before it, at the end the highest that was seen.
                    let last = at + 1 == self.pieces.len();
                    let epoch = if last { self.epoch } else { epoch };
                    let time = times.map_or(0, |(_, last)| last);
                    segment.extend_from_slice(&void_frame(*base, *end, time, epoch, identity));
                }
            }
            chained = chain(chained, &header_crc(&segment[start..]));
        }
        let end_position = segment.len();
        let created = self.header_of(damaged, identity);
        let least = (end_position + SEGMENT_FOOTER_BYTES) as u64;
        let capacity = least
            .max(created.map_or(0, |header| header.capacity))
            .max(damaged.len() as u64)
            .max(SEGMENT_BYTES_MIN)
            .next_multiple_of(8);
        segment.resize(index(capacity), 0);
        let (first_append_time, last_append_time) = times.unwrap_or_default();
        let header = SegmentHeader {
            identity,
            epoch: created.map_or(self.epoch, |header| header.epoch),
            base: self.base,
            capacity,
            created_at: created.map_or(first_append_time, |header| header.created_at),
        };
        segment[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        if self.sealed {
            let before = SegmentFooter::read(footer_of(damaged), identity, self.base);
            let footer = SegmentFooter {
                chain: chained,
                base: self.base,
                end: self.end,
                end_position: end_position as u64,
                first_append_time: before.map_or(first_append_time, |it| it.first_append_time),
                last_append_time: before.map_or(last_append_time, |it| it.last_append_time),
                epoch: before.map_or(self.epoch, |it| it.epoch),
            };
            let at = segment.len() - SEGMENT_FOOTER_BYTES;
            segment[at..].copy_from_slice(&footer.to_bytes(identity));
        }
        segment
    }

    fn header_of(&self, damaged: &[u8], identity: Identity) -> Option<SegmentHeader> {
        SegmentHeader::read(damaged, identity, self.base, damaged.len() as u64).ok()
    }
}
