//! Schema 2: orders got metadata.

use std::borrow::Cow;

use super::{CurrencyCode, Lines, Parts, Stored, Text, layout, v1};
use crate::{CustomerId, Event, Metadata};

layout! {
    /// A new order.
    OrderPlaced<'a> {
        #[serde(borrow)]
        customer_id: Text<'a>,
        currency: CurrencyCode,
        #[serde(borrow)]
        lines: Lines<'a>,
        #[serde(default)]
        metadata: Cow<'a, Metadata>,
        #[serde(borrow)]
        context: Option<v1::Context<'a>>,
    }
}

impl<'a> From<v1::OrderPlaced<'a>> for OrderPlaced<'a> {
    /// Upcasts: an order from before there was metadata has none.
    fn from(older: v1::OrderPlaced<'a>) -> Self {
        Self {
            customer_id: older.customer_id,
            currency: older.currency,
            lines: older.lines,
            metadata: Cow::Owned(Metadata::new()),
            context: older.context,
        }
    }
}

impl<'a> Stored<'a> for OrderPlaced<'a> {
    #[inline(always)]
    fn event(self) -> Result<Parts<'a>, String> {
        let event = Event::OrderPlaced {
            customer_id: CustomerId::new(self.customer_id.0)
                .map_err(|error| format!("the customer id {error}"))?,
            currency: self.currency.0,
            lines: self.lines.lines()?,
            metadata: self.metadata.into_owned(),
        };
        Ok((event, self.context))
    }
}
