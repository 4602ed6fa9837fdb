//! What a partition's worker knows of orders and idempotency keys: from memory, else from the read model, else from the
//! log.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use order_domain::{Order, OrderId, Timestamp};
use order_log::{Frame, LogError, Offset, PartitionId, PartitionReader, ScanLimit};

use crate::hash::RandomKeys;
use crate::history::{fold_frame, order_after, visit_frame};
use crate::tail::{KeyDigest, OrderTail, Tail};
use crate::{CommandError, IdempotencyEntry, InheritedKey, SnapshotError, Snapshots};

pub(crate) struct Knowledge {
    partition: PartitionId,
    retention_us: u64,
    lag_events_max: u64,
    snapshots: Box<dyn Snapshots>,
    reader: Box<dyn PartitionReader>,
    pub(crate) tail: Tail,
    /// Orders that could not be brought up to date when the log was read: the last frame that is missing. Refused until
    /// the read model has that frame.
    unread: HashMap<OrderId, Offset, RandomKeys>,
    /// Where the open batch starts: whatever ends beyond is not in the log yet.
    start: Offset,
    /// The present, as far as the open batch is concerned.
    at: Timestamp,
}

/// An order as a command finds it.
pub(crate) struct Found {
    pub(crate) order: Arc<Order>,
    pub(crate) last_frame: Offset,
    /// Whether a command of the open batch made it what it is.
    pub(crate) unsynced: bool,
}

/// What an idempotency key stands for.
pub(crate) enum KeyUse {
    Unused,
    OtherRequest {
        unsynced: bool,
    },
    SameRequest {
        order: Arc<Order>,
        /// Where the order is: elsewhere if the log was rewritten since.
        partition: PartitionId,
        end: Offset,
        unsynced: bool,
    },
}

impl Knowledge {
    pub(crate) fn new(
        partition: PartitionId,
        retention_us: u64,
        lag_events_max: u64,
        snapshots: Box<dyn Snapshots>,
        reader: Box<dyn PartitionReader>,
    ) -> Self {
        Self {
            partition,
            retention_us,
            lag_events_max,
            snapshots,
            reader,
            tail: Tail::default(),
            unread: HashMap::default(),
            start: Offset::ZERO,
            at: Timestamp::default(),
        }
    }

    /// The read model's checkpoint.
    pub(crate) fn checkpoint(&self) -> Offset {
        self.snapshots.checkpoint()
    }

    /// How far the read model may be behind, in records.
    pub(crate) fn lag_events_max(&self) -> u64 {
        self.lag_events_max
    }

    /// The refusal of commands that would run too far ahead of a read model at `checkpoint`.
    pub(crate) fn behind(&self, checkpoint: Offset, end: Offset) -> CommandError {
        CommandError::ProjectorBehind {
            partition: self.partition,
            lag_events: lag(checkpoint, end),
            lag_events_max: self.lag_events_max,
        }
    }

    /// Offset after the last record that can be read back.
    pub(crate) fn durable_end(&self) -> Offset {
        self.reader.durable_end()
    }

    /// Everything before this offset may have been forgotten: the read model must not go back behind it.
    pub(crate) fn evicted_to(&self) -> Offset {
        self.tail.evicted_to()
    }

    /// Forgets everything and reads the log from the checkpoint to its end.
    ///
    /// An order that cannot be brought up to date does not keep the others from being served: see
    /// [`Knowledge::find`].
    pub(crate) fn load(&mut self, checkpoint: Offset) -> Result<(), LogError> {
        self.tail = Tail::at(checkpoint);
        self.unread.clear();
        let Self {
            partition,
            snapshots,
            reader,
            tail,
            unread,
            ..
        } = self;
        reader.scan(checkpoint, ScanLimit::NONE, &mut |frame| {
            if let Err(cause) = recall(snapshots.as_mut(), tail, unread, &frame) {
                let id = OrderId::from_bytes(*frame.key.as_bytes());
                tracing::error!(%partition, order = %id, offset = %frame.base, cause, "commands on this order are refused: it cannot be brought up to date");
                unread.insert(id, frame.base);
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// A batch begins at the log's end.
    pub(crate) fn open_batch(&mut self, end: Offset, at: Timestamp) {
        self.start = end;
        self.at = at;
    }

    /// The order as the command finds it: from memory, else from the read model.
    pub(crate) fn find(&mut self, id: OrderId) -> Result<Option<Found>, CommandError> {
        if let Some(tail) = self.tail.order(id) {
            return Ok(Some(Found {
                order: Arc::clone(&tail.order),
                last_frame: tail.last_frame,
                unsynced: tail.end > self.start,
            }));
        }
        let snapshot = self
            .snapshots
            .order(id)
            .map_err(|error| self.unreadable(&error))?;
        self.check_model()?;
        if let Some(missing) = self.unread.get(&id) {
            let last = snapshot.as_ref().map(|snapshot| snapshot.last_frame);
            if last.is_none_or(|last| last < *missing) {
                return Err(self.internal(format!(
                    "order {id} cannot be brought up to date: the read model does not have its frame at offset {missing}"
                )));
            }
        }
        Ok(snapshot.map(|snapshot| Found {
            order: Arc::new(snapshot.order),
            last_frame: snapshot.last_frame,
            unsynced: false,
        }))
    }

    /// What the command's idempotency key was used for. `is_new` says that the command places an order: the key of such a
    /// one may have been used in another partition, before the log was rewritten.
    pub(crate) fn key_use(
        &mut self,
        digest: KeyDigest,
        fingerprint: Option<[u8; 16]>,
        is_new: bool,
    ) -> Result<KeyUse, CommandError> {
        match self.key_use_here(digest, fingerprint)? {
            KeyUse::Unused if is_new => self.key_use_before(digest, fingerprint),
            known => Ok(known),
        }
    }

    fn key_use_here(
        &mut self,
        digest: KeyDigest,
        fingerprint: Option<[u8; 16]>,
    ) -> Result<KeyUse, CommandError> {
        if let Some(key) = self.tail.key(digest) {
            let unsynced = key.end > self.start;
            return Ok(if self.is_expired(key.used_at()) {
                KeyUse::Unused
            } else if Some(key.fingerprint) == fingerprint {
                KeyUse::SameRequest {
                    order: Arc::clone(&key.order),
                    partition: self.partition,
                    end: key.end,
                    unsynced,
                }
            } else {
                KeyUse::OtherRequest { unsynced }
            });
        }
        let entry = self
            .snapshots
            .idempotency(digest)
            .map_err(|error| self.unreadable(&error))?;
        self.check_model()?;
        let Some(entry) = entry else {
            return Ok(KeyUse::Unused);
        };
        use_of(
            &entry,
            self.reader.as_ref(),
            fingerprint,
            self.at,
            self.retention_us,
        )
        .map_err(|cause| self.internal(cause))
    }

    /// What the key was used for before the log was rewritten.
    fn key_use_before(
        &mut self,
        digest: KeyDigest,
        fingerprint: Option<[u8; 16]>,
    ) -> Result<KeyUse, CommandError> {
        let (at, retention_us, lag_events_max) = (self.at, self.retention_us, self.lag_events_max);
        let partition = self.partition;
        let internal = |cause: String| CommandError::Internal { partition, cause };
        match self.snapshots.inherited_key(digest, at) {
            Ok(InheritedKey::Unused) => Ok(KeyUse::Unused),
            Ok(InheritedKey::Behind {
                partition,
                lag_events,
            }) => Err(CommandError::ProjectorBehind {
                partition,
                lag_events,
                lag_events_max,
            }),
            Ok(InheritedKey::Used { entry, log }) => {
                use_of(&entry, log, fingerprint, at, retention_us).map_err(internal)
            }
            Err(error) => Err(internal(error.to_string())),
        }
    }

    /// To be called after the read model was read. If an older one took its place, the answer may have been the older
    /// one's, and it lacks what was forgotten on the word of the newer; the older checkpoint was told before.
    fn check_model(&self) -> Result<(), CommandError> {
        let checkpoint = self.snapshots.checkpoint();
        if checkpoint < self.tail.evicted_to() {
            return Err(self.behind(checkpoint, self.start));
        }
        Ok(())
    }

    fn is_expired(&self, used_at: Timestamp) -> bool {
        is_expired(used_at, self.at, self.retention_us)
    }

    fn unreadable(&self, error: &SnapshotError) -> CommandError {
        self.internal(error.to_string())
    }

    pub(crate) fn internal(&self, cause: String) -> CommandError {
        CommandError::Internal {
            partition: self.partition,
            cause,
        }
    }
}

fn is_expired(used_at: Timestamp, at: Timestamp, retention_us: u64) -> bool {
    at.as_micros().saturating_sub(used_at.as_micros()) > retention_us
}

/// What an entry of the read model stands for. It says where; when, and how the order was then, is in the log.
fn use_of(
    entry: &IdempotencyEntry,
    log: &dyn PartitionReader,
    fingerprint: Option<[u8; 16]>,
    at: Timestamp,
    retention_us: u64,
) -> Result<KeyUse, String> {
    let visited = visit_frame(log, entry.frame, |frame| (frame.end(), frame.appended_at));
    let (end, used_at) = visited.map_err(|error| error.to_string())?;
    if is_expired(
        Timestamp::from_micros(used_at.as_micros()),
        at,
        retention_us,
    ) {
        return Ok(KeyUse::Unused);
    }
    if Some(entry.fingerprint) != fingerprint {
        return Ok(KeyUse::OtherRequest { unsynced: false });
    }
    let order = order_after(log, entry.order_id, entry.frame).map_err(|error| error.to_string())?;
    if order.version != entry.version {
        return Err(format!(
            "order {} has version {} after the frame at offset {}, the read model says {}",
            entry.order_id, order.version, entry.frame, entry.version
        ));
    }
    Ok(KeyUse::SameRequest {
        order: Arc::new(order),
        partition: log.partition(),
        end,
        unsynced: false,
    })
}

/// How far a read model at `checkpoint` is behind a log that ends at `end`, in records.
pub(crate) fn lag(checkpoint: Offset, end: Offset) -> u64 {
    end.get().saturating_sub(checkpoint.get())
}

/// Folds a frame of the log onto what is in memory, or on the read model's row of the order.
fn recall(
    snapshots: &mut dyn Snapshots,
    tail: &mut Tail,
    unread: &mut HashMap<OrderId, Offset, RandomKeys>,
    frame: &Frame<'_>,
) -> Result<(), String> {
    let id = OrderId::from_bytes(*frame.key.as_bytes());
    if let Some(missing) = unread.get_mut(&id) {
        *missing = frame.base;
        return Ok(());
    }
    let mut order = match tail.order(id) {
        Some(tail) => Some(Order::clone(&tail.order)),
        // It begins the order, by placing it or as the snapshot of what is no more.
        None if frame.previous.is_none() => None,
        None => snapshots
            .order(id)
            .map_err(|error| error.to_string())?
            .map(|snapshot| snapshot.order),
    };
    if let Some(order) = &order {
        let version = order.version.get();
        // The read model goes on while the log is read: what its row has is behind its present checkpoint, with its key.
        if version >= frame.sequence {
            return Ok(());
        }
        if version + 1 != frame.sequence {
            return Err(goes_on_with(version, frame));
        }
    } else if frame.previous.is_some() {
        return Err(goes_on_with(0, frame));
    }
    let key = fold_frame(&mut order, id, frame).map_err(|error| error.to_string())?;
    let order = order.ok_or("the frame has no record")?;
    if u64::from(order.version.get()) + 1 != u64::from(frame.sequence) + frame.len() {
        return Err(format!(
            "it has version {} after a frame that begins with {}",
            order.version, frame.sequence
        ));
    }
    let after = OrderTail {
        order: Arc::new(order),
        last_frame: frame.base,
        end: frame.end(),
    };
    tail.write(after, key);
    tail.keep();
    Ok(())
}

fn goes_on_with(version: u32, frame: &Frame<'_>) -> String {
    format!(
        "it has version {version}, the log goes on with {}",
        frame.sequence
    )
}
