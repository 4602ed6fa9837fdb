//! An order as it stands after its events: what [`crate::decide`] looks at and [`crate::fold`] makes.

use std::collections::BTreeMap;

use crate::names::named;
use crate::{
    Amount, CommandKind, Currency, CustomerId, LineId, MoneyError, OrderId, Quantity, Sku,
    Timestamp, Version,
};

/// Most lines an order can have at once: keeps an order's events and its row within a few tens of kilobytes.
pub const LINES_MAX: usize = 500;
/// Most entries of an order's metadata.
pub const METADATA_ENTRIES_MAX: usize = 32;
/// Longest metadata key, in bytes.
pub const METADATA_KEY_BYTES_MAX: usize = 64;
/// Longest metadata value, in bytes.
pub const METADATA_VALUE_BYTES_MAX: usize = 512;

/// Longest free text of a command (a reason, a reference, a carrier, a tracking number), in bytes.
pub const TEXT_BYTES_MAX: usize = 256;

/// The client's own labels on an order, in key order.
pub type Metadata = BTreeMap<String, String>;

/// Where an order is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Accepted; its lines may still change.
    Placed,
    /// Its lines are fixed.
    Confirmed,
    /// Paid in full.
    Paid,
    /// On its way; it can no longer be cancelled.
    Shipped,
    /// With the customer.
    Delivered,
    /// Ended before shipping; anything paid was refunded.
    Cancelled,
    /// Paid and refunded in full.
    Refunded,
}

named!(Status {
    Placed => "placed",
    Confirmed => "confirmed",
    Paid => "paid",
    Shipped => "shipped",
    Delivered => "delivered",
    Cancelled => "cancelled",
    Refunded => "refunded",
});

impl Status {
    /// The steps that may follow, each provided that its amounts and lines are right. Empty at the end of an order's
    /// life.
    #[must_use]
    pub const fn allowed(self) -> &'static [CommandKind] {
        match self {
            Self::Placed => &[
                CommandKind::AddLine,
                CommandKind::RemoveLine,
                CommandKind::Confirm,
                CommandKind::Cancel,
            ],
            Self::Confirmed => &[CommandKind::Pay, CommandKind::Cancel],
            Self::Paid => &[CommandKind::Ship, CommandKind::Cancel, CommandKind::Refund],
            Self::Shipped => &[CommandKind::Deliver, CommandKind::Refund],
            Self::Delivered => &[CommandKind::Refund],
            Self::Cancelled | Self::Refunded => &[],
        }
    }
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    /// Unique within the order, never used again.
    pub id: LineId,
    /// What was ordered.
    pub sku: Sku<'a>,
    /// How many units.
    pub quantity: Quantity,
    /// Price of one unit, in minor units of the order's currency.
    pub unit_price: Amount,
}

impl Line<'_> {
    /// Quantity × unit price.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] past the range of an amount.
    pub const fn amount(&self) -> Result<Amount, MoneyError> {
        self.unit_price.times(self.quantity)
    }

    /// The same line, owning its text.
    #[must_use]
    pub fn into_owned(self) -> Line<'static> {
        Line {
            id: self.id,
            sku: self.sku.into_owned(),
            quantity: self.quantity,
            unit_price: self.unit_price,
        }
    }
}

/// An order after its first [`Order::version`] events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The order's id.
    pub id: OrderId,
    /// Count of events so far.
    pub version: Version,
    /// Where it is in its life.
    pub status: Status,
    /// Who ordered.
    pub customer_id: CustomerId<'static>,
    /// Currency of every amount of this order.
    pub currency: Currency,
    /// Lines in the order of their ids.
    pub lines: Vec<Line<'static>>,
    /// The id the next added line gets.
    pub next_line_id: LineId,
    /// Sum of quantity × unit price over the lines.
    pub total: Amount,
    /// What was paid.
    pub paid: Amount,
    /// What was paid back: `refunded <= paid <= total`, always.
    pub refunded: Amount,
    /// The client's labels.
    pub metadata: Metadata,
    /// Append time of the first event.
    pub placed_at: Timestamp,
    /// Append time of the last event.
    pub updated_at: Timestamp,
}

impl Order {
    /// What was paid and not paid back.
    #[must_use]
    pub fn refundable(&self) -> Amount {
        self.paid.minus(self.refunded).unwrap_or(Amount::ZERO)
    }

    /// Whether the order's way has ended: it was delivered, cancelled or refunded in full. All that can still happen is the
    /// refund of what was delivered.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        match self.status {
            Status::Delivered | Status::Cancelled | Status::Refunded => true,
            Status::Placed | Status::Confirmed | Status::Paid | Status::Shipped => false,
        }
    }
}
