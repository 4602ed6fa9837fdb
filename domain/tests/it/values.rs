//! Goal: values are checked where they enter, and what is written is what is read.
//!
//! Method: each kind of value at its limits, and one step beyond.

use order_domain::codec::{Codec, CodecError, RECORD_BYTES_MAX, RecordHeader, decode};
use order_domain::{
    Amount, CommandKind, CustomerId, EventKind, Idempotency, InvalidId, LineId, MoneyError,
    OrderId, Quantity, Sku, Status, TEXT_ID_BYTES_MAX, Timestamp, Version,
};

#[test]
fn an_order_id_is_a_uuid_in_its_hyphenated_form() {
    let text = "0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f";
    let id = OrderId::parse(text).unwrap();
    assert_eq!(id.to_string(), text);
    assert_eq!(id.text(&mut [0; 36]), text);
    assert_eq!(id.as_bytes()[..4], [0x01, 0x99, 0xc8, 0x2c]);
    for wrong in [
        "",
        "0199c82c7a1b7c3d8e4f5a6b7c8d9e0f",
        "{199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f",
        "0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0",
        "0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0g",
        "0199c82c 7a1b 7c3d 8e4f 5a6b7c8d9e0f",
        "0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e€",
    ] {
        assert_eq!(OrderId::parse(wrong), Err(InvalidId::NotUuid), "{wrong}");
    }
}

#[test]
fn order_ids_sort_as_their_texts_do() {
    let earlier = OrderId::parse("0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f").unwrap();
    let later = OrderId::parse("0199c82d-0000-7000-8000-000000000000").unwrap();
    assert!(earlier < later && earlier.to_string() < later.to_string());
}

#[test]
fn ids_chosen_by_clients_are_short_and_printable() {
    let longest = "x".repeat(TEXT_ID_BYTES_MAX);
    for right in ["c-1042", "größe 38", "a@example.org", &longest] {
        assert_eq!(CustomerId::new(right).unwrap().as_str(), right);
        assert_eq!(Sku::new(right).unwrap().to_string(), right);
    }
    let too_long = InvalidId::TooLong {
        bytes: TEXT_ID_BYTES_MAX + 1,
        max: TEXT_ID_BYTES_MAX,
    };
    for (wrong, error) in [
        ("", InvalidId::Empty),
        (&*(longest.clone() + "x"), too_long),
        (" a", InvalidId::OuterWhiteSpace),
        ("a\u{a0}", InvalidId::OuterWhiteSpace),
        ("a\0b", InvalidId::ControlCharacter),
        ("a\u{85}b", InvalidId::ControlCharacter),
        ("a\n", InvalidId::ControlCharacter),
    ] {
        assert_eq!(Sku::new(wrong), Err(error), "{wrong:?}");
    }
}

#[test]
fn line_numbers_and_versions_end_instead_of_wrapping() {
    assert_eq!(LineId::new(0), None);
    assert_eq!(LineId::FIRST.next(), LineId::new(2));
    assert_eq!(LineId::new(u32::MAX).unwrap().next(), None);
    assert_eq!(Version::NONE.next(), Some(Version::new(1)));
    assert_eq!(Version::new(u32::MAX).next(), None);
}

#[test]
fn amounts_are_never_negative_and_never_wrap() {
    let most = Amount::new(i64::MAX).unwrap();
    let one = Amount::new(1).unwrap();
    assert_eq!(Amount::new(-1), Err(MoneyError::Negative(-1)));
    assert_eq!(most.plus(one), Err(MoneyError::Overflow));
    assert_eq!(Amount::ZERO.minus(one), Err(MoneyError::Overflow));
    assert_eq!(
        most.times(Quantity::new(2).unwrap()),
        Err(MoneyError::Overflow)
    );
    assert_eq!(most.minus(one).unwrap().plus(one), Ok(most));
    assert_eq!(
        Amount::new(1999).unwrap().times(Quantity::new(3).unwrap()),
        Amount::new(5997)
    );
}

#[test]
fn a_quantity_is_between_one_and_the_limit() {
    for wrong in [0, Quantity::MAX + 1, u32::MAX] {
        assert_eq!(
            Quantity::new(wrong),
            Err(MoneyError::Quantity(u64::from(wrong)))
        );
    }
    assert_eq!(Quantity::new(Quantity::MAX).unwrap().get(), Quantity::MAX);
}

#[test]
fn a_timestamp_shows_as_rfc_3339_with_milliseconds() {
    for (micros, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_374_000_000_000, "2026-11-22T19:00:00.000Z"),
        (1_795_374_000_001_999, "2026-11-22T19:00:00.001Z"),
        (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
    ] {
        assert_eq!(Timestamp::from_micros(micros).to_string(), text);
    }
    let latest = Timestamp::from_micros(u64::MAX).to_string();
    assert!(latest.starts_with("9999-12-30T"), "{latest}");
}

#[test]
fn names_are_read_back() {
    for &kind in CommandKind::ALL {
        assert_eq!(CommandKind::parse(kind.name()), Some(kind));
    }
    for &status in Status::ALL {
        assert_eq!(Status::parse(status.name()), Some(status));
    }
    for &kind in EventKind::ALL {
        assert_eq!(EventKind::parse(kind.name()), Some(kind));
        assert_eq!(EventKind::from_number(kind.number()), Some(kind));
    }
    assert_eq!(Status::parse("Placed"), None);
    assert_eq!(EventKind::from_number(0), None);
    assert_eq!(EventKind::from_number(11), None);
}

#[test]
fn a_key_has_another_digest_in_every_scope() {
    let order = OrderId::from_bytes([0; 16]);
    let digests = [
        Idempotency::digest("key", None),
        Idempotency::digest("key", Some(order)),
        Idempotency::digest("key", Some(OrderId::from_bytes([1; 16]))),
        Idempotency::digest("kez", None),
        Idempotency::digest("", None),
        // The bytes of a scope inside a key are not a scope.
        Idempotency::digest("\u{1}\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0key", None),
    ];
    for (index, digest) in digests.iter().enumerate() {
        assert!(!digests[..index].contains(digest), "{index}");
    }
}

/// Digests are stored beside the rows: another digest for the same key would forget every key there is.
#[test]
fn digests_never_change() {
    let hex = |digest: [u8; 16]| format!("{:032x}", u128::from_be_bytes(digest));
    let order = OrderId::parse("0199c82c-7a1b-7c3d-8e4f-5a6b7c8d9e0f").unwrap();
    assert_eq!(
        [
            hex(Idempotency::digest("key-1", None)),
            hex(Idempotency::digest("key-1", Some(order))),
            hex(Idempotency::fingerprint(&[b"POST", b"/orders", b"{}"])),
        ],
        [
            "9e7d2972625f7c5870e906ea5247d262",
            "36b2c1fc6a44d7cf78ff6b9266b5e27f",
            "fafd7c0469ddbf80cb16554d1c652c3a"
        ]
    );
}

#[test]
fn a_fingerprint_knows_where_its_parts_end() {
    let fingerprints = [
        Idempotency::fingerprint(&[b"ab", b"c"]),
        Idempotency::fingerprint(&[b"a", b"bc"]),
        Idempotency::fingerprint(&[b"abc"]),
        Idempotency::fingerprint(&[b"abc", b""]),
        Idempotency::fingerprint(&[]),
    ];
    for (index, fingerprint) in fingerprints.iter().enumerate() {
        assert!(!fingerprints[..index].contains(fingerprint), "{index}");
    }
}

const PLACED: RecordHeader = RecordHeader {
    event_type: EventKind::OrderPlaced.number(),
    schema: 2,
    codec: Codec::Bincode.number(),
};

#[test]
fn records_of_a_newer_version_are_named() {
    assert_eq!(
        decode(RecordHeader { codec: 3, ..PLACED }, b""),
        Err(CodecError::UnknownCodec(3))
    );
    assert_eq!(
        decode(
            RecordHeader {
                event_type: 77,
                ..PLACED
            },
            b""
        ),
        Err(CodecError::UnknownEvent(77))
    );
    for schema in [0, 3] {
        assert_eq!(
            decode(RecordHeader { schema, ..PLACED }, b""),
            Err(CodecError::UnknownSchema {
                kind: EventKind::OrderPlaced,
                schema,
            })
        );
    }
}

fn reason(header: RecordHeader, bytes: &[u8]) -> String {
    match decode(header, bytes) {
        Err(CodecError::Malformed { kind, reason }) => {
            assert_eq!(kind, EventKind::OrderPlaced);
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// A customer, EUR, and a count of lines that claims `count` in nine bytes.
fn claims_lines(count: u64) -> Vec<u8> {
    let mut bytes = b"\x01cEUR\xfd".to_vec();
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes
}

#[test]
fn lengths_in_the_bytes_are_not_believed() {
    for count in [u64::MAX, u64::MAX / 2, 1 << 40, 100_000] {
        assert!(!reason(PLACED, &claims_lines(count)).is_empty());
    }
    let mut text = b"\xfd".to_vec();
    text.extend_from_slice(&u64::MAX.to_le_bytes());
    assert!(!reason(PLACED, &text).is_empty());
    let too_long = vec![b' '; RECORD_BYTES_MAX + 1];
    for codec in [Codec::Bincode, Codec::Json] {
        let header = RecordHeader {
            codec: codec.number(),
            ..PLACED
        };
        assert_eq!(
            reason(header, &too_long),
            "1048577 bytes, at most 1048576 are possible"
        );
    }
}

#[test]
fn values_outside_the_domain_are_refused() {
    let json = RecordHeader {
        codec: Codec::Json.number(),
        ..PLACED
    };
    let order = |customer: &str, currency: &str, line: &str| {
        format!(r#"{{"customer_id":"{customer}","currency":"{currency}","lines":[{line}]}}"#)
    };
    let line = |id: u64, sku: &str, quantity: u64, price: u64| {
        format!(r#"{{"line_id":{id},"sku":"{sku}","quantity":{quantity},"unit_price":{price}}}"#)
    };
    let good = line(1, "A", 1, 1);
    assert!(decode(json, order("c", "EUR", &good).as_bytes()).is_ok());
    for (bytes, expected) in [
        (order("", "EUR", &good), "the customer id is empty"),
        (order("c", "eur", &good), "currency"),
        (order("c", "XAU", &good), "currency"),
        (
            order("c", "EUR", &line(0, "A", 1, 1)),
            "a line has the number 0",
        ),
        (order("c", "EUR", &line(1, "", 1, 1)), "a SKU is empty"),
        (order("c", "EUR", &line(1, "A", 0, 1)), "quantity"),
        (order("c", "EUR", &line(1, "A", 1, 1 << 63)), "the amount"),
        (order("c", "EUR", r#"{"line_id":1}"#), "missing field `sku`"),
        (r#"{"customer":"c"}"#.into(), "unknown field `customer`"),
        ("[]".into(), "length"),
        ("null".into(), "null"),
    ] {
        let reason = reason(json, bytes.as_bytes());
        assert!(reason.contains(expected), "{bytes}: {reason}");
    }
}

#[test]
fn a_fingerprint_in_json_is_written_in_one_way_only() {
    let json = RecordHeader {
        event_type: EventKind::OrderConfirmed.number(),
        schema: 1,
        codec: Codec::Json.number(),
    };
    let record = |fingerprint: &str| {
        format!(r#"{{"context":{{"idempotency":{{"key":"k","fingerprint":"{fingerprint}"}}}}}}"#)
    };
    let decodes = |fingerprint: &str| decode(json, record(fingerprint).as_bytes()).is_ok();
    assert!(decodes("00ff00ff00ff00ff00ff00ff00ff00ff"));
    for wrong in [
        "",
        "00ff",
        "00FF00FF00FF00FF00FF00FF00FF00FF",
        "+0ff00ff00ff00ff00ff00ff00ff00ff",
        "00ff00ff00ff00ff00ff00ff00ff00ff00",
    ] {
        assert!(!decodes(wrong), "{wrong}");
    }
}
