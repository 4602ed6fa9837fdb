//! The JSON of an event, as history and feed show it: what happened to which order, which version that made, and when.
//! Where it stands in the log is left out: offsets change when a log is repartitioned.

use order_domain::{Event, Line, OrderId, Snapshot, Timestamp, Version};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::time_text;

/// One event with where it came from.
#[derive(Debug)]
pub(crate) struct EventJson<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) version: Version,
    pub(crate) at: Timestamp,
    pub(crate) event: &'a Event<'a>,
    pub(crate) request_id: Option<&'a str>,
    pub(crate) traceparent: Option<&'a str>,
}

impl EventJson<'_> {
    /// Appends the event as a JSON object.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("texts and numbers always serialize");
    }
}

impl Serialize for EventJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = time_text::text(self.at);
        let at = std::str::from_utf8(&at).expect("digits and punctuation are ASCII");
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("order_id", self.order_id.text(&mut [0; 36]))?;
        map.serialize_entry("version", &self.version.get())?;
        map.serialize_entry("type", self.event.kind().name())?;
        map.serialize_entry("time", at)?;
        map.serialize_entry("data", &Data(self.event))?;
        if let Some(request_id) = self.request_id {
            map.serialize_entry("request_id", request_id)?;
        }
        if let Some(traceparent) = self.traceparent {
            map.serialize_entry("traceparent", traceparent)?;
        }
        map.end()
    }
}

struct Data<'a>(&'a Event<'a>);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.0 {
            Event::OrderPlaced {
                customer_id,
                currency,
                lines,
                metadata,
            } => {
                map.serialize_entry("customer_id", customer_id.as_str())?;
                map.serialize_entry("currency", currency.code())?;
                map.serialize_entry("lines", &Lines(lines))?;
                map.serialize_entry("metadata", metadata)?;
            }
            Event::LineAdded { line } | Event::LineRemoved { line } => {
                map.serialize_entry("line", &LineJson(line))?;
            }
            Event::OrderConfirmed | Event::OrderDelivered => {}
            Event::OrderPaid { amount, reference } => {
                map.serialize_entry("amount", &amount.minor_units())?;
                put(&mut map, "reference", reference.as_deref())?;
            }
            Event::OrderShipped {
                carrier,
                tracking_number,
            } => {
                put(&mut map, "carrier", carrier.as_deref())?;
                put(&mut map, "tracking_number", tracking_number.as_deref())?;
            }
            Event::OrderRefunded { amount, reason } => {
                map.serialize_entry("amount", &amount.minor_units())?;
                put(&mut map, "reason", reason.as_deref())?;
            }
            Event::OrderCancelled { reason } => put(&mut map, "reason", reason.as_deref())?,
            Event::OrderSnapshot(snapshot) => put_snapshot(&mut map, snapshot)?,
        }
        map.end()
    }
}

/// The order as the events left it that the snapshot stands for.
fn put_snapshot<M: SerializeMap>(map: &mut M, snapshot: &Snapshot<'_>) -> Result<(), M::Error> {
    let placed_at = time_text::text(snapshot.placed_at);
    let placed_at = std::str::from_utf8(&placed_at).expect("digits and punctuation are ASCII");
    map.serialize_entry("status", snapshot.status.name())?;
    map.serialize_entry("customer_id", snapshot.customer_id.as_str())?;
    map.serialize_entry("currency", snapshot.currency.code())?;
    map.serialize_entry("lines", &Lines(&snapshot.lines))?;
    map.serialize_entry("paid", &snapshot.paid.minor_units())?;
    map.serialize_entry("refunded", &snapshot.refunded.minor_units())?;
    map.serialize_entry("metadata", &snapshot.metadata)?;
    map.serialize_entry("placed_at", placed_at)
}

/// A text that was given; nothing for one that was not.
fn put<M: SerializeMap>(map: &mut M, name: &str, text: Option<&str>) -> Result<(), M::Error> {
    match text {
        Some(text) => map.serialize_entry(name, text),
        None => Ok(()),
    }
}

struct Lines<'a>(&'a [Line<'a>]);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for line in self.0 {
            sequence.serialize_element(&LineJson(line))?;
        }
        sequence.end()
    }
}

struct LineJson<'a>(&'a Line<'a>);

impl Serialize for LineJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let line = self.0;
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("line_id", &line.id.get())?;
        map.serialize_entry("sku", line.sku.as_str())?;
        map.serialize_entry("quantity", &line.quantity.get())?;
        map.serialize_entry("unit_price", &line.unit_price.minor_units())?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_says_what_happened_to_whom_and_when() {
        let event = Event::OrderShipped {
            carrier: Some("DHL".into()),
            tracking_number: None,
        };
        let mut json = Vec::new();
        EventJson {
            order_id: OrderId::parse("0199c82c-0000-7000-8000-000000000001").unwrap(),
            version: Version::new(4),
            at: Timestamp::from_micros(1_795_374_000_000_000),
            event: &event,
            request_id: Some("r-1"),
            traceparent: None,
        }
        .write(&mut json);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            concat!(
                r#"{"order_id":"0199c82c-0000-7000-8000-000000000001","version":4,"type":"OrderShipped","#,
                r#""time":"2026-11-22T19:00:00.000Z","data":{"carrier":"DHL"},"request_id":"r-1"}"#
            )
        );
    }
}
