//! The command workers' view of the read model: the port of the one room, answered by the other.

use std::cell::Cell;
use std::sync::Arc;

use std::time::Duration;

use order_command_workers::{
    IdempotencyEntry, InheritedKey, OrderSnapshot, SnapshotError, Snapshots,
};
use order_domain::{OrderId, Timestamp};
use order_log::{EventLog, LogError, Offset, PartitionId, PartitionReader};
use order_projector_workers::{
    Checkpoints, IdempotencyRow, Projection, ReadModelError, ReadModelReader,
};

use crate::manifest::Rewritten;

/// How often a read is tried again because another process put other rows in the place of those that were read.
const READS_MAX: usize = 4;

/// One partition's rows and checkpoint.
#[derive(Debug)]
pub(crate) struct ReadModelSnapshots {
    partition: PartitionId,
    /// The checkpoint the command worker was told last: it forgot what is before it.
    told: Cell<Offset>,
    checkpoints: Arc<Checkpoints>,
    reader: ReadModelReader,
    inherited: Option<Arc<InheritedKeys>>,
}

/// Where the keys are that were used before the log was rewritten: in whatever partition, before these ends. Once the
/// read model has passed them everywhere, it knows all of these keys.
#[derive(Debug)]
pub(crate) struct InheritedKeys {
    ends: Vec<Offset>,
    /// Of the last event: the keys are forgotten when it is older than they are remembered.
    last_append: Timestamp,
    retention: Duration,
    log: Vec<Box<dyn PartitionReader>>,
}

impl InheritedKeys {
    /// # Errors
    /// Whatever the log says.
    pub(crate) fn new(
        rewritten: &Rewritten,
        retention: Duration,
        log: &dyn EventLog,
    ) -> Result<Self, LogError> {
        let readers = (0..log.partition_count()).map(|it| log.reader(PartitionId::new(it)));
        Ok(Self {
            ends: rewritten.ends.iter().copied().map(Offset::new).collect(),
            last_append: Timestamp::from_micros(rewritten.last_append_us),
            retention,
            log: readers.collect::<Result<_, _>>()?,
        })
    }

    fn are_forgotten(&self, at: Timestamp) -> bool {
        let age_us = at.as_micros().saturating_sub(self.last_append.as_micros());
        u128::from(age_us) > self.retention.as_micros()
    }

    /// A partition in which the read model does not know all keys yet, and how far it is behind there.
    fn behind(&self, checkpoints: &Checkpoints) -> Option<(PartitionId, u64)> {
        self.log.iter().zip(&self.ends).find_map(|(log, end)| {
            let partition = log.partition();
            let checkpoint = checkpoints.load(Projection::Orders, partition);
            (checkpoint < *end).then(|| (partition, end.get() - checkpoint.get()))
        })
    }
}

impl ReadModelSnapshots {
    pub(crate) fn new(
        partition: PartitionId,
        checkpoints: Arc<Checkpoints>,
        reader: ReadModelReader,
        inherited: Option<Arc<InheritedKeys>>,
    ) -> Self {
        Self {
            partition,
            told: Cell::new(Offset::ZERO),
            checkpoints,
            reader,
            inherited,
        }
    }

    /// Reads rows that hold what the worker relies on. If another process replaced them, they are read again, in the
    /// hope that they have caught up by then.
    fn read<T>(
        &mut self,
        read: impl Fn(&mut ReadModelReader, PartitionId) -> Result<T, ReadModelError>,
    ) -> Result<T, SnapshotError> {
        self.reader.rely_on(self.partition, self.told.get());
        for _ in 1..READS_MAX {
            match read(&mut self.reader, self.partition) {
                Err(ReadModelError::Replaced { .. }) => {}
                done => return done.map_err(unreadable),
            }
        }
        read(&mut self.reader, self.partition).map_err(unreadable)
    }
}

fn entry_of(row: IdempotencyRow) -> IdempotencyEntry {
    IdempotencyEntry {
        fingerprint: row.fingerprint,
        order_id: row.order_id,
        version: row.version,
        frame: row.frame,
    }
}

fn unreadable(error: ReadModelError) -> SnapshotError {
    SnapshotError(error.to_string())
}

impl Snapshots for ReadModelSnapshots {
    fn checkpoint(&self) -> Offset {
        let checkpoint = self.checkpoints.load(Projection::Orders, self.partition);
        self.told.set(checkpoint);
        checkpoint
    }

    fn order(&mut self, id: OrderId) -> Result<Option<OrderSnapshot>, SnapshotError> {
        // Never a row that lacks events before the checkpoint: a decision on it would repeat versions of the order.
        let row = self.read(|reader, partition| reader.snapshot(partition, id))?;
        row.map(|row| {
            let order = row.to_order().map_err(unreadable)?;
            Ok(OrderSnapshot {
                order,
                last_frame: row.last_frame,
            })
        })
        .transpose()
    }

    fn idempotency(
        &mut self,
        key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyEntry>, SnapshotError> {
        let row = self.read(|reader, partition| reader.idempotency(partition, key_digest))?;
        Ok(row.map(entry_of))
    }

    fn inherited_key(
        &mut self,
        key_digest: [u8; 16],
        at: Timestamp,
    ) -> Result<InheritedKey<'_>, SnapshotError> {
        let Some(inherited) = &self.inherited else {
            return Ok(InheritedKey::Unused);
        };
        if inherited.are_forgotten(at) {
            return Ok(InheritedKey::Unused);
        }
        let found = self
            .reader
            .idempotency_anywhere(key_digest)
            .map_err(unreadable)?;
        // After the look: an older read model may have taken the place of the one that was far enough.
        if let Some((partition, lag_events)) = inherited.behind(&self.checkpoints) {
            return Ok(InheritedKey::Behind {
                partition,
                lag_events,
            });
        }
        let used = found.and_then(|(partition, row)| {
            let log = inherited.log.get(partition.index())?;
            Some(InheritedKey::Used {
                entry: entry_of(row),
                log: log.as_ref(),
            })
        });
        Ok(used.unwrap_or(InheritedKey::Unused))
    }
}
