//! A row of `OrderView` and the order it shows: each can be made from the other without loss.

use std::borrow::Cow;

use order_domain::{
    Amount, Currency, CustomerId, Line, LineId, Metadata, Order, OrderId, Quantity, Sku, Status,
    Timestamp, Version,
};
use order_log::{Offset, PartitionId};
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use crate::ReadModelError;
use crate::sql::from_sql;

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

/// An [`OrderRow`] as it stands in the database's page: for a reader that only passes it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderRowRef<'a> {
    /// The order.
    pub id: OrderId,
    /// Its partition.
    pub partition: PartitionId,
    /// Count of its events.
    pub version: Version,
    /// Where it is in its life.
    pub status: Status,
    /// Who ordered.
    pub customer_id: &'a str,
    /// ISO 4217 code.
    pub currency: &'a str,
    /// Minor units.
    pub total: i64,
    /// Minor units.
    pub paid: i64,
    /// Minor units.
    pub refunded: i64,
    /// The id the next added line gets.
    pub next_line_id: u32,
    /// JSON array of `{"line_id","sku","quantity","unit_price"}`.
    pub lines: &'a str,
    /// JSON object of strings.
    pub metadata: &'a str,
    /// Append time of the first event.
    pub placed_at: Timestamp,
    /// Append time of the last event.
    pub updated_at: Timestamp,
    /// Base offset of the last frame folded into the row.
    pub last_frame: Offset,
}

/// The columns [`OrderRow::read`] takes, in its order, between two pieces of SQL.
macro_rules! select_orders {
    ($rest:literal) => {
        concat!(
            "SELECT order_id, partition, version, status, customer_id, currency, total, paid, refunded, next_line_id, \
             lines, metadata, placed_at, updated_at, last_frame FROM OrderView ",
            $rest
        )
    };
}
pub(crate) use select_orders;

impl OrderRow {
    /// The order this row shows.
    ///
    /// # Errors
    /// [`ReadModelError::MalformedRow`] if the row holds what no projector wrote.
    pub fn to_order(&self) -> Result<Order, ReadModelError> {
        self.rebuild()
            .map_err(|reason| malformed(&self.id.to_string(), reason))
    }

    fn rebuild(&self) -> Result<Order, String> {
        let amount = |minor_units| Amount::new(minor_units).map_err(|error| error.to_string());
        Ok(Order {
            id: self.id,
            version: self.version,
            status: self.status,
            customer_id: CustomerId::new(self.customer_id.clone())
                .map_err(|error| format!("customer_id {error}"))?,
            currency: Currency::recorded(self.currency.as_bytes())
                .map_err(|error| error.to_string())?,
            lines: read_lines(&self.lines)?,
            next_line_id: LineId::new(self.next_line_id).ok_or("next_line_id is 0")?,
            total: amount(self.total)?,
            paid: amount(self.paid)?,
            refunded: amount(self.refunded)?,
            metadata: serde_json::from_str(&self.metadata)
                .map_err(|error| format!("metadata: {error}"))?,
            placed_at: self.placed_at,
            updated_at: self.updated_at,
        })
    }

    /// Reads what [`select_orders`] selects.
    pub(crate) fn read(row: &Row<'_>) -> Result<Self, ReadRowError> {
        OrderRowRef::read(row).map(Self::from)
    }

    /// The row, borrowed.
    #[must_use]
    pub fn as_row_ref(&self) -> OrderRowRef<'_> {
        OrderRowRef {
            id: self.id,
            partition: self.partition,
            version: self.version,
            status: self.status,
            customer_id: &self.customer_id,
            currency: &self.currency,
            total: self.total,
            paid: self.paid,
            refunded: self.refunded,
            next_line_id: self.next_line_id,
            lines: &self.lines,
            metadata: &self.metadata,
            placed_at: self.placed_at,
            updated_at: self.updated_at,
            last_frame: self.last_frame,
        }
    }
}

impl From<OrderRowRef<'_>> for OrderRow {
    fn from(row: OrderRowRef<'_>) -> Self {
        Self {
            id: row.id,
            partition: row.partition,
            version: row.version,
            status: row.status,
            customer_id: row.customer_id.to_owned(),
            currency: row.currency.to_owned(),
            total: row.total,
            paid: row.paid,
            refunded: row.refunded,
            next_line_id: row.next_line_id,
            lines: row.lines.to_owned(),
            metadata: row.metadata.to_owned(),
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            last_frame: row.last_frame,
        }
    }
}

impl<'a> OrderRowRef<'a> {
    /// Reads what [`select_orders`] selects.
    pub(crate) fn read(row: &'a Row<'_>) -> Result<Self, ReadRowError> {
        let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
        let id = text(0)?;
        let parsed = OrderId::parse(id);
        let broken = |reason: &str| ReadRowError::Malformed(malformed(id, reason.to_owned()));
        Ok(Self {
            id: parsed.map_err(|_| broken("order_id is not a UUID"))?,
            partition: PartitionId::new(row.get(1)?),
            version: Version::new(row.get(2)?),
            status: Status::parse(text(3)?).ok_or_else(|| broken("status is unknown"))?,
            customer_id: text(4)?,
            currency: text(5)?,
            total: row.get(6)?,
            paid: row.get(7)?,
            refunded: row.get(8)?,
            next_line_id: row.get(9)?,
            lines: text(10)?,
            metadata: text(11)?,
            placed_at: Timestamp::from_micros(from_sql(row.get(12)?)),
            updated_at: Timestamp::from_micros(from_sql(row.get(13)?)),
            last_frame: Offset::new(from_sql(row.get(14)?)),
        })
    }
}

/// Why a row could not be read: SQLite, or what stands in it.
#[derive(Debug)]
pub(crate) enum ReadRowError {
    Sqlite(rusqlite::Error),
    Malformed(ReadModelError),
}

impl From<rusqlite::Error> for ReadRowError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl ReadRowError {
    pub(crate) fn at(self, path: &std::path::Path) -> ReadModelError {
        match self {
            Self::Sqlite(source) => ReadModelError::sqlite(path)(source),
            Self::Malformed(error) => error,
        }
    }
}

fn malformed(order_id: &str, reason: String) -> ReadModelError {
    ReadModelError::MalformedRow {
        order_id: order_id.to_owned(),
        reason,
    }
}

/// One line as it stands in the JSON text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineText<'a> {
    line_id: u32,
    #[serde(borrow)]
    sku: Cow<'a, str>,
    quantity: u32,
    unit_price: i64,
}

/// Appends the lines as JSON. By hand: every row of every batch passes here, and most of a line is fixed.
pub(crate) fn write_lines(lines: &[Line<'_>], text: &mut Vec<u8>) {
    text.push(b'[');
    for (index, line) in lines.iter().enumerate() {
        text.extend_from_slice(if index == 0 {
            b"{\"line_id\":"
        } else {
            b",{\"line_id\":"
        });
        write_json(&line.id.get(), text);
        text.extend_from_slice(b",\"sku\":");
        write_json_text(line.sku.as_str(), text);
        text.extend_from_slice(b",\"quantity\":");
        write_json(&line.quantity.get(), text);
        text.extend_from_slice(b",\"unit_price\":");
        write_json(&line.unit_price.minor_units(), text);
        text.push(b'}');
    }
    text.push(b']');
}

fn write_json_text(value: &str, text: &mut Vec<u8>) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if value.bytes().all(plain) {
        text.push(b'"');
        text.extend_from_slice(value.as_bytes());
        text.push(b'"');
    } else {
        write_json(value, text);
    }
}

fn write_json<T: Serialize + ?Sized>(value: &T, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value)
        .expect("numbers and text are JSON, and memory takes every write");
}

/// Appends the metadata as JSON, keys in order.
pub(crate) fn write_metadata(metadata: &Metadata, text: &mut Vec<u8>) {
    text.push(b'{');
    for (index, (key, value)) in metadata.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        write_json_text(key, text);
        text.push(b':');
        write_json_text(value, text);
    }
    text.push(b'}');
}

fn read_lines(text: &str) -> Result<Vec<Line<'static>>, String> {
    let lines: Vec<LineText<'_>> =
        serde_json::from_str(text).map_err(|error| format!("lines: {error}"))?;
    lines
        .into_iter()
        .map(|line| {
            Ok(Line {
                id: LineId::new(line.line_id).ok_or("a line_id is 0")?,
                sku: Sku::new(line.sku.into_owned()).map_err(|error| format!("sku {error}"))?,
                quantity: Quantity::new(line.quantity).map_err(|error| error.to_string())?,
                unit_price: Amount::new(line.unit_price).map_err(|error| error.to_string())?,
            })
        })
        .collect()
}
