//! How far each projection is, a partition: known to everybody, moved by the workers alone.

use std::time::Duration;

use order_log::{Offset, PartitionId};

/// A set of tables with a checkpoint of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// `OrderView`, its lines and the idempotency keys: core, what reads and decisions need.
    Orders,
    /// Totals a customer.
    CustomerSummary,
    /// Units a SKU.
    SkuDemand,
}

impl Projection {
    /// All of them, core first.
    pub const ALL: [Self; 3] = [Self::Orders, Self::CustomerSummary, Self::SkuDemand];

    /// The name in metrics, tables and the API: `orders`, `customer_summary`, `sku_demand`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::CustomerSummary => "customer_summary",
            Self::SkuDemand => "sku_demand",
        }
    }
}

/// The checkpoints of all projections and partitions: the offset after the last applied record.
#[derive(Debug)]
pub struct Checkpoints {}

impl Checkpoints {
    /// The checkpoint. One atomic load.
    #[must_use]
    pub fn load(&self, projection: Projection, partition: PartitionId) -> Offset {
        let _ = (projection, partition);
        todo!()
    }

    /// Waits until the checkpoint is at or beyond `offset`; `false` if `timeout` passed first.
    pub async fn wait_for(
        &self,
        projection: Projection,
        partition: PartitionId,
        offset: Offset,
        timeout: Duration,
    ) -> bool {
        let _ = (projection, partition, offset, timeout);
        todo!()
    }
}
