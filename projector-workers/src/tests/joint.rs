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

/// Steps every worker on a thread of its own, in such a way that all are ready when one of them gets the writer, after
/// something happened meanwhile.
fn step_together(
    read_model: &ReadModel,
    workers: &mut [Worker],
    meanwhile: impl FnOnce(),
) -> Vec<Result<Step, Trouble>> {
    let count = workers.len();
    let joint = Arc::clone(read_model.joint(P0));
    let writer = read_model.writer(P0);
    let steps = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .iter_mut()
            .map(|worker| scope.spawn(move || worker.step()))
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while joint.waiting() < count {
            assert!(Instant::now() < deadline, "the workers do not fold");
            std::thread::yield_now();
        }
        meanwhile();
        drop(writer);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(joint.folding(), 0, "nobody is waited for any more");
    steps
}

#[test]
fn what_is_ready_together_is_committed_in_one_transaction() {
    let world = spread_world();
    let read_model = world.open();

    let steps = step_together(
        &read_model,
        &mut world.projector(&read_model).workers,
        || {},
    );

    for step in steps {
        assert_eq!(step.unwrap(), Step::Moved);
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

    let steps = step_together(
        &read_model,
        &mut world.projector(&read_model).workers,
        || {},
    );

    for step in steps {
        // The one with the strange row looks again, more carefully.
        assert_eq!(step.unwrap(), Step::Moved);
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
fn a_crash_while_one_commits_for_all_leaves_all_or_nothing() {
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
        let mut projector = world.projector(&read_model);
        for worker in &projector.workers {
            // Whichever of them commits, and whatever it tries then.
            worker.crashes.arm_for_good(point);
        }

        let steps = step_together(&read_model, &mut projector.workers, || {});

        for step in steps {
            assert!(matches!(step, Err(Trouble::Halt(_))), "{step:?}");
        }
        drop((projector, read_model));
        let restarted = open();
        let committed = point == CrashPoint::AfterCommit;
        for partition in world.partitions() {
            let next = restarted.checkpoints().load(Projection::Orders, partition);
            let there = next == world.end(partition);
            assert!(there || next == crate::Offset::ZERO, "{next}");
            assert_eq!(there, committed, "{partition} at {point:?}");
        }
        world.projector(&restarted).catch_up();
        assert_eq!(digests(&restarted), expected, "{point:?}");
    }
}

#[test]
fn a_bug_that_shows_while_one_commits_for_all_takes_nobody_with_it() {
    let world = spread_world();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    for worker in &projector.workers {
        worker
            .crashes
            .arm_with(CrashPoint::AfterRows, || panic!("a bug"));
    }

    let steps = step_together(&read_model, &mut projector.workers, || {});

    for step in steps {
        assert_eq!(step.unwrap(), Step::Moved);
    }
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn a_pause_that_falls_between_fold_and_commit_keeps_every_checkpoint_where_it_was() {
    let world = spread_world();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);

    let steps = step_together(&read_model, &mut projector.workers, || {
        read_model.note_paused(Projection::SkuDemand, true);
    });

    assert!(steps.into_iter().all(|step| step.unwrap() == Step::Moved));
    for partition in world.partitions() {
        let told = |projection| read_model.checkpoints().load(projection, partition);
        assert_eq!(told(Projection::Orders), world.end(partition));
        assert_eq!(told(Projection::CustomerSummary), world.end(partition));
        assert_eq!(told(Projection::SkuDemand), crate::Offset::ZERO);
    }
    read_model.note_paused(Projection::SkuDemand, false);
    projector.catch_up();
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn what_was_folded_before_a_switch_of_tables_is_folded_again() {
    let world = spread_world();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);

    let steps = step_together(&read_model, &mut projector.workers, || {
        read_model.count_switch(Projection::Orders);
    });

    assert!(steps.into_iter().all(|step| step.is_ok()));
    assert_eq!(read_model.commits(P0), 0);
    for partition in world.partitions() {
        let told = read_model.checkpoints().load(Projection::Orders, partition);
        assert_eq!(told, crate::Offset::ZERO);
    }
    projector.catch_up();
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn who_lets_frames_come_together_is_called_when_another_begins_to_fold() {
    let joint = Arc::<Joint>::default();
    std::thread::scope(|scope| {
        let gatherer = scope.spawn(|| joint.gather(PATIENCE));
        let deadline = Instant::now() + PATIENCE;
        while joint.gathering() == 0 {
            assert!(Instant::now() < deadline, "it does not gather");
            std::thread::yield_now();
        }
        drop(joint.begin(false));
        assert_eq!(joint.gathering(), 1, "a lone event calls nobody");
        let begun = joint.begin(true);
        let called = gatherer.join().unwrap();
        assert!(called.is_some());
        assert_eq!(joint.folding(), 2, "it is waited for as for the other");
        drop((begun, called));
        assert_eq!(joint.folding(), 0);
    });
    assert!(joint.gather(Duration::from_millis(1)).is_none(), "alone");
}
