//! Repair of a damaged log, never automatic: what is proven stays, what is lost is declared lost, and the damaged files
//! are kept aside.
//!
//! One segment after the other: the damaged file is copied aside and the copy synced; its replacement is written under
//! another name and synced; the indexes, which describe the damaged file, go; the replacement takes the name. So whenever
//! the repair is cut short the log is damaged as before, or less so, and the next run goes on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive;
use super::proof::prove_sealed;
use super::recovery::{Verdict, list_segments, proven_loss, scan_tail};
use super::salvage::{End, Loss, Salvage, salvage};
use super::segment::Segment;
use super::segment_bytes::SegmentBytes;
use super::{SegmentedConfig, SegmentedLog};
use crate::disk::{Disk, DiskFile};
use crate::layout::{Identity, SegmentHeader};
use crate::mutants::{Mutant, keeps};
use crate::{Key, LogError, Offset, PartitionId};

/// Where a replacement waits for its name; a start removes what was left.
const REPLACEMENT_NAME: &str = "repair.tmp";

/// What a repair would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairPlan {
    /// The damaged segments, by partition and offset.
    pub segments: Vec<SegmentRepair>,
    /// What is lost, by partition and offset.
    pub lost: Vec<LostRange>,
}

/// A damaged segment that will be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentRepair {
    /// The partition.
    pub partition: PartitionId,
    /// The segment file.
    pub path: PathBuf,
    /// What does not verify in it.
    pub reason: String,
    /// Frames that stay; markers among them.
    pub frames: u64,
    /// Records that stay.
    pub records: u64,
    /// Length of the damaged file, in bytes.
    pub bytes: u64,
    pub(super) base: u64,
    end: End,
}

/// Records that cannot be saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// The partition.
    pub partition: PartitionId,
    /// The segment file.
    pub path: PathBuf,
    /// Where in the file they stood, in bytes.
    pub position: u64,
    /// The first lost record.
    pub start: Offset,
    /// The offset after the last lost record.
    pub end: Offset,
    /// What does not verify.
    pub reason: String,
    /// What is known of the lost frames, by offset. Others may be lost of which nothing is known.
    pub known: Vec<KnownLoss>,
}

/// A lost frame of which something is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownLoss {
    /// Offset of its first record.
    pub offset: Offset,
    /// What it was about.
    pub key: Key,
    /// Position of its first record in the stream of the key, and how many there were: if its own header still says so.
    /// Otherwise a later frame of the key told of it.
    pub sequence: Option<(u32, u16)>,
}

impl RepairPlan {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}

impl SegmentedLog {
    /// Finds what is damaged in a log that nobody is writing, and what a repair would keep and lose. Changes nothing.
    ///
    /// `seen` gives for each partition the offset that a reader with a memory of its own has reached (a read model's
    /// checkpoint, a cursor): offsets before it were given to records, so a damaged last segment never ends below it.
    /// `progress` hears of the bytes read so far.
    ///
    /// # Errors
    /// [`LogError::Incompatible`] if an intact header says that a file belongs elsewhere, [`LogError::Io`] if a file cannot
    /// be opened.
    pub fn plan_repair(
        config: &SegmentedConfig,
        disk: &Arc<dyn Disk>,
        seen: &[Offset],
        progress: &mut dyn FnMut(u64),
    ) -> Result<RepairPlan, LogError> {
        let mut plan = RepairPlan::default();
        let mut read = 0;
        for partition in 0..config.partitions {
            let seen = seen
                .get(usize::from(partition))
                .map_or(0, |offset| offset.get());
            let mut repair = PartitionRepair::new(config, disk, partition);
            repair.plan(seen, &mut plan, &mut |bytes| {
                read += bytes;
                progress(read);
            })?;
        }
        Ok(plan)
    }

    /// Does what `plan` says. Each damaged file is first copied into `aside`, under its partition's name, where no copy may
    /// be yet; on return copies and repaired segments are on stable storage. `done` hears of each segment.
    ///
    /// # Errors
    /// [`LogError::Io`] if the disk fails or is full. Then the log is as it was but for the segments that `done` heard of,
    /// and another plan and run go on.
    pub fn repair(
        config: &SegmentedConfig,
        disk: &Arc<dyn Disk>,
        plan: &RepairPlan,
        aside: &Path,
        done: &mut dyn FnMut(&SegmentRepair),
    ) -> Result<(), LogError> {
        for segment in &plan.segments {
            let mut repair = PartitionRepair::new(config, disk, segment.partition.get());
            repair.replace(segment, aside)?;
            done(segment);
        }
        Ok(())
    }
}

struct PartitionRepair<'r> {
    disk: &'r Arc<dyn Disk>,
    directory: PathBuf,
    identity: Identity,
}

impl<'r> PartitionRepair<'r> {
    fn new(config: &SegmentedConfig, disk: &'r Arc<dyn Disk>, partition: u16) -> Self {
        Self {
            disk,
            directory: config.partition_directory(partition),
            identity: Identity::new(config.log_id, partition),
        }
    }

    fn plan(
        &mut self,
        seen: u64,
        plan: &mut RepairPlan,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LogError> {
        let (bases, _) =
            list_segments(&**self.disk, &self.directory).map_err(at(&self.directory, "listing"))?;
        let partition = PartitionId::new(self.identity.partition);
        let first_loss = plan.lost.len();
        // What kept frames say of the frames before them, once something is lost: they may be the ones.
        let mut told: BTreeMap<u64, Vec<[u8; 16]>> = BTreeMap::new();
        for (number, base) in bases.iter().enumerate() {
            let path = Segment::path_of(&self.directory, *base);
            let end = match bases.get(number + 1) {
                Some(next_base) => End::Sealed {
                    next_base: *next_base,
                },
                None => End::Last { seen },
            };
            let damage = self.damage_of(&path, *base, end)?;
            if damage.is_none() && plan.lost.len() == first_loss {
                progress(self.length_of(&path, *base)?);
                continue;
            }
            let read = self.read(&path, *base)?;
            let end = match (&damage, end) {
                // An undamaged segment ends where it ends.
                (None, End::Last { .. }) => End::Last { seen: 0 },
                (_, end) => end,
            };
            let kept = self.salvage(&read, &path, *base, end)?;
            progress(read.bytes.len() as u64);
            for (previous, key) in &kept.previous {
                told.entry(*previous).or_default().push(*key);
            }
            if let Some(reason) = damage {
                plan.segments.push(SegmentRepair {
                    partition,
                    path: path.clone(),
                    reason,
                    frames: kept.frames,
                    records: kept.records,
                    bytes: read.bytes.len() as u64,
                    base: *base,
                    end,
                });
                plan.lost
                    .extend(kept.losses.into_iter().map(|loss| LostRange {
                        partition,
                        path: path.clone(),
                        position: loss.position as u64,
                        start: Offset::new(loss.start),
                        end: Offset::new(loss.end),
                        known: known_of(&loss),
                        reason: loss.reason,
                    }));
            }
        }
        for range in &mut plan.lost[first_loss..] {
            add_told(range, &told);
        }
        Ok(())
    }

    /// What is wrong with a segment, if something is. A torn tail is not: the next start cuts it.
    fn damage_of(&self, path: &Path, base: u64, end: End) -> Result<Option<String>, LogError> {
        let file = self.open(path, base)?;
        if let End::Sealed { next_base } = end {
            let mut pace = |_| std::ops::ControlFlow::Continue(());
            let proof = prove_sealed(&*file, self.identity, base, next_base, &mut pace);
            return Ok(proof
                .faults
                .into_iter()
                .next()
                .map(|fault| format!("byte {}: {}", fault.position, fault.reason)));
        }
        let read = SegmentBytes::read(&*file).map_err(at(path, "reading"))?;
        if let Some((position, reason)) = read.fault() {
            return Ok(Some(format!("byte {position}: {reason}")));
        }
        let length = read.bytes.len() as u64;
        if let Err(reason) = SegmentHeader::read(&read.bytes, self.identity, base, length) {
            return Ok(Some(reason));
        }
        let tail = scan_tail(&read.bytes, self.identity, base);
        Ok(match tail.verdict {
            Verdict::Clean | Verdict::Torn { .. } => None,
            Verdict::Damaged { fault, proof } => Some(format!(
                "byte {}: {}",
                tail.position,
                proven_loss(fault, proof)
            )),
        })
    }

    fn salvage(
        &self,
        read: &SegmentBytes,
        path: &Path,
        base: u64,
        end: End,
    ) -> Result<Salvage, LogError> {
        if let Some(reason) = SegmentHeader::foreign(&read.bytes, self.identity, base) {
            return Err(LogError::Incompatible {
                path: path.to_owned(),
                reason: format!(
                    "{reason}: put back the file that belongs there; nothing was changed"
                ),
            });
        }
        Ok(salvage(&read.bytes, self.identity, base, end))
    }

    /// The segment's file; an archive, unpacked.
    fn open(&self, path: &Path, base: u64) -> Result<Arc<dyn DiskFile>, LogError> {
        let (path, file) = archive::open_file(&**self.disk, path, self.identity, base)
            .map_err(at(path, "opening"))?;
        file.map_err(|reason| LogError::Incompatible {
            path,
            reason: format!(
                "{reason}: what an archive holds cannot be repaired, restore it from a backup; nothing was changed"
            ),
        })
    }

    fn read(&self, path: &Path, base: u64) -> Result<SegmentBytes, LogError> {
        SegmentBytes::read(&*self.open(path, base)?).map_err(at(path, "reading"))
    }

    fn length_of(&self, path: &Path, base: u64) -> Result<u64, LogError> {
        let file = self.open(path, base)?;
        file.length().map_err(at(path, "reading"))
    }

    fn replace(&mut self, segment: &SegmentRepair, aside: &Path) -> Result<(), LogError> {
        let read = self.read(&segment.path, segment.base)?;
        let kept = self.salvage(&read, &segment.path, segment.base, segment.end)?;
        self.copy_aside(&read.bytes, &segment.path, aside)?;
        let replacement = self.directory.join(REPLACEMENT_NAME);
        self.remove(&replacement)
            .map_err(at(&replacement, "removing"))?;
        let written = self.write(
            &replacement,
            &kept.rebuild(&read.bytes, self.identity),
            Mutant::ReplacementSync,
        );
        if let Err(source) = written {
            // What was begun would only take space; if even this fails, the next start removes it.
            if let Err(error) = self.remove(&replacement) {
                tracing::warn!(path = %replacement.display(), %error, "a replacement that was begun is still there");
            }
            return Err(at(&replacement, "writing")(source));
        }
        self.drop_indexes(&segment.path)
            .map_err(at(&segment.path, "removing the indexes of"))?;
        self.disk
            .rename(&replacement, &segment.path)
            .map_err(at(&segment.path, "replacing"))?;
        if keeps(Mutant::ReplacementName) {
            self.sync_directory(&self.directory)?;
        }
        Ok(())
    }

    /// Keeps the damaged file as it can be read; durable on return.
    fn copy_aside(&self, bytes: &[u8], path: &Path, aside: &Path) -> Result<(), LogError> {
        let missing = || LogError::Io {
            action: "copying aside",
            path: path.to_owned(),
            source: io::ErrorKind::InvalidInput.into(),
        };
        let directory = aside.join(self.directory.file_name().ok_or_else(missing)?);
        self.disk
            .create_directory(&directory)
            .map_err(at(&directory, "making"))?;
        let copy = directory.join(path.file_name().ok_or_else(missing)?);
        self.write(&copy, bytes, Mutant::AsideSync)
            .map_err(at(&copy, "writing"))?;
        if !keeps(Mutant::AsideSync) {
            return Ok(());
        }
        // The names of the copy, its partition's directory, `aside`, and the directory of all repairs, which may be new.
        for directory in directory.ancestors().take(4) {
            if !directory.as_os_str().is_empty() {
                self.sync_directory(directory)?;
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8], sync: Mutant) -> io::Result<()> {
        let file = self.disk.create(path)?;
        match file.allocate(bytes.len() as u64) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            allocated => allocated?,
        }
        file.write_all_at(bytes, 0)?;
        if keeps(sync) {
            file.sync_data()
        } else {
            Ok(())
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The indexes tell of the damaged file. They verify by themselves, so they must be gone before it is.
    fn drop_indexes(&self, segment: &Path) -> io::Result<()> {
        if !keeps(Mutant::StaleIndexes) {
            return Ok(());
        }
        self.remove(&segment.with_extension("index"))?;
        self.remove(&segment.with_extension("timeindex"))?;
        self.disk.sync_directory(&self.directory)
    }

    fn sync_directory(&self, directory: &Path) -> Result<(), LogError> {
        self.disk
            .sync_directory(directory)
            .map_err(at(directory, "syncing"))
    }
}

fn at(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io {
        action,
        path,
        source,
    }
}

fn known_of(loss: &Loss) -> Vec<KnownLoss> {
    let known = loss.frames.iter().map(|frame| KnownLoss {
        offset: Offset::new(frame.base),
        key: Key::new(frame.key),
        sequence: Some((frame.sequence, frame.records)),
    });
    known.collect()
}

/// Adds what later frames tell of lost ones.
fn add_told(range: &mut LostRange, told: &BTreeMap<u64, Vec<[u8; 16]>>) {
    for (offset, keys) in told.range(range.start.get()..range.end.get()) {
        for key in keys {
            let known = KnownLoss {
                offset: Offset::new(*offset),
                key: Key::new(*key),
                sequence: None,
            };
            let is_known = range
                .known
                .iter()
                .any(|it| (it.offset, it.key) == (known.offset, known.key));
            if !is_known {
                range.known.push(known);
            }
        }
    }
    range.known.sort_by_key(|known| known.offset);
}
