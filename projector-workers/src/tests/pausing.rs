//! A projection can stand still alone, across restarts, and comes to the same rows when it goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use order_domain::{Command, OrderId};

use super::world::{World, cancel, digests, line, pay, projector_config, remove};
use crate::crash::CrashPoint;
use crate::{Projection, ProjectorWorkers, ReadModel};

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The whole life of an order that touches every sum, cut in two.
fn first_half(world: &mut World, customer: &str) -> OrderId {
    let id = world.place(customer, &[("A", 2, 100), ("B", 3, 10)]);
    world.run(id, &Command::AddLine(line("C", 5, 1))).unwrap();
    id
}

fn second_half(world: &mut World, id: OrderId) {
    world.run(id, &remove(2)).unwrap();
    world.run(id, &Command::Confirm).unwrap();
    let total = world.orders[&id].order.total.minor_units();
    world.run(id, &pay(total)).unwrap();
    world.run(id, &cancel()).unwrap();
}

fn checkpoints(read_model: &ReadModel) -> [u64; 3] {
    let partition = crate::PartitionId::new(0);
    Projection::ALL.map(|projection| read_model.checkpoints().load(projection, partition).get())
}

#[test]
fn held_tables_are_where_their_checkpoints_say_whoever_was_writing_them() {
    const HOLDS: u32 = 2_000;
    let mut world = World::new(1);
    let read_model = world.open();
    let partition = crate::PartitionId::new(0);
    let registry = prometheus::Registry::new();
    let workers = ProjectorWorkers::start(
        &world.log,
        Arc::clone(&read_model),
        projector_config(10),
        &registry,
    )
    .unwrap();
    let reader = read_model.worker_reader(partition).unwrap();
    let mut stored = reader
        .prepare("SELECT next_offset FROM Checkpoint WHERE projection = 'orders'")
        .unwrap();
    for _ in 0..HOLDS {
        world.place("c", &[("A", 1, 1)]);
        world.flush();
        let end = world.end(partition);
        // Held at the very moment at which the worker has committed.
        let committed = |stored: &mut rusqlite::Statement<'_>| {
            let next: i64 = stored.query_row([], |row| row.get(0)).unwrap();
            u64::try_from(next).unwrap() == end.get()
        };
        let deadline = Instant::now() + PATIENCE;
        while !committed(&mut stored) {
            assert!(Instant::now() < deadline, "the worker does not move");
        }
        for projection in Projection::ALL {
            let _held = read_model.hold(projection);
            let told = read_model.checkpoints().load(projection, partition);
            assert_eq!(told, end, "{projection:?}");
        }
    }
    workers.stop();
}

#[test]
fn a_paused_summary_stands_still_while_orders_go_on_and_catches_up_to_the_same_rows() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector_with(&read_model, &projector_config(3));
    let old = first_half(&mut world, "c1");
    world.flush();
    projector.catch_up();
    let before = checkpoints(&read_model);

    read_model
        .set_paused(Projection::CustomerSummary, true)
        .unwrap();
    let new = first_half(&mut world, "c2");
    second_half(&mut world, old);
    second_half(&mut world, new);
    world.flush();
    projector.catch_up();

    let end = world.end(crate::PartitionId::new(0)).get();
    assert_eq!(checkpoints(&read_model), [end, before[1], end]);
    read_model
        .set_paused(Projection::CustomerSummary, false)
        .unwrap();
    projector.catch_up();
    assert_eq!(checkpoints(&read_model), [end, end, end]);
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn summaries_go_on_from_the_log_alone_while_the_orders_are_paused() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector_with(&read_model, &projector_config(2));
    read_model.set_paused(Projection::Orders, true).unwrap();
    let one = first_half(&mut world, "c1");
    world.flush();
    projector.catch_up();
    let two = first_half(&mut world, "c2");
    second_half(&mut world, one);
    second_half(&mut world, two);
    world.flush();
    projector.catch_up();
    let end = world.end(crate::PartitionId::new(0)).get();
    assert_eq!(checkpoints(&read_model), [0, end, end]);

    read_model.set_paused(Projection::Orders, false).unwrap();
    projector.catch_up();

    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
    world.assert_rows_are_the_orders(&read_model);
}

#[test]
fn a_pause_outlives_the_process_and_so_does_its_end() {
    let mut world = World::new(2);
    first_half(&mut world, "c1");
    world.flush();
    world
        .open()
        .set_paused(Projection::SkuDemand, true)
        .unwrap();

    let restarted = world.open();
    world.projector(&restarted).catch_up();

    assert!(restarted.is_paused(Projection::SkuDemand));
    assert!(!restarted.is_paused(Projection::Orders));
    for partition in world.partitions() {
        let checkpoint = restarted
            .checkpoints()
            .load(Projection::SkuDemand, partition);
        assert_eq!(checkpoint.get(), 0);
    }
    restarted.set_paused(Projection::SkuDemand, false).unwrap();
    drop(restarted);
    assert!(!world.open().is_paused(Projection::SkuDemand));
}

#[test]
fn a_pause_that_falls_between_fold_and_write_keeps_the_checkpoint_where_it_was() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    first_half(&mut world, "c1");
    world.flush();

    let pauser = Arc::clone(&read_model);
    projector.workers[0]
        .crashes
        .arm_with(CrashPoint::AfterFold, move || {
            pauser
                .set_paused(Projection::SkuDemand, true)
                .map_err(Into::into)
        });
    projector.workers[0].step().unwrap();

    let end = world.end(crate::PartitionId::new(0)).get();
    assert_eq!(checkpoints(&read_model), [end, end, 0]);
}
