//! What a client may ask of an order.

use crate::names::named;
use crate::{Amount, Currency, CustomerId, LineId, Metadata, Quantity, Sku};

/// A line that a client asks for; the order gives it its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLine {
    /// What to order.
    pub sku: Sku<'static>,
    /// How many units.
    pub quantity: Quantity,
    /// Price of one unit, in minor units of the order's currency.
    pub unit_price: Amount,
}

/// The content of a new order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceOrder {
    /// Who orders.
    pub customer_id: CustomerId<'static>,
    /// Currency of every amount of the order.
    pub currency: Currency,
    /// At least one line, at most [`crate::LINES_MAX`].
    pub lines: Vec<NewLine>,
    /// The client's labels.
    pub metadata: Metadata,
}

/// One command on one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Make a new order.
    Place(PlaceOrder),
    /// Add a line; only while placed.
    AddLine(NewLine),
    /// Remove a line; only while placed, and never the last one.
    RemoveLine(LineId),
    /// Fix the lines.
    Confirm,
    /// Pay the whole total at once.
    Pay {
        /// Must equal the order's total.
        amount: Amount,
        /// The payment provider's reference.
        reference: Option<String>,
    },
    /// Hand over to a carrier.
    Ship {
        /// Who carries it.
        carrier: Option<String>,
        /// The carrier's number.
        tracking_number: Option<String>,
    },
    /// Arrived.
    Deliver,
    /// End before shipping; refunds what was paid and not yet refunded.
    Cancel {
        /// Why, in the client's words.
        reason: Option<String>,
    },
    /// Pay back in part or whole, after it was paid.
    Refund {
        /// `None` refunds all that is left.
        amount: Option<Amount>,
        /// Why, in the client's words.
        reason: Option<String>,
    },
}

impl Command {
    /// What kind of command this is.
    #[must_use]
    pub const fn kind(&self) -> CommandKind {
        match self {
            Self::Place(_) => CommandKind::Place,
            Self::AddLine(_) => CommandKind::AddLine,
            Self::RemoveLine(_) => CommandKind::RemoveLine,
            Self::Confirm => CommandKind::Confirm,
            Self::Pay { .. } => CommandKind::Pay,
            Self::Ship { .. } => CommandKind::Ship,
            Self::Deliver => CommandKind::Deliver,
            Self::Cancel { .. } => CommandKind::Cancel,
            Self::Refund { .. } => CommandKind::Refund,
        }
    }
}

/// The kind of a command, as named in the API's paths and in rejections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandKind {
    /// [`Command::Place`]
    Place,
    /// [`Command::AddLine`]
    AddLine,
    /// [`Command::RemoveLine`]
    RemoveLine,
    /// [`Command::Confirm`]
    Confirm,
    /// [`Command::Pay`]
    Pay,
    /// [`Command::Ship`]
    Ship,
    /// [`Command::Deliver`]
    Deliver,
    /// [`Command::Cancel`]
    Cancel,
    /// [`Command::Refund`]
    Refund,
}

named!(CommandKind {
    Place => "place",
    AddLine => "add-line",
    RemoveLine => "remove-line",
    Confirm => "confirm",
    Pay => "pay",
    Ship => "ship",
    Deliver => "deliver",
    Cancel => "cancel",
    Refund => "refund",
});
