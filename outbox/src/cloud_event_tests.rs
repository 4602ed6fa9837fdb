//! What consumers parse, spelled out: a change here is a change of the published contract.

use std::borrow::Cow;

use order_domain::{Amount, EventContext, Version};
use serde_json::{Value, json};

use super::*;
use crate::log_event::events_of;
use crate::test_support::{OrderLog, TRACEPARENT, line, order, placed};

const ORDER: &str = "0199c82c-0000-7000-8000-000000000003";

/// All events of partition 0 as JSON.
fn told(log: &OrderLog) -> Vec<Value> {
    let reader = log.reader(0);
    let mut told = Vec::new();
    let mut visit = |frame: order_log::Frame<'_>| {
        for event in events_of(reader.partition(), &frame) {
            let decoded = CloudEvent::decode(&event, "/order-service").unwrap();
            told.push(serde_json::to_value(&decoded).unwrap());
        }
        std::ops::ControlFlow::Continue(())
    };
    reader
        .scan(
            order_log::Offset::ZERO,
            order_log::ScanLimit::NONE,
            &mut visit,
        )
        .unwrap();
    told
}

fn text(text: &str) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(text.to_owned()))
}

#[test]
fn a_placed_order_is_told_in_full() {
    let mut log = OrderLog::new(1);
    let context = EventContext {
        traceparent: text(TRACEPARENT),
        ..EventContext::default()
    };
    log.append_with(order(3), &[placed()], &context);
    assert_eq!(
        told(&log),
        [json!({
            "specversion": "1.0",
            "id": format!("{ORDER}-1"),
            "source": "/order-service",
            "type": "order.placed.v1",
            "subject": ORDER,
            "time": "2025-01-01T00:00:00.000Z",
            "datacontenttype": "application/json",
            "partitionkey": ORDER,
            "traceparent": TRACEPARENT,
            "data": {
                "order_id": ORDER,
                "version": 1,
                "customer_id": "c-1042",
                "currency": "EUR",
                "lines": [{"line_id": 1, "sku": "SKU-1", "quantity": 2, "unit_price": 1999}],
                "metadata": {"channel": "web"},
            },
        })]
    );
}

#[test]
fn every_event_has_a_type_and_its_own_fields() {
    let amount = Amount::new(3_998).unwrap();
    let events = [
        (placed(), "order.placed.v1", None),
        (
            Event::LineAdded { line: line(2) },
            "order.line_added.v1",
            Some(
                json!({"line": {"line_id": 2, "sku": "SKU-2", "quantity": 2, "unit_price": 1999}}),
            ),
        ),
        (
            Event::LineRemoved { line: line(2) },
            "order.line_removed.v1",
            Some(
                json!({"line": {"line_id": 2, "sku": "SKU-2", "quantity": 2, "unit_price": 1999}}),
            ),
        ),
        (Event::OrderConfirmed, "order.confirmed.v1", Some(json!({}))),
        (
            Event::OrderPaid {
                amount,
                reference: text("psp-1"),
            },
            "order.paid.v1",
            Some(json!({"amount": 3998, "reference": "psp-1"})),
        ),
        (
            Event::OrderShipped {
                carrier: text("DHL"),
                tracking_number: None,
            },
            "order.shipped.v1",
            Some(json!({"carrier": "DHL", "tracking_number": null})),
        ),
        (Event::OrderDelivered, "order.delivered.v1", Some(json!({}))),
        (
            Event::OrderRefunded {
                amount,
                reason: text("broken"),
            },
            "order.refunded.v1",
            Some(json!({"amount": 3998, "reason": "broken"})),
        ),
        (
            Event::OrderCancelled { reason: None },
            "order.cancelled.v1",
            Some(json!({"reason": null})),
        ),
    ];
    let mut log = OrderLog::new(1);
    for (event, _, _) in &events {
        log.append(order(3), std::slice::from_ref(event));
    }
    let told = told(&log);
    assert_eq!(told.len(), events.len());
    for ((index, told), (_, event_type, fields)) in told.iter().enumerate().zip(&events) {
        assert_eq!(told["type"], *event_type);
        assert_eq!(told["id"], format!("{ORDER}-{}", index + 1));
        if let Some(fields) = fields {
            let mut expected = fields.clone();
            expected["order_id"] = json!(ORDER);
            expected["version"] = json!(index + 1);
            assert_eq!(told["data"], expected);
        }
    }
}

#[test]
fn all_events_of_a_frame_share_its_trace_context() {
    let mut log = OrderLog::new(1);
    let context = EventContext {
        traceparent: text(TRACEPARENT),
        ..EventContext::default()
    };
    log.append_with(order(3), &[placed(), Event::OrderConfirmed], &context);
    log.append(order(3), &[Event::OrderDelivered]);
    let contexts: Vec<_> = told(&log)
        .iter()
        .map(|event| event["traceparent"].clone())
        .collect();
    assert_eq!(
        contexts,
        [json!(TRACEPARENT), json!(TRACEPARENT), Value::Null]
    );
}

#[test]
fn a_trace_context_that_is_none_is_not_passed_on() {
    for bad in [
        "",
        "00-short-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        "00-4bf92f3577b34da6a3ce929d0e0e47\r\n-00f067aa0ba902b7-01",
    ] {
        assert!(!is_traceparent(bad), "{bad:?} was taken");
    }
    assert!(is_traceparent(TRACEPARENT));
}

#[test]
fn an_id_names_order_and_version_so_that_it_survives_a_repartition() {
    let mut few = OrderLog::new(1);
    let mut many = OrderLog::new(4);
    for log in [&mut few, &mut many] {
        // In four partitions, order 4 has partition 0 to itself.
        for number in [3, 4] {
            log.append(order(number), &[placed(), Event::OrderConfirmed]);
        }
    }
    let id = EventId::new(order(4), Version::new(2)).to_string();
    assert_eq!(told(&few)[3]["id"], id);
    assert_eq!(told(&many)[1]["id"], id);
}

#[test]
fn a_snapshot_is_told_to_nobody_and_what_follows_it_is() {
    let mut life = order_domain::Life::new(order(3));
    let at = Timestamp::from_micros(1_000_000);
    life.fold(&placed(), at).unwrap();
    life.fold(&Event::OrderCancelled { reason: None }, at)
        .unwrap();
    let snapshot = Event::OrderSnapshot(Box::new(life.snapshot().unwrap()));
    let mut log = OrderLog::new(1);
    log.append(order(3), std::slice::from_ref(&snapshot));
    log.append(order(4), &[placed()]);
    let told = told(&log);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["subject"], order(4).to_string());

    // Not even if a store holds one: it is as dead as what does not decode.
    let mut bytes = Vec::new();
    let header = order_domain::codec::encode(
        order_domain::codec::Codec::Bincode,
        &snapshot,
        &EventContext::default(),
        &mut bytes,
    );
    let held = LogEvent {
        id: EventId::new(order(3), Version::new(2)),
        partition: order_log::PartitionId::new(0),
        offset: order_log::Offset::ZERO,
        appended_at: order_log::AppendTime::from_micros(1_000_000),
        tag: order_log::RecordTag {
            event_type: header.event_type,
            schema: header.schema,
            codec: header.codec,
        },
        bytes: bytes.into(),
        frame_traceparent: None,
    };
    let refused = CloudEvent::decode(&held, "/order-service").unwrap_err();
    assert!(refused.to_string().contains("told to nobody"), "{refused}");
}
