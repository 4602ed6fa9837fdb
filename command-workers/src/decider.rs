//! One partition's decisions: what a command finds, what it does, what it is answered. Knows no threads and no queue.
//!
//! Commands of one batch build on each other before anything of them is in the log. So a decision says whether its
//! answer may go at once or has to wait for the append: everything that was read from a frame of the open batch has to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use order_domain::codec::{Codec, encode};
use order_domain::{
    Event, EventContext, Idempotency, Order, OrderId, Rejection, Timestamp, Version, decide_owned,
    fold_owned,
};
use order_log::{
    AppendTime, Batch, Frame, LogError, Offset, PartitionId, PartitionReader, PayloadFormat,
    RecordTag, ScanLimit,
};

use crate::hash::RandomKeys;
use crate::history::{fold_frame, key_of, order_after, visit_frame};
use crate::tail::{KeyDigest, OrderTail, Tail};
use crate::{
    CommandError, CommandOutcome, CommandRequest, IdempotencyRequest, Position, SnapshotError,
    Snapshots, Target,
};

/// What a command is answered.
pub(crate) type Answer = Result<CommandOutcome, CommandError>;

/// An answer, and when it may be given.
#[derive(Debug)]
pub(crate) enum Decision {
    /// It stands whatever becomes of the open batch.
    Now(Answer),
    /// It is true only if the open batch gets into the log.
    AfterAppend(Answer),
}

/// A command with what the submitter worked out for it.
#[derive(Debug)]
pub(crate) struct Work {
    /// The order; made by the submitter if it is new.
    pub(crate) id: OrderId,
    /// What the idempotency key, if there is one, is looked up by.
    pub(crate) key: Option<KeyDigest>,
    pub(crate) request: CommandRequest,
}

pub(crate) struct Decider {
    partition: PartitionId,
    codec: Codec,
    retention_us: u64,
    lag_events_max: u64,
    snapshots: Box<dyn Snapshots>,
    reader: Box<dyn PartitionReader>,
    tail: Tail,
    /// Orders that could not be brought up to date when the log was read: the last frame that is missing. Refused until
    /// the read model has that frame.
    unread: HashMap<OrderId, Offset, RandomKeys>,
    batch: Batch,
    /// The events of the frame at hand, encoded one behind the other, and what and where each is. They reach the batch
    /// only when they are known to fold.
    encoded: Vec<u8>,
    records: Vec<(RecordTag, usize)>,
    /// Where the open batch starts: whatever ends beyond is not in the log yet.
    start: Offset,
    /// Append time of the open batch's frames.
    at: Timestamp,
}

/// What a request says of itself, beside what it wants.
struct Origin<'a> {
    idempotency: Option<&'a IdempotencyRequest>,
    traceparent: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl<'a> Origin<'a> {
    fn fingerprint(&self) -> Option<[u8; 16]> {
        self.idempotency.map(|request| request.fingerprint)
    }

    fn context(&self) -> EventContext<'a> {
        EventContext {
            idempotency: self.idempotency.map(|request| Idempotency {
                key: Cow::Borrowed(&request.key),
                fingerprint: request.fingerprint,
            }),
            traceparent: self.traceparent.map(Cow::Borrowed),
            request_id: self.request_id.map(Cow::Borrowed),
        }
    }
}

/// An order as a command finds it.
struct Found {
    order: Arc<Order>,
    last_frame: Offset,
    /// Whether a command of the open batch made it what it is.
    unsynced: bool,
}

/// What an idempotency key stands for.
enum KeyUse {
    Unused,
    OtherRequest {
        unsynced: bool,
    },
    SameRequest {
        order: Arc<Order>,
        end: Offset,
        unsynced: bool,
    },
}

impl Decider {
    pub(crate) fn new(
        partition: PartitionId,
        format: PayloadFormat,
        retention_us: u64,
        lag_events_max: u64,
        snapshots: Box<dyn Snapshots>,
        reader: Box<dyn PartitionReader>,
    ) -> Self {
        Self {
            partition,
            codec: match format {
                PayloadFormat::Binary => Codec::Bincode,
                PayloadFormat::Json => Codec::Json,
            },
            retention_us,
            lag_events_max,
            snapshots,
            reader,
            tail: Tail::default(),
            unread: HashMap::default(),
            batch: Batch::new(),
            encoded: Vec::new(),
            records: Vec::new(),
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
    /// [`Decider::find`].
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

    /// Begins a batch at the log's end, after forgetting what the read model holds.
    pub(crate) fn open_batch(&mut self, checkpoint: Offset, end: Offset, at: Timestamp) {
        self.tail.evict(checkpoint);
        self.batch.start_at(end);
        self.start = end;
        self.at = at;
    }

    /// The frames of the open batch.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The open batch is in the log.
    pub(crate) fn keep_batch(&mut self) {
        self.tail.keep();
    }

    /// The open batch is not in the log, and nothing in memory may come from it.
    pub(crate) fn roll_back_batch(&mut self) {
        self.tail.roll_back();
        self.batch.start_at(self.start);
    }

    /// Decides one command, adding its frame to the open batch if it is accepted.
    pub(crate) fn decide(&mut self, work: Work) -> Decision {
        self.try_decide(work)
            .unwrap_or_else(|error| Decision::Now(Err(error)))
    }

    fn try_decide(&mut self, work: Work) -> Result<Decision, CommandError> {
        let Work { id, key, request } = work;
        let CommandRequest {
            target,
            command,
            expected,
            idempotency,
            traceparent,
            request_id,
        } = request;
        let origin = Origin {
            idempotency: idempotency.as_ref(),
            traceparent: traceparent.as_deref(),
            request_id: request_id.as_deref(),
        };
        if let Some(digest) = key {
            match self.key_use(digest, origin.fingerprint())? {
                KeyUse::Unused => {}
                KeyUse::OtherRequest { unsynced } => {
                    return Ok(when(unsynced, Err(CommandError::IdempotencyMismatch)));
                }
                KeyUse::SameRequest {
                    order,
                    end,
                    unsynced,
                } => return Ok(when(unsynced, Ok(self.outcome(order, end, true)))),
            }
        }
        let found = match target {
            // Nobody has seen this id yet.
            Target::New => None,
            Target::Existing(_) => Some(self.find(id)?.ok_or(CommandError::Rejected {
                rejection: Rejection::NotFound,
                order: None,
            })?),
        };
        let unsynced = found.as_ref().is_some_and(|found| found.unsynced);
        let before = found.as_ref().map(|found| &*found.order);
        let actual = before.map_or(Version::NONE, |order| order.version);
        if let Some(expected) = expected
            && !expected.contains(&actual)
        {
            return Ok(when(
                unsynced,
                Err(CommandError::VersionMismatch { actual }),
            ));
        }
        let events = match decide_owned(before, command) {
            Ok(events) => events,
            Err(rejection) => {
                let order = found.map(|found| found.order);
                return Ok(when(
                    unsynced,
                    Err(CommandError::Rejected { rejection, order }),
                ));
            }
        };
        self.encode(&events, &origin);
        let mut after = before.cloned();
        for event in events {
            fold_owned(&mut after, id, event, self.at).map_err(|error| {
                self.internal(format!("the decided events do not fold: {error}"))
            })?;
        }
        let Some(after) = after else {
            return Err(self.internal("the command was accepted without an event".to_owned()));
        };
        let previous = found.as_ref().map(|found| found.last_frame);
        let (base, end) = self.add_frame(id, actual, previous);
        let order = Arc::new(after);
        let after = OrderTail {
            order: Arc::clone(&order),
            last_frame: base,
            end,
        };
        self.tail.write(after, key.zip(origin.fingerprint()));
        Ok(Decision::AfterAppend(Ok(self.outcome(order, end, false))))
    }

    /// Encodes the events of one frame. Where they came from is said once.
    fn encode(&mut self, events: &[Event<'_>], origin: &Origin<'_>) {
        self.encoded.clear();
        self.records.clear();
        let mut context = origin.context();
        for event in events {
            let header = encode(self.codec, event, &context, &mut self.encoded);
            let tag = RecordTag {
                event_type: header.event_type,
                schema: header.schema,
                codec: header.codec,
            };
            self.records.push((tag, self.encoded.len()));
            context = EventContext::default();
        }
    }

    /// Adds the encoded frame to the open batch; returns its base and its end.
    fn add_frame(
        &mut self,
        id: OrderId,
        before: Version,
        previous: Option<Offset>,
    ) -> (Offset, Offset) {
        let at = AppendTime::from_micros(self.at.as_micros());
        self.batch
            .begin_frame(key_of(id), before.get() + 1, previous, at);
        let mut from = 0;
        for &(tag, to) in &self.records {
            self.batch.record(|bytes| {
                bytes.extend_from_slice(&self.encoded[from..to]);
                tag
            });
            from = to;
        }
        let base = self.batch.end_frame();
        (base, self.batch.end())
    }

    /// The order as the command finds it: from memory, else from the read model.
    fn find(&mut self, id: OrderId) -> Result<Option<Found>, CommandError> {
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
            self.unread.remove(&id);
        }
        Ok(snapshot.map(|snapshot| Found {
            order: Arc::new(snapshot.order),
            last_frame: snapshot.last_frame,
            unsynced: false,
        }))
    }

    /// What the command's idempotency key was used for.
    fn key_use(
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
        // The read model says where; when, and how the order was then, is in the log.
        let (end, used_at) = visit_frame(self.reader.as_ref(), entry.frame, |frame| {
            (frame.end(), frame.appended_at)
        })
        .map_err(|error| self.internal(error.to_string()))?;
        if self.is_expired(Timestamp::from_micros(used_at.as_micros())) {
            return Ok(KeyUse::Unused);
        }
        if Some(entry.fingerprint) != fingerprint {
            return Ok(KeyUse::OtherRequest { unsynced: false });
        }
        let order = order_after(self.reader.as_ref(), entry.order_id, entry.frame)
            .map_err(|error| self.internal(error.to_string()))?;
        if order.version != entry.version {
            return Err(self.internal(format!(
                "order {} has version {} after the frame at offset {}, the read model says {}",
                entry.order_id, order.version, entry.frame, entry.version
            )));
        }
        Ok(KeyUse::SameRequest {
            order: Arc::new(order),
            end,
            unsynced: false,
        })
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
        self.at.as_micros().saturating_sub(used_at.as_micros()) > self.retention_us
    }

    fn outcome(&self, order: Arc<Order>, end: Offset, replayed: bool) -> CommandOutcome {
        let position = Position {
            partition: self.partition,
            end,
        };
        CommandOutcome {
            order,
            position,
            replayed,
        }
    }

    fn unreadable(&self, error: &SnapshotError) -> CommandError {
        self.internal(error.to_string())
    }

    fn internal(&self, cause: String) -> CommandError {
        CommandError::Internal {
            partition: self.partition,
            cause,
        }
    }
}

/// How far a read model at `checkpoint` is behind a log that ends at `end`, in records.
pub(crate) fn lag(checkpoint: Offset, end: Offset) -> u64 {
    end.get().saturating_sub(checkpoint.get())
}

fn when(unsynced: bool, answer: Answer) -> Decision {
    if unsynced {
        Decision::AfterAppend(answer)
    } else {
        Decision::Now(answer)
    }
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
        None if frame.sequence == 1 => None,
        None => snapshots
            .order(id)
            .map_err(|error| error.to_string())?
            .map(|snapshot| snapshot.order),
    };
    let version = order.as_ref().map_or(0, |order| order.version.get());
    // The read model goes on while the log is read: what its row has is behind its present checkpoint, with its key.
    if version >= frame.sequence {
        return Ok(());
    }
    if version + 1 != frame.sequence {
        return Err(format!(
            "it has version {version}, the log goes on with {}",
            frame.sequence
        ));
    }
    let key = fold_frame(&mut order, id, frame).map_err(|error| error.to_string())?;
    let order = order.ok_or("the frame has no record")?;
    let after = OrderTail {
        order: Arc::new(order),
        last_frame: frame.base,
        end: frame.end(),
    };
    tail.write(after, key);
    tail.keep();
    Ok(())
}
