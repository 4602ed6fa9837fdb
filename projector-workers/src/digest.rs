//! A digest of a projection's rows: what makes "SQLite = fold(log)" a statement that can be checked.

use std::fmt;

use order_log::{Offset, PartitionId};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};

use crate::Projection;
use crate::sql::from_sql;

/// What the rows of one projection and partition come to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ProjectionDigest {
    /// The checkpoint the rows stand at: digests of different checkpoints say nothing about each other.
    pub checkpoint: Offset,
    /// Count of rows.
    pub rows: u64,
    /// SHA-256 over all values of all rows, in key order.
    pub sha256: [u8; 32],
}

impl fmt::Debug for ProjectionDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Display for ProjectionDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} rows at {}: ", self.rows, self.checkpoint)?;
        self.sha256
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// The tables of a projection: every query takes the partition and the time before which idempotency keys are forgotten
/// (which of these have been deleted already is chance, so they do not count).
const fn tables(projection: Projection) -> &'static [&'static str] {
    match projection {
        Projection::Orders => &[
            "SELECT * FROM OrderView WHERE partition = ?1 AND ?2 IS NOT NULL ORDER BY order_id",
            "SELECT * FROM IdempotencyKey WHERE partition = ?1 AND appended_at >= ?2 ORDER BY frame",
        ],
        Projection::CustomerSummary => &[
            "SELECT * FROM CustomerSummaryByPartition WHERE partition = ?1 AND ?2 IS NOT NULL \
             ORDER BY customer_id, currency",
        ],
        Projection::SkuDemand => &[
            "SELECT * FROM SkuDemandByPartition WHERE partition = ?1 AND ?2 IS NOT NULL ORDER BY sku",
        ],
    }
}

pub(crate) fn digest(
    connection: &mut Connection,
    projection: Projection,
    partition: PartitionId,
) -> rusqlite::Result<ProjectionDigest> {
    let transaction = connection.transaction()?;
    let (checkpoint, keys_since) = transaction.query_row(
        "SELECT next_offset, keys_since FROM Checkpoint WHERE projection = ?1 AND partition = ?2",
        params![projection.name(), partition.get()],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    let mut hash = Sha256::new();
    let mut count = 0;
    for sql in tables(projection) {
        let mut statement = transaction.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(params![partition.get(), keys_since])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                take(&mut hash, row.get_ref(column)?);
            }
            count += 1;
        }
    }
    transaction.commit()?;
    Ok(ProjectionDigest {
        checkpoint: Offset::new(from_sql(checkpoint)),
        rows: count,
        sha256: hash.finalize().into(),
    })
}

/// Type, length and bytes, so that no two rows of different values look alike.
fn take(hash: &mut Sha256, value: ValueRef<'_>) {
    let mut sized = |kind: u8, bytes: &[u8]| {
        hash.update([kind]);
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    match value {
        ValueRef::Null => sized(0, &[]),
        ValueRef::Integer(number) => sized(1, &number.to_le_bytes()),
        ValueRef::Real(number) => sized(2, &number.to_le_bytes()),
        ValueRef::Text(text) => sized(3, text),
        ValueRef::Blob(bytes) => sized(4, bytes),
    }
}
