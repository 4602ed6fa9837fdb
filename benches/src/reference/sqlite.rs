//! SQLite and nothing around it: prepared statements on rows that were made before, into tables the read model made.
//!
//! The rows are those the projector writes for the same orders, the sums of customers and goods already added up per
//! transaction; a test compares the files. What is left out is reading the log, decoding, folding and the checkpoint.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use rusqlite::{Connection, OpenFlags, params};

use crate::measure::Sample;
use crate::rooms::{FIRST_APPEND_US, SampleOrder, order_id};
use crate::sample::Chance;

/// Which rows of new orders are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// All that the projector writes: orders, sums of customers, sums of goods.
    All,
    /// Orders and their indexes alone.
    Orders,
}

/// Rows of new orders of one partition, ready to be written.
#[derive(Debug)]
pub struct OrderRows {
    partition: u16,
    transactions: Vec<Transaction>,
}

#[derive(Debug, Default)]
struct Transaction {
    orders: Vec<OrderRow>,
    customers: BTreeMap<String, CustomerSum>,
    goods: BTreeMap<String, SkuSum>,
}

#[derive(Debug)]
struct OrderRow {
    id: String,
    customer_id: String,
    total: i64,
    lines: String,
    placed_at: i64,
    offset: i64,
}

#[derive(Debug, Default)]
struct CustomerSum {
    orders: i64,
    ordered: i64,
    last_placed_at: i64,
}

#[derive(Debug, Default)]
struct SkuSum {
    units: i64,
    last_ordered_at: i64,
}

impl OrderRows {
    /// The rows of the first `count` orders of a history's partition, in transactions of `transaction_orders`.
    ///
    /// # Errors
    /// None: the sample's values are small.
    pub fn new(partition: u16, count: u64, transaction_orders: u64) -> anyhow::Result<Self> {
        let first_number = SampleOrder::first_number(partition);
        let mut transactions = Vec::new();
        for start in (0..count).step_by(usize::try_from(transaction_orders)?) {
            let mut transaction = Transaction::default();
            for index in start..count.min(start + transaction_orders) {
                let number = first_number + index;
                let order = SampleOrder::new(number);
                let placed_at = i64::try_from(FIRST_APPEND_US + index + 1)?;
                let total = order.total()?.minor_units();
                let customer = transaction
                    .customers
                    .entry(order.customer_id().to_owned())
                    .or_default();
                customer.orders += 1;
                customer.ordered += total;
                customer.last_placed_at = placed_at;
                let sku = transaction.goods.entry(order.sku().to_owned()).or_default();
                sku.units += i64::from(order.quantity());
                sku.last_ordered_at = placed_at;
                transaction.orders.push(OrderRow {
                    id: order_id(number).to_string(),
                    customer_id: order.customer_id().to_owned(),
                    total,
                    lines: format!(
                        "[{{\"line_id\":1,\"sku\":\"{}\",\"quantity\":{},\"unit_price\":{}}}]",
                        order.sku(),
                        order.quantity(),
                        order.unit_price()
                    ),
                    placed_at,
                    offset: i64::try_from(index)?,
                });
            }
            transactions.push(transaction);
        }
        Ok(Self {
            partition,
            transactions,
        })
    }

    /// Writes all rows into a file that has the read model's tables and none of these orders; counts orders.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn insert(&self, path: &Path, rows: Rows) -> anyhow::Result<Sample> {
        let mut connection = open(path, "NORMAL")?;
        let mut count = 0;
        let start = Instant::now();
        for transaction in &self.transactions {
            let sqlite = connection.transaction()?;
            let mut insert = sqlite.prepare_cached(
                "INSERT INTO OrderView VALUES \
                 (?1, ?2, 1, 'placed', ?3, 'EUR', ?4, 0, 0, 2, ?5, '{\"channel\":\"web\"}', ?6, ?6, ?7)",
            )?;
            for row in &transaction.orders {
                insert.execute(params![
                    row.id,
                    self.partition,
                    row.customer_id,
                    row.total,
                    row.lines,
                    row.placed_at,
                    row.offset
                ])?;
                count += 1;
            }
            drop(insert);
            if rows == Rows::All {
                self.add_sums(transaction, &sqlite)?;
            }
            sqlite.commit()?;
        }
        empty_wal(&connection)?;
        Ok(Sample::rate(count, start.elapsed()))
    }

    fn add_sums(&self, transaction: &Transaction, sqlite: &Connection) -> rusqlite::Result<()> {
        let mut customers = sqlite.prepare_cached(
            "INSERT INTO CustomerSummaryByPartition VALUES (?1, 'EUR', ?2, ?3, 0, ?4, 0, 0, ?5) \
             ON CONFLICT DO UPDATE SET orders_placed = orders_placed + excluded.orders_placed, \
             ordered = ordered + excluded.ordered, \
             last_placed_at = max(last_placed_at, excluded.last_placed_at)",
        )?;
        for (id, sum) in &transaction.customers {
            let (orders, ordered) = (sum.orders, sum.ordered);
            customers.execute(params![
                id,
                self.partition,
                orders,
                ordered,
                sum.last_placed_at
            ])?;
        }
        let mut goods = sqlite.prepare_cached(
            "INSERT INTO SkuDemandByPartition VALUES (?1, ?2, ?3, 0, ?4) \
             ON CONFLICT DO UPDATE SET units_ordered = units_ordered + excluded.units_ordered, \
             last_ordered_at = max(last_ordered_at, excluded.last_ordered_at)",
        )?;
        for (sku, sum) in &transaction.goods {
            goods.execute(params![sku, self.partition, sum.units, sum.last_ordered_at])?;
        }
        Ok(())
    }
}

/// Confirms orders drawn at random out of the `orders` of a file, `transaction_updates` a transaction; counts updates. The
/// file has the rows of [`OrderRows`] for partition 0.
///
/// # Errors
/// Whatever SQLite said, and if an order has no row.
pub fn update_at_random(
    path: &Path,
    synchronous: &str,
    orders: u64,
    updates: u64,
    transaction_updates: u64,
    chance: &mut Chance,
) -> anyhow::Result<Sample> {
    let orders = usize::try_from(orders)?;
    let ids: Vec<String> = (0..updates)
        .map(|_| Ok(order_id(u64::try_from(chance.below(orders))?).to_string()))
        .collect::<anyhow::Result<_>>()?;
    let mut connection = open(path, synchronous)?;
    let mut at = i64::try_from(FIRST_APPEND_US)?;
    let start = Instant::now();
    for transaction in ids.chunks(usize::try_from(transaction_updates)?) {
        let sqlite = connection.transaction()?;
        let mut update = sqlite.prepare_cached(
            "UPDATE OrderView SET version = version + 1, updated_at = ?2, last_frame = ?2, \
             status = CASE status WHEN 'placed' THEN 'confirmed' ELSE 'placed' END, paid = 0, refunded = 0 \
             WHERE order_id = ?1",
        )?;
        for id in transaction {
            at += 1;
            let rows = update.execute(params![id, at])?;
            anyhow::ensure!(rows == 1, "order {id} has no row in {}", path.display());
        }
        drop(update);
        sqlite.commit()?;
    }
    empty_wal(&connection)?;
    Ok(Sample::rate(updates, start.elapsed()))
}

/// Moves what is in the WAL into the file: work that was put off is work of the run.
fn empty_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// A connection with the settings that SQLite alone does best with here.
fn open(path: &Path, synchronous: &str) -> anyhow::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)
        .with_context(|| format!("open {}", path.display()))?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -32 * 1024)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 16 * 1024, |_| Ok(()))?;
    Ok(connection)
}
