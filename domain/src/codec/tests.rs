//! Goal: bytes are read as bincode's serde support reads them, although they are not read through it.
//!
//! Method: the same bytes, right ones and damaged ones, go to both readers; they must agree on the event and on refusal.

use bincode::config;
use proptest::prelude::*;
use serde::Deserialize;

use super::stored::{Stored, v1, v2};
use super::{binary, encode};
use crate::codec::Codec;
use crate::{
    Amount, Currency, CustomerId, Event, EventContext, Idempotency, LastOrdered, Line, LineId,
    Quantity, Sku, Snapshot, Status, Timestamp, Version,
};

fn check<'a, T>(bytes: &'a [u8])
where
    T: Stored<'a> + binary::Read<'a> + Deserialize<'a>,
{
    let config = config::standard().with_limit::<{ super::RECORD_BYTES_MAX }>();
    let through_serde = bincode::serde::borrow_decode_from_slice::<T, _>(bytes, config)
        .ok()
        .filter(|(_, length)| *length == bytes.len())
        .map(|(layout, _)| layout);
    let parts = |layout: T| {
        let (event, context) = layout.event().ok()?;
        Some((event, context.map(v1::Context::context)))
    };
    assert_eq!(
        binary::read::<T>(bytes).ok().map(parts),
        through_serde.map(parts),
        "{}",
        bytes.escape_ascii()
    );
}

fn check_every_layout(bytes: &[u8]) {
    check::<v1::OrderPlaced<'_>>(bytes);
    check::<v2::OrderPlaced<'_>>(bytes);
    check::<v1::LineAdded<'_>>(bytes);
    check::<v1::LineRemoved<'_>>(bytes);
    check::<v1::OrderConfirmed<'_>>(bytes);
    check::<v1::OrderPaid<'_>>(bytes);
    check::<v1::OrderShipped<'_>>(bytes);
    check::<v1::OrderDelivered<'_>>(bytes);
    check::<v1::OrderRefunded<'_>>(bytes);
    check::<v1::OrderCancelled<'_>>(bytes);
    check::<v1::OrderSnapshot<'_>>(bytes);
}

fn line(id: u32, units: u32, price: i64) -> Line<'static> {
    Line {
        id: LineId::new(id).unwrap(),
        sku: Sku::new("größe 38").unwrap(),
        quantity: Quantity::new(units).unwrap(),
        unit_price: Amount::new(price).unwrap(),
    }
}

/// A snapshot with every part there is.
fn full_snapshot() -> Vec<u8> {
    let snapshot = Snapshot {
        version: Version::new(251),
        status: Status::Refunded,
        customer_id: CustomerId::new("c-1042").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines: vec![line(2, 251, 65_536)],
        next_line_id: LineId::new(3).unwrap(),
        paid: Amount::new(1 << 40).unwrap(),
        refunded: Amount::new(250).unwrap(),
        metadata: [("channel".into(), "web".into())].into(),
        placed_at: Timestamp::from_micros(1 << 50),
        last_ordered: vec![LastOrdered {
            sku: Sku::new("gone").unwrap(),
            at: Timestamp::from_micros(1 << 51),
        }],
    };
    let event = Event::OrderSnapshot(Box::new(snapshot));
    let mut bytes = Vec::new();
    encode(Codec::Bincode, &event, &EventContext::default(), &mut bytes);
    bytes
}

/// A record with every part there is.
fn full_record() -> Vec<u8> {
    let event = Event::OrderPlaced {
        customer_id: CustomerId::new("c-1042").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines: vec![
            line(1, 1, 250),
            line(2, 251, 65_536),
            line(3, 65_536, 1 << 40),
        ],
        metadata: [
            ("channel".into(), "web".into()),
            ("note".into(), String::new()),
        ]
        .into(),
    };
    let context = EventContext {
        idempotency: Some(Idempotency {
            key: "key".into(),
            fingerprint: [0xfe; 16],
        }),
        traceparent: Some("trace".into()),
        request_id: None,
    };
    let mut bytes = Vec::new();
    encode(Codec::Bincode, &event, &context, &mut bytes);
    bytes
}

#[test]
fn both_readers_agree_on_a_full_record_cut_anywhere() {
    for bytes in [full_record(), full_snapshot()] {
        for length in 0..=bytes.len() {
            check_every_layout(&bytes[..length]);
        }
    }
}

#[test]
fn both_readers_agree_on_a_full_record_with_any_one_byte_changed() {
    for record in [full_record(), full_snapshot()] {
        for index in 0..record.len() {
            for byte in [0, 1, 2, 16, 250, 251, 252, 253, 254, 255] {
                let mut bytes = record.clone();
                bytes[index] = byte;
                check_every_layout(&bytes);
            }
        }
    }
}

proptest! {
    #[test]
    fn both_readers_agree_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_every_layout(&bytes);
    }

    /// Small numbers make short texts and few lines, so that more of a layout is read before it fails.
    #[test]
    fn both_readers_agree_on_small_bytes(bytes in prop::collection::vec(0_u8..5, 0..100)) {
        check_every_layout(&bytes);
    }
}
