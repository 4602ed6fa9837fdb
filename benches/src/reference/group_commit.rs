//! Group commit and nothing else: one thread, one queue, one write and one sync for all who wait.
//!
//! While a sync is in flight the next batch gathers in the queue; there is no timer. The [`Sink`] behind it is a bare
//! file for the reference, and the room's own log when the room is measured: the loop around both is the same.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::oneshot;

use super::{Producer, measure_waiting};
use crate::measure::Sample;
use crate::sample::{self, RECORD_BYTES};

/// What takes batches of records: a bare file, or a log.
pub trait Sink: Send {
    /// Adds a record to the batch at hand.
    fn add(&mut self, record: &[u8]);

    /// Writes the batch at hand, as durably as the sink is; the next record starts a new one.
    ///
    /// # Errors
    /// If the batch could not be written.
    fn commit(&mut self) -> anyhow::Result<()>;
}

/// Most records of one commit.
pub const BATCH_RECORDS_MAX: usize = 4096;

/// Most records that wait in the queue. Producers are fewer, so it is never full.
const QUEUE_RECORDS_MAX: usize = 8192;

struct Waiting {
    record: [u8; RECORD_BYTES],
    done: oneshot::Sender<()>,
}

/// The one thread that commits.
#[derive(Debug)]
pub struct GroupCommit {
    appender: Option<Appender>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// Gives records to a [`GroupCommit`].
#[derive(Debug, Clone)]
pub struct Appender(Sender<Waiting>);

impl GroupCommit {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(sink: Box<dyn Sink>) -> anyhow::Result<Self> {
        let (sender, receiver) = crossbeam_channel::bounded(QUEUE_RECORDS_MAX);
        let thread = std::thread::Builder::new()
            .name("group-commit".to_owned())
            .spawn(move || commit_all(sink, &receiver))
            .context("start the committing thread")?;
        Ok(Self {
            appender: Some(Appender(sender)),
            thread: Some(thread),
        })
    }

    /// A way to append.
    #[must_use]
    pub fn appender(&self) -> Appender {
        self.appender
            .clone()
            .expect("taken by `stop` alone, which consumes the group commit")
    }

    /// Ends the thread as soon as every appender is gone and all records are committed.
    ///
    /// # Errors
    /// The error of the commit that failed, if one did.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.appender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => anyhow::bail!("the committing thread panicked"),
            None => Ok(()),
        }
    }
}

fn commit_all(mut sink: Box<dyn Sink>, queue: &Receiver<Waiting>) -> anyhow::Result<()> {
    let mut waiting = Vec::with_capacity(BATCH_RECORDS_MAX);
    while let Ok(first) = queue.recv() {
        let mut next = Some(first);
        while let Some(Waiting { record, done }) = next {
            sink.add(&record);
            waiting.push(done);
            next = if waiting.len() < BATCH_RECORDS_MAX {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        sink.commit()?;
        for done in waiting.drain(..) {
            // Whoever no longer waits needs no answer.
            done.send(()).unwrap_or_default();
        }
    }
    Ok(())
}

impl Appender {
    /// Appends a record; returns when it is committed.
    ///
    /// # Errors
    /// If the queue is full, or a commit failed and the thread ended.
    pub async fn append(&self, record: [u8; RECORD_BYTES]) -> anyhow::Result<()> {
        let (done, committed) = oneshot::channel();
        self.0
            .try_send(Waiting { record, done })
            .map_err(|refused| match refused {
                TrySendError::Full(_) => {
                    anyhow::anyhow!("more than {QUEUE_RECORDS_MAX} records wait")
                }
                TrySendError::Disconnected(_) => anyhow::anyhow!("the committing thread ended"),
            })?;
        committed.await.context("the commit failed")
    }
}

struct Appending {
    appender: Appender,
    record: [u8; RECORD_BYTES],
}

impl Producer for Appending {
    async fn append(&mut self) -> anyhow::Result<()> {
        self.appender.append(self.record).await
    }
}

/// `producers` tasks that each append a record, wait until it is committed, and append the next, for `duration`.
///
/// # Errors
/// If a commit fails.
pub fn measure_producers(
    sink: Box<dyn Sink>,
    producers: u64,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let group_commit = GroupCommit::start(sink)?;
    let sample = measure_waiting(
        (0..producers).map(|number| Appending {
            appender: group_commit.appender(),
            record: sample::record(number),
        }),
        duration,
    );
    group_commit.stop()?;
    sample
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Keeps every committed batch.
    #[derive(Debug, Default)]
    struct Remembering {
        batch: Vec<Vec<u8>>,
        batches: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
        fails: bool,
    }

    impl Sink for Remembering {
        fn add(&mut self, record: &[u8]) {
            self.batch.push(record.to_vec());
        }

        fn commit(&mut self) -> anyhow::Result<()> {
            anyhow::ensure!(!self.fails, "told to fail");
            self.batches
                .lock()
                .unwrap()
                .push(std::mem::take(&mut self.batch));
            Ok(())
        }
    }

    #[test]
    fn every_answered_record_was_committed_once() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let sink = Remembering {
            batches: Arc::clone(&batches),
            ..Remembering::default()
        };
        let group_commit = GroupCommit::start(Box::new(sink)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let tasks: Vec<_> = (0..100)
            .map(|number| {
                let appender = group_commit.appender();
                runtime.spawn(async move { appender.append(sample::record(number)).await })
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap().unwrap();
        }
        group_commit.stop().unwrap();

        let mut committed: Vec<Vec<u8>> = batches.lock().unwrap().concat();
        committed.sort();
        let mut expected: Vec<Vec<u8>> = (0..100)
            .map(|number| sample::record(number).to_vec())
            .collect();
        expected.sort();
        assert_eq!(committed, expected);
    }

    #[test]
    fn a_failed_commit_answers_nobody_and_is_reported() {
        let sink = Remembering {
            fails: true,
            ..Remembering::default()
        };
        let group_commit = GroupCommit::start(Box::new(sink)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let appender = group_commit.appender();
        assert!(
            runtime
                .block_on(appender.append(sample::record(1)))
                .is_err()
        );
        drop(appender);
        assert_eq!(group_commit.stop().unwrap_err().to_string(), "told to fail");
    }
}
