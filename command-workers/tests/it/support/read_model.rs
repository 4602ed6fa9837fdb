//! A read model in memory that is exactly as far as the test has moved it: what a projector would have made of the log.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use order_command_workers::{
    IdempotencyEntry, InheritedKey, OrderSnapshot, SnapshotError, Snapshots,
};
use order_domain::codec::{RecordHeader, decode};
use order_domain::{Idempotency, OrderId, Timestamp, fold};
use order_log::{EventLog, Frame, Offset, PartitionId, PartitionReader, ScanLimit};

#[derive(Debug, Default)]
struct Rows {
    checkpoint: Offset,
    orders: HashMap<OrderId, OrderSnapshot>,
    keys: HashMap<[u8; 16], IdempotencyEntry>,
    /// Orders it cannot answer for.
    set_aside: Vec<OrderId>,
    panics: bool,
}

/// What the read model says of keys that were used before the log was rewritten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Rewritten {
    #[default]
    Never,
    /// The rows do not have them all yet.
    Behind,
    /// Every partition's rows are asked.
    Known,
}

#[derive(Debug)]
pub(crate) struct ReadModel {
    readers: Vec<Box<dyn PartitionReader>>,
    rows: Vec<Mutex<Rows>>,
    rewritten: Mutex<Rewritten>,
}

impl ReadModel {
    pub(crate) fn of(log: &dyn EventLog) -> Arc<Self> {
        let partitions = (0..log.partition_count()).map(PartitionId::new);
        Arc::new(Self {
            readers: partitions
                .map(|partition| log.reader(partition).unwrap())
                .collect(),
            rows: (0..log.partition_count())
                .map(|_| Mutex::default())
                .collect(),
            rewritten: Mutex::default(),
        })
    }

    /// Says from now on that the log was rewritten.
    pub(crate) fn set_rewritten(&self, rewritten: Rewritten) {
        *self.rewritten.lock().unwrap() = rewritten;
    }

    /// Lets the key `was` of a new order be the key `is`, where it is: as a rewritten log has it.
    pub(crate) fn rename_key(&self, partition: u16, was: &str, is: &str) {
        let mut rows = self.rows[usize::from(partition)].lock().unwrap();
        let entry = rows.keys.remove(&Idempotency::digest(was, None));
        rows.keys
            .insert(Idempotency::digest(is, None), entry.unwrap());
    }

    /// The port of one partition.
    pub(crate) fn port(self: &Arc<Self>, partition: PartitionId) -> Box<dyn Snapshots> {
        Box::new(Port {
            model: Arc::clone(self),
            partition: partition.index(),
        })
    }

    /// Applies at most so many frames of a partition; returns the checkpoint.
    pub(crate) fn advance(&self, partition: u16, frames: usize) -> Offset {
        let partition = usize::from(partition);
        let mut rows = self.rows[partition].lock().unwrap();
        let mut left = frames;
        let from = rows.checkpoint;
        let visited = self.readers[partition].scan(from, ScanLimit::NONE, &mut |frame| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            rows.apply(&frame);
            ControlFlow::Continue(())
        });
        visited.unwrap();
        rows.checkpoint
    }

    /// Applies everything.
    pub(crate) fn catch_up(&self) {
        for partition in 0..self.rows.len() {
            self.advance(u16::try_from(partition).unwrap(), usize::MAX);
        }
    }

    /// Is as if only so many frames had ever been applied: an older read model took its place.
    pub(crate) fn go_back_to(&self, partition: u16, frames: usize) {
        *self.rows[usize::from(partition)].lock().unwrap() = Rows::default();
        self.advance(partition, frames);
    }

    pub(crate) fn set_aside(&self, partition: u16, ids: &[OrderId]) {
        self.rows[usize::from(partition)].lock().unwrap().set_aside = ids.to_vec();
    }

    /// Lets every key point at this frame, whichever it is.
    pub(crate) fn lead_keys_astray(&self, partition: u16, frame: Offset) {
        let mut rows = self.rows[usize::from(partition)].lock().unwrap();
        for entry in rows.keys.values_mut() {
            entry.frame = frame;
        }
    }

    pub(crate) fn set_checkpoint(&self, partition: u16, checkpoint: Offset) {
        self.rows[usize::from(partition)].lock().unwrap().checkpoint = checkpoint;
    }

    pub(crate) fn panic_when_asked(&self, partition: u16) {
        self.rows[usize::from(partition)].lock().unwrap().panics = true;
    }
}

impl Rows {
    fn apply(&mut self, frame: &Frame<'_>) {
        let id = OrderId::from_bytes(*frame.key.as_bytes());
        let at = Timestamp::from_micros(frame.appended_at.as_micros());
        let mut order = self.orders.remove(&id).map(|row| row.order);
        let mut used = None;
        for record in frame.records() {
            let header = RecordHeader {
                event_type: record.tag.event_type,
                schema: record.tag.schema,
                codec: record.tag.codec,
            };
            let recorded = decode(header, record.bytes).unwrap();
            fold(&mut order, id, &recorded.event, at).unwrap();
            if let Some(key) = recorded.context.idempotency {
                let scope = (frame.sequence > 1).then_some(id);
                used = Some((Idempotency::digest(&key.key, scope), key.fingerprint));
            }
        }
        let order = order.unwrap();
        if let Some((digest, fingerprint)) = used {
            let entry = IdempotencyEntry {
                fingerprint,
                order_id: id,
                version: order.version,
                frame: frame.base,
            };
            self.keys.insert(digest, entry);
        }
        let last_frame = frame.base;
        self.orders.insert(id, OrderSnapshot { order, last_frame });
        self.checkpoint = frame.end();
    }
}

struct Port {
    model: Arc<ReadModel>,
    partition: usize,
}

impl Snapshots for Port {
    fn checkpoint(&self) -> Offset {
        self.model.rows[self.partition].lock().unwrap().checkpoint
    }

    fn order(&mut self, id: OrderId) -> Result<Option<OrderSnapshot>, SnapshotError> {
        // Copied out first, so that a planned panic leaves the test's own lock in order.
        let (panics, answer) = {
            let rows = self.model.rows[self.partition].lock().unwrap();
            let answer = if rows.set_aside.contains(&id) {
                Err(SnapshotError(format!("order {id} was set aside")))
            } else {
                Ok(rows.orders.get(&id).cloned())
            };
            (rows.panics, answer)
        };
        assert!(!panics, "a planned bug in the read model");
        answer
    }

    fn idempotency(
        &mut self,
        key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyEntry>, SnapshotError> {
        let rows = self.model.rows[self.partition].lock().unwrap();
        Ok(rows.keys.get(&key_digest).copied())
    }

    fn inherited_key(
        &mut self,
        key_digest: [u8; 16],
        _: Timestamp,
    ) -> Result<InheritedKey<'_>, SnapshotError> {
        let found = match *self.model.rewritten.lock().unwrap() {
            Rewritten::Never => None,
            Rewritten::Behind => {
                return Ok(InheritedKey::Behind {
                    partition: PartitionId::new(0),
                    lag_events: 7,
                });
            }
            Rewritten::Known => {
                self.model
                    .rows
                    .iter()
                    .zip(&self.model.readers)
                    .find_map(|(rows, reader)| {
                        let entry = rows.lock().unwrap().keys.get(&key_digest).copied()?;
                        Some((entry, reader.as_ref()))
                    })
            }
        };
        Ok(match found {
            Some((entry, log)) => InheritedKey::Used { entry, log },
            None => InheritedKey::Unused,
        })
    }
}
