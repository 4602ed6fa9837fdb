//! How an event changes an order.

use crate::{Event, EventKind, Order, OrderId, Status, Timestamp};

/// An event that does not fit the order before it: the log is not what `decide` made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The first event is not `OrderPlaced`.
    #[error("{0:?} comes before the order was placed")]
    NotPlaced(EventKind),
    /// The order's status does not allow this event.
    #[error("{event:?} cannot follow in status {status:?}")]
    OutOfPlace {
        /// The event.
        event: EventKind,
        /// Status before it.
        status: Status,
    },
    /// Amounts or lines do not add up.
    #[error("{event:?} does not add up: {reason}")]
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
    let _ = (order, id, event, at);
    todo!()
}
