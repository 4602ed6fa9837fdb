//! The background sync of the durability modes that do not wait for one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::partition::Partition;

/// Syncs every partition once an interval, and full segments when there are, until it is dropped.
#[derive(Debug)]
pub(super) struct Flusher {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flusher {
    /// If the interval is not `promised`, a segment that is filled quickly is synced when it is full and not before: a sync
    /// keeps writes to the same file waiting.
    pub(super) fn start(
        partitions: Vec<Arc<Partition>>,
        interval: Duration,
        promised: bool,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let flushed = partitions.clone();
        let thread = thread::Builder::new()
            .name("log-sync".to_owned())
            .spawn(move || {
                let mut next = Instant::now() + interval;
                loop {
                    // Whoever leaves a full segment, or stops this, unparks it.
                    thread::park_timeout(next.saturating_duration_since(Instant::now()));
                    if stopped.load(Ordering::Acquire) {
                        return;
                    }
                    let now = Instant::now();
                    let is_due = now >= next;
                    if is_due {
                        next = now + interval;
                    }
                    for partition in flushed.iter().filter(|it| it.poisoned().is_none()) {
                        let synced = partition.sync_rolls().and_then(|rolled| {
                            if is_due && (promised || !rolled) {
                                partition.sync_left()
                            } else {
                                Ok(())
                            }
                        });
                        if let Err(error) = synced {
                            tracing::error!(%error, "a background sync failed");
                        }
                    }
                }
            })?;
        for partition in &partitions {
            partition.flush_with(thread.thread().clone());
        }
        Ok(Self {
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ended = thread.map(|thread| {
            thread.thread().unpark();
            thread.join()
        });
        if let Some(Err(_)) = ended {
            tracing::error!("the background sync thread panicked");
        }
    }
}
