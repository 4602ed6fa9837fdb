//! The outbox's door: start it, look at it, redrive what is dead, stop it.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use order_log::{EventLog, Offset, PartitionId, PartitionReader};
use prometheus::Registry;
use tokio::sync::{mpsc, watch};

use crate::config::{OutboxConfig, SinkKind};
use crate::dead_letters::{DeadLetters, HeldEvent, Inspection};
use crate::inbox::{Inbox, REQUESTS_MAX, Request};
use crate::metrics::{self, Attempts};
use crate::progress::Progress;
use crate::shared::Shared;
use crate::store::Store;
use crate::webhook::{SystemLookup, Target};
use crate::{EventId, OutboxError, dispatcher};

/// Longest wait for the dispatcher's answer: it may be in the middle of a round.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Tells the outside world what is in the log: shared, stopped by [`Outbox::stop`].
///
/// Everything it does, it does on a thread of its own, `outbox`. Nothing of the pipeline waits for it.
#[derive(Debug)]
pub struct Outbox {
    shared: Arc<Shared>,
    dead_letters: Mutex<DeadLetters>,
    thread: Mutex<Option<Running>>,
    /// Held while the thread is started or stopped, so that there are never two.
    lifecycle: Mutex<()>,
}

#[derive(Debug)]
struct Running {
    requests: mpsc::Sender<Request>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// How the outbox stands.
#[derive(Debug, Clone)]
pub struct OutboxStatus {
    /// Where events go.
    pub sink: SinkKind,
    /// Whether the dispatcher's thread runs.
    pub running: bool,
    /// Why nothing is delivered, if so.
    pub trouble: Option<String>,
    /// The last try that failed, and why; `None` if none did since the start.
    pub last_failure: Option<String>,
    /// Events neither delivered nor dead. 0 for the sink `none`.
    pub pending: u64,
    /// Those of them that were tried and are tried again, or queue behind one of these.
    pub backing_off: u64,
    /// Events that wait for an operator.
    pub dead: u64,
    /// Age of the oldest event that waits for its first try, in seconds; 0 when there is none.
    pub oldest_waiting_seconds: f64,
    /// Age of the oldest event that is tried again, in seconds; 0 when there is none.
    pub oldest_backing_off_seconds: f64,
    /// The partitions, by number.
    pub partitions: Vec<OutboxPartition>,
}

/// How far the outbox is in a partition.
#[derive(Debug, Clone)]
pub struct OutboxPartition {
    /// Which partition.
    pub partition: PartitionId,
    /// Offset after the last event that is delivered, being retried or dead.
    pub cursor: Offset,
    /// Offset after the last visible event.
    pub end: Offset,
    /// Why nothing more is read of it, if so.
    pub trouble: Option<String>,
}

impl Outbox {
    /// Opens `outbox.db` in `data_dir`, registers the metrics and starts the dispatcher. Each event of `log` that was not
    /// delivered before is told from now on.
    ///
    /// # Errors
    /// [`OutboxError::Config`] for a setting that cannot be, [`OutboxError::Incompatible`] for a store of another log or
    /// version, otherwise whatever kept it from starting.
    pub fn start(
        log: &dyn EventLog,
        config: OutboxConfig,
        data_dir: &Path,
        registry: &Registry,
    ) -> Result<Arc<Self>, OutboxError> {
        config.validate()?;
        if config.sink == SinkKind::Webhook {
            // Made anew by every run of the dispatcher; here, so that a wrong setting is refused at once.
            Target::new(&config, Arc::new(SystemLookup))?;
        }
        let partitions = log.partition_count();
        let readers: Vec<Box<dyn PartitionReader>> = (0..partitions)
            .map(|partition| log.reader(PartitionId::new(partition)))
            .collect::<Result<_, _>>()?;
        let readers: Arc<[_]> = readers.into();
        let cursors: Vec<Offset> = Store::open(data_dir, partitions)?
            .cursors()?
            .iter()
            .map(|cursor| cursor.next)
            .collect();
        let progress = Arc::new(Progress::new(&cursors));
        let enabled = config.sink != SinkKind::None;
        metrics::register_gauges(
            registry,
            Arc::clone(&progress),
            Arc::clone(&readers),
            enabled,
        )?;
        let dead_letters = DeadLetters::open(data_dir, &config.source)?;
        let shared = Arc::new(Shared {
            attempts: Attempts::register(registry)?,
            directory: data_dir.to_owned(),
            config,
            readers,
            progress,
        });
        shared
            .open_ledger(Instant::now())?
            .commit(&shared.progress, |_| 0)?;
        let outbox = Arc::new(Self {
            shared,
            dead_letters: Mutex::new(dead_letters),
            thread: Mutex::new(None),
            lifecycle: Mutex::new(()),
        });
        outbox.run()?;
        Ok(outbox)
    }

    /// Stops the dispatcher if it runs and starts it again, whatever stopped it: the runbook's "restart dispatcher".
    ///
    /// # Errors
    /// [`OutboxError::Start`] if there is no thread to be had.
    pub fn restart(&self) -> Result<(), OutboxError> {
        let _lifecycle = lock(&self.lifecycle);
        self.join();
        self.run()
    }

    fn run(&self) -> Result<(), OutboxError> {
        if self.shared.config.sink == SinkKind::None {
            return Ok(());
        }
        let (requests, requests_end) = mpsc::channel(REQUESTS_MAX);
        let (stop, stop_end) = watch::channel(false);
        let mut inbox = Inbox {
            requests: requests_end,
            stop: stop_end,
        };
        self.shared.report(None);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || dispatcher::run(&shared, &mut inbox))
            .map_err(|error| OutboxError::Start(error.to_string()))?;
        *lock(&self.thread) = Some(Running {
            requests,
            stop,
            thread,
        });
        Ok(())
    }

    /// Stops the dispatcher and joins its thread. What is on its way and not yet recorded is told again by the next
    /// start. Bounded: nothing is waited for that a target could draw out.
    pub fn stop(&self) {
        let _lifecycle = lock(&self.lifecycle);
        self.join();
    }

    fn join(&self) {
        let Some(running) = lock(&self.thread).take() else {
            return;
        };
        running.stop.send_replace(true);
        if running.thread.join().is_err() {
            // `dispatcher::run` catches panics, so this is one of its own last lines.
            tracing::error!("the outbox's thread ended by a panic");
        }
    }

    /// How it stands now.
    #[must_use]
    pub fn status(&self) -> OutboxStatus {
        let progress = &self.shared.progress;
        let readers = &self.shared.readers;
        let sink = self.shared.config.sink;
        let (pending, ages) = if sink == SinkKind::None {
            Default::default()
        } else {
            (progress.pending(readers), progress.ages(readers))
        };
        let partitions = readers
            .iter()
            .enumerate()
            .map(|(index, reader)| OutboxPartition {
                partition: reader.partition(),
                cursor: progress.cursor(index),
                end: reader.durable_end(),
                trouble: progress.partition_trouble(index),
            });
        OutboxStatus {
            sink,
            running: lock(&self.thread)
                .as_ref()
                .is_some_and(|running| !running.thread.is_finished()),
            trouble: progress.trouble(),
            last_failure: progress.last_failure(),
            pending,
            backing_off: progress.retrying(),
            dead: progress.dead(),
            oldest_waiting_seconds: ages.waiting,
            oldest_backing_off_seconds: ages.backing_off,
            partitions: partitions.collect(),
        }
    }

    /// Dead events by order and version, at most `limit` and [`crate::DEAD_PAGE_MAX`], beginning behind `after`. Blocks
    /// for a short read of the store.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn dead(
        &self,
        limit: usize,
        after: Option<EventId>,
    ) -> Result<Vec<HeldEvent>, OutboxError> {
        lock(&self.dead_letters).page(limit, after)
    }

    /// One event that is dead or being retried, in full. Blocks for a short read of the store.
    ///
    /// # Errors
    /// [`OutboxError::NotHeld`] if the event is neither; otherwise whatever SQLite said.
    pub fn inspect(&self, id: EventId) -> Result<Inspection, OutboxError> {
        let found = lock(&self.dead_letters).inspect(id)?;
        found.ok_or(OutboxError::NotHeld(id))
    }

    /// Gives the order of a dead event all its tries again, from its first dead event on, because an order's events are
    /// told in order. Returns the count of events, durably redriven. Blocks until the dispatcher answers.
    ///
    /// # Errors
    /// [`OutboxError::NotHeld`], [`OutboxError::NotDead`], [`OutboxError::NotRunning`], [`OutboxError::Busy`].
    pub fn redrive(&self, id: EventId) -> Result<u64, OutboxError> {
        self.ask(|reply| Request::Redrive {
            which: Some(id),
            reply,
        })
    }

    /// Gives all dead events all their tries again. Returns their count, durably redriven. Blocks until the dispatcher
    /// answers.
    ///
    /// # Errors
    /// [`OutboxError::NotRunning`], [`OutboxError::Busy`].
    pub fn redrive_all(&self) -> Result<u64, OutboxError> {
        self.ask(|reply| Request::Redrive { which: None, reply })
    }

    /// Sends again to a target that had answered 410 Gone, durably. Blocks until the dispatcher answers.
    ///
    /// # Errors
    /// [`OutboxError::NotRunning`], [`OutboxError::Busy`].
    pub fn enable(&self) -> Result<(), OutboxError> {
        self.ask(|reply| Request::Enable { reply })
    }

    fn ask<T>(
        &self,
        request: impl FnOnce(SyncSender<Result<T, OutboxError>>) -> Request,
    ) -> Result<T, OutboxError> {
        let (reply, answer) = sync_channel(1);
        let sent = match &*lock(&self.thread) {
            Some(running) => running.requests.try_send(request(reply)),
            None => return Err(self.not_running()),
        };
        match sent {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(OutboxError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.not_running()),
        }
        match answer.recv_timeout(ANSWER_WITHIN) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(OutboxError::Busy),
            Err(RecvTimeoutError::Disconnected) => Err(self.not_running()),
        }
    }

    fn not_running(&self) -> OutboxError {
        let why = match self.shared.config.sink {
            SinkKind::None => "its sink is `none`".to_owned(),
            SinkKind::File | SinkKind::Webhook => {
                let trouble = self.shared.progress.trouble();
                trouble.unwrap_or_else(|| "it was stopped".to_owned())
            }
        };
        OutboxError::NotRunning(why)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
