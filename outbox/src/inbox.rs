//! What the dispatcher's thread is asked from outside, and the order to stop.

use std::sync::mpsc::SyncSender;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::{EventId, OutboxError};

/// Most requests waiting: an operator sends one at a time.
pub(crate) const REQUESTS_MAX: usize = 64;

/// What the dispatcher is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// Give dead events their tries again: the order of one, or all.
    Redrive {
        which: Option<EventId>,
        reply: SyncSender<Result<u64, OutboxError>>,
    },
    /// Send again to a target that wanted nothing any more.
    Enable {
        reply: SyncSender<Result<(), OutboxError>>,
    },
}

impl Request {
    /// Answers that nothing can be done now.
    pub(crate) fn refuse(self, reason: &str) {
        let error = OutboxError::NotRunning(reason.to_owned());
        match self {
            Self::Redrive { reply, .. } => answer(&reply, Err(error)),
            Self::Enable { reply } => answer(&reply, Err(error)),
        }
    }
}

/// Answers a request whose asker may have gone, which is nobody's fault.
pub(crate) fn answer<T>(reply: &SyncSender<T>, answer: T) {
    if reply.try_send(answer).is_err() {
        tracing::debug!("nobody waits for the answer any more");
    }
}

/// Why a wait ended.
#[derive(Debug)]
pub(crate) enum Wake {
    /// The time is over.
    Elapsed,
    /// Somebody asks.
    Request(Request),
    /// The outbox is to stop, or its handle is gone.
    Stop,
}

/// The dispatcher's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Inbox {
    /// Waits for whatever comes first. With a wait of zero, looks without waiting.
    pub(crate) async fn wait(&mut self, at_most: Duration) -> Wake {
        tokio::select! {
            biased;
            // An error says that the handle is gone.
            _ = self.stop.wait_for(|stop| *stop) => Wake::Stop,
            request = self.requests.recv() => request.map_or(Wake::Stop, Wake::Request),
            () = tokio::time::sleep(at_most) => Wake::Elapsed,
        }
    }
}
