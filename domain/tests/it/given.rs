//! Orders that have come some way, and short ways to say what is asked of them.

use order_domain::{
    Amount, Command, Currency, CustomerId, Event, EventKind, LineId, Metadata, NewLine, Order,
    OrderId, PlaceOrder, Quantity, Rejection, Sku, Timestamp, decide, fold,
};

pub(crate) const ID: OrderId = OrderId::from_bytes([7; 16]);

pub(crate) fn amount(minor_units: i64) -> Amount {
    Amount::new(minor_units).unwrap()
}

pub(crate) fn new_line(sku: &'static str, quantity: u32, unit_price: i64) -> NewLine {
    NewLine {
        sku: Sku::new(sku).unwrap(),
        quantity: Quantity::new(quantity).unwrap(),
        unit_price: amount(unit_price),
    }
}

pub(crate) fn place(lines: Vec<NewLine>) -> PlaceOrder {
    PlaceOrder {
        customer_id: CustomerId::new("c-1042").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines,
        metadata: Metadata::new(),
    }
}

/// Two tables and a chair: 2 × 19.99 + 5.00 = 44.98.
pub(crate) fn usual() -> Command {
    Command::Place(place(vec![
        new_line("TABLE", 2, 1999),
        new_line("CHAIR", 1, 500),
    ]))
}

pub(crate) const TOTAL: i64 = 4498;

pub(crate) fn add(sku: &'static str, quantity: u32, unit_price: i64) -> Command {
    Command::AddLine(new_line(sku, quantity, unit_price))
}

pub(crate) fn remove(id: u32) -> Command {
    Command::RemoveLine(LineId::new(id).unwrap())
}

pub(crate) fn pay(minor_units: i64) -> Command {
    Command::Pay {
        amount: amount(minor_units),
        reference: None,
    }
}

pub(crate) fn ship() -> Command {
    Command::Ship {
        carrier: None,
        tracking_number: None,
    }
}

pub(crate) fn cancel() -> Command {
    Command::Cancel { reason: None }
}

pub(crate) fn refund(minor_units: Option<i64>) -> Command {
    Command::Refund {
        amount: minor_units.map(amount),
        reason: None,
    }
}

/// The order after these commands, which must all be accepted.
pub(crate) fn given(commands: &[Command]) -> Order {
    let mut order = None;
    for command in commands {
        for event in decide(order.as_ref(), command).unwrap() {
            fold(&mut order, ID, &event, Timestamp::from_micros(1)).unwrap();
        }
    }
    order.unwrap()
}

pub(crate) fn given_paid() -> Order {
    given(&[usual(), Command::Confirm, pay(TOTAL)])
}

/// The order after one more command.
pub(crate) fn after(order: Order, command: &Command) -> Order {
    let events = decide(Some(&order), command).unwrap();
    let mut order = Some(order);
    for event in &events {
        fold(&mut order, ID, event, Timestamp::from_micros(2)).unwrap();
    }
    order.unwrap()
}

pub(crate) fn kinds(order: &Order, command: &Command) -> Vec<EventKind> {
    let events = decide(Some(order), command).unwrap();
    events.iter().map(Event::kind).collect()
}

pub(crate) fn refused(order: &Order, command: &Command) -> Rejection {
    decide(Some(order), command).unwrap_err()
}

pub(crate) fn refused_new(place: PlaceOrder) -> Rejection {
    decide(None, &Command::Place(place)).unwrap_err()
}
