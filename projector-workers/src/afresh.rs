//! The log folded into new files by the same code: what the live rows are compared with.

use std::ops::ControlFlow;
use std::sync::Arc;

use order_log::{EventLog, Offset, PartitionId};

use crate::board::Board;
use crate::metrics::Metrics;
use crate::trouble::Trouble;
use crate::worker::{Step, Worker};
use crate::{Projection, ProjectorConfig, ReadModel, ReadModelConfig, ReadModelError};

/// Folds the log from its start into the read model at `config`, up to `until` for each projection and partition (a
/// checkpoint of the live model, or any offset beyond the end for everything there is), and returns that model. A model
/// that was begun there before is continued.
///
/// # Errors
/// [`ReadModelError::Halted`] if a partition cannot be folded to its end.
pub fn fold_afresh(
    log: &dyn EventLog,
    config: ReadModelConfig,
    projector: &ProjectorConfig,
    until: &dyn Fn(Projection, PartitionId) -> Offset,
) -> Result<Arc<ReadModel>, ReadModelError> {
    let read_model = ReadModel::open(config)?;
    let mut go_on = |_| ControlFlow::Continue(());
    fold_on(log, &read_model, projector, until, &mut go_on)?;
    Ok(read_model)
}

/// Folds on what `read_model` lacks up to `until`; `progress` gets the records folded so far, and may end it.
pub(crate) fn fold_on(
    log: &dyn EventLog,
    read_model: &Arc<ReadModel>,
    projector: &ProjectorConfig,
    until: &dyn Fn(Projection, PartitionId) -> Offset,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), ReadModelError> {
    let board = Arc::new(Board::new(log, Arc::clone(read_model))?);
    let unseen = prometheus::Registry::new();
    let metrics = Metrics::register(&unseen, &board)
        .expect("a registry that was just made takes the projector's metrics");
    let mut folded = 0;
    for partition in read_model.partitions() {
        let mut worker = Worker::new(
            log.reader(partition)?,
            Arc::clone(read_model),
            Arc::clone(&board),
            metrics.of(&board, partition),
            projector.clone(),
        )?;
        for projection in Projection::ALL {
            worker.end_at(projection, until(projection, partition));
        }
        let begun = worker.checkpoint(Projection::Orders).get();
        while worker
            .step()
            .map_err(|trouble| halted(partition, trouble))?
            == Step::Moved
        {
            let here = worker.checkpoint(Projection::Orders).get() - begun;
            if progress(folded + here).is_break() {
                return Ok(());
            }
        }
        folded += worker.checkpoint(Projection::Orders).get() - begun;
    }
    Ok(())
}

fn halted(partition: PartitionId, trouble: Trouble) -> ReadModelError {
    let (Trouble::Busy(reason)
    | Trouble::Passing(reason)
    | Trouble::Constraint(reason)
    | Trouble::Corrupt(reason)
    | Trouble::Halt(reason)) = trouble;
    ReadModelError::Halted { partition, reason }
}
