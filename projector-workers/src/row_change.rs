//! A row to be written, in flat memory: numbers in a small struct, all texts of a batch in one buffer.
//!
//! Most orders of a batch are new and have one event. Ten thousand of them as [`order_domain::Order`]s are a hundred
//! thousand small pieces of memory, which push SQLite's pages out of the processor's caches; so they are two long arrays.

use order_domain::{OrderId, Status};
use order_log::{Key, Offset};

use crate::order_case::Changed;
use crate::order_row::{write_lines, write_metadata};

/// What is done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A new order.
    Insert,
    /// A step in its life: status and what was paid and refunded.
    Step,
    /// Other lines.
    Lines,
    /// Other lines, then a step.
    LinesAndStep,
}

/// One row's numbers, and where its texts are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowChange {
    key: Key,
    pub(crate) change: Change,
    pub(crate) status: Status,
    pub(crate) version: u32,
    pub(crate) next_line_id: u32,
    pub(crate) total: i64,
    pub(crate) paid: i64,
    pub(crate) refunded: i64,
    /// Microseconds since the Unix epoch.
    pub(crate) placed_at: u64,
    pub(crate) updated_at: u64,
    pub(crate) last_frame: Offset,
    /// Where customer, currency, lines and metadata begin in the buffer, and where the last ends; those a change does
    /// not write are empty.
    bounds: [usize; 5],
}

/// The texts of one row, as they are bound: UTF-8, lines and metadata as JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowTexts<'b> {
    pub(crate) customer_id: &'b [u8],
    pub(crate) currency: &'b [u8],
    pub(crate) lines: &'b [u8],
    pub(crate) metadata: &'b [u8],
}

impl RowChange {
    /// Takes what must be written of an order, appending its texts to `buffer`.
    pub(crate) fn take(key: Key, changed: &Changed<'_>, buffer: &mut Vec<u8>) -> Self {
        let order = changed.order;
        let change = match (changed.stored_status, changed.lines_changed) {
            (None, _) => Change::Insert,
            (Some(_), false) => Change::Step,
            (Some(before), true) if before == order.status => Change::Lines,
            (Some(_), true) => Change::LinesAndStep,
        };
        let mut bounds = [buffer.len(); 5];
        if change == Change::Insert {
            buffer.extend_from_slice(order.customer_id.as_str().as_bytes());
            bounds[1] = buffer.len();
            buffer.extend_from_slice(order.currency.code().as_bytes());
        }
        bounds[2] = buffer.len();
        if change != Change::Step {
            write_lines(&order.lines, buffer);
        }
        bounds[3] = buffer.len();
        if change == Change::Insert {
            write_metadata(&order.metadata, buffer);
        }
        bounds[4] = buffer.len();
        Self {
            key,
            change,
            status: order.status,
            version: order.version.get(),
            next_line_id: order.next_line_id.get(),
            total: order.total.minor_units(),
            paid: order.paid.minor_units(),
            refunded: order.refunded.minor_units(),
            placed_at: order.placed_at.as_micros(),
            updated_at: order.updated_at.as_micros(),
            last_frame: changed.last_frame,
            bounds,
        }
    }

    /// What the rows of a batch are in order of.
    pub(crate) const fn key(&self) -> Key {
        self.key
    }

    /// The row's key.
    pub(crate) const fn id(&self) -> OrderId {
        OrderId::from_bytes(*self.key.as_bytes())
    }

    /// The row's texts, out of the buffer they were appended to.
    pub(crate) fn texts<'b>(&self, buffer: &'b [u8]) -> RowTexts<'b> {
        let [customer, currency, lines, metadata, end] = self.bounds;
        RowTexts {
            customer_id: &buffer[customer..currency],
            currency: &buffer[currency..lines],
            lines: &buffer[lines..metadata],
            metadata: &buffer[metadata..end],
        }
    }
}
