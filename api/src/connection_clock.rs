//! How long a connection may take for what it is doing. One timer a connection, set again only when it fires, instead of
//! several a request: the deadlines themselves are stores to memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::Stream;

/// The deadline of what has none.
const NEVER: u64 = u64::MAX;
/// How long the reader of a stream has, once the service stops, to take what it was given.
const STOPPING_READER: Duration = Duration::from_secs(1);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Between two requests, in the middle of a head, or of an answer that has an end.
    AwaitingHead = 0,
    /// A request's body has not all come.
    ReadingBody = 1,
    /// The service works on the answer.
    Working = 2,
    /// An answer without an end is being sent: it may take as long as it likes, its reader may not.
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
    /// Whether somebody has left some of the request's body unread.
    unread: AtomicBool,
    stopping: AtomicBool,
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
            unread: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            head,
            request,
        };
        clock.set(clock.opened + head);
        clock
    }

    /// A request's head came.
    pub(crate) fn begin_request(&self, now: Instant) {
        self.unread.store(false, Ordering::Relaxed);
        self.enter(Phase::Working);
        self.set(now + self.request);
    }

    /// The client has taken some of an answer: it has as long as before for the next of it, however long all of it takes.
    pub(crate) fn progress(&self, now: Instant) {
        match self.phase() {
            Phase::AwaitingHead => self.set(now + self.head),
            Phase::Streaming if self.deadline_us.load(Ordering::Relaxed) != NEVER => {
                let left = if self.stopping.load(Ordering::Relaxed) {
                    STOPPING_READER
                } else {
                    self.request
                };
                self.set(now + left);
            }
            // What is written now is of another request, or asks for the body.
            Phase::Streaming
            | Phase::ReadingBody
            | Phase::Working
            | Phase::BodyOverdue
            | Phase::WorkOverdue => {}
        }
    }

    /// Some of the request's body is not read and will not be.
    pub(crate) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Whether the client may still be sending a body that nobody reads.
    pub(crate) fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// The request's answer is on its way, unless it is a stream.
    pub(crate) fn end_request(&self, now: Instant) {
        if self.phase() != Phase::Streaming {
            self.enter(Phase::AwaitingHead);
            self.set(now + self.head);
        }
    }

    /// The answer is a stream, until the guard is dropped: there is no deadline but for its reader to take what it was
    /// given, which may last as long as a request.
    pub(crate) fn stream(clock: &Arc<Self>) -> StreamGuard {
        clock.enter(Phase::Streaming);
        clock.deadline_us.store(NEVER, Ordering::Relaxed);
        StreamGuard(Arc::clone(clock))
    }

    /// The service stops: a stream whose reader does not take what it was given is not waited for any longer than this.
    pub(crate) fn stop(&self, now: Instant) {
        self.stopping.store(true, Ordering::Relaxed);
        if self.phase() == Phase::Streaming && !self.left(now).is_zero() {
            let soon = self.micros(now + STOPPING_READER);
            let deadline = self.deadline_us.load(Ordering::Relaxed);
            if deadline != NEVER {
                self.deadline_us
                    .store(deadline.min(soon), Ordering::Relaxed);
            }
        }
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
        let deadline = match self.deadline_us.load(Ordering::Relaxed) {
            // Looked at again by then: the stream may have got a deadline meanwhile.
            NEVER => return self.head,
            deadline => Duration::from_micros(deadline),
        };
        let left = (self.opened + deadline).saturating_duration_since(now);
        if self.phase() == Phase::Streaming {
            left.min(self.head)
        } else {
            left
        }
    }

    /// The time is over: a running request is told and gets `head` longer to say so. `false` if nothing runs, if it was
    /// told before, or if a stream's reader does not read: then the connection is to be closed.
    pub(crate) fn expire(&self, now: Instant) -> bool {
        let overdue = match self.phase() {
            Phase::ReadingBody => Phase::BodyOverdue,
            Phase::Working => Phase::WorkOverdue,
            Phase::AwaitingHead | Phase::Streaming | Phase::BodyOverdue | Phase::WorkOverdue => {
                return false;
            }
        };
        self.enter(overdue);
        self.set(now + self.head);
        true
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn set(&self, deadline: Instant) {
        self.deadline_us
            .store(self.micros(deadline), Ordering::Relaxed);
    }

    fn micros(&self, deadline: Instant) -> u64 {
        let since = deadline.saturating_duration_since(self.opened);
        u64::try_from(since.as_micros()).map_or(NEVER - 1, |micros| micros.min(NEVER - 1))
    }
}

/// Held by an answer that is a stream, for as long as it is.
#[derive(Debug)]
pub(crate) struct StreamGuard(Arc<ConnectionClock>);

impl StreamGuard {
    /// The stream, with the clock told when its reader has something to take, and when it has taken it.
    pub(crate) fn watch<S: Stream + Send>(self, stream: S) -> impl Stream<Item = S::Item> + Send {
        let mut stream = Box::pin(stream);
        futures_util::stream::poll_fn(move |context| {
            let clock = &self.0;
            clock.deadline_us.store(NEVER, Ordering::Relaxed);
            let polled = stream.as_mut().poll_next(context);
            if matches!(polled, Poll::Ready(Some(_))) {
                clock.set(Instant::now() + clock.request);
            }
            polled
        })
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.enter(Phase::AwaitingHead);
        self.0.set(Instant::now() + self.0.head);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

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
        assert_eq!(clock.phase(), Phase::Streaming);
        drop(guard);
        assert_eq!(clock.phase(), Phase::AwaitingHead);
    }

    #[test]
    fn the_reader_of_a_stream_has_a_deadline_for_what_it_was_given() {
        let clock = Arc::new(ConnectionClock::new(HEAD, REQUEST));
        clock.begin_request(clock.opened);
        let pieces = futures_util::stream::iter([1]).chain(futures_util::stream::pending());
        let mut pieces = Box::pin(ConnectionClock::stream(&clock).watch(pieces));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        clock.end_request(clock.opened);

        let given = Instant::now();
        assert!(pieces.as_mut().poll_next(&mut context).is_ready());
        assert!(clock.left(given) > Duration::ZERO);
        let late = Instant::now() + REQUEST;
        assert_eq!(clock.left(late), Duration::ZERO);
        assert!(!clock.expire(late), "the connection is closed");

        // It has taken it, and there is nothing new.
        assert!(pieces.as_mut().poll_next(&mut context).is_pending());
        assert_eq!(clock.left(late), HEAD);
    }

    #[test]
    fn a_stopping_service_waits_for_no_reader_that_does_not_read() {
        let clock = Arc::new(ConnectionClock::new(HEAD, REQUEST));
        let guard = ConnectionClock::stream(&clock);
        let now = clock.opened;
        clock.stop(now);
        assert_eq!(clock.left(now + 2 * STOPPING_READER), HEAD);
        clock.set(now + REQUEST);
        clock.stop(now);
        assert_eq!(clock.left(now), STOPPING_READER);
        drop(guard);
    }

    #[test]
    fn whoever_takes_an_answer_bit_by_bit_has_time_for_the_next_bit() {
        let clock = Arc::new(ConnectionClock::new(HEAD, REQUEST));
        let now = clock.opened;
        clock.begin_request(now);
        clock.end_request(now);
        let late = now + 10 * HEAD;
        clock.progress(late);
        assert_eq!(clock.left(late), HEAD);

        // A request is not given more time by the answer before it.
        clock.begin_request(late);
        clock.progress(late + SECOND);
        assert_eq!(clock.left(late), REQUEST);

        let guard = ConnectionClock::stream(&clock);
        clock.progress(late);
        assert_eq!(clock.deadline_us.load(Ordering::Relaxed), NEVER);
        clock.set(late);
        clock.progress(late);
        assert_eq!(clock.left(late), HEAD, "the timer looks again");
        assert_eq!(clock.left(late + REQUEST - SECOND), SECOND);
        clock.stop(late);
        clock.progress(late);
        assert_eq!(clock.left(late), STOPPING_READER);
        drop(guard);
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
