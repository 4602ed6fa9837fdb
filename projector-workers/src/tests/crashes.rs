//! A crash at any step of a worker, then a restart: the rows are those of a worker that never crashed.

use order_domain::Command;

use super::world::{World, digests, line, pay, projector_config};
use crate::Projection;
use crate::crash::CrashPoint;
use crate::trouble::Trouble;
use crate::worker::{Step, Worker};

const POINTS: [CrashPoint; 5] = [
    CrashPoint::AfterFold,
    CrashPoint::BeforeBegin,
    CrashPoint::AfterRows,
    CrashPoint::AfterCheckpoint,
    CrashPoint::AfterCommit,
];

/// A world whose second half changes orders of the first.
fn busy_world() -> World {
    let mut world = World::new(1);
    for number in 0..20_i64 {
        let id = world.place(
            &format!("c{}", number % 3),
            &[("A", 2, 100 + number), ("B", 1, 5)],
        );
        if number % 2 == 0 {
            world.run_keyed(
                id,
                &Command::AddLine(line("C", 1, 7)),
                &format!("key {number}"),
            );
        }
    }
    let ids: Vec<_> = world.orders.keys().copied().collect();
    for id in ids {
        let total = world.orders[&id].order.total.minor_units();
        world.run(id, &Command::Confirm).unwrap();
        world.run(id, &pay(total)).unwrap();
    }
    world.flush();
    world
}

#[test]
fn a_crash_at_every_point_of_every_batch_leaves_the_rows_of_a_worker_that_never_crashed() {
    let world = busy_world();
    let expected = world.folded_afresh(1, u64::MAX);
    let config = projector_config(9);
    for point in POINTS {
        let directory = tempfile::tempdir().unwrap();
        let open = || crate::ReadModel::open(world.config(directory.path(), 1)).unwrap();
        let mut crashes = 0;
        loop {
            // Each process crashes in its second batch: the first one of the next process resumes what was cut.
            let read_model = open();
            let mut worker = world.projector_with(&read_model, &config).workers.remove(0);
            if worker.step().unwrap() != Step::Moved {
                break;
            }
            worker.crashes.arm(point);
            match worker.step() {
                Err(Trouble::Halt(reason)) => assert_eq!(reason, format!("crashed at {point:?}")),
                Ok(_) => break,
                Err(other) => panic!("{other:?}"),
            }
            crashes += 1;
        }
        assert!(crashes >= 4, "{point:?}: {crashes} crashes");
        assert_eq!(digests(&open()), expected, "{point:?}");
    }
}

#[test]
fn what_a_crash_before_the_commit_left_behind_is_not_visible() {
    let world = busy_world();
    for point in [CrashPoint::AfterRows, CrashPoint::AfterCheckpoint] {
        let directory = tempfile::tempdir().unwrap();
        let read_model = crate::ReadModel::open(world.config(directory.path(), 1)).unwrap();
        let mut worker = world.projector(&read_model).workers.remove(0);
        worker.crashes.arm(point);
        worker.step().unwrap_err();

        let mut reader = read_model.reader().unwrap();
        let partition = crate::PartitionId::new(0);
        for projection in Projection::ALL {
            let digest = reader.digest(projection, partition).unwrap();
            assert_eq!((digest.checkpoint.get(), digest.rows), (0, 0), "{point:?}");
        }
    }
}

/// Steps a worker until it cannot go on.
fn trouble_of(worker: &mut Worker) -> Trouble {
    for _ in 0..1_000 {
        match worker.step() {
            Ok(Step::Moved) => {}
            Ok(other) => panic!("{other:?}"),
            Err(trouble) => return trouble,
        }
    }
    panic!("no end in sight");
}

#[test]
fn a_second_worker_of_the_same_partition_is_stopped_and_the_first_goes_on() {
    let mut world = busy_world();
    let read_model = world.open();
    let mut first = world.projector(&read_model).workers.remove(0);
    // Another process: its own connections and its own idea of the checkpoint.
    let other_process = world.open();
    let mut second = world.projector(&other_process).workers.remove(0);
    first.step().unwrap();

    let trouble = trouble_of(&mut second);

    assert!(matches!(trouble, Trouble::Halt(_)), "{trouble:?}");
    world.place("late", &[("A", 1, 1)]);
    world.flush();
    first.step().unwrap();
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn a_worker_whose_checkpoint_is_old_parks_nothing_says_why_and_halts() {
    let mut world = World::new(1);
    let id = world.place("c", &[("A", 1, 1)]);
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let other_process = world.open();
    world.run(id, &Command::Confirm).unwrap();
    world.flush();
    world.projector(&read_model).catch_up();

    let trouble = trouble_of(&mut world.projector(&other_process).workers[0]);

    let Trouble::Halt(reason) = trouble else {
        panic!("{trouble:?}");
    };
    assert!(reason.contains("another process"), "{reason}");
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
    let parked: i64 = read_model
        .writer(crate::PartitionId::new(0))
        .query_row("SELECT count(*) FROM ParkedEvent", [], |row| row.get(0))
        .unwrap();
    assert_eq!(parked, 0);
}
