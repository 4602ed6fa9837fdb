//! The compacted log, made beside the old one and held against it.

use std::path::Path;

use anyhow::anyhow;
use order_domain::codec::Codec;
use order_domain::{Life, OrderId};
use order_log::{EventLog, Offset, PartitionId, PartitionReader};
use order_outbox::OfflineOutbox;

use super::story::{fold, retell, snapshot_frame};
use super::survey::{Fate, Survey, codec_of};
use crate::byte_progress::ByteProgress;
use crate::config::Config;
use crate::data_directory::DataDirectory;
use crate::engine;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::manifest::{FORMAT_COMPACTED, Manifest, Rewritten};
use crate::rewrite::{Chains, Fingerprint, Merged, NewLog, OwnedFrame, beside};

/// Frames between two looks for Ctrl-C.
const FRAMES_BETWEEN_LOOKS: u64 = 4_096;

pub(super) struct Rewriting<'a> {
    pub(super) config: &'a Config,
    pub(super) directory: &'a DataDirectory,
    pub(super) staging: &'a Path,
    pub(super) interrupt: &'a Interrupt,
}

/// What was made.
pub(super) struct Done {
    /// What the events of the new log take in its files.
    pub(super) bytes: u64,
}

/// Places of the old log, by partition, and where they are in the new one: behind the last frame that was before them.
struct Places {
    old: Vec<Offset>,
    new: Vec<Offset>,
}

impl Places {
    fn new(old: Vec<Offset>) -> Self {
        Self {
            new: vec![Offset::ZERO; old.len()],
            old,
        }
    }

    /// A frame that ended at `from` was written up to `to`.
    fn note(&mut self, partition: PartitionId, from: Offset, to: Offset) {
        if from <= self.old[partition.index()] {
            self.new[partition.index()] = to;
        }
    }
}

impl Rewriting<'_> {
    /// Makes all that is switched to.
    ///
    /// # Errors
    /// Whatever the log or a store says; a new log that is not what it should be; Ctrl-C.
    pub(super) fn build(&self, old: &dyn EventLog, survey: &mut Survey) -> Result<Done, Failure> {
        let before = &self.directory.manifest;
        let mut after = Manifest {
            format: FORMAT_COMPACTED,
            log_id: uuid::Uuid::now_v7(),
            ..before.clone()
        };
        let source = &self.config.outbox.source;
        let mut outbox = beside::copy_outbox(self.directory, self.staging, source)?;
        let cursors = outbox.as_ref().map(OfflineOutbox::cursors);
        if let Some(cursors) = &cursors {
            beside::check_cursors(cursors, old)?;
        }
        let nowhere = || vec![Offset::ZERO; usize::from(before.partitions)];
        let mut told = Places::new(cursors.unwrap_or_else(nowhere));
        // Keys of orders that an earlier rewriting moved are looked for in all partitions before these.
        let inherited = before.rewritten.as_ref();
        let ends = inherited.map(|it| it.ends.iter().copied().map(Offset::new).collect());
        let mut ends = Places::new(ends.unwrap_or_else(nowhere));

        let kept = self.copy_frames(old, &after, survey, |partition, from, to| {
            told.note(partition, from, to);
            ends.note(partition, from, to);
        })?;
        let new = engine::open_read_only(self.staging, &after)?;
        self.prove(&*new, survey, &kept)?;
        drop(new);
        if let Some(outbox) = &mut outbox {
            outbox.relocate(&told.new)?;
        }
        after.rewritten = Some(Rewritten {
            at: jiff::Timestamp::now(),
            ends: ends.new.iter().map(|end| end.get()).collect(),
            last_append_us: inherited.map_or(0, |it| it.last_append_us),
            former_log_ids: beside::former_log_ids(before),
        });
        after.write(self.staging)?;
        Ok(Done {
            bytes: beside::used_bytes(self.staging, &after)?,
        })
    }

    /// Writes the new log; returns what of it was in the old one. `wrote` is told of each frame's end in both.
    fn copy_frames(
        &self,
        old: &dyn EventLog,
        after: &Manifest,
        survey: &mut Survey,
        mut wrote: impl FnMut(PartitionId, Offset, Offset),
    ) -> Result<Fingerprint, Failure> {
        let codec = codec_of(old);
        let readers = (0..old.partition_count()).map(|it| old.reader(PartitionId::new(it)));
        let readers: Vec<Box<dyn PartitionReader>> = readers.collect::<Result<_, _>>()?;
        let mut new = NewLog::create(self.staging, after, self.config.log.segment_bytes_max)?;
        let mut frames = Merged::new(old)?;
        let mut kept = Fingerprint::default();
        let mut progress = ByteProgress::new("rewritten");
        let mut count = 0_u64;
        while let Some((partition, frame)) = frames.next()? {
            count += 1;
            if count.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
                self.interrupt.check()?;
            }
            progress.part_done(frame.bytes());
            let standing = survey.orders.get_mut(&frame.key);
            let standing = standing.ok_or_else(|| anyhow!("the log grew while it was read"))?;
            let written = match standing.fate {
                Fate::Kept => {
                    let previous = frame.previous.map(|_| standing.written);
                    kept.add(&frame);
                    standing.written = new.append(partition, &frame, previous)?;
                    standing.written.plus(frame.records.len() as u64)
                }
                Fate::ToldAsOne if frame.base == standing.last => {
                    let reader = readers[partition.index()].as_ref();
                    let retold = retell(reader, frame.key, frame.base, codec)?;
                    let retold =
                        retold.map_err(|_| anyhow!("the log changed while it was read"))?;
                    new.append(partition, &retold.frame, None)?.plus(1)
                }
                Fate::ToldAsOne => continue,
            };
            wrote(partition, frame.end, written);
        }
        progress.end();
        new.finish()?;
        Ok(kept)
    }

    /// Reads the new log back: every frame of an order that was kept as it was, one snapshot of every other, and what that
    /// folds to is what its events folded to.
    fn prove(
        &self,
        new: &dyn EventLog,
        survey: &Survey,
        kept: &Fingerprint,
    ) -> Result<(), Failure> {
        let codec = codec_of(new);
        let (mut found_kept, mut found_retold) = (Fingerprint::default(), Fingerprint::default());
        let mut chains: Vec<Chains> = Vec::new();
        chains.resize_with(usize::from(new.partition_count()), Chains::default);
        let partitioner = self.directory.manifest.partitioner()?;
        let mut frames = Merged::new(new)?;
        let mut progress = ByteProgress::new("proven");
        let mut count = 0_u64;
        while let Some((partition, frame)) = frames.next()? {
            count += 1;
            if count.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
                self.interrupt.check()?;
            }
            let id = OrderId::from_bytes(*frame.key.as_bytes());
            let wrong = |error: anyhow::Error| {
                error.context(format!("the new log is wrong in partition {partition}"))
            };
            chains[partition.index()].follow(&frame).map_err(wrong)?;
            let home = partitioner.partition_of(id.text(&mut [0; 36]).as_bytes());
            if home != partition.get() {
                return Err(wrong(anyhow!("order {id} belongs in partition {home}")).into());
            }
            let fate = survey.orders.get(&frame.key).map(|standing| standing.fate);
            if fate == Some(Fate::ToldAsOne) {
                found_retold.add(&folded_again(&frame, id, codec).map_err(wrong)?);
            } else {
                found_kept.add(&frame);
            }
            progress.part_done(frame.bytes());
        }
        progress.end();
        if found_kept == *kept && found_retold == survey.retold {
            return Ok(());
        }
        Err(anyhow!(
            "the new log does not say what the old one says: {found_kept:?} and {found_retold:?}, not {kept:?} and {:?}",
            survey.retold
        )
        .into())
    }
}

/// The snapshot of what a snapshot folds to.
fn folded_again(frame: &OwnedFrame, id: OrderId, codec: Codec) -> anyhow::Result<OwnedFrame> {
    let mut life = Life::new(id);
    fold(&mut life, frame)?;
    snapshot_frame(&life, frame.base, codec).ok_or_else(|| anyhow!("order {id} has no snapshot"))
}
