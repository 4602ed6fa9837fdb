//! The JSON of an order, the same bytes whether it comes from a command's answer or from a row: the row's lines and
//! metadata are JSON already and are passed on as they are.

use order_domain::{Amount, Metadata, Order, OrderId, Status, Timestamp, Version};
use order_projector_workers::OrderRowRef;

use crate::time_text;

/// What stands before the lines and behind them, from either source.
struct Frame<'a> {
    id: OrderId,
    status: Status,
    version: Version,
    customer_id: &'a str,
    currency: &'a str,
    total: i64,
    paid: i64,
    refunded: i64,
    placed_at: Timestamp,
    updated_at: Timestamp,
}

/// Writes the order after a command.
pub(crate) fn write_order(order: &Order, out: &mut Vec<u8>) {
    let frame = Frame {
        id: order.id,
        status: order.status,
        version: order.version,
        customer_id: order.customer_id.as_str(),
        currency: order.currency.code(),
        total: order.total.minor_units(),
        paid: order.paid.minor_units(),
        refunded: order.refunded.minor_units(),
        placed_at: order.placed_at,
        updated_at: order.updated_at,
    };
    frame.write_head(out);
    write_lines(order, out);
    out.extend_from_slice(b",\"metadata\":");
    write_metadata(&order.metadata, out);
    frame.write_tail(out);
}

/// Writes the order a row shows.
pub(crate) fn write_row(row: &OrderRowRef<'_>, out: &mut Vec<u8>) {
    let frame = Frame {
        id: row.id,
        status: row.status,
        version: row.version,
        customer_id: row.customer_id,
        currency: row.currency,
        total: row.total,
        paid: row.paid,
        refunded: row.refunded,
        placed_at: row.placed_at,
        updated_at: row.updated_at,
    };
    frame.write_head(out);
    out.extend_from_slice(row.lines.as_bytes());
    out.extend_from_slice(b",\"metadata\":");
    out.extend_from_slice(row.metadata.as_bytes());
    frame.write_tail(out);
}

impl Frame<'_> {
    fn write_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":\"");
        out.extend_from_slice(self.id.text(&mut [0; 36]).as_bytes());
        out.extend_from_slice(b"\",\"status\":\"");
        out.extend_from_slice(self.status.name().as_bytes());
        out.extend_from_slice(b"\",\"version\":");
        number(i64::from(self.version.get()), out);
        out.extend_from_slice(b",\"customer_id\":");
        text(self.customer_id, out);
        out.extend_from_slice(b",\"currency\":\"");
        out.extend_from_slice(self.currency.as_bytes());
        out.extend_from_slice(b"\",\"total\":");
        number(self.total, out);
        // Left out while nothing was paid: most orders are read before.
        if self.paid != 0 {
            out.extend_from_slice(b",\"paid\":");
            number(self.paid, out);
        }
        if self.refunded != 0 {
            out.extend_from_slice(b",\"refunded\":");
            number(self.refunded, out);
        }
        out.extend_from_slice(b",\"lines\":");
    }

    fn write_tail(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"placed_at\":\"");
        out.extend_from_slice(&time_text::text(self.placed_at));
        out.extend_from_slice(b"\",\"updated_at\":\"");
        out.extend_from_slice(&time_text::text(self.updated_at));
        out.extend_from_slice(b"\"}");
    }
}

fn write_lines(order: &Order, out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, line) in order.lines.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"line_id\":");
        number(i64::from(line.id.get()), out);
        out.extend_from_slice(b",\"sku\":");
        text(line.sku.as_str(), out);
        out.extend_from_slice(b",\"quantity\":");
        number(i64::from(line.quantity.get()), out);
        out.extend_from_slice(b",\"unit_price\":");
        amount(line.unit_price, out);
        out.push(b'}');
    }
    out.push(b']');
}

fn write_metadata(metadata: &Metadata, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in metadata.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(key, out);
        out.push(b':');
        text(value, out);
    }
    out.push(b'}');
}

fn amount(amount: Amount, out: &mut Vec<u8>) {
    number(amount.minor_units(), out);
}

fn number(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A JSON string, quotes included.
fn text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string always serializes into memory");
}

#[cfg(test)]
mod tests {
    use order_domain::{Currency, CustomerId, Line, LineId, Quantity, Sku};
    use order_projector_workers::{Offset, PartitionId};
    use serde_json::{Value, json};

    use super::*;

    fn an_order() -> Order {
        Order {
            id: OrderId::parse("0199c82c-0000-7000-8000-000000000001").unwrap(),
            version: Version::new(1),
            status: Status::Placed,
            customer_id: CustomerId::new("c-\"1042\"").unwrap(),
            currency: Currency::parse("EUR").unwrap(),
            lines: vec![Line {
                id: LineId::FIRST,
                sku: Sku::new("SKU-1").unwrap(),
                quantity: Quantity::new(2).unwrap(),
                unit_price: Amount::new(1999).unwrap(),
            }],
            next_line_id: LineId::new(2).unwrap(),
            total: Amount::new(3998).unwrap(),
            paid: Amount::ZERO,
            refunded: Amount::ZERO,
            metadata: [("channel".to_owned(), "web\n".to_owned())].into(),
            placed_at: Timestamp::from_micros(1_795_374_000_000_000),
            updated_at: Timestamp::from_micros(1_795_374_000_000_000),
        }
    }

    fn written(order: &Order) -> String {
        let mut out = Vec::new();
        write_order(order, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_order_has_the_fields_of_the_contract_in_their_order() {
        assert_eq!(
            written(&an_order()),
            concat!(
                r#"{"id":"0199c82c-0000-7000-8000-000000000001","status":"placed","version":1,"#,
                r#""customer_id":"c-\"1042\"","currency":"EUR","total":3998,"#,
                r#""lines":[{"line_id":1,"sku":"SKU-1","quantity":2,"unit_price":1999}],"#,
                r#""metadata":{"channel":"web\n"},"#,
                r#""placed_at":"2026-11-22T19:00:00.000Z","updated_at":"2026-11-22T19:00:00.000Z"}"#
            )
        );
    }

    #[test]
    fn money_that_moved_is_shown_behind_the_total() {
        let mut order = an_order();
        order.status = Status::Paid;
        order.paid = Amount::new(3998).unwrap();
        order.refunded = Amount::new(8).unwrap();
        let shown: Value = serde_json::from_str(&written(&order)).unwrap();
        assert_eq!(shown["paid"], json!(3998));
        assert_eq!(shown["refunded"], json!(8));
    }

    #[test]
    fn a_row_and_a_commands_answer_are_the_same_bytes() {
        let order = an_order();
        let row = OrderRowRef {
            id: order.id,
            partition: PartitionId::new(0),
            version: order.version,
            status: order.status,
            customer_id: order.customer_id.as_str(),
            currency: order.currency.code(),
            total: order.total.minor_units(),
            paid: 0,
            refunded: 0,
            next_line_id: 2,
            lines: r#"[{"line_id":1,"sku":"SKU-1","quantity":2,"unit_price":1999}]"#,
            metadata: r#"{"channel":"web\n"}"#,
            placed_at: order.placed_at,
            updated_at: order.updated_at,
            last_frame: Offset::ZERO,
        };
        let mut from_row = Vec::new();
        write_row(&row, &mut from_row);
        assert_eq!(String::from_utf8(from_row).unwrap(), written(&order));
    }
}
