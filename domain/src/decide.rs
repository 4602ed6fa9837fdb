//! The rules: what a command does to an order, or why it may not.

use crate::{Amount, Command, CommandKind, Event, LineId, MoneyError, Order, Status};

/// Why a command was refused. Each says what would have been allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The order does not exist.
    #[error("the order does not exist")]
    NotFound,
    /// `Place` on an order that exists.
    #[error("the order exists already")]
    AlreadyPlaced,
    /// The status does not allow the step.
    #[error("an order that is {status:?} cannot do {attempted:?}; allowed: {allowed:?}")]
    InvalidTransition {
        /// Where the order is.
        status: Status,
        /// What was asked.
        attempted: CommandKind,
        /// What may be asked now.
        allowed: &'static [CommandKind],
    },
    /// A payment that is not the total.
    #[error("{amount} was paid, the total is {total}")]
    PaymentMismatch {
        /// What was offered.
        amount: Amount,
        /// What is due.
        total: Amount,
    },
    /// A refund of nothing, or of more than is left.
    #[error("{amount} is to be refunded, between 1 and {refundable} are possible")]
    RefundMismatch {
        /// What was asked.
        amount: Amount,
        /// What is left to refund.
        refundable: Amount,
    },
    /// No such line.
    #[error("the order has no line {0:?}")]
    UnknownLine(LineId),
    /// The last line cannot be removed; cancel the order.
    #[error("an order keeps at least one line; cancel it instead")]
    LastLine,
    /// No line at all.
    #[error("an order needs at least one line")]
    NoLines,
    /// Too many lines.
    #[error("{lines} lines, at most {max} are allowed")]
    TooManyLines {
        /// How many there would be.
        lines: usize,
        /// How many may be.
        max: usize,
    },
    /// The total leaves the range of an amount.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Decides `command` on `order` (`None` if there is none yet): the events to append, in order, at least one.
///
/// # Errors
/// [`Rejection`] if the rules do not allow it; nothing changes then.
pub fn decide(order: Option<&Order>, command: &Command) -> Result<Vec<Event<'static>>, Rejection> {
    let _ = (order, command);
    todo!()
}
