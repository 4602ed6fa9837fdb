//! Goal: a log in which closed orders are told as one folds to the rows of the whole log.
//!
//! Method: orders live in one world; another gets the same frames at the same times, but for those of the closed orders, in
//! whose place stands a snapshot where the last one was. All rows are compared, but for where in the log they come from.

use std::ops::ControlFlow;

use order_domain::codec::{self, Codec, RecordHeader};
use order_domain::{Amount, Command, Event, EventContext, Life, OrderId, Timestamp};
use order_log::{EventLog, Offset, RecordTag, ScanLimit};
use rusqlite::Connection;

use super::world::{Known, World, cancel, digests, line, pay, remove};
use crate::Projection;
use crate::reader::OrderFilter;

const PARTITIONS: u16 = 2;

const ROWS: [&str; 3] = [
    "SELECT order_id, partition, version, status, customer_id, currency, total, paid, refunded, next_line_id, lines, \
     metadata, placed_at, updated_at FROM OrderView ORDER BY order_id",
    "SELECT * FROM CustomerSummaryByPartition ORDER BY customer_id, currency, partition",
    "SELECT * FROM SkuDemandByPartition ORDER BY sku, partition",
];

/// All rows as text, but for offsets.
fn rows(world: &World) -> Vec<String> {
    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    let mut all = Vec::new();
    for sql in ROWS {
        let mut statement = connection.prepare(sql).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values = (0..columns).map(|at| format!("{:?}", row.get_ref(at).unwrap()));
            all.push(values.collect::<Vec<_>>().join(" "));
        }
    }
    all
}

/// Orders that end in every way, with lines that came and went, mixed with some that go on.
fn lived() -> World {
    let mut world = World::new(PARTITIONS);
    let ids: Vec<OrderId> = (0..24)
        .map(|number| {
            let customer = format!("c{}", number % 5);
            world.place(&customer, &[("A", 2, 100), ("B", 3, 10), ("A", 1, 1)])
        })
        .collect();
    let refund = |amount: Option<i64>| Command::Refund {
        amount: amount.map(|amount| Amount::new(amount).unwrap()),
        reason: None,
    };
    let ship = || Command::Ship {
        carrier: None,
        tracking_number: None,
    };
    for (number, id) in ids.iter().enumerate() {
        let steps = match number % 6 {
            // A SKU that is added later, one that is removed and one that is removed and added again.
            0 => vec![
                Command::AddLine(line("later", 5, 7)),
                remove(2),
                remove(1),
                Command::AddLine(line("A", 1, 2)),
                cancel(),
            ],
            1 => vec![
                Command::AddLine(line("gone", 1, 1)),
                remove(4),
                Command::Confirm,
                pay(231),
                ship(),
                Command::Deliver,
                refund(Some(31)),
            ],
            2 => vec![Command::Confirm, pay(231), refund(None)],
            3 => vec![Command::Confirm, pay(231), cancel()],
            4 => vec![Command::Confirm, pay(231), refund(Some(1)), ship()],
            _ => vec![Command::AddLine(line("later", 1, 1))],
        };
        for step in steps {
            world.run(*id, &step).unwrap();
        }
    }
    world.flush();
    world
}

/// The same log with its closed orders told as one.
fn compacted(whole: &World) -> World {
    let mut world = World::new(PARTITIONS);
    let mut frames = Vec::new();
    for partition in whole.partitions() {
        let reader = whole.log.reader(partition).unwrap();
        let scanned = reader.scan(Offset::ZERO, ScanLimit::NONE, &mut |frame| {
            let records: Vec<_> = frame
                .records()
                .map(|record| (record.tag, record.bytes.to_vec()))
                .collect();
            let id = OrderId::from_bytes(*frame.key.as_bytes());
            frames.push((frame.appended_at, id, frame.base, frame.sequence, records));
            ControlFlow::Continue(())
        });
        scanned.unwrap();
    }
    frames.sort_by_key(|(at, ..)| *at);
    let mut lives: std::collections::BTreeMap<OrderId, Life> = Default::default();
    for (at, id, base, sequence, records) in frames {
        world.now_micros = at.as_micros();
        let life = lives.entry(id).or_insert_with(|| Life::new(id));
        for (tag, bytes) in &records {
            let header = RecordHeader {
                event_type: tag.event_type,
                schema: tag.schema,
                codec: tag.codec,
            };
            let event = codec::decode(header, bytes).unwrap().event;
            life.fold(&event, Timestamp::from_micros(at.as_micros()))
                .unwrap();
        }
        let known = &whole.orders[&id];
        let before = world.orders.get(&id).map(|known: &Known| known.last_frame);
        let last_frame = if !known.order.is_closed() {
            world.append_records(id, sequence, before, &records)
        } else if base == known.last_frame {
            let snapshot = life.snapshot().unwrap();
            let version = snapshot.version.get();
            world.append_records(id, version, None, &[snapshot_record(snapshot)])
        } else {
            continue;
        };
        let order = known.order.clone();
        world.orders.insert(id, Known { order, last_frame });
    }
    world.flush();
    world
}

fn snapshot_record(snapshot: order_domain::Snapshot<'static>) -> (RecordTag, Vec<u8>) {
    let mut bytes = Vec::new();
    let event = Event::OrderSnapshot(Box::new(snapshot));
    let header = codec::encode(Codec::Bincode, &event, &EventContext::default(), &mut bytes);
    let tag = RecordTag {
        event_type: header.event_type,
        schema: header.schema,
        codec: header.codec,
    };
    (tag, bytes)
}

fn records(world: &World) -> u64 {
    world.partitions().map(|it| world.end(it).get()).sum()
}

#[test]
fn a_compacted_log_folds_to_the_rows_of_the_whole_one() {
    let mut whole = lived();
    let mut world = compacted(&whole);
    assert!(records(&world) * 3 < records(&whole) * 2, "little is gone");
    whole.projector(&whole.open()).catch_up();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    assert_eq!(rows(&world), rows(&whole));
    world.assert_rows_are_the_orders(&read_model);
    // In one batch, in many, in a file of its own for each partition.
    for (shards, batch_records_max) in [(1, 1), (1, u64::MAX), (PARTITIONS, 3)] {
        assert_eq!(
            world.folded_afresh(shards, batch_records_max),
            digests(&read_model)
        );
    }

    // A refund of what was delivered follows a snapshot as it follows the events.
    let delivered: Vec<OrderId> = whole
        .orders
        .iter()
        .filter(|(_, known)| known.order.is_closed() && known.order.refundable() > Amount::ZERO)
        .map(|(id, _)| *id)
        .collect();
    assert!(!delivered.is_empty());
    for id in delivered {
        let refund = Command::Refund {
            amount: None,
            reason: None,
        };
        world.now_micros = world.now_micros.max(whole.now_micros);
        whole.now_micros = world.now_micros;
        whole.run(id, &refund).unwrap();
        world.run(id, &refund).unwrap();
    }
    whole.flush();
    world.flush();
    drop(read_model);
    whole.projector(&whole.open()).catch_up();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    assert_eq!(rows(&world), rows(&whole));
    assert_eq!(world.folded_afresh(1, 2), digests(&read_model));
}

#[test]
fn orders_told_as_one_are_listed_by_when_they_were_placed() {
    let whole = lived();
    let world = compacted(&whole);
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let mut reader = read_model.reader().unwrap();
    let mut placed: Vec<Timestamp> = whole
        .orders
        .values()
        .map(|known| known.order.placed_at)
        .collect();
    placed.sort_unstable();
    let middle = placed[placed.len() / 2];
    let filter = OrderFilter {
        created_before: Some(middle),
        limit: 1_000,
        ..OrderFilter::default()
    };
    let found = reader.page(&filter).unwrap();
    let expected = placed.iter().filter(|at| **at < middle).count();
    assert_eq!(found.rows.len(), expected);
    assert!(!found.more);
}

#[test]
fn a_snapshot_in_the_wrong_place_parks_its_order() {
    let whole = lived();
    let (id, known) = whole
        .orders
        .iter()
        .find(|(_, known)| known.order.is_closed())
        .unwrap();
    // A frame that says another version than its snapshot, and one behind another event of the order.
    for (version, behind) in [(known.order.version.get() + 1, false), (2, true)] {
        let mut world = World::new(PARTITIONS);
        let mut life = Life::new(*id);
        let reader = whole.log.reader(whole.partition_of(*id)).unwrap();
        let mut first = None;
        let scanned = reader.scan(Offset::ZERO, ScanLimit::NONE, &mut |frame| {
            if frame.key.as_bytes() != id.as_bytes() {
                return ControlFlow::Continue(());
            }
            for record in frame.records() {
                let header = RecordHeader {
                    event_type: record.tag.event_type,
                    schema: record.tag.schema,
                    codec: record.tag.codec,
                };
                let event = codec::decode(header, record.bytes).unwrap().event;
                let at = Timestamp::from_micros(frame.appended_at.as_micros());
                life.fold(&event, at).unwrap();
                first.get_or_insert((record.tag, record.bytes.to_vec()));
            }
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        let before = behind.then(|| world.append_records(*id, 1, None, &[first.clone().unwrap()]));
        let snapshot = snapshot_record(life.snapshot().unwrap());
        world.now_micros = known.order.updated_at.as_micros();
        world.append_records(*id, version, before, &[snapshot]);
        world.flush();
        let read_model = world.open();
        world.projector(&read_model).catch_up();
        let mut reader = read_model.reader().unwrap();
        let parked = reader.parked(Projection::Orders, None, 10).unwrap();
        assert_eq!(parked.len(), 1, "behind: {behind}");
    }
}
