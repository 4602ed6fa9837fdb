//! Goal: the rules of an order's life, each told by an example.
//!
//! Method: given an order that has come some way, when a command is decided, then these are its events or its refusal.

use order_domain::{
    Amount, Command, CommandKind, Event, EventKind, LineId, Rejection, Status, Version, decide,
};

use crate::given::*;

// ---- the way from placed to delivered ----

#[test]
fn an_order_goes_from_placed_to_delivered() {
    let mut order = given(&[usual()]);
    assert_eq!((order.status, order.total), (Status::Placed, amount(TOTAL)));
    for (command, status) in [
        (Command::Confirm, Status::Confirmed),
        (pay(TOTAL), Status::Paid),
        (ship(), Status::Shipped),
        (Command::Deliver, Status::Delivered),
    ] {
        order = after(order, &command);
        assert_eq!(order.status, status);
    }
    assert_eq!(order.version, Version::new(5));
    assert_eq!((order.paid, order.refunded), (amount(TOTAL), Amount::ZERO));
}

#[test]
fn a_new_order_numbers_its_lines_from_one() {
    let order = given(&[usual()]);
    let ids: Vec<u32> = order.lines.iter().map(|line| line.id.get()).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(order.next_line_id.get(), 3);
}

#[test]
fn an_order_is_placed_once() {
    assert_eq!(
        refused(&given(&[usual()]), &usual()),
        Rejection::AlreadyPlaced
    );
}

#[test]
fn no_other_step_is_possible_before_an_order_is_placed() {
    for command in [add("LAMP", 1, 1), remove(1), Command::Confirm, cancel()] {
        assert_eq!(decide(None, &command), Err(Rejection::NotFound));
    }
}

#[test]
fn a_step_out_of_place_is_refused_with_the_steps_that_are_possible() {
    let rejection = refused(&given(&[usual()]), &ship());
    assert_eq!(
        rejection,
        Rejection::InvalidTransition {
            status: Status::Placed,
            attempted: CommandKind::Ship,
            allowed: &[
                CommandKind::AddLine,
                CommandKind::RemoveLine,
                CommandKind::Confirm,
                CommandKind::Cancel,
            ],
        }
    );
    assert_eq!(
        rejection.to_string(),
        "ship is not possible while the order is placed; allowed: add-line, remove-line, confirm, cancel"
    );
}

#[test]
fn an_order_at_its_end_allows_nothing() {
    let cancelled = given(&[usual(), cancel()]);
    let refunded = after(given_paid(), &refund(None));
    for (order, status) in [(cancelled, "cancelled"), (refunded, "refunded")] {
        for command in [
            add("LAMP", 1, 1),
            Command::Confirm,
            pay(0),
            cancel(),
            refund(None),
        ] {
            let step = command.kind();
            assert_eq!(
                refused(&order, &command).to_string(),
                format!("{step} is not possible while the order is {status}; allowed: nothing")
            );
        }
    }
}

// ---- lines ----

#[test]
fn lines_come_and_go_while_placed_and_the_total_follows() {
    let order = after(given(&[usual()]), &add("LAMP", 3, 100));
    assert_eq!(order.total, amount(TOTAL + 300));
    let order = after(order, &remove(1));
    assert_eq!(order.total, amount(500 + 300));
}

#[test]
fn a_removed_lines_number_is_never_given_again() {
    let order = after(given(&[usual()]), &remove(2));
    let order = after(order, &add("LAMP", 1, 1));
    let ids: Vec<u32> = order.lines.iter().map(|line| line.id.get()).collect();
    assert_eq!(ids, [1, 3]);
    assert_eq!(
        refused(&order, &remove(2)),
        Rejection::UnknownLine(LineId::new(2).unwrap())
    );
}

#[test]
fn lines_are_fixed_once_the_order_is_confirmed() {
    let order = given(&[usual(), Command::Confirm]);
    for command in [add("LAMP", 1, 1), remove(1)] {
        assert!(matches!(
            refused(&order, &command),
            Rejection::InvalidTransition {
                status: Status::Confirmed,
                ..
            }
        ));
    }
}

#[test]
fn the_last_line_stays() {
    let order = after(given(&[usual()]), &remove(1));
    assert_eq!(refused(&order, &remove(2)), Rejection::LastLine);
}

// ---- money ----

#[test]
fn only_the_exact_total_pays_an_order() {
    let order = given(&[usual(), Command::Confirm]);
    for wrong in [0, TOTAL - 1, TOTAL + 1, i64::MAX] {
        assert_eq!(
            refused(&order, &pay(wrong)),
            Rejection::PaymentMismatch {
                amount: amount(wrong),
                total: amount(TOTAL),
            }
        );
    }
}

#[test]
fn an_order_that_costs_nothing_is_paid_with_nothing() {
    let free = Command::Place(place(vec![new_line("SAMPLE", 1, 0)]));
    let order = given(&[free, Command::Confirm, pay(0)]);
    assert_eq!(order.status, Status::Paid);
    assert_eq!(kinds(&order, &cancel()), [EventKind::OrderCancelled]);
    assert_eq!(
        refused(&order, &refund(None)),
        Rejection::RefundMismatch {
            amount: Amount::ZERO,
            refundable: Amount::ZERO,
        }
    );
}

#[test]
fn parts_can_be_refunded_until_nothing_is_left() {
    let order = after(given_paid(), &refund(Some(498)));
    assert_eq!((order.status, order.refunded), (Status::Paid, amount(498)));
    let order = after(order, &ship());
    let order = after(order, &refund(Some(4000 - 1)));
    assert_eq!(order.status, Status::Shipped);
    assert_eq!(
        refused(&order, &refund(Some(2))),
        Rejection::RefundMismatch {
            amount: amount(2),
            refundable: amount(1),
        }
    );
    let order = after(order, &refund(None));
    assert_eq!(
        (order.status, order.refunded),
        (Status::Refunded, amount(TOTAL))
    );
}

#[test]
fn a_refund_of_nothing_is_refused() {
    assert!(matches!(
        refused(&given_paid(), &refund(Some(0))),
        Rejection::RefundMismatch { .. }
    ));
}

#[test]
fn a_delivered_order_can_be_refunded_whole() {
    let delivered = after(after(given_paid(), &ship()), &Command::Deliver);
    assert_eq!(kinds(&delivered, &refund(None)), [EventKind::OrderRefunded]);
    assert_eq!(after(delivered, &refund(None)).status, Status::Refunded);
}

// ---- cancelling ----

#[test]
fn an_unpaid_order_is_cancelled_by_one_event() {
    for order in [given(&[usual()]), given(&[usual(), Command::Confirm])] {
        assert_eq!(kinds(&order, &cancel()), [EventKind::OrderCancelled]);
        assert_eq!(after(order, &cancel()).status, Status::Cancelled);
    }
}

#[test]
fn cancelling_a_paid_order_refunds_what_is_left_in_the_same_step() {
    let order = after(given_paid(), &refund(Some(498)));
    let cancel = Command::Cancel {
        reason: Some("too late".into()),
    };
    assert_eq!(
        decide(Some(&order), &cancel).unwrap(),
        [
            Event::OrderRefunded {
                amount: amount(4000),
                reason: Some("too late".into()),
            },
            Event::OrderCancelled {
                reason: Some("too late".into()),
            },
        ]
    );
    let order = after(order, &cancel);
    assert_eq!(
        (order.status, order.refunded, order.version),
        (Status::Cancelled, amount(TOTAL), Version::new(6))
    );
}

#[test]
fn a_shipped_order_cannot_be_cancelled() {
    assert!(matches!(
        refused(&after(given_paid(), &ship()), &cancel()),
        Rejection::InvalidTransition {
            status: Status::Shipped,
            ..
        }
    ));
}
