//! The way from submitters to workers: a queue a partition, and when it is open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use order_log::{Offset, PartitionId};
use tokio::sync::oneshot;

use crate::CommandError;
use crate::decider::{Answer, Work};
use crate::metrics::{Ending, PartitionMetrics};
use crate::worker::{AcknowledgedEnd, Message, Unavailable};

/// When a client of a full queue is to come back: the queue drains within milliseconds, and HTTP counts in seconds.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// All partitions' lanes, by partition.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    stage: Stage,
}

/// What submitters and the scrape know of one worker.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) partition: PartitionId,
    pub(crate) queue: Sender<Message>,
    /// For what is left in the queue after its worker has ended.
    pub(crate) leftovers: Receiver<Message>,
    pub(crate) unavailable: Arc<Unavailable>,
    pub(crate) acknowledged: Arc<AcknowledgedEnd>,
    /// Whether there is a worker: not for a partition that cannot be written.
    pub(crate) staffed: bool,
    pub(crate) metrics: PartitionMetrics,
}

impl Lanes {
    pub(crate) fn new(lanes: Vec<Lane>) -> Self {
        Self {
            lanes,
            stage: Stage::default(),
        }
    }

    /// Puts a command into its partition's queue; the answer comes through what is returned.
    pub(crate) fn put(
        &self,
        partition: PartitionId,
        work: Work,
    ) -> Result<oneshot::Receiver<Answer>, CommandError> {
        let lane = &self.lanes[partition.index()];
        self.refusal(lane)
            .map_or_else(|| self.put_into(lane, work), Err)
            .map_err(|refusal| lane.count(refusal))
    }

    /// Asks a partition's worker to seal the log's active segment; what came of it comes through what is returned.
    pub(crate) fn put_rotate(
        &self,
        partition: PartitionId,
    ) -> Result<oneshot::Receiver<Result<bool, CommandError>>, CommandError> {
        let lane = &self.lanes[partition.index()];
        if let Some(refusal) = self.refusal(lane) {
            return Err(refusal);
        }
        let (reply, answer) = oneshot::channel();
        self.send(lane, Message::Rotate(reply))?;
        Ok(answer)
    }

    /// Why a lane takes nothing, if it does not.
    fn refusal(&self, lane: &Lane) -> Option<CommandError> {
        if self.stage.is_closed() {
            return Some(CommandError::Stopping);
        }
        (!lane.staffed).then(|| CommandError::PartitionUnavailable {
            partition: lane.partition,
            cause: lane.unavailable.cause().unwrap_or_default(),
        })
    }

    /// [`Lanes::put`] after the first look at the stage, which may have moved on since.
    fn put_into(&self, lane: &Lane, work: Work) -> Result<oneshot::Receiver<Answer>, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.send(lane, Message::Command(work, reply))?;
        Ok(answer)
    }

    fn send(&self, lane: &Lane, message: Message) -> Result<(), CommandError> {
        match lane.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                return Err(CommandError::Overloaded {
                    partition: lane.partition,
                    depth: lane.queue.len(),
                    retry_after: RETRY_AFTER,
                });
            }
            Err(TrySendError::Disconnected(_)) => return Err(CommandError::Stopping),
        }
        if self.stage.is_over() {
            lane.turn_away();
        }
        Ok(())
    }

    /// Refuses new commands from now on.
    pub(crate) fn close(&self) {
        self.stage.move_to(Stage::CLOSED);
    }

    /// Tells every worker to end after what is in its queue.
    pub(crate) fn stop_workers(&self) {
        for lane in self.lanes.iter().filter(|lane| lane.staffed) {
            // Waits for room in a full queue; the worker makes it. There is a receiver: the lane's own.
            drop(lane.queue.send(Message::Stop));
        }
    }

    /// The workers have ended: nobody but us looks into the queues any more.
    pub(crate) fn end(&self) {
        self.stage.move_to(Stage::OVER);
        for lane in &self.lanes {
            lane.turn_away();
        }
    }

    /// Which partitions take no writes, and why.
    pub(crate) fn unavailable(&self) -> Vec<(PartitionId, String)> {
        let causes = self.lanes.iter();
        causes
            .filter_map(|lane| Some((lane.partition, lane.unavailable.cause()?)))
            .collect()
    }

    /// How far a partition has acknowledged.
    pub(crate) fn acknowledged_end(&self, partition: PartitionId) -> Offset {
        self.lanes[partition.index()].acknowledged.load()
    }

    /// How many commands wait.
    pub(crate) fn depths(&self) -> impl Iterator<Item = (PartitionId, usize)> {
        let lanes = self.lanes.iter();
        lanes.map(|lane| (lane.partition, lane.queue.len()))
    }
}

impl Lane {
    /// Counts a refusal that did not need the worker.
    fn count(&self, refusal: CommandError) -> CommandError {
        self.metrics.count(Ending::of_error(&refusal), 1);
        refusal
    }

    /// Answers everyone in the queue of a worker that has ended.
    fn turn_away(&self) {
        for message in self.leftovers.try_iter() {
            match message {
                Message::Command(_, reply) => {
                    let refusal = self.count(CommandError::Stopping);
                    // A client that went away needs no answer.
                    drop(reply.send(Err(refusal)));
                }
                // An operator who went away needs no answer.
                Message::Rotate(reply) => drop(reply.send(Err(CommandError::Stopping))),
                Message::Stop => {}
            }
        }
    }
}

/// Open, closed, over: forward only.
///
/// A command can slip into a queue behind its worker's end. Whoever puts one there looks at the stage afterwards, and
/// whoever ends the stage empties the queues afterwards; all of it is sequentially consistent, so at least one of the two
/// sees the other, and the command is turned away and not forgotten.
#[derive(Debug, Default)]
struct Stage(AtomicU8);

impl Stage {
    const CLOSED: u8 = 1;
    const OVER: u8 = 2;

    fn move_to(&self, stage: u8) {
        self.0.fetch_max(stage, Ordering::SeqCst);
    }

    fn is_closed(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= Self::CLOSED
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= Self::OVER
    }
}

#[cfg(test)]
mod tests {
    use order_domain::{Command, OrderId};

    use super::*;
    use crate::metrics::Metrics;
    use crate::{CommandRequest, Target};

    /// One lane whose worker never looks into the queue.
    fn lanes() -> Lanes {
        let (queue, leftovers) = crossbeam_channel::bounded(8);
        let partition = PartitionId::new(0);
        let metrics = Metrics::register(&prometheus::Registry::new(), 1).unwrap();
        Lanes::new(vec![Lane {
            partition,
            queue,
            leftovers,
            unavailable: Arc::default(),
            acknowledged: Arc::default(),
            staffed: true,
            metrics: metrics.partition(partition),
        }])
    }

    fn work() -> Work {
        let id = OrderId::from_bytes([1; 16]);
        Work {
            id,
            key: None,
            request: CommandRequest {
                target: Target::Existing(id),
                command: Command::Confirm,
                expected: None,
                idempotency: None,
                traceparent: None,
                request_id: None,
            },
        }
    }

    fn is_turned_away(mut answer: oneshot::Receiver<Answer>) -> bool {
        matches!(answer.try_recv(), Ok(Err(CommandError::Stopping)))
    }

    #[test]
    fn a_closed_lane_takes_nothing() {
        let lanes = lanes();
        lanes.close();

        let refusal = lanes.put(PartitionId::new(0), work()).unwrap_err();

        assert!(matches!(refusal, CommandError::Stopping));
    }

    #[test]
    fn a_command_that_slips_in_before_the_end_is_turned_away_by_the_end() {
        let lanes = lanes();
        lanes.close();
        let answer = lanes.put_into(&lanes.lanes[0], work()).unwrap();

        lanes.end();

        assert!(is_turned_away(answer));
    }

    #[test]
    fn a_command_that_slips_in_behind_the_end_is_turned_away_by_its_submitter() {
        let lanes = lanes();
        lanes.close();
        lanes.end();

        let answer = lanes.put_into(&lanes.lanes[0], work()).unwrap();

        assert!(is_turned_away(answer));
    }
}
