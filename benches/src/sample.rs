//! The order that everything is measured with: the example of the API's documentation, and a source of chance.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Bytes of a record in the measurements of the log: about one order event, framed.
pub const RECORD_BYTES: usize = 256;

/// What a client sends to `POST /orders`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// Who orders.
    pub customer_id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What is ordered.
    pub lines: Vec<OrderRequestLine>,
    /// The client's labels.
    pub metadata: BTreeMap<String, String>,
}

/// A line of an [`OrderRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequestLine {
    /// What to order.
    pub sku: String,
    /// How many units.
    pub quantity: u32,
    /// Minor units.
    pub unit_price: i64,
}

/// What the service answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderResponse {
    /// The order's id.
    pub id: String,
    /// Where it is in its life.
    pub status: String,
    /// Count of its events.
    pub version: u32,
    /// Who ordered.
    pub customer_id: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Minor units.
    pub total: i64,
    /// What was ordered.
    pub lines: Vec<OrderResponseLine>,
    /// The client's labels.
    pub metadata: BTreeMap<String, String>,
    /// RFC 3339.
    pub placed_at: String,
    /// RFC 3339.
    pub updated_at: String,
}

/// A line of an [`OrderResponse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderResponseLine {
    /// The line's number within the order.
    pub line_id: u32,
    /// What was ordered.
    pub sku: String,
    /// How many units.
    pub quantity: u32,
    /// Minor units.
    pub unit_price: i64,
}

/// The body of `POST /orders` in the API's documentation.
pub const ORDER_REQUEST: &str = r#"{"customer_id":"c-1042","currency":"EUR","lines":[{"sku":"SKU-1","quantity":2,"unit_price":1999}],"metadata":{"channel":"web"}}"#;

/// The id used where any id will do.
pub const ORDER_ID: &str = "0199c82c-5b1e-7d2a-9c3f-1a2b3c4d5e6f";

/// The moment used where any moment will do.
pub const TIMESTAMP: &str = "2026-11-22T19:00:00.000Z";

impl OrderRequest {
    /// The order the service would answer with, under an id and at a moment that are always the same.
    #[must_use]
    pub fn answer(self) -> OrderResponse {
        let total = self
            .lines
            .iter()
            .map(|line| i64::from(line.quantity).saturating_mul(line.unit_price))
            .fold(0, i64::saturating_add);
        OrderResponse {
            id: ORDER_ID.to_owned(),
            status: "placed".to_owned(),
            version: 1,
            customer_id: self.customer_id,
            currency: self.currency,
            total,
            lines: (1..)
                .zip(self.lines)
                .map(|(line_id, line)| OrderResponseLine {
                    line_id,
                    sku: line.sku,
                    quantity: line.quantity,
                    unit_price: line.unit_price,
                })
                .collect(),
            metadata: self.metadata,
            placed_at: TIMESTAMP.to_owned(),
            updated_at: TIMESTAMP.to_owned(),
        }
    }
}

/// Characters of [`record`]s: 64, so that six random bits are one of them.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A record of [`RECORD_BYTES`] bytes of its own for every number: a JSON string of random letters, so that it is valid
/// in every engine of the log.
#[must_use]
pub fn record(number: u64) -> [u8; RECORD_BYTES] {
    let mut chance = Chance::new(number);
    let mut record = [b'"'; RECORD_BYTES];
    for letter in &mut record[1..RECORD_BYTES - 1] {
        *letter = LETTERS[chance.below(LETTERS.len())];
    }
    record
}

/// Repeatable random numbers (SplitMix64, Steele, Lea and Flood 2014): the same seed, the same run.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// Starts at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, 0 if `bound` is 0. The bias is below `bound` / 2⁶⁴.
    pub const fn below(&mut self, bound: usize) -> usize {
        let product = (self.draw() as u128) * (bound as u128);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the product is below bound * 2^64"
        )]
        let number = (product >> 64) as usize;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_request_gets_the_documented_answer() {
        let request: OrderRequest = serde_json::from_str(ORDER_REQUEST).unwrap();
        let answer = request.answer();
        assert_eq!(answer.total, 3998);
        assert_eq!(answer.lines[0].line_id, 1);
        assert_eq!(
            serde_json::to_string(&answer).unwrap(),
            format!(
                "{{\"id\":\"{ORDER_ID}\",\"status\":\"placed\",\"version\":1,\"customer_id\":\"c-1042\",\
                 \"currency\":\"EUR\",\"total\":3998,\"lines\":[{{\"line_id\":1,\"sku\":\"SKU-1\",\"quantity\":2,\
                 \"unit_price\":1999}}],\"metadata\":{{\"channel\":\"web\"}},\"placed_at\":\"{TIMESTAMP}\",\
                 \"updated_at\":\"{TIMESTAMP}\"}}"
            )
        );
    }

    #[test]
    fn records_are_json_and_differ() {
        let record_1: String = serde_json::from_slice(&record(1)).unwrap();
        assert_eq!(record_1.len(), RECORD_BYTES - 2);
        assert_ne!(record(1), record(2));
    }

    #[test]
    fn chance_stays_below_its_bound_and_reaches_every_number() {
        let mut chance = Chance::new(1);
        let mut seen = [false; 7];
        for _ in 0..1_000 {
            seen[chance.below(7)] = true;
        }
        assert_eq!(seen, [true; 7]);
        assert_eq!(chance.below(0), 0);
    }
}
