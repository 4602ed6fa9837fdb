//! A log that another process writes, followed as it grows.
//!
//! The writer tells its durable ends in a file of shared cells, `durable-end`; a follower believes a cell that verifies,
//! opens segments as they appear, and never looks beyond what was told. `synced >= told >= visible here`.
//!
//! **What a follower may believe.** The writer tells an end after its sync returned, so whatever was told of this log is
//! true for ever: a kill, a recovery or a power loss takes nothing away below it. What a power loss leaves of the file
//! itself may be older, or garbage: older ends are true too, garbage does not verify. Without a cell a follower knows
//! what the frames say of themselves: each carries how far the log was synced when it was written. Frames beyond that
//! may be in the page cache and on no disk, so they are not shown, until the writer has recovered and tells its end.
//!
//! An end that the segments do not reach was told of a log that was since cut or replaced: it is not believed until a
//! writer of a later epoch tells another.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::archive::BlockCache;
use super::epoch::is_full;
use super::partition::Partition;
use super::reader::SegmentedReader;
use super::recovery::{Verdict, list_segments, scan_tail};
use super::segment::{Place, Segment};
use super::{SegmentedConfig, for_each_partition};
use crate::disk::Disk;
use crate::layout::{Identity, SEGMENT_HEADER_BYTES};
use crate::shared_cells::{CellsFollower, CellsOwner, Told};
use crate::{
    AppendTime, EventLog, Frame, LogError, Offset, PartitionId, PartitionReader, PartitionStatus,
    PartitionWriter, PayloadFormat, ScanLimit,
};

/// The file of cells in the log's directory; cell `n` is partition `n`'s.
const FILE_NAME: &str = "durable-end";

/// How often a follower looks for the file of cells while there is none, and again at a cell that is being written.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a follower sleeps on a cell before it looks by itself.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The cells of a log that is written, once they could be made: a full disk may keep them from it for a while.
#[derive(Debug)]
struct ToldEnds {
    path: PathBuf,
    log_id: [u8; 16],
    partitions: u16,
    epoch: u64,
    cells: OnceLock<CellsOwner>,
    making: Mutex<()>,
}

impl ToldEnds {
    fn cells(&self) -> io::Result<&CellsOwner> {
        if let Some(cells) = self.cells.get() {
            return Ok(cells);
        }
        let _one_at_a_time = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = self.cells.get() {
            return Ok(cells);
        }
        let cells = CellsOwner::open(&self.path, self.log_id, self.partitions, self.epoch)?;
        Ok(self.cells.get_or_init(|| cells))
    }
}

/// One partition's line to its followers.
#[derive(Debug)]
pub(super) struct EndTeller {
    ends: Arc<ToldEnds>,
    /// Whether the last telling failed: a failure is logged when it begins.
    failing: AtomicBool,
}

impl EndTeller {
    /// Tells the partition's durable end as it is now.
    pub(super) fn tell(&self, partition: &Partition) {
        let end = || partition.durable_end.load().get();
        let told = self
            .ends
            .cells()
            .and_then(|cells| cells.tell(partition.id.get(), end));
        match told {
            Ok(()) => self.failing.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(partition = partition.id.get(), %error, "the durable end cannot be told: followers fall behind");
                }
            }
        }
    }
}

/// Lets other processes follow `partitions`, all of a log that is open for writing.
pub(super) fn tell_ends(
    config: &SegmentedConfig,
    partitions: &[Arc<Partition>],
    epoch: u32,
) -> Result<(), LogError> {
    let ends = Arc::new(ToldEnds {
        path: config.directory.join(FILE_NAME),
        log_id: config.log_id,
        partitions: config.partitions,
        epoch: epoch.into(),
        cells: OnceLock::new(),
        making: Mutex::new(()),
    });
    match ends.cells() {
        // A full disk keeps nobody from reading the log: the cells are made when there is space.
        Err(source) if !is_full(&source) => {
            return Err(LogError::Io {
                action: "opening",
                path: ends.path.clone(),
                source,
            });
        }
        Ok(_) | Err(_) => {}
    }
    for partition in partitions {
        partition.tell_with(EndTeller {
            ends: Arc::clone(&ends),
            failing: AtomicBool::new(false),
        });
    }
    Ok(())
}

/// The ends as another process tells them; the file may come later.
#[derive(Debug)]
struct FollowedEnds {
    path: PathBuf,
    log_id: [u8; 16],
    partitions: u16,
    cells: OnceLock<CellsFollower>,
}

impl FollowedEnds {
    fn cells(&self) -> Option<&CellsFollower> {
        if let Some(cells) = self.cells.get() {
            return Some(cells);
        }
        // Not there, or not whole: it is looked for again.
        let cells = CellsFollower::open(&self.path, self.log_id, self.partitions).ok()?;
        Some(self.cells.get_or_init(|| cells))
    }
}

/// A segmented log that another process may be writing, now or later. Changes nothing on the disk.
#[derive(Debug)]
pub struct FollowedLog {
    partitions: Vec<Arc<Followed>>,
}

impl FollowedLog {
    /// Opens the log for following. Shows what is known to be synced, and more as the writer tells it; with no writer it
    /// stays as it is.
    ///
    /// # Errors
    /// [`LogError::Io`] or [`LogError::Incompatible`] if the log or a partition is not there (yet);
    /// [`LogError::Damaged`] if a segment's header does not verify.
    pub fn open(config: &SegmentedConfig, disk: &Arc<dyn Disk>) -> Result<Self, LogError> {
        let ends = Arc::new(FollowedEnds {
            path: config.directory.join(FILE_NAME),
            log_id: config.log_id,
            partitions: config.partitions,
            cells: OnceLock::new(),
        });
        let partitions = for_each_partition(config.partitions, |partition| {
            let directory = config.partition_directory(partition);
            let identity = Identity::new(config.log_id, partition);
            Followed::open(disk, directory, identity, Arc::clone(&ends)).map(Arc::new)
        })?;
        Ok(Self { partitions })
    }

    fn partition(&self, partition: PartitionId) -> Result<&Arc<Followed>, LogError> {
        self.partitions
            .get(partition.index())
            .ok_or(LogError::NoSuchPartition(partition))
    }
}

impl EventLog for FollowedLog {
    fn partition_count(&self) -> u16 {
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    fn payload_format(&self) -> PayloadFormat {
        PayloadFormat::Binary
    }

    fn writer(&self, _partition: PartitionId) -> Result<Box<dyn PartitionWriter>, LogError> {
        Err(LogError::ReadOnly)
    }

    fn reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, LogError> {
        let followed = Arc::clone(self.partition(partition)?);
        let segments = SegmentedReader {
            partition: Arc::clone(&followed.partition),
        };
        Ok(Box::new(FollowingReader { followed, segments }))
    }

    fn status(&self) -> Vec<PartitionStatus> {
        let look = |followed: &Arc<Followed>| {
            followed.look();
            followed.partition.status()
        };
        self.partitions.iter().map(look).collect()
    }
}

/// One partition as it is followed.
#[derive(Debug)]
struct Followed {
    partition: Arc<Partition>,
    ends: Arc<FollowedEnds>,
    /// Where the walk over the last segment stands. Held while segments are added.
    place: Mutex<Place>,
    /// The epoch of a cell that told more than the segments hold, when the log was opened: it is not believed.
    disbelieved: Option<u64>,
    /// Whether the last look failed: a failure is logged when it begins.
    failing: AtomicBool,
}

impl Followed {
    fn open(
        disk: &Arc<dyn Disk>,
        directory: PathBuf,
        identity: Identity,
        ends: Arc<FollowedEnds>,
    ) -> Result<Self, LogError> {
        // Before the segments are listed: whatever was told before then is in the segments that are listed.
        let told = ends
            .cells()
            .and_then(|cells| cells.read(identity.partition));
        let bases = segments_in(&**disk, &directory)?;
        let (last, sealed) = bases.split_last().ok_or_else(|| LogError::Incompatible {
            path: directory.clone(),
            reason: "has no segment yet".to_owned(),
        })?;
        let cache = Arc::new(BlockCache::default());
        let seal = |base: &u64| {
            let disk = Arc::clone(disk);
            let cache = Arc::clone(&cache);
            Arc::new(Segment::sealed(disk, &directory, identity, *base, cache))
        };
        let mut segments: Vec<_> = sealed.iter().map(seal).collect();
        let active = Arc::new(Segment::followed(
            Arc::clone(disk),
            &directory,
            identity,
            *last,
        )?);
        let tail = scan_tail(active.bytes()?, identity, *last);
        let proven = match tail.verdict {
            // A later frame proves that everything before the damage had been synced.
            Verdict::Damaged { .. } => tail.end,
            Verdict::Clean | Verdict::Torn { .. } => tail.watermark.min(tail.end),
        };
        let (end, disbelieved) = match told {
            Some(Told { value, .. }) if value <= tail.end => (value.max(proven), None),
            Some(Told { value, epoch }) => {
                tracing::warn!(
                    partition = identity.partition,
                    told = value,
                    end = tail.end,
                    epoch,
                    "the log ends before what its writer told last: waiting for a writer to recover it"
                );
                (proven, Some(epoch))
            }
            None => (proven, None),
        };
        let start = Place {
            position: SEGMENT_HEADER_BYTES,
            next: *last,
        };
        let place = active.note_frames(start, end);
        segments.push(active);
        let active_bytes = place.position as u64;
        let (disk, end) = (Arc::clone(disk), Offset::new(end));
        let partition =
            Partition::new(disk, directory, identity, segments, end, active_bytes, None);
        Ok(Self {
            partition: Arc::new(partition),
            ends,
            place: Mutex::new(place),
            disbelieved,
            failing: AtomicBool::new(false),
        })
    }

    /// What the writer tells, if it can be believed.
    fn told(&self) -> Option<Offset> {
        let told = self.ends.cells()?.read(self.partition.id.get())?;
        (self.disbelieved != Some(told.epoch)).then_some(Offset::new(told.value))
    }

    /// Takes over what the writer tells by now; returns the durable end.
    fn look(&self) -> Offset {
        let known = self.partition.durable_end.load();
        match self.told() {
            Some(end) if end > known => {}
            _ => return known,
        }
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have come first, and more may have been told meanwhile.
        let known = self.partition.durable_end.load();
        let Some(end) = self.told().filter(|end| *end > known) else {
            return known;
        };
        match self.advance(&mut place, end.get()) {
            Ok(()) => {
                self.failing.store(false, Ordering::Relaxed);
                let bytes = place.position as u64;
                self.partition.active_bytes.store(bytes, Ordering::Relaxed);
                self.partition.durable_end.publish(end);
                end
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(partition = self.partition.id.get(), %error, "the log cannot be followed for now");
                }
                known
            }
        }
    }

    /// The segment that begins at `base`. One that is not there under its name was archived since it was sealed.
    fn open_segment(&self, base: u64) -> Result<Segment, LogError> {
        let (disk, directory) = (&self.partition.disk, &self.partition.directory);
        let identity = self.partition.identity;
        match Segment::followed(Arc::clone(disk), directory, identity, base) {
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let cache = Arc::new(BlockCache::default());
                let archived = Segment::sealed(Arc::clone(disk), directory, identity, base, cache);
                archived.footer()?;
                Ok(archived)
            }
            opened => opened,
        }
    }

    /// Opens the segments that hold records before `end`, in order, and notes where frames are.
    fn advance(&self, place: &mut Place, end: u64) -> Result<(), LogError> {
        loop {
            let segments = self.partition.segments();
            let last = segments
                .last()
                .expect("a followed partition has a segment from the start");
            // A footer counts only if something behind it was told: then its successor has its name. Without one the
            // segment may yet be written on, after a recovery.
            match last.footer()? {
                Some(footer) if footer.end < end => {
                    last.note_frames(*place, footer.end);
                    let next = self.open_segment(footer.end)?;
                    self.partition.push_segment(Arc::new(next));
                    *place = Place {
                        position: SEGMENT_HEADER_BYTES,
                        next: footer.end,
                    };
                }
                _ => {
                    *place = last.note_frames(*place, end);
                    return Ok(());
                }
            }
        }
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        let deadline = Instant::now() + timeout;
        loop {
            let turn = self
                .ends
                .cells()
                .map(|cells| (cells, cells.turn(self.partition.id.get())));
            let end = self.look();
            let left = deadline.saturating_duration_since(Instant::now());
            if end > offset || left.is_zero() {
                return end;
            }
            // A cell that says nothing may be half written: its owner wakes nobody for the other half.
            let said = self.told().is_some();
            let slept = match turn {
                Some((cells, turn)) if said => {
                    cells.wait(self.partition.id.get(), turn, left.min(SLEEP_MAX))
                }
                _ => Err(io::ErrorKind::NotFound.into()),
            };
            if slept.is_err() {
                std::thread::sleep(left.min(LOOK_AGAIN));
            }
        }
    }
}

fn segments_in(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>, LogError> {
    let listed = list_segments(disk, directory).map_err(|source| LogError::Io {
        action: "listing",
        path: directory.to_owned(),
        source,
    })?;
    Ok(listed.0)
}

/// A reading end of a followed partition: looks at what was told, then reads like any other.
#[derive(Debug)]
struct FollowingReader {
    followed: Arc<Followed>,
    segments: SegmentedReader,
}

impl PartitionReader for FollowingReader {
    fn partition(&self) -> PartitionId {
        self.segments.partition()
    }

    fn start(&self) -> Offset {
        self.segments.start()
    }

    fn durable_end(&self) -> Offset {
        self.followed.look()
    }

    fn may_end_later(&self) -> bool {
        true
    }

    fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        self.followed.wait_beyond(offset, timeout)
    }

    fn scan(
        &self,
        from: Offset,
        limit: ScanLimit,
        visit: &mut dyn FnMut(Frame<'_>) -> ControlFlow<()>,
    ) -> Result<Offset, LogError> {
        self.followed.look();
        self.segments.scan(from, limit, visit)
    }

    fn seek_time(&self, time: AppendTime) -> Result<Offset, LogError> {
        self.followed.look();
        self.segments.seek_time(time)
    }
}
