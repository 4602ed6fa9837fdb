//! What the outside world is told: CloudEvents 1.0, with data of this project's own published shape.
//!
//! The shape is spelled out here and not taken from the log's codec: how events are stored may change at any time, what
//! consumers parse may not. A change that a consumer could notice is a new type, `….v2`.

use std::borrow::Cow;
use std::io;

use order_domain::codec::CodecError;
use order_domain::{Event, Line, OrderId, RecordedEvent, Timestamp};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::EventId;
use crate::log_event::LogEvent;

/// One integration event, decoded from the log. Serializes as CloudEvents' JSON format (structured mode).
#[derive(Debug)]
pub(crate) struct CloudEvent<'a> {
    pub(crate) id: EventId,
    pub(crate) source: &'a str,
    pub(crate) time: Timestamp,
    pub(crate) traceparent: Option<Cow<'a, str>>,
    event_type: &'static str,
    event: Event<'a>,
}

/// The CloudEvents `type`; `None` for what is told to nobody.
const fn type_of(event: &Event<'_>) -> Option<&'static str> {
    Some(match event {
        Event::OrderPlaced { .. } => "order.placed.v1",
        Event::LineAdded { .. } => "order.line_added.v1",
        Event::LineRemoved { .. } => "order.line_removed.v1",
        Event::OrderConfirmed => "order.confirmed.v1",
        Event::OrderPaid { .. } => "order.paid.v1",
        Event::OrderShipped { .. } => "order.shipped.v1",
        Event::OrderDelivered => "order.delivered.v1",
        Event::OrderRefunded { .. } => "order.refunded.v1",
        Event::OrderCancelled { .. } => "order.cancelled.v1",
        Event::OrderSnapshot(_) => return None,
    })
}

impl<'a> CloudEvent<'a> {
    pub(crate) const SPEC_VERSION: &'static str = "1.0";
    pub(crate) const CONTENT_TYPE: &'static str = "application/json";

    /// Decodes an event of the log.
    ///
    /// # Errors
    /// [`CodecError`] for an event that this version does not know, or bytes that are none, and for a snapshot, which
    /// stands for events that were told.
    pub(crate) fn decode(event: &'a LogEvent<'_>, source: &'a str) -> Result<Self, CodecError> {
        let RecordedEvent {
            event: what,
            context,
        } = event.decode()?;
        let traceparent = context
            .traceparent
            .or_else(|| event.frame_traceparent.as_deref().map(Cow::Borrowed))
            .filter(|text| is_traceparent(text));
        let event_type = type_of(&what).ok_or_else(|| CodecError::Malformed {
            kind: what.kind(),
            reason: "it is told to nobody".to_owned(),
        })?;
        Ok(Self {
            id: event.id,
            source,
            time: Timestamp::from_micros(event.appended_at.as_micros()),
            traceparent,
            event_type,
            event: what,
        })
    }

    /// The CloudEvents `type`.
    pub(crate) fn event_type(&self) -> &'static str {
        self.event_type
    }

    /// `subject` and `partitionkey`: the order.
    pub(crate) fn order(&self) -> OrderId {
        self.id.order()
    }

    /// The `data` alone: the body of the binary mode.
    pub(crate) fn data(&self) -> Data<'_> {
        Data {
            id: self.id,
            event: &self.event,
        }
    }

    /// Appends the event in JSON format and a line feed.
    pub(crate) fn write_line(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        serde_json::to_writer(&mut *buffer, self)?;
        buffer.push(b'\n');
        Ok(())
    }
}

impl Serialize for CloudEvent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let order = self.order();
        let mut order_text = [0; 36];
        let order_text = order.text(&mut order_text);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", Self::SPEC_VERSION)?;
        map.serialize_entry("id", &Shown(self.id))?;
        map.serialize_entry("source", self.source)?;
        map.serialize_entry("type", self.event_type())?;
        map.serialize_entry("subject", order_text)?;
        map.serialize_entry("time", &Shown(self.time))?;
        map.serialize_entry("datacontenttype", Self::CONTENT_TYPE)?;
        map.serialize_entry("partitionkey", order_text)?;
        if let Some(traceparent) = &self.traceparent {
            map.serialize_entry("traceparent", traceparent)?;
        }
        map.serialize_entry("data", &self.data())?;
        map.end()
    }
}

/// What happened, as consumers see it: the order, its version after the event, and the event's own fields. Amounts are
/// integer minor units.
#[derive(Debug)]
pub(crate) struct Data<'a> {
    id: EventId,
    event: &'a Event<'a>,
}

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("order_id", &Shown(self.id.order()))?;
        map.serialize_entry("version", &self.id.version().get())?;
        match self.event {
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
                map.serialize_entry("line", &LineData(line))?;
            }
            Event::OrderConfirmed | Event::OrderDelivered => {}
            Event::OrderPaid { amount, reference } => {
                map.serialize_entry("amount", &amount.minor_units())?;
                map.serialize_entry("reference", reference)?;
            }
            Event::OrderShipped {
                carrier,
                tracking_number,
            } => {
                map.serialize_entry("carrier", carrier)?;
                map.serialize_entry("tracking_number", tracking_number)?;
            }
            Event::OrderRefunded { amount, reason } => {
                map.serialize_entry("amount", &amount.minor_units())?;
                map.serialize_entry("reason", reason)?;
            }
            Event::OrderCancelled { reason } => map.serialize_entry("reason", reason)?,
            // Has no type, so that it never comes here.
            Event::OrderSnapshot(_) => {}
        }
        map.end()
    }
}

struct Lines<'a>(&'a [Line<'a>]);

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.0.len()))?;
        for line in self.0 {
            sequence.serialize_element(&LineData(line))?;
        }
        sequence.end()
    }
}

struct LineData<'a>(&'a Line<'a>);

impl Serialize for LineData<'_> {
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

/// Serializes as the text that `Display` writes, without a `String` between.
struct Shown<T>(T);

impl<T: std::fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Whether a text is a W3C trace context of version 00. It came from a client: what is not well-formed goes nowhere, least
/// of all into a header.
fn is_traceparent(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    let hexadecimal = |byte: u8| matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'f');
    text.starts_with("00-") && lengths.eq([2, 32, 16, 2]) && text.bytes().all(hexadecimal)
}

#[cfg(test)]
#[path = "cloud_event_tests.rs"]
mod tests;
