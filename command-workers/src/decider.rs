//! One partition's decisions: what a command finds, what it does, what it is answered. Knows no threads and no queue.
//!
//! Commands of one batch build on each other before anything of them is in the log. So a decision says whether its
//! answer may go at once or has to wait for the append: everything that was read from a frame of the open batch has to.

use std::borrow::Cow;
use std::sync::Arc;

use order_domain::codec::{Codec, encode};
use order_domain::{
    Event, EventContext, Idempotency, OrderId, Rejection, Timestamp, Version, decide_owned,
    fold_owned,
};
use order_log::{AppendTime, Batch, LogError, Offset, PartitionId, PayloadFormat, RecordTag};

use crate::history::key_of;
use crate::knowledge::{KeyUse, Knowledge};
use crate::tail::{KeyDigest, OrderTail};
use crate::{CommandError, CommandOutcome, CommandRequest, IdempotencyRequest, Position, Target};

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
    known: Knowledge,
    batch: Batch,
    /// The events of the frame at hand, encoded one behind the other, and what and where each is. They reach the batch
    /// only when they are known to fold.
    encoded: Vec<u8>,
    records: Vec<(RecordTag, usize)>,
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

impl Decider {
    pub(crate) fn new(partition: PartitionId, format: PayloadFormat, known: Knowledge) -> Self {
        Self {
            partition,
            codec: match format {
                PayloadFormat::Binary => Codec::Bincode,
                PayloadFormat::Json => Codec::Json,
            },
            known,
            batch: Batch::new(),
            encoded: Vec::new(),
            records: Vec::new(),
            at: Timestamp::default(),
        }
    }

    /// What the decisions rest on.
    pub(crate) fn known(&self) -> &Knowledge {
        &self.known
    }

    /// Reads the log from the checkpoint on: see [`Knowledge::load`].
    pub(crate) fn load(&mut self, checkpoint: Offset) -> Result<(), LogError> {
        self.known.load(checkpoint)
    }

    /// Forgets what the read model holds, at most so many frames of it. To be called between batches.
    pub(crate) fn forget(&mut self, checkpoint: Offset, frames_max: usize) {
        self.known.tail.evict(checkpoint, frames_max);
    }

    /// Begins a batch at the log's end.
    pub(crate) fn open_batch(&mut self, end: Offset, at: Timestamp) {
        self.known.open_batch(end, at);
        self.batch.start_at(end);
        self.at = at;
    }

    /// The frames of the open batch.
    pub(crate) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The open batch is in the log.
    pub(crate) fn keep_batch(&mut self) {
        self.known.tail.keep();
    }

    /// The open batch is not in the log, and nothing in memory may come from it.
    pub(crate) fn roll_back_batch(&mut self) {
        self.known.tail.roll_back();
        self.batch.start_at(self.batch.start());
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
            match self.key_use(digest, target, &origin)? {
                KeyUse::Unused => {}
                KeyUse::OtherRequest { unsynced } => {
                    return Ok(when(unsynced, Err(CommandError::IdempotencyMismatch)));
                }
                KeyUse::SameRequest {
                    order,
                    partition,
                    end,
                    unsynced,
                } => {
                    let outcome = CommandOutcome {
                        order,
                        position: Position { partition, end },
                        replayed: true,
                    };
                    return Ok(when(unsynced, Ok(outcome)));
                }
            }
        }
        let found = match target {
            // Nobody has seen this id yet.
            Target::New => None,
            Target::Existing(_) => Some(self.known.find(id)?.ok_or(CommandError::Rejected {
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
                self.known
                    .internal(format!("the decided events do not fold: {error}"))
            })?;
        }
        let Some(after) = after else {
            return Err(self
                .known
                .internal("the command was accepted without an event".to_owned()));
        };
        let previous = found.as_ref().map(|found| found.last_frame);
        let (base, end) = self.add_frame(id, actual, previous);
        let order = Arc::new(after);
        let after = OrderTail {
            order: Arc::clone(&order),
            last_frame: base,
            end,
        };
        self.known.tail.write(after, key.zip(origin.fingerprint()));
        let outcome = CommandOutcome {
            order,
            position: Position {
                partition: self.partition,
                end,
            },
            replayed: false,
        };
        Ok(Decision::AfterAppend(Ok(outcome)))
    }

    /// What the key was used for: by its caller, or before callers were told apart, or lines of a bulk request from
    /// requests.
    fn key_use(
        &mut self,
        digest: KeyDigest,
        target: Target,
        origin: &Origin<'_>,
    ) -> Result<KeyUse, CommandError> {
        let fingerprint = origin.fingerprint();
        let key = origin
            .idempotency
            .map_or("", |request| request.key.as_str());
        let is_new = matches!(target, Target::New);
        let used = self.known.key_use(digest, fingerprint, is_new)?;
        if !matches!(used, KeyUse::Unused) {
            return Ok(used);
        }
        let has_caller = Idempotency::has_caller(key);
        let digest_of = |key| Idempotency::digest(key, target.key_scope());
        if has_caller {
            let without = digest_of(Idempotency::client_key(key));
            let used = self.known.key_use(without, fingerprint, is_new)?;
            if !matches!(used, KeyUse::Unused) {
                return Ok(used);
            }
        }
        if let Some(former) = Idempotency::former_line_key(key) {
            let without = has_caller.then(|| Idempotency::client_key(&former));
            for text in [Some(former.as_str()), without].into_iter().flatten() {
                let used = self.known.key_use(digest_of(text), fingerprint, is_new)?;
                // What else it was used for may be a request with a key of this text, which is none of the line's business.
                if matches!(used, KeyUse::SameRequest { .. }) {
                    return Ok(used);
                }
            }
        }
        Ok(KeyUse::Unused)
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
}

fn when(unsynced: bool, answer: Answer) -> Decision {
    if unsynced {
        Decision::AfterAppend(answer)
    } else {
        Decision::Now(answer)
    }
}
