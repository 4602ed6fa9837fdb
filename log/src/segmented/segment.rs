//! One segment as readers see it: a read-only map with hints, or an archive in blocks; and verified frames.
//!
//! Long because what a reader may believe of a segment, plain or archived, is one argument.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::archive::{self, Archive, BlockCache};
use super::sparse_index::{Hint, SparseIndex};
use crate::disk::{Disk, DiskFile, Map};
use crate::layout::{
    FrameFault, FrameHeader, FrameReader, Identity, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES,
    SegmentFooter, SegmentHeader,
};
use crate::{LogError, Offset, PartitionId};

/// Extension of a segment that has its name.
pub(super) const EXTENSION: &str = "seg";

/// One segment. Opening the file waits until the first read: a log of many segments opens in the time of one.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) path: PathBuf,
    identity: Identity,
    pub(super) disk: Arc<dyn Disk>,
    cache: Arc<BlockCache>,
    opened: OnceLock<Opened>,
}

#[derive(Debug)]
enum Opened {
    Plain(Plain),
    Archived(Archive),
}

#[derive(Debug)]
struct Plain {
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
        cache: Arc<BlockCache>,
    ) -> Self {
        Self {
            base,
            path: Self::path_of(directory, base),
            identity,
            disk,
            cache,
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
        let first = opened.set(Opened::Plain(Plain {
            map,
            hints: RwLock::new(hints),
            header_fault: None,
        }));
        debug_assert!(first.is_ok(), "a new cell is empty");
        Self {
            base,
            path,
            identity,
            disk,
            // Never used: what is open stays open, and this is plain.
            cache: Arc::default(),
            opened,
        }
    }

    /// The segment that another process is writing, or was when this one last looked: mapped now, without hints.
    pub(super) fn followed(
        disk: Arc<dyn Disk>,
        directory: &Path,
        identity: Identity,
        base: u64,
    ) -> Result<Self, LogError> {
        let path = Self::path_of(directory, base);
        let io_error = |action| {
            let path = path.clone();
            move |source| LogError::Io {
                action,
                path,
                source,
            }
        };
        let file = disk.open_read_only(&path).map_err(io_error("opening"))?;
        let map = file.map().map_err(io_error("mapping"))?;
        let bytes = map.bytes();
        let header = SegmentHeader::read(bytes, identity, base, bytes.len() as u64);
        let hints = SparseIndex::default();
        let segment = Self::active(disk, path, identity, base, map, hints);
        match header {
            Ok(_) => Ok(segment),
            Err(reason) => Err(segment.damaged(0, base, reason)),
        }
    }

    /// Walks the headers of frames from `place` on, up to `end`, and adds hints for them. What does not verify ends the
    /// walk: whoever reads there is told.
    pub(super) fn note_frames(&self, mut place: Place, end: u64) -> Place {
        let Some(Opened::Plain(plain)) = self.opened.get() else {
            return place;
        };
        let frames = frames_of(plain.map.bytes());
        let mut new = Vec::new();
        while place.next < end {
            let header = match FrameHeader::read(&frames[place.position..], self.identity) {
                Ok(Some(header)) if header.base == place.next => header,
                _ => break,
            };
            new.extend(hint_of(&header, self.base, place.position));
            place.position += header.total_bytes();
            place.next += u64::from(header.records);
        }
        self.note(&new);
        place
    }

    fn opened(&self) -> Result<&Opened, LogError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = match self.disk.open_read_only(&self.path) {
            Ok(file) => self.open_plain(&*file)?,
            // Also when it was archived after the list of files was made.
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                self.open_archive(missing)?
            }
            Err(source) => return Err(self.io_error("opening", source)),
        };
        Ok(self.opened.get_or_init(|| opened))
    }

    fn open_plain(&self, file: &dyn DiskFile) -> Result<Opened, LogError> {
        let map = file
            .map()
            .map_err(|source| self.io_error("mapping", source))?;
        let bytes = map.bytes();
        if let Some(reason) = SegmentHeader::foreign(bytes, self.identity, self.base) {
            return Err(self.damaged(0, self.base, reason));
        }
        let header = SegmentHeader::read(bytes, self.identity, self.base, bytes.len() as u64);
        let hints = match SparseIndex::load(&*self.disk, &self.path, self.identity, self.base) {
            Some(hints) => hints,
            None => self.scan_hints(frames_of(bytes)),
        };
        Ok(Opened::Plain(Plain {
            map,
            hints: RwLock::new(hints),
            header_fault: header.err(),
        }))
    }

    fn open_archive(&self, missing: io::Error) -> Result<Opened, LogError> {
        let path = archive::path_of(&self.path);
        match Archive::open(&*self.disk, &path, self.identity, self.base) {
            Ok(archive) => archive
                .map(Opened::Archived)
                .map_err(|reason| self.damaged(0, self.base, reason)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(self.io_error("opening", missing))
            }
            Err(source) => Err(self.io_error("opening the archive of", source)),
        }
    }

    fn io_error(&self, action: &'static str, source: io::Error) -> LogError {
        LogError::Io {
            action,
            path: self.path.clone(),
            source,
        }
    }

    /// Checks the segment's header.
    pub(super) fn check_header(&self) -> Result<(), LogError> {
        match self.opened()? {
            // The segment's header was compared when the archive was made, and nobody asks for it any more.
            Opened::Archived(_)
            | Opened::Plain(Plain {
                header_fault: None, ..
            }) => Ok(()),
            Opened::Plain(Plain {
                header_fault: Some(reason),
                ..
            }) => Err(self.damaged(0, self.base, reason.clone())),
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
        if let (Some(Opened::Plain(plain)), false) = (self.opened.get(), new.is_empty()) {
            let mut hints = plain.hints.write().unwrap_or_else(PoisonError::into_inner);
            new.iter().for_each(|hint| hints.note(*hint));
        }
    }

    /// Writes the hints beside the segment, now that it is sealed. An archive has its own.
    pub(super) fn save_hints(&self) -> Result<(), LogError> {
        let Opened::Plain(plain) = self.opened()? else {
            return Ok(());
        };
        let hints = plain
            .hints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        hints
            .save(&*self.disk, &self.path, self.identity, self.base)
            .map_err(|source| self.io_error("writing the indexes of", source))
    }

    /// The footer, if the segment is sealed.
    pub(super) fn footer(&self) -> Result<Option<SegmentFooter>, LogError> {
        Ok(match self.opened()? {
            Opened::Plain(plain) => {
                // A copy: in a segment that is followed, another process may be writing it.
                let footer = footer_of(plain.map.bytes()).to_vec();
                SegmentFooter::read(&footer, self.identity, self.base)
            }
            Opened::Archived(archive) => Some(archive.footer()),
        })
    }

    /// All bytes of a segment that is followed; none of one that is archived. Whoever reads beyond what was synced must
    /// verify what it reads.
    pub(super) fn bytes(&self) -> Result<&[u8], LogError> {
        Ok(match self.opened()? {
            Opened::Plain(plain) => plain.map.bytes(),
            Opened::Archived(_) => &[],
        })
    }

    /// The file it is in, its length in bytes, and whether that is an archive.
    pub(super) fn file(&self) -> Result<(PathBuf, u64, bool), LogError> {
        Ok(match self.opened()? {
            Opened::Plain(plain) => (self.path.clone(), plain.map.bytes().len() as u64, false),
            Opened::Archived(archive) => (archive::path_of(&self.path), archive.bytes(), true),
        })
    }

    /// The piece that holds the frame at `offset`, which is before `end`: an offset that is known to be synced, and at
    /// most the segment's.
    pub(super) fn piece_at(&self, offset: u64, end: u64) -> Result<Piece<'_>, LogError> {
        match self.opened()? {
            Opened::Plain(plain) => Ok(Piece {
                segment: self,
                bytes: PieceBytes::Map(frames_of(plain.map.bytes())),
                origin: 0,
                start: SEGMENT_HEADER_BYTES,
                first: self.base,
                end,
                hints: Some(&plain.hints),
            }),
            Opened::Archived(archive) => {
                let (at, block, block_end) = archive.block_of(offset);
                let name = (self.identity.partition, self.base, at);
                let bytes = self
                    .cache
                    .get(name, || archive.unpack(at))
                    .map_err(|reason| {
                        self.damaged(crate::layout::index(block.position), block.offset, reason)
                    })?;
                Ok(Piece {
                    segment: self,
                    bytes: PieceBytes::Block(bytes),
                    origin: crate::layout::index(block.position),
                    start: if at == 0 { SEGMENT_HEADER_BYTES } else { 0 },
                    first: block.offset,
                    end: block_end.min(end),
                    hints: None,
                })
            }
        }
    }

    /// Offset of a frame, or of the segment's beginning, before which no frame is as late as `time`.
    pub(super) fn offset_before_time(&self, time: u64) -> Result<u64, LogError> {
        Ok(match self.opened()? {
            Opened::Plain(plain) => {
                let hints = plain.hints.read().unwrap_or_else(PoisonError::into_inner);
                let hint = hints.before_time(time);
                hint.map_or(self.base, |hint| self.base + u64::from(hint.relative))
            }
            Opened::Archived(archive) => archive.offset_before_time(time),
        })
    }

    pub(super) fn damaged(
        &self,
        position: usize,
        offset: u64,
        reason: impl Into<String>,
    ) -> LogError {
        LogError::Damaged {
            partition: PartitionId::new(self.identity.partition),
            path: match self.opened.get() {
                Some(Opened::Archived(_)) => archive::path_of(&self.path),
                _ => self.path.clone(),
            },
            position: position as u64,
            offset: Offset::new(offset),
            reason: reason.into(),
        }
    }
}

/// A run of whole frames of a segment, held while it is read: all of a plain one, a block of an archived one.
#[derive(Debug)]
pub(super) struct Piece<'s> {
    segment: &'s Segment,
    bytes: PieceBytes<'s>,
    /// Where `bytes` begin in the segment.
    origin: usize,
    /// Where the first frame begins in `bytes`.
    start: usize,
    /// Offset that comes next there.
    first: u64,
    /// Offset after the last frame that may be read.
    end: u64,
    hints: Option<&'s RwLock<SparseIndex>>,
}

#[derive(Debug)]
enum PieceBytes<'s> {
    Map(&'s [u8]),
    Block(Arc<Vec<u8>>),
}

impl Piece<'_> {
    /// A cursor at the frame with base offset `offset`, which is in this piece or its end.
    pub(super) fn seek(&self, offset: u64) -> Result<Cursor<'_>, LogError> {
        let hint = self.hints.and_then(|hints| {
            let hints = hints.read().unwrap_or_else(PoisonError::into_inner);
            hints.before_offset(offset - self.segment.base)
        });
        if let Some(hint) = hint {
            let next = self.segment.base + u64::from(hint.relative);
            let mut cursor = self.cursor(hint.position as usize, next);
            // A hint that leads nowhere is as good as none.
            if cursor.skip_to(offset).is_ok() {
                return Ok(cursor);
            }
        }
        let mut cursor = self.cursor(self.start, self.first);
        cursor.skip_to(offset)?;
        Ok(cursor)
    }

    fn cursor(&self, position: usize, next: u64) -> Cursor<'_> {
        Cursor {
            segment: self.segment,
            reader: FrameReader::new(self.segment.identity),
            frames: match &self.bytes {
                PieceBytes::Map(bytes) => bytes,
                PieceBytes::Block(bytes) => bytes,
            },
            origin: self.origin,
            position,
            next,
            end: self.end,
        }
    }
}

/// Where a walk over a segment's frames stands: the position of the next one, and its offset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) position: usize,
    pub(super) next: u64,
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

/// Walks the frames of one piece, in order, up to an end that is known to be synced.
#[derive(Debug)]
pub(super) struct Cursor<'s> {
    segment: &'s Segment,
    reader: FrameReader,
    frames: &'s [u8],
    /// Where `frames` begin in the segment.
    origin: usize,
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
    #[inline(always)]
    pub(super) fn next_frame(&mut self) -> Result<Option<(FrameHeader, &'s [u8])>, LogError> {
        while self.next < self.end {
            let read = self
                .reader
                .frame(behind(self.frames, self.position), self.next);
            let (header, body) = match read {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(self.damaged(FrameFault::Missing)),
                Err(fault) => return Err(self.damaged(fault)),
            };
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
            let read = self
                .reader
                .header(behind(self.frames, self.position))
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

    #[cold]
    fn damaged(&self, fault: FrameFault) -> LogError {
        self.segment
            .damaged(self.origin + self.position, self.next, fault.to_string())
    }
}
