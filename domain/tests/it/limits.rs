//! Goal: no caller can bring more into the log than the limits allow.
//!
//! Method: each limit met exactly, which is accepted, and passed by one, which is refused with the limit.

use order_domain::codec::{Codec, RECORD_BYTES_MAX, decode, encode};
use order_domain::{
    Command, EventContext, Idempotency, InvalidId, LINES_MAX, LineId, METADATA_ENTRIES_MAX,
    METADATA_KEY_BYTES_MAX, METADATA_VALUE_BYTES_MAX, MoneyError, NewLine, Quantity, Rejection,
    Sku, TEXT_BYTES_MAX, TEXT_ID_BYTES_MAX, decide,
};

use crate::given::*;

#[test]
fn free_texts_are_limited_wherever_they_stand() {
    let long = || Some("é".repeat(TEXT_BYTES_MAX / 2) + "!");
    let bell = || Some(String::from("\u{7}"));
    let confirmed = given(&[usual(), Command::Confirm]);
    let paid = given_paid();
    for text in [long(), bell()] {
        let problem = if text == bell() {
            InvalidId::ControlCharacter
        } else {
            InvalidId::TooLong {
                bytes: TEXT_BYTES_MAX + 1,
                max: TEXT_BYTES_MAX,
            }
        };
        let reference = Command::Pay {
            amount: amount(TOTAL),
            reference: text.clone(),
        };
        let carrier = Command::Ship {
            carrier: text.clone(),
            tracking_number: None,
        };
        let tracking_number = Command::Ship {
            carrier: None,
            tracking_number: text.clone(),
        };
        let refund = Command::Refund {
            amount: None,
            reason: text.clone(),
        };
        let cancel = Command::Cancel { reason: text };
        for (order, field, command) in [
            (&confirmed, "reference", reference),
            (&paid, "carrier", carrier),
            (&paid, "tracking_number", tracking_number),
            (&paid, "reason", refund),
            (&paid, "reason", cancel),
        ] {
            let problem = problem.clone();
            assert_eq!(
                refused(order, &command),
                Rejection::InvalidText { field, problem }
            );
        }
    }
}

#[test]
fn a_reason_may_have_lines_and_the_longest_length() {
    let reason = Some("first\n\tsecond".to_owned() + &"é".repeat((TEXT_BYTES_MAX - 14) / 2));
    assert!(decide(Some(&given(&[usual()])), &Command::Cancel { reason }).is_ok());
}

#[test]
fn metadata_is_limited_in_count_and_length() {
    let with = |key: String, value: String| {
        let mut place = place(vec![new_line("LAMP", 1, 1)]);
        place.metadata.insert(key, value);
        place
    };
    let rejected = |field, problem| Rejection::InvalidText { field, problem };
    assert_eq!(
        refused_new(with(String::new(), String::new())),
        rejected("metadata key", InvalidId::Empty)
    );
    assert_eq!(
        refused_new(with("k".repeat(METADATA_KEY_BYTES_MAX + 1), String::new())),
        rejected(
            "metadata key",
            InvalidId::TooLong {
                bytes: METADATA_KEY_BYTES_MAX + 1,
                max: METADATA_KEY_BYTES_MAX
            }
        )
    );
    assert_eq!(
        refused_new(with("k".into(), "v".repeat(METADATA_VALUE_BYTES_MAX + 1))),
        rejected(
            "metadata value",
            InvalidId::TooLong {
                bytes: METADATA_VALUE_BYTES_MAX + 1,
                max: METADATA_VALUE_BYTES_MAX
            }
        )
    );
    assert_eq!(
        refused_new(with("k".into(), "\0".into())),
        rejected("metadata value", InvalidId::ControlCharacter)
    );
    let mut most = place(vec![new_line("LAMP", 1, 1)]);
    most.metadata = (0..METADATA_ENTRIES_MAX)
        .map(|n| (n.to_string(), "v".repeat(METADATA_VALUE_BYTES_MAX)))
        .collect();
    assert!(decide(None, &Command::Place(most.clone())).is_ok());
    most.metadata.insert("one more".into(), String::new());
    assert_eq!(
        refused_new(most),
        Rejection::TooManyMetadataEntries {
            entries: METADATA_ENTRIES_MAX + 1,
            max: METADATA_ENTRIES_MAX,
        }
    );
}

#[test]
fn an_order_has_at_least_one_line_and_at_most_the_limit() {
    let lines = |count| vec![new_line("LAMP", 1, 1); count];
    assert_eq!(refused_new(place(lines(0))), Rejection::NoLines);
    let too_many = Rejection::TooManyLines {
        lines: LINES_MAX + 1,
        max: LINES_MAX,
    };
    assert_eq!(refused_new(place(lines(LINES_MAX + 1))), too_many);
    let full = given(&[Command::Place(place(lines(LINES_MAX)))]);
    assert_eq!(refused(&full, &add("LAMP", 1, 1)), too_many);
}

#[test]
fn a_total_beyond_the_range_of_an_amount_is_refused() {
    let overflow = Rejection::Money(MoneyError::Overflow);
    assert_eq!(
        refused_new(place(vec![new_line("MOON", 2, i64::MAX)])),
        overflow
    );
    assert_eq!(
        refused_new(place(vec![
            new_line("MOON", 1, i64::MAX),
            new_line("LAMP", 1, 1)
        ])),
        overflow
    );
    let order = given(&[Command::Place(place(vec![new_line("MOON", 1, i64::MAX)]))]);
    assert_eq!(refused(&order, &add("LAMP", 1, 1)), overflow);
    assert_eq!(after(order, &add("SAMPLE", 9, 0)).total, amount(i64::MAX));
}

#[test]
fn the_longest_order_there_can_be_is_far_from_the_longest_record() {
    // A quote takes two characters in JSON.
    let mut place = place(vec![
        NewLine {
            sku: Sku::new("\"".repeat(TEXT_ID_BYTES_MAX)).unwrap(),
            quantity: Quantity::new(Quantity::MAX).unwrap(),
            unit_price: amount(i64::MAX / 1_000_000_000),
        };
        LINES_MAX
    ]);
    place.metadata = (0..METADATA_ENTRIES_MAX)
        .map(|n| {
            let key = format!("{n:\"<METADATA_KEY_BYTES_MAX$}");
            (key, "\"".repeat(METADATA_VALUE_BYTES_MAX))
        })
        .collect();
    let events = decide(None, &Command::Place(place)).unwrap();
    let context = EventContext {
        idempotency: Some(Idempotency {
            key: "\"".repeat(Idempotency::KEY_CHARACTERS_MAX).into(),
            fingerprint: [0xff; 16],
        }),
        ..EventContext::default()
    };
    for codec in [Codec::Bincode, Codec::Json] {
        let mut bytes = Vec::new();
        let header = encode(codec, &events[0], &context, &mut bytes);
        assert!(bytes.len() * 5 < RECORD_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(decode(header, &bytes).unwrap().event, events[0]);
    }
}

#[test]
fn line_numbers_are_never_used_up_silently() {
    let mut order = given(&[usual()]);
    order.next_line_id = LineId::new(u32::MAX).unwrap();
    assert!(matches!(
        refused(&order, &add("LAMP", 1, 1)),
        Rejection::TooManyLines { .. }
    ));
}
