//! The WAL is drained beside the workers, and starts over.

use rusqlite::Connection;

use super::world::{World, digests};
use crate::wal::{Lengths, WalDrain, look_at};
use crate::{PartitionId, ReadModel};

fn looker(read_model: &ReadModel) -> Connection {
    Connection::open(read_model.paths().remove(0)).unwrap()
}

/// Moves, and starts over, at so many pages.
fn at(pages: u64) -> Lengths {
    Lengths {
        to_move: pages,
        to_start_over: pages,
    }
}

fn place_some(world: &mut World, count: u32) {
    for number in 0..count {
        world.place(&format!("c{number}"), &[("A", 1, 10)]);
    }
    world.flush();
}

#[test]
fn a_long_wal_is_moved_into_the_file_and_the_next_transaction_starts_it_over() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    let mut drain = WalDrain::new(&read_model, at(20)).unwrap();
    place_some(&mut world, 400);
    projector.catch_up();
    let looker = looker(&read_model);
    let before = look_at(&looker).unwrap();
    assert!(before.left() >= 20, "{before:?}");

    drain.look();

    let drained = look_at(&looker).unwrap();
    assert_eq!(drained.left(), 0, "{drained:?}");
    place_some(&mut world, 1);
    projector.catch_up();
    let restarted = look_at(&looker).unwrap();
    assert!(
        restarted.written < before.written,
        "{before:?}, then {restarted:?}"
    );
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn a_wal_that_is_not_long_yet_is_moved_without_the_writer_and_goes_on() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    let lengths = Lengths {
        to_move: 20,
        to_start_over: 1_000_000,
    };
    let mut drain = WalDrain::new(&read_model, lengths).unwrap();
    place_some(&mut world, 6_000);
    projector.catch_up();
    let looker = looker(&read_model);
    let before = look_at(&looker).unwrap();
    assert!(before.left() > 300, "{before:?}");

    let writer = read_model.writer(PartitionId::new(0));
    drain.look();
    drop(writer);

    assert_eq!(look_at(&looker).unwrap().left(), 0);
}

#[test]
fn a_short_wal_is_left_alone_until_nobody_writes_any_more() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    let mut drain = WalDrain::new(&read_model, at(1_000_000)).unwrap();
    let looker = looker(&read_model);
    for _ in 0..20 {
        place_some(&mut world, 1);
        projector.catch_up();
        drain.look();
        assert!(look_at(&looker).unwrap().left() > 0);
    }

    for _ in 0..20 {
        drain.look();
    }

    assert_eq!(look_at(&looker).unwrap().left(), 0);
}

#[test]
fn a_reader_in_the_middle_of_a_read_keeps_its_rows_and_the_rest_is_drained_when_it_is_done() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    let mut drain = WalDrain::new(&read_model, at(1)).unwrap();
    place_some(&mut world, 10);
    projector.catch_up();
    let mut reader = looker(&read_model);
    let reading = reader.transaction().unwrap();
    let count = |connection: &Connection| -> i64 {
        let sql = "SELECT count(*) FROM OrderView";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&reading), 10);
    place_some(&mut world, 10);
    projector.catch_up();

    drain.look();
    assert_eq!(count(&reading), 10);
    let held = looker(&read_model);
    assert!(look_at(&held).unwrap().left() > 0);

    reading.commit().unwrap();
    place_some(&mut world, 1);
    projector.catch_up();
    drain.look();
    assert_eq!(look_at(&held).unwrap().left(), 0);
    assert_eq!(count(&held), 21);
}

#[test]
fn every_file_is_drained() {
    let mut world = World::new(3);
    let directory = tempfile::tempdir().unwrap();
    let read_model = ReadModel::open(world.config(directory.path(), 3)).unwrap();
    let mut projector = world.projector(&read_model);
    place_some(&mut world, 60);
    projector.catch_up();

    WalDrain::new(&read_model, at(1)).unwrap().look();

    for (path, partition) in read_model.paths().into_iter().zip(0..) {
        assert!(read_model.commits(PartitionId::new(partition)) > 0);
        let looker = Connection::open(path).unwrap();
        assert_eq!(look_at(&looker).unwrap().left(), 0);
    }
}
