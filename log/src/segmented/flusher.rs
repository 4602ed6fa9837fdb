//! The background sync of the durability modes that do not wait for one.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::partition::Partition;

/// Syncs every partition once an interval, and when one of them has left a full segment, until it is dropped.
#[derive(Debug)]
pub(super) struct Flusher {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flusher {
    pub(super) fn start(partitions: Vec<Arc<Partition>>, interval: Duration) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let flushed = partitions.clone();
        let thread = thread::Builder::new()
            .name("log-sync".to_owned())
            .spawn(move || {
                // Whoever has something urgent, or stops this, unparks it; to be woken for nothing is a sync too many.
                thread::park_timeout(interval);
                while !stopped.load(Ordering::Acquire) {
                    for partition in &flushed {
                        if partition.poisoned().is_none()
                            && let Err(error) = partition.sync_left()
                        {
                            tracing::error!(%error, "a background sync failed");
                        }
                    }
                    thread::park_timeout(interval);
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
