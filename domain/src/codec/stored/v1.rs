//! Schema 1 of every event, and the parts that later schemas still use.

use std::borrow::Cow;

use super::{
    CurrencyCode, Fingerprint, Lines, MinorUnits, Parts, StatusCode, Stored, Text, layout, v2,
};
use crate::{
    CustomerId, Event, EventContext, Idempotency as DomainIdempotency,
    LastOrdered as DomainLastOrdered, Line as DomainLine, LineId, Metadata, Quantity, Sku,
    Snapshot, Timestamp, Version,
};

layout! {
    /// One line of an order.
    Line<'a> {
        line_id: u32,
        #[serde(borrow)]
        sku: Text<'a>,
        quantity: u32,
        unit_price: MinorUnits,
    }
}

layout! {
    /// Where an event came from.
    Context<'a> {
        #[serde(borrow)]
        idempotency: Option<Idempotency<'a>>,
        #[serde(borrow)]
        traceparent: Option<Text<'a>>,
        #[serde(borrow)]
        request_id: Option<Text<'a>>,
    }
}

layout! {
    /// The idempotency key of a command.
    Idempotency<'a> {
        #[serde(borrow)]
        key: Text<'a>,
        fingerprint: Fingerprint,
    }
}

layout! {
    /// A new order, before orders had metadata.
    OrderPlaced<'a> {
        #[serde(borrow)]
        customer_id: Text<'a>,
        currency: CurrencyCode,
        #[serde(borrow)]
        lines: Lines<'a>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// A line was added.
    LineAdded<'a> {
        #[serde(borrow)]
        line: Line<'a>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// A line was removed.
    LineRemoved<'a> {
        #[serde(borrow)]
        line: Line<'a>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// The lines are fixed.
    OrderConfirmed<'a> {
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// The total was paid.
    OrderPaid<'a> {
        amount: MinorUnits,
        #[serde(borrow)]
        reference: Option<Text<'a>>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// Handed to a carrier.
    OrderShipped<'a> {
        #[serde(borrow)]
        carrier: Option<Text<'a>>,
        #[serde(borrow)]
        tracking_number: Option<Text<'a>>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// Arrived.
    OrderDelivered<'a> {
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// Money went back.
    OrderRefunded<'a> {
        amount: MinorUnits,
        #[serde(borrow)]
        reason: Option<Text<'a>>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// Ended before shipping.
    OrderCancelled<'a> {
        #[serde(borrow)]
        reason: Option<Text<'a>>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// All events up to a version, told as one.
    OrderSnapshot<'a> {
        version: u32,
        status: StatusCode,
        #[serde(borrow)]
        customer_id: Text<'a>,
        currency: CurrencyCode,
        #[serde(borrow)]
        lines: Lines<'a>,
        next_line_id: u32,
        paid: MinorUnits,
        refunded: MinorUnits,
        #[serde(default)]
        metadata: Cow<'a, Metadata>,
        placed_at_us: u64,
        #[serde(borrow, default)]
        last_ordered: Vec<LastOrdered<'a>>,
        #[serde(borrow)]
        context: Option<Context<'a>>,
    }
}

layout! {
    /// When a SKU was last put on an order.
    LastOrdered<'a> {
        #[serde(borrow)]
        sku: Text<'a>,
        at_us: u64,
    }
}

impl<'a> Stored<'a> for OrderPlaced<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        v2::OrderPlaced::from(self).event()
    }
}

impl<'a> Stored<'a> for LineAdded<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let line = self.line.line()?;
        Ok((Event::LineAdded { line }, self.context))
    }
}

impl<'a> Stored<'a> for LineRemoved<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let line = self.line.line()?;
        Ok((Event::LineRemoved { line }, self.context))
    }
}

impl<'a> Stored<'a> for OrderConfirmed<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        Ok((Event::OrderConfirmed, self.context))
    }
}

impl<'a> Stored<'a> for OrderPaid<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let event = Event::OrderPaid {
            amount: self.amount.amount()?,
            reference: text(self.reference),
        };
        Ok((event, self.context))
    }
}

impl<'a> Stored<'a> for OrderShipped<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let event = Event::OrderShipped {
            carrier: text(self.carrier),
            tracking_number: text(self.tracking_number),
        };
        Ok((event, self.context))
    }
}

impl<'a> Stored<'a> for OrderDelivered<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        Ok((Event::OrderDelivered, self.context))
    }
}

impl<'a> Stored<'a> for OrderRefunded<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let event = Event::OrderRefunded {
            amount: self.amount.amount()?,
            reason: text(self.reason),
        };
        Ok((event, self.context))
    }
}

impl<'a> Stored<'a> for OrderCancelled<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let event = Event::OrderCancelled {
            reason: text(self.reason),
        };
        Ok((event, self.context))
    }
}

impl<'a> OrderSnapshot<'a> {
    pub(in crate::codec) fn of(snapshot: &'a Snapshot<'_>, context: Option<Context<'a>>) -> Self {
        let last_ordered = snapshot.last_ordered.iter().map(|last| LastOrdered {
            sku: last.sku.as_str().into(),
            at_us: last.at.as_micros(),
        });
        Self {
            version: snapshot.version.get(),
            status: StatusCode(snapshot.status),
            customer_id: snapshot.customer_id.as_str().into(),
            currency: snapshot.currency.into(),
            lines: Lines::Written(&snapshot.lines),
            next_line_id: snapshot.next_line_id.get(),
            paid: snapshot.paid.into(),
            refunded: snapshot.refunded.into(),
            metadata: Cow::Borrowed(&snapshot.metadata),
            placed_at_us: snapshot.placed_at.as_micros(),
            last_ordered: last_ordered.collect(),
            context,
        }
    }
}

impl<'a> Stored<'a> for OrderSnapshot<'a> {
    fn event(self) -> Result<Parts<'a>, String> {
        let last_ordered = self.last_ordered.into_iter().map(|last| {
            Ok(DomainLastOrdered {
                sku: sku(last.sku)?,
                at: Timestamp::from_micros(last.at_us),
            })
        });
        let snapshot = Snapshot {
            version: Version::new(self.version),
            status: self.status.0,
            customer_id: CustomerId::new(self.customer_id.0)
                .map_err(|error| format!("the customer id {error}"))?,
            currency: self.currency.0,
            lines: self.lines.lines()?,
            next_line_id: LineId::new(self.next_line_id).ok_or("the next line has the number 0")?,
            paid: self.paid.amount()?,
            refunded: self.refunded.amount()?,
            metadata: self.metadata.into_owned(),
            placed_at: Timestamp::from_micros(self.placed_at_us),
            last_ordered: last_ordered.collect::<Result<_, String>>()?,
        };
        Ok((Event::OrderSnapshot(Box::new(snapshot)), self.context))
    }
}

impl<'a> Line<'a> {
    #[inline(always)]
    pub(super) fn line(self) -> Result<DomainLine<'a>, String> {
        Ok(DomainLine {
            id: LineId::new(self.line_id).ok_or("a line has the number 0")?,
            sku: sku(self.sku)?,
            quantity: Quantity::new(self.quantity).map_err(|error| error.to_string())?,
            unit_price: self.unit_price.amount()?,
        })
    }
}

impl<'a> From<&'a DomainLine<'_>> for Line<'a> {
    fn from(line: &'a DomainLine<'_>) -> Self {
        Self {
            line_id: line.id.get(),
            sku: line.sku.as_str().into(),
            quantity: line.quantity.get(),
            unit_price: line.unit_price.into(),
        }
    }
}

impl<'a> Context<'a> {
    /// The context as it is stored: nothing at all when it is empty.
    pub(in crate::codec) fn of(context: &'a EventContext<'_>) -> Option<Self> {
        if context.is_empty() {
            return None;
        }
        Some(Self {
            idempotency: context.idempotency.as_ref().map(|idempotency| Idempotency {
                key: (&*idempotency.key).into(),
                fingerprint: Fingerprint(idempotency.fingerprint),
            }),
            traceparent: context.traceparent.as_deref().map(Into::into),
            request_id: context.request_id.as_deref().map(Into::into),
        })
    }

    #[inline(always)]
    pub(in crate::codec) fn context(self) -> EventContext<'a> {
        EventContext {
            idempotency: self.idempotency.map(|idempotency| DomainIdempotency {
                key: idempotency.key.0,
                fingerprint: idempotency.fingerprint.0,
            }),
            traceparent: text(self.traceparent),
            request_id: text(self.request_id),
        }
    }
}

#[inline(always)]
fn sku(text: Text<'_>) -> Result<Sku<'_>, String> {
    Sku::new(text.0).map_err(|error| format!("a SKU {error}"))
}

#[inline(always)]
fn text(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|text| text.0)
}
