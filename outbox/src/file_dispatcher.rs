//! From the log to the file: gather what is new over all partitions, write, sync, commit. In this order, so that a crash
//! between any two of them tells some events again and none never.
//!
//! One thread serves all partitions: they share one file, one sync and one transaction a round. A file that cannot be
//! written concerns every event alike, so nothing is kept aside for it; the round is tried again as a whole. Only an event
//! that does not decode sets its order aside, and at once as dead: trying again changes nothing before an upgrade.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_log::{Frame, ScanLimit};

use crate::OutboxError;
use crate::cloud_event::CloudEvent;
use crate::file_sink::FileSink;
use crate::inbox::{Inbox, Request, Wake, answer};
use crate::ledger::{Ledger, Verdict};
use crate::log_event::{LogEvent, events_of};
use crate::metrics::Attempt;
use crate::shared::Shared;

/// A round ends with the frame that reaches this many bytes of lines: it bounds memory, and how long a request waits.
const ROUND_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A round also ends with the frame that brings it to this many events: those that are set aside, or wait behind one that
/// is, make no line, but each is a row of the round's transaction.
const ROUND_EVENTS_MAX: usize = 50_000;

/// The state of a run.
#[derive(Debug)]
pub(crate) struct FileDispatcher {
    shared: Arc<Shared>,
    ledger: Ledger,
    sink: FileSink,
    lines: Vec<u8>,
    /// Events in `lines`.
    events: u64,
    /// Events the round has looked at, whatever became of them.
    looked_at: usize,
    /// Where the next round begins, so that a busy partition does not starve the others.
    first_partition: usize,
}

/// One of the steps of a round.
type Step = fn(&mut FileDispatcher) -> Result<(), OutboxError>;

impl FileDispatcher {
    /// Opens the store and the file.
    pub(crate) fn open(shared: Arc<Shared>) -> Result<Self, OutboxError> {
        let ledger = shared.open_ledger(Instant::now())?;
        let sink = FileSink::open(&shared.file_path())?;
        Ok(Self {
            shared,
            ledger,
            sink,
            lines: Vec::new(),
            events: 0,
            looked_at: 0,
            first_partition: 0,
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// Whatever kept a round from ending: what was not committed is told again by the next run.
    pub(crate) async fn run(mut self, inbox: &mut Inbox) -> Result<(), OutboxError> {
        let linger = Duration::from_millis(self.shared.config.file.linger_ms);
        loop {
            self.round()?;
            match inbox
                .wait(if self.is_full() {
                    Duration::ZERO
                } else {
                    linger
                })
                .await
            {
                Wake::Elapsed => {}
                Wake::Request(request) => self.serve(request)?,
                Wake::Stop => return Ok(()),
            }
        }
    }

    /// The steps of a round, in the order that makes a crash after any of them harmless.
    const STEPS: [Step; 3] = [Self::gather, Self::write, Self::commit];

    /// Whether the round at hand takes no more.
    fn is_full(&self) -> bool {
        self.lines.len() >= ROUND_BYTES_MAX || self.looked_at >= ROUND_EVENTS_MAX
    }

    fn round(&mut self) -> Result<(), OutboxError> {
        Self::STEPS.iter().try_for_each(|step| step(self))
    }

    /// Reads what is due and what is new into `lines`; the ledger's changes wait for [`Self::commit`].
    fn gather(&mut self) -> Result<(), OutboxError> {
        self.lines.clear();
        self.events = 0;
        self.looked_at = 0;
        self.gather_due()?;
        let dead_max = self.shared.config.dead_events_max;
        if self.ledger.dead_events() >= dead_max {
            self.shared.report(Some(format!(
                "{} events are dead, which is as many as outbox.dead_events_max allows: nothing new is told before \
                 some are redriven",
                self.ledger.dead_events()
            )));
            return Ok(());
        }
        let count = self.shared.readers.len();
        for index in 0..count {
            self.gather_partition((self.first_partition + index) % count)?;
        }
        self.first_partition = (self.first_partition + 1) % count.max(1);
        Ok(())
    }

    /// Orders that were redriven: first, because what is new of them comes after.
    fn gather_due(&mut self) -> Result<(), OutboxError> {
        let now = Instant::now();
        while !self.is_full()
            && let Some(event) = self.ledger.start_due(now)?
        {
            self.looked_at += 1;
            match self.write_line(&event) {
                Ok(()) => self.ledger.deliver(event.id, now)?,
                Err(reason) => self.set_dead(&event, &reason)?,
            }
        }
        Ok(())
    }

    fn gather_partition(&mut self, index: usize) -> Result<(), OutboxError> {
        if self.is_full() {
            return Ok(());
        }
        let dead_max = self.shared.config.dead_events_max;
        let shared = Arc::clone(&self.shared);
        let partition = shared.readers[index].partition();
        let from = self.ledger.cursor(partition);
        let mut next = from;
        let mut failure = None;
        let mut visit = |frame: Frame<'_>| {
            self.looked_at += usize::try_from(frame.len()).unwrap_or(ROUND_EVENTS_MAX);
            for event in events_of(partition, &frame) {
                if let Err(error) = self.take(&event) {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            }
            next = frame.end();
            if self.is_full() || self.ledger.dead_events() >= dead_max {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let reached = shared.scan(index, from, ScanLimit::NONE, &mut visit);
        match failure {
            Some(error) => Err(error),
            // Also after a damaged frame: those before it were taken. Lost records are told by nobody.
            None => self.ledger.advance(partition, next.max(reached)),
        }
    }

    fn take(&mut self, event: &LogEvent<'_>) -> Result<(), OutboxError> {
        self.ledger.witness(event)?;
        if self.ledger.holds(event.id.order()) {
            return self.ledger.queue(event);
        }
        if let Err(reason) = self.write_line(event) {
            self.ledger.set_aside(event)?;
            self.set_dead(event, &reason)?;
        }
        Ok(())
    }

    fn set_dead(&mut self, event: &LogEvent<'_>, reason: &str) -> Result<(), OutboxError> {
        tracing::error!(event = %event.id, offset = %event.offset, reason, "an event is dead, its order waits");
        self.shared.attempts.count(Attempt::Unreadable, 1);
        let order = event.id.order();
        self.ledger
            .fail(order, Verdict::Dead, reason, Instant::now())
    }

    /// Appends an event's line to `lines`, or nothing and says why not.
    fn write_line(&mut self, event: &LogEvent<'_>) -> Result<(), String> {
        let before = self.lines.len();
        let decoded = CloudEvent::decode(event, &self.shared.config.source)
            .map_err(|error| error.to_string())?;
        decoded.write_line(&mut self.lines).map_err(|error| {
            self.lines.truncate(before);
            error.to_string()
        })?;
        self.events += 1;
        Ok(())
    }

    /// Appends the lines to the file. On return they are on stable storage.
    fn write(&mut self) -> Result<(), OutboxError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let written = self
            .sink
            .append(&self.lines)
            .and_then(|()| self.sink.sync());
        let attempt = if written.is_ok() {
            Attempt::Delivered
        } else {
            Attempt::Failed
        };
        self.shared.attempts.count(attempt, self.events);
        written
    }

    /// Moves the cursors over what was written.
    fn commit(&mut self) -> Result<(), OutboxError> {
        self.ledger.commit(&self.shared.progress, |_| 0)?;
        if self.ledger.dead_events() < self.shared.config.dead_events_max {
            self.shared.report(None);
        }
        Ok(())
    }

    fn serve(&mut self, request: Request) -> Result<(), OutboxError> {
        match request {
            Request::Redrive { which, reply } => {
                let redriven = self.ledger.redrive(which, Instant::now());
                self.ledger.commit(&self.shared.progress, |_| 0)?;
                answer(&reply, redriven);
            }
            // A file never says that it wants nothing any more.
            Request::Enable { reply } => answer(&reply, Ok(())),
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "file_dispatcher_tests.rs"]
mod tests;
