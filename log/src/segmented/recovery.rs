//! What a crash left in the last segment: where the log ends, and whether what stands behind is a torn tail or damage.
//!
//! Every frame carries how far the log was synced when it was written. So a frame that does not verify is *damage* if a
//! later frame says that its bytes had been synced; otherwise it was never acknowledged, and it is a *torn tail*. A torn
//! tail is overwritten with zeros. Damage is never touched: the partition serves what is proven and takes no writes.
//!
//! The segment is read into memory, not through its map: a bad sector is an error here, and there it would be the end of
//! the process.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive;
use super::segment::{EXTENSION, Segment, behind, footer_of, frames_of, hint_of};
use super::segment_bytes::SegmentBytes;
use super::sparse_index::SparseIndex;
use super::writer::ActiveSegment;
use crate::disk::{Disk, DiskFile};
use crate::layout::{
    FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameFault, FrameHeader, FrameReader, Identity,
    SEGMENT_HEADER_BYTES, SegmentFooter, SegmentHeader, chain, header_crc, is_zero,
};
use crate::mutants::{Mutant, keeps};
use crate::{LogError, Offset, PartitionId};

/// What a scan of the last segment found.
#[derive(Debug)]
pub(super) struct Tail {
    /// Offset after the last proven frame.
    pub(super) end: u64,
    /// Position after the last proven frame.
    pub(super) position: usize,
    /// The last proven frame says that everything before this offset was synced.
    pub(super) watermark: u64,
    /// Position of the first frame not known to be synced.
    pub(super) unproven_position: usize,
    /// Offset of that frame.
    pub(super) unproven: u64,
    pub(super) frames: u64,
    /// Epoch of the last proven frame.
    pub(super) epoch: u32,
    pub(super) chain: u32,
    pub(super) first_append_time: Option<u64>,
    pub(super) last_append_time: u64,
    pub(super) hints: SparseIndex,
    /// Records that a repair declared lost, as ranges of offsets.
    pub(super) lost: Vec<(u64, u64)>,
    pub(super) verdict: Verdict,
}

/// What stands behind the last proven frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Zeros.
    Clean,
    /// Bytes that were never synced, up to this position.
    Torn { to: usize, fault: FrameFault },
    /// Bytes that had been synced and do not verify.
    Damaged { fault: FrameFault, proof: u64 },
}

/// Scans all of a segment that has no successor.
pub(super) fn scan_tail(segment: &[u8], identity: Identity, base: u64) -> Tail {
    let frames = frames_of(segment);
    let mut tail = Tail {
        end: base,
        position: SEGMENT_HEADER_BYTES,
        watermark: base,
        unproven_position: SEGMENT_HEADER_BYTES,
        unproven: base,
        frames: 0,
        epoch: 0,
        chain: 0,
        first_append_time: None,
        last_append_time: 0,
        hints: SparseIndex::default(),
        lost: Vec::new(),
        verdict: Verdict::Clean,
    };
    // Frames not covered by a watermark yet: where each ends and starts.
    let mut unproven: VecDeque<(u64, u64, usize)> = VecDeque::new();
    let mut header_crcs = Vec::new();
    let reader = FrameReader::new(identity);
    let fault = loop {
        match reader.frame(behind(frames, tail.position), tail.end) {
            Ok(Some((header, _))) if header.epoch < tail.epoch && keeps(Mutant::EpochOrder) => {
                break Some(FrameFault::Stale {
                    before: tail.epoch,
                    found: header.epoch,
                });
            }
            Ok(Some((header, _))) => {
                tail.epoch = header.epoch;
                if let Some(hint) = hint_of(&header, base, tail.position) {
                    tail.hints.note(hint);
                }
                tail.watermark = tail.watermark.max(header.synced);
                while unproven
                    .front()
                    .is_some_and(|(end, ..)| *end <= tail.watermark)
                {
                    unproven.pop_front();
                }
                header_crcs.extend_from_slice(&header_crc(&frames[tail.position..]));
                tail.first_append_time.get_or_insert(header.appended_at);
                tail.last_append_time = header.appended_at;
                tail.frames += 1;
                if header.is_void() {
                    tail.lost.push((tail.end, tail.end + header.span()));
                }
                tail.end += header.span();
                unproven.push_back((tail.end, header.base, tail.position));
                tail.position += header.total_bytes();
            }
            Ok(None) => break None,
            Err(fault) => break Some(fault),
        }
    };
    tail.chain = chain(0, &header_crcs);
    (tail.unproven, tail.unproven_position) = unproven
        .front()
        .map_or((tail.end, tail.position), |(_, offset, position)| {
            (*offset, *position)
        });

    tail.verdict = judge(frames, identity, tail.end, tail.position, fault);
    tail
}

/// What stands behind the proven end of a segment without a successor.
pub(super) fn judge(
    frames: &[u8],
    identity: Identity,
    end: u64,
    position: usize,
    fault: Option<FrameFault>,
) -> Verdict {
    let behind = behind(frames, position);
    if is_zero(behind) {
        return Verdict::Clean;
    }
    let fault = fault.unwrap_or(FrameFault::Missing);
    // A later frame that was written when more than the proven end was synced: what is missing had been acknowledged. Or
    // one that starts at the proven end: what is missing is a marker, which is synced before anything is written behind it.
    let mut at = FRAME_ALIGNMENT;
    while at + FRAME_HEADER_BYTES <= behind.len() {
        // A stored checksum of zero is possible, but not worth looking at every zero of the file: one frame in 2^32.
        if !is_zero(&behind[at..at + 4])
            && let Ok(Some(header)) = FrameHeader::read(&behind[at..], identity)
            && (header.base == end || (header.base > end && header.synced > end))
        {
            return Verdict::Damaged {
                fault,
                proof: header.synced,
            };
        }
        at += FRAME_ALIGNMENT;
    }
    let last = behind.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    Verdict::Torn {
        to: position + last + 1,
        fault,
    }
}

/// The last segment of a partition, recovered.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) active: ActiveSegment,
    pub(super) end: u64,
    pub(super) watermark: u64,
    pub(super) last_append_time: u64,
    /// Epoch of the last proven frame.
    pub(super) epoch: u32,
    /// Why the partition must not be written, if it must not.
    pub(super) damage: Option<LogError>,
}

/// How to treat what a crash left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repair {
    /// Make the proven end durable and zero what is torn.
    Tail,
    /// Look, touch nothing.
    Nothing,
}

/// Opens the last segment of a partition and recovers it. Where it is damaged, where it cannot be read, or where its tail
/// cannot be repaired, what is proven is there to be served, and [`Recovered::damage`] says why nothing may be written.
///
/// # Errors
/// [`LogError::Io`] if it cannot be opened.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    identity: Identity,
    base: u64,
    repair: Repair,
) -> Result<Recovered, LogError> {
    let path = Segment::path_of(directory, base);
    let io_error = |action| {
        let path = path.clone();
        move |source: io::Error| LogError::Io {
            action,
            path,
            source,
        }
    };
    let opened = match repair {
        Repair::Tail => disk.open(&path),
        Repair::Nothing => disk.open_read_only(&path),
    };
    let file = opened.map_err(io_error("opening"))?;
    let read = SegmentBytes::read(&*file).map_err(io_error("reading"))?;
    let bytes = &read.bytes;
    let tail = scan_tail(bytes, identity, base);
    let mut damage = find_damage(&read, &tail, identity, base, &path);
    let mut end = tail.end;
    if repair == Repair::Tail {
        let repaired = match (&damage, &tail.verdict) {
            (None, _) => repair_tail(&*file, bytes, &tail),
            // What proves the damage proves the frames before it.
            (Some(_), Verdict::Damaged { .. }) => Ok(()),
            (Some(_), Verdict::Clean | Verdict::Torn { .. }) => {
                rewrite_unproven(&*file, bytes, &tail).and_then(|dirty| sync_if(dirty, &*file))
            }
        };
        if let Err(source) = repaired {
            // Nobody sees what may not be on the disk.
            end = tail.unproven;
            damage.get_or_insert(io_error("repairing the tail of")(source));
        }
    }
    let map = file.map().map_err(io_error("mapping"))?;
    let capacity = bytes.len() as u64;
    let segment = Segment::active(
        Arc::clone(disk),
        path.clone(),
        identity,
        base,
        map,
        tail.hints,
    );
    Ok(Recovered {
        active: ActiveSegment {
            segment: Arc::new(segment),
            file,
            capacity,
            position: tail.position as u64,
            chain: tail.chain,
            first_append_time: tail.first_append_time,
            // The first frame is looked at again; it gets one if it is far enough behind the last.
            next_hint: 0,
        },
        end,
        watermark: tail.watermark,
        last_append_time: tail.last_append_time,
        epoch: tail.epoch,
        damage,
    })
}

/// Why the segment must not be written, if it must not: the first of what is wrong with it.
fn find_damage(
    read: &SegmentBytes,
    tail: &Tail,
    identity: Identity,
    base: u64,
    path: &Path,
) -> Option<LogError> {
    let damaged = |position: usize, offset: u64, reason: String| LogError::Damaged {
        partition: PartitionId::new(identity.partition),
        path: path.to_owned(),
        position: position as u64,
        offset: Offset::new(offset),
        reason,
    };
    if let Some((position, reason)) = read.fault() {
        return Some(damaged(position, tail.end, reason));
    }
    let length = read.bytes.len() as u64;
    if let Err(reason) = SegmentHeader::read(&read.bytes, identity, base, length) {
        return Some(damaged(0, base, reason));
    }
    match &tail.verdict {
        Verdict::Clean | Verdict::Torn { .. } => None,
        Verdict::Damaged { fault, proof } => Some(damaged(
            tail.position,
            tail.end,
            proven_loss(*fault, *proof),
        )),
    }
}

/// Why a fault is no torn tail.
pub(super) fn proven_loss(fault: FrameFault, proof: u64) -> String {
    format!(
        "{fault}, and a later frame proves that everything before offset {proof} had been synced"
    )
}

/// Writes the frames again that are not known to be on the disk. After a failed sync or a kill the cache may hold them
/// while the kernel believes them clean: a sync alone would do nothing.
fn rewrite_unproven(file: &dyn DiskFile, bytes: &[u8], tail: &Tail) -> io::Result<bool> {
    if tail.unproven_position >= tail.position || !keeps(Mutant::TailRewrite) {
        return Ok(false);
    }
    file.write_all_at(
        &bytes[tail.unproven_position..tail.position],
        tail.unproven_position as u64,
    )?;
    Ok(true)
}

/// Makes the proven end of the log durable, and puts zeros behind it.
fn repair_tail(file: &dyn DiskFile, bytes: &[u8], tail: &Tail) -> io::Result<()> {
    let mut dirty = rewrite_unproven(file, bytes, tail)?;
    if let (Verdict::Torn { to, fault }, true) = (&tail.verdict, keeps(Mutant::TailZero)) {
        tracing::warn!(bytes = to - tail.position, %fault, "cutting a torn tail that was never acknowledged");
        file.write_all_at(&vec![0; to - tail.position], tail.position as u64)?;
        dirty = true;
    }
    // Sealed, but its successor never got its name: nothing relies on the footer, and the segment is written on.
    let footer = footer_of(bytes);
    if !is_zero(footer) && keeps(Mutant::FooterClear) {
        file.write_all_at(&vec![0; footer.len()], (bytes.len() - footer.len()) as u64)?;
        dirty = true;
    }
    sync_if(dirty, file)
}

fn sync_if(dirty: bool, file: &dyn DiskFile) -> io::Result<()> {
    if dirty { file.sync_data() } else { Ok(()) }
}

/// Extension of a segment that is written and has no name yet, because the one before it is not on stable storage.
const WAITING_EXTENSION: &str = "next";

/// Where the segment that starts at `base` waits for its name.
pub(super) fn waiting_path(directory: &Path, base: Offset) -> PathBuf {
    Segment::path_of(directory, base.get()).with_extension(WAITING_EXTENSION)
}

/// Finishes the rolls that the end of the process left unfinished: a segment that waits gets its name if the last one that
/// has a name is whole and ends where the other begins, and is made durable first. One that goes on behind a torn segment
/// was never synced; what it holds is lost with what is missing before it. Adds to `bases`.
///
/// # Errors
/// Whatever the disk says; a start can be tried again.
pub(super) fn finish_rolls(
    disk: &dyn Disk,
    directory: &Path,
    identity: Identity,
    bases: &mut Vec<u64>,
) -> io::Result<()> {
    let mut waiting: Vec<u64> = disk
        .list(directory)?
        .iter()
        .filter_map(|name| {
            let path = Path::new(name);
            let waits = path.extension().is_some_and(|it| it == WAITING_EXTENSION);
            waits.then(|| Segment::base_of(path.with_extension(EXTENSION).to_str()?))?
        })
        .collect();
    waiting.sort_unstable();
    for base in waiting {
        let from = waiting_path(directory, Offset::new(base));
        let last = bases.last().ok_or(io::ErrorKind::NotFound)?;
        let next = disk.open(&from)?;
        match seal_again(disk, directory, identity, *last, base)? {
            Sealed::Whole if has_header(&*next, identity, base)? => {
                // What the cache has of it, the disk may not have: a sync that failed left it clean.
                let mut header = [0; SEGMENT_HEADER_BYTES];
                next.read_exact_at(&mut header, 0)?;
                next.write_all_at(&header, 0)?;
                if keeps(Mutant::HeaderSync) {
                    next.sync_data()?;
                }
                disk.rename(&from, &Segment::path_of(directory, base))?;
                if keeps(Mutant::DirectorySync) {
                    disk.sync_directory(directory)?;
                }
                bases.push(base);
            }
            Sealed::Whole | Sealed::Torn => {
                let path = from.display();
                tracing::warn!(%path, "removing a segment that was never synced: it is not whole, or the one before it is not");
                disk.remove(&from)?;
            }
            // Nothing is taken away where somebody has to look.
            Sealed::Damaged => return Ok(()),
        }
    }
    Ok(())
}

/// Whether a file begins as the segment that starts at `base`.
fn has_header(file: &dyn DiskFile, identity: Identity, base: u64) -> io::Result<bool> {
    let length = file.length()?;
    let mut header = [0; SEGMENT_HEADER_BYTES];
    if length < header.len() as u64 {
        return Ok(false);
    }
    file.read_exact_at(&mut header, 0)?;
    Ok(SegmentHeader::read(&header, identity, base, length).is_ok())
}

/// What stands in front of a segment that waits for its name.
enum Sealed {
    /// A whole segment with its footer, which ends where the waiting one begins. It is durable.
    Whole,
    /// One whose last frames never reached the disk.
    Torn,
    Damaged,
}

/// Looks whether the last segment is whole and ends at `next_base`, and makes it durable then.
fn seal_again(
    disk: &dyn Disk,
    directory: &Path,
    identity: Identity,
    base: u64,
    next_base: u64,
) -> io::Result<Sealed> {
    let path = Segment::path_of(directory, base);
    let file = disk.open(&path)?;
    let read = SegmentBytes::read(&*file)?;
    let tail = scan_tail(&read.bytes, identity, base);
    if find_damage(&read, &tail, identity, base, &path).is_some() {
        return Ok(Sealed::Damaged);
    }
    let footer = footer_of(&read.bytes);
    let whole = SegmentFooter::read(footer, identity, base).is_some_and(|footer| {
        footer.end == next_base
            && footer.end == tail.end
            && footer.end_position == tail.position as u64
            && footer.chain == tail.chain
    });
    if !whole {
        return Ok(Sealed::Torn);
    }
    rewrite_unproven(&*file, &read.bytes, &tail)?;
    file.write_all_at(footer, (read.bytes.len() - footer.len()) as u64)?;
    if keeps(Mutant::SealSync) {
        file.sync_data()?;
    }
    Ok(Sealed::Whole)
}

/// Base offsets of the segments in a directory, rising, and the names of files that an interrupted preparation left.
pub(super) fn list_segments(
    disk: &dyn Disk,
    directory: &Path,
) -> io::Result<(Vec<u64>, Vec<PathBuf>)> {
    let mut bases = Vec::new();
    let mut leftovers = Vec::new();
    for name in disk.list(directory)? {
        if let Some(base) = Segment::base_of(&name).or_else(|| archive::base_of(&name)) {
            bases.push(base);
        } else if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "tmp")
        {
            leftovers.push(directory.join(name));
        }
    }
    bases.sort_unstable();
    // A crash may leave a segment beside its archive.
    bases.dedup();
    Ok((bases, leftovers))
}
