//! An order out of the log alone: back from frame to frame to its first, then forward. For what the read model does not
//! know yet.

use order_domain::{Order, fold_owned};
use order_log::{LogError, Offset, PartitionReader};

use crate::frames::{BatchFrame, FrameBatch};
use crate::park::ParkReason;

/// Why an order cannot be told from the log.
#[derive(Debug)]
pub(crate) enum HistoryError {
    /// The log cannot be read; nothing is known about the order.
    Log(LogError),
    /// The log reads, but does not make an order.
    Broken(ParkReason),
}

impl From<LogError> for HistoryError {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// The order as it was before `frame`.
pub(crate) fn order_before(
    log: &dyn PartitionReader,
    frame: &BatchFrame,
) -> Result<Order, HistoryError> {
    let mut bases = Vec::new();
    let mut step = FrameBatch::default();
    let mut previous = frame.previous;
    // Bounded: each step goes to a lower offset, and is refused if it does not.
    while let Some(base) = previous {
        if base >= *bases.last().unwrap_or(&frame.base) {
            return Err(HistoryError::Broken(ParkReason::HistoryLoops(base)));
        }
        bases.push(base);
        step.clear();
        step.push_at(log, base)?;
        let found = step.frames().first().filter(|found| found.key == frame.key);
        let found = found.ok_or(HistoryError::Broken(ParkReason::HistoryLost(base)))?;
        previous = found.previous;
    }
    let mut order = None;
    for base in bases.iter().rev() {
        fold_frame_at(log, *base, &mut step, &mut order)?;
    }
    order.ok_or(HistoryError::Broken(ParkReason::NotPlaced))
}

fn fold_frame_at(
    log: &dyn PartitionReader,
    base: Offset,
    step: &mut FrameBatch,
    order: &mut Option<Order>,
) -> Result<(), HistoryError> {
    step.clear();
    step.push_at(log, base)?;
    let broken = |reason| HistoryError::Broken(reason);
    let mut events = Vec::new();
    for frame in step.frames() {
        step.decode(frame, &mut events)
            .map_err(|error| broken(error.into()))?;
        for recorded in events.drain(..) {
            fold_owned(order, frame.id(), recorded.event, frame.at())
                .map_err(|error| broken(error.into()))?;
        }
    }
    Ok(())
}
