//! Orders set aside: an event that cannot be applied parks its order, later events of that order queue behind it, all
//! others go on. Nothing is skipped silently.

use std::collections::HashSet;

use order_domain::codec::CodecError;
use order_domain::{FoldError, OrderId};
use order_log::{Key, Offset, PartitionId};
use rusqlite::{Connection, params};

use crate::order_row::ReadRowError;
use crate::side::Side;
use crate::sql::{from_sql, to_sql};
use crate::{Projection, ReadModelError};

/// Why a frame cannot be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParkReason {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Fold(#[from] FoldError),
    #[error("its first event is number {found} of its order, the row waits for number {expected}")]
    OutOfSequence { expected: u32, found: u32 },
    #[error("{0}")]
    UnreadableRow(String),
    #[error("the log has no event that places the order")]
    NotPlaced,
    #[error("the frame at {0}, the order's previous one, is not there")]
    HistoryLost(Offset),
    #[error("the frame at {0}, the order's previous one, is not before it")]
    HistoryLoops(Offset),
    #[error("the sums of {0} would leave the range of 64 bits")]
    SumOverflow(&'static str),
}

/// One frame to be set aside.
#[derive(Debug)]
pub(crate) struct ParkedFrame {
    pub(crate) projection: Projection,
    pub(crate) key: Key,
    pub(crate) base: Offset,
    pub(crate) records: u64,
    /// `None` for a frame that waits behind an earlier one of its order.
    pub(crate) reason: Option<ParkReason>,
}

const BEHIND: &str = "waits behind an earlier event of its order";

/// The orders that are set aside in one partition, by projection.
#[derive(Debug, Clone, Default)]
pub(crate) struct ParkedOrders {
    orders: [HashSet<Key>; Projection::ALL.len()],
}

impl ParkedOrders {
    pub(crate) fn load(
        connection: &Connection,
        partition: PartitionId,
        side: Side,
    ) -> rusqlite::Result<Self> {
        let mut parked = Self::default();
        let mut statement = connection.prepare(
            &side.on("SELECT DISTINCT projection, order_id FROM ParkedEvent WHERE partition = ?1"),
        )?;
        let mut rows = statement.query([partition.get()])?;
        while let Some(row) = rows.next()? {
            let projection = Projection::from_name(row.get_ref(0)?.as_str()?);
            let id = OrderId::parse(row.get_ref(1)?.as_str()?).ok();
            if let (Some(projection), Some(id)) = (projection, id) {
                parked.insert(projection, Key::new(*id.as_bytes()));
            }
        }
        Ok(parked)
    }

    pub(crate) fn contains(&self, projection: Projection, key: Key) -> bool {
        let orders = &self.orders[projection.index()];
        // Nearly always empty: no hash is computed then.
        !orders.is_empty() && orders.contains(&key)
    }

    pub(crate) fn insert(&mut self, projection: Projection, key: Key) {
        self.orders[projection.index()].insert(key);
    }

    pub(crate) fn remove(&mut self, projection: Projection, key: Key) {
        self.orders[projection.index()].remove(&key);
    }

    pub(crate) fn count(&self, projection: Projection) -> u64 {
        self.orders[projection.index()].len() as u64
    }

    pub(crate) fn keys(&self, projection: Projection) -> Vec<Key> {
        let mut keys: Vec<Key> = self.orders[projection.index()].iter().copied().collect();
        keys.sort_unstable();
        keys
    }
}

/// Writes frames to `ParkedEvent`; one that stands there already gets the new reason.
pub(crate) fn store<'f>(
    connection: &Connection,
    partition: PartitionId,
    side: Side,
    frames: impl Iterator<Item = &'f ParkedFrame>,
) -> rusqlite::Result<()> {
    let mut insert = connection.prepare_cached(
        &side.on("INSERT OR REPLACE INTO ParkedEvent VALUES (?1, ?2, ?3, ?4, ?5, ?6)"),
    )?;
    for frame in frames {
        let id = OrderId::from_bytes(*frame.key.as_bytes());
        let reason = frame.reason.as_ref().map(ToString::to_string);
        insert.execute(params![
            frame.projection.name(),
            partition.get(),
            id.text(&mut [0; 36]),
            to_sql(frame.base.get()),
            to_sql(frame.records),
            reason.as_deref().unwrap_or(BEHIND),
        ])?;
    }
    Ok(())
}

/// Whether an order is set aside.
pub(crate) fn is_parked(
    connection: &Connection,
    projection: Projection,
    partition: PartitionId,
    id: OrderId,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM ParkedEvent WHERE projection = ?1 AND partition = ?2 AND order_id = ?3)",
        )?
        .query_row(
            params![projection.name(), partition.get(), id.text(&mut [0; 36])],
            |row| row.get(0),
        )
}

/// Whether any order is set aside.
pub(crate) fn any_parked(
    connection: &Connection,
    projection: Projection,
) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM ParkedEvent WHERE projection = ?1)")?
        .query_row([projection.name()], |row| row.get(0))
}

/// An order that a projection has set aside, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedOrder {
    /// The order.
    pub id: OrderId,
    /// Its partition.
    pub partition: PartitionId,
    /// Base offset of the frame that could not be applied: the order's first that waits.
    pub offset: Offset,
    /// Events that wait, those behind the first included.
    pub events: u64,
    /// Why the first could not be applied.
    pub reason: String,
}

/// Orders that are set aside, by id, behind the order `after`.
pub(crate) fn parked_after(
    connection: &Connection,
    projection: Projection,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<ParkedOrder>, ReadRowError> {
    // Beside min(), SQLite takes other columns from the row that has the least.
    let mut statement = connection.prepare_cached(
        "SELECT order_id, partition, min(offset), sum(records), reason FROM ParkedEvent \
         WHERE projection = ?1 AND order_id > ?2 GROUP BY order_id ORDER BY order_id LIMIT ?3",
    )?;
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let limit = to_sql(u64::try_from(limit).unwrap_or(u64::MAX));
    let mut rows = statement.query(params![projection.name(), after, limit])?;
    let mut orders = Vec::new();
    while let Some(row) = rows.next()? {
        let order_id: String = row.get(0)?;
        let id = OrderId::parse(&order_id).map_err(|_| {
            ReadRowError::Malformed(ReadModelError::MalformedRow {
                order_id,
                reason: "a parked event names what is no order id".to_owned(),
            })
        })?;
        orders.push(ParkedOrder {
            id,
            partition: PartitionId::new(row.get(1)?),
            offset: Offset::new(from_sql(row.get(2)?)),
            events: from_sql(row.get(3)?),
            reason: row.get(4)?,
        });
    }
    Ok(orders)
}

/// Where the parked frames of an order are in the log, in order, from `from` on, at most `limit`.
pub(crate) fn frames_of(
    connection: &Connection,
    projection: Projection,
    partition: PartitionId,
    key: Key,
    from: Offset,
    limit: u32,
) -> rusqlite::Result<Vec<Offset>> {
    let id = OrderId::from_bytes(*key.as_bytes());
    connection
        .prepare_cached(
            "SELECT offset FROM ParkedEvent WHERE projection = ?1 AND partition = ?2 AND order_id = ?3 AND offset >= ?4 \
             ORDER BY offset LIMIT ?5",
        )?
        .query_map(
            params![
                projection.name(),
                partition.get(),
                id.text(&mut [0; 36]),
                to_sql(from.get()),
                limit
            ],
            |row| Ok(Offset::new(from_sql(row.get(0)?))),
        )?
        .collect()
}

/// Forgets parked frames that are about to be tried again.
pub(crate) fn forget(
    connection: &Connection,
    projection: Projection,
    partition: PartitionId,
    key: Key,
    frames: &[Offset],
) -> rusqlite::Result<()> {
    let id = OrderId::from_bytes(*key.as_bytes());
    let mut delete = connection.prepare_cached(
        "DELETE FROM ParkedEvent WHERE projection = ?1 AND partition = ?2 AND order_id = ?3 AND offset = ?4",
    )?;
    for frame in frames {
        delete.execute(params![
            projection.name(),
            partition.get(),
            id.text(&mut [0; 36]),
            to_sql(frame.get())
        ])?;
    }
    Ok(())
}
