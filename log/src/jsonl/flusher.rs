//! The thread that syncs where appends do not wait for a sync: durability `interval=<ms>` and `os`.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::shared_file::SharedFile;
use crate::Durability;

/// How often `os` syncs. It promises no time; but readers see only what is synced, so waiting for the operating system's
/// own half minute would hide everything from them that long.
const OS_INTERVAL: Duration = Duration::from_millis(100);

/// Stops and joins its thread when dropped, after a last sync.
#[derive(Debug)]
pub(super) struct Flusher {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    asked: Mutex<bool>,
    changed: Condvar,
}

impl Flusher {
    /// Starts the thread `durability` needs, if it needs one.
    pub(super) fn start(
        shared: Arc<SharedFile>,
        durability: Durability,
    ) -> std::io::Result<Option<Self>> {
        let interval = match durability {
            Durability::Always => return Ok(None),
            Durability::Interval(interval) => interval,
            Durability::Os => OS_INTERVAL,
        };
        let stop = Arc::new(Stop::default());
        let thread = std::thread::Builder::new()
            .name("jsonl-flusher".to_owned())
            .spawn({
                let stop = Arc::clone(&stop);
                move || flush_until_stopped(&shared, interval, &stop)
            })?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
        }))
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        *self
            .stop
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the flusher of the JSONL log panicked");
        }
    }
}

fn flush_until_stopped(shared: &SharedFile, interval: Duration, stop: &Stop) {
    loop {
        let asked = stop.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _timeout) = stop
            .changed
            .wait_timeout_while(asked, interval, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner);
        let is_last = *asked;
        drop(asked);
        if let Err(error) = shared.sync() {
            tracing::error!(path = %shared.path.display(), %error, "syncing failed: the log takes no more writes");
            return;
        }
        if is_last {
            return;
        }
    }
}
