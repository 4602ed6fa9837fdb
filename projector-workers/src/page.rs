//! A page of orders out of one file: which index serves it, and how a time becomes a range of ids.

use order_domain::OrderId;
use rusqlite::{Connection, ToSql};

use crate::Projection;
use crate::order_row::{OrderRow, ReadRowError, select_orders};
use crate::reader::OrderFilter;
use crate::sql::{from_sql, to_sql};

/// What a page still has room for.
#[derive(Debug)]
pub(crate) struct PageRoom {
    rows: usize,
    /// `None`: for however many.
    bytes: Option<usize>,
    is_empty: bool,
}

impl PageRoom {
    pub(crate) fn of(filter: &OrderFilter) -> Self {
        Self {
            rows: filter.limit,
            bytes: filter.bytes_max,
            is_empty: true,
        }
    }

    /// Whether the next row is in the page. After the first that is not, none is.
    pub(crate) fn takes(&mut self, row: &OrderRow) -> bool {
        let bytes = row.lines.len() + row.metadata.len();
        let left = self.bytes.map(|left| left.checked_sub(bytes));
        let fits = left.is_none_or(|left| left.is_some());
        // However long one order is, a page that leads nowhere would be worse.
        if self.rows == 0 || !(fits || self.is_empty) {
            self.rows = 0;
            return false;
        }
        self.rows -= 1;
        self.bytes = left.map(Option::unwrap_or_default);
        self.is_empty = false;
        true
    }
}

/// Appends the rows of this file, newest first, that would fill a page by themselves, and the one behind them: whatever
/// other files hold, a page has room for no more of this one, and what is behind it is known to be there.
///
/// Every query is one descending range of ids: of the whole table, of one customer or of one status. Times narrow the
/// range, because an id holds the time it was made; how far that can be from the time of placing is kept with the
/// checkpoint. The times are then compared row by row, so that the answer is exact.
pub(crate) fn page_of(
    connection: &mut Connection,
    filter: &OrderFilter,
    rows: &mut Vec<OrderRow>,
) -> Result<(), ReadRowError> {
    let transaction = connection.transaction()?;
    let (ahead, behind) = id_skew(&transaction)?;
    let after = filter.created_after.map_or(0, |time| time.as_micros());
    let before = filter
        .created_before
        .map_or(u64::MAX, |time| time.as_micros());
    let first = id_made_at(after.saturating_sub(ahead), 0x00);
    let last = id_made_at(before.saturating_add(behind), 0xff);
    let start = filter.before.map_or(last, |id| id.min(last));
    // With no cursor the last id itself may be in the page, with a cursor its order was in the page before.
    let start_is_open = filter.before.is_some_and(|id| id <= last);

    let sql = page_sql(filter.customer_id.is_some(), filter.status.is_some());
    let (mut first_text, mut start_text) = ([0; 36], [0; 36]);
    let start = start.text(&mut start_text);
    let parameters: [&dyn ToSql; 8] = [
        &filter.customer_id.as_ref().map(|id| id.as_str()),
        &filter.status.map(|status| status.name()),
        &first.text(&mut first_text),
        &start,
        &to_sql(after),
        &to_sql(before),
        &start_is_open.then_some(start),
        &to_sql(u64::try_from(filter.limit).map_or(u64::MAX, |limit| limit.saturating_add(1))),
    ];
    {
        let mut statement = transaction.prepare_cached(sql)?;
        let mut found = statement.query(parameters.as_slice())?;
        let mut room = PageRoom::of(filter);
        let mut has_room = true;
        while has_room && let Some(row) = found.next()? {
            let row = OrderRow::read(row)?;
            has_room = room.takes(&row);
            rows.push(row);
        }
    }
    Ok(transaction.commit()?)
}

/// The statement for a filter. A plus keeps the planner from the other index: a customer has fewer orders than a status.
pub(crate) const fn page_sql(has_customer: bool, has_status: bool) -> &'static str {
    match (has_customer, has_status) {
        (true, _) => select_orders!(
            "WHERE customer_id = ?1 AND (?2 IS NULL OR +status = ?2) AND order_id >= ?3 AND order_id <= ?4 \
             AND +placed_at >= ?5 AND +placed_at < ?6 AND (?7 IS NULL OR order_id <> ?7) ORDER BY order_id DESC LIMIT ?8"
        ),
        (false, true) => select_orders!(
            "WHERE ?1 IS NULL AND status = ?2 AND order_id >= ?3 AND order_id <= ?4 \
             AND +placed_at >= ?5 AND +placed_at < ?6 AND (?7 IS NULL OR order_id <> ?7) ORDER BY order_id DESC LIMIT ?8"
        ),
        (false, false) => select_orders!(
            "WHERE ?1 IS NULL AND ?2 IS NULL AND order_id >= ?3 AND order_id <= ?4 \
             AND +placed_at >= ?5 AND +placed_at < ?6 AND (?7 IS NULL OR order_id <> ?7) ORDER BY order_id DESC LIMIT ?8"
        ),
    }
}

/// How far ids of this file were made before and after their orders were placed, at most, in microseconds.
fn id_skew(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection
        .prepare_cached(
            "SELECT coalesce(max(id_ahead), 0), coalesce(max(id_behind), 0) FROM Checkpoint WHERE projection = ?1",
        )?
        .query_row([Projection::Orders.name()], |row| {
            Ok((from_sql(row.get(0)?), from_sql(row.get(1)?)))
        })
}

/// The least (`fill` 0x00) or greatest (0xff) id made in the millisecond of a time.
fn id_made_at(micros: u64, fill: u8) -> OrderId {
    const LAST_MILLISECOND: u64 = (1 << 48) - 1;
    let milliseconds = (micros / 1_000).min(LAST_MILLISECOND);
    let mut bytes = [fill; 16];
    bytes[..6].copy_from_slice(&milliseconds.to_be_bytes()[2..]);
    OrderId::from_bytes(bytes)
}

/// When an id was made, in microseconds since the Unix epoch: the first 48 bits of a UUIDv7 count milliseconds.
pub(crate) fn made_at(id: OrderId) -> u64 {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&id.as_bytes()[..6]);
    u64::from_be_bytes(bytes) * 1_000
}
