//! Goal: what `decide` never makes, `fold` refuses, and the order stays as it was.
//!
//! Method: events that a damaged or foreign log might hold, folded onto orders they do not fit.

use order_domain::{
    Command, Currency, CustomerId, Event, EventKind, FoldError, Line, LineId, Metadata, Order,
    OrderId, Quantity, Sku, Status, Timestamp, decide, fold,
};

use crate::given::*;

fn fold_error(order: Option<Order>, event: &Event<'_>) -> FoldError {
    let mut folded = order.clone();
    let error = fold(&mut folded, ID, event, Timestamp::from_micros(9)).unwrap_err();
    assert_eq!(folded, order, "an error changes nothing");
    error
}

#[test]
fn an_order_begins_with_being_placed_and_is_placed_once() {
    assert_eq!(
        fold_error(None, &Event::OrderConfirmed),
        FoldError::NotPlaced(EventKind::OrderConfirmed)
    );
    let again = decide(None, &usual()).unwrap().remove(0);
    assert_eq!(
        fold_error(Some(given(&[usual()])), &again),
        FoldError::OutOfPlace {
            event: EventKind::OrderPlaced,
            status: Status::Placed,
        }
    );
}

#[test]
fn events_that_do_not_add_up_are_refused() {
    let line = |id, sku: &'static str, unit_price| Line {
        id: LineId::new(id).unwrap(),
        sku: Sku::new(sku).unwrap(),
        quantity: Quantity::new(1).unwrap(),
        unit_price: amount(unit_price),
    };
    let placed_with = |lines| Event::OrderPlaced {
        customer_id: CustomerId::new("c").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines,
        metadata: Metadata::new(),
    };
    let order = || Some(given(&[usual()]));
    let paid = || Some(given_paid());
    let shipped = || Some(after(given_paid(), &ship()));
    let refund = |minor_units| Event::OrderRefunded {
        amount: amount(minor_units),
        reason: None,
    };
    for (order, event) in [
        (None, placed_with(vec![])),
        (None, placed_with(vec![line(2, "A", 1)])),
        (
            None,
            placed_with(vec![line(1, "A", i64::MAX), line(2, "B", 1)]),
        ),
        (
            order(),
            Event::LineAdded {
                line: line(2, "A", 1),
            },
        ),
        (
            order(),
            Event::LineAdded {
                line: line(4, "A", 1),
            },
        ),
        (
            order(),
            Event::LineAdded {
                line: line(3, "A", i64::MAX),
            },
        ),
        (
            order(),
            Event::LineRemoved {
                line: line(2, "CHAIR", 501),
            },
        ),
        (
            order(),
            Event::LineRemoved {
                line: line(3, "CHAIR", 500),
            },
        ),
        (
            Some(after(given(&[usual()]), &remove(1))),
            Event::LineRemoved {
                line: line(2, "CHAIR", 500),
            },
        ),
        (
            Some(given(&[usual(), Command::Confirm])),
            Event::OrderPaid {
                amount: amount(TOTAL - 1),
                reference: None,
            },
        ),
        (paid(), refund(0)),
        (paid(), refund(TOTAL + 1)),
        (shipped(), refund(i64::MAX)),
        (paid(), Event::OrderCancelled { reason: None }),
    ] {
        let error = fold_error(order, &event);
        assert!(
            matches!(error, FoldError::DoesNotAddUp { event: kind, .. } if kind == event.kind()),
            "{event:?}: {error}"
        );
    }
}

#[test]
fn an_event_of_another_order_is_refused() {
    let mut order = Some(given(&[usual()]));
    let other = OrderId::from_bytes([8; 16]);
    assert_eq!(
        fold(
            &mut order,
            other,
            &Event::OrderConfirmed,
            Timestamp::default()
        ),
        Err(FoldError::DoesNotAddUp {
            event: EventKind::OrderConfirmed,
            reason: "it is of another order",
        })
    );
}
