//! An event that cannot be applied parks its order; everything else goes on; a redrive picks it up.

use order_domain::codec::{self, Codec};
use order_domain::{Command, Event, EventContext, OrderId};
use order_log::{Offset, RecordTag};
use rusqlite::Connection;

use super::world::{World, digests, line, pay, projector_config};
use crate::{PartitionId, Projection};

type ParkedRow = (String, String, u64, String);

fn parked_rows(world: &World) -> Vec<ParkedRow> {
    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    let mut statement = connection
        .prepare("SELECT projection, order_id, offset, reason FROM ParkedEvent ORDER BY projection, offset")
        .unwrap();
    statement
        .query_map([], |row| {
            let offset: i64 = row.get(2)?;
            Ok((
                row.get(0)?,
                row.get(1)?,
                offset.cast_unsigned(),
                row.get(3)?,
            ))
        })
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn confirmed() -> (RecordTag, Vec<u8>) {
    let mut bytes = Vec::new();
    let header = codec::encode(
        Codec::Bincode,
        &Event::OrderConfirmed,
        &EventContext::default(),
        &mut bytes,
    );
    let tag = RecordTag {
        event_type: header.event_type,
        schema: header.schema,
        codec: header.codec,
    };
    (tag, bytes)
}

#[test]
fn an_undecodable_event_parks_its_order_in_every_projection_and_no_other_order() {
    let mut world = World::new(1);
    let bad = world.place("c1", &[("A", 1, 10)]);
    let poison = world.append_undecodable(bad);
    let good = world.place("c2", &[("A", 1, 20)]);
    world.run(good, &Command::Confirm).unwrap();
    // The write side does not know: its next event queues behind.
    let queued = world.append_records(bad, 3, Some(poison), &[confirmed()]);
    world.flush();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);

    projector.catch_up();

    world.assert_rows_are_the_orders(&read_model);
    let partition = PartitionId::new(0);
    for projection in Projection::ALL {
        let checkpoint = read_model.checkpoints().load(projection, partition);
        assert_eq!(checkpoint, world.end(partition));
        let mine: Vec<ParkedRow> = parked_rows(&world)
            .into_iter()
            .filter(|(name, ..)| name == projection.name())
            .collect();
        assert_eq!(mine.len(), 2, "{mine:?}");
        assert_eq!((&mine[0].1, mine[0].2), (&bad.to_string(), poison.get()));
        assert!(mine[0].3.contains("event type 999 is unknown"), "{mine:?}");
        assert_eq!((&mine[1].1, mine[1].2), (&bad.to_string(), queued.get()));
        assert!(mine[1].3.contains("waits behind"), "{mine:?}");
    }
    let parked: Vec<u64> = projector
        .board
        .status()
        .iter()
        .map(|status| status.parked_orders)
        .collect();
    assert_eq!(parked, [1, 1, 1]);
}

#[test]
fn later_events_queue_behind_a_parked_one_after_a_restart_too() {
    let mut world = World::new(1);
    let bad = world.place("c1", &[("A", 1, 10)]);
    let poison = world.append_undecodable(bad);
    world.flush();
    world.projector(&world.open()).catch_up();
    world.append_records(bad, 3, Some(poison), &[confirmed()]);
    world.flush();

    world.projector(&world.open()).catch_up();

    let orders = parked_rows(&world);
    let orders = orders.iter().filter(|(name, ..)| name == "orders");
    assert_eq!(orders.count(), 2);
}

#[test]
fn a_gap_in_an_orders_events_parks_it_and_says_which_event_is_missing() {
    let mut world = World::new(1);
    let bad = world.place("c1", &[("A", 1, 10)]);
    let last = world.orders[&bad].last_frame;
    world.append_records(bad, 4, Some(last), &[confirmed()]);
    world.flush();
    let read_model = world.open();

    world.projector(&read_model).catch_up();

    let rows = parked_rows(&world);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].0, "orders");
    assert!(
        rows[0].3.contains("number 4") && rows[0].3.contains("number 2"),
        "{rows:?}"
    );
    world.assert_rows_are_the_orders(&read_model);
}

#[test]
fn an_event_that_stands_in_the_row_already_is_not_applied_twice() {
    let mut world = World::new(1);
    let id = world.place("c1", &[("A", 1, 10)]);
    world.run(id, &Command::Confirm).unwrap();
    world.flush();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    projector.catch_up();
    let last = world.orders[&id].last_frame;
    world.append_records(id, 2, Some(last), &[confirmed()]);
    // A second placing meets a row where none may be.
    let placed_again = world.new_id();
    world
        .run(placed_again, &super::world::place("c2", &[("B", 1, 1)]))
        .unwrap();
    world.flush();
    projector.catch_up();
    let known = world.orders[&placed_again].clone();
    world.orders.remove(&placed_again);
    world
        .run(placed_again, &super::world::place("c3", &[("B", 1, 1)]))
        .unwrap();
    world.orders.insert(placed_again, known);
    world.flush();
    read_model
        .set_paused(Projection::CustomerSummary, true)
        .unwrap();
    read_model.set_paused(Projection::SkuDemand, true).unwrap();

    projector.catch_up();

    let reasons: Vec<String> = parked_rows(&world)
        .into_iter()
        .filter(|(name, ..)| name == "orders")
        .map(|(.., reason)| reason)
        .collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(
        reasons[0].contains("number 2 of its order, the row waits for number 3"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].contains("number 1 of its order, the row waits for number 2"),
        "{reasons:?}"
    );
    world.assert_rows_are_the_orders(&read_model);
}

#[test]
fn an_event_that_does_not_fold_takes_back_the_events_before_it_in_its_frame() {
    let mut world = World::new(1);
    let id = world.place("c1", &[("A", 1, 10)]);
    let last = world.orders[&id].last_frame;
    // The first confirmation fits, the second cannot follow it.
    world.append_records(id, 2, Some(last), &[confirmed(), confirmed()]);
    world.flush();
    let read_model = world.open();

    world.projector(&read_model).catch_up();

    world.assert_rows_are_the_orders(&read_model);
    let rows = parked_rows(&world);
    assert_eq!(rows.len(), 1, "{rows:?}");
}

/// Two orders whose sum for one customer leaves 64 bits.
fn rich_customer(world: &mut World) -> (OrderId, OrderId) {
    let most = i64::MAX / 1_000_000;
    let first = world.place("rich", &[("A", 1_000_000, most)]);
    let second = world.place("rich", &[("A", 1_000_000, most)]);
    (first, second)
}

#[test]
fn a_sum_beyond_64_bits_parks_the_order_that_breaks_it_in_that_summary_alone() {
    for batch in [1, u64::MAX] {
        let mut world = World::new(1);
        let (_, second) = rich_customer(&mut world);
        world.place("c2", &[("A", 1, 10)]);
        world.flush();
        let read_model = world.open();

        world
            .projector_with(&read_model, &projector_config(batch))
            .catch_up();

        let rows = parked_rows(&world);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (rows[0].0.as_str(), &rows[0].1),
            ("customer_summary", &second.to_string())
        );
        assert!(rows[0].3.contains("64 bits"), "{rows:?}");
        world.assert_rows_are_the_orders(&read_model);
        assert_eq!(digests(&read_model), world.folded_afresh(1, 2));
    }
}

#[test]
fn the_view_over_all_partitions_reads_even_if_its_sum_leaves_64_bits() {
    let mut world = World::new(2);
    // One order in each partition: neither sum of a partition is too large.
    let most = i64::MAX / 1_000_000;
    let mut partitions = std::collections::BTreeSet::new();
    while partitions.len() < 2 {
        let id = world.new_id();
        if partitions.insert(world.partition_of(id)) {
            let command = super::world::place("rich", &[("A", 1_000_000, most)]);
            world.run(id, &command).unwrap();
        }
    }
    world.flush();
    world.projector(&world.open()).catch_up();

    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    let ordered: f64 = connection
        .query_row("SELECT ordered FROM CustomerSummary", [], |row| row.get(0))
        .unwrap();

    assert!(ordered > 1.8e19, "{ordered}");
}

/// Parks an order by damaging what the worker believes, so that a repair is possible: its row is made unreadable.
fn break_row(world: &World, id: OrderId) -> String {
    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    let key = id.to_string();
    let lines: String = connection
        .query_row(
            "SELECT lines FROM OrderView WHERE order_id = ?1",
            [&key],
            |row| row.get(0),
        )
        .unwrap();
    set_lines(world, id, "not JSON");
    lines
}

fn set_lines(world: &World, id: OrderId, lines: &str) {
    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    let changed = connection
        .execute(
            "UPDATE OrderView SET lines = ?1 WHERE order_id = ?2",
            [lines, &id.to_string()],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

#[test]
fn a_redrive_after_the_repair_applies_everything_that_queued_and_new_events_follow() {
    let mut world = World::new(1);
    let id = world.place("c1", &[("A", 1, 10)]);
    world.place("c2", &[("A", 1, 10)]);
    world.flush();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    projector.catch_up();
    let lines = break_row(&world, id);
    world.run(id, &Command::AddLine(line("B", 2, 3))).unwrap();
    world.run(id, &Command::Confirm).unwrap();
    let total = world.orders[&id].order.total.minor_units();
    world.run_keyed(id, &pay(total), "pay once");
    world.flush();
    projector.catch_up();
    assert_eq!(parked_rows(&world).len(), 3);

    let worker = &mut projector.workers[0];
    let too_early = worker.redrive(Projection::Orders).unwrap();
    assert_eq!((too_early.applied_frames, too_early.parked_orders), (0, 1));
    assert_eq!(parked_rows(&world).len(), 3);
    assert!(
        parked_rows(&world)[0].3.contains("does not read"),
        "{:?}",
        parked_rows(&world)
    );

    set_lines(&world, id, &lines);
    let redriven = worker.redrive(Projection::Orders).unwrap();
    assert_eq!((redriven.applied_frames, redriven.parked_orders), (3, 0));
    assert_eq!(parked_rows(&world), []);
    world
        .run(
            id,
            &Command::Ship {
                carrier: None,
                tracking_number: None,
            },
        )
        .unwrap();
    world.flush();
    projector.catch_up();

    world.assert_rows_are_the_orders(&read_model);
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn a_redrive_applies_what_it_can_and_parks_the_rest_with_its_own_reason() {
    let mut world = World::new(1);
    let id = world.place("c1", &[("A", 1, 10)]);
    world.flush();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    projector.catch_up();
    let lines = break_row(&world, id);
    world.run(id, &Command::AddLine(line("B", 2, 3))).unwrap();
    let poison = world.append_undecodable(id);
    world.append_records(id, 4, Some(poison), &[confirmed()]);
    world.flush();
    projector.catch_up();
    set_lines(&world, id, &lines);

    let redriven = projector.workers[0].redrive(Projection::Orders).unwrap();

    assert_eq!((redriven.applied_frames, redriven.parked_orders), (1, 1));
    world.assert_rows_are_the_orders(&read_model);
    let rows: Vec<ParkedRow> = parked_rows(&world)
        .into_iter()
        .filter(|(name, ..)| name == "orders")
        .collect();
    assert_eq!(
        rows.iter().map(|row| row.2).collect::<Vec<_>>(),
        [poison.get(), poison.get() + 1]
    );
    assert!(rows[0].3.contains("999"), "{rows:?}");
    assert!(rows[1].3.contains("waits behind"), "{rows:?}");
}

#[test]
fn a_parked_order_refuses_to_be_a_snapshot_for_decisions_but_still_reads() {
    let mut world = World::new(1);
    let id = world.place("c1", &[("A", 1, 10)]);
    world.append_undecodable(id);
    let fine = world.place("c2", &[("A", 1, 10)]);
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let mut reader = read_model.reader().unwrap();
    let partition = PartitionId::new(0);

    let refused = reader.snapshot(partition, id);

    assert!(
        matches!(refused, Err(crate::ReadModelError::Parked(_))),
        "{refused:?}"
    );
    assert!(reader.order(partition, id).unwrap().is_some());
    assert_eq!(
        reader.snapshot(partition, fine).unwrap(),
        reader.order(partition, fine).unwrap()
    );
    assert_eq!(
        Offset::ZERO,
        reader.order(partition, id).unwrap().unwrap().last_frame
    );
}

#[test]
fn a_read_says_of_a_parked_order_that_it_is_parked_whether_it_has_a_row_or_not() {
    let mut world = World::new(1);
    let good = world.place("c1", &[("A", 1, 10)]);
    let stale = world.place("c2", &[("A", 1, 10)]);
    let poison = world.append_undecodable(stale);
    let missing = world.new_id();
    let tag = RecordTag {
        event_type: 999,
        schema: 1,
        codec: Codec::Bincode.number(),
    };
    let first = world.append_records(missing, 1, None, &[(tag, vec![1])]);
    world.append_records(missing, 2, Some(first), &[confirmed()]);
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let partition = PartitionId::new(0);
    let mut reader = read_model.reader().unwrap();

    let asked = [good, stale, missing].map(|id| (partition, id));
    let mut seen = vec![None; 3];
    let mut note = |at: usize, version, parked| seen[at] = Some((version, parked));
    reader
        .visit_orders(&asked, &mut |at, row, parked| {
            note(at, row.map(|row| row.version.get()), parked);
        })
        .unwrap();
    let expected = [(Some(1), false), (Some(1), true), (None, true)];
    assert_eq!(seen, expected.map(Some));

    let parked = reader.parked(Projection::Orders, None, 10).unwrap();
    let told: Vec<_> = parked
        .iter()
        .map(|order| (order.id, order.partition, order.offset, order.events))
        .collect();
    assert_eq!(
        told,
        [
            (stale, partition, poison, 1),
            (missing, partition, first, 2)
        ]
    );
    for order in &parked {
        assert!(order.reason.contains("event type 999"), "{order:?}");
    }
    let first_page = reader.parked(Projection::Orders, None, 1).unwrap();
    assert_eq!(first_page, parked[..1]);
    let second_page = reader.parked(Projection::Orders, Some(stale), 1).unwrap();
    assert_eq!(second_page, parked[1..]);
}
