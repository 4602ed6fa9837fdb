//! Changes into SQLite: rows and checkpoint in one transaction, or nothing.

use order_domain::Order;
use order_log::{Offset, PartitionId};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement, ToSql, Transaction, TransactionBehavior, params};

use crate::Projection;
use crate::crash::{CrashPoint, Crashes};
use crate::fold::{Changes, UsedKey};
use crate::order_row::{write_lines, write_metadata};
use crate::order_table::Slot;
use crate::park;
use crate::projection_set::ProjectionSet;
use crate::sql::to_sql;
use crate::trouble::Trouble;

/// Most idempotency keys one transaction forgets beyond as many as it adds: the table shrinks, no transaction is long.
const KEYS_FORGOTTEN_EXTRA: u64 = 256;

/// One transaction to be.
pub(crate) struct Write<'w> {
    pub(crate) partition: PartitionId,
    /// Whose changes these are.
    pub(crate) projections: ProjectionSet,
    /// The checkpoint before and after; equal for frames that were parked and are tried again.
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// Idempotency keys appended before this are forgotten, in microseconds since the Unix epoch.
    pub(crate) keys_since: u64,
    pub(crate) changes: &'w Changes,
}

/// Texts of rows, built in memory that is used again.
#[derive(Debug, Default)]
pub(crate) struct RowText {
    lines: Vec<u8>,
    metadata: Vec<u8>,
}

impl Write<'_> {
    /// Begins, lets `first` do what must be in the same transaction, writes everything and commits. On an error nothing
    /// was written.
    pub(crate) fn commit(
        &self,
        connection: &mut Connection,
        text: &mut RowText,
        crashes: &Crashes,
        first: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), Trouble> {
        crashes.here(CrashPoint::BeforeBegin)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        first(&transaction)?;
        self.write_rows(&transaction, text)?;
        crashes.here(CrashPoint::AfterRows)?;
        for projection in self.projections.iter() {
            self.move_checkpoint(&transaction, projection)?;
        }
        crashes.here(CrashPoint::AfterCheckpoint)?;
        transaction.commit()?;
        crashes.here(CrashPoint::AfterCommit)
    }

    fn write_rows(&self, transaction: &Transaction<'_>, text: &mut RowText) -> Result<(), Trouble> {
        let changes = self.changes;
        let partition = self.partition;
        if self.projections.contains(Projection::Orders) {
            write_orders(transaction, partition, changes.orders.slots(), text)?;
            write_keys(transaction, partition, &changes.keys)?;
            self.forget_keys(transaction)?;
        }
        if self.projections.contains(Projection::CustomerSummary) {
            changes.summaries.write_customers(transaction, partition)?;
        }
        if self.projections.contains(Projection::SkuDemand) {
            changes.summaries.write_skus(transaction, partition)?;
        }
        let projections = self.projections;
        let parked = changes.parked.iter();
        Ok(park::store(
            transaction,
            partition,
            parked.filter(|frame| projections.contains(frame.projection)),
        )?)
    }

    fn forget_keys(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let most = 2 * self.changes.keys.len() as u64 + KEYS_FORGOTTEN_EXTRA;
        transaction
            .prepare_cached(
                "DELETE FROM IdempotencyKey WHERE partition = ?1 AND appended_at < ?2 AND frame IN \
                 (SELECT frame FROM IdempotencyKey WHERE partition = ?1 AND appended_at < ?2 ORDER BY frame LIMIT ?3)",
            )?
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
        let moved = transaction
            .prepare_cached(
                "UPDATE Checkpoint SET next_offset = ?4, appended_at = max(appended_at, ?5), \
                 keys_since = max(keys_since, ?6), id_ahead = max(id_ahead, ?7), id_behind = max(id_behind, ?8) \
                 WHERE projection = ?1 AND partition = ?2 AND next_offset = ?3",
            )?
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

/// Writes the rows in key order, so that neighbours share a page that is in memory already.
fn write_orders(
    connection: &Connection,
    partition: PartitionId,
    slots: &[Slot],
    text: &mut RowText,
) -> Result<(), Trouble> {
    let mut changed: Vec<(&Slot, &Order)> = slots
        .iter()
        .filter(|slot| slot.changed)
        .filter_map(|slot| Some((slot, slot.order.as_ref()?)))
        .collect();
    changed.sort_unstable_by_key(|(slot, _)| slot.key);
    let mut insert = connection.prepare_cached(
        "INSERT INTO OrderView VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    // An update that names a column of an index rewrites the index's entry, changed or not; one that names the lines
    // makes them anew.
    let mut step = connection.prepare_cached(
        "UPDATE OrderView SET version = ?2, updated_at = ?3, last_frame = ?4, status = ?5, paid = ?6, refunded = ?7 \
         WHERE order_id = ?1",
    )?;
    let mut lines = connection.prepare_cached(
        "UPDATE OrderView SET version = ?2, updated_at = ?3, last_frame = ?4, total = ?5, next_line_id = ?6, lines = ?7 \
         WHERE order_id = ?1",
    )?;
    let mut lines_and_step = connection.prepare_cached(
        "UPDATE OrderView SET version = ?2, updated_at = ?3, last_frame = ?4, total = ?5, next_line_id = ?6, lines = ?7, \
         status = ?8, paid = ?9, refunded = ?10 WHERE order_id = ?1",
    )?;
    for (slot, order) in changed {
        let rows = match slot.stored_status {
            None => insert_order(&mut insert, partition, slot, order, text)?,
            Some(stored) => {
                let stepped = stored != order.status;
                let statement = match (slot.lines_changed, stepped) {
                    (true, true) => &mut lines_and_step,
                    (true, false) => &mut lines,
                    (false, _) => &mut step,
                };
                bind_row_head(statement, slot, order)?;
                let mut next = 5;
                if slot.lines_changed {
                    text.lines.clear();
                    write_lines(&order.lines, &mut text.lines);
                    statement.raw_bind_parameter(5, order.total.minor_units())?;
                    statement.raw_bind_parameter(6, order.next_line_id.get())?;
                    statement.raw_bind_parameter(7, Text(&text.lines))?;
                    next = 8;
                }
                if stepped || !slot.lines_changed {
                    statement.raw_bind_parameter(next, order.status.name())?;
                    statement.raw_bind_parameter(next + 1, order.paid.minor_units())?;
                    statement.raw_bind_parameter(next + 2, order.refunded.minor_units())?;
                }
                statement.raw_execute()?
            }
        };
        if rows != 1 {
            return Err(Trouble::Halt(format!(
                "the row of order {} vanished between being read and being written: another process writes the same \
                 file; stop it, then restart this one",
                order.id
            )));
        }
    }
    Ok(())
}

fn insert_order(
    insert: &mut Statement<'_>,
    partition: PartitionId,
    slot: &Slot,
    order: &Order,
    text: &mut RowText,
) -> rusqlite::Result<usize> {
    text.lines.clear();
    write_lines(&order.lines, &mut text.lines);
    text.metadata.clear();
    write_metadata(&order.metadata, &mut text.metadata);
    insert.raw_bind_parameter(1, order.id.text(&mut [0; 36]))?;
    insert.raw_bind_parameter(2, partition.get())?;
    insert.raw_bind_parameter(3, order.version.get())?;
    insert.raw_bind_parameter(4, order.status.name())?;
    insert.raw_bind_parameter(5, order.customer_id.as_str())?;
    insert.raw_bind_parameter(6, order.currency.code())?;
    insert.raw_bind_parameter(7, order.total.minor_units())?;
    insert.raw_bind_parameter(8, order.paid.minor_units())?;
    insert.raw_bind_parameter(9, order.refunded.minor_units())?;
    insert.raw_bind_parameter(10, order.next_line_id.get())?;
    insert.raw_bind_parameter(11, Text(&text.lines))?;
    insert.raw_bind_parameter(12, Text(&text.metadata))?;
    insert.raw_bind_parameter(13, to_sql(order.placed_at.as_micros()))?;
    insert.raw_bind_parameter(14, to_sql(order.updated_at.as_micros()))?;
    insert.raw_bind_parameter(15, to_sql(slot.last_frame.get()))?;
    insert.raw_execute()
}

/// The first four parameters of every update.
fn bind_row_head(
    statement: &mut Statement<'_>,
    slot: &Slot,
    order: &Order,
) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(1, order.id.text(&mut [0; 36]))?;
    statement.raw_bind_parameter(2, order.version.get())?;
    statement.raw_bind_parameter(3, to_sql(order.updated_at.as_micros()))?;
    statement.raw_bind_parameter(4, to_sql(slot.last_frame.get()))
}

fn write_keys(
    connection: &Connection,
    partition: PartitionId,
    keys: &[UsedKey],
) -> rusqlite::Result<()> {
    // A key may be used again once it was forgotten; the later use counts.
    let mut insert = connection.prepare_cached(
        "INSERT OR REPLACE INTO IdempotencyKey VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
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

/// Text in bytes that are known to be UTF-8: JSON that was just written.
struct Text<'t>(&'t [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}
