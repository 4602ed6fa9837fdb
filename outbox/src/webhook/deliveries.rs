//! What is sent next, and what becomes of it: decided without a socket and without a clock, so that every schedule of
//! failures, crashes and restarts can be played in a test.
//!
//! Events read from the log wait in a window in memory, bounded by count and bytes. At most one event of an order is on
//! its way at a time; different orders overtake each other freely. What fails, or is on its way for long, moves into the
//! ledger, so that the cursor never waits for one slow order:
//!
//! ```text
//!  log ──► window: queue per order ──► on its way ──► delivered: settled
//!                                          │
//!                                          ├─ fails, or takes long ──► ledger: kept aside, tried again when due
//!                                          └─ tries used up, or unreadable ──► ledger: dead
//! ```
//!
//! A cursor moves over a frame when all its events are settled: delivered, or in the ledger.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use order_domain::OrderId;
use order_log::{Offset, PartitionId, ScanLimit};

use crate::backoff::Backoff;
use crate::config::OutboxConfig;
use crate::ledger::{Ledger, Verdict};
use crate::log_event::LogEvent;
use crate::progress::Progress;
use crate::webhook::outcome::Outcome;
use crate::{EventId, OutboxError};

/// Most events in the window.
const WINDOW_EVENTS_MAX: u64 = 1_024;
/// Most bytes of events in the window; one frame may reach beyond it.
const WINDOW_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Most frames between the cursor of a partition and where it is read.
const WINDOW_FRAMES_MAX: usize = 16_384;
/// Most events read from one partition before the next one has its turn.
const TURN_EVENTS_MAX: u64 = 128;
/// How long an event may be on its way before it moves into the ledger, where it holds nothing up.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Deliveries {
    ledger: Ledger,
    backoff: Backoff,
    in_flight_max: usize,
    retrying_events_max: u64,
    dead_events_max: u64,
    windows: Vec<Window>,
    /// Orders with events in a window; none of them is in the ledger.
    waiting: HashMap<OrderId, VecDeque<LogEvent<'static>>>,
    /// Orders of `waiting` of which nothing is on its way, first come first.
    ready: VecDeque<OrderId>,
    in_flight: HashMap<OrderId, InFlight>,
    /// How many of `in_flight` are from the ledger: never more than half, so that retries leave room for what is new.
    retries_in_flight: usize,
    /// Whose turn it is when both a retry and something new could be sent.
    retry_turn: bool,
    window_events: u64,
    window_bytes: u64,
    /// The target asked to be left alone until then.
    paused_until: Option<Instant>,
    /// The target wants nothing any more, and why.
    disabled: Option<String>,
}

#[derive(Debug)]
struct InFlight {
    since: Instant,
    from_ledger: bool,
}

/// A partition between its cursor and where it is read: `cursor <= every frame < read_to`.
#[derive(Debug)]
struct Window {
    read_to: Offset,
    frames: VecDeque<FrameInWindow>,
    /// Settled events of these frames.
    settled: u64,
}

#[derive(Debug)]
struct FrameInWindow {
    base: Offset,
    end: Offset,
    unsettled: u64,
}

impl Deliveries {
    pub(crate) fn new(
        ledger: Ledger,
        partitions: u16,
        config: &OutboxConfig,
        random: fastrand::Rng,
    ) -> Self {
        let windows = (0..partitions).map(|partition| Window {
            read_to: ledger.cursor(PartitionId::new(partition)),
            frames: VecDeque::new(),
            settled: 0,
        });
        Self {
            windows: windows.collect(),
            ledger,
            backoff: Backoff::new(config.retry, random),
            in_flight_max: config.webhook.in_flight_max,
            retrying_events_max: config.retrying_events_max,
            dead_events_max: config.dead_events_max,
            waiting: HashMap::new(),
            ready: VecDeque::new(),
            in_flight: HashMap::new(),
            retries_in_flight: 0,
            retry_turn: true,
            window_events: 0,
            window_bytes: 0,
            paused_until: None,
            disabled: None,
        }
    }

    /// Where a partition is read next, and how much of it; `None` while there is no room.
    pub(crate) fn room(&self, partition: PartitionId) -> Option<(Offset, ScanLimit)> {
        let window = &self.windows[partition.index()];
        let bytes = WINDOW_BYTES_MAX.saturating_sub(self.window_bytes);
        // A whole turn or nothing: one scan an event would cost more than the event.
        let full = self.window_events + TURN_EVENTS_MAX > WINDOW_EVENTS_MAX
            || bytes == 0
            || window.frames.len() >= WINDOW_FRAMES_MAX
            || self.ledger.retrying_events() >= self.retrying_events_max
            || self.ledger.dead_events() >= self.dead_events_max;
        let limit = ScanLimit {
            records: TURN_EVENTS_MAX,
            bytes,
            ..ScanLimit::NONE
        };
        (!full).then_some((window.read_to, limit))
    }

    /// Takes the events of the frame from `base` to `end` into the window, or into the ledger if their order is there.
    pub(crate) fn admit<'a>(
        &mut self,
        partition: PartitionId,
        base: Offset,
        end: Offset,
        events: impl Iterator<Item = LogEvent<'a>>,
    ) -> Result<(), OutboxError> {
        let mut unsettled = 0;
        for event in events {
            self.ledger.witness(&event)?;
            let order = event.id.order();
            if self.ledger.holds(order) {
                self.ledger.queue(&event)?;
                continue;
            }
            unsettled += 1;
            self.window_events += 1;
            self.window_bytes += event.bytes.len() as u64;
            let queue = self.waiting.entry(order).or_insert_with(|| {
                self.ready.push_back(order);
                VecDeque::new()
            });
            queue.push_back(event.into_owned());
        }
        let window = &mut self.windows[partition.index()];
        assert!(
            window.read_to == base && base < end,
            "frames are read one after the other"
        );
        window.read_to = end;
        window.settled += (end.get() - base.get()) - unsettled;
        window.frames.push_back(FrameInWindow {
            base,
            end,
            unsettled,
        });
        Ok(())
    }

    /// Moves over records that are declared lost: there is nothing to tell of them. Does nothing if there are none.
    pub(crate) fn pass_over(
        &mut self,
        partition: PartitionId,
        from: Offset,
        to: Offset,
    ) -> Result<(), OutboxError> {
        if from >= to {
            return Ok(());
        }
        tracing::warn!(%partition, %from, %to, "lost records are not told");
        self.admit(partition, from, to, std::iter::empty())
    }

    /// The next event to send, now on its way; `None` if there is none, or none may be sent.
    pub(crate) fn next(&mut self, now: Instant) -> Result<Option<LogEvent<'static>>, OutboxError> {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        let held_back = self.disabled.is_some() || self.paused_until.is_some();
        if held_back || self.in_flight.len() >= self.in_flight_max {
            return Ok(None);
        }
        let may_retry = self.retries_in_flight < self.in_flight_max.div_ceil(2);
        if may_retry
            && (self.retry_turn || self.ready.is_empty())
            && let Some(event) = self.ledger.start_due(now)?
        {
            self.retry_turn = false;
            self.retries_in_flight += 1;
            self.start(event.id.order(), now, true);
            return Ok(Some(event));
        }
        self.retry_turn = true;
        let Some(order) = self.ready.pop_front() else {
            return Ok(None);
        };
        self.start(order, now, false);
        let queue = &self.waiting[&order];
        Ok(Some(
            queue.front().expect("a ready order has an event").clone(),
        ))
    }

    fn start(&mut self, order: OrderId, now: Instant, from_ledger: bool) {
        let flight = InFlight {
            since: now,
            from_ledger,
        };
        let before = self.in_flight.insert(order, flight);
        assert!(
            before.is_none(),
            "two events of order {order} are on their way"
        );
    }

    /// Records how the try of an event that was on its way ended. Returns what becomes of its order if it failed.
    pub(crate) fn settle(
        &mut self,
        id: EventId,
        outcome: &Outcome,
        now: Instant,
    ) -> Result<Option<Verdict>, OutboxError> {
        let order = id.order();
        let flight = self
            .in_flight
            .remove(&order)
            .expect("what ends was on its way");
        self.retries_in_flight -= usize::from(flight.from_ledger);
        let reason = match outcome {
            Outcome::Delivered => {
                if flight.from_ledger {
                    self.ledger.deliver(id, now)?;
                } else {
                    self.leave_window(order);
                }
                return Ok(None);
            }
            Outcome::Gone { reason } => {
                self.disabled = Some(reason.clone());
                // Nothing is wrong with the event: it waits for a target that wants it.
                if flight.from_ledger {
                    self.ledger.put_back(order, now);
                } else {
                    self.ready.push_front(order);
                }
                return Ok(None);
            }
            Outcome::Refused { reason, .. }
            | Outcome::Failed { reason }
            | Outcome::Unreadable { reason } => reason,
        };
        let verdict = self.verdict(order, outcome, now);
        if !flight.from_ledger {
            self.move_to_ledger(order)?;
        }
        self.ledger.fail(order, verdict, reason, now)?;
        Ok(Some(verdict))
    }

    fn verdict(&mut self, order: OrderId, outcome: &Outcome, now: Instant) -> Verdict {
        let asked = match outcome {
            Outcome::Refused {
                retry_after: Some(wait),
                whole_target,
                ..
            } => {
                if *whole_target {
                    let until = now + *wait;
                    self.paused_until =
                        Some(self.paused_until.map_or(until, |before| before.max(until)));
                }
                *wait
            }
            _ => Duration::ZERO,
        };
        let failures = self.ledger.attempts(order).saturating_add(1);
        if matches!(outcome, Outcome::Unreadable { .. }) || self.backoff.exhausted(failures) {
            Verdict::Dead
        } else {
            Verdict::Retry(self.backoff.delay(failures).max(asked))
        }
    }

    /// Moves what is on its way for long into the ledger: its cursor need not wait for it.
    pub(crate) fn move_slow(&mut self, now: Instant) -> Result<(), OutboxError> {
        let slow = self.in_flight.iter().filter(|(_, flight)| {
            !flight.from_ledger && now.saturating_duration_since(flight.since) >= SLOW_AFTER
        });
        let slow: Vec<OrderId> = slow.map(|(order, _)| *order).collect();
        for order in slow {
            self.move_to_ledger(order)?;
            if let Some(flight) = self.in_flight.get_mut(&order) {
                flight.from_ledger = true;
                self.retries_in_flight += 1;
            }
        }
        Ok(())
    }

    /// Moves an order of which the first event is or was on its way into the ledger, with all that waits behind.
    fn move_to_ledger(&mut self, order: OrderId) -> Result<(), OutboxError> {
        let queue = self
            .waiting
            .remove(&order)
            .expect("only an order of the window is moved");
        for (index, event) in queue.iter().enumerate() {
            if index == 0 {
                self.ledger.set_aside(event)?;
            } else {
                self.ledger.queue(event)?;
            }
            self.settled(event);
        }
        Ok(())
    }

    /// The first event of an order was delivered: the next one is ready.
    fn leave_window(&mut self, order: OrderId) {
        let queue = self
            .waiting
            .get_mut(&order)
            .expect("what was sent waits in the window");
        let event = queue
            .pop_front()
            .expect("what was sent is the first of its order");
        if queue.is_empty() {
            self.waiting.remove(&order);
        } else {
            self.ready.push_back(order);
        }
        self.settled(&event);
    }

    fn settled(&mut self, event: &LogEvent<'_>) {
        self.window_events -= 1;
        self.window_bytes -= event.bytes.len() as u64;
        let window = &mut self.windows[event.partition.index()];
        let behind = window
            .frames
            .partition_point(|frame| frame.base <= event.offset);
        let frame = &mut window.frames[behind - 1];
        assert!(
            event.offset < frame.end,
            "an event of the window is in one of its frames"
        );
        frame.unsettled -= 1;
        window.settled += 1;
    }

    /// Moves the cursors over what is settled and makes all changes last.
    pub(crate) fn commit(&mut self, progress: &Progress) -> Result<(), OutboxError> {
        for (index, window) in (0_u16..).zip(&mut self.windows) {
            while let Some(frame) = window.frames.front()
                && frame.unsettled == 0
            {
                window.settled -= frame.end.get() - frame.base.get();
                self.ledger.advance(PartitionId::new(index), frame.end)?;
                window.frames.pop_front();
            }
        }
        self.ledger
            .commit(progress, |index| self.windows[index].settled)
    }

    /// Gives dead orders their tries again; see [`Ledger::redrive`].
    pub(crate) fn redrive(
        &mut self,
        which: Option<EventId>,
        now: Instant,
    ) -> Result<u64, OutboxError> {
        self.ledger.redrive(which, now)
    }

    /// Why the target wants nothing any more, if so.
    pub(crate) fn disabled(&self) -> Option<&str> {
        self.disabled.as_deref()
    }

    /// Remembers across restarts that a target wants nothing any more, or forgets it.
    pub(crate) fn record_disabled(&mut self, url: &str) -> Result<(), OutboxError> {
        self.ledger.set_disabled(url, self.disabled.as_deref())
    }

    /// Reads back what [`Self::record_disabled`] wrote.
    pub(crate) fn recall_disabled(&mut self, url: &str) -> Result<(), OutboxError> {
        self.disabled = self.ledger.disabled(url)?;
        Ok(())
    }

    /// Sends to the target again.
    pub(crate) fn enable(&mut self) {
        self.disabled = None;
    }

    /// Why nothing new is read, if so.
    pub(crate) fn full(&self) -> Option<String> {
        let (dead, dead_max) = (self.ledger.dead_events(), self.dead_events_max);
        (dead >= dead_max)
            .then(|| format!("{dead} events are dead, outbox.dead_events_max allows {dead_max}"))
    }
}

#[cfg(test)]
#[path = "deliveries_tests.rs"]
mod tests;
