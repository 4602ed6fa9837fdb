//! The one writing end of a partition: a batch is one write and one sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::partition::{Partition, Roll, Waiting};
use super::preparer::{self, Prepared, Preparer};
use super::recovery::waiting_path;
use super::segment::{Segment, hint_of};
use super::sparse_index::{Hint, SparseIndex};
use crate::disk::DiskFile;
use crate::layout::{
    FRAME_HEADER_BYTES, FrameHeader, FrameSealer, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES,
    SegmentFooter, SegmentHeader, chain, index,
};
use crate::mutants::{Mutant, keeps};
use crate::{AppendTime, Appended, Batch, Durability, LogError, Offset, PartitionWriter};

/// A write fills up the last block it touches with the zeros that stand there anyway: of a block that is written in part
/// and is not in the cache, the kernel would read the rest first.
const BLOCK_BYTES: u64 = 4096;

/// Most full segments that wait for the background to make them durable: where an append does not wait for the disk, this
/// bounds how far it may run ahead of it, and so what a power loss can take.
const ROLLS_WAITING_MAX: usize = 32;

/// The segment being written, as the writer knows it.
#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) capacity: u64,
    /// Where the next frame goes.
    pub(super) position: u64,
    /// Checksum over the frames' header checksums.
    pub(super) chain: u32,
    pub(super) first_append_time: Option<u64>,
    /// From this position on, a frame gets a hint.
    pub(super) next_hint: usize,
}

impl ActiveSegment {
    /// Where the room for frames ends, and the footer begins.
    fn frames_end(&self) -> u64 {
        self.capacity - SEGMENT_FOOTER_BYTES as u64
    }

    fn room(&self) -> u64 {
        self.frames_end() - self.position
    }
}

/// The writer. `end >= durable_end` always: what is appended may wait for its sync.
#[derive(Debug)]
pub(super) struct SegmentedWriter {
    pub(super) partition: Arc<Partition>,
    pub(super) preparer: Preparer,
    pub(super) active: ActiveSegment,
    pub(super) durability: Durability,
    pub(super) segment_bytes_max: u64,
    pub(super) epoch: u32,
    /// Offset after the last appended record.
    pub(super) end: Offset,
    pub(super) last_append_time: AppendTime,
    /// The last frame on disk says that everything before this offset was synced.
    pub(super) watermark: Offset,
    /// How far zeros were asked for in the next segment.
    pub(super) zeros_asked: u64,
    pub(super) scratch: Vec<u8>,
    pub(super) header_crcs: Vec<u8>,
    pub(super) hints: Vec<Hint>,
}

impl SegmentedWriter {
    /// Capacity of the segment behind one of `capacity`, which must hold `needed` bytes of frames: segments start small,
    /// so that an empty service is small, and double.
    fn next_capacity(&self, needed: u64) -> u64 {
        let doubled = (self.active.capacity * 2).min(self.segment_bytes_max);
        let needed = needed + (SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) as u64;
        doubled.max(needed.next_multiple_of(4096))
    }

    /// Asks for the next segment in time.
    pub(super) fn prepare_next(&self) {
        self.preparer
            .prepare(&self.partition, self.next_capacity(0));
    }

    /// Asks for zeros in the next segment as this one fills. Where nobody waits for a sync, they would save nobody time.
    pub(super) fn prepare_zeros(&mut self) {
        if self.durability != Durability::Always {
            return;
        }
        let next_capacity = self.next_capacity(0);
        let wanted =
            preparer::zeros_wanted(self.active.position, self.active.capacity, next_capacity);
        if wanted > self.zeros_asked && self.zeros_asked < next_capacity {
            self.zeros_asked = wanted;
            self.preparer.zero(&self.partition, wanted);
        }
    }

    /// Makes sure that the next segment is there and holds `needed` bytes; otherwise nothing may be written.
    fn reserve_next(&mut self, needed: u64) -> Result<Prepared, LogError> {
        // A failure of before may be over, and nobody may have asked yet: ask once more before giving up.
        let ready = match self.partition.next_segment.take() {
            Some(Ok(prepared)) => Ok(prepared),
            Some(Err(_)) | None => {
                self.prepare_next();
                self.partition.next_segment.take().unwrap_or_else(|| {
                    Err(std::io::Error::other(
                        "the next segment was asked for and is not there",
                    ))
                })
            }
        };
        self.zeros_asked = 0;
        let prepared = ready.map_err(|error| self.storage_error(error))?;
        let room = prepared.capacity - (SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) as u64;
        if needed <= room {
            return Ok(prepared);
        }
        // One batch larger than a segment: make one that holds it.
        preparer::discard(&*self.partition.disk, prepared)
            .and_then(|()| {
                preparer::reserve(
                    &*self.partition.disk,
                    &self.partition.directory,
                    self.next_capacity(needed),
                    &AtomicBool::new(false),
                )
            })
            .map_err(|error| self.storage_error(error))
    }

    fn storage_error(&self, source: std::io::Error) -> LogError {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                LogError::StorageFull {
                    partition: self.partition.id,
                    path: self.partition.directory.clone(),
                }
            }
            _ => LogError::Io {
                action: "preparing the next segment in",
                path: self.partition.directory.clone(),
                source,
            },
        }
    }

    /// Runs a step whose failure leaves the disk in doubt: poisons the partition then.
    fn or_poison<T>(&self, at: Offset, result: std::io::Result<T>) -> Result<T, LogError> {
        result.map_err(|source| {
            self.partition.poison(&source);
            LogError::OutcomeUnknown {
                partition: self.partition.id,
                at,
                source,
            }
        })
    }

    /// Completes frames, `bytes` that begin at `starts`, and writes them at the active segment's position. `starts` count
    /// from `origin`.
    fn write_frames(
        &mut self,
        bytes: &[u8],
        starts: &[usize],
        origin: usize,
    ) -> std::io::Result<()> {
        let watermark = if keeps(Mutant::Watermark) {
            self.partition.durable_end.load()
        } else {
            Offset::ZERO
        };
        let synced = watermark.get();
        self.scratch.clear();
        self.scratch.extend_from_slice(bytes);
        self.header_crcs.clear();
        let sealer = FrameSealer::new(self.partition.identity, synced, self.epoch);
        for start in starts {
            let at = start - origin;
            let frame = &mut self.scratch[at..];
            self.header_crcs.extend_from_slice(&sealer.seal(frame));
            let position = index(self.active.position) + at;
            if position >= self.active.next_hint {
                let header = FrameHeader::read_unchecked(frame);
                self.active
                    .first_append_time
                    .get_or_insert(header.appended_at);
                if let Some(hint) = hint_of(&header, self.active.segment.base, position) {
                    self.active.next_hint = position + SparseIndex::INTERVAL_BYTES;
                    self.hints.push(hint);
                }
            }
        }
        if let Some(last) = starts.last() {
            let last = FrameHeader::read_unchecked(&self.scratch[last - origin..]);
            self.last_append_time = AppendTime::from_micros(last.appended_at);
        }
        self.active.chain = chain(self.active.chain, &self.header_crcs);
        let end = self.active.position + bytes.len() as u64;
        let filled = end
            .next_multiple_of(BLOCK_BYTES)
            .min(self.active.frames_end());
        let zeros = index(filled - end);
        self.scratch.resize(self.scratch.len() + zeros, 0);
        self.active
            .file
            .write_all_at(&self.scratch, self.active.position)?;
        self.active.position = end;
        self.watermark = Offset::new(synced);
        Ok(())
    }

    /// Seals the active segment and goes on in `prepared`. Order matters: the footer and all frames are durable before
    /// the next segment has its name, so a segment with a successor is proven by its footer. Where nobody was promised when
    /// the disk has it, this does not wait: it leaves the syncs and the name to the background, in the same order.
    fn roll(&mut self, prepared: Prepared, base: Offset) -> std::io::Result<()> {
        let partition = Arc::clone(&self.partition);
        let footer = SegmentFooter {
            chain: self.active.chain,
            base: self.active.segment.base,
            end: base.get(),
            end_position: self.active.position,
            first_append_time: self.active.first_append_time.unwrap_or_default(),
            last_append_time: self.last_append_time.as_micros(),
            epoch: self.epoch,
        };
        let frames_end = self.active.frames_end();
        let block = frames_end - frames_end % BLOCK_BYTES;
        let from = block.max(self.active.position);
        self.scratch.clear();
        self.scratch.resize(index(frames_end - from), 0);
        self.scratch
            .extend_from_slice(&footer.to_bytes(partition.identity));
        self.active.file.write_all_at(&self.scratch, from)?;
        // With an interval, the next sync must be of what came last: it cannot stand behind full segments.
        let waits = self.durability != Durability::Os;
        if waits && keeps(Mutant::SealSync) {
            partition.sync(&*self.active.file)?;
        }
        self.active.segment.note(&self.hints);
        self.hints.clear();
        let (next, waiting) = begin_segment(&partition, prepared, base, self.epoch)?;
        let full = std::mem::replace(&mut self.active, next);
        if waits {
            self.preparer.save_hints(&full.segment);
            partition.name(&waiting)?;
        } else {
            let path = waiting_path(&partition.directory, base);
            partition.disk.rename(&waiting.from, &path)?;
            let waiting = partition.leave_roll(Roll {
                full: full.segment,
                full_file: full.file,
                next: Waiting {
                    from: path,
                    ..waiting
                },
                base,
            });
            if waiting > ROLLS_WAITING_MAX {
                partition.sync_left().map_err(std::io::Error::other)?;
            }
        }
        partition.push_segment(Arc::clone(&self.active.segment));
        self.prepare_next();
        Ok(())
    }

    fn write_batch(
        &mut self,
        batch: &Batch,
        next: Option<(Prepared, usize)>,
    ) -> std::io::Result<()> {
        let (bytes, starts) = batch.parts();
        let (mut from, mut rest) = (0, starts);
        if let Some((prepared, fitting)) = next {
            let (fit, behind) = starts.split_at(fitting);
            let to = behind.first().copied().unwrap_or(bytes.len());
            let first_behind = behind.first().map_or(batch.end(), |start| {
                Offset::new(FrameHeader::read_unchecked(&bytes[*start..]).base)
            });
            if !fit.is_empty() {
                self.write_frames(&bytes[..to], fit, 0)?;
            }
            self.roll(prepared, first_behind)?;
            (from, rest) = (to, behind);
        }
        self.write_frames(&bytes[from..], rest, from)
    }

    fn write_marker(&mut self) -> std::io::Result<()> {
        let marker = FrameHeader {
            body_crc: crc32fast::hash(&[]),
            body_bytes: 0,
            records: 0,
            base: self.end.get(),
            synced: 0,
            appended_at: self.last_append_time.as_micros(),
            key: [0; 16],
            previous: None,
            sequence: 0,
            epoch: 0,
        };
        let mut bytes = [0; FRAME_HEADER_BYTES];
        marker.write_unsealed(&mut bytes);
        self.write_frames(&bytes, &[0], 0)?;
        self.partition.sync(&*self.active.file)
    }
}

/// Makes the first segment of a partition, durable on return.
pub(super) fn make_first_segment(
    partition: &Partition,
    prepared: Prepared,
    epoch: u32,
) -> std::io::Result<()> {
    let (_, waiting) = begin_segment(partition, prepared, Offset::ZERO, epoch)?;
    partition.name(&waiting)
}

/// Gives a prepared file its header; it has no name yet, and nothing is durable.
fn begin_segment(
    partition: &Partition,
    prepared: Prepared,
    base: Offset,
    epoch: u32,
) -> std::io::Result<(ActiveSegment, Waiting)> {
    let Prepared {
        file,
        path: from,
        capacity,
        ..
    } = prepared;
    let header = SegmentHeader {
        identity: partition.identity,
        epoch,
        base: base.get(),
        capacity,
        created_at: now_micros(),
    };
    let mut block = header.to_bytes().to_vec();
    block.resize(index(capacity.min(BLOCK_BYTES)), 0);
    file.write_all_at(&block, 0)?;
    let path = Segment::path_of(&partition.directory, base.get());
    let segment = Segment::active(
        Arc::clone(&partition.disk),
        path.clone(),
        partition.identity,
        base.get(),
        file.map()?,
        SparseIndex::default(),
    );
    let active = ActiveSegment {
        segment: Arc::new(segment),
        file: Arc::clone(&file),
        capacity,
        position: SEGMENT_HEADER_BYTES as u64,
        chain: 0,
        first_append_time: None,
        next_hint: 0,
    };
    Ok((active, Waiting { file, from, path }))
}

fn now_micros() -> u64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

/// How many of the frames at `starts` fit into `room` bytes.
fn fitting(starts: &[usize], bytes: usize, room: u64) -> usize {
    if bytes as u64 <= room {
        return starts.len();
    }
    // A frame fits if the next one starts within the room.
    starts
        .partition_point(|start| *start as u64 <= room)
        .saturating_sub(1)
}

impl PartitionWriter for SegmentedWriter {
    fn end(&self) -> Offset {
        self.end
    }

    fn last_append_time(&self) -> AppendTime {
        self.last_append_time
    }

    fn append(&mut self, batch: &Batch) -> Result<Appended, LogError> {
        self.partition.check_writable()?;
        let start = self.end;
        assert_eq!(batch.start(), start, "a batch starts at the log's end");
        if batch.is_empty() {
            return Ok(Appended {
                start,
                end: start,
                sync_time: Duration::ZERO,
            });
        }
        let (bytes, starts) = batch.parts();
        let fitting = fitting(starts, bytes.len(), self.active.room());
        let next = if fitting == starts.len() {
            None
        } else {
            let needed = bytes.len() - starts[fitting];
            Some((self.reserve_next(needed as u64)?, fitting))
        };

        // From here on a failure leaves the disk in doubt.
        let written = self.write_batch(batch, next);
        self.or_poison(start, written)?;
        self.end = batch.end();
        self.partition
            .active_bytes
            .store(self.active.position, Ordering::Relaxed);

        let mut sync_time = Duration::ZERO;
        if self.durability == Durability::Always {
            let began = Instant::now();
            if !keeps(Mutant::PublishAfterSync) {
                self.partition.publish(self.end);
            }
            if keeps(Mutant::BatchSync) {
                let synced = self.partition.sync(&*self.active.file);
                self.or_poison(start, synced)?;
            }
            sync_time = began.elapsed();
        }
        self.active.segment.note(&self.hints);
        self.hints.clear();
        if self.durability == Durability::Always {
            self.partition.publish(self.end);
        } else {
            self.partition.leave_unsynced(self.end, &self.active.file);
        }
        debug_assert!(
            self.end >= self.partition.durable_end.load(),
            "appended >= visible"
        );
        self.prepare_zeros();
        Ok(Appended {
            start,
            end: self.end,
            sync_time,
        })
    }

    fn idle(&mut self) -> Result<(), LogError> {
        self.partition.check_writable()?;
        self.partition.sync_left()?;
        if self.watermark == self.end
            || !keeps(Mutant::IdleMarker)
            || self.active.room() < FRAME_HEADER_BYTES as u64
        {
            return Ok(());
        }
        let marked = self.write_marker();
        self.hints.clear();
        self.or_poison(self.end, marked)?;
        self.partition
            .active_bytes
            .store(self.active.position, Ordering::Relaxed);
        Ok(())
    }

    fn rotate(&mut self) -> Result<bool, LogError> {
        self.partition.check_writable()?;
        self.partition.sync_left()?;
        if self.end.get() == self.active.segment.base {
            return Ok(false);
        }
        let prepared = self.reserve_next(0)?;
        let rolled = self.roll(prepared, self.end);
        self.or_poison(self.end, rolled)?;
        self.partition.sync_left()?;
        // The footer proves what the watermark of a later frame would.
        self.watermark = self.end;
        self.partition
            .active_bytes
            .store(self.active.position, Ordering::Relaxed);
        Ok(true)
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.idle()
    }
}
