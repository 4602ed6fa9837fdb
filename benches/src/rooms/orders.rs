//! Orders in a log, written as the command workers write them, by number: the same number, the same order.

use std::borrow::Cow;
use std::sync::Arc;

use order_domain::codec::{Codec, encode};
use order_domain::{
    Amount, Currency, CustomerId, Event, EventContext, Line, LineId, Metadata, OrderId, Quantity,
    Sku,
};
use order_log::{
    AppendTime, Batch, EventLog, Key, Offset, PartitionId, PartitionWriter, PayloadFormat,
    RecordTag,
};

use crate::sample::Chance;

/// A history's orders are appended a microsecond apart, from just behind 2026-11-22T19:00:00Z, in microseconds since the
/// Unix epoch.
pub const FIRST_APPEND_US: u64 = 1_795_374_000_000_000;

/// Records of one append.
const BATCH_RECORDS: u64 = 1_000;

/// A UUIDv7 as the service makes them: in the order of time, the rest random.
#[must_use]
pub fn order_id(number: u64) -> OrderId {
    let millis = (FIRST_APPEND_US + number) / 1_000;
    let mut chance = Chance::new(number);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    // Within a millisecond, ids of one maker count up.
    let within = u16::try_from(number % 1_000).unwrap_or_default();
    bytes[6..8].copy_from_slice(&(0x7000 | within).to_be_bytes());
    bytes[8..].copy_from_slice(&chance.draw().to_be_bytes());
    bytes[8] = bytes[8] & 0x3f | 0x80;
    OrderId::from_bytes(bytes)
}

/// The content of an order, by its number.
#[derive(Debug, Clone)]
pub struct SampleOrder {
    customer_id: String,
    sku: String,
    quantity: u32,
    unit_price: i64,
}

impl SampleOrder {
    /// Customers and goods that orders are drawn from.
    const CUSTOMERS: usize = 10_000;
    const GOODS: usize = 1_000;

    /// The order of this number: of the size of the documented one.
    #[must_use]
    pub fn new(number: u64) -> Self {
        let mut chance = Chance::new(!number);
        let small = |number: usize| i64::try_from(number).unwrap_or_default();
        Self {
            customer_id: format!("c-{:04}", chance.below(Self::CUSTOMERS)),
            sku: format!("SKU-{}", chance.below(Self::GOODS)),
            quantity: u32::try_from(chance.below(9)).unwrap_or_default() + 1,
            unit_price: 1_000 + small(chance.below(9_000)),
        }
    }

    /// The number of a partition's first order: numbers of partitions do not meet.
    #[must_use]
    pub fn first_number(partition: u16) -> u64 {
        u64::from(partition) << 32
    }

    /// Who ordered.
    #[must_use]
    pub fn customer_id(&self) -> &str {
        &self.customer_id
    }

    /// What was ordered.
    #[must_use]
    pub fn sku(&self) -> &str {
        &self.sku
    }

    /// How many units.
    #[must_use]
    pub const fn quantity(&self) -> u32 {
        self.quantity
    }

    /// Price of one unit, in minor units.
    #[must_use]
    pub const fn unit_price(&self) -> i64 {
        self.unit_price
    }

    /// What has to be paid, in minor units.
    ///
    /// # Errors
    /// None: the sample's amounts are small.
    pub fn total(&self) -> anyhow::Result<Amount> {
        Ok(Amount::new(self.unit_price)?.times(Quantity::new(self.quantity)?)?)
    }

    /// Its first event.
    ///
    /// # Errors
    /// None: the sample's values are within the domain.
    pub fn placed(&self) -> anyhow::Result<Event<'_>> {
        Ok(Event::OrderPlaced {
            customer_id: CustomerId::new(self.customer_id.as_str())?,
            currency: Currency::parse("EUR")?,
            lines: vec![Line {
                id: LineId::FIRST,
                sku: Sku::new(self.sku.as_str())?,
                quantity: Quantity::new(self.quantity)?,
                unit_price: Amount::new(self.unit_price)?,
            }],
            metadata: Metadata::from([("channel".to_owned(), "web".to_owned())]),
        })
    }
}

/// How far an order of a history is.
#[derive(Debug, Clone, Copy)]
struct Past {
    events: u32,
    last_frame: Offset,
}

/// One partition's orders: new ones, and later events of any of them.
#[derive(Debug)]
pub struct OrderHistory {
    writer: Box<dyn PartitionWriter>,
    codec: Codec,
    batch: Batch,
    clock: u64,
    /// Distinguishes the orders of partitions.
    first_number: u64,
    orders: Vec<Past>,
}

impl OrderHistory {
    /// Takes the writing end of a partition.
    ///
    /// # Errors
    /// Whatever kept it from being taken.
    pub fn new(log: &Arc<dyn EventLog>, partition: PartitionId) -> anyhow::Result<Self> {
        let writer = log.writer(partition)?;
        let mut batch = Batch::new();
        batch.start_at(writer.end());
        Ok(Self {
            clock: writer.last_append_time().as_micros().max(FIRST_APPEND_US),
            writer,
            codec: match log.payload_format() {
                PayloadFormat::Binary => Codec::Bincode,
                PayloadFormat::Json => Codec::Json,
            },
            batch,
            first_number: SampleOrder::first_number(partition.get()),
            orders: Vec::new(),
        })
    }

    /// The id of the history's order at `index`.
    #[must_use]
    pub fn id(&self, index: usize) -> OrderId {
        order_id(self.number(index))
    }

    fn number(&self, index: usize) -> u64 {
        self.first_number + u64::try_from(index).unwrap_or(u64::MAX)
    }

    /// Appends new orders.
    ///
    /// # Errors
    /// Whatever the log said.
    pub fn place(&mut self, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            let index = self.orders.len();
            let order = SampleOrder::new(self.number(index));
            self.orders.push(Past {
                events: 0,
                last_frame: Offset::ZERO,
            });
            self.add(index, &order.placed()?)?;
        }
        self.flush()
    }

    /// Appends the next event (confirmed, paid, shipped, delivered) of orders drawn at random, delivered ones left out.
    ///
    /// # Errors
    /// Whatever the log said; and if so many are asked for that hardly an order is left to go on.
    pub fn advance(&mut self, count: u64, chance: &mut Chance) -> anyhow::Result<()> {
        for _ in 0..count {
            let index = (0..1_000)
                .map(|_| chance.below(self.orders.len()))
                .find(|&index| self.orders.get(index).is_some_and(|order| order.events < 5))
                .ok_or_else(|| anyhow::anyhow!("nearly all orders are delivered"))?;
            let event = match self.orders[index].events {
                1 => Event::OrderConfirmed,
                2 => Event::OrderPaid {
                    amount: SampleOrder::new(self.number(index)).total()?,
                    reference: Some(Cow::Borrowed("pay-0001")),
                },
                3 => Event::OrderShipped {
                    carrier: Some(Cow::Borrowed("carrier")),
                    tracking_number: Some(Cow::Borrowed("track-0001")),
                },
                _ => Event::OrderDelivered,
            };
            self.add(index, &event)?;
        }
        self.flush()
    }

    fn add(&mut self, index: usize, event: &Event<'_>) -> anyhow::Result<()> {
        let key = Key::new(*self.id(index).as_bytes());
        let order = &mut self.orders[index];
        let previous = (order.events > 0).then_some(order.last_frame);
        self.clock += 1;
        let codec = self.codec;
        self.batch.begin_frame(
            key,
            order.events + 1,
            previous,
            AppendTime::from_micros(self.clock),
        );
        self.batch.record(|bytes| {
            let header = encode(codec, event, &EventContext::default(), bytes);
            RecordTag {
                event_type: header.event_type,
                schema: header.schema,
                codec: header.codec,
            }
        });
        order.last_frame = self.batch.end_frame();
        order.events += 1;
        let start = self.writer.end().get();
        if self.batch.end().get() - start >= BATCH_RECORDS {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.batch.is_empty() {
            self.writer.append(&self.batch)?;
            self.batch.start_at(self.writer.end());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rooms::{Depth, Store, open_log, replay};
    use order_log::Durability;

    #[test]
    fn ids_are_uuids_of_version_7_in_the_order_of_their_numbers() {
        let ids: Vec<OrderId> = (0..5_000).map(order_id).collect();
        assert!(ids.is_sorted());
        assert!(
            ids.iter()
                .all(|id| id.as_bytes()[6] >> 4 == 7 && id.as_bytes()[8] >> 6 == 2)
        );
    }

    #[test]
    fn a_history_of_orders_folds() {
        let directory = tempfile::tempdir().unwrap();
        for store in Store::ALL {
            let log = open_log(
                store,
                &directory.path().join(store.name()),
                2,
                Durability::Always,
            )
            .unwrap();
            for partition in [0, 1].map(PartitionId::new) {
                let mut history = OrderHistory::new(&log, partition).unwrap();
                history.place(100).unwrap();
                history.advance(300, &mut Chance::new(1)).unwrap();
                let reader = log.reader(partition).unwrap();
                assert_eq!(replay(&*reader, Depth::Fold).unwrap(), 400);
            }
        }
    }
}
