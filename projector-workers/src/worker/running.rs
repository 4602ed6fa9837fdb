//! A worker on its thread: when it works, when it waits, and when it stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use order_log::PartitionId;

use super::{Redrive, Step, Worker};
use crate::ReadModelError;
use crate::database::note_damage;
use crate::fold::Changes;
use crate::frames::FrameBatch;
use crate::trouble::Trouble;

/// How long a worker with nothing to do waits before it looks for requests. New frames wake it at once.
const IDLE: Duration = Duration::from_millis(100);

/// How long a worker waits for a switch of tables, which takes milliseconds.
const HELD: Duration = Duration::from_millis(1);

/// A transaction costs as much as some twenty rows. While frames keep coming, a worker lets this much time go by after a
/// small batch, so that the next one is larger; alone or far behind, a frame does not wait.
const GATHER: Duration = Duration::from_millis(4);
/// Most times in a row, while they come fast and nobody waits for them: bounds how old the rows are that nobody asks for.
const GATHERS_MAX: u64 = 12;
/// Records that come meanwhile and make it worth going on: slower, and waiting saves little.
pub(crate) const GATHERED_AT_ONCE: u64 = 16;
/// Batches of this many records are neither a lone event nor a backlog.
const GATHERED_RECORDS: std::ops::Range<u64> = GATHERED_LEAST..1024;
/// Records that are more than a lone event.
pub(super) const GATHERED_LEAST: u64 = 4;
/// Records that are enough for a transaction, which costs next to nothing beside them.
pub(crate) const GATHERED_ENOUGH: u64 = 512;

/// Most bytes of frames an idle worker keeps room for.
const IDLE_BYTES_MAX: usize = 64 << 10;

/// First and longest pause before something that failed is tried again.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LONGEST: Duration = Duration::from_secs(1);

impl Worker {
    /// Works until `stop` is set. When nothing more can be done it says why and stands still, until tables are switched:
    /// a rebuild may have mended what was wrong.
    pub(crate) fn run(&mut self, requests: &Receiver<Redrive>, stop: &AtomicBool) {
        while let Err(reason) = self.work(requests, stop) {
            tracing::error!(
                partition = self.partition.get(),
                reason,
                "the projector has halted"
            );
            self.called = None;
            let known = self.read_model.generations();
            self.board.halt(self.partition, reason.clone());
            while self.read_model.generations() == known {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                match requests.recv_timeout(IDLE) {
                    Ok(request) => {
                        let halted = ReadModelError::Halted {
                            partition: self.partition,
                            reason: reason.clone(),
                        };
                        // Whoever asked may have gone.
                        request.reply.send(Err(halted)).ok();
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            self.board.go_on(self.partition);
        }
    }

    pub(crate) fn work(
        &mut self,
        requests: &Receiver<Redrive>,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let mut backoff = Backoff::default();
        while !stop.load(Ordering::SeqCst) {
            while let Ok(request) = requests.try_recv() {
                // Nobody is to wait for this as for a batch.
                self.called = None;
                self.answer(&request)?;
            }
            let stepped = self.step();
            // Whoever was called and had nothing is not waited for.
            self.called = None;
            let pause = match stepped {
                Ok(step) => {
                    backoff = Backoff::default();
                    match step {
                        Step::Moved if GATHERED_RECORDS.contains(&self.applied_records) => {
                            if self.gather(requests)? {
                                continue;
                            }
                            return Ok(());
                        }
                        Step::Moved => continue,
                        Step::CaughtUp(end) => {
                            if self.log.wait_beyond(end, IDLE) == end {
                                self.let_go_of_memory();
                            }
                            continue;
                        }
                        Step::Paused => IDLE,
                        Step::Held => HELD,
                    }
                }
                Err(trouble) => backoff.next(self.endure(trouble)?, self.partition),
            };
            match requests.recv_timeout(pause) {
                Ok(request) => self.answer(&request)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Lets frames come together for the next transaction; `false` if nobody will ask for anything any more.
    fn gather(&mut self, requests: &Receiver<Redrive>) -> Result<bool, String> {
        let joint = Arc::clone(self.read_model.joint(self.partition));
        for gathers in 1..=GATHERS_MAX {
            match requests.try_recv() {
                Ok(request) => {
                    self.answer(&request)?;
                    break;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
            self.called = joint.gather(GATHER);
            if self.called.is_some() || self.has_gathered(gathers) {
                break;
            }
        }
        Ok(true)
    }

    /// Whether what has come is to be applied after so many times: because it is enough, because it is little, or because
    /// somebody waits for it. Who waits in another process is not known here.
    pub(crate) fn has_gathered(&self, gathers: u64) -> bool {
        let foremost = self
            .members
            .iter()
            .map(|member| self.checkpoint(member))
            .max();
        let records = foremost.map_or(0, |from| {
            self.log.durable_end().get().saturating_sub(from.get())
        });
        let mut members = self.members.iter();
        records >= GATHERED_ENOUGH
            || records < gathers * GATHERED_AT_ONCE
            || self.checkpoints.is_followed()
            || members.any(|member| self.checkpoints.is_awaited(member, self.partition))
    }

    /// Gives back what a large batch took, when nothing is left to do.
    fn let_go_of_memory(&mut self) {
        if self.batch.memory_bytes() > IDLE_BYTES_MAX {
            self.batch = FrameBatch::default();
            self.changes = Changes::default();
        }
    }

    /// Counts a trouble that may pass and gives its reason; gives up on any other.
    pub(super) fn endure(&self, trouble: Trouble) -> Result<String, String> {
        match trouble {
            Trouble::Busy(reason) => {
                self.metrics.busy.inc();
                Ok(reason)
            }
            Trouble::Passing(reason) => Ok(reason),
            Trouble::Halt(reason) => Err(reason),
            Trouble::Constraint(reason) => Err(format!(
                "a row does not fit its table, whichever order is left out ({reason}); rebuild the projection"
            )),
            Trouble::Corrupt(reason) => {
                let path = self.read_model.path_of(self.partition);
                let mut reason = format!(
                    "{} is damaged ({reason}); restart the service: the file is set aside and rebuilt from the log",
                    path.display()
                );
                if let Err(error) = note_damage(path) {
                    reason = format!("{reason}; if it is not, move it away by hand ({error})");
                }
                Err(reason)
            }
        }
    }
}

/// Longer and longer pauses while something keeps failing; the first failure of a row is logged.
#[derive(Debug, Default)]
struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    fn next(&mut self, reason: String, partition: PartitionId) -> Duration {
        let pause = match self.last {
            Some(last) => (last * 2).min(BACKOFF_LONGEST),
            None => {
                tracing::warn!(
                    partition = partition.get(),
                    reason,
                    "a batch could not be applied; trying again"
                );
                BACKOFF_FIRST
            }
        };
        self.last = Some(pause);
        pause
    }
}
