//! When requests are to be sent: fixed before the run, independent of the answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

/// Longest time the pacer sleeps between two looks at whether the run was ended.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// Hands out the moments at which requests are due.
///
/// A thread of its own waits for them: the runtime's timer is only good to a millisecond, which would be most of the
/// latency it is to measure.
#[derive(Debug)]
pub(super) struct Pacing {
    start: Instant,
    /// Requests a second; `None` for a closed loop.
    rate: Option<f64>,
    /// How many requests are handed out at most.
    count_max: u64,
    /// No request is due at or after this moment.
    end: Instant,
    /// After this moment none is handed out, due or not: the backlog of a service that cannot keep up ends here.
    deadline: Instant,
    issued: AtomicU64,
    due: Semaphore,
}

impl Pacing {
    pub(super) fn new(
        start: Instant,
        rate: Option<f64>,
        count_max: u64,
        duration: Duration,
        drain: Duration,
    ) -> Self {
        let end = start + duration;
        let count_max = rate.map_or(count_max, |rate| count_max.min(due_by(rate, duration)));
        Self {
            start,
            rate,
            count_max,
            end,
            deadline: end + drain,
            issued: AtomicU64::new(0),
            due: Semaphore::new(0),
        }
    }

    /// Waits for the next request and returns the moment it was due; `None` when there is no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        let Some(rate) = self.rate else {
            let now = Instant::now();
            return (now < self.end
                && self.issued.fetch_add(1, Ordering::Relaxed) < self.count_max)
                .then_some(now);
        };
        // Closed at the deadline or when all are issued.
        self.due.acquire().await.ok()?.forget();
        let number = self.issued.fetch_add(1, Ordering::Relaxed);
        (number < self.count_max).then(|| self.start + due_at(rate, number))
    }

    /// Makes requests due as time passes; returns how many were never sent because the deadline came first. To be called
    /// on a thread of its own; returns at once in a closed loop.
    pub(super) fn pace(&self) -> u64 {
        let Some(rate) = self.rate else { return 0 };
        let mut released = 0;
        while released < self.count_max {
            let due = due_by(rate, self.start.elapsed()).min(self.count_max);
            if due > released {
                self.due
                    .add_permits(usize::try_from(due - released).unwrap_or(Semaphore::MAX_PERMITS));
                released = due;
            } else {
                let next = self.start + due_at(rate, released);
                std::thread::sleep(
                    next.saturating_duration_since(Instant::now())
                        .min(SLEEP_MAX),
                );
            }
        }
        while self.issued.load(Ordering::Relaxed) < self.count_max && Instant::now() < self.deadline
        {
            std::thread::sleep(
                SLEEP_MAX.min(self.deadline.saturating_duration_since(Instant::now())),
            );
        }
        self.due.close();
        self.count_max
            .saturating_sub(self.issued.load(Ordering::Relaxed))
    }
}

/// When the request of this number is due, after the start.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^53 requests take longer than any run"
)]
fn due_at(rate: f64, number: u64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// How many requests are due at `elapsed` after the start: the first one at once.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and durations are positive and bounded"
)]
fn due_by(rate: f64, elapsed: Duration) -> u64 {
    (elapsed.as_secs_f64() * rate).floor() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn due_requests_are_evenly_spaced_and_counted() {
        assert_eq!(due_at(1_000.0, 5), Duration::from_millis(5));
        assert_eq!(due_by(1_000.0, Duration::ZERO), 1);
        assert_eq!(due_by(1_000.0, Duration::from_micros(4_500)), 5);
    }

    #[tokio::test]
    async fn a_stalled_client_still_gets_the_moments_at_which_requests_were_due() {
        let second = Duration::from_secs(1);
        // 1,000 a second for the second before now: all are due, none was sent.
        let start = Instant::now() - second;
        let pacing = Arc::new(Pacing::new(
            start,
            Some(1_000.0),
            1_000,
            second,
            3_600 * second,
        ));
        let pacer = {
            let pacing = Arc::clone(&pacing);
            std::thread::spawn(move || pacing.pace())
        };
        let mut due = Vec::new();
        for _ in 0..1_000 {
            due.extend(pacing.next().await);
        }
        assert_eq!(
            (due[0] - start, due[999] - due[0]),
            (Duration::ZERO, Duration::from_millis(999))
        );
        assert_eq!(pacer.join().unwrap(), 0);
        assert_eq!(pacing.next().await, None);
    }

    #[tokio::test]
    async fn what_was_never_sent_is_counted() {
        let start = Instant::now();
        let pacing = Pacing::new(
            start,
            Some(1e6),
            10,
            Duration::from_millis(1),
            Duration::ZERO,
        );
        assert_eq!(pacing.pace(), 10);
        assert_eq!(pacing.next().await, None);
    }

    #[tokio::test]
    async fn a_closed_loop_ends_at_its_count() {
        let pacing = Pacing::new(
            Instant::now(),
            None,
            2,
            Duration::from_secs(3_600),
            Duration::ZERO,
        );
        assert!(pacing.next().await.is_some());
        assert!(pacing.next().await.is_some());
        assert!(pacing.next().await.is_none());
    }
}
