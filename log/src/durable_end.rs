//! The hand-over from the writer to the readers: how far the log is synced.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Offset;

/// The offset after the last synced record; moves forward only.
///
/// A store is `Release` and a load `Acquire`: whoever sees an end sees the bytes before it. Publishing costs one atomic
/// store and one load while nobody waits.
#[derive(Debug, Default)]
pub struct DurableEnd {
    end: AtomicU64,
    waiters: AtomicUsize,
    lock: Mutex<()>,
    moved: Condvar,
}

impl DurableEnd {
    /// Starts at `end`.
    #[must_use]
    pub fn new(end: Offset) -> Self {
        Self {
            end: AtomicU64::new(end.get()),
            ..Self::default()
        }
    }

    /// The durable end.
    #[must_use]
    pub fn load(&self) -> Offset {
        Offset::new(self.end.load(Ordering::Acquire))
    }

    /// Moves the end forward to `end` and wakes who waits for it; an end that was reached before changes nothing.
    pub fn publish(&self, end: Offset) {
        self.end.fetch_max(end.get(), Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            // Taking the lock orders this wake-up after a waiter's last look at `end`.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.moved.notify_all();
        }
    }

    /// Waits until the end is beyond `offset` or `timeout` passed; returns the end.
    pub fn wait_beyond(&self, offset: Offset, timeout: Duration) -> Offset {
        let end = self.load();
        if end > offset {
            return end;
        }
        let deadline = Instant::now() + timeout;
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiters.fetch_add(1, Ordering::SeqCst);
        loop {
            let end = Offset::new(self.end.load(Ordering::SeqCst));
            let left = deadline.saturating_duration_since(Instant::now());
            if end > offset || left.is_zero() {
                self.waiters.fetch_sub(1, Ordering::SeqCst);
                return end;
            }
            guard = self
                .moved
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
