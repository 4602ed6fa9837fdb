//! The one writing end of a partition: a batch is one write and one sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::partition::Partition;
use super::preparer::{Prepared, Preparer};
use super::segment::{Segment, hint_of};
use super::sparse_index::{Hint, SparseIndex};
use crate::disk::DiskFile;
use crate::layout::{
    FRAME_HEADER_BYTES, FrameHeader, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter,
    SegmentHeader, chain, index, seal_frame,
};
use crate::mutants::{Mutant, keeps};
use crate::{AppendTime, Appended, Batch, Durability, LogError, Offset, PartitionWriter};

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
}

impl ActiveSegment {
    fn room(&self) -> u64 {
        self.capacity - SEGMENT_FOOTER_BYTES as u64 - self.position
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
    pub(super) scratch: Vec<u8>,
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

    /// Makes sure that the next segment is there and holds `needed` bytes; otherwise nothing may be written.
    fn reserve_next(&self, needed: u64) -> Result<Prepared, LogError> {
        // A failure of before may be over, and nobody may have asked yet: ask once more before giving up.
        let ready = match self.partition.next_segment.wait_ready() {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => {
                self.prepare_next();
                self.partition.next_segment.wait_ready().unwrap_or(Ok(()))
            }
        };
        let storage_error = |source: std::io::Error| match source.kind() {
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
        };
        ready.map_err(storage_error)?;
        let prepared = self.partition.next_segment.take().ok_or_else(|| {
            storage_error(std::io::Error::other(
                "the next segment was asked for and is not there",
            ))
        })?;
        let room = prepared.capacity - (SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) as u64;
        if needed <= room {
            return Ok(prepared);
        }
        // One batch larger than a segment: make one that holds it.
        let path = prepared.path.clone();
        drop(prepared);
        self.partition.disk.remove(&path).map_err(storage_error)?;
        super::preparer::prepare(
            &*self.partition.disk,
            &self.partition.directory,
            self.next_capacity(needed),
            &AtomicBool::new(false),
        )
        .map_err(storage_error)
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

    /// Completes the frames in `scratch[from..to]` and writes them at the active segment's position.
    fn write_frames(&mut self, starts: &[usize], from: usize, to: usize) -> std::io::Result<()> {
        let watermark = if keeps(Mutant::Watermark) {
            self.partition.durable_end.load()
        } else {
            Offset::ZERO
        };
        let synced = watermark.get();
        for start in starts {
            let frame = &mut self.scratch[*start..to];
            let crc = seal_frame(frame, synced, self.epoch, self.partition.identity);
            self.active.chain = chain(self.active.chain, crc);
            let position = self.active.position + (start - from) as u64;
            let header = FrameHeader::read_unchecked(frame);
            self.active
                .first_append_time
                .get_or_insert(header.appended_at);
            self.last_append_time = AppendTime::from_micros(header.appended_at);
            self.hints
                .extend(hint_of(&header, self.active.segment.base, index(position)));
        }
        self.active
            .file
            .write_all_at(&self.scratch[from..to], self.active.position)?;
        self.active.position += (to - from) as u64;
        self.watermark = Offset::new(synced);
        Ok(())
    }

    /// Seals the active segment and goes on in `prepared`. Order matters: the footer and all frames are durable before
    /// the next segment has its name, so a segment with a successor is proven by its footer.
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
        let footer_position = self.active.capacity - SEGMENT_FOOTER_BYTES as u64;
        self.active
            .file
            .write_all_at(&footer.to_bytes(partition.identity), footer_position)?;
        if keeps(Mutant::SealSync) {
            self.partition.sync(&*self.active.file)?;
        }
        self.active.segment.note(&self.hints);
        self.hints.clear();
        self.preparer.save_hints(&self.active.segment);
        self.active = name_segment(&partition, prepared, base, self.epoch)?;
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
        self.scratch.clear();
        self.scratch.extend_from_slice(bytes);
        let mut from = 0;
        let mut rest = starts;
        if let Some((prepared, fitting)) = next {
            let (fit, behind) = starts.split_at(fitting);
            let to = behind.first().copied().unwrap_or(bytes.len());
            let first_behind = behind.first().map_or(batch.end(), |start| {
                Offset::new(FrameHeader::read_unchecked(&self.scratch[*start..]).base)
            });
            if !fit.is_empty() {
                self.write_frames(fit, 0, to)?;
            }
            self.roll(prepared, first_behind)?;
            (from, rest) = (to, behind);
        }
        self.write_frames(rest, from, bytes.len())
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
        self.scratch.clear();
        self.scratch.resize(FRAME_HEADER_BYTES, 0);
        marker.write_unsealed(&mut self.scratch);
        self.write_frames(&[0], 0, FRAME_HEADER_BYTES)?;
        self.partition.sync(&*self.active.file)
    }
}

/// Gives a prepared file its header and its name, both durable on return.
pub(super) fn name_segment(
    partition: &Partition,
    prepared: Prepared,
    base: Offset,
    epoch: u32,
) -> std::io::Result<ActiveSegment> {
    let Prepared {
        file,
        path: prepared_path,
        capacity,
    } = prepared;
    let created_at = now_micros();
    let header = SegmentHeader {
        identity: partition.identity,
        epoch,
        base: base.get(),
        capacity,
        created_at,
    };
    file.write_all_at(&header.to_bytes(), 0)?;
    if keeps(Mutant::HeaderSync) {
        file.sync_data()?;
    }
    let path = Segment::path_of(&partition.directory, base.get());
    partition.disk.rename(&prepared_path, &path)?;
    if keeps(Mutant::DirectorySync) {
        partition.disk.sync_directory(&partition.directory)?;
    }
    let disk = Arc::clone(&partition.disk);
    let map = file.map()?;
    let segment = Segment::active(
        disk,
        path,
        partition.identity,
        base.get(),
        map,
        SparseIndex::default(),
    );
    Ok(ActiveSegment {
        segment: Arc::new(segment),
        file,
        capacity,
        position: SEGMENT_HEADER_BYTES as u64,
        chain: 0,
        first_append_time: None,
    })
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
