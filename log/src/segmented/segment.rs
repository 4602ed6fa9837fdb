//! One segment file as readers see it: a read-only map, its hints, and verified frames.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::sparse_index::{Hint, SparseIndex};
use crate::disk::{Disk, Map};
use crate::layout::{
    FrameFault, FrameHeader, Identity, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter,
    SegmentHeader,
};
use crate::{LogError, Offset, PartitionId};

const EXTENSION: &str = "seg";

/// One segment. Opening the file waits until the first read: a log of many segments opens in the time of one.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) path: PathBuf,
    identity: Identity,
    pub(super) disk: Arc<dyn Disk>,
    opened: OnceLock<Opened>,
}

#[derive(Debug)]
struct Opened {
    map: Map,
    hints: RwLock<SparseIndex>,
    /// What is wrong with the segment's header. Frames prove themselves, so they are served all the same; whoever judges
    /// the segment asks for this.
    header_fault: Option<String>,
}

impl Segment {
    /// The path of the segment that starts at `base`.
    pub(super) fn path_of(directory: &Path, base: u64) -> PathBuf {
        directory.join(format!("{base:020}.{EXTENSION}"))
    }

    /// The base offset in a segment's file name; `None` for other files.
    pub(super) fn base_of(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
        (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| digits.parse().ok())?
    }

    /// A sealed segment, opened when first read.
    pub(super) fn sealed(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: Identity,
        base: u64,
    ) -> Self {
        Self {
            base,
            path: Self::path_of(directory, base),
            identity,
            disk,
            opened: OnceLock::new(),
        }
    }

    /// The segment being written, mapped and with the hints found so far. Its header was judged by whoever opened it.
    pub(super) fn active(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        identity: Identity,
        base: u64,
        map: Map,
        hints: SparseIndex,
    ) -> Self {
        let opened = OnceLock::new();
        let first = opened.set(Opened {
            map,
            hints: RwLock::new(hints),
            header_fault: None,
        });
        debug_assert!(first.is_ok(), "a new cell is empty");
        Self {
            base,
            path,
            identity,
            disk,
            opened,
        }
    }

    fn opened(&self) -> Result<&Opened, LogError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let io_error = |action| {
            move |source| LogError::Io {
                action,
                path: self.path.clone(),
                source,
            }
        };
        let file = self
            .disk
            .open_read_only(&self.path)
            .map_err(io_error("opening"))?;
        let map = file.map().map_err(io_error("mapping"))?;
        let bytes = map.bytes();
        if let Some(reason) = SegmentHeader::foreign(bytes, self.identity, self.base) {
            return Err(self.damaged(0, self.base, reason));
        }
        let header = SegmentHeader::read(bytes, self.identity, self.base, bytes.len() as u64);
        let hints = match SparseIndex::load(&*self.disk, &self.path, self.identity, self.base) {
            Some(hints) => hints,
            None => self.scan_hints(frames_of(bytes)),
        };
        Ok(self.opened.get_or_init(|| Opened {
            map,
            hints: RwLock::new(hints),
            header_fault: header.err(),
        }))
    }

    /// Checks the segment's header.
    pub(super) fn check_header(&self) -> Result<(), LogError> {
        match &self.opened()?.header_fault {
            None => Ok(()),
            Some(reason) => Err(self.damaged(0, self.base, reason.clone())),
        }
    }

    /// Hints from the frames themselves, as far as they verify by their headers.
    fn scan_hints(&self, frames: &[u8]) -> SparseIndex {
        let mut hints = SparseIndex::default();
        let mut position = SEGMENT_HEADER_BYTES;
        while let Ok(Some(header)) = FrameHeader::read(behind(frames, position), self.identity) {
            if let Some(hint) = hint_of(&header, self.base, position) {
                hints.note(hint);
            }
            position += header.total_bytes();
        }
        hints
    }

    /// Adds hints for frames that were appended and synced.
    pub(super) fn note(&self, new: &[Hint]) {
        if let (Some(opened), false) = (self.opened.get(), new.is_empty()) {
            let mut hints = opened.hints.write().unwrap_or_else(PoisonError::into_inner);
            new.iter().for_each(|hint| hints.note(*hint));
        }
    }

    /// Writes the hints beside the segment, now that it is sealed.
    pub(super) fn save_hints(&self) -> Result<(), LogError> {
        let hints = self
            .opened()?
            .hints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        hints
            .save(&*self.disk, &self.path, self.identity, self.base)
            .map_err(|source| LogError::Io {
                action: "writing the indexes of",
                path: self.path.clone(),
                source,
            })
    }

    /// The footer, if the segment is sealed.
    pub(super) fn footer(&self) -> Result<Option<SegmentFooter>, LogError> {
        let bytes = self.opened()?.map.bytes();
        Ok(SegmentFooter::read(
            footer_of(bytes),
            self.identity,
            self.base,
        ))
    }

    /// The file's length in bytes.
    pub(super) fn capacity(&self) -> Result<u64, LogError> {
        Ok(self.opened()?.map.bytes().len() as u64)
    }

    /// A cursor at the frame with base offset `offset`, which must be before `end` (of the segment, and synced), or at
    /// `end` itself.
    pub(super) fn seek(&self, offset: u64, end: u64) -> Result<Cursor<'_>, LogError> {
        let opened = self.opened()?;
        let frames = frames_of(opened.map.bytes());
        let hint = opened
            .hints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .before_offset(offset - self.base);
        if let Some(hint) = hint {
            let mut cursor = Cursor {
                segment: self,
                frames,
                position: hint.position as usize,
                next: self.base + u64::from(hint.relative),
                end,
            };
            // A hint that leads nowhere is as good as none.
            if cursor.skip_to(offset).is_ok() {
                return Ok(cursor);
            }
        }
        let mut cursor = Cursor {
            segment: self,
            frames,
            position: SEGMENT_HEADER_BYTES,
            next: self.base,
            end,
        };
        cursor.skip_to(offset)?;
        Ok(cursor)
    }

    /// A cursor at the last hint before `time`, or at the start.
    pub(super) fn seek_before_time(&self, time: u64, end: u64) -> Result<Cursor<'_>, LogError> {
        let hint = self
            .opened()?
            .hints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .before_time(time);
        let offset = hint.map_or(self.base, |hint| self.base + u64::from(hint.relative));
        self.seek(offset.min(end), end)
    }

    pub(super) fn damaged(
        &self,
        position: usize,
        offset: u64,
        reason: impl Into<String>,
    ) -> LogError {
        LogError::Damaged {
            partition: PartitionId::new(self.identity.partition),
            path: self.path.clone(),
            position: position as u64,
            offset: Offset::new(offset),
            reason: reason.into(),
        }
    }
}

/// The part of a segment where frames stand, with the header in front so that positions are the file's. Of a file that was
/// cut too short, nothing.
pub(super) fn frames_of(segment: &[u8]) -> &[u8] {
    &segment[..segment.len().saturating_sub(SEGMENT_FOOTER_BYTES)]
}

/// The part of a segment where its footer stands.
pub(super) fn footer_of(segment: &[u8]) -> &[u8] {
    &segment[segment.len().saturating_sub(SEGMENT_FOOTER_BYTES)..]
}

/// What stands from a position on; behind the end, nothing.
pub(super) fn behind(frames: &[u8], position: usize) -> &[u8] {
    frames.get(position..).unwrap_or_default()
}

/// The hint for a frame; those that readers do not see get none.
pub(super) fn hint_of(header: &FrameHeader, base: u64, position: usize) -> Option<Hint> {
    if header.is_silent() {
        return None;
    }
    let relative = u32::try_from(header.base.checked_sub(base)?).ok()?;
    Some(Hint {
        relative,
        position: u32::try_from(position).ok()?,
        time: header.appended_at,
    })
}

/// Walks the frames of one segment, in order, up to an end that is known to be synced.
#[derive(Debug)]
pub(super) struct Cursor<'s> {
    segment: &'s Segment,
    frames: &'s [u8],
    position: usize,
    next: u64,
    end: u64,
}

impl<'s> Cursor<'s> {
    /// Offset of the next frame.
    pub(super) fn next_offset(&self) -> u64 {
        self.next
    }

    /// The next frame, verified; `None` at the end. Voids are passed over.
    pub(super) fn next_frame(&mut self) -> Result<Option<(FrameHeader, &'s [u8])>, LogError> {
        while self.next < self.end {
            let read = FrameHeader::read_frame(
                behind(self.frames, self.position),
                self.segment.identity,
                self.next,
            )
            .and_then(|frame| frame.ok_or(FrameFault::Missing));
            let (header, body) = read.map_err(|fault| self.damaged(fault))?;
            self.position += header.total_bytes();
            self.next += header.span();
            if !header.is_silent() {
                return Ok(Some((header, body)));
            }
        }
        Ok(None)
    }

    /// Moves to the frame at `offset`, believing headers only; to the void around it, if its record is lost.
    fn skip_to(&mut self, offset: u64) -> Result<(), LogError> {
        while self.next < offset {
            let read = FrameHeader::read(behind(self.frames, self.position), self.segment.identity)
                .and_then(|header| header.ok_or(FrameFault::Missing));
            let header = read.map_err(|fault| self.damaged(fault))?;
            if header.base != self.next {
                return Err(self.damaged(FrameFault::Misplaced {
                    expected: self.next,
                    found: header.base,
                }));
            }
            if header.is_void() && header.base + header.span() > offset {
                return Ok(());
            }
            self.position += header.total_bytes();
            self.next += header.span();
        }
        if self.next == offset {
            Ok(())
        } else {
            Err(LogError::NotAFrame {
                partition: PartitionId::new(self.segment.identity.partition),
                offset: Offset::new(offset),
            })
        }
    }

    fn damaged(&self, fault: FrameFault) -> LogError {
        self.segment
            .damaged(self.position, self.next, fault.to_string())
    }
}
