//! The thread of one partition: gathers commands, appends what was decided, answers. Nobody else writes the partition.
//!
//! Group commit without a timer: a batch takes what has queued, and while its sync is in flight the next one queues.
//!
//! A thread is in one of three phases. *Loading*: it waits for the read model to be near enough, then reads the log from
//! the checkpoint on; commands are refused. *Serving*. *Poisoned*, for ever: a failed sync or a bug left it unclear what
//! is in the log; commands are refused, the process lives on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use order_domain::Timestamp;
use order_log::{LogError, Offset, PartitionId, PartitionWriter};
use tokio::sync::oneshot;

use crate::CommandError;
use crate::decider::{Answer, Decider, Decision, Work};
use crate::knowledge::lag;
use crate::metrics::{Ending, EndingTally, PartitionMetrics};

/// Without work for this long, the log is told to record how far it is synced.
const IDLE: Duration = Duration::from_millis(20);
/// How often a worker looks whether the read model has come near enough.
const LOAD_POLL: Duration = Duration::from_millis(10);
/// A batch takes no more commands once its frames have this many bytes: a larger write makes everybody in it wait
/// without making the sync any cheaper a byte.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// How often a worker with a command in hand lets other threads run before it closes the batch. Where a processor is free
/// this returns at once; where all are busy, those that run meanwhile are the ones that bring the next commands, and a
/// sync is shared by half as many again (measured with 64 connections on 2 processors: 7 to 10 commands a batch, 12 to
/// 17 % more orders a second; more yields bring nothing more).
const GATHERING_YIELDS: usize = 2;
/// How many frames may be forgotten for each that a batch can add: more than one, so that what a read model has caught up
/// with all at once is forgotten in the end; few, so that no batch waits for all of it.
const FORGOTTEN_FRAMES_A_COMMAND: usize = 2;

/// What comes through the queue.
#[expect(
    clippy::large_enum_variant,
    reason = "a command lies in its slot of the queue, not in an allocation of its own"
)]
pub(crate) enum Message {
    Command(Work, Reply),
    /// Seal the log's active segment.
    Rotate(RotateReply),
    /// Behind the last command.
    Stop,
}

/// Why a partition takes no writes, if it does not. Written when that changes, read by whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Unavailable(Mutex<Option<String>>);

impl Unavailable {
    pub(crate) fn cause(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, cause: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = cause;
    }
}

/// Offset after the last record that clients may know of; moves forward only. Written by the worker before it answers.
#[derive(Debug, Default)]
pub(crate) struct AcknowledgedEnd(AtomicU64);

impl AcknowledgedEnd {
    pub(crate) fn load(&self) -> Offset {
        Offset::new(self.0.load(Ordering::Acquire))
    }

    fn store(&self, end: Offset) {
        self.0.store(end.get(), Ordering::Release);
    }
}

/// How one worker behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkerConfig {
    pub(crate) partition: PartitionId,
    /// 1 without group commit.
    pub(crate) batch_commands_max: usize,
}

#[derive(Debug)]
enum Phase {
    Loading,
    Serving,
    Poisoned,
}

/// Where a command's answer goes.
pub(crate) type Reply = oneshot::Sender<Answer>;
/// Where it is told whether a segment was sealed.
pub(crate) type RotateReply = oneshot::Sender<Result<bool, CommandError>>;

pub(crate) struct Worker {
    config: WorkerConfig,
    queue: Receiver<Message>,
    writer: Box<dyn PartitionWriter>,
    decider: Decider,
    metrics: PartitionMetrics,
    unavailable: Arc<Unavailable>,
    acknowledged: Arc<AcknowledgedEnd>,
    phase: Phase,
    stopping: bool,
    /// Where the answer of the command being decided goes. Not on the stack, so that it is answered even after a panic.
    deciding: Option<Reply>,
    /// The open batch's commands that wait for its append, and their answers if that succeeds.
    waiting: Vec<(Reply, Answer)>,
    /// Whether an append was begun that the waiting commands have not been answered after.
    appending: bool,
    tally: EndingTally,
}

impl Worker {
    pub(crate) fn new(
        config: WorkerConfig,
        queue: Receiver<Message>,
        writer: Box<dyn PartitionWriter>,
        decider: Decider,
        metrics: PartitionMetrics,
        unavailable: Arc<Unavailable>,
        acknowledged: Arc<AcknowledgedEnd>,
    ) -> Self {
        acknowledged.store(writer.end());
        unavailable.set(Some(
            "the log is being read from the read model's checkpoint on".to_owned(),
        ));
        Self {
            config,
            queue,
            writer,
            decider,
            metrics,
            unavailable,
            acknowledged,
            phase: Phase::Loading,
            stopping: false,
            deciding: None,
            waiting: Vec::new(),
            appending: false,
            tally: EndingTally::default(),
        }
    }

    /// The name of the worker's thread.
    pub(crate) fn name(&self) -> String {
        format!("command-{}", self.config.partition)
    }

    /// Runs until stopped. A panic below is contained here.
    pub(crate) fn run(mut self) {
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve())) {
            // The memory may be half-changed; a poisoned worker never looks at it again.
            self.contain(panic.as_ref());
        }
    }

    fn serve(&mut self) {
        while !self.stopping {
            match self.phase {
                Phase::Loading => self.try_load(),
                Phase::Serving => self.serve_batch(),
                Phase::Poisoned => self.refuse_one(),
            }
        }
        if !matches!(self.phase, Phase::Poisoned)
            && let Err(error) = self.writer.close()
        {
            self.poison(format!("closing failed: {error}"));
        }
    }

    /// Loads the partition if the read model is near enough; otherwise waits a little, refusing commands.
    fn try_load(&mut self) {
        let (checkpoint, end) = (self.decider.known().checkpoint(), self.writer.end());
        let lag_events = lag(checkpoint, end);
        let (cause, refusal) = if checkpoint > end {
            let partition = self.config.partition;
            let cause = format!(
                "the read model's checkpoint {checkpoint} is past the log's end {end}: it is of another log, or the log lost its tail; rebuild it"
            );
            let refusal = CommandError::PartitionUnavailable {
                partition,
                cause: cause.clone(),
            };
            (cause, refusal)
        } else if lag_events > self.decider.known().lag_events_max()
            || self.decider.known().durable_end() < end
        {
            let cause = format!(
                "the read model is {lag_events} events behind, writes begin at {}",
                self.decider.known().lag_events_max()
            );
            (cause, self.decider.known().behind(checkpoint, end))
        } else {
            match self.decider.load(checkpoint) {
                Ok(()) => {
                    self.phase = Phase::Serving;
                    self.unavailable.set(None);
                }
                Err(error) => self.poison(format!("reading the log failed: {error}")),
            }
            return;
        };
        self.unavailable.set(Some(cause));
        match self.queue.recv_timeout(LOAD_POLL) {
            Ok(Message::Command(_, reply)) => self.answer(reply, Err(refusal)),
            Ok(Message::Rotate(reply)) => self.rotate(reply),
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => self.stopping = true,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }

    /// Waits for a command, and decides and appends it with all that have queued.
    fn serve_batch(&mut self) {
        let Some((work, reply)) = self.next_command() else {
            return;
        };
        let (checkpoint, end) = (self.decider.known().checkpoint(), self.writer.end());
        // A read model that was replaced by an older one lacks what was forgotten on the word of the newer.
        if checkpoint < self.decider.known().evicted_to() || checkpoint > end {
            self.phase = Phase::Loading;
        }
        if matches!(self.phase, Phase::Loading)
            || lag(checkpoint, end) > self.decider.known().lag_events_max()
        {
            self.answer(reply, Err(self.decider.known().behind(checkpoint, end)));
            return;
        }
        for _ in 0..self.gathering_yields() {
            std::thread::yield_now();
        }
        let at = now().max(Timestamp::from_micros(
            self.writer.last_append_time().as_micros(),
        ));
        let frames_max = FORGOTTEN_FRAMES_A_COMMAND * self.config.batch_commands_max;
        self.decider.forget(checkpoint, frames_max);
        self.decider.open_batch(end, at);
        self.decide(work, reply);
        let mut commands = 1;
        let mut rotate = None;
        while commands < self.config.batch_commands_max
            && self.decider.batch().bytes() < BATCH_BYTES_MAX
            && !self.stopping
            && rotate.is_none()
        {
            match self.queue.try_recv() {
                Ok(Message::Command(work, reply)) => {
                    self.decide(work, reply);
                    commands += 1;
                }
                Ok(Message::Rotate(reply)) => rotate = Some(reply),
                Ok(Message::Stop) => self.stopping = true,
                Err(_) => break,
            }
        }
        self.metrics.batch_size.observe(commands as f64);
        if !self.decider.batch().is_empty() {
            self.append();
        }
        if let Some(reply) = rotate {
            self.rotate(reply);
        }
    }

    /// A worker that syncs every command on its own has nothing to gather.
    fn gathering_yields(&self) -> usize {
        if self.config.batch_commands_max > 1 {
            GATHERING_YIELDS
        } else {
            0
        }
    }

    /// The next command, or `None` when there will be none. Tells the log when there is none for a while.
    fn next_command(&mut self) -> Option<(Work, Reply)> {
        let message = match self.queue.recv_timeout(IDLE) {
            Err(RecvTimeoutError::Timeout) => {
                if let Err(error) = self.writer.idle() {
                    self.append_failed(&error);
                    return None;
                }
                self.queue.recv().ok()
            }
            received => received.ok(),
        };
        match message {
            Some(Message::Command(work, reply)) => Some((work, reply)),
            Some(Message::Rotate(reply)) => {
                self.rotate(reply);
                None
            }
            Some(Message::Stop) | None => {
                self.stopping = true;
                None
            }
        }
    }

    /// Decides one command of the open batch, and answers it if it need not wait for the append.
    fn decide(&mut self, work: Work, reply: Reply) {
        // Nobody waits for it, and nothing was promised.
        if reply.is_closed() {
            self.metrics.count(Ending::Abandoned, 1);
            return;
        }
        self.deciding = Some(reply);
        let decision = self.decider.decide(work);
        let Some(reply) = self.deciding.take() else {
            return;
        };
        match decision {
            Decision::AfterAppend(answer) => self.waiting.push((reply, answer)),
            Decision::Now(answer) => self.answer(reply, answer),
        }
    }

    fn append(&mut self) {
        self.appending = true;
        match self.writer.append(self.decider.batch()) {
            Ok(appended) => {
                debug_assert_eq!(appended.end, self.decider.batch().end());
                self.decider.keep_batch();
                self.acknowledged.store(appended.end);
                if !appended.sync_time.is_zero() {
                    let seconds = appended.sync_time.as_secs_f64();
                    self.metrics.fsync_seconds.observe(seconds);
                }
                self.answer_waiting();
            }
            Err(error) => self.append_failed(&error),
        }
        self.appending = false;
    }

    /// Seals the log's active segment, between two batches.
    fn rotate(&mut self, reply: RotateReply) {
        let partition = self.config.partition;
        let answer = if matches!(self.phase, Phase::Poisoned) {
            Err(self.unavailable_error())
        } else {
            self.writer.rotate().map_err(|error| {
                let cause = error.to_string();
                match error {
                    LogError::NotSupported(_) => CommandError::NotSupported { cause },
                    LogError::StorageFull { .. } => CommandError::StorageFull { partition },
                    LogError::Io { .. } => CommandError::Internal { partition, cause },
                    // Whether there is a new segment is unclear; what was acknowledged is not.
                    _ => {
                        self.poison(cause.clone());
                        CommandError::PartitionUnavailable { partition, cause }
                    }
                }
            })
        };
        // An operator who went away needs no answer.
        drop(reply.send(answer));
    }

    /// Everything that was decided in the open batch is void; even a refusal, if it was for what the batch had changed.
    fn append_failed(&mut self, error: &LogError) {
        let partition = self.config.partition;
        let cause = error.to_string();
        let (poisons, answer) = match error {
            LogError::StorageFull { .. } => (false, CommandError::StorageFull { partition }),
            // Nothing of the batch was written; a later one may be.
            LogError::Io { .. } => {
                let cause = cause.clone();
                (false, CommandError::Internal { partition, cause })
            }
            // Nothing of the batch was written, and nothing will be.
            LogError::Poisoned { .. } | LogError::Fenced { .. } => {
                let cause = cause.clone();
                (
                    true,
                    CommandError::PartitionUnavailable { partition, cause },
                )
            }
            // `OutcomeUnknown`, and all that an append is not supposed to say: what promises nothing about the batch is
            // answered without a promise.
            _ => {
                let cause = cause.clone();
                (true, CommandError::OutcomeUnknown { partition, cause })
            }
        };
        self.decider.roll_back_batch();
        if poisons {
            self.poison(cause);
        } else {
            tracing::warn!(%partition, cause, commands = self.waiting.len(), "commands were refused");
        }
        self.fail_waiting(&answer);
    }

    /// Answers all commands of the batch as decided, in order. They are counted before, so that whoever has an answer
    /// finds it counted.
    fn answer_waiting(&mut self) {
        for (_, answer) in &self.waiting {
            self.tally.add(Ending::of(answer));
        }
        self.tally.flush(&self.metrics);
        for (reply, answer) in self.waiting.drain(..) {
            // A client that went away needs no answer.
            drop(reply.send(answer));
        }
    }

    /// Answers all commands of the batch with the same failure.
    fn fail_waiting(&mut self, failure: &CommandError) {
        for (_, answer) in &mut self.waiting {
            *answer = Err(failure.clone());
        }
        self.answer_waiting();
    }

    /// Answers a command that need not wait.
    fn answer(&self, reply: Reply, answer: Answer) {
        self.metrics.count(Ending::of(&answer), 1);
        // A client that went away needs no answer.
        drop(reply.send(answer));
    }

    fn refuse_one(&mut self) {
        match self.queue.recv() {
            Ok(Message::Command(_, reply)) => {
                let refusal = self.unavailable_error();
                self.answer(reply, Err(refusal));
            }
            Ok(Message::Rotate(reply)) => self.rotate(reply),
            Ok(Message::Stop) | Err(_) => self.stopping = true,
        }
    }

    /// Takes no more writes, for the life of this process.
    fn poison(&mut self, cause: String) {
        tracing::error!(partition = %self.config.partition, cause, "the partition takes no more writes");
        self.unavailable.set(Some(cause));
        self.phase = Phase::Poisoned;
    }

    fn unavailable_error(&self) -> CommandError {
        CommandError::PartitionUnavailable {
            partition: self.config.partition,
            cause: self.unavailable.cause().unwrap_or_default(),
        }
    }

    /// A bug was hit: whoever waits is told what is known of the log.
    fn contain(&mut self, panic: &(dyn Any + Send)) {
        let what = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic".to_owned());
        let cause = format!("its worker failed by a bug: {what}");
        self.poison(cause.clone());
        let partition = self.config.partition;
        let answer = if self.appending {
            CommandError::OutcomeUnknown { partition, cause }
        } else {
            CommandError::PartitionUnavailable { partition, cause }
        };
        self.appending = false;
        if let Some(reply) = self.deciding.take() {
            self.waiting.push((reply, Err(answer.clone())));
        }
        self.fail_waiting(&answer);
    }
}

/// The wall clock; frames never go back behind the log's last append time, whatever it says.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX))
}
