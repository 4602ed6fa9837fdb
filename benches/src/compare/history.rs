//! A data directory with a history of so many events in it, written with the log's own writers: through HTTP ten million
//! events would take minutes.
//!
//! The same count gives the same orders, with the same ids, contents and times, in every engine and over every count of
//! partitions. So the rows that come of it are the same too, and can be compared by digest.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use order_domain::codec::{Codec, encode};
use order_domain::{Event, EventContext, OrderId};
use order_log::{
    AppendTime, Batch, Durability, EventLog, Key, Offset, PartitionId, PartitionWriter,
    PayloadFormat, RecordTag,
};
use order_partitioner::{HASH_NAME, Partitioner};

use crate::rooms::{FIRST_APPEND_US, LOG_ID, SampleOrder, Store, open_log, order_id};
use crate::sample::Chance;

/// Records of one append.
const BATCH_RECORDS: u64 = 4_000;

/// An order gets its next event when so many orders were placed after its last one: later steps come while others are
/// placed, and soon enough that a projector's batch has several of one order.
const ORDERS_BETWEEN_STEPS: u64 = 500;

/// Events of an order: one to so many, three in the mean.
const EVENTS_MAX: u64 = 5;

/// What a history holds: what rows must add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Totals {
    pub(super) events: u64,
    pub(super) orders: u64,
    /// Of all orders, in minor units.
    pub(super) ordered: i64,
}

/// One partition that is being written.
struct Lane {
    writer: Box<dyn PartitionWriter>,
    batch: Batch,
}

impl Lane {
    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.batch.is_empty() {
            self.writer.append(&self.batch)?;
            self.batch.start_at(self.writer.end());
        }
        Ok(())
    }
}

/// An order that has events to come.
struct Open {
    number: u64,
    id: OrderId,
    partition: usize,
    events: u64,
    last_frame: Offset,
}

struct History {
    lanes: Vec<Lane>,
    partitioner: Partitioner,
    codec: Codec,
    totals: Totals,
}

/// Writes `events` events into an empty data directory; everything is synced on return.
pub(super) fn write_history(
    data: &Path,
    store: Store,
    partitions: u16,
    events: u64,
) -> anyhow::Result<Totals> {
    fs::create_dir_all(data).with_context(|| format!("make {}", data.display()))?;
    let log = open_log(store, data, partitions, Durability::Always)?;
    let mut history = History::start(&log, partitions)?;
    // The youngest at the back; `stages[n]` has the orders with n events.
    let mut stages: Vec<VecDeque<Open>> = (0..=EVENTS_MAX).map(|_| VecDeque::new()).collect();
    let mut number = 0;
    while history.totals.events < events {
        let mut order = history.open(number);
        history.add(&mut order)?;
        stages[1].push_back(order);
        number += 1;
        for stage in 1..stages.len() {
            let ripe = stages[stage]
                .front()
                .is_some_and(|order| is_ripe(order, number));
            if ripe
                && history.totals.events < events
                && let Some(mut order) = stages[stage].pop_front()
                && order.events < events_of(order.number)
            {
                history.add(&mut order)?;
                stages[stage + 1].push_back(order);
            }
        }
    }
    for lane in &mut history.lanes {
        lane.flush()?;
    }
    let totals = history.totals;
    drop(history);
    drop(log);
    write_manifest(data, store, partitions)?;
    Ok(totals)
}

/// How many events an order gets, if the history is long enough.
fn events_of(number: u64) -> u64 {
    let spread = usize::try_from(EVENTS_MAX).unwrap_or(1);
    let drawn = Chance::new(number ^ 0x5eed).below(spread);
    1 + u64::try_from(drawn).unwrap_or(0)
}

fn is_ripe(order: &Open, placed: u64) -> bool {
    order.number + order.events * ORDERS_BETWEEN_STEPS < placed
}

impl History {
    fn start(log: &Arc<dyn EventLog>, partitions: u16) -> anyhow::Result<Self> {
        let lanes = (0..partitions)
            .map(|partition| {
                let writer = log.writer(PartitionId::new(partition))?;
                let mut batch = Batch::new();
                batch.start_at(writer.end());
                Ok(Lane { writer, batch })
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            lanes,
            partitioner: Partitioner::new(partitions)
                .with_context(|| format!("{partitions} is no count of partitions"))?,
            codec: match log.payload_format() {
                PayloadFormat::Binary => Codec::Bincode,
                PayloadFormat::Json => Codec::Json,
            },
            totals: Totals::default(),
        })
    }

    fn open(&mut self, number: u64) -> Open {
        let id = order_id(number);
        let partition = self.partitioner.partition_of(id.to_string().as_bytes());
        Open {
            number,
            id,
            partition: usize::from(partition),
            events: 0,
            last_frame: Offset::ZERO,
        }
    }

    /// Adds the order's next event.
    fn add(&mut self, order: &mut Open) -> anyhow::Result<()> {
        let sample = SampleOrder::new(order.number);
        let event = match order.events {
            0 => {
                self.totals.orders += 1;
                self.totals.ordered += sample.total()?.minor_units();
                sample.placed()?
            }
            1 => Event::OrderConfirmed,
            2 => Event::OrderPaid {
                amount: sample.total()?,
                reference: Some(Cow::Borrowed("pay-0001")),
            },
            3 => Event::OrderShipped {
                carrier: Some(Cow::Borrowed("carrier")),
                tracking_number: Some(Cow::Borrowed("track-0001")),
            },
            _ => Event::OrderDelivered,
        };
        self.totals.events += 1;
        order.events += 1;
        let lane = &mut self.lanes[order.partition];
        let previous = (order.events > 1).then_some(order.last_frame);
        lane.batch.begin_frame(
            Key::new(*order.id.as_bytes()),
            u32::try_from(order.events)?,
            previous,
            AppendTime::from_micros(FIRST_APPEND_US + self.totals.events),
        );
        let codec = self.codec;
        lane.batch.record(|bytes| {
            let header = encode(codec, &event, &EventContext::default(), bytes);
            RecordTag {
                event_type: header.event_type,
                schema: header.schema,
                codec: header.codec,
            }
        });
        order.last_frame = lane.batch.end_frame();
        if lane.batch.end().get() - lane.writer.end().get() >= BATCH_RECORDS {
            lane.flush()?;
        }
        Ok(())
    }
}

/// What makes the files a data directory of the service.
fn write_manifest(data: &Path, store: Store, partitions: u16) -> anyhow::Result<()> {
    let id = LOG_ID.map(|byte| format!("{byte:02x}")).concat();
    let log_id = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    let manifest = serde_json::json!({
        "format": 1,
        "log_id": log_id,
        "partitions": partitions,
        "hash": HASH_NAME,
        "store": store.name(),
        "created_at": "2026-11-22T19:00:00Z",
    });
    let path = data.join("manifest.json");
    fs::write(&path, serde_json::to_vec_pretty(&manifest)?)
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::rows::rows_of;
    use crate::rooms::catch_up;

    #[test]
    fn a_history_is_the_same_in_every_engine_and_over_every_count_of_partitions() {
        const EVENTS: u64 = 20_000;
        let directory = tempfile::tempdir().unwrap();
        let mut digests = Vec::new();
        for (store, partitions, shards) in [
            (Store::Segmented, 1, 1),
            (Store::Segmented, 4, 2),
            (Store::Jsonl, 2, 1),
        ] {
            let data = directory
                .path()
                .join(format!("{}-{partitions}", store.name()));
            let totals = write_history(&data, store, partitions, EVENTS).unwrap();
            assert_eq!(totals.events, EVENTS);
            let log = open_log(store, &data, partitions, Durability::Always).unwrap();
            catch_up(&log, &data, shards).unwrap();
            drop(log);
            let rows = rows_of(&data).unwrap();
            assert_eq!(
                (rows.rows, rows.events, rows.ordered),
                (totals.orders, EVENTS, totals.ordered)
            );
            assert!(totals.orders * 2 < EVENTS && totals.orders * 5 > EVENTS);
            digests.push(rows.digest);
        }
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "{digests:?}"
        );
    }
}
