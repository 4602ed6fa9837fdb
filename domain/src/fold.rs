//! How an event changes an order. Trusts nobody: what `decide` would not have made is refused, and changes nothing.
//! A snapshot is held to the same: it must say an order that events could have made.
//!
//! Kept after every event: `refunded <= paid <= total`, `total` = the sum of the lines, lines in the order of their ids,
//! every id below `next_line_id`.

use crate::{
    Amount, Event, EventKind, Line, LineId, MoneyError, Order, OrderId, Snapshot, Status,
    Timestamp, Version,
};

/// An event that does not fit the order before it: the log is not what `decide` made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event is neither `OrderPlaced` nor `OrderSnapshot`.
    #[error("{0} comes before the order was placed")]
    NotPlaced(EventKind),
    /// The order's status does not allow this event.
    #[error("{event} cannot follow in status {status}")]
    OutOfPlace {
        /// The event.
        event: EventKind,
        /// Status before it.
        status: Status,
    },
    /// Amounts or lines do not add up.
    #[error("{event} does not add up: {reason}")]
    DoesNotAddUp {
        /// The event.
        event: EventKind,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Applies one event appended at `at`. `order` is `None` before the first event and `Some` after; it is unchanged on
/// error.
///
/// # Errors
/// [`FoldError`] if the event does not fit.
pub fn fold(
    order: &mut Option<Order>,
    id: OrderId,
    event: &Event<'_>,
    at: Timestamp,
) -> Result<(), FoldError> {
    fold_owned(order, id, event.clone(), at)
}

/// [`fold`] for a caller that is done with the event: owned texts move into the order without being copied.
///
/// # Errors
/// [`FoldError`] if the event does not fit.
pub fn fold_owned(
    order: &mut Option<Order>,
    id: OrderId,
    event: Event<'_>,
    at: Timestamp,
) -> Result<(), FoldError> {
    match order {
        Some(order) => apply(order, id, event, at),
        None => {
            *order = Some(match event {
                Event::OrderSnapshot(snapshot) => restore(id, *snapshot, at)?,
                event => place(id, event, at)?,
            });
            Ok(())
        }
    }
}

fn place(id: OrderId, event: Event<'_>, at: Timestamp) -> Result<Order, FoldError> {
    let kind = event.kind();
    let Event::OrderPlaced {
        customer_id,
        currency,
        lines,
        metadata,
    } = event
    else {
        return Err(FoldError::NotPlaced(kind));
    };
    let does_not_add_up = |reason| FoldError::DoesNotAddUp {
        event: kind,
        reason,
    };
    if lines.is_empty() {
        return Err(does_not_add_up("there is no line"));
    }
    let mut total = Amount::ZERO;
    let mut next_line_id = LineId::FIRST;
    for line in &lines {
        if line.id != next_line_id {
            return Err(does_not_add_up("its lines are not numbered 1, 2, 3, …"));
        }
        next_line_id = next_line_id.next().ok_or(does_not_add_up(LINE_IDS_END))?;
        total = line
            .amount()
            .and_then(|amount| total.plus(amount))
            .map_err(|_: MoneyError| does_not_add_up(TOTAL_OVERFLOWS))?;
    }
    Ok(Order {
        id,
        version: Version::new(1),
        status: Status::Placed,
        customer_id: customer_id.into_owned(),
        currency,
        lines: lines.into_iter().map(|line| line.into_owned()).collect(),
        next_line_id,
        total,
        paid: Amount::ZERO,
        refunded: Amount::ZERO,
        metadata,
        placed_at: at,
        updated_at: at,
    })
}

/// The order that a snapshot stands for. Everything about it must be as if its events had been folded.
fn restore(id: OrderId, snapshot: Snapshot<'_>, at: Timestamp) -> Result<Order, FoldError> {
    let does_not_add_up = |reason| FoldError::DoesNotAddUp {
        event: EventKind::OrderSnapshot,
        reason,
    };
    if snapshot.version == Version::NONE {
        return Err(does_not_add_up("it stands for no event"));
    }
    if at < snapshot.placed_at {
        return Err(does_not_add_up("the order was placed after it"));
    }
    let total = total_of(&snapshot)
        .map_err(|_: MoneyError| does_not_add_up(TOTAL_OVERFLOWS))?
        .ok_or(does_not_add_up(
            "its lines are none, or not in the order of their ids",
        ))?;
    if !amounts_fit(&snapshot, total) {
        return Err(does_not_add_up("its amounts are not those of its status"));
    }
    Ok(Order {
        id,
        version: snapshot.version,
        status: snapshot.status,
        customer_id: snapshot.customer_id.into_owned(),
        currency: snapshot.currency,
        lines: snapshot.lines.into_iter().map(Line::into_owned).collect(),
        next_line_id: snapshot.next_line_id,
        total,
        paid: snapshot.paid,
        refunded: snapshot.refunded,
        metadata: snapshot.metadata,
        placed_at: snapshot.placed_at,
        updated_at: at,
    })
}

/// The sum of a snapshot's lines; `None` if these are not lines that an order can have.
fn total_of(snapshot: &Snapshot<'_>) -> Result<Option<Amount>, MoneyError> {
    let ends = snapshot
        .lines
        .last()
        .is_some_and(|last| last.id < snapshot.next_line_id);
    let ascend = snapshot.lines.is_sorted_by(|one, next| one.id < next.id);
    let total = snapshot
        .lines
        .iter()
        .try_fold(Amount::ZERO, |sum, line| sum.plus(line.amount()?))?;
    Ok((ends && ascend).then_some(total))
}

/// Whether an order of this status and total can have been paid, and paid back, what the snapshot says.
fn amounts_fit(snapshot: &Snapshot<'_>, total: Amount) -> bool {
    let Snapshot { paid, refunded, .. } = *snapshot;
    match snapshot.status {
        Status::Placed | Status::Confirmed => paid == Amount::ZERO && refunded == Amount::ZERO,
        Status::Paid | Status::Shipped | Status::Delivered => {
            paid == total && (refunded < paid || paid == Amount::ZERO && refunded == Amount::ZERO)
        }
        Status::Refunded => paid == total && refunded == paid && paid > Amount::ZERO,
        Status::Cancelled => (paid == Amount::ZERO || paid == total) && refunded == paid,
    }
}

const TOTAL_OVERFLOWS: &str = "the total leaves the range of an amount";
const LINE_IDS_END: &str = "line ids have come to their end";

/// Every arm checks first and changes after, so that an error leaves the order as it was.
fn apply(order: &mut Order, id: OrderId, event: Event<'_>, at: Timestamp) -> Result<(), FoldError> {
    let kind = event.kind();
    let does_not_add_up = |reason| FoldError::DoesNotAddUp {
        event: kind,
        reason,
    };
    let out_of_place = FoldError::OutOfPlace {
        event: kind,
        status: order.status,
    };
    if order.id != id {
        return Err(does_not_add_up("it is of another order"));
    }
    let version = order
        .version
        .next()
        .ok_or(does_not_add_up("versions have come to their end"))?;
    match event {
        Event::OrderPlaced { .. } | Event::OrderSnapshot(_) => return Err(out_of_place),
        Event::LineAdded { line } => {
            if order.status != Status::Placed {
                return Err(out_of_place);
            }
            if line.id != order.next_line_id {
                return Err(does_not_add_up("the line does not have the next number"));
            }
            let next_line_id = line.id.next().ok_or(does_not_add_up(LINE_IDS_END))?;
            order.total = line
                .amount()
                .and_then(|amount| order.total.plus(amount))
                .map_err(|_: MoneyError| does_not_add_up(TOTAL_OVERFLOWS))?;
            order.next_line_id = next_line_id;
            order.lines.push(line.into_owned());
        }
        Event::LineRemoved { line } => {
            if order.status != Status::Placed {
                return Err(out_of_place);
            }
            if order.lines.len() == 1 {
                return Err(does_not_add_up("the last line cannot be removed"));
            }
            let index = order
                .lines
                .iter()
                .position(|known| *known == line)
                .ok_or(does_not_add_up("the order has no such line"))?;
            order.total = line
                .amount()
                .and_then(|amount| order.total.minus(amount))
                .map_err(|_: MoneyError| {
                    does_not_add_up("the line is worth more than the order")
                })?;
            order.lines.remove(index);
        }
        Event::OrderConfirmed => {
            if order.status != Status::Placed {
                return Err(out_of_place);
            }
            order.status = Status::Confirmed;
        }
        Event::OrderPaid {
            amount,
            reference: _,
        } => {
            if order.status != Status::Confirmed {
                return Err(out_of_place);
            }
            if amount != order.total {
                return Err(does_not_add_up("the payment is not the total"));
            }
            order.paid = amount;
            order.status = Status::Paid;
        }
        Event::OrderShipped {
            carrier: _,
            tracking_number: _,
        } => {
            if order.status != Status::Paid {
                return Err(out_of_place);
            }
            order.status = Status::Shipped;
        }
        Event::OrderDelivered => {
            if order.status != Status::Shipped {
                return Err(out_of_place);
            }
            order.status = Status::Delivered;
        }
        Event::OrderRefunded { amount, reason: _ } => {
            if !matches!(
                order.status,
                Status::Paid | Status::Shipped | Status::Delivered
            ) {
                return Err(out_of_place);
            }
            if amount == Amount::ZERO {
                return Err(does_not_add_up("it refunds nothing"));
            }
            let refunded = order
                .refunded
                .plus(amount)
                .ok()
                .filter(|refunded| *refunded <= order.paid)
                .ok_or(does_not_add_up("it refunds more than was paid"))?;
            order.refunded = refunded;
            if refunded == order.paid {
                order.status = Status::Refunded;
            }
        }
        Event::OrderCancelled { reason: _ } => {
            // `Refunded`, because the refund of a cancellation is the event before it in the same frame.
            if !matches!(
                order.status,
                Status::Placed | Status::Confirmed | Status::Paid | Status::Refunded
            ) {
                return Err(out_of_place);
            }
            if order.refunded != order.paid {
                return Err(does_not_add_up("not all that was paid was refunded"));
            }
            order.status = Status::Cancelled;
        }
    }
    order.version = version;
    order.updated_at = at;
    Ok(())
}
