//! Looking through a log for the orders that can be told as one. Changes nothing.
//!
//! Memory: about a hundred bytes an order of the log, whatever its history.

use std::collections::HashMap;
use std::ops::ControlFlow;

use anyhow::anyhow;
use order_domain::codec::Codec;
use order_domain::{EventKind, OrderId};
use order_log::{
    AppendTime, EventLog, Frame, Key, Offset, PartitionId, PartitionReader, PayloadFormat,
    ScanLimit,
};

use super::story::{NotRetold, Retold, frame_bytes, retell};
use crate::byte_progress::ByteProgress;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::rewrite::{Fingerprint, event_of};

/// Frames between two looks for Ctrl-C.
const FRAMES_BETWEEN_LOOKS: u64 = 4_096;

/// Which orders may be told as one, beside being closed.
#[derive(Debug)]
pub(super) struct Rules {
    /// The last event was appended before this.
    pub(super) older_than: AppendTime,
    /// No event since then has an idempotency key: its promise is still good, and the answer it promises needs the order's
    /// events.
    pub(super) keys_since: AppendTime,
    /// By partition: the events before this offset were told by the outbox. `None` if that does not count.
    pub(super) told: Option<Vec<Offset>>,
}

/// Closed orders that stay as they are, by the first rule that keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) young: u64,
    pub(super) keyed: u64,
    pub(super) untold: u64,
    pub(super) unclear: u64,
}

/// Bytes of frames, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FrameBytes {
    pub(super) before: u64,
    pub(super) after: u64,
}

/// What becomes of an order's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Kept,
    ToldAsOne,
}

/// What is known of one order.
#[derive(Debug)]
pub(super) struct Standing {
    partition: PartitionId,
    /// Its last frame in the old log.
    pub(super) last: Offset,
    /// Its last frame in the new log, as far as that is written.
    pub(super) written: Offset,
    pub(super) fate: Fate,
    ending: Ending,
    is_old: bool,
    is_told: bool,
    has_key: bool,
}

/// How an order ends, by the kind of its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    Closed,
    /// With a refund: whether of all that was paid, only its events tell.
    Refund,
    /// With a snapshot: it is told as one already.
    Snapshot,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) orders: HashMap<Key, Standing>,
    /// Orders to be told as one, and how many events they have.
    pub(super) chosen: u64,
    pub(super) events: u64,
    pub(super) left: Left,
    pub(super) frame_bytes: FrameBytes,
    /// Of the snapshots that their events come to.
    pub(super) retold: Fingerprint,
}

impl Survey {
    /// Looks through a log.
    ///
    /// # Errors
    /// A failure if an order lost events, which a rewritten log could not say; whatever the log says; Ctrl-C.
    pub(super) fn make(
        log: &dyn EventLog,
        rules: &Rules,
        interrupt: &Interrupt,
    ) -> Result<Self, Failure> {
        let mut survey = Self::default();
        let mut progress = ByteProgress::new("looked through");
        let partitions = (0..log.partition_count()).map(PartitionId::new);
        let readers = partitions.map(|partition| log.reader(partition));
        let readers: Vec<Box<dyn PartitionReader>> = readers.collect::<Result<_, _>>()?;
        for reader in &readers {
            survey.read(reader.as_ref(), rules, interrupt, &mut progress)?;
        }
        progress.end();
        survey.choose(&readers, codec_of(log), interrupt)?;
        Ok(survey)
    }

    /// Notes how each order of a partition stands after its last frame.
    fn read(
        &mut self,
        reader: &dyn PartitionReader,
        rules: &Rules,
        interrupt: &Interrupt,
        progress: &mut ByteProgress,
    ) -> Result<(), Failure> {
        let mut frames = 0_u64;
        let mut stop = None;
        let mut expected = reader.start();
        let partition = reader.partition();
        reader.scan(expected, ScanLimit::NONE, &mut |frame| {
            frames += 1;
            let noted = if frames.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
                interrupt.check()
            } else {
                Ok(())
            };
            let noted = noted
                .and_then(|()| refuse_gap(partition, expected, frame.base))
                .and_then(|()| self.note(partition, &frame, rules));
            expected = frame.end();
            match noted {
                Ok(bytes) => progress.part_done(bytes),
                Err(failure) => {
                    stop = Some(failure);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        stop.map_or(Ok(()), Err)?;
        refuse_gap(partition, expected, reader.durable_end())
    }

    /// Returns about how many bytes the frame has.
    fn note(
        &mut self,
        partition: PartitionId,
        frame: &Frame<'_>,
        rules: &Rules,
    ) -> Result<u64, Failure> {
        let before = self.orders.get(&frame.key);
        if frame.previous != before.map(|standing| standing.last) {
            return Err(anyhow!(
                "order {} lost events: its frame at offset {} of partition {partition} does not follow the one before it, \
                 as after a repair that declared some lost; a rewritten log could not say so",
                OrderId::from_bytes(*frame.key.as_bytes()),
                frame.base
            )
            .into());
        }
        let had_key = before.is_some_and(|standing| standing.has_key);
        let told = rules.told.as_ref();
        let standing = Standing {
            partition,
            last: frame.base,
            written: Offset::ZERO,
            fate: Fate::Kept,
            ending: ending_of(frame),
            is_old: frame.appended_at < rules.older_than,
            is_told: told.is_none_or(|told| frame.end() <= told[partition.index()]),
            has_key: had_key || (frame.appended_at >= rules.keys_since && has_key(frame)),
        };
        self.orders.insert(frame.key, standing);
        let bytes = frame_bytes(frame.records().map(|record| record.bytes.len()));
        self.frame_bytes.before += bytes;
        self.frame_bytes.after += bytes;
        Ok(bytes)
    }

    /// Decides what becomes of each order that may be closed, in the order of the log.
    fn choose(
        &mut self,
        readers: &[Box<dyn PartitionReader>],
        codec: Codec,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let mut candidates: Vec<(PartitionId, Offset, Key)> = self
            .orders
            .iter()
            .filter(|(_, standing)| matches!(standing.ending, Ending::Closed | Ending::Refund))
            .map(|(key, standing)| (standing.partition, standing.last, *key))
            .collect();
        candidates.sort_unstable();
        let mut progress = ByteProgress::new("folded");
        for (number, (partition, last, key)) in (1_u64..).zip(candidates) {
            if number.is_multiple_of(FRAMES_BETWEEN_LOOKS) {
                interrupt.check()?;
            }
            let reader = readers[partition.index()].as_ref();
            let Some(standing) = self.orders.get_mut(&key) else {
                continue;
            };
            let retold = match (kept_by(standing, &mut self.left), standing.ending) {
                (Some(count), Ending::Closed) => {
                    *count += 1;
                    continue;
                }
                // Only its events tell whether a rule keeps it, or it is not closed.
                (Some(count), _) => {
                    if !matches!(retell(reader, key, last, codec)?, Err(NotRetold::Open)) {
                        *count += 1;
                    }
                    continue;
                }
                (None, _) => retell(reader, key, last, codec)?,
            };
            match retold {
                Ok(retold) => {
                    standing.fate = Fate::ToldAsOne;
                    progress.part_done(retold.frame_bytes);
                    self.take(&retold);
                }
                Err(NotRetold::Unclear) => self.left.unclear += 1,
                Err(NotRetold::Open) => {}
            }
        }
        progress.end();
        Ok(())
    }

    fn take(&mut self, retold: &Retold) {
        self.chosen += 1;
        self.events += retold.events;
        self.retold.add(&retold.frame);
        let snapshot = retold.frame.records.iter().map(|(_, bytes)| bytes.len());
        let bytes = &mut self.frame_bytes;
        bytes.after = bytes.after.saturating_sub(retold.frame_bytes) + frame_bytes(snapshot);
    }
}

/// Records that a repair declared lost may have been the last of an order that looks closed without them; the rows may
/// still show them, and rows are made anew from what is written here.
fn refuse_gap(partition: PartitionId, expected: Offset, found: Offset) -> Result<(), Failure> {
    if found <= expected {
        return Ok(());
    }
    Err(anyhow!(
        "a repair declared the records from {expected} to {found} of partition {partition} lost: nobody knows which orders \
         end earlier than they did, and a rewritten log could not say so"
    )
    .into())
}

/// What a log's records are encoded as.
pub(super) fn codec_of(log: &dyn EventLog) -> Codec {
    match log.payload_format() {
        PayloadFormat::Binary => Codec::Bincode,
        PayloadFormat::Json => Codec::Json,
    }
}

/// The count of the first rule that keeps an order as it is.
fn kept_by<'l>(standing: &Standing, left: &'l mut Left) -> Option<&'l mut u64> {
    if !standing.is_old {
        Some(&mut left.young)
    } else if standing.has_key {
        Some(&mut left.keyed)
    } else if !standing.is_told {
        Some(&mut left.untold)
    } else {
        None
    }
}

fn ending_of(frame: &Frame<'_>) -> Ending {
    let last = frame.records().last();
    let kind = last.and_then(|record| EventKind::from_number(record.tag.event_type));
    match kind {
        Some(EventKind::OrderDelivered | EventKind::OrderCancelled) => Ending::Closed,
        Some(EventKind::OrderRefunded) => Ending::Refund,
        Some(EventKind::OrderSnapshot) => Ending::Snapshot,
        Some(
            EventKind::OrderPlaced
            | EventKind::LineAdded
            | EventKind::LineRemoved
            | EventKind::OrderConfirmed
            | EventKind::OrderPaid
            | EventKind::OrderShipped,
        )
        | None => Ending::Open,
    }
}

/// Whether the command that made the frame had an idempotency key. A record that does not decode keeps its order as well:
/// who knows.
fn has_key(frame: &Frame<'_>) -> bool {
    frame.records().next().is_none_or(|record| {
        event_of(record.tag, record.bytes)
            .map_or(true, |recorded| recorded.context.idempotency.is_some())
    })
}
