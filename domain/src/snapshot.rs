//! One event in the place of an order's first events: what is left of them when a log is compacted.
//!
//! A snapshot says all that the events said to whoever folds them: the order as it is, and what a sum over all events would
//! have made of them. What it does not say is how the order came to be so.

use std::collections::BTreeMap;

use crate::{
    Amount, Currency, CustomerId, Event, FoldError, Line, LineId, Metadata, Order, OrderId, Sku,
    Status, Timestamp, Version, fold,
};

/// An order after its first [`Snapshot::version`] events, of which it takes the place. It was last changed when the last of
/// them was appended, which is when the snapshot's own frame says that it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// The last version it stands for; it stands for all from 1 on.
    pub version: Version,
    /// Where the order is in its life.
    pub status: Status,
    /// Who ordered.
    pub customer_id: CustomerId<'a>,
    /// Currency of every amount of the order.
    pub currency: Currency,
    /// Lines in the order of their ids.
    pub lines: Vec<Line<'a>>,
    /// The id the next added line gets.
    pub next_line_id: LineId,
    /// What was paid.
    pub paid: Amount,
    /// What was paid back.
    pub refunded: Amount,
    /// The client's labels.
    pub metadata: Metadata,
    /// Append time of the first event.
    pub placed_at: Timestamp,
    /// SKUs that the lines alone tell wrongly, in their order: those that were added to the order after it was placed, and
    /// those that were removed from it.
    pub last_ordered: Vec<LastOrdered<'a>>,
}

/// When a SKU was last put on an order, by placing it or by adding a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastOrdered<'a> {
    /// Which.
    pub sku: Sku<'a>,
    /// Append time of the event.
    pub at: Timestamp,
}

impl Snapshot<'_> {
    /// The same snapshot, owning its texts.
    #[must_use]
    pub fn into_owned(self) -> Snapshot<'static> {
        let last_ordered = self.last_ordered.into_iter().map(|last| LastOrdered {
            sku: last.sku.into_owned(),
            at: last.at,
        });
        Snapshot {
            version: self.version,
            status: self.status,
            customer_id: self.customer_id.into_owned(),
            currency: self.currency,
            lines: self.lines.into_iter().map(Line::into_owned).collect(),
            next_line_id: self.next_line_id,
            paid: self.paid,
            refunded: self.refunded,
            metadata: self.metadata,
            placed_at: self.placed_at,
            last_ordered: last_ordered.collect(),
        }
    }
}

/// An order's events so far, folded into all that a [`Snapshot`] of them has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    id: OrderId,
    order: Option<Order>,
    /// Every SKU that ever was on the order.
    last_ordered: BTreeMap<Sku<'static>, Timestamp>,
}

impl Life {
    /// Before the first event.
    #[must_use]
    pub const fn new(id: OrderId) -> Self {
        Self {
            id,
            order: None,
            last_ordered: BTreeMap::new(),
        }
    }

    /// Applies the next event, appended at `at`; nothing is changed on error.
    ///
    /// # Errors
    /// [`FoldError`] if the event does not fit.
    pub fn fold(&mut self, event: &Event<'_>, at: Timestamp) -> Result<(), FoldError> {
        fold(&mut self.order, self.id, event, at)?;
        match event {
            Event::OrderPlaced { lines, .. } => self.ordered(lines, at),
            Event::LineAdded { line } => self.ordered(std::slice::from_ref(line), at),
            Event::OrderSnapshot(snapshot) => {
                self.ordered(&snapshot.lines, snapshot.placed_at);
                for last in &snapshot.last_ordered {
                    self.last_ordered
                        .insert(last.sku.clone().into_owned(), last.at);
                }
            }
            Event::LineRemoved { .. }
            | Event::OrderConfirmed
            | Event::OrderPaid { .. }
            | Event::OrderShipped { .. }
            | Event::OrderDelivered
            | Event::OrderRefunded { .. }
            | Event::OrderCancelled { .. } => {}
        }
        Ok(())
    }

    fn ordered(&mut self, lines: &[Line<'_>], at: Timestamp) {
        for line in lines {
            self.last_ordered.insert(line.sku.clone().into_owned(), at);
        }
    }

    /// The order as it is; `None` before the first event.
    #[must_use]
    pub const fn order(&self) -> Option<&Order> {
        self.order.as_ref()
    }

    /// The one event that says the same; `None` before the first. To be appended at the order's [`Order::updated_at`].
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot<'static>> {
        let order = self.order.as_ref()?;
        let as_placed = |sku: &Sku<'_>, at: Timestamp| {
            at == order.placed_at && order.lines.iter().any(|line| line.sku == *sku)
        };
        let last_ordered = self
            .last_ordered
            .iter()
            .filter(|(sku, at)| !as_placed(sku, **at))
            .map(|(sku, at)| LastOrdered {
                sku: sku.clone(),
                at: *at,
            });
        Some(Snapshot {
            version: order.version,
            status: order.status,
            customer_id: order.customer_id.clone(),
            currency: order.currency,
            lines: order.lines.clone(),
            next_line_id: order.next_line_id,
            paid: order.paid,
            refunded: order.refunded,
            metadata: order.metadata.clone(),
            placed_at: order.placed_at,
            last_ordered: last_ordered.collect(),
        })
    }
}
