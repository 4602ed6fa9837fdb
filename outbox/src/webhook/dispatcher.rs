//! From the log to the target: reads, sends, records. One thread, any number of requests on their way up to a bound; a
//! target that hangs holds its own orders up and nobody else.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use order_log::Frame;
use tokio::task::JoinSet;

use crate::inbox::{Inbox, Request, Wake, answer};
use crate::ledger::Verdict;
use crate::log_event::events_of;
use crate::shared::Shared;
use crate::webhook::deliveries::Deliveries;
use crate::webhook::outcome::Outcome;
use crate::webhook::target::Target;
use crate::{EventId, OutboxError};

/// Pause between two looks at the log and at what is due, and between two commits: each costs a sync of the disk that the
/// log is on.
const PAUSE: Duration = Duration::from_millis(25);
/// How long what is on its way may still end when the outbox stops.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// The state of a run.
#[derive(Debug)]
pub(crate) struct WebhookDispatcher {
    shared: Arc<Shared>,
    target: Arc<Target>,
    url: String,
    deliveries: Deliveries,
    in_flight: JoinSet<(EventId, Outcome)>,
    first_partition: usize,
    /// Tries that failed since the last delivery.
    failures: u64,
}

impl WebhookDispatcher {
    /// Opens the store; connects to nothing.
    pub(crate) fn open(shared: Arc<Shared>, target: Arc<Target>) -> Result<Self, OutboxError> {
        let ledger = shared.open_ledger(Instant::now())?;
        let partitions = shared.partitions();
        let mut deliveries =
            Deliveries::new(ledger, partitions, &shared.config, fastrand::Rng::new());
        let url = shared.config.webhook.url.clone().unwrap_or_default();
        deliveries.recall_disabled(&url)?;
        Ok(Self {
            shared,
            target,
            url,
            deliveries,
            in_flight: JoinSet::new(),
            first_partition: 0,
            failures: 0,
        })
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// Whatever kept the store from recording: what was not committed is sent again by the next run.
    pub(crate) async fn run(mut self, inbox: &mut Inbox) -> Result<(), OutboxError> {
        let mut next_commit = Instant::now();
        loop {
            self.read()?;
            self.send()?;
            let now = Instant::now();
            if now >= next_commit {
                self.commit(now)?;
                next_commit = now + PAUSE;
            }
            let pause = next_commit.saturating_duration_since(now);
            tokio::select! {
                biased;
                wake = inbox.wait(pause) => match wake {
                    Wake::Elapsed => {}
                    Wake::Request(request) => self.serve(request)?,
                    Wake::Stop => return self.stop().await,
                },
                Some(ended) = self.in_flight.join_next() => self.settle(ended)?,
            }
            while let Some(ended) = self.in_flight.try_join_next() {
                self.settle(ended)?;
            }
        }
    }

    fn read(&mut self) -> Result<(), OutboxError> {
        let shared = Arc::clone(&self.shared);
        let count = shared.readers.len();
        for index in 0..count {
            let index = (self.first_partition + index) % count;
            let partition = shared.readers[index].partition();
            let Some((from, limit)) = self.deliveries.room(partition) else {
                continue;
            };
            let mut failure = None;
            let mut read_to = from;
            let mut visit = |frame: Frame<'_>| {
                let events = events_of(partition, &frame);
                let admitted = self
                    .deliveries
                    .pass_over(partition, read_to, frame.base)
                    .and_then(|()| {
                        self.deliveries
                            .admit(partition, frame.base, frame.end(), events)
                    });
                read_to = frame.end();
                match admitted {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failure = Some(error);
                        ControlFlow::Break(())
                    }
                }
            };
            let reached = shared.scan(index, from, limit, &mut visit);
            if let Some(error) = failure {
                return Err(error);
            }
            self.deliveries.pass_over(partition, read_to, reached)?;
        }
        self.first_partition = (self.first_partition + 1) % count.max(1);
        Ok(())
    }

    fn send(&mut self) -> Result<(), OutboxError> {
        while let Some(event) = self.deliveries.next(Instant::now())? {
            let target = Arc::clone(&self.target);
            self.in_flight.spawn(async move {
                let outcome = target.send(&event).await;
                (event.id, outcome)
            });
        }
        Ok(())
    }

    fn settle(
        &mut self,
        ended: Result<(EventId, Outcome), tokio::task::JoinError>,
    ) -> Result<(), OutboxError> {
        let (id, outcome) = match ended {
            Ok(ended) => ended,
            // Nothing cancels a try, so it panicked: a bug of ours, for the edge to catch.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.shared.attempts.count(outcome.attempt(), 1);
        let verdict = self.deliveries.settle(id, &outcome, Instant::now())?;
        match outcome {
            Outcome::Delivered => self.failures = 0,
            Outcome::Gone { .. } => self.deliveries.record_disabled(&self.url)?,
            Outcome::Refused { reason, .. }
            | Outcome::Failed { reason }
            | Outcome::Unreadable { reason } => self.log_failure(id, verdict, &reason),
        }
        Ok(())
    }

    /// Every dead event is logged; of the failures before, fewer and fewer while nothing is delivered.
    fn log_failure(&mut self, id: EventId, verdict: Option<Verdict>, reason: &str) {
        self.failures += 1;
        if verdict == Some(Verdict::Dead) {
            tracing::error!(event = %id, reason, "an event is dead, its order waits");
        } else if self.failures.is_power_of_two() {
            tracing::warn!(event = %id, reason, in_a_row = self.failures, "an event was not delivered");
        }
        self.shared
            .progress
            .set_last_failure(format!("{id}: {reason}"));
    }

    fn commit(&mut self, now: Instant) -> Result<(), OutboxError> {
        self.deliveries.move_slow(now)?;
        self.deliveries.commit(&self.shared.progress)?;
        let trouble = match self.deliveries.disabled() {
            Some(reason) => Some(format!(
                "{} {reason}: nothing is sent to it before it is enabled again, or another URL is configured",
                self.url
            )),
            None => self.deliveries.full(),
        };
        self.shared.report(trouble);
        Ok(())
    }

    fn serve(&mut self, request: Request) -> Result<(), OutboxError> {
        let now = Instant::now();
        match request {
            Request::Redrive { which, reply } => {
                let redriven = self.deliveries.redrive(which, now);
                self.commit(now)?;
                answer(&reply, redriven);
            }
            Request::Enable { reply } => {
                self.deliveries.enable();
                self.deliveries.record_disabled(&self.url)?;
                self.commit(now)?;
                answer(&reply, Ok(()));
            }
        }
        Ok(())
    }

    /// Lets what is on its way end, for a moment, and records it.
    async fn stop(mut self) -> Result<(), OutboxError> {
        let deadline = tokio::time::Instant::now() + STOP_WITHIN;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, self.in_flight.join_next()).await
        {
            self.settle(ended)?;
        }
        self.commit(Instant::now())
    }
}
