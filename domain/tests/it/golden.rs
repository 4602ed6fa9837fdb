//! Goal: a record that was ever written decodes for ever, and what is written now is what was written before.
//!
//! Method: `golden/` holds the bytes of every kind of event in every schema and both codecs, as `Kind.vN.case.codec`.
//! Each decodes to the event below; encoding that event in the newest schema gives the file again, byte for byte.
//! The files are never changed. For a new schema, run once with `GOLDEN_CREATE=1`, which writes only what is missing.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use order_domain::codec::{Codec, RecordHeader, decode, encode, newest_schema};
use order_domain::{
    Amount, Currency, CustomerId, Event, EventContext, EventKind, Idempotency, LastOrdered, Line,
    LineId, Metadata, Quantity, RecordedEvent, Sku, Snapshot, Status, Timestamp, Version,
};

/// An event with the name of its case and the schemas it has files in.
struct Case {
    name: &'static str,
    schemas: &'static [u8],
    record: RecordedEvent<'static>,
}

fn line(id: u32, sku: &'static str, quantity: u32, unit_price: i64) -> Line<'static> {
    Line {
        id: LineId::new(id).unwrap(),
        sku: Sku::new(sku).unwrap(),
        quantity: Quantity::new(quantity).unwrap(),
        unit_price: Amount::new(unit_price).unwrap(),
    }
}

fn amount(minor_units: i64) -> Amount {
    Amount::new(minor_units).unwrap()
}

fn text(text: &'static str) -> Option<Cow<'static, str>> {
    Some(Cow::Borrowed(text))
}

fn placed(metadata: &[(&str, &str)]) -> Event<'static> {
    Event::OrderPlaced {
        customer_id: CustomerId::new("c-1042").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines: vec![line(1, "SKU-1", 2, 1999), line(2, "größe 38", 1_000_000, 0)],
        metadata: metadata
            .iter()
            .map(|(key, value)| (String::from(*key), String::from(*value)))
            .collect::<Metadata>(),
    }
}

/// A delivered order of which some was paid back, with a line added and one removed on its way.
fn snapshot() -> Snapshot<'static> {
    let last = |sku, at_us| LastOrdered {
        sku: Sku::new(sku).unwrap(),
        at: Timestamp::from_micros(at_us),
    };
    Snapshot {
        version: Version::new(9),
        status: Status::Delivered,
        customer_id: CustomerId::new("c-1042").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines: vec![line(1, "SKU-1", 2, 1999), line(3, "größe 38", 1, 300)],
        next_line_id: LineId::new(4).unwrap(),
        paid: amount(4298),
        refunded: amount(300),
        metadata: [("channel".into(), "web".into())].into(),
        placed_at: Timestamp::from_micros(1_795_374_000_000_001),
        last_ordered: vec![
            last("SKU-2", 1_795_374_000_000_001),
            last("größe 38", 1_795_374_060_000_000),
        ],
    }
}

fn context() -> EventContext<'static> {
    EventContext {
        idempotency: Some(Idempotency {
            key: "8e03978e-40d5-43e8-bc93-6894a57f9324".into(),
            fingerprint: *b"\x00\x01\x02\x03\x04\x05\x06\x07\x80\x90\xa0\xb0\xc0\xd0\xe0\xff",
        }),
        traceparent: text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        request_id: text("req-7"),
    }
}

fn cases() -> Vec<Case> {
    let case = |name, schemas, event, context| Case {
        name,
        schemas,
        record: RecordedEvent { event, context },
    };
    let none = EventContext::default;
    vec![
        case("bare", &[1, 2], placed(&[]), none()),
        case("context", &[1, 2], placed(&[]), context()),
        case(
            "full",
            &[2],
            placed(&[("channel", "web"), ("note", "line 1\n\"line 2\"")]),
            context(),
        ),
        case(
            "full",
            &[1],
            Event::LineAdded {
                line: line(3, "SKU-3", 250, i64::MAX),
            },
            context(),
        ),
        case(
            "bare",
            &[1],
            Event::LineRemoved {
                line: line(300, "SKU-300", 251, 70_000),
            },
            none(),
        ),
        case("bare", &[1], Event::OrderConfirmed, none()),
        case("full", &[1], Event::OrderConfirmed, context()),
        case(
            "bare",
            &[1],
            Event::OrderPaid {
                amount: amount(0),
                reference: None,
            },
            none(),
        ),
        case(
            "full",
            &[1],
            Event::OrderPaid {
                amount: amount(5_000_000_000),
                reference: text("pay_31"),
            },
            context(),
        ),
        case(
            "bare",
            &[1],
            Event::OrderShipped {
                carrier: None,
                tracking_number: None,
            },
            none(),
        ),
        case(
            "full",
            &[1],
            Event::OrderShipped {
                carrier: text("DHL"),
                tracking_number: text("00340434161094042557"),
            },
            context(),
        ),
        case("bare", &[1], Event::OrderDelivered, none()),
        case(
            "full",
            &[1],
            Event::OrderRefunded {
                amount: amount(1),
                reason: text("broken \\ returned"),
            },
            context(),
        ),
        case("bare", &[1], Event::OrderCancelled { reason: None }, none()),
        case(
            "full",
            &[1],
            Event::OrderCancelled { reason: text("") },
            context(),
        ),
        case(
            "bare",
            &[1],
            Event::OrderSnapshot(Box::new(Snapshot {
                status: Status::Cancelled,
                paid: amount(0),
                refunded: amount(0),
                metadata: Metadata::new(),
                last_ordered: Vec::new(),
                ..snapshot()
            })),
            none(),
        ),
        case(
            "full",
            &[1],
            Event::OrderSnapshot(Box::new(snapshot())),
            none(),
        ),
    ]
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn file_name(kind: EventKind, schema: u8, case: &str, codec: Codec) -> String {
    let extension = match codec {
        Codec::Bincode => "bincode",
        Codec::Json => "json",
    };
    format!("{kind}.v{schema}.{case}.{extension}")
}

/// Every file there should be, with what it should hold.
fn files() -> Vec<(String, RecordHeader, Case)> {
    let mut files = Vec::new();
    for codec in [Codec::Bincode, Codec::Json] {
        for case in cases() {
            let kind = case.record.event.kind();
            for &schema in case.schemas {
                let header = RecordHeader {
                    event_type: kind.number(),
                    schema,
                    codec: codec.number(),
                };
                let case = Case {
                    record: case.record.clone(),
                    ..case
                };
                files.push((file_name(kind, schema, case.name, codec), header, case));
            }
        }
    }
    files
}

fn golden(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap_or_else(|error| panic!("golden/{name}: {error}"))
}

#[test]
fn every_golden_record_decodes_to_its_event() {
    for (name, header, case) in files() {
        let bytes = golden(&name);
        let decoded = decode(header, &bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(decoded, case.record, "{name}");
    }
}

#[test]
fn the_newest_schema_encodes_to_the_golden_bytes() {
    for (name, header, case) in files() {
        let codec = Codec::from_number(header.codec).unwrap();
        let mut bytes = Vec::new();
        let written = encode(codec, &case.record.event, &case.record.context, &mut bytes);
        if header.schema != written.schema {
            continue;
        }
        assert_eq!(written, header, "{name}");
        let path = directory().join(&name);
        if std::env::var_os("GOLDEN_CREATE").is_some() && !path.exists() {
            fs::write(&path, &bytes).unwrap();
        }
        assert_eq!(
            bytes.escape_ascii().to_string(),
            golden(&name).escape_ascii().to_string(),
            "{name}"
        );
    }
}

#[test]
fn every_kind_has_golden_records_in_every_schema() {
    let names: BTreeSet<String> = files().into_iter().map(|(name, ..)| name).collect();
    for &kind in EventKind::ALL {
        for schema in 1..=newest_schema(kind) {
            for codec in [Codec::Bincode, Codec::Json] {
                assert!(
                    ["bare", "full"]
                        .iter()
                        .any(|case| names.contains(&file_name(kind, schema, case, codec))),
                    "{kind} has no record of schema {schema} in {codec:?}"
                );
            }
        }
    }
    let found: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, names, "the files and the cases differ");
}

#[test]
fn an_order_from_before_there_was_metadata_is_read_without_any() {
    let header = RecordHeader {
        event_type: EventKind::OrderPlaced.number(),
        schema: 1,
        codec: Codec::Bincode.number(),
    };
    let bytes = golden("OrderPlaced.v1.context.bincode");
    let newest = golden("OrderPlaced.v2.context.bincode");
    assert_eq!(bytes.len() + 1, newest.len(), "schema 2 added one count");
    let record = decode(header, &bytes).unwrap();
    let Event::OrderPlaced { metadata, .. } = record.event else {
        panic!("{record:?}");
    };
    assert_eq!(metadata, Metadata::new());
    assert_eq!(record.context, context());
}

#[test]
fn binary_text_is_borrowed_from_the_record() {
    let bytes = golden("OrderPaid.v1.full.bincode");
    let header = RecordHeader {
        event_type: EventKind::OrderPaid.number(),
        schema: 1,
        codec: Codec::Bincode.number(),
    };
    let record = decode(header, &bytes).unwrap();
    let Event::OrderPaid { reference, .. } = &record.event else {
        panic!("{record:?}");
    };
    assert!(matches!(reference, Some(Cow::Borrowed("pay_31"))));
    assert!(matches!(record.context.request_id, Some(Cow::Borrowed(_))));
    let idempotency = record.context.idempotency.unwrap();
    assert!(matches!(idempotency.key, Cow::Borrowed(_)));
}

#[test]
fn an_empty_context_costs_one_byte() {
    assert_eq!(golden("OrderConfirmed.v1.bare.bincode"), [0]);
    assert_eq!(golden("OrderConfirmed.v1.bare.json"), b"{}");
}
