//! Sealed segments, compressed: made once, proven, and read in place a block at a time.
//!
//! **Making.** The archive is written beside the segment, synced, read back and compared with it byte for byte; then it
//! gets its name, and only when that name is durable the segment loses its own. A crash leaves one of the two or both,
//! never none; making it again finishes what is left. The segment wins while both are there.
//!
//! **Reading.** A reader that wants a frame unpacks the block that holds it, some 256 KiB, into a cache that all readers of
//! the log share and that has a bound. Frames are verified as in a plain segment, so an archive needs no proof of its own.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::SegmentedConfig;
use super::proof::prove_sealed;
use super::segment::{Segment, footer_of};
use super::segment_bytes::SegmentBytes;
use crate::disk::{Disk, DiskFile, Map, Memory};
use crate::layout::archive::{ArchiveIndex, BLOCK_BYTES, Block};
use crate::layout::{FrameHeader, Identity, SEGMENT_HEADER_BYTES, SegmentFooter, index};
use crate::mutants::{Mutant, keeps};
use crate::{LogError, Offset, PartitionId};

/// Added to a segment's file name.
const SUFFIX: &str = ".zst";
/// zstd's own default: higher ones take several times as long for a few per cent.
const LEVEL: i32 = 3;
/// Most bytes of unpacked blocks kept for a log: every partition's reader has several in reach.
const CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The path of the archive of the segment at `segment`.
pub(super) fn path_of(segment: &Path) -> PathBuf {
    let mut path = segment.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// The base offset in the file name of an archive; `None` for other files.
pub(super) fn base_of(name: &str) -> Option<u64> {
    name.strip_suffix(SUFFIX).and_then(Segment::base_of)
}

/// An archived segment, open.
#[derive(Debug)]
pub(super) struct Archive {
    bytes: ArchiveBytes,
    index: ArchiveIndex,
}

#[derive(Debug)]
enum ArchiveBytes {
    Map(Map),
    Read(Memory),
}

impl ArchiveBytes {
    fn get(&self) -> &[u8] {
        match self {
            Self::Map(map) => map.bytes(),
            Self::Read(bytes) => bytes,
        }
    }
}

impl Archive {
    /// Opens the archive at `path`; the inner error says what does not fit.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        base: u64,
    ) -> io::Result<Result<Self, String>> {
        let map = disk.open_read_only(path)?.map()?;
        let index = ArchiveIndex::read(map.bytes(), identity, base);
        Ok(index.map(|index| Self::over(ArchiveBytes::Map(map), index)))
    }

    fn over(bytes: ArchiveBytes, index: ArchiveIndex) -> Self {
        Self { bytes, index }
    }

    pub(super) fn footer(&self) -> SegmentFooter {
        self.index.footer
    }

    /// Length of the file, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get().len() as u64
    }

    /// The block that holds the frame at `offset`, and the offset after its last frame. `offset` is before the segment's
    /// end.
    pub(super) fn block_of(&self, offset: u64) -> (usize, Block, u64) {
        let blocks = &self.index.blocks;
        let behind = blocks.partition_point(|block| block.offset <= offset);
        let at = behind.saturating_sub(1);
        let end = blocks
            .get(at + 1)
            .map_or(self.index.footer.end, |next| next.offset);
        (at, blocks[at], end)
    }

    /// Offset of the last block that begins before a time, or of the first one.
    pub(super) fn offset_before_time(&self, time: u64) -> u64 {
        let behind = self.index.blocks.partition_point(|block| block.time < time);
        self.index.blocks[behind.saturating_sub(1)].offset
    }

    /// One block, unpacked.
    pub(super) fn unpack(&self, at: usize) -> Result<Vec<u8>, String> {
        let (segment, stored) = self.index.extent(at);
        let unpacked = zstd::bulk::decompress(&self.bytes.get()[stored], segment.len())
            .map_err(|error| format!("block {at} of the archive does not unpack: {error}"))?;
        if unpacked.len() == segment.len() {
            Ok(unpacked)
        } else {
            Err(format!(
                "block {at} of the archive unpacks to {} bytes, not to {}",
                unpacked.len(),
                segment.len()
            ))
        }
    }

    /// The whole segment.
    pub(super) fn unpack_all(&self) -> Result<Vec<u8>, String> {
        let mut segment = Vec::with_capacity(index(self.index.capacity));
        for at in 0..self.index.blocks.len() {
            segment.extend_from_slice(&self.unpack(at)?);
        }
        Ok(segment)
    }
}

/// Unpacked blocks of a log's archives, the last used last.
#[derive(Debug, Default)]
pub(super) struct BlockCache(Mutex<Cached>);

#[derive(Debug, Default)]
struct Cached {
    blocks: VecDeque<(BlockName, Arc<Vec<u8>>)>,
    bytes: usize,
}

/// Partition, base offset of the segment, number of the block.
type BlockName = (u16, u64, usize);

impl BlockCache {
    /// The block, unpacked by `unpack` if it is not at hand. Two readers may unpack the same one at once.
    pub(super) fn get(
        &self,
        name: BlockName,
        unpack: impl FnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Arc<Vec<u8>>, String> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let block = Arc::new(unpack()?);
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.blocks.push_back((name, Arc::clone(&block)));
        cached.bytes += block.len();
        // The newest stays, whatever its size: it is in use.
        while cached.bytes > CACHE_BYTES_MAX && cached.blocks.len() > 1 {
            if let Some((_, oldest)) = cached.blocks.pop_front() {
                cached.bytes -= oldest.len();
            }
        }
        Ok(block)
    }

    fn find(&self, name: BlockName) -> Option<Arc<Vec<u8>>> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // From the back: what was used last is wanted next.
        let at = cached
            .blocks
            .iter()
            .rposition(|(known, _)| *known == name)?;
        let found = cached.blocks.remove(at)?;
        let block = Arc::clone(&found.1);
        cached.blocks.push_back(found);
        Some(block)
    }
}

/// What archiving one segment did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archived {
    /// Length of the segment, in bytes.
    pub bytes_before: u64,
    /// Length of its archive, in bytes.
    pub bytes_after: u64,
}

/// Compresses the sealed segment of `partition` that starts at `base`; on return the archive has taken its place, durably.
/// The caller holds the data directory's lock; readers of this log may be open.
///
/// # Errors
/// [`LogError::Damaged`] if the segment does not verify: it stays as it is. [`LogError::Io`] if the disk fails: the log
/// reads as before, and trying again finishes.
pub fn archive_segment(
    config: &SegmentedConfig,
    disk: &dyn Disk,
    partition: PartitionId,
    base: Offset,
) -> Result<Archived, LogError> {
    let directory = config.partition_directory(partition.get());
    let identity = Identity::new(config.log_id, partition.get());
    let path = Segment::path_of(&directory, base.get());
    let io_error = |action| {
        let path = path.clone();
        move |source: io::Error| LogError::Io {
            action,
            path,
            source,
        }
    };
    let damaged = |reason: String| LogError::Damaged {
        partition,
        path: path.clone(),
        position: 0,
        offset: base,
        reason,
    };
    let map = disk
        .open_read_only(&path)
        .and_then(|file| file.map())
        .map_err(io_error("reading"))?;
    let segment = map.bytes();
    let footer = SegmentFooter::read(footer_of(segment), identity, base.get())
        .ok_or_else(|| damaged("the footer does not verify".to_owned()))?;
    let file = disk.open_read_only(&path).map_err(io_error("reading"))?;
    let mut pace = |_| ControlFlow::Continue(());
    let proof = prove_sealed(&*file, identity, base.get(), footer.end, &mut pace);
    if let Some(fault) = proof.faults.into_iter().next() {
        return Err(LogError::Damaged {
            partition,
            path: path.clone(),
            position: fault.position,
            offset: Offset::new(fault.offset),
            reason: fault.reason,
        });
    }

    let archive_path = path_of(&path);
    let partial = archive_path.with_extension("tmp");
    let written = write(disk, &partial, segment, footer, identity);
    let bytes_after = written.map_err(io_error("writing the archive of"))?;
    let proven = Archive::open(disk, &partial, identity, base.get())
        .map_err(io_error("reading the archive of"))?
        .and_then(|archive| archive.unpack_all())
        .map_err(damaged)?;
    if proven != segment {
        return Err(damaged("its archive unpacks to something else".to_owned()));
    }
    let replaced = || -> io::Result<()> {
        disk.rename(&partial, &archive_path)?;
        if keeps(Mutant::ArchiveName) {
            disk.sync_directory(&directory)?;
        }
        disk.remove(&path)?;
        remove_hints(disk, &path)?;
        disk.sync_directory(&directory)
    };
    replaced().map_err(io_error("replacing by its archive"))?;
    Ok(Archived {
        bytes_before: segment.len() as u64,
        bytes_after,
    })
}

/// Writes the archive and syncs it; returns its length.
fn write(
    disk: &dyn Disk,
    path: &Path,
    segment: &[u8],
    footer: SegmentFooter,
    identity: Identity,
) -> io::Result<u64> {
    remove_if_there(disk, path)?;
    let file = disk.create(path)?;
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    compressor.include_checksum(true)?;
    let mut blocks = blocks_of(segment, footer);
    let ends: Vec<u64> = blocks
        .iter()
        .skip(1)
        .map(|next| next.position)
        .chain([segment.len() as u64])
        .collect();
    let mut stored = 0;
    for (block, end) in blocks.iter_mut().zip(ends) {
        block.stored = stored;
        let packed = compressor.compress(&segment[index(block.position)..index(end)])?;
        file.write_all_at(&packed, stored)?;
        stored += packed.len() as u64;
    }
    let index = ArchiveIndex {
        capacity: segment.len() as u64,
        footer,
        blocks,
        stored_end: stored,
    };
    let bytes = index.to_bytes(identity);
    file.write_all_at(&bytes, stored)?;
    if keeps(Mutant::ArchiveSync) {
        file.sync_data()?;
    }
    Ok(stored + bytes.len() as u64)
}

/// Cuts a segment that is proven into blocks of whole frames, and one of zeros and footer; not stored anywhere yet.
fn blocks_of(segment: &[u8], footer: SegmentFooter) -> Vec<Block> {
    let end_position = index(footer.end_position);
    let mut blocks = Vec::new();
    let mut position = SEGMENT_HEADER_BYTES;
    // The first block begins with the segment's header.
    let mut block_start = 0;
    let mut block: Option<Block> = None;
    while position < end_position {
        let header = FrameHeader::read_unchecked(&segment[position..]);
        if block.is_some() && position - block_start >= BLOCK_BYTES {
            blocks.extend(block.take());
            block_start = position;
        }
        block.get_or_insert(Block {
            position: block_start as u64,
            offset: header.base,
            time: header.appended_at,
            stored: 0,
        });
        position += header.total_bytes();
    }
    let header_alone = Block {
        position: 0,
        offset: footer.base,
        time: footer.first_append_time,
        stored: 0,
    };
    blocks.push(block.unwrap_or(header_alone));
    blocks.push(Block {
        position: position as u64,
        offset: footer.end,
        time: footer.last_append_time,
        stored: 0,
    });
    blocks
}

/// Removes the indexes of a segment whose frames move or go: they are hints.
pub(super) fn remove_hints(disk: &dyn Disk, segment: &Path) -> io::Result<()> {
    for extension in ["index", "timeindex"] {
        remove_if_there(disk, &segment.with_extension(extension))?;
    }
    Ok(())
}

pub(super) fn remove_if_there(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Which file a segment is in, and the segment as a file; or why its archive does not read.
pub(super) type OpenedFile = (PathBuf, Result<Arc<dyn DiskFile>, String>);

/// A segment's file: plain, or its archive unpacked into memory. Both are read through files, so that a bad sector is an
/// error.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn open_file(
    disk: &dyn Disk,
    path: &Path,
    identity: Identity,
    base: u64,
) -> io::Result<OpenedFile> {
    let missing = match disk.open_read_only(path) {
        Ok(file) => return Ok((path.to_owned(), Ok(file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        Err(error) => return Err(error),
    };
    let archive_path = path_of(path);
    let file = match disk.open_read_only(&archive_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing),
        opened => opened?,
    };
    file.forget_cached();
    let read = SegmentBytes::read(&*file)?;
    if let Some((position, reason)) = read.fault() {
        return Ok((archive_path, Err(format!("byte {position}: {reason}"))));
    }
    let unpacked = ArchiveIndex::read(&read.bytes, identity, base)
        .and_then(|index| Archive::over(ArchiveBytes::Read(read.bytes), index).unpack_all());
    let file = unpacked.map(|segment| Arc::new(Unpacked(segment)) as Arc<dyn DiskFile>);
    Ok((archive_path, file))
}

/// A segment in memory, for those that read files.
#[derive(Debug)]
struct Unpacked(Vec<u8>);

impl Unpacked {
    fn refuse<T>() -> io::Result<T> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl DiskFile for Unpacked {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Self::refuse()
    }

    fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> io::Result<()> {
        let found = usize::try_from(position)
            .ok()
            .and_then(|start| self.0.get(start..)?.get(..bytes.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(found);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Self::refuse()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Self::refuse()
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        Self::refuse()
    }

    fn map(&self) -> io::Result<Map> {
        Self::refuse()
    }
}
