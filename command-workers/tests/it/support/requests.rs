//! Short words for requests.

use order_command_workers::{CommandRequest, IdempotencyRequest, Target};
use order_domain::{
    Amount, Command, Currency, CustomerId, Metadata, NewLine, OrderId, PlaceOrder, Quantity, Sku,
    Version,
};

/// A request without conditions for a new order of one line, 2 × 19.99 €.
pub(crate) fn place() -> CommandRequest {
    request(
        Target::New,
        Command::Place(PlaceOrder {
            customer_id: CustomerId::new("c-1042").unwrap(),
            currency: Currency::parse("EUR").unwrap(),
            lines: vec![NewLine {
                sku: Sku::new("SKU-1").unwrap(),
                quantity: Quantity::new(2).unwrap(),
                unit_price: Amount::new(1999).unwrap(),
            }],
            metadata: Metadata::from([("channel".to_owned(), "web".to_owned())]),
        }),
    )
}

/// A request without conditions for an order that exists.
pub(crate) fn on(id: OrderId, command: Command) -> CommandRequest {
    request(Target::Existing(id), command)
}

fn request(target: Target, command: Command) -> CommandRequest {
    CommandRequest {
        target,
        command,
        expected: None,
        idempotency: None,
        traceparent: None,
        request_id: None,
    }
}

/// Conditions.
pub(crate) trait Requests: Sized {
    /// Only at this version.
    fn at_version(self, version: u32) -> Self;
    /// With an idempotency key, for a body of this digest.
    fn keyed(self, key: &str, fingerprint: u8) -> Self;
}

impl Requests for CommandRequest {
    fn at_version(mut self, version: u32) -> Self {
        self.expected = Some(vec![Version::new(version)]);
        self
    }

    fn keyed(mut self, key: &str, fingerprint: u8) -> Self {
        self.idempotency = Some(IdempotencyRequest {
            key: key.to_owned(),
            fingerprint: [fingerprint; 16],
        });
        self
    }
}
