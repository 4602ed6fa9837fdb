//! The background sync of the durability modes that do not wait for one.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::partition::Partition;

/// Syncs every partition once an interval, until it is dropped.
#[derive(Debug)]
pub(super) struct Flusher {
    stop: Mutex<Option<Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Flusher {
    pub(super) fn start(partitions: Vec<Arc<Partition>>, interval: Duration) -> io::Result<Self> {
        let (stop, stopped) = channel::<()>();
        let thread = thread::Builder::new()
            .name("log-sync".to_owned())
            .spawn(move || {
                while matches!(
                    stopped.recv_timeout(interval),
                    Err(RecvTimeoutError::Timeout)
                ) {
                    for partition in &partitions {
                        if partition.poisoned().is_none()
                            && let Err(error) = partition.sync_left()
                        {
                            tracing::error!(%error, "a background sync failed");
                        }
                    }
                }
            })?;
        Ok(Self {
            stop: Mutex::new(Some(stop)),
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(
            self.stop
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the background sync thread panicked");
        }
    }
}
