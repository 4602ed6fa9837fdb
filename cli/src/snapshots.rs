//! The command workers' view of the read model: the port of the one room, answered by the other.

use std::sync::Arc;

use order_command_workers::{IdempotencyEntry, OrderSnapshot, SnapshotError, Snapshots};
use order_domain::OrderId;
use order_log::{Offset, PartitionId};
use order_projector_workers::{Checkpoints, Projection, ReadModelError, ReadModelReader};

/// One partition's rows and checkpoint.
#[derive(Debug)]
pub(crate) struct ReadModelSnapshots {
    partition: PartitionId,
    checkpoints: Arc<Checkpoints>,
    reader: ReadModelReader,
}

impl ReadModelSnapshots {
    pub(crate) fn new(
        partition: PartitionId,
        checkpoints: Arc<Checkpoints>,
        reader: ReadModelReader,
    ) -> Self {
        Self {
            partition,
            checkpoints,
            reader,
        }
    }
}

fn unreadable(error: ReadModelError) -> SnapshotError {
    SnapshotError(error.to_string())
}

impl Snapshots for ReadModelSnapshots {
    fn checkpoint(&self) -> Offset {
        self.checkpoints.load(Projection::Orders, self.partition)
    }

    fn order(&mut self, id: OrderId) -> Result<Option<OrderSnapshot>, SnapshotError> {
        // Never a row that lacks events before the checkpoint: a decision on it would repeat versions of the order.
        let row = self
            .reader
            .snapshot(self.partition, id)
            .map_err(unreadable)?;
        row.map(|row| {
            let order = row.to_order().map_err(unreadable)?;
            Ok(OrderSnapshot {
                order,
                last_frame: row.last_frame,
            })
        })
        .transpose()
    }

    fn idempotency(
        &mut self,
        key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyEntry>, SnapshotError> {
        let row = self
            .reader
            .idempotency(self.partition, key_digest)
            .map_err(unreadable)?;
        Ok(row.map(|row| IdempotencyEntry {
            fingerprint: row.fingerprint,
            order_id: row.order_id,
            version: row.version,
            frame: row.frame,
        }))
    }
}
