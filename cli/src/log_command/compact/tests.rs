//! What becomes of orders and of the outbox's cursors when lives of all kinds are mixed: each order is what it was, each
//! event is told once, before or afterwards, and only what may be told as one is.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use order_domain::codec::{Codec, encode};
use order_domain::{
    Amount, Command, Currency, CustomerId, EventContext, EventKind, Idempotency, Life, Metadata,
    NewLine, Order, OrderId, PlaceOrder, Quantity, Sku, Status, Timestamp, Version, decide, fold,
};
use order_log::{Batch, Key, Offset, PartitionId, RecordTag, ScanLimit};
use order_outbox::{EventId, OfflineOutbox, Outbox, OutboxConfig, SinkKind};
use prometheus::Registry;

use super::story::fold as fold_frame;
use super::*;
use crate::config::Store;
use crate::manifest::{Manifest, Rewritten};
use crate::rewrite::OwnedFrame;

const ROUNDS: u64 = 6;
const PARTITIONS: u16 = 3;
const ORDERS: u64 = 60;
const STEPS: u64 = 500;
const HOUR_US: u64 = 60 * 60 * 1_000_000;
/// When the first event happens.
const BEGIN_US: u64 = 1_000_000 * HOUR_US;
/// Between two events: some keys are remembered at the end, and some are not.
const TICK_US: u64 = HOUR_US / 8;

/// xorshift64*: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap()
    }

    /// A step that the order takes, more often than not one towards its end.
    fn step(&mut self, order: Option<&Order>) -> Command {
        let line = |dice: &mut Self| NewLine {
            sku: Sku::new(format!("SKU-{}", dice.below(5))).unwrap(),
            quantity: Quantity::new(1 + u32::try_from(dice.below(3)).unwrap()).unwrap(),
            unit_price: Amount::new(i64::try_from(dice.below(4)).unwrap()).unwrap(),
        };
        let Some(order) = order else {
            return Command::Place(PlaceOrder {
                customer_id: CustomerId::new("c").unwrap(),
                currency: Currency::parse("EUR").unwrap(),
                lines: vec![line(self), line(self)],
                metadata: Metadata::new(),
            });
        };
        let part = |dice: &mut Self| (dice.below(3) > 0).then(|| Amount::new(1).unwrap());
        match (order.status, self.below(6)) {
            (Status::Placed, 0 | 1) => Command::AddLine(line(self)),
            (Status::Placed, 2) => Command::RemoveLine(order.lines[0].id),
            (Status::Placed, _) => Command::Confirm,
            (Status::Confirmed, 0) | (Status::Paid, 1) => Command::Cancel { reason: None },
            (Status::Confirmed, _) => Command::Pay {
                amount: order.total,
                reference: None,
            },
            (Status::Paid, 0) | (Status::Shipped, 0) => Command::Refund {
                amount: part(self),
                reason: None,
            },
            (Status::Paid, _) => Command::Ship {
                carrier: None,
                tracking_number: None,
            },
            (Status::Shipped, _) => Command::Deliver,
            (Status::Delivered | Status::Cancelled | Status::Refunded, _) => Command::Refund {
                amount: part(self),
                reason: None,
            },
        }
    }
}

fn settings(data_dir: &Path, store: Store) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        partitions: Some(PARTITIONS),
        store: Some(store),
        idempotency_retention_hours: 24,
        outbox: OutboxConfig {
            sink: SinkKind::None,
            ..OutboxConfig::default()
        },
        ..Config::default()
    }
}

/// What was played.
struct Played {
    /// The present, when the last event has happened.
    now_us: u64,
    cursors: Vec<Offset>,
    /// How far an earlier rewriting is said to have gone.
    inherited: Vec<Offset>,
    /// Orders that used a key, and when last.
    keys: HashMap<OrderId, u64>,
    /// An event that was told in vain, and is kept aside.
    held: EventId,
}

/// Writes a log of mixed lives, and an outbox that has told some beginning of each partition.
fn play(config: &Config, dice: &mut Dice) -> Played {
    let directory = DataDirectory::own(config).unwrap();
    let partitioner = directory.manifest.partitioner().unwrap();
    let log = engine::open(config, &directory, engine::Followers::None).unwrap();
    let mut writers: Vec<_> = (0..PARTITIONS)
        .map(|partition| log.writer(PartitionId::new(partition)).unwrap())
        .collect();
    let ids: Vec<OrderId> = (0..u128::from(ORDERS))
        .map(|number| (number << 64 | u128::from(dice.below(1 << 31))).to_be_bytes())
        .map(OrderId::from_bytes)
        .collect();
    let codec = survey::codec_of(&*log);
    let mut orders: HashMap<OrderId, (Order, Offset)> = HashMap::new();
    let mut frame_ends = vec![vec![Offset::ZERO]; usize::from(PARTITIONS)];
    let mut keys = HashMap::new();
    let mut now_us = BEGIN_US;
    let mut batch = Batch::new();
    for step in 0..STEPS {
        let id = ids[dice.index(ids.len())];
        let known = orders.get(&id).cloned();
        let mut order = known.as_ref().map(|(order, _)| order.clone());
        let Ok(events) = decide(order.as_ref(), &dice.step(order.as_ref())) else {
            continue;
        };
        let mut context = EventContext::default();
        if dice.below(8) == 0 {
            keys.insert(id, now_us);
            context.idempotency = Some(Idempotency {
                key: format!("key-{step}").into(),
                fingerprint: [7; 16],
            });
        }
        let partition = partitioner.partition_of(id.to_string().as_bytes());
        let writer = &mut writers[usize::from(partition)];
        let version = order.as_ref().map_or(0, |order| order.version.get());
        batch.start_at(writer.end());
        batch.begin_frame(
            Key::new(*id.as_bytes()),
            version + 1,
            known.map(|(_, base)| base),
            AppendTime::from_micros(now_us),
        );
        for event in &events {
            fold(&mut order, id, event, Timestamp::from_micros(now_us)).unwrap();
            batch.record(|bytes| {
                let header = encode(codec, event, &context, bytes);
                RecordTag {
                    event_type: header.event_type,
                    schema: header.schema,
                    codec: header.codec,
                }
            });
            context = EventContext::default();
        }
        let base = batch.end_frame();
        writer.append(&batch).unwrap();
        frame_ends[usize::from(partition)].push(batch.end());
        orders.insert(id, (order.unwrap(), base));
        now_us += TICK_US;
    }
    for writer in &mut writers {
        writer.close().unwrap();
    }
    let outbox = config.outbox.clone();
    drop(Outbox::start(&*log, outbox, &directory.path, &Registry::new()).unwrap());
    // Nearly all was told, as where a service runs; in one partition less.
    let cursors: Vec<Offset> = frame_ends
        .iter()
        .enumerate()
        .map(|(partition, ends)| match partition {
            0 => *ends.last().unwrap(),
            1 => ends[ends.len() - 1 - dice.index(ends.len() / 4)],
            _ => ends[dice.index(ends.len())],
        })
        .collect();
    let inherited: Vec<Offset> = frame_ends
        .iter()
        .map(|ends| ends[dice.index(ends.len())])
        .collect();
    let mut outbox = OfflineOutbox::open(&directory.path, &config.outbox.source)
        .unwrap()
        .unwrap();
    let mut held = None;
    let first = log.reader(PartitionId::new(0)).unwrap();
    let visit = &mut |frame: order_log::Frame<'_>| {
        outbox.hold(first.partition(), &frame).unwrap();
        let order = OrderId::from_bytes(*frame.key.as_bytes());
        held = Some(EventId::new(order, Version::new(1)));
        ControlFlow::Break(())
    };
    first.scan(first.start(), ScanLimit::NONE, visit).unwrap();
    outbox.relocate(&cursors).unwrap();
    let manifest = Manifest {
        rewritten: Some(Rewritten {
            at: jiff::Timestamp::now(),
            ends: inherited.iter().map(|end| end.get()).collect(),
            last_append_us: now_us,
            former_log_ids: vec![uuid::Uuid::nil()],
        }),
        ..directory.manifest.clone()
    };
    manifest.write(&directory.path).unwrap();
    Played {
        now_us,
        cursors,
        inherited,
        keys,
        held: held.unwrap(),
    }
}

/// One order as a log has it.
#[derive(Debug)]
struct Found {
    life: Life,
    partition: usize,
    /// Versions that the log tells, each with its offset, its kind and when it happened.
    events: Vec<(u32, Offset, EventKind, u64)>,
}

fn found(config: &Config) -> HashMap<OrderId, Found> {
    let manifest = Manifest::read(&config.data_dir).unwrap();
    let log = engine::open_read_only(&config.data_dir, &manifest).unwrap();
    let mut orders: HashMap<OrderId, Found> = HashMap::new();
    for partition in (0..PARTITIONS).map(PartitionId::new) {
        let reader = log.reader(partition).unwrap();
        let visit = &mut |frame: order_log::Frame<'_>| {
            let id = OrderId::from_bytes(*frame.key.as_bytes());
            let order = orders.entry(id).or_insert_with(|| Found {
                life: Life::new(id),
                partition: partition.index(),
                events: Vec::new(),
            });
            fold_frame(&mut order.life, &OwnedFrame::of(&frame)).unwrap();
            let at = frame.appended_at.as_micros();
            order.events.extend(frame.records().map(|record| {
                let kind = EventKind::from_number(record.tag.event_type).unwrap();
                (record.sequence, record.offset, kind, at)
            }));
            ControlFlow::Continue(())
        };
        reader.scan(reader.start(), ScanLimit::NONE, visit).unwrap();
    }
    orders
}

fn arguments(older_than: &str, even_untold: bool) -> Arguments {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }
    let mut words = vec!["compact", "--older-than", older_than, "--discard-old"];
    words.extend(even_untold.then_some("--even-untold"));
    <Line as clap::Parser>::parse_from(words).arguments
}

fn outbox_of(config: &Config) -> OfflineOutbox {
    let outbox = OfflineOutbox::open(&config.data_dir, &config.outbox.source);
    outbox.unwrap().unwrap()
}

#[test]
fn only_what_may_be_told_as_one_is_and_each_event_is_told_once() {
    let mut dice = Dice(11);
    let (mut compacted, mut kept_for) = (0, [0; 4]);
    for round in 0..ROUNDS {
        let place = tempfile::tempdir().unwrap();
        let store = [Store::Segmented, Store::Jsonl][dice.index(2)];
        let config = settings(place.path(), store);
        let played = play(&config, &mut dice);
        let before = found(&config);
        let log_id = Manifest::read(place.path()).unwrap().log_id;

        compact(&config, &arguments("6h", false), played.now_us).unwrap();

        let after = found(&config);
        assert_eq!(after.len(), before.len());
        let cursors = outbox_of(&config).cursors();
        assert_eq!(outbox_of(&config).backing_off(), 1);
        assert!(outbox_of(&config).inspect(played.held).is_ok());
        let manifest = Manifest::read(place.path()).unwrap();
        let rewritten = manifest.rewritten.unwrap();
        assert_ne!(manifest.log_id, log_id);
        assert_eq!(rewritten.former_log_ids, [log_id, uuid::Uuid::nil()]);
        assert_eq!(rewritten.last_append_us, played.now_us);
        for (id, old) in &before {
            let new = &after[id];
            assert_eq!(new.life, old.life, "order {id}, round {round}");
            assert_eq!(new.partition, old.partition);
            let (_, last_offset, _, last_us) = *old.events.last().unwrap();
            let order = old.life.order().unwrap();
            let has_key = played
                .keys
                .get(id)
                .is_some_and(|at| played.now_us - at <= 24 * HOUR_US);
            let kept_by = [
                !order.is_closed(),
                played.now_us - last_us <= 6 * HOUR_US,
                has_key,
                last_offset >= played.cursors[old.partition],
            ];
            let is_compacted = new.events[0].2 == EventKind::OrderSnapshot;
            assert_eq!(is_compacted, kept_by == [false; 4], "{kept_by:?}");
            compacted += u64::from(is_compacted);
            for (count, kept) in kept_for.iter_mut().zip(kept_by) {
                *count += u64::from(kept);
            }
            if is_compacted {
                let [(version, offset, _, at)] = new.events[..] else {
                    panic!("one event is left: {new:?}");
                };
                assert_eq!((version, at), (order.version.get(), last_us));
                assert!(offset < cursors[new.partition], "it would be told");
                continue;
            }
            // The same events, told or to be told as before, and before or behind where the keys are from elsewhere.
            assert_eq!(new.events.len(), old.events.len());
            for (was, is) in old.events.iter().zip(&new.events) {
                assert_eq!((was.0, was.2, was.3), (is.0, is.2, is.3));
                let sides = |marks: &[Offset], offset: Offset| offset < marks[old.partition];
                assert_eq!(sides(&played.cursors, was.1), sides(&cursors, is.1));
                let ends: Vec<_> = rewritten.ends.iter().copied().map(Offset::new).collect();
                assert_eq!(sides(&played.inherited, was.1), sides(&ends, is.1));
            }
        }
        // A second time there is nothing left to do, but for what is given up.
        compact(&config, &arguments("6h", false), played.now_us).unwrap();
        let id_after = Manifest::read(place.path()).unwrap().log_id;
        assert_eq!(id_after, manifest.log_id);
        compact(&config, &arguments("6h", true), played.now_us).unwrap();
        for (id, old) in &before {
            assert_eq!(found(&config)[id].life, old.life);
        }
    }
    assert!(
        compacted > 0 && kept_for.iter().all(|count| *count > 0),
        "{compacted}, {kept_for:?}"
    );
}

#[test]
fn an_order_whose_events_do_not_fold_stays_as_it_is() {
    let place = tempfile::tempdir().unwrap();
    let config = settings(place.path(), Store::Segmented);
    let directory = DataDirectory::own(&config).unwrap();
    let log = engine::open(&config, &directory, engine::Followers::None).unwrap();
    let partitioner = directory.manifest.partitioner().unwrap();
    let id = OrderId::from_bytes([9; 16]);
    let partition = PartitionId::new(partitioner.partition_of(id.to_string().as_bytes()));
    let mut writer = log.writer(partition).unwrap();
    let mut batch = Batch::new();
    batch.start_at(writer.end());
    batch.begin_frame(Key::new([9; 16]), 1, None, AppendTime::from_micros(1));
    // Delivered, and never placed.
    batch.record(|bytes| {
        let event = order_domain::Event::OrderDelivered;
        let header = encode(Codec::Bincode, &event, &EventContext::default(), bytes);
        RecordTag {
            event_type: header.event_type,
            schema: header.schema,
            codec: header.codec,
        }
    });
    batch.end_frame();
    writer.append(&batch).unwrap();
    writer.close().unwrap();
    let before = directory.manifest.clone();
    drop((writer, log, directory));

    compact(&config, &arguments("0s", true), BEGIN_US).unwrap();

    assert_eq!(Manifest::read(place.path()).unwrap(), before);
}
