//! `order-service log repartition`: the same events in another number of partitions.
//!
//! The log is rewritten beside itself, merged by append time, each frame as it is but for its place and its link back.
//! Then it is proven, and switched into place together with the outbox's store, at once ([`crate::staging`]). The read
//! model is moved away with the old log and rebuilt at the next start.
//!
//! The outbox tells nothing twice and leaves nothing out: the cursor of a new partition is behind the last event that was
//! told, and what the cursor passes over untold, because old partitions were not equally far, is kept aside in the
//! outbox's store like an event that is tried again. An order's events stay in their order: they come from one partition,
//! and what was told of it is the beginning.
//!
//! `docs/adr/0012-repartitioning-rewrites-beside.md` says why so.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::anyhow;
use order_domain::OrderId;
use order_log::{EventLog, Offset, PartitionId, ScanLimit};
use order_outbox::OfflineOutbox;
use order_partitioner::Partitioner;

use crate::byte_progress::ByteProgress;
use crate::config::{Config, DataDirectoryFlags};
use crate::data_directory::DataDirectory;
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::{Manifest, Rewritten};
use crate::print;
use crate::rewrite::{Chains, Fingerprint, Merged, NewLog, OwnedFrame, beside};
use crate::staging::Staging;

/// Most events that are kept aside for the outbox. Each is a row of its store, and its order is in its memory.
const HELD_EVENTS_MAX: u64 = 1_000_000;

/// Rewrite the log into another number of partitions; the service must be stopped
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// How many partitions the log is to have
    #[arg(long, value_name = "COUNT")]
    partitions: u16,
    /// Delete the old log in the end instead of keeping it in `before-repartition-…`
    #[arg(long)]
    discard_old: bool,
}

/// Rewrites, proves, switches. Interrupted before the switch it changes nothing and can be run again; interrupted in it,
/// the next start or command finishes it.
///
/// # Errors
/// A usage failure for a count no log can have, a failure naming the process that owns the directory, and one for a log
/// that is damaged or an outbox that is not of this log. Nothing is changed then.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    rewrite(&config, arguments.partitions, arguments.discard_old)
}

fn rewrite(config: &Config, partitions: u16, discard_old: bool) -> Result<(), Failure> {
    let partitioner = Partitioner::new(partitions).ok_or_else(|| {
        usage!(
            "--partitions {partitions}: 1 to {} are possible",
            Partitioner::PARTITIONS_MAX
        )
    })?;
    let directory = DataDirectory::own_existing(&config.data_dir)?;
    engine::refuse_waiting_segments(&directory.path)?;
    let before = &directory.manifest;
    if before.partitions == partitions {
        return print::line(&format!(
            "{} has {partitions} partitions: there is nothing to change",
            directory.path.display()
        ));
    }
    let old = engine::open_read_only(&directory.path, before)?;
    if let Some(damage) = engine::damage(&*old, before) {
        return Err(anyhow!(
            "the log is damaged, and rewriting it would lose what is behind: {damage}; restore it from a backup first"
        )
        .into());
    }
    let as_much_again = beside::file_bytes(&directory.path, before)?;
    beside::refuse_without_space(&directory, as_much_again)?;

    let staging = Staging::begin(&directory.path, "log repartition")?;
    let result = Repartition {
        config,
        directory: &directory,
        partitioner,
        staging: staging.path(),
    }
    .build(&*old);
    drop(old);
    let done = match result {
        Ok(done) => done,
        Err(failure) => {
            staging.abandon();
            return Err(failure);
        }
    };
    let retire = match beside::retire(&directory, "repartition", discard_old) {
        Ok(retire) => retire,
        Err(failure) => {
            staging.abandon();
            return Err(failure);
        }
    };
    let kept = retire.to.clone();
    staging.commit(Some(retire))?;
    print::line(&format!(
        "{} events of {} frames rewritten from {} into {partitions} partitions, and proven; the read model is rebuilt at \
         the next start",
        done.proof.records, done.proof.frames, before.partitions
    ))?;
    if done.held > 0 {
        print::line(&format!(
            "{} events that the outbox has still to tell are kept aside in its store",
            done.held
        ))?;
    }
    if !discard_old {
        print::line(&format!(
            "what was there before is in {}: delete it when all is well",
            directory.path.join(kept).display()
        ))?;
    }
    Ok(())
}

/// What was rewritten.
struct Done {
    proof: Fingerprint,
    /// Events kept aside for the outbox.
    held: u64,
}

struct Repartition<'a> {
    config: &'a Config,
    directory: &'a DataDirectory,
    partitioner: Partitioner,
    staging: &'a Path,
}

/// What the outbox has told, in terms of both logs.
struct Told {
    /// By old partition; `None` without an outbox.
    cursors: Option<Vec<Offset>>,
    /// By new partition: behind the last frame that was told.
    to: Vec<Offset>,
    /// By new partition: frames that were not told.
    not: Vec<HashSet<Offset>>,
}

impl Repartition<'_> {
    fn build(&self, old: &dyn EventLog) -> Result<Done, Failure> {
        let before = &self.directory.manifest;
        let partitions = self.partitioner.partitions();
        let mut after = Manifest {
            log_id: uuid::Uuid::now_v7(),
            partitions,
            ..before.clone()
        };
        let source = &self.config.outbox.source;
        let mut outbox = beside::copy_outbox(self.directory, self.staging, source)?;
        let cursors = outbox.as_ref().map(OfflineOutbox::cursors);
        if let Some(cursors) = &cursors {
            beside::check_cursors(cursors, old)?;
        }
        let mut told = Told {
            cursors,
            to: vec![Offset::ZERO; usize::from(partitions)],
            not: vec![HashSet::new(); usize::from(partitions)],
        };
        let (proof, last_append_us) = self.copy_frames(old, &after, &mut told)?;

        let new = engine::open_read_only(self.staging, &after)?;
        prove(&*new, &proof, self.partitioner)?;
        let mut held = 0;
        if let Some(outbox) = &mut outbox {
            held = hold_untold(outbox, &*new, &told)?;
            outbox.relocate(&told.to)?;
        }
        let ends = new.status();
        after.rewritten = Some(Rewritten {
            at: jiff::Timestamp::now(),
            ends: ends.iter().map(|it| it.durable_end.get()).collect(),
            last_append_us,
            former_log_ids: beside::former_log_ids(before),
        });
        after.write(self.staging)?;
        Ok(Done { proof, held })
    }

    /// Writes every frame where it belongs; returns what was written, and the time of the last one.
    fn copy_frames(
        &self,
        old: &dyn EventLog,
        after: &Manifest,
        told: &mut Told,
    ) -> Result<(Fingerprint, u64), Failure> {
        // Where each frame of the old log went, by partition and offset: 8 bytes a record.
        let mut moved: Vec<Moved> = old
            .status()
            .iter()
            .map(|status| Moved::new(status.start, status.durable_end))
            .collect::<Result<_, _>>()?;
        let mut new = NewLog::create(self.staging, after, self.config.log.segment_bytes_max)?;
        let mut frames = Merged::new(old)?;
        let mut proof = Fingerprint::default();
        let mut last_append_us = 0;
        let mut progress = ByteProgress::new("rewritten");
        while let Some((from, frame)) = frames.next()? {
            let moved = &mut moved[from.index()];
            let to = partition_of(self.partitioner, &frame);
            let previous = frame
                .previous
                .map(|previous| {
                    moved.to(previous).ok_or_else(|| {
                        anyhow!(
                            "order {} lost events: its frame at offset {} of partition {from} follows one at {previous} \
                             that a repair declared lost; a rewritten log could not say so",
                            OrderId::from_bytes(*frame.key.as_bytes()),
                            frame.base
                        )
                    })
                })
                .transpose()?;
            let base = new.append(to, &frame, previous)?;
            moved.note(frame.base, base);
            told.note(from, &frame, to, base);
            proof.add(&frame);
            last_append_us = last_append_us.max(frame.appended_at.as_micros());
            progress.part_done(frame.bytes());
        }
        progress.end();
        new.finish()?;
        Ok((proof, last_append_us))
    }
}

impl Told {
    fn note(&mut self, from: PartitionId, frame: &OwnedFrame, to: PartitionId, base: Offset) {
        let Some(cursors) = &self.cursors else { return };
        if frame.end <= cursors[from.index()] {
            let records = frame.end.get() - frame.base.get();
            self.to[to.index()] = base.plus(records);
        } else {
            self.not[to.index()].insert(base);
        }
    }
}

/// Where the frames of one old partition went.
struct Moved {
    start: u64,
    to: Vec<u64>,
}

impl Moved {
    const NOWHERE: u64 = u64::MAX;

    fn new(start: Offset, end: Offset) -> anyhow::Result<Self> {
        let records = usize::try_from(end.get() - start.get())?;
        Ok(Self {
            start: start.get(),
            to: vec![Self::NOWHERE; records],
        })
    }

    fn index(&self, offset: Offset) -> Option<usize> {
        usize::try_from(offset.get().checked_sub(self.start)?).ok()
    }

    fn note(&mut self, from: Offset, to: Offset) {
        if let Some(place) = self.index(from).and_then(|at| self.to.get_mut(at)) {
            *place = to.get();
        }
    }

    fn to(&self, from: Offset) -> Option<Offset> {
        let to = *self.to.get(self.index(from)?)?;
        (to != Self::NOWHERE).then_some(Offset::new(to))
    }
}

fn partition_of(partitioner: Partitioner, frame: &OwnedFrame) -> PartitionId {
    let id = OrderId::from_bytes(*frame.key.as_bytes());
    PartitionId::new(partitioner.partition_of(id.text(&mut [0; 36]).as_bytes()))
}

/// Reads the new log back and holds it against what was written into it: the same frames, each in its partition, every
/// order's in their order.
fn prove(
    new: &dyn EventLog,
    written: &Fingerprint,
    partitioner: Partitioner,
) -> Result<(), Failure> {
    let mut found = Fingerprint::default();
    let mut progress = ByteProgress::new("proven");
    for partition in (0..new.partition_count()).map(PartitionId::new) {
        let reader = new.reader(partition)?;
        let mut chains = Chains::default();
        let mut wrong = None;
        reader.scan(reader.start(), ScanLimit::NONE, &mut |frame| {
            let frame = OwnedFrame::of(&frame);
            found.add(&frame);
            progress.part_done(frame.bytes());
            let at_home = partition_of(partitioner, &frame) == partition;
            wrong = match chains.follow(&frame) {
                Err(error) => Some(error),
                Ok(()) if !at_home => {
                    Some(anyhow!("the frame at {} belongs elsewhere", frame.base))
                }
                Ok(()) => return ControlFlow::Continue(()),
            };
            ControlFlow::Break(())
        })?;
        if let Some(error) = wrong {
            return Err(error
                .context(format!("the new log is wrong in partition {partition}"))
                .into());
        }
    }
    progress.end();
    if found == *written {
        return Ok(());
    }
    Err(
        anyhow!("the new log does not say what the old one says: {found:?}, not {written:?}")
            .into(),
    )
}

/// Keeps aside what the new cursors pass over and nobody told; returns how many events that is.
fn hold_untold(
    outbox: &mut OfflineOutbox,
    new: &dyn EventLog,
    told: &Told,
) -> Result<u64, Failure> {
    let mut held = 0;
    for (index, not_told) in told.not.iter().enumerate() {
        let cursor = told.to[index];
        let Some(first) = not_told.iter().min().filter(|first| **first < cursor) else {
            continue;
        };
        let partition = PartitionId::new(u16::try_from(index)?);
        let limit = ScanLimit {
            until: cursor,
            ..ScanLimit::NONE
        };
        let mut failed = None;
        new.reader(partition)?.scan(*first, limit, &mut |frame| {
            if not_told.contains(&frame.base) {
                held += frame.len();
                failed = outbox.hold(partition, &frame).err();
            }
            if failed.is_some() || held > HELD_EVENTS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if held > HELD_EVENTS_MAX {
            return Err(anyhow!(
                "the outbox is more than {HELD_EVENTS_MAX} events further in one partition than in another: start the \
                 service, let it tell them, and run this again; nothing was changed"
            )
            .into());
        }
    }
    Ok(held)
}

#[cfg(test)]
#[path = "repartition_tests.rs"]
mod tests;
