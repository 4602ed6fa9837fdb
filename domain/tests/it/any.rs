//! Any life of an order, any event, any record: what the laws are tried on.

use std::borrow::Cow;

use order_domain::codec::Codec;
use order_domain::{
    Amount, Command, Currency, CustomerId, Event, EventContext, Idempotency, LastOrdered, Line,
    LineId, Metadata, NewLine, Order, PlaceOrder, Quantity, Sku, Snapshot, Status, Timestamp,
    Version,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn id_text() -> impl Strategy<Value = String> {
    prop_oneof!["[!-~]{1,64}", "[a-zäß€]{1,20}", "[a-z] [a-z]"]
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![0..300_i64, 0..1_000_000_i64, 0..=i64::MAX]
        .prop_map(|minor_units| Amount::new(minor_units).unwrap())
}

fn quantity() -> impl Strategy<Value = Quantity> {
    prop_oneof![1..5_u32, 1..=Quantity::MAX].prop_map(|units| Quantity::new(units).unwrap())
}

/// Lines that a client may ask for; once in a while one whose price overflows every total.
pub(crate) fn new_line() -> impl Strategy<Value = NewLine> {
    let price = prop_oneof![20 => 0..10_000_i64, 1 => Just(i64::MAX)];
    (id_text(), quantity(), price).prop_map(|(sku, quantity, price)| NewLine {
        sku: Sku::new(sku).unwrap(),
        quantity,
        unit_price: Amount::new(price).unwrap(),
    })
}

fn currency() -> impl Strategy<Value = Currency> {
    prop::sample::select(vec!["EUR", "USD", "JPY", "KWD", "CLF"])
        .prop_map(|code| Currency::parse(code).unwrap())
}

fn metadata() -> impl Strategy<Value = Metadata> {
    btree_map("[a-z]{1,8}", "\\PC{0,20}", 0..4)
}

fn place() -> impl Strategy<Value = Command> {
    (id_text(), currency(), vec(new_line(), 1..5), metadata()).prop_map(
        |(customer_id, currency, lines, metadata)| {
            Command::Place(PlaceOrder {
                customer_id: CustomerId::new(customer_id).unwrap(),
                currency,
                lines,
                metadata,
            })
        },
    )
}

fn text() -> impl Strategy<Value = Option<String>> {
    option::of("[ -~\n]{0,40}")
}

/// A step in an order's life. What depends on the order is filled in when its turn comes.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Just(Command),
    RemoveLine(prop::sample::Index),
    PayTotal(Option<String>),
}

impl Step {
    pub(crate) fn command(&self, order: Option<&Order>) -> Command {
        match (self, order) {
            (Self::Just(command), _) => command.clone(),
            (Self::RemoveLine(index), Some(order)) => {
                Command::RemoveLine(index.get(&order.lines).id)
            }
            (Self::RemoveLine(_), None) => Command::RemoveLine(LineId::FIRST),
            (Self::PayTotal(reference), order) => Command::Pay {
                amount: order.map_or(Amount::ZERO, |order| order.total),
                reference: reference.clone(),
            },
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => place().prop_map(Step::Just),
        6 => new_line().prop_map(|line| Step::Just(Command::AddLine(line))),
        4 => any::<prop::sample::Index>().prop_map(Step::RemoveLine),
        1 => (1..9_u32).prop_map(|id| Step::Just(Command::RemoveLine(LineId::new(id).unwrap()))),
        3 => Just(Step::Just(Command::Confirm)),
        5 => text().prop_map(Step::PayTotal),
        1 => (amount(), text())
            .prop_map(|(amount, reference)| Step::Just(Command::Pay { amount, reference })),
        3 => (text(), text()).prop_map(|(carrier, tracking_number)| {
            Step::Just(Command::Ship { carrier, tracking_number })
        }),
        2 => Just(Step::Just(Command::Deliver)),
        1 => text().prop_map(|reason| Step::Just(Command::Cancel { reason })),
        3 => (option::of(amount()), text())
            .prop_map(|(amount, reason)| Step::Just(Command::Refund { amount, reason })),
    ]
}

/// A new order and what is tried on it.
pub(crate) fn life() -> impl Strategy<Value = Vec<Step>> {
    (place().prop_map(Step::Just), vec(step(), 0..30)).prop_map(|(first, mut steps)| {
        steps.insert(0, first);
        steps
    })
}

fn line() -> impl Strategy<Value = Line<'static>> {
    (1..5_u32, new_line()).prop_map(|(id, line)| Line {
        id: LineId::new(id).unwrap(),
        sku: line.sku,
        quantity: line.quantity,
        unit_price: line.unit_price,
    })
}

fn free_text() -> impl Strategy<Value = Option<Cow<'static, str>>> {
    option::of("\\PC{0,40}|[\\x00-\\x7f]{0,10}".prop_map(Cow::Owned))
}

/// Any snapshot there can be, whether an order can be so or not.
fn snapshot() -> impl Strategy<Value = Snapshot<'static>> {
    let last_ordered = (id_text(), 0..3_000_000_u64).prop_map(|(sku, at)| LastOrdered {
        sku: Sku::new(sku).unwrap(),
        at: Timestamp::from_micros(at),
    });
    let amounts = (amount(), amount());
    let rest = (metadata(), 0..3_000_000_u64, vec(last_ordered, 0..3));
    let status = prop::sample::select(Status::ALL);
    (
        (any::<u32>(), status, id_text(), currency()),
        (vec(line(), 0..4), 1..6_u32),
        amounts,
        rest,
    )
        .prop_map(
            |(
                (version, status, customer_id, currency),
                (lines, next_line_id),
                (paid, refunded),
                (metadata, placed_at, last_ordered),
            )| Snapshot {
                version: Version::new(version),
                status,
                customer_id: CustomerId::new(customer_id).unwrap(),
                currency,
                lines,
                next_line_id: LineId::new(next_line_id).unwrap(),
                paid,
                refunded,
                metadata,
                placed_at: Timestamp::from_micros(placed_at),
                last_ordered,
            },
        )
}

/// Any event there can be, whether it fits or not.
pub(crate) fn event() -> impl Strategy<Value = Event<'static>> {
    prop_oneof![
        (id_text(), currency(), vec(line(), 0..4), metadata()).prop_map(
            |(customer_id, currency, lines, metadata)| Event::OrderPlaced {
                customer_id: CustomerId::new(customer_id).unwrap(),
                currency,
                lines,
                metadata,
            }
        ),
        line().prop_map(|line| Event::LineAdded { line }),
        line().prop_map(|line| Event::LineRemoved { line }),
        Just(Event::OrderConfirmed),
        (amount(), free_text())
            .prop_map(|(amount, reference)| Event::OrderPaid { amount, reference }),
        (free_text(), free_text()).prop_map(|(carrier, tracking_number)| Event::OrderShipped {
            carrier,
            tracking_number,
        }),
        Just(Event::OrderDelivered),
        (amount(), free_text())
            .prop_map(|(amount, reason)| Event::OrderRefunded { amount, reason }),
        free_text().prop_map(|reason| Event::OrderCancelled { reason }),
        snapshot().prop_map(|snapshot| Event::OrderSnapshot(Box::new(snapshot))),
    ]
}

pub(crate) fn context() -> impl Strategy<Value = EventContext<'static>> {
    let idempotency =
        ("\\PC{1,40}", any::<[u8; 16]>()).prop_map(|(key, fingerprint)| Idempotency {
            key: Cow::Owned(key),
            fingerprint,
        });
    (option::of(idempotency), free_text(), free_text()).prop_map(
        |(idempotency, traceparent, request_id)| EventContext {
            idempotency,
            traceparent,
            request_id,
        },
    )
}

pub(crate) fn codec() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Bincode), Just(Codec::Json)]
}
