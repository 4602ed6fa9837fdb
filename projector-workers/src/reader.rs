//! Short reads: one order, a page of orders, one idempotency key.

use order_domain::{CustomerId, OrderId, Status, Timestamp, Version};
use order_log::{Offset, PartitionId};

use crate::ReadModelError;

/// One row of `OrderView`, as stored: lines and metadata stay JSON text, which most readers only pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// The order.
    pub id: OrderId,
    /// Its partition.
    pub partition: PartitionId,
    /// Count of its events.
    pub version: Version,
    /// Where it is in its life.
    pub status: Status,
    /// Who ordered.
    pub customer_id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Minor units.
    pub total: i64,
    /// Minor units.
    pub paid: i64,
    /// Minor units.
    pub refunded: i64,
    /// The id the next added line gets.
    pub next_line_id: u32,
    /// JSON array of `{"line_id","sku","quantity","unit_price"}`.
    pub lines: String,
    /// JSON object of strings.
    pub metadata: String,
    /// Append time of the first event.
    pub placed_at: Timestamp,
    /// Append time of the last event.
    pub updated_at: Timestamp,
    /// Base offset of the last frame folded into the row.
    pub last_frame: Offset,
}

impl OrderRow {
    /// The order this row shows.
    ///
    /// # Errors
    /// [`ReadModelError::MalformedRow`] if the row holds what no projector wrote.
    pub fn to_order(&self) -> Result<order_domain::Order, ReadModelError> {
        todo!()
    }
}

/// Which orders a page holds, and where it starts.
#[derive(Debug, Clone, Default)]
pub struct OrderFilter {
    /// Only this status.
    pub status: Option<Status>,
    /// Only this customer.
    pub customer_id: Option<CustomerId<'static>>,
    /// Placed at or after.
    pub created_after: Option<Timestamp>,
    /// Placed before.
    pub created_before: Option<Timestamp>,
    /// Start behind this order: newest first, by id.
    pub before: Option<OrderId>,
    /// Most rows.
    pub limit: usize,
}

/// What an idempotency key was used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyRow {
    /// Digest of the request.
    pub fingerprint: [u8; 16],
    /// The order it made or changed.
    pub order_id: OrderId,
    /// The order's version after it.
    pub version: Version,
    /// Base offset of the frame it made.
    pub frame: Offset,
}

/// Read-only connections to every file, owned by one thread. Every read is one short transaction.
#[derive(Debug)]
pub struct ReadModelReader {}

impl ReadModelReader {
    /// One order.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn order(
        &mut self,
        partition: PartitionId,
        id: OrderId,
    ) -> Result<Option<OrderRow>, ReadModelError> {
        let _ = (partition, id);
        todo!()
    }

    /// Several orders within one transaction a file, in the order asked.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn orders(
        &mut self,
        ids: &[(PartitionId, OrderId)],
    ) -> Result<Vec<Option<OrderRow>>, ReadModelError> {
        let _ = ids;
        todo!()
    }

    /// A page of orders over all partitions, newest first.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn page(&mut self, filter: &OrderFilter) -> Result<Vec<OrderRow>, ReadModelError> {
        let _ = filter;
        todo!()
    }

    /// What a key was used for, by its digest.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn idempotency(
        &mut self,
        partition: PartitionId,
        key_digest: [u8; 16],
    ) -> Result<Option<IdempotencyRow>, ReadModelError> {
        let _ = (partition, key_digest);
        todo!()
    }
}
