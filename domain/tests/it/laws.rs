//! Goal: what must hold for every order, every event and every record, not only for the ones we thought of.
//!
//! Method: random lives of orders, in which most steps fit and some do not; random events, which mostly do not fit;
//! random records and random bytes.

use std::collections::BTreeSet;

use order_domain::codec::{RecordHeader, decode, encode};
use order_domain::{
    Amount, Command, CommandKind, Event, EventContext, EventKind, LINES_MAX, NewLine, Order,
    OrderId, Quantity, RecordedEvent, Rejection, Status, Timestamp, Version, decide, decide_owned,
    fold, fold_owned,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::any::{Step, codec, context, event, life};
use crate::given::ID;

fn at(version: usize) -> Timestamp {
    Timestamp::from_micros(1_000_000 * version as u64)
}

/// Lives the steps; calls `look` with the order before each step, the command, and what was decided.
fn live(
    steps: &[Step],
    mut look: impl FnMut(Option<&Order>, &Command, &Result<Vec<Event<'static>>, Rejection>),
) -> (Option<Order>, Vec<Event<'static>>) {
    let mut order = None;
    let mut events = Vec::new();
    for step in steps {
        let command = step.command(order.as_ref());
        let decision = decide(order.as_ref(), &command);
        assert_eq!(decision, decide_owned(order.as_ref(), command.clone()));
        look(order.as_ref(), &command, &decision);
        for event in decision.into_iter().flatten() {
            fold(&mut order, ID, &event, at(events.len() + 1)).unwrap();
            events.push(event);
        }
    }
    (order, events)
}

fn assert_adds_up(order: &Order) {
    let total = order
        .lines
        .iter()
        .try_fold(Amount::ZERO, |sum, line| sum.plus(line.amount()?))
        .unwrap();
    assert_eq!(order.total, total);
    assert!(
        order.refunded <= order.paid && order.paid <= order.total,
        "{order:?}"
    );
    assert!(!order.lines.is_empty());
    assert!(order.lines.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert!(order.lines.iter().all(|line| line.id < order.next_line_id));
    assert!(order.placed_at <= order.updated_at);
    let settled = order.refunded == order.paid;
    match order.status {
        Status::Placed | Status::Confirmed => assert_eq!(order.paid, Amount::ZERO),
        Status::Paid | Status::Shipped | Status::Delivered => {
            assert_eq!(order.paid, order.total);
            assert!(!settled || order.paid == Amount::ZERO);
        }
        Status::Cancelled | Status::Refunded => assert!(settled, "{order:?}"),
    }
}

/// A command of this kind that the order's amounts and lines allow, if there is one.
fn fitting(order: &Order, kind: CommandKind) -> Option<Command> {
    let last = order.lines.last().unwrap();
    match kind {
        CommandKind::Place => None,
        CommandKind::AddLine => (order.lines.len() < LINES_MAX).then(|| {
            Command::AddLine(NewLine {
                sku: last.sku.clone(),
                quantity: Quantity::new(1).unwrap(),
                unit_price: Amount::ZERO,
            })
        }),
        CommandKind::RemoveLine => (order.lines.len() > 1).then_some(Command::RemoveLine(last.id)),
        CommandKind::Confirm => Some(Command::Confirm),
        CommandKind::Pay => Some(Command::Pay {
            amount: order.total,
            reference: None,
        }),
        CommandKind::Ship => Some(Command::Ship {
            carrier: None,
            tracking_number: None,
        }),
        CommandKind::Deliver => Some(Command::Deliver),
        CommandKind::Cancel => Some(Command::Cancel { reason: None }),
        CommandKind::Refund => (order.refundable() > Amount::ZERO).then_some(Command::Refund {
            amount: None,
            reason: None,
        }),
    }
}

/// Keeps the laws from being true of nothing: the lives they are tried on go everywhere.
#[test]
fn the_lives_tried_reach_every_status_and_every_kind_of_event() {
    let mut runner = TestRunner::deterministic();
    let (mut statuses, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..500 {
        let steps = life().new_tree(&mut runner).unwrap().current();
        let (_, events) = live(&steps, |order, _, _| {
            statuses.extend(order.map(|o| o.status))
        });
        kinds.extend(events.iter().map(Event::kind));
    }
    assert_eq!(Vec::from_iter(statuses), Status::ALL);
    // A snapshot is written by nobody who decides.
    let decided = EventKind::ALL
        .iter()
        .filter(|kind| **kind != EventKind::OrderSnapshot);
    assert!(kinds.iter().eq(decided), "{kinds:?}");
}

proptest! {
    #[test]
    fn folding_the_events_gives_the_order_that_was_decided_on(steps in life(), codec in codec()) {
        let (decided, events) = live(&steps, |_, _, _| ());
        let mut folded = None;
        for (index, event) in events.iter().enumerate() {
            // Through bytes and borrowed, as replay does it.
            let mut bytes = Vec::new();
            let header = encode(codec, event, &EventContext::default(), &mut bytes);
            let record = decode(header, &bytes).unwrap();
            fold_owned(&mut folded, ID, record.event, at(index + 1)).unwrap();
        }
        prop_assert_eq!(folded, decided);
    }

    #[test]
    fn every_order_adds_up_after_every_event(steps in life()) {
        let (_, events) = live(&steps, |_, _, _| ());
        let mut order = None;
        for (index, event) in events.iter().enumerate() {
            fold(&mut order, ID, event, at(index + 1)).unwrap();
            let order = order.as_ref().unwrap();
            assert_adds_up(order);
            prop_assert_eq!(order.version.get() as usize, index + 1);
            prop_assert_eq!(order.updated_at, at(index + 1));
            prop_assert_eq!(order.placed_at, at(1));
        }
    }

    #[test]
    fn a_rejected_step_lists_the_steps_that_are_accepted(steps in life()) {
        live(&steps, |order, command, decision| match decision {
            Ok(events) => assert!(!events.is_empty()),
            Err(Rejection::NotFound) => assert_eq!(order, None),
            Err(Rejection::AlreadyPlaced) => assert_eq!(command.kind(), CommandKind::Place),
            Err(Rejection::InvalidTransition { status, attempted, allowed }) => {
                let order = order.unwrap();
                assert_eq!((*status, *attempted), (order.status, command.kind()));
                assert!(!allowed.contains(attempted));
                for &kind in *allowed {
                    if let Some(command) = fitting(order, kind) {
                        assert_eq!(command.kind(), kind);
                        assert!(decide(Some(order), &command).is_ok(), "{command:?} on {order:?}");
                    }
                }
            }
            Err(_) => assert!(order.is_none_or(|order| {
                order.status.allowed().contains(&command.kind())
            }), "{command:?} was refused for its values where its kind is not allowed"),
        });
    }

    #[test]
    fn only_the_allowed_kinds_are_ever_accepted(steps in life()) {
        let (order, _) = live(&steps, |_, _, _| ());
        if let Some(order) = order {
            for &kind in CommandKind::ALL {
                if let Some(command) = fitting(&order, kind) {
                    prop_assert_eq!(
                        decide(Some(&order), &command).is_ok(),
                        order.status.allowed().contains(&kind)
                    );
                }
            }
        }
    }

    #[test]
    fn a_refused_payment_or_refund_says_an_amount_that_is_accepted(steps in life()) {
        live(&steps, |order, _, decision| match decision {
            Err(Rejection::PaymentMismatch { total, .. }) => {
                let pay = Command::Pay { amount: *total, reference: None };
                assert!(decide(order, &pay).is_ok());
            }
            Err(Rejection::RefundMismatch { refundable, .. }) if *refundable > Amount::ZERO => {
                let refund = Command::Refund { amount: Some(*refundable), reason: None };
                assert!(decide(order, &refund).is_ok());
            }
            _ => (),
        });
    }

    #[test]
    fn an_event_that_does_not_fit_changes_nothing(steps in life(), strangers in vec(event(), 1..20)) {
        let (mut order, _) = live(&steps, |_, _, _| ());
        for event in strangers {
            let before = order.clone();
            match fold(&mut order, ID, &event, at(1_000)) {
                Err(_) => prop_assert_eq!(&order, &before),
                Ok(()) => {
                    let order = order.as_ref().unwrap();
                    assert_adds_up(order);
                    let version = before.map_or(Version::NONE, |before| before.version);
                    let expected = match &event {
                        Event::OrderSnapshot(snapshot) => Some(snapshot.version),
                        _ => version.next(),
                    };
                    prop_assert_eq!(Some(order.version), expected);
                }
            }
        }
    }

    #[test]
    fn no_sequence_of_events_panics(events in vec(event(), 0..30)) {
        let mut order = None;
        for event in &events {
            if fold(&mut order, ID, event, at(1)).is_ok() {
                assert_adds_up(order.as_ref().unwrap());
            }
        }
    }

    #[test]
    fn a_record_decodes_to_what_was_encoded(
        event in event(),
        context in context(),
        codec in codec(),
        before in vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = before.clone();
        let header = encode(codec, &event, &context, &mut bytes);
        let (kept, record) = bytes.split_at(before.len());
        prop_assert_eq!(kept, &before);
        prop_assert_eq!(header.event_type, event.kind().number());
        let decoded = decode(header, record).unwrap();
        let expected = RecordedEvent { event, context };
        prop_assert_eq!(&decoded, &expected);
        prop_assert_eq!(decoded.into_owned(), expected);
    }

    #[test]
    fn a_damaged_record_is_refused_or_is_another_event(
        event in event(),
        context in context(),
        codec in codec(),
        flips in vec((any::<prop::sample::Index>(), 1..=255_u8), 0..4),
        cut in option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = Vec::new();
        let header = encode(codec, &event, &context, &mut bytes);
        for (index, flip) in flips {
            *index.get_mut(&mut bytes) ^= flip;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(record) = decode(header, &bytes) {
            prop_assert_eq!(record.event.kind(), event.kind());
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        event_type in prop_oneof![4 => 0..12_u16, 1 => any::<u16>()],
        schema in prop_oneof![4 => 0..4_u8, 1 => any::<u8>()],
        codec in prop_oneof![4 => 0..4_u8, 1 => any::<u8>()],
        bytes in vec(any::<u8>(), 0..300),
    ) {
        let header = RecordHeader { event_type, schema, codec };
        if let Ok(record) = decode(header, &bytes) {
            prop_assert_eq!(Some(record.event.kind()), EventKind::from_number(event_type));
        }
    }

    #[test]
    fn a_byte_behind_a_record_is_refused(
        event in event(),
        context in context(),
        codec in codec(),
        byte in any::<u8>().prop_filter("JSON may end in white space", |byte| !byte.is_ascii_whitespace()),
    ) {
        let mut bytes = Vec::new();
        let header = encode(codec, &event, &context, &mut bytes);
        bytes.push(byte);
        prop_assert!(decode(header, &bytes).is_err());
    }

    #[test]
    fn an_order_id_is_read_back_from_its_text(bytes in any::<[u8; 16]>()) {
        let id = OrderId::from_bytes(bytes);
        prop_assert_eq!(OrderId::parse(&id.to_string()), Ok(id));
        prop_assert_eq!(OrderId::parse(&id.to_string().to_uppercase()), Ok(id));
    }
}
