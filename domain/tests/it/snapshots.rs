//! Goal: a snapshot is as good as the events it stands for, to everybody who folds or decides; and it is believed no more
//! than they are.
//!
//! Method: random lives of orders, cut anywhere, with a snapshot in the place of what was before the cut; and snapshots that
//! say what no events can have made.

use std::collections::BTreeMap;

use order_domain::codec::{decode, encode};
use order_domain::{
    Amount, Event, EventContext, FoldError, Life, LineId, Order, Sku, Snapshot, Status, Timestamp,
    Version, decide, fold,
};
use proptest::prelude::*;

use crate::any::{Step, codec, life};
use crate::given::ID;

fn at(version: usize) -> Timestamp {
    // Two events a microsecond: a line may be added at the time its order was placed.
    Timestamp::from_micros(version as u64 / 2)
}

/// The events of a life, and the order after them; `None` if it was never placed, for its amounts.
fn lived(steps: &[Step]) -> Option<(Vec<Event<'static>>, Order)> {
    let mut order = None;
    let mut events = Vec::new();
    for step in steps {
        let command = step.command(order.as_ref());
        for event in decide(order.as_ref(), &command).into_iter().flatten() {
            fold(&mut order, ID, &event, at(events.len())).unwrap();
            events.push(event);
        }
    }
    order.map(|order| (events, order))
}

/// The life of events that were appended one after the other, the first of them as number `from`.
fn folded(life: &mut Life, events: &[Event<'_>], from: usize) {
    for (number, event) in events.iter().enumerate() {
        life.fold(event, at(from + number)).unwrap();
    }
}

/// When each SKU was last ordered, by the events alone.
fn last_ordered(events: &[Event<'_>]) -> BTreeMap<String, Timestamp> {
    let mut last = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        let lines = match event {
            Event::OrderPlaced { lines, .. } => lines.as_slice(),
            Event::LineAdded { line } => std::slice::from_ref(line),
            _ => continue,
        };
        last.extend(lines.iter().map(|line| (line.sku.to_string(), at(number))));
    }
    last
}

/// The same, by a snapshot alone.
fn last_ordered_by(snapshot: &Snapshot<'_>) -> BTreeMap<String, Timestamp> {
    let placed = snapshot.lines.iter().map(|line| &line.sku);
    let mut last: BTreeMap<_, _> = placed
        .map(|sku| (sku.to_string(), snapshot.placed_at))
        .collect();
    let other = snapshot.last_ordered.iter();
    last.extend(other.map(|last| (last.sku.to_string(), last.at)));
    last
}

proptest! {
    #[test]
    fn a_snapshot_folds_to_the_order_its_events_made(steps in life(), codec in codec()) {
        let Some((events, order)) = lived(&steps) else { return Ok(()) };
        let mut life = Life::new(ID);
        folded(&mut life, &events, 0);
        let snapshot = life.snapshot().unwrap();
        prop_assert_eq!(snapshot.version.get() as usize, events.len());

        // Through bytes and borrowed, as a compacted log is replayed.
        let mut bytes = Vec::new();
        let event = Event::OrderSnapshot(Box::new(snapshot.clone()));
        let header = encode(codec, &event, &EventContext::default(), &mut bytes);
        let record = decode(header, &bytes).unwrap();
        let mut again = Life::new(ID);
        again.fold(&record.event, order.updated_at).unwrap();
        prop_assert_eq!(again.order(), Some(&order));
        prop_assert_eq!(&again, &life);
        prop_assert_eq!(again.snapshot(), Some(snapshot));
    }

    #[test]
    fn the_events_behind_a_snapshot_fold_as_behind_what_it_stands_for(steps in life(), cut in any::<prop::sample::Index>()) {
        let Some((events, order)) = lived(&steps) else { return Ok(()) };
        let cut = cut.index(events.len()) + 1;
        let mut before = Life::new(ID);
        folded(&mut before, &events[..cut], 0);
        let snapshot = Event::OrderSnapshot(Box::new(before.snapshot().unwrap()));

        let mut compacted = Life::new(ID);
        compacted.fold(&snapshot, at(cut - 1)).unwrap();
        folded(&mut compacted, &events[cut..], cut);
        let mut whole = Life::new(ID);
        folded(&mut whole, &events, 0);
        prop_assert_eq!(compacted.order(), Some(&order));
        // A snapshot of a snapshot and what followed it is one of all of it.
        prop_assert_eq!(compacted, whole);
    }

    #[test]
    fn every_command_is_decided_on_a_snapshot_as_on_its_events(steps in life(), more in life()) {
        let Some((events, order)) = lived(&steps) else { return Ok(()) };
        let mut life = Life::new(ID);
        folded(&mut life, &events, 0);
        let mut restored = None;
        let snapshot = Event::OrderSnapshot(Box::new(life.snapshot().unwrap()));
        fold(&mut restored, ID, &snapshot, order.updated_at).unwrap();
        for step in more {
            let command = step.command(Some(&order));
            prop_assert_eq!(decide(restored.as_ref(), &command), decide(Some(&order), &command));
        }
    }

    #[test]
    fn a_snapshot_tells_when_each_sku_was_last_ordered(steps in life()) {
        let Some((events, _)) = lived(&steps) else { return Ok(()) };
        let mut life = Life::new(ID);
        folded(&mut life, &events, 0);
        let snapshot = life.snapshot().unwrap();
        prop_assert_eq!(last_ordered_by(&snapshot), last_ordered(&events));
        // And says nothing that its lines say.
        let needless = snapshot.last_ordered.iter().filter(|last| {
            last.at == snapshot.placed_at && snapshot.lines.iter().any(|line| line.sku == last.sku)
        });
        prop_assert_eq!(needless.count(), 0);
    }

    #[test]
    fn a_snapshot_is_an_orders_first_event_or_none_of_it(steps in life()) {
        let Some((events, order)) = lived(&steps) else { return Ok(()) };
        let mut life = Life::new(ID);
        folded(&mut life, &events, 0);
        let before = life.clone();
        let snapshot = Event::OrderSnapshot(Box::new(life.snapshot().unwrap()));
        let refused = life.fold(&snapshot, order.updated_at);
        let out_of_place = matches!(refused, Err(FoldError::OutOfPlace { .. }));
        prop_assert!(out_of_place, "{:?}", refused);
        prop_assert_eq!(life, before);
    }
}

/// A delivered order of two lines, paid in full.
fn delivered() -> Snapshot<'static> {
    let line = |id, price| order_domain::Line {
        id: LineId::new(id).unwrap(),
        sku: Sku::new(format!("SKU-{id}")).unwrap(),
        quantity: order_domain::Quantity::new(2).unwrap(),
        unit_price: amount(price),
    };
    Snapshot {
        version: Version::new(5),
        status: Status::Delivered,
        customer_id: order_domain::CustomerId::new("c").unwrap(),
        currency: order_domain::Currency::parse("EUR").unwrap(),
        lines: vec![line(1, 100), line(3, 50)],
        next_line_id: LineId::new(4).unwrap(),
        paid: amount(300),
        refunded: amount(0),
        metadata: BTreeMap::new(),
        placed_at: Timestamp::from_micros(10),
        last_ordered: Vec::new(),
    }
}

fn amount(minor_units: i64) -> Amount {
    Amount::new(minor_units).unwrap()
}

fn restored(snapshot: Snapshot<'static>, at_us: u64) -> Result<Order, FoldError> {
    let mut order = None;
    let event = Event::OrderSnapshot(Box::new(snapshot));
    fold(&mut order, ID, &event, Timestamp::from_micros(at_us))?;
    Ok(order.expect("it was folded"))
}

#[test]
fn a_snapshot_that_no_events_can_have_made_is_refused() {
    assert_eq!(restored(delivered(), 10).unwrap().total, amount(300));
    type Change = fn(&mut Snapshot<'static>);
    let changes: [(&str, Change); 12] = [
        ("no event", |it| it.version = Version::NONE),
        ("no line", |it| it.lines.clear()),
        ("lines out of order", |it| it.lines.reverse()),
        ("a line twice", |it| it.lines.push(it.lines[1].clone())),
        ("a line yet to come", |it| {
            it.next_line_id = LineId::new(3).unwrap()
        }),
        ("not paid in full", |it| it.paid = amount(299)),
        ("paid too much", |it| it.paid = amount(301)),
        ("refunded and not said so", |it| it.refunded = amount(300)),
        ("refunded too much", |it| it.refunded = amount(301)),
        ("paid before it was", |it| it.status = Status::Placed),
        ("refunded only by name", |it| it.status = Status::Refunded),
        ("cancelled and not paid back", |it| {
            it.status = Status::Cancelled
        }),
    ];
    for (what, change) in changes {
        let mut snapshot = delivered();
        change(&mut snapshot);
        let refused = restored(snapshot, 10);
        assert!(
            matches!(refused, Err(FoldError::DoesNotAddUp { .. })),
            "{what}: {refused:?}"
        );
    }
    assert!(restored(delivered(), 9).is_err(), "older than its order");
    let mut overflowing = delivered();
    overflowing.lines[0].unit_price = amount(i64::MAX);
    assert!(restored(overflowing, 10).is_err());
}

#[test]
fn an_order_is_closed_when_its_way_has_ended() {
    let closed = |status| {
        let mut snapshot = delivered();
        (snapshot.status, snapshot.refunded) = match status {
            Status::Cancelled | Status::Refunded => (status, snapshot.paid),
            Status::Placed | Status::Confirmed => {
                snapshot.paid = amount(0);
                (status, amount(0))
            }
            Status::Paid | Status::Shipped | Status::Delivered => (status, amount(0)),
        };
        restored(snapshot, 10).unwrap().is_closed()
    };
    let found: Vec<Status> = Status::ALL
        .iter()
        .copied()
        .filter(|it| closed(*it))
        .collect();
    assert_eq!(
        found,
        [Status::Delivered, Status::Cancelled, Status::Refunded]
    );
}
