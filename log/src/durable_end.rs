//! The hand-over from the writer to the readers: how far the log is synced.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(loom)]
use loom::sync::{Condvar, Mutex};
use std::sync::PoisonError;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(loom))]
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::Offset;

/// The offset after the last synced record; moves forward only.
///
/// A store is `Release` and a load `Acquire`: whoever sees an end sees the bytes before it. Publishing costs one atomic
/// store and one load while nobody waits.
#[derive(Debug)]
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
            waiters: AtomicUsize::new(0),
            lock: Mutex::new(()),
            moved: Condvar::new(),
        }
    }

    /// The durable end.
    #[must_use]
    pub fn load(&self) -> Offset {
        Offset::new(self.end.load(Ordering::Acquire))
    }

    /// Moves the end forward to `end` and wakes who waits for it; an end that was reached before changes nothing.
    pub fn publish(&self, end: Offset) {
        self.end.fetch_max(end.get(), Ordering::Release);
        // Pairs with the fence of a waiter: either this sees the waiter, or the waiter sees the new end.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) > 0 {
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
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        loop {
            let end = self.load();
            let left = deadline.saturating_duration_since(Instant::now());
            if end > offset || left.is_zero() {
                self.waiters.fetch_sub(1, Ordering::Relaxed);
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

#[cfg(all(test, loom))]
mod models {
    //! Every interleaving of the hand-over: `RUSTFLAGS="--cfg loom" cargo test -p order-log --lib models`.

    use loom::cell::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const FOR_EVER: Duration = Duration::from_secs(3600);

    #[test]
    fn a_waiter_is_woken_by_whoever_publishes_last() {
        loom::model(|| {
            let end = Arc::new(DurableEnd::new(Offset::ZERO));
            let publisher = {
                let end = Arc::clone(&end);
                thread::spawn(move || {
                    end.publish(Offset::new(1));
                    end.publish(Offset::new(2));
                })
            };
            assert_eq!(end.wait_beyond(Offset::new(1), FOR_EVER), Offset::new(2));
            publisher.join().unwrap();
        });
    }

    #[test]
    fn two_waiters_are_both_woken() {
        loom::model(|| {
            let end = Arc::new(DurableEnd::new(Offset::ZERO));
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let end = Arc::clone(&end);
                    thread::spawn(move || end.wait_beyond(Offset::ZERO, FOR_EVER))
                })
                .collect();
            end.publish(Offset::new(1));
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Offset::new(1));
            }
        });
    }

    /// Stands for the bytes of a segment: loom finds any read that the publish does not order behind the write.
    struct Bytes(UnsafeCell<u64>);

    #[expect(
        unsafe_code,
        reason = "loom's cell is how a model shows what a map shares"
    )]
    // SAFETY: the model checks that no access races; that is its purpose.
    unsafe impl Sync for Bytes {}

    #[test]
    fn whoever_sees_an_end_sees_the_bytes_before_it() {
        loom::model(|| {
            let end = Arc::new(DurableEnd::new(Offset::ZERO));
            let bytes = Arc::new(Bytes(UnsafeCell::new(0)));
            let writer = {
                let (end, bytes) = (Arc::clone(&end), Arc::clone(&bytes));
                thread::spawn(move || {
                    #[expect(unsafe_code, reason = "as above")]
                    // SAFETY: no reader looks before the publish; loom checks it.
                    bytes.0.with_mut(|byte| unsafe { *byte = 7 });
                    end.publish(Offset::new(1));
                })
            };
            if end.load() == Offset::new(1) {
                #[expect(unsafe_code, reason = "as above")]
                // SAFETY: the writer wrote before the publish that was seen; loom checks it.
                let seen = bytes.0.with(|byte| unsafe { *byte });
                assert_eq!(seen, 7);
            }
            writer.join().unwrap();
        });
    }
}
