//! Batches of several partitions in one transaction: all of them or none, and one that does not fit holds nobody back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::params;

use super::world::{World, digests};
use crate::crash::CrashPoint;
use crate::joint::Joint;
use crate::trouble::Trouble;
use crate::worker::{Step, Worker};
use crate::{PartitionId, Projection, ReadModel};

const PARTITIONS: u16 = 4;

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

const P0: PartitionId = PartitionId::new(0);

/// A world with orders in every partition, one after the other.
fn spread_world() -> World {
    let mut world = World::new(PARTITIONS);
    for number in 0..200_i64 {
        let customer = format!("c{}", number % 7);
        let id = world.place(&customer, &[("A", 1, 100 + number), ("B", 2, 5)]);
        if number % 3 == 0 {
            world.run_keyed(id, &order_domain::Command::Confirm, &format!("k{number}"));
        }
    }
    world.flush();
    world
}

/// Steps every worker on a thread of its own, in such a way that all are ready when one of them gets the writer.
fn step_together(read_model: &ReadModel, workers: Vec<Worker>) -> Vec<StepOrPanic> {
    let count = workers.len();
    let joint = Arc::clone(read_model.joint(P0));
    let writer = read_model.writer(P0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| scope.spawn(move || worker.step()))
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while joint.waiting() < count {
            assert!(Instant::now() < deadline, "the workers do not fold");
            std::thread::yield_now();
        }
        drop(writer);
        threads.into_iter().map(|thread| thread.join()).collect()
    })
}

type StepOrPanic = std::thread::Result<Result<Step, Trouble>>;

#[test]
fn what_is_ready_together_is_committed_in_one_transaction() {
    let world = spread_world();
    let read_model = world.open();

    let steps = step_together(&read_model, world.projector(&read_model).workers);

    for step in steps {
        assert_eq!(step.unwrap().unwrap(), Step::Moved);
    }
    assert_eq!(read_model.commits(P0), 1);
    for partition in world.partitions() {
        for projection in Projection::ALL {
            let told = read_model.checkpoints().load(projection, partition);
            assert_eq!(told, world.end(partition), "{projection:?} of {partition}");
        }
    }
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
    world.assert_rows_are_the_orders(&read_model);
}

#[test]
fn a_batch_that_does_not_fit_holds_back_no_other_and_is_tried_frame_by_frame() {
    let world = spread_world();
    let read_model = world.open();
    let strange = *world
        .orders
        .keys()
        .find(|id| world.partition_of(**id) == P0)
        .unwrap();
    // A row where a new order goes.
    read_model
        .writer(P0)
        .execute(
            "INSERT INTO OrderView VALUES (?1, 0, 9, 'placed', 'x', 'EUR', 0, 0, 0, 1, '[]', '{}', 0, 0, 0)",
            params![strange.to_string()],
        )
        .unwrap();

    let steps = step_together(&read_model, world.projector(&read_model).workers);

    for step in steps {
        // The one with the strange row looks again, more carefully.
        assert_eq!(step.unwrap().unwrap(), Step::Moved);
    }
    for partition in world.partitions() {
        let told = read_model.checkpoints().load(Projection::Orders, partition);
        let expected = if partition == P0 {
            crate::Offset::ZERO
        } else {
            world.end(partition)
        };
        assert_eq!(told, expected, "{partition}");
    }
    let mut projector = world.projector(&read_model);
    projector.workers[0].step().unwrap();
    projector.catch_up();
    let parked: u64 = projector
        .board
        .status()
        .iter()
        .filter(|status| status.projection == Projection::Orders)
        .map(|status| status.parked_orders)
        .sum();
    assert_eq!(parked, 1);
    let end = read_model.checkpoints().load(Projection::Orders, P0);
    assert_eq!(end, world.end(P0));
}

#[test]
fn a_worker_that_fails_while_it_commits_for_all_leaves_all_or_nothing_and_nobody_waiting() {
    let world = spread_world();
    let expected = world.folded_afresh(1, u64::MAX);
    for point in [
        CrashPoint::BeforeBegin,
        CrashPoint::AfterRows,
        CrashPoint::AfterCheckpoint,
        CrashPoint::AfterCommit,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let open = || ReadModel::open(world.config(directory.path(), 1)).unwrap();
        let read_model = open();
        let workers = world.projector(&read_model).workers;
        for worker in &workers {
            // Whichever of them commits.
            worker.crashes.arm_with(point, || panic!("a bug"));
        }

        let steps = step_together(&read_model, workers);

        let panics = steps.iter().filter(|step| step.is_err()).count();
        assert_eq!(panics, 1, "one commits for all at {point:?}");
        for step in steps.into_iter().flatten() {
            assert!(matches!(step, Err(Trouble::Halt(_))), "{step:?}");
        }
        drop(read_model);
        let restarted = open();
        let there: Vec<bool> = world
            .partitions()
            .map(|partition| {
                let next = restarted.checkpoints().load(Projection::Orders, partition);
                assert!(next == crate::Offset::ZERO || next == world.end(partition));
                next == world.end(partition)
            })
            .collect();
        let committed = point == CrashPoint::AfterCommit;
        assert_eq!(there, vec![committed; there.len()], "{point:?}");
        world.projector(&restarted).catch_up();
        assert_eq!(digests(&restarted), expected, "{point:?}");
    }
}

#[test]
fn who_lets_frames_come_together_is_called_when_another_begins_to_fold() {
    let joint = Arc::<Joint>::default();
    std::thread::scope(|scope| {
        let gatherer = scope.spawn(|| joint.gather(PATIENCE).is_some());
        let deadline = Instant::now() + PATIENCE;
        while joint.gathering() == 0 {
            assert!(Instant::now() < deadline, "it does not gather");
            std::thread::yield_now();
        }
        let begun = joint.begin();
        assert!(gatherer.join().unwrap(), "it is called");
        drop(begun);
    });
    assert!(joint.gather(Duration::from_millis(1)).is_none(), "alone");
}
