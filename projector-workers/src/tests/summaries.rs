//! What the sums mean, in numbers.

use order_domain::{Amount, Command};
use rusqlite::Connection;

use super::world::{TICK_MICROS, World, cancel, line, pay, remove};

fn query<T: rusqlite::types::FromSql>(world: &World, sql: &str) -> Vec<T> {
    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    let row = connection.query_row(sql, [], |row| {
        (0..row.as_ref().column_count())
            .map(|at| row.get(at))
            .collect()
    });
    row.unwrap()
}

#[test]
fn a_customers_row_counts_orders_and_sums_what_was_ordered_paid_and_refunded() {
    let mut world = World::new(4);
    let cancelled = world.place("c1", &[("A", 2, 100), ("B", 3, 10)]);
    world
        .run(cancelled, &Command::AddLine(line("C", 5, 1)))
        .unwrap();
    world.run(cancelled, &remove(2)).unwrap();
    world.run(cancelled, &Command::Confirm).unwrap();
    world.run(cancelled, &pay(205)).unwrap();
    world.run(cancelled, &cancel()).unwrap();
    let kept = world.place("c1", &[("A", 1, 50)]);
    let last_placed = world.now_micros - TICK_MICROS;
    world.run(kept, &Command::Confirm).unwrap();
    world.run(kept, &pay(50)).unwrap();
    let part = Some(Amount::new(20).unwrap());
    world
        .run(
            kept,
            &Command::Refund {
                amount: part,
                reason: None,
            },
        )
        .unwrap();
    world.place("somebody else", &[("A", 7, 1)]);
    world.flush();
    world.projector(&world.open()).catch_up();

    let row: Vec<i64> = query(
        &world,
        "SELECT orders_placed, orders_cancelled, ordered, paid, refunded, last_placed_at FROM CustomerSummary \
         WHERE customer_id = 'c1' AND currency = 'EUR'",
    );

    assert_eq!(row[..5], [2, 1, 255, 255, 225]);
    assert_eq!(row[5].cast_unsigned(), last_placed);
}

#[test]
fn a_skus_row_counts_units_ordered_and_units_of_cancelled_orders() {
    let mut world = World::new(4);
    let cancelled = world.place("c1", &[("A", 2, 100), ("A", 3, 10), ("B", 1, 1)]);
    world
        .run(cancelled, &Command::AddLine(line("B", 5, 1)))
        .unwrap();
    world.run(cancelled, &remove(1)).unwrap();
    world.run(cancelled, &cancel()).unwrap();
    world.place("c2", &[("A", 10, 50)]);
    world.flush();
    world.projector(&world.open()).catch_up();

    let of = |sku: &str| -> Vec<i64> {
        let sql = format!(
            "SELECT units_ordered, units_cancelled, units_wanted FROM SkuDemand WHERE sku = '{sku}'"
        );
        query(&world, &sql)
    };

    assert_eq!(of("A"), [13, 3, 10]);
    assert_eq!(of("B"), [6, 6, 0]);
}
