//! Two sets of the same tables, row by row: which rows one of them lacks, and in which columns others differ.
//!
//! Both are walked in the order of their keys at the same time, so that this takes as long as reading them and no memory.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;

use order_domain::OrderId;
use order_log::{Offset, PartitionId};
use rusqlite::fallible_streaming_iterator::FallibleStreamingIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use crate::Projection;
use crate::side::Side;
use crate::sql::{from_sql, to_sql};

/// Rows between two looks at whether to go on.
const ROWS_PER_LOOK: u64 = 4096;

/// One row that is not the same on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which projection.
    pub projection: Projection,
    /// Which table.
    pub table: &'static str,
    /// The partition of the row.
    pub partition: PartitionId,
    /// The row's key, as text.
    pub key: String,
    /// The order it is of, if it is of one.
    pub order: Option<OrderId>,
    /// Where in the log the last event is that the row shows, if it tells: of the row that should be, if there is one.
    pub offset: Option<Offset>,
    /// What is not the same.
    pub kind: DifferenceKind,
}

/// How a live row is not what the log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DifferenceKind {
    /// There is none, and there should be one.
    Missing,
    /// There is one, and there should be none.
    Unexpected,
    /// These columns differ.
    Columns(Vec<&'static str>),
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, key, .. } = self;
        write!(formatter, "{table} {key}: partition {}", self.partition)?;
        if let Some(offset) = self.offset {
            write!(formatter, ", offset {offset}")?;
        }
        match &self.kind {
            DifferenceKind::Missing => formatter.write_str(": the row is missing"),
            DifferenceKind::Unexpected => formatter.write_str(": there should be no such row"),
            DifferenceKind::Columns(columns) => {
                write!(formatter, ": {} differ", columns.join(", "))
            }
        }
    }
}

/// A table as it is compared.
struct Table {
    name: &'static str,
    /// What is selected, keys first.
    columns: &'static [&'static str],
    /// How many of them are the key.
    keys: usize,
    order: Option<usize>,
    offset: Option<usize>,
    partition: usize,
    condition: &'static str,
}

const ORDER_VIEW: Table = Table {
    name: "OrderView",
    columns: &[
        "order_id",
        "partition",
        "version",
        "status",
        "customer_id",
        "currency",
        "total",
        "paid",
        "refunded",
        "next_line_id",
        "lines",
        "metadata",
        "placed_at",
        "updated_at",
        "last_frame",
    ],
    keys: 1,
    order: Some(0),
    offset: Some(14),
    partition: 1,
    condition: "",
};

const IDEMPOTENCY_KEY: Table = Table {
    name: "IdempotencyKey",
    columns: &[
        "partition",
        "frame",
        "key_digest",
        "fingerprint",
        "order_id",
        "version",
        "appended_at",
    ],
    keys: 2,
    order: Some(4),
    offset: Some(1),
    partition: 0,
    condition: "",
};

/// Index of `appended_at` in [`IDEMPOTENCY_KEY`].
const KEY_APPENDED_AT: usize = 6;

const CUSTOMER_SUMMARY: Table = Table {
    name: "CustomerSummaryByPartition",
    columns: &[
        "customer_id",
        "currency",
        "partition",
        "orders_placed",
        "orders_cancelled",
        "ordered",
        "paid",
        "refunded",
        "last_placed_at",
    ],
    keys: 3,
    order: None,
    offset: None,
    partition: 2,
    condition: "",
};

const SKU_DEMAND: Table = Table {
    name: "SkuDemandByPartition",
    columns: &[
        "sku",
        "partition",
        "units_ordered",
        "units_cancelled",
        "last_ordered_at",
    ],
    keys: 2,
    order: None,
    offset: None,
    partition: 1,
    condition: "",
};

/// The words of a reason may change from version to version: they are not compared.
macro_rules! parked {
    ($projection:literal) => {
        Table {
            name: "ParkedEvent",
            columns: &["partition", "order_id", "offset", "records"],
            keys: 3,
            order: Some(1),
            offset: Some(2),
            partition: 0,
            condition: concat!("WHERE projection = '", $projection, "' "),
        }
    };
}

const fn tables(projection: Projection) -> &'static [Table] {
    match projection {
        Projection::Orders => &[ORDER_VIEW, IDEMPOTENCY_KEY, parked!("orders")],
        Projection::CustomerSummary => &[CUSTOMER_SUMMARY, parked!("customer_summary")],
        Projection::SkuDemand => &[SKU_DEMAND, parked!("sku_demand")],
    }
}

/// One side of a comparison.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'c> {
    pub(crate) connection: &'c Connection,
    pub(crate) side: Side,
}

/// Walks a projection's tables of one file on both sides; `visit` gets every difference of the live rows from those that
/// `should` be, `look` is asked now and then whether to go on, with the rows seen. Returns how many rows were seen.
pub(crate) fn compare(
    projection: Projection,
    live: Rows<'_>,
    should: Rows<'_>,
    visit: &mut dyn FnMut(Difference),
    look: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> rusqlite::Result<u64> {
    // Which expired keys have been deleted already is chance.
    let mut keys_since = kept_since(projection, live)?;
    for (partition, since) in kept_since(projection, should)? {
        let both = keys_since.entry(partition).or_default();
        *both = since.max(*both);
    }
    let mut seen = 0;
    for table in tables(projection) {
        let sql = format!(
            "SELECT {} FROM {} {}ORDER BY {}",
            table.columns.join(", "),
            table.name,
            table.condition,
            table.columns[..table.keys].join(", ")
        );
        let mut live_statement = live.connection.prepare(&live.side.on(&sql))?;
        let mut live_rows = live_statement.query([])?;
        let mut should_statement = should.connection.prepare(&should.side.on(&sql))?;
        let mut should_rows = should_statement.query([])?;
        live_rows.advance()?;
        should_rows.advance()?;
        loop {
            let order = match (live_rows.get(), should_rows.get()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => compare_keys(one, other, table.keys)?,
            };
            let kind = match order {
                Ordering::Less => Some(DifferenceKind::Unexpected),
                Ordering::Greater => Some(DifferenceKind::Missing),
                Ordering::Equal => differing_columns(table, live_rows.get(), should_rows.get())?
                    .map(DifferenceKind::Columns),
            };
            let told = if order.is_lt() {
                live_rows.get()
            } else {
                should_rows.get()
            };
            if let (Some(kind), Some(row)) = (kind, told)
                && !is_expired_key(table, row, &keys_since)?
            {
                visit(difference(projection, table, row, kind)?);
            }
            if order.is_le() {
                live_rows.advance()?;
            }
            if order.is_ge() {
                should_rows.advance()?;
            }
            seen += 1;
            if seen % ROWS_PER_LOOK == 0 && look(seen).is_break() {
                return Ok(seen);
            }
        }
    }
    Ok(seen)
}

/// By partition, the time before which idempotency keys are forgotten.
fn kept_since(projection: Projection, rows: Rows<'_>) -> rusqlite::Result<HashMap<i64, i64>> {
    let sql = "SELECT partition, keys_since FROM Checkpoint WHERE projection = ?1";
    rows.connection
        .prepare(&rows.side.on(sql))?
        .query_map([projection.name()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn is_expired_key(
    table: &Table,
    row: &Row<'_>,
    keys_since: &HashMap<i64, i64>,
) -> rusqlite::Result<bool> {
    if table.name != IDEMPOTENCY_KEY.name {
        return Ok(false);
    }
    let partition: i64 = row.get(table.partition)?;
    let appended_at: i64 = row.get(KEY_APPENDED_AT)?;
    Ok(keys_since
        .get(&partition)
        .is_some_and(|since| appended_at < *since))
}

fn compare_keys(one: &Row<'_>, other: &Row<'_>, keys: usize) -> rusqlite::Result<Ordering> {
    for column in 0..keys {
        let order = compare_values(one.get_ref(column)?, other.get_ref(column)?);
        if order.is_ne() {
            return Ok(order);
        }
    }
    Ok(Ordering::Equal)
}

/// As SQLite sorts the values that strict tables hold.
fn compare_values(one: ValueRef<'_>, other: ValueRef<'_>) -> Ordering {
    match (one, other) {
        (ValueRef::Integer(one), ValueRef::Integer(other)) => one.cmp(&other),
        (ValueRef::Text(one), ValueRef::Text(other))
        | (ValueRef::Blob(one), ValueRef::Blob(other)) => one.cmp(other),
        (one, other) => (one.data_type() as i32).cmp(&(other.data_type() as i32)),
    }
}

fn differing_columns(
    table: &Table,
    live: Option<&Row<'_>>,
    should: Option<&Row<'_>>,
) -> rusqlite::Result<Option<Vec<&'static str>>> {
    let (Some(live), Some(should)) = (live, should) else {
        return Ok(None);
    };
    let mut columns = Vec::new();
    for (at, column) in table.columns.iter().enumerate().skip(table.keys) {
        if live.get_ref(at)? != should.get_ref(at)? {
            columns.push(*column);
        }
    }
    Ok((!columns.is_empty()).then_some(columns))
}

fn difference(
    projection: Projection,
    table: &Table,
    row: &Row<'_>,
    kind: DifferenceKind,
) -> rusqlite::Result<Difference> {
    let mut key = Vec::new();
    for column in (0..table.keys).filter(|column| *column != table.partition) {
        key.push(match row.get_ref(column)? {
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            ValueRef::Null | ValueRef::Real(_) | ValueRef::Blob(_) => "?".to_owned(),
        });
    }
    let order = match table.order {
        Some(at) => OrderId::parse(row.get_ref(at)?.as_str()?).ok(),
        None => None,
    };
    let offset = match table.offset {
        Some(at) => Some(Offset::new(from_sql(row.get(at)?))),
        None => None,
    };
    Ok(Difference {
        projection,
        table: table.name,
        partition: PartitionId::new(row.get(table.partition)?),
        key: key.join(" "),
        order,
        offset,
        kind,
    })
}

/// How many rows a comparison of a projection's tables walks at most, for its progress.
pub(crate) fn rows_to_compare(projection: Projection, rows: Rows<'_>) -> rusqlite::Result<u64> {
    let Some(table) = tables(projection).first() else {
        return Ok(0);
    };
    let sql = format!("SELECT count(*) FROM {}", table.name);
    let count: i64 = rows
        .connection
        .query_row(&rows.side.on(&sql), [], |row| row.get(0))?;
    debug_assert_eq!(to_sql(from_sql(count)), count);
    Ok(from_sql(count))
}
