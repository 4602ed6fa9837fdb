//! How long a connection may take for what it is doing. One timer a connection, set again only when it fires, instead of
//! several a request: the deadlines themselves are stores to memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Between two requests, or in the middle of a head.
    AwaitingHead = 0,
    /// A request's body has not all come.
    ReadingBody = 1,
    /// The service works on the answer.
    Working = 2,
    /// An answer without an end is being sent; it may take as long as it likes.
    Streaming = 3,
    /// The deadline passed while reading the body: the request must answer so, and end.
    BodyOverdue = 4,
    /// The deadline passed while working: the request must answer so, and end.
    WorkOverdue = 5,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::AwaitingHead,
        Self::ReadingBody,
        Self::Working,
        Self::Streaming,
        Self::BodyOverdue,
        Self::WorkOverdue,
    ];
}

/// What a connection is doing and until when it may. Written by the request, read by the connection: both are one task,
/// so the atomics order nothing, they only make it shareable.
#[derive(Debug)]
pub(crate) struct ConnectionClock {
    opened: Instant,
    deadline_us: AtomicU64,
    phase: AtomicU8,
    head: Duration,
    request: Duration,
}

impl ConnectionClock {
    /// A clock for a connection opened now; `head` is the time for a request's head and for idling, `request` the time
    /// from head to answer.
    pub(crate) fn new(head: Duration, request: Duration) -> Self {
        let clock = Self {
            opened: Instant::now(),
            deadline_us: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::AwaitingHead as u8),
            head,
            request,
        };
        clock.set(clock.opened + head);
        clock
    }

    /// A request's head came.
    pub(crate) fn begin_request(&self, now: Instant) {
        self.enter(Phase::Working);
        self.set(now + self.request);
    }

    /// The request's answer is on its way, unless it is a stream.
    pub(crate) fn end_request(&self, now: Instant) {
        if self.phase() != Phase::Streaming {
            self.enter(Phase::AwaitingHead);
            self.set(now + self.head);
        }
    }

    /// The answer is a stream: there is no deadline until the guard is dropped.
    pub(crate) fn stream(clock: &Arc<Self>) -> StreamGuard {
        clock.enter(Phase::Streaming);
        StreamGuard(Arc::clone(clock))
    }

    /// The request waits for its body, or no more.
    pub(crate) fn awaits_body(&self, awaits: bool) {
        let (from, to) = if awaits {
            (Phase::Working, Phase::ReadingBody)
        } else {
            (Phase::ReadingBody, Phase::Working)
        };
        if self.phase() == from {
            self.enter(to);
        }
    }

    /// What the connection is doing.
    pub(crate) fn phase(&self) -> Phase {
        let number = usize::from(self.phase.load(Ordering::Relaxed));
        Phase::ALL
            .get(number)
            .copied()
            .unwrap_or(Phase::AwaitingHead)
    }

    /// How long it still may; zero if the time is over.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        if self.phase() == Phase::Streaming {
            return self.head;
        }
        let deadline = Duration::from_micros(self.deadline_us.load(Ordering::Relaxed));
        (self.opened + deadline).saturating_duration_since(now)
    }

    /// The time is over: a running request is told and gets `head` longer to say so. `false` if nothing runs, or if it
    /// was told before: then the connection is to be closed.
    pub(crate) fn expire(&self, now: Instant) -> bool {
        let overdue = match self.phase() {
            Phase::ReadingBody => Phase::BodyOverdue,
            Phase::Working => Phase::WorkOverdue,
            Phase::Streaming => return true,
            Phase::AwaitingHead | Phase::BodyOverdue | Phase::WorkOverdue => return false,
        };
        self.enter(overdue);
        self.set(now + self.head);
        true
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn set(&self, deadline: Instant) {
        let since = deadline.saturating_duration_since(self.opened);
        let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        self.deadline_us.store(micros, Ordering::Relaxed);
    }
}

/// Held by an answer that is a stream, for as long as it is.
#[derive(Debug)]
pub(crate) struct StreamGuard(Arc<ConnectionClock>);

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.enter(Phase::AwaitingHead);
        self.0.set(Instant::now() + self.0.head);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(3);
    const REQUEST: Duration = Duration::from_secs(5);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_connection_without_a_request_is_closed_when_its_time_is_over() {
        let clock = ConnectionClock::new(HEAD, REQUEST);
        assert_eq!(clock.left(clock.opened + SECOND), HEAD - SECOND);
        assert_eq!(clock.left(clock.opened + HEAD), Duration::ZERO);
        assert!(!clock.expire(clock.opened + HEAD));
    }

    #[test]
    fn an_overdue_request_is_told_once_what_it_waited_for() {
        let clock = ConnectionClock::new(HEAD, REQUEST);
        let now = clock.opened + SECOND;
        clock.begin_request(now);
        assert_eq!(clock.left(now), REQUEST);
        clock.awaits_body(true);
        assert!(clock.expire(now + REQUEST));
        assert_eq!(clock.phase(), Phase::BodyOverdue);
        assert!(!clock.expire(now + REQUEST + HEAD));

        let clock = ConnectionClock::new(HEAD, REQUEST);
        clock.begin_request(now);
        clock.awaits_body(true);
        clock.awaits_body(false);
        assert!(clock.expire(now + REQUEST));
        assert_eq!(clock.phase(), Phase::WorkOverdue);
    }

    #[test]
    fn a_stream_has_no_deadline_until_it_ends() {
        let clock = Arc::new(ConnectionClock::new(HEAD, REQUEST));
        clock.begin_request(clock.opened);
        let guard = ConnectionClock::stream(&clock);
        clock.end_request(clock.opened);
        assert_eq!(clock.left(clock.opened + 100 * REQUEST), HEAD);
        assert!(clock.expire(clock.opened + 100 * REQUEST));
        assert_eq!(clock.phase(), Phase::Streaming);
        drop(guard);
        assert_eq!(clock.phase(), Phase::AwaitingHead);
    }

    #[test]
    fn an_answered_request_leaves_the_time_of_a_head() {
        let clock = ConnectionClock::new(HEAD, REQUEST);
        clock.begin_request(clock.opened);
        clock.end_request(clock.opened + SECOND);
        assert_eq!(clock.phase(), Phase::AwaitingHead);
        assert_eq!(clock.left(clock.opened + SECOND), HEAD);
    }
}
