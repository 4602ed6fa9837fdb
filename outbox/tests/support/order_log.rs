//! A real segmented log in a directory of its own, and orders to put into it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use order_domain::codec::{self, Codec};
use order_domain::{
    Amount, Currency, CustomerId, Event, EventContext, Line, LineId, Metadata, OrderId, Quantity,
    Sku,
};
use order_log::disk::RealDisk;
use order_log::segmented::{SegmentedConfig, SegmentedLog};
use order_log::{
    AppendTime, Batch, Durability, EventLog, Key, Offset, PartitionId, PartitionReader,
    PartitionWriter, RecordTag,
};
use tempfile::TempDir;

/// Append time of the first frame: 2025-01-01T00:00:00Z. Each further one is a millisecond later.
pub(crate) const EPOCH_US: u64 = 1_735_689_600_000_000;

/// A trace context as a request would bring it.
pub(crate) const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A record as the log takes it.
type Encoded = (RecordTag, Vec<u8>);

/// The log, its writers, and what the next frame of an order must say.
#[derive(Debug)]
pub(crate) struct OrderLog {
    directory: TempDir,
    pub(crate) log: SegmentedLog,
    writers: Vec<Box<dyn PartitionWriter>>,
    streams: HashMap<OrderId, (u32, Offset)>,
    frames: u64,
}

/// The log's configuration in a data directory.
pub(crate) fn segmented_config(directory: &Path, partitions: u16) -> SegmentedConfig {
    SegmentedConfig::new(
        directory.join("log"),
        [7; 16],
        partitions,
        Durability::Always,
    )
}

impl OrderLog {
    pub(crate) fn new(partitions: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = segmented_config(directory.path(), partitions);
        let log = SegmentedLog::open(config, Arc::new(RealDisk)).unwrap();
        let ids = (0..partitions).map(PartitionId::new);
        let writers = ids
            .map(|partition| log.writer(partition).unwrap())
            .collect();
        Self {
            directory,
            log,
            writers,
            streams: HashMap::new(),
            frames: 0,
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn reader(&self, partition: u16) -> Box<dyn PartitionReader> {
        self.log.reader(PartitionId::new(partition)).unwrap()
    }

    /// Appends the events as one frame, in the partition of the order's number.
    pub(crate) fn append(&mut self, order: OrderId, events: &[Event<'_>]) {
        self.append_with(order, events, &EventContext::default());
    }

    /// Appends the events as one frame; the first one carries the context.
    pub(crate) fn append_with(
        &mut self,
        order: OrderId,
        events: &[Event<'_>],
        context: &EventContext<'_>,
    ) {
        let none = EventContext::default();
        let contexts = std::iter::once(context).chain(std::iter::repeat(&none));
        let records: Vec<_> = events
            .iter()
            .zip(contexts)
            .map(|(event, context)| encoded(event, context))
            .collect();
        self.append_records(order, &records);
    }

    /// Appends a frame of one record that no version can decode.
    pub(crate) fn append_unreadable(&mut self, order: OrderId) {
        let tag = RecordTag {
            event_type: 999,
            schema: 1,
            codec: Codec::Bincode as u8,
        };
        self.append_records(order, &[(tag, b"from the future".to_vec())]);
    }

    fn append_records(&mut self, order: OrderId, records: &[Encoded]) {
        self.append_frames(&[(order, records.to_vec())]);
    }

    /// Appends frames with one write and one sync a partition.
    fn append_frames(&mut self, frames: &[(OrderId, Vec<Encoded>)]) {
        let mut batches: Vec<Batch> = Vec::new();
        for writer in &self.writers {
            let mut batch = Batch::new();
            batch.start_at(writer.end());
            batches.push(batch);
        }
        for (order, records) in frames {
            let batch = &mut batches[usize::from(number_of(*order)) % self.writers.len()];
            let stream = self.streams.get(order).copied();
            let sequence = stream.map_or(1, |(sequence, _)| sequence);
            let at = AppendTime::from_micros(EPOCH_US + self.frames * 1_000);
            let previous = stream.map(|(_, base)| base);
            batch.begin_frame(Key::new(*order.as_bytes()), sequence, previous, at);
            for (tag, bytes) in records {
                batch.record(|buffer| {
                    buffer.extend_from_slice(bytes);
                    *tag
                });
            }
            let base = batch.end_frame();
            self.frames += 1;
            let next = sequence + u32::try_from(records.len()).unwrap();
            self.streams.insert(*order, (next, base));
        }
        for (writer, batch) in self.writers.iter_mut().zip(&batches) {
            if !batch.is_empty() {
                writer.append(batch).unwrap();
            }
        }
    }

    /// Appends `events` events to each of `orders` orders, in turn: every order's events lie far apart. A new order is
    /// placed, lines are added to a known one.
    pub(crate) fn append_interleaved(&mut self, orders: u16, events: usize) {
        let none = EventContext::default();
        for _ in 0..events {
            let frames: Vec<_> = (0..orders)
                .map(|number| {
                    let known = self.streams.get(&order(number));
                    let event = known.map_or_else(placed, |(next, _)| line_added(*next as usize));
                    (order(number), vec![encoded(&event, &none)])
                })
                .collect();
            self.append_frames(&frames);
        }
    }

    /// Count of events in all partitions.
    pub(crate) fn events(&self) -> usize {
        let ends = self
            .writers
            .iter()
            .map(|writer| usize::try_from(writer.end().get()).unwrap());
        ends.sum()
    }
}

fn encoded(event: &Event<'_>, context: &EventContext<'_>) -> Encoded {
    let mut bytes = Vec::new();
    let header = codec::encode(Codec::Bincode, event, context, &mut bytes);
    let tag = RecordTag {
        event_type: header.event_type,
        schema: header.schema,
        codec: header.codec,
    };
    (tag, bytes)
}

/// An order id that sorts by its number.
pub(crate) fn order(number: u16) -> OrderId {
    let mut bytes = *b"\x01\x99\xc8\x2c\x00\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x00";
    bytes[14..].copy_from_slice(&number.to_be_bytes());
    OrderId::from_bytes(bytes)
}

fn number_of(order: OrderId) -> u16 {
    let bytes = order.as_bytes();
    u16::from_be_bytes([bytes[14], bytes[15]])
}

pub(crate) fn line(number: u32) -> Line<'static> {
    Line {
        id: LineId::new(number).unwrap(),
        sku: Sku::new(format!("SKU-{number}")).unwrap(),
        quantity: Quantity::new(2).unwrap(),
        unit_price: Amount::new(1_999).unwrap(),
    }
}

pub(crate) fn placed() -> Event<'static> {
    Event::OrderPlaced {
        customer_id: CustomerId::new("c-1042").unwrap(),
        currency: Currency::parse("EUR").unwrap(),
        lines: vec![line(1)],
        metadata: Metadata::from([("channel".to_owned(), "web".to_owned())]),
    }
}

pub(crate) fn line_added(number: usize) -> Event<'static> {
    Event::LineAdded {
        line: line(u32::try_from(number).unwrap() + 1),
    }
}
