//! Point reads, many at once, and pages.

use std::collections::BTreeSet;

use order_domain::{Command, CustomerId, OrderId, Status, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::world::{FIRST_MICROS, World, place};
use crate::{OrderFilter, OrderRow, ReadModel, ReadModelReader};

#[test]
fn many_orders_come_back_in_the_order_asked_with_gaps_where_there_is_none() {
    let mut world = World::new(4);
    let ids: Vec<OrderId> = (0..20)
        .map(|number| world.place(&format!("c{number}"), &[("A", 1, 10)]))
        .collect();
    world.flush();
    let unknown = world.new_id();
    for shards in [1, 3] {
        let directory = tempfile::tempdir().unwrap();
        let read_model = ReadModel::open(world.config(directory.path(), shards)).unwrap();
        world.projector(&read_model).catch_up();
        let mut reader = read_model.reader().unwrap();
        let asked: Vec<_> = [ids[7], unknown, ids[0], ids[19], ids[7]]
            .into_iter()
            .map(|id| (world.partition_of(id), id))
            .collect();

        let rows = reader.orders(&asked).unwrap();

        let found: Vec<_> = rows
            .iter()
            .map(|row| row.as_ref().map(|row| row.id))
            .collect();
        let expected = [
            Some(ids[7]),
            None,
            Some(ids[0]),
            Some(ids[19]),
            Some(ids[7]),
        ];
        assert_eq!(found, expected);
        assert_eq!(rows[0], reader.order(asked[0].0, asked[0].1).unwrap());
        assert_eq!(reader.orders(&[]).unwrap(), []);
    }
}

fn bytes_of(row: &OrderRow) -> usize {
    row.lines.len() + row.metadata.len()
}

/// All pages of a filter, one after the other, by their cursors.
fn walk(reader: &mut ReadModelReader, filter: &OrderFilter) -> Vec<OrderId> {
    let mut filter = filter.clone();
    let mut ids = Vec::new();
    loop {
        let page = reader.page(&filter).unwrap();
        assert!(page.rows.len() <= filter.limit);
        let bytes: usize = page.rows.iter().map(bytes_of).sum();
        assert!(page.rows.len() <= 1 || filter.bytes_max.is_none_or(|most| bytes <= most));
        ids.extend(page.rows.iter().map(|row| row.id));
        if !page.more {
            return ids;
        }
        filter.before = page.rows.last().map(|row| row.id);
        assert!(filter.before.is_some(), "a page that leads nowhere");
    }
}

/// What a filter should find, out of the orders as decided.
fn expected(world: &World, filter: &OrderFilter) -> Vec<OrderId> {
    let fits = |id: &OrderId| {
        let order = &world.orders[id].order;
        filter.status.is_none_or(|status| order.status == status)
            && filter
                .customer_id
                .as_ref()
                .is_none_or(|id| order.customer_id == *id)
            && filter
                .created_after
                .is_none_or(|time| order.placed_at >= time)
            && filter
                .created_before
                .is_none_or(|time| order.placed_at < time)
    };
    world.orders.keys().rev().copied().filter(fits).collect()
}

/// 60 orders of 3 customers, half of them confirmed; ids made some time before they are appended.
fn listed_world() -> World {
    let mut world = World::new(3);
    for number in 0..60_u64 {
        let id = world.new_id();
        world.now_micros += number % 7 * 1_500;
        let customer = format!("c{}", number % 3);
        let lines = vec![("A", 1, 10); 1 + usize::try_from(number % 5).unwrap()];
        world.run(id, &place(&customer, &lines)).unwrap();
        if number % 2 == 0 {
            world.run(id, &Command::Confirm).unwrap();
        }
    }
    world.flush();
    world
}

fn filter() -> impl Strategy<Value = OrderFilter> {
    let statuses = vec![Status::Placed, Status::Confirmed, Status::Paid];
    let time = || {
        let offset = prop::option::of(0..300_000_u64);
        offset.prop_map(|offset| offset.map(|offset| Timestamp::from_micros(FIRST_MICROS + offset)))
    };
    let customer = prop::option::of(0..4_u8);
    let parts = (
        prop::option::of(prop::sample::select(statuses)),
        customer,
        time(),
        time(),
        1..70_usize,
        prop::option::of(0..3_000_usize),
    );
    parts.prop_map(
        |(status, customer, created_after, created_before, limit, bytes_max)| OrderFilter {
            status,
            customer_id: customer.map(|number| CustomerId::new(format!("c{number}")).unwrap()),
            created_after,
            created_before,
            before: None,
            limit,
            bytes_max,
        },
    )
}

#[test]
fn pages_give_exactly_the_orders_of_a_filter_newest_first() {
    let world = listed_world();
    for shards in [1, 3] {
        let directory = tempfile::tempdir().unwrap();
        let read_model = ReadModel::open(world.config(directory.path(), shards)).unwrap();
        world.projector(&read_model).catch_up();
        let mut runner = TestRunner::default();
        let outcome = runner.run(&filter(), |filter| {
            let found = walk(&mut read_model.reader().unwrap(), &filter);
            prop_assert_eq!(found, expected(&world, &filter));
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn a_page_has_as_many_orders_as_fit_into_its_bytes_and_at_least_one() {
    let world = listed_world();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let mut reader = read_model.reader().unwrap();
    let whole = reader
        .page(&OrderFilter {
            limit: 4,
            ..OrderFilter::default()
        })
        .unwrap();
    let three: usize = whole.rows[..3].iter().map(bytes_of).sum();
    for (bytes_max, count) in [(three, 3), (three - 1, 2), (1, 1), (0, 1), (usize::MAX, 60)] {
        let page = reader
            .page(&OrderFilter {
                limit: 100,
                bytes_max: Some(bytes_max),
                ..OrderFilter::default()
            })
            .unwrap();
        assert_eq!(
            (page.rows.len(), page.more),
            (count, count < 60),
            "{bytes_max}"
        );
    }
}

#[test]
fn an_order_whose_id_says_another_time_than_its_placing_is_in_the_pages_of_its_placing() {
    let mut world = World::new(1);
    world.place("c1", &[("A", 1, 10)]);
    // Made an hour ago and an hour ahead: a slow client, a clock that stepped back.
    let real = world.now_micros;
    let strange: BTreeSet<OrderId> = [real - 3_600_000_000, real + 3_600_000_000]
        .into_iter()
        .map(|made| {
            world.now_micros = made;
            world.new_id()
        })
        .collect();
    world.now_micros = real;
    for id in &strange {
        world.run(*id, &place("c1", &[("A", 1, 10)])).unwrap();
    }
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let filter = OrderFilter {
        created_after: Some(Timestamp::from_micros(real)),
        created_before: Some(Timestamp::from_micros(real + 1_000_000)),
        limit: 10,
        ..OrderFilter::default()
    };

    let found = walk(&mut read_model.reader().unwrap(), &filter);

    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), strange);
}

#[test]
fn every_list_is_a_range_of_an_index_and_sorts_nothing() {
    let world = listed_world();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let connection = rusqlite::Connection::open(read_model.paths().remove(0)).unwrap();
    for (has_customer, has_status, index) in [
        (false, false, "PRIMARY KEY"),
        (false, true, "OrderByStatus"),
        (true, false, "OrderByCustomer"),
        (true, true, "OrderByCustomer"),
    ] {
        let sql = format!(
            "EXPLAIN QUERY PLAN {}",
            crate::page::page_sql(has_customer, has_status)
        );
        let mut statement = connection.prepare(&sql).unwrap();
        let count = statement.parameter_count();
        let none = vec![rusqlite::types::Null; count];
        let plan: Vec<String> = statement
            .query_map(rusqlite::params_from_iter(none), |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(plan.len(), 1, "{plan:?}");
        assert!(
            plan[0].starts_with("SEARCH") && plan[0].contains(index),
            "{plan:?}"
        );
    }
}
