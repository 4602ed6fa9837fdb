//! The segmented log: partitions of segment files, written through files and read through maps.
//!
//! `layout` has the bytes, `recovery` what a crash leaves, `writer` the write path, `reader` the read path, `followed` the
//! read path of another process.
//!
//! Long because opening a log, for writing and for reading, is one argument about what a start may believe.

mod archive;
#[cfg(test)]
mod archive_tests;
#[cfg(test)]
mod bits;
#[cfg(test)]
mod care_simulation;
mod epoch;
mod flusher;
mod followed;
#[cfg(test)]
mod followed_tests;
mod partition;
mod preparer;
mod proof;
mod reader;
mod recovery;
mod repair;
#[cfg(test)]
mod repair_tests;
mod salvage;
mod scrub;
mod segment;
mod segment_bytes;
#[cfg(test)]
mod simulation;
mod sparse_index;
#[cfg(test)]
mod tests;
mod verify;
mod writer;

use std::io;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::disk::Disk;
use crate::layout::{Identity, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SegmentFooter};
use crate::mutants::{Mutant, keeps};
use crate::{
    AppendTime, Durability, EventLog, LogError, Offset, PartitionId, PartitionReader,
    PartitionStatus, PartitionWriter, PayloadFormat,
};
use archive::BlockCache;
use epoch::Epoch;
use flusher::Flusher;
use partition::Partition;
use preparer::Preparer;
use reader::SegmentedReader;
use recovery::{Recovered, Repair};
use segment::Segment;
use writer::SegmentedWriter;

pub use archive::{Archived, archive_segment};
pub use followed::FollowedLog;
pub use repair::{KnownLoss, LostRange, RepairPlan, SegmentRepair};
pub use scrub::{Scrub, ScrubStatus};
pub use verify::{Finding, LostRecords, SegmentInfo, VerifyReport};

/// How often durability `os` syncs in the background: bounds how long a write stays invisible, promises nothing.
const OS_SYNC_INTERVAL: Duration = Duration::from_millis(100);

/// Where a segmented log is and how it is written.
#[derive(Debug, Clone)]
pub struct SegmentedConfig {
    /// The log's directory, `data/log`; partition `n` is in `pNNN` below it.
    pub directory: PathBuf,
    /// Identity of the log: bytes of another log never pass.
    pub log_id: [u8; 16],
    /// Count of partitions.
    pub partitions: u16,
    /// When an append is done.
    pub durability: Durability,
    /// First segment of a partition, in bytes: each further one is twice as large.
    pub segment_bytes_first: u64,
    /// Largest segment, in bytes.
    pub segment_bytes_max: u64,
    /// Who makes the next segment.
    pub preparation: Preparation,
    /// Whether other processes are told how far the log is synced: see [`FollowedLog`].
    pub followed: bool,
}

/// Who makes the next segment ahead of its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparation {
    /// A thread in the background.
    Background,
    /// The writer itself: the same order of file operations in every run. Nothing happens in the background, so that where
    /// an append does not wait for a sync, only [`PartitionWriter::idle`] and its like sync.
    Inline,
}

impl SegmentedConfig {
    /// 1 MiB: an empty service is small and starts in a blink.
    pub const SEGMENT_BYTES_FIRST_DEFAULT: u64 = 1024 * 1024;
    /// 64 MiB: a roll every few hundred thousand orders, a recovery scan of a few milliseconds.
    pub const SEGMENT_BYTES_MAX_DEFAULT: u64 = 64 * 1024 * 1024;

    /// A log with the sizes that suit a service.
    #[must_use]
    pub fn new(
        directory: PathBuf,
        log_id: [u8; 16],
        partitions: u16,
        durability: Durability,
    ) -> Self {
        Self {
            directory,
            log_id,
            partitions,
            durability,
            segment_bytes_first: Self::SEGMENT_BYTES_FIRST_DEFAULT,
            segment_bytes_max: Self::SEGMENT_BYTES_MAX_DEFAULT,
            preparation: Preparation::Background,
            followed: false,
        }
    }

    fn partition_directory(&self, partition: u16) -> PathBuf {
        self.directory.join(format!("p{partition:03}"))
    }
}

/// An open segmented log.
#[derive(Debug)]
pub struct SegmentedLog {
    config: SegmentedConfig,
    partitions: Vec<Arc<Partition>>,
    /// Writers not taken yet; empty if the log was opened for reading only.
    writers: Mutex<Vec<Option<SegmentedWriter>>>,
    _flusher: Option<Flusher>,
}

impl SegmentedLog {
    /// Opens the log for writing, makes what is missing, and recovers what a crash left. The caller holds the data
    /// directory's lock ([`crate::DataLock`]).
    ///
    /// A partition with damage before its tail or in a segment's header, with a bad sector in its last segment, or with a
    /// tail that cannot be repaired opens too: it serves what is proven and takes no writes; its
    /// [`PartitionStatus::unwritable`] says why. On a full disk every partition opens, and appends are refused with
    /// [`LogError::StorageFull`] until there is space.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk fails, [`LogError::Incompatible`] if the configuration is out of range.
    pub fn open(config: SegmentedConfig, disk: Arc<dyn Disk>) -> Result<Self, LogError> {
        let (first, max) = (config.segment_bytes_first, config.segment_bytes_max);
        if !(SEGMENT_BYTES_MIN <= first && first <= max && max <= SEGMENT_BYTES_MAX) {
            return Err(LogError::Incompatible {
                path: config.directory.clone(),
                reason: format!(
                    "segments of {first} to {max} bytes are not possible; {SEGMENT_BYTES_MIN} to \
                     {SEGMENT_BYTES_MAX} are"
                ),
            });
        }
        create_directory(&*disk, &config.directory)?;
        // Before anything new is written: on a full disk this is the space to do it with.
        for partition in 0..config.partitions {
            remove_leftovers(&config, &*disk, partition)?;
        }
        let epoch = Arc::new(Epoch::advance(Arc::clone(&disk), &config.directory)?);
        let preparer = Preparer::start(config.preparation).map_err(|source| LogError::Io {
            action: "starting the background thread of",
            path: config.directory.clone(),
            source,
        })?;
        let cache = Arc::new(BlockCache::default());
        let opened = for_each_partition(config.partitions, |partition| {
            open_partition(&config, &disk, partition, &epoch, &preparer, &cache)
        })?;
        let (partitions, writers): (Vec<_>, Vec<_>) = opened
            .into_iter()
            .map(|(partition, writer)| (partition, Some(writer)))
            .unzip();
        if config.followed {
            followed::tell_ends(&config, &partitions, epoch.number())?;
        }
        let interval = match (config.preparation, config.durability) {
            (_, Durability::Always) | (Preparation::Inline, _) => None,
            (_, Durability::Interval(interval)) => Some(interval),
            (_, Durability::Os) => Some(OS_SYNC_INTERVAL),
        };
        let flusher = interval
            .map(|interval| {
                let promised = config.durability != Durability::Os;
                Flusher::start(partitions.clone(), interval, promised)
            })
            .transpose()
            .map_err(|source| LogError::Io {
                action: "starting the background sync of",
                path: config.directory.clone(),
                source,
            })?;
        Ok(Self {
            config,
            partitions,
            writers: Mutex::new(writers),
            _flusher: flusher,
        })
    }

    /// Opens the log for reading, changing nothing: for tools. Of a log that a service is writing, it shows what was in
    /// the files when they were opened.
    ///
    /// # Errors
    /// As [`SegmentedLog::open`], and [`LogError::Io`] if the log or a partition is not there.
    pub fn open_read_only(config: SegmentedConfig, disk: Arc<dyn Disk>) -> Result<Self, LogError> {
        let cache = Arc::new(BlockCache::default());
        let partitions = for_each_partition(config.partitions, |partition| {
            open_partition_read_only(&config, &disk, partition, &cache)
        })?;
        Ok(Self {
            config,
            partitions,
            writers: Mutex::new(Vec::new()),
            _flusher: None,
        })
    }

    /// Removes the unfinished files of an interrupted preparation or rewriting, as opening the log for writing does. The
    /// caller holds the data directory's lock.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk fails.
    pub fn remove_leftovers(config: &SegmentedConfig, disk: &dyn Disk) -> Result<(), LogError> {
        (0..config.partitions).try_for_each(|partition| remove_leftovers(config, disk, partition))
    }

    fn partition(&self, partition: PartitionId) -> Result<&Arc<Partition>, LogError> {
        self.partitions
            .get(partition.index())
            .ok_or(LogError::NoSuchPartition(partition))
    }
}

impl EventLog for SegmentedLog {
    fn partition_count(&self) -> u16 {
        self.config.partitions
    }

    fn payload_format(&self) -> PayloadFormat {
        PayloadFormat::Binary
    }

    fn writer(&self, partition: PartitionId) -> Result<Box<dyn PartitionWriter>, LogError> {
        self.partition(partition)?;
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = writers
            .get_mut(partition.index())
            .ok_or(LogError::ReadOnly)?;
        let writer = writer.take().ok_or(LogError::WriterTaken(partition))?;
        Ok(Box::new(writer))
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, LogError> {
        Ok(Box::new(SegmentedReader {
            partition: Arc::clone(self.partition(partition)?),
        }))
    }

    fn start_scrub(&self, bytes_per_second: NonZeroU64) -> io::Result<Option<Scrub>> {
        Scrub::start(self.partitions.clone(), bytes_per_second).map(Some)
    }

    fn status(&self) -> Vec<PartitionStatus> {
        self.partitions
            .iter()
            .map(|partition| partition.status())
            .collect()
    }
}

/// What a start and a repair make of a segment with these bytes as its frames.
#[cfg(fuzzing)]
pub(crate) fn fuzz_segment(frames: &[u8], identity: Identity) {
    use salvage::{End, salvage};
    let room = crate::layout::SEGMENT_HEADER_BYTES;
    let mut segment = vec![0; room];
    segment.extend_from_slice(frames);
    segment.resize((segment.len() + 512).next_multiple_of(8), 0);
    let base = crate::layout::FrameHeader::read_unchecked(frames).base;
    if base > u64::MAX / 2 {
        return;
    }
    let tail = recovery::scan_tail(&segment, identity, base);
    assert!(tail.end >= base && tail.position <= segment.len());
    for end in [
        End::Last { seen: base + 1 },
        End::Sealed {
            next_base: base + 5,
        },
    ] {
        let kept = salvage(&segment, identity, base, end);
        let rebuilt = kept.rebuild(&segment, identity);
        let again = salvage(&rebuilt, identity, base, end);
        assert!(again.losses.is_empty(), "a repaired segment is whole");
        assert_eq!(again.end, kept.end);
    }
}

fn create_directory(disk: &dyn Disk, directory: &Path) -> Result<(), LogError> {
    let created = disk
        .create_directory(directory)
        .and_then(|()| match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && keeps(Mutant::ParentSync) => {
                disk.sync_directory(parent)
            }
            _ => Ok(()),
        });
    created.map_err(|source| LogError::Io {
        action: "making",
        path: directory.to_owned(),
        source,
    })
}

/// Runs `open` for every partition, on a few threads: recovery waits for the disk, not for the processor.
fn for_each_partition<T: Send>(
    partitions: u16,
    open: impl Fn(u16) -> Result<T, LogError> + Sync,
) -> Result<Vec<T>, LogError> {
    const THREADS_MAX: usize = 8;
    let ids: Vec<u16> = (0..partitions).collect();
    let share = ids.len().div_ceil(THREADS_MAX).max(1);
    if let [only] = ids.as_slice() {
        return Ok(vec![open(*only)?]);
    }
    let open = &open;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ids
            .chunks(share)
            .map(|ids| {
                scope.spawn(move || {
                    ids.iter()
                        .map(|id| open(*id))
                        .collect::<Result<Vec<T>, _>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(ids.len());
        for thread in threads {
            all.extend(
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
            );
        }
        Ok(all)
    })
}

/// The segments of a partition with the last one recovered.
fn load_partition(
    disk: &Arc<dyn Disk>,
    directory: PathBuf,
    identity: Identity,
    bases: &[u64],
    last: Recovered,
    cache: &Arc<BlockCache>,
    epoch: Option<Arc<Epoch>>,
) -> (Arc<Partition>, Recovered) {
    let mut segments: Vec<Arc<Segment>> = bases[..bases.len() - 1]
        .iter()
        .map(|base| {
            Arc::new(Segment::sealed(
                Arc::clone(disk),
                &directory,
                identity,
                *base,
                Arc::clone(cache),
            ))
        })
        .collect();
    segments.push(Arc::clone(&last.active.segment));
    let partition = Partition::new(
        Arc::clone(disk),
        directory,
        identity,
        segments,
        Offset::new(last.end),
        last.active.position,
        epoch,
    );
    if let Some(damage) = &last.damage {
        partition.poison(damage);
    }
    (Arc::new(partition), last)
}

/// The last segment must go on where the one before it ended.
fn check_junction(partition: &Partition) -> Result<Option<SegmentFooter>, LogError> {
    let segments = partition.segments();
    let [.., before, last] = segments.as_slice() else {
        return Ok(None);
    };
    before.check_header()?;
    match before.footer()? {
        Some(footer) if footer.end == last.base => Ok(Some(footer)),
        Some(footer) => Err(last.damaged(
            0,
            footer.end,
            format!(
                "the segment before ends at offset {}, this one starts at {}",
                footer.end, last.base
            ),
        )),
        None => Err(before.damaged(
            0,
            before.base,
            "the segment has a successor and no valid footer",
        )),
    }
}

/// Removes what an interrupted preparation left.
fn remove_leftovers(
    config: &SegmentedConfig,
    disk: &dyn Disk,
    partition: u16,
) -> Result<(), LogError> {
    let directory = config.partition_directory(partition);
    let leftovers = match recovery::list_segments(disk, &directory) {
        Ok((_, leftovers)) => leftovers,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            let path = directory;
            return Err(LogError::Io {
                action: "listing",
                path,
                source,
            });
        }
    };
    for path in leftovers {
        disk.remove(&path).map_err(|source| {
            let action = "removing";
            LogError::Io {
                action,
                path: path.clone(),
                source,
            }
        })?;
    }
    Ok(())
}

fn open_partition(
    config: &SegmentedConfig,
    disk: &Arc<dyn Disk>,
    partition: u16,
    epoch: &Arc<Epoch>,
    preparer: &Preparer,
    cache: &Arc<BlockCache>,
) -> Result<(Arc<Partition>, SegmentedWriter), LogError> {
    let directory = config.partition_directory(partition);
    let identity = Identity::new(config.log_id, partition);
    let io_error = |action| {
        let path = directory.clone();
        move |source: io::Error| LogError::Io {
            action,
            path,
            source,
        }
    };
    create_directory(&**disk, &directory)?;
    let (mut bases, _) =
        recovery::list_segments(&**disk, &directory).map_err(io_error("listing"))?;
    if bases.is_empty() {
        let first = Partition::new(
            Arc::clone(disk),
            directory.clone(),
            identity,
            Vec::new(),
            Offset::ZERO,
            0,
            Some(Arc::clone(epoch)),
        );
        let prepared =
            preparer::reserve_with_zeros(&**disk, &directory, config.segment_bytes_first)
                .map_err(io_error("making the first segment of"))?;
        writer::make_first_segment(&first, prepared, epoch.number())
            .map_err(io_error("making the first segment of"))?;
        bases.push(0);
    }
    // A disk that fails here makes the partition unwritable, and nothing is changed that a later start needs.
    let finished = recovery::finish_rolls(&**disk, &directory, identity, &mut bases);
    let repair = if finished.is_ok() {
        Repair::Tail
    } else {
        Repair::Nothing
    };
    // A crash may have come between a segment's name and the sync of its directory; and what was removed just now must not
    // come back.
    if keeps(Mutant::DirectoryResync) {
        disk.sync_directory(&directory)
            .map_err(io_error("syncing"))?;
    }
    let last_base = bases[bases.len() - 1];
    let last = recovery::recover(disk, &directory, identity, last_base, repair)?;
    let epoch_here = Some(Arc::clone(epoch));
    let (partition, last) =
        load_partition(disk, directory, identity, &bases, last, cache, epoch_here);
    // Damage at the junction makes the partition unwritable, as damage in a frame does; the others go on.
    let footer_before = check_junction(&partition).unwrap_or_else(|damage| {
        partition.poison(&damage);
        None
    });
    if let Err(error) = finished {
        partition.poison(&format!("finishing what a crash interrupted: {error}"));
    }
    let last_before = footer_before.map_or(0, |footer| footer.last_append_time);
    // Above every epoch in the log, even if the file that counts them was lost.
    let epoch_before = footer_before
        .map_or(0, |footer| footer.epoch)
        .max(last.epoch);
    let mut writer = SegmentedWriter {
        partition: Arc::clone(&partition),
        preparer: preparer.clone(),
        active: last.active,
        durability: config.durability,
        segment_bytes_max: config.segment_bytes_max,
        epoch: epoch
            .number()
            .max(epoch_before.saturating_add(u32::from(keeps(Mutant::EpochAdvance)))),
        end: Offset::new(last.end),
        last_append_time: AppendTime::from_micros(last.last_append_time.max(last_before)),
        watermark: Offset::new(last.watermark),
        zeros_asked: 0,
        scratch: Vec::new(),
        header_crcs: Vec::new(),
        hints: Vec::new(),
    };
    if partition.poisoned().is_none() {
        writer.prepare_next();
        writer.prepare_zeros();
    }
    partition
        .active_bytes
        .store(writer.active.position, Ordering::Relaxed);
    Ok((partition, writer))
}

fn open_partition_read_only(
    config: &SegmentedConfig,
    disk: &Arc<dyn Disk>,
    partition: u16,
    cache: &Arc<BlockCache>,
) -> Result<Arc<Partition>, LogError> {
    let directory = config.partition_directory(partition);
    let identity = Identity::new(config.log_id, partition);
    let (bases, _) =
        recovery::list_segments(&**disk, &directory).map_err(|source| LogError::Io {
            action: "listing",
            path: directory.clone(),
            source,
        })?;
    let Some(last_base) = bases.last() else {
        return Err(LogError::Incompatible {
            path: directory,
            reason: "has no segment".to_owned(),
        });
    };
    let last = recovery::recover(disk, &directory, identity, *last_base, Repair::Nothing)?;
    Ok(load_partition(disk, directory, identity, &bases, last, cache, None).0)
}
