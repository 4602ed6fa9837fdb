//! Changes into SQLite: rows and checkpoint in one transaction, or nothing.

use std::sync::LazyLock;

use order_log::{Offset, PartitionId};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    Connection, OptionalExtension, Statement, ToSql, Transaction, TransactionBehavior, params,
};

use crate::Projection;
use crate::crash::{CrashPoint, Crashes};
use crate::fold::{Changes, UsedKey};
use crate::mutants::{Mutant, keeps};
use crate::park;
use crate::projection_set::ProjectionSet;
use crate::row_change::{Change, RowChange};
use crate::side::Side;
use crate::sql::{from_sql, to_sql};
use crate::trouble::Trouble;

/// Most idempotency keys one transaction forgets beyond as many as it adds: the table shrinks, no transaction is long.
const KEYS_FORGOTTEN_EXTRA: u64 = 256;

/// What a transaction does for one partition.
pub(crate) struct Write<'w> {
    pub(crate) partition: PartitionId,
    /// The tables they go to.
    pub(crate) side: Side,
    /// Whose changes these are.
    pub(crate) projections: ProjectionSet,
    /// The checkpoint before and after; equal for frames that were parked and are tried again.
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// Idempotency keys appended before this are forgotten, in microseconds since the Unix epoch.
    pub(crate) keys_since: u64,
    pub(crate) changes: &'w Changes,
}

/// Begins, lets `first` do what must be in the same transaction, writes everything of `writes`, all to tables of one side,
/// and commits. On an error nothing was written.
pub(crate) fn commit(
    writes: &[Write<'_>],
    connection: &mut Connection,
    crashes: &Crashes,
    first: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<(), Trouble> {
    crashes.here(CrashPoint::BeforeBegin)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    first(&transaction)?;
    write_orders(&transaction, writes)?;
    for write in writes {
        write.write_others(&transaction)?;
    }
    let transaction = if keeps(Mutant::OneTransaction) {
        transaction
    } else {
        transaction.commit()?;
        connection.transaction_with_behavior(TransactionBehavior::Immediate)?
    };
    crashes.here(CrashPoint::AfterRows)?;
    for write in writes {
        for projection in write.projections.iter() {
            write.move_checkpoint(&transaction, projection)?;
        }
    }
    crashes.here(CrashPoint::AfterCheckpoint)?;
    transaction.commit()?;
    crashes.here(CrashPoint::AfterCommit)
}

impl Write<'_> {
    /// All but the rows of orders.
    fn write_others(&self, transaction: &Transaction<'_>) -> Result<(), Trouble> {
        let (changes, partition, side) = (self.changes, self.partition, self.side);
        if self.projections.contains(Projection::Orders) {
            write_keys(transaction, partition, side, &changes.keys)?;
            self.forget_keys(transaction)?;
        }
        if self.projections.contains(Projection::CustomerSummary) {
            changes
                .summaries
                .write_customers(transaction, partition, side)?;
        }
        if self.projections.contains(Projection::SkuDemand) {
            changes.summaries.write_skus(transaction, partition, side)?;
        }
        let projections = self.projections;
        let parked = changes.parked.iter();
        Ok(park::store(
            transaction,
            partition,
            side,
            parked.filter(|frame| projections.contains(frame.projection)),
        )?)
    }

    fn forget_keys(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let oldest: Option<i64> = transaction
            .prepare_cached(&self.side.on(
                "SELECT appended_at FROM IdempotencyKey WHERE partition = ?1 ORDER BY frame LIMIT 1",
            ))?
            .query_row([self.partition.get()], |row| row.get(0))
            .optional()?;
        // Append times do not go back: if the oldest has not expired, none has.
        if oldest.is_none_or(|appended_at| from_sql(appended_at) >= self.keys_since) {
            return Ok(());
        }
        let most = 2 * self.changes.keys.len() as u64 + KEYS_FORGOTTEN_EXTRA;
        transaction
            .prepare_cached(&self.side.on(
                // The oldest first, and only then whether they have expired: append times do not go back, and a search
                // for what has expired would look at every key that has not.
                "DELETE FROM IdempotencyKey WHERE partition = ?1 AND frame IN \
                 (SELECT frame FROM (SELECT frame, appended_at FROM IdempotencyKey WHERE partition = ?1 \
                  ORDER BY frame LIMIT ?3) WHERE appended_at < ?2)",
            ))?
            .execute(params![
                self.partition.get(),
                to_sql(self.keys_since),
                to_sql(most)
            ])?;
        Ok(())
    }

    /// Compare-and-set: whoever else wrote these rows, this transaction does not.
    fn move_checkpoint(
        &self,
        transaction: &Transaction<'_>,
        projection: Projection,
    ) -> Result<(), Trouble> {
        let changes = self.changes;
        let statement = if keeps(Mutant::CompareAndSet) {
            "UPDATE Checkpoint SET next_offset = ?4, appended_at = max(appended_at, ?5), \
             keys_since = max(keys_since, ?6), id_ahead = max(id_ahead, ?7), id_behind = max(id_behind, ?8) \
             WHERE projection = ?1 AND partition = ?2 AND next_offset = ?3"
        } else {
            "UPDATE Checkpoint SET next_offset = ?4, appended_at = max(appended_at, ?5), \
             keys_since = max(keys_since, ?6), id_ahead = max(id_ahead, ?7), id_behind = max(id_behind, ?8) \
             WHERE projection = ?1 AND partition = ?2 AND ?3 >= 0"
        };
        let moved = transaction
            .prepare_cached(&self.side.on(statement))?
            .execute(params![
                projection.name(),
                self.partition.get(),
                to_sql(self.from.get()),
                to_sql(self.to.get()),
                to_sql(changes.last_appended_at),
                to_sql(self.keys_since),
                to_sql(changes.id_ahead),
                to_sql(changes.id_behind)
            ])?;
        if moved == 1 {
            Ok(())
        } else {
            Err(Trouble::Halt(format!(
                "the checkpoint of {} in the file is not {}, where this worker left it: another process applies the log \
                 to the same file; stop it, then restart this one",
                projection.name(),
                self.from
            )))
        }
    }
}

/// Columns of `OrderView`.
const COLUMNS: usize = 15;

/// Rows of one insert statement where that many follow each other: between the rows of a statement SQLite keeps its
/// cursors where they are, which saves a tenth of the time.
const ROWS_AT_ONCE: usize = 16;

/// An insert of some rows. `OR FAIL`, because the transaction is rolled back as a whole anyway: otherwise SQLite copies
/// every page before it changes it, to be able to take back this statement alone.
fn insert_of(rows: usize) -> String {
    let row = format!("(?{})", ", ?".repeat(COLUMNS - 1));
    let rows = vec![row; rows].join(", ");
    format!("INSERT OR FAIL INTO OrderView VALUES {rows}")
}

static INSERT: LazyLock<String> = LazyLock::new(|| insert_of(1));
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert_of(ROWS_AT_ONCE));

/// A row and what it takes to write it.
struct Row<'w> {
    partition: PartitionId,
    change: &'w RowChange,
    texts: &'w [u8],
}

/// Writes the rows of all partitions in key order, so that neighbours share a page that is in memory already, and new ones
/// come to the end of the table one after the other.
fn write_orders(connection: &Connection, writes: &[Write<'_>]) -> Result<(), Trouble> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let of_orders = |write: &&Write<'_>| write.projections.contains(Projection::Orders);
    for write in writes.iter().filter(of_orders) {
        rows.extend(write.changes.rows.iter().map(|change| Row {
            partition: write.partition,
            change,
            texts: &write.changes.texts,
        }));
    }
    // The tables of a side without orders are not there.
    let Some(side) = writes.iter().find(of_orders).map(|write| write.side) else {
        return Ok(());
    };
    if writes.len() > 1 {
        // Runs that are in order are merged, not sorted again.
        rows.sort_by_key(|row| row.change.key());
    }
    let mut insert = connection.prepare_cached(&side.on(&INSERT))?;
    let mut insert_many = connection.prepare_cached(&side.on(&INSERT_MANY))?;
    // An update that names a column of an index rewrites the index's entry, changed or not.
    let mut step = connection.prepare_cached(&side.on(
        "UPDATE OrderView SET version = ?2, updated_at = ?3, last_frame = ?4, status = ?5, paid = ?6, refunded = ?7 \
         WHERE order_id = ?1",
    ))?;
    let mut lines = connection.prepare_cached(&side.on(
        "UPDATE OrderView SET version = ?2, updated_at = ?3, last_frame = ?4, total = ?5, next_line_id = ?6, lines = ?7 \
         WHERE order_id = ?1",
    ))?;
    let mut lines_and_step = connection.prepare_cached(&side.on(
        "UPDATE OrderView SET version = ?2, updated_at = ?3, last_frame = ?4, total = ?5, next_line_id = ?6, lines = ?7, \
         status = ?8, paid = ?9, refunded = ?10 WHERE order_id = ?1",
    ))?;
    let mut rest = rows.as_slice();
    while let Some(row) = rest.first() {
        let many = rest
            .get(..ROWS_AT_ONCE)
            .filter(|rows| rows.iter().all(|row| row.change.change == Change::Insert));
        if let Some(rows) = many {
            for (row, first) in rows.iter().zip((1..).step_by(COLUMNS)) {
                bind_row(&mut insert_many, first, row)?;
            }
            insert_many.raw_execute()?;
            rest = &rest[ROWS_AT_ONCE..];
            continue;
        }
        rest = &rest[1..];
        let update = match row.change.change {
            Change::Insert => {
                bind_row(&mut insert, 1, row)?;
                insert.raw_execute()?;
                continue;
            }
            Change::Lines => &mut lines,
            Change::LinesAndStep => &mut lines_and_step,
            Change::Step => &mut step,
        };
        bind_update(update, row.change, row.texts)?;
        if update.raw_execute()? != 1 {
            return Err(Trouble::Halt(format!(
                "the row of order {} vanished between being read and being written: another process writes the same \
                 file; stop it, then restart this one",
                row.change.id()
            )));
        }
    }
    Ok(())
}

fn bind_row(insert: &mut Statement<'_>, first: usize, row: &Row<'_>) -> rusqlite::Result<()> {
    let (partition, row, texts) = (row.partition, row.change, row.change.texts(row.texts));
    insert.raw_bind_parameter(first, row.id().text(&mut [0; 36]))?;
    insert.raw_bind_parameter(first + 1, partition.get())?;
    insert.raw_bind_parameter(first + 2, row.version)?;
    insert.raw_bind_parameter(first + 3, row.status.name())?;
    insert.raw_bind_parameter(first + 4, Text(texts.customer_id))?;
    insert.raw_bind_parameter(first + 5, Text(texts.currency))?;
    insert.raw_bind_parameter(first + 6, row.total)?;
    insert.raw_bind_parameter(first + 7, row.paid)?;
    insert.raw_bind_parameter(first + 8, row.refunded)?;
    insert.raw_bind_parameter(first + 9, row.next_line_id)?;
    insert.raw_bind_parameter(first + 10, Text(texts.lines))?;
    insert.raw_bind_parameter(first + 11, Text(texts.metadata))?;
    insert.raw_bind_parameter(first + 12, to_sql(row.placed_at))?;
    insert.raw_bind_parameter(first + 13, to_sql(row.updated_at))?;
    insert.raw_bind_parameter(first + 14, to_sql(row.last_frame.get()))
}

/// Binds an update by the numbers its statement has: 1 to 4 are in each, then come the lines, then the step.
fn bind_update(update: &mut Statement<'_>, row: &RowChange, texts: &[u8]) -> rusqlite::Result<()> {
    update.raw_bind_parameter(1, row.id().text(&mut [0; 36]))?;
    update.raw_bind_parameter(2, row.version)?;
    update.raw_bind_parameter(3, to_sql(row.updated_at))?;
    update.raw_bind_parameter(4, to_sql(row.last_frame.get()))?;
    let mut next = 5;
    if matches!(row.change, Change::Lines | Change::LinesAndStep) {
        update.raw_bind_parameter(next, row.total)?;
        update.raw_bind_parameter(next + 1, row.next_line_id)?;
        update.raw_bind_parameter(next + 2, Text(row.texts(texts).lines))?;
        next += 3;
    }
    if matches!(row.change, Change::Step | Change::LinesAndStep) {
        update.raw_bind_parameter(next, row.status.name())?;
        update.raw_bind_parameter(next + 1, row.paid)?;
        update.raw_bind_parameter(next + 2, row.refunded)?;
    }
    Ok(())
}

fn write_keys(
    connection: &Connection,
    partition: PartitionId,
    side: Side,
    keys: &[UsedKey],
) -> rusqlite::Result<()> {
    // A key may be used again once it was forgotten; the later use counts.
    let mut insert = connection.prepare_cached(
        &side.on("INSERT OR REPLACE INTO IdempotencyKey VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
    )?;
    for key in keys {
        insert.execute(params![
            partition.get(),
            to_sql(key.frame.get()),
            key.digest,
            key.fingerprint,
            key.order.text(&mut [0; 36]),
            key.version,
            to_sql(key.appended_at)
        ])?;
    }
    Ok(())
}

/// Text in bytes that are known to be UTF-8: they were text, or JSON that was just written.
struct Text<'t>(&'t [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}
