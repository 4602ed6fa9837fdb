//! The rules: what a command does to an order, or why it may not.
//!
//! Everything that goes into the log passes here, so this is where limits on a client's text and on counts are enforced,
//! whoever the caller is; the types of a command guarantee the rest (ids, amounts, quantities, currencies).

use std::borrow::Cow;
use std::fmt;

use crate::{
    Amount, Command, CommandKind, Event, InvalidId, LINES_MAX, Line, LineId, METADATA_ENTRIES_MAX,
    METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX, Metadata, MoneyError, NewLine, Order,
    PlaceOrder, Status, TEXT_BYTES_MAX,
};

/// Why a command was refused. Each says what would have been allowed: the steps, the amount, the count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The order does not exist.
    #[error("the order does not exist")]
    NotFound,
    /// `Place` on an order that exists.
    #[error("the order exists already")]
    AlreadyPlaced,
    /// The status does not allow the step.
    #[error(
        "{attempted} is not possible while the order is {status}; allowed: {}",
        Steps(allowed)
    )]
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
    #[error("{amount} is to be refunded; it must be above 0 and at most the {refundable} left")]
    RefundMismatch {
        /// What was asked.
        amount: Amount,
        /// What is left to refund.
        refundable: Amount,
    },
    /// No such line.
    #[error("the order has no line {0}")]
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
    /// Too many labels.
    #[error("{entries} metadata entries, at most {max} are allowed")]
    TooManyMetadataEntries {
        /// How many there are.
        entries: usize,
        /// How many may be.
        max: usize,
    },
    /// A text that is too long, or has characters it may not have.
    #[error("{field} {problem}")]
    InvalidText {
        /// Which text: `reason`, `reference`, `carrier`, `tracking_number`, `metadata key` or `metadata value`.
        field: &'static str,
        /// What is wrong with it.
        problem: InvalidId,
    },
    /// The total leaves the range of an amount.
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// Steps as a sentence lists them.
struct Steps<'a>(&'a [CommandKind]);

impl fmt::Display for Steps<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, others)) = self.0.split_first() else {
            return formatter.write_str("nothing");
        };
        formatter.write_str(first.name())?;
        for step in others {
            write!(formatter, ", {step}")?;
        }
        Ok(())
    }
}

/// Decides `command` on `order` (`None` if there is none yet): the events to append, in order, at least one.
///
/// # Errors
/// [`Rejection`] if the rules do not allow it; nothing changes then.
pub fn decide(order: Option<&Order>, command: &Command) -> Result<Vec<Event<'static>>, Rejection> {
    decide_owned(order, command.clone())
}

/// [`decide`] for a caller that is done with the command: its texts move into the events without being copied.
///
/// # Errors
/// [`Rejection`] if the rules do not allow it; nothing changes then.
pub fn decide_owned(
    order: Option<&Order>,
    command: Command,
) -> Result<Vec<Event<'static>>, Rejection> {
    let step = command.kind();
    match command {
        Command::Place(place) => match order {
            None => place_order(place),
            Some(_) => Err(Rejection::AlreadyPlaced),
        },
        Command::AddLine(line) => add_line(permit(order, step)?, line),
        Command::RemoveLine(id) => remove_line(permit(order, step)?, id),
        Command::Confirm => {
            permit(order, step)?;
            Ok(vec![Event::OrderConfirmed])
        }
        Command::Pay { amount, reference } => {
            let total = permit(order, step)?.total;
            if amount != total {
                return Err(Rejection::PaymentMismatch { amount, total });
            }
            Ok(vec![Event::OrderPaid {
                amount,
                reference: text("reference", reference)?,
            }])
        }
        Command::Ship {
            carrier,
            tracking_number,
        } => {
            permit(order, step)?;
            Ok(vec![Event::OrderShipped {
                carrier: text("carrier", carrier)?,
                tracking_number: text("tracking_number", tracking_number)?,
            }])
        }
        Command::Deliver => {
            permit(order, step)?;
            Ok(vec![Event::OrderDelivered])
        }
        Command::Cancel { reason } => {
            let refundable = permit(order, step)?.refundable();
            let reason = text("reason", reason)?;
            Ok(cancel(refundable, reason))
        }
        Command::Refund { amount, reason } => {
            let refundable = permit(order, step)?.refundable();
            let amount = amount.unwrap_or(refundable);
            if amount == Amount::ZERO || amount > refundable {
                return Err(Rejection::RefundMismatch { amount, refundable });
            }
            Ok(vec![Event::OrderRefunded {
                amount,
                reason: text("reason", reason)?,
            }])
        }
    }
}

/// The order, if it exists and its status allows the step.
fn permit(order: Option<&Order>, attempted: CommandKind) -> Result<&Order, Rejection> {
    let order = order.ok_or(Rejection::NotFound)?;
    let allowed = order.status.allowed();
    if allowed.contains(&attempted) {
        Ok(order)
    } else {
        Err(Rejection::InvalidTransition {
            status: order.status,
            attempted,
            allowed,
        })
    }
}

fn place_order(place: PlaceOrder) -> Result<Vec<Event<'static>>, Rejection> {
    if place.lines.is_empty() {
        return Err(Rejection::NoLines);
    }
    check_line_count(place.lines.len())?;
    check_metadata(&place.metadata)?;
    let mut total = Amount::ZERO;
    for line in &place.lines {
        total = total.plus(line.unit_price.times(line.quantity)?)?;
    }
    let numbers = std::iter::successors(Some(LineId::FIRST), |id| id.next());
    Ok(vec![Event::OrderPlaced {
        customer_id: place.customer_id,
        currency: place.currency,
        lines: place.lines.into_iter().zip(numbers).map(numbered).collect(),
        metadata: place.metadata,
    }])
}

fn add_line(order: &Order, line: NewLine) -> Result<Vec<Event<'static>>, Rejection> {
    check_line_count(order.lines.len() + 1)?;
    order.total.plus(line.unit_price.times(line.quantity)?)?;
    // The number after this one must exist too: fold keeps it as the next line's.
    if order.next_line_id.next().is_none() {
        return Err(Rejection::TooManyLines {
            lines: LINES_MAX + 1,
            max: LINES_MAX,
        });
    }
    let line = numbered((line, order.next_line_id));
    Ok(vec![Event::LineAdded { line }])
}

fn remove_line(order: &Order, id: LineId) -> Result<Vec<Event<'static>>, Rejection> {
    let line = order
        .lines
        .iter()
        .find(|line| line.id == id)
        .ok_or(Rejection::UnknownLine(id))?;
    if order.lines.len() == 1 {
        return Err(Rejection::LastLine);
    }
    Ok(vec![Event::LineRemoved { line: line.clone() }])
}

fn cancel(refundable: Amount, reason: Option<Cow<'static, str>>) -> Vec<Event<'static>> {
    let mut events = Vec::with_capacity(2);
    if refundable > Amount::ZERO {
        events.push(Event::OrderRefunded {
            amount: refundable,
            reason: reason.clone(),
        });
    }
    events.push(Event::OrderCancelled { reason });
    events
}

fn numbered((line, id): (NewLine, LineId)) -> Line<'static> {
    Line {
        id,
        sku: line.sku,
        quantity: line.quantity,
        unit_price: line.unit_price,
    }
}

fn check_line_count(lines: usize) -> Result<(), Rejection> {
    if lines > LINES_MAX {
        Err(Rejection::TooManyLines {
            lines,
            max: LINES_MAX,
        })
    } else {
        Ok(())
    }
}

fn check_metadata(metadata: &Metadata) -> Result<(), Rejection> {
    if metadata.len() > METADATA_ENTRIES_MAX {
        return Err(Rejection::TooManyMetadataEntries {
            entries: metadata.len(),
            max: METADATA_ENTRIES_MAX,
        });
    }
    for (key, value) in metadata {
        if key.is_empty() {
            return Err(Rejection::InvalidText {
                field: "metadata key",
                problem: InvalidId::Empty,
            });
        }
        check_text("metadata key", key, METADATA_KEY_BYTES_MAX)?;
        check_text("metadata value", value, METADATA_VALUE_BYTES_MAX)?;
    }
    Ok(())
}

fn text(field: &'static str, text: Option<String>) -> Result<Option<Cow<'static, str>>, Rejection> {
    if let Some(text) = &text {
        check_text(field, text, TEXT_BYTES_MAX)?;
    }
    Ok(text.map(Cow::Owned))
}

/// Free text may be empty and may have lines, but no other control characters: it is shown on terminals and in mails.
fn check_text(field: &'static str, text: &str, max: usize) -> Result<(), Rejection> {
    let problem = if text.len() > max {
        InvalidId::TooLong {
            bytes: text.len(),
            max,
        }
    } else if text
        .chars()
        .any(|character| character.is_control() && !matches!(character, '\n' | '\t'))
    {
        InvalidId::ControlCharacter
    } else {
        return Ok(());
    };
    Err(Rejection::InvalidText { field, problem })
}
