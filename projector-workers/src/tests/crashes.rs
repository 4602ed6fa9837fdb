//! A crash at any step of a worker, then a restart: the rows are those of a worker that never crashed.

use order_domain::Command;

use super::world::{World, digests, line, pay, projector_config};
use crate::Projection;
use crate::crash::CrashPoint;
use crate::trouble::Trouble;
use crate::worker::{Step, Worker};

const P0: crate::PartitionId = crate::PartitionId::new(0);

/// More processes than it takes to apply the log with a crash in each.
const PROCESSES_MAX: u64 = 100;

/// More steps than any worker here has to take.
const STEPS_MAX: usize = 1_000;

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

/// Crashes at each point in an ordinary run; `ORDER_PROJECTOR_CRASHES` sets another number.
const CRASHES: u64 = 5;

/// What a suite came to; the mutants' table runs them too, and expects one to fail.
pub(super) type Outcome = Result<(), String>;

fn expect(condition: bool, claim: impl std::fmt::Display) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(format!("not so: {claim}"))
    }
}

/// Crashes at every point, so many times at each, every time in another batch.
fn crash(times: u64) -> Outcome {
    let world = busy_world();
    let expected = world.folded_afresh(1, u64::MAX);
    for point in POINTS {
        let mut crashes = 0;
        for records in [9, 7, 5].into_iter().cycle() {
            if crashes >= times {
                break;
            }
            let config = projector_config(records);
            let directory = tempfile::tempdir().unwrap();
            let open = || crate::ReadModel::open(world.config(directory.path(), 1)).unwrap();
            let before = crashes;
            loop {
                expect(
                    crashes - before < PROCESSES_MAX,
                    format_args!("processes that crash at {point:?} get on"),
                )?;
                // Each process crashes in its second batch: the first one of the next process resumes what was cut.
                let read_model = open();
                let mut worker = world.projector_with(&read_model, &config).workers.remove(0);
                if worker.step().unwrap() != Step::Moved {
                    break;
                }
                worker.crashes.arm(point);
                match worker.step() {
                    Err(Trouble::Halt(reason)) => {
                        assert_eq!(reason, format!("crashed at {point:?}"));
                    }
                    Ok(_) => break,
                    Err(other) => panic!("{other:?}"),
                }
                crashes += 1;
            }
            expect(
                digests(&open()) == expected,
                format_args!("after crashes at {point:?} the rows are those of no crash"),
            )?;
        }
    }
    Ok(())
}

pub(super) fn crash_at_every_point() -> Outcome {
    crash(CRASHES)
}

#[test]
fn a_crash_at_every_point_of_every_batch_leaves_the_rows_of_a_worker_that_never_crashed() {
    let times = std::env::var("ORDER_PROJECTOR_CRASHES")
        .map_or(CRASHES, |text| text.parse().expect("a number"));
    crash(times).unwrap();
    println!("{} points, {times} crashes at each", POINTS.len());
}

/// What a crash before the commit wrote is nowhere.
pub(super) fn what_a_crash_left() -> Outcome {
    let world = busy_world();
    for point in [CrashPoint::AfterRows, CrashPoint::AfterCheckpoint] {
        let directory = tempfile::tempdir().unwrap();
        let read_model = crate::ReadModel::open(world.config(directory.path(), 1)).unwrap();
        let mut worker = world.projector(&read_model).workers.remove(0);
        worker.crashes.arm(point);
        worker.step().unwrap_err();

        let mut reader = read_model.reader().unwrap();
        for projection in Projection::ALL {
            let digest = reader.digest(projection, P0).unwrap();
            expect(
                (digest.checkpoint.get(), digest.rows) == (0, 0),
                format_args!("nothing is visible after {point:?}"),
            )?;
        }
    }
    Ok(())
}

#[test]
fn what_a_crash_before_the_commit_left_behind_is_not_visible() {
    what_a_crash_left().unwrap();
}

/// Whoever hears of a checkpoint finds the rows before it.
pub(super) fn tells_what_is_there() -> Outcome {
    let world = busy_world();
    let read_model = world.open();
    for point in [
        CrashPoint::BeforeBegin,
        CrashPoint::AfterRows,
        CrashPoint::AfterCheckpoint,
    ] {
        let mut worker = world
            .projector_with(&read_model, &projector_config(9))
            .workers
            .remove(0);
        worker.crashes.arm(point);
        worker.step().unwrap_err();
        let told = read_model.checkpoints().load(Projection::Orders, P0);
        let digest = read_model
            .reader()
            .unwrap()
            .digest(Projection::Orders, P0)
            .unwrap();
        expect(
            told == digest.checkpoint,
            format_args!(
                "{told} is told at {point:?}, {} is there",
                digest.checkpoint
            ),
        )?;
    }
    Ok(())
}

#[test]
fn a_checkpoint_that_is_told_has_its_rows() {
    tells_what_is_there().unwrap();
}

/// Steps a worker until it cannot go on.
fn trouble_of(worker: &mut Worker) -> Trouble {
    for _ in 0..STEPS_MAX {
        match worker.step() {
            Ok(Step::Moved) => {}
            Ok(other) => panic!("{other:?}"),
            Err(trouble) => return trouble,
        }
    }
    panic!("no end in sight");
}

/// Two workers apply one log to one file: the second stops, and nothing is applied twice.
pub(super) fn second_worker() -> Outcome {
    let mut world = busy_world();
    let read_model = world.open();
    let mut first = world.projector(&read_model).workers.remove(0);
    // Another process: its own connections and its own idea of the checkpoint.
    let other_process = world.open();
    let mut second = world.projector(&other_process).workers.remove(0);
    first.step().unwrap();

    let mut stopped = false;
    for _ in 0..STEPS_MAX {
        match second.step() {
            Ok(Step::Moved) => {}
            Ok(_) => break,
            Err(trouble) => {
                stopped = matches!(trouble, Trouble::Halt(_));
                break;
            }
        }
    }
    expect(stopped, "the second worker halts")?;
    world.place("late", &[("A", 1, 1)]);
    world.flush();
    first.step().unwrap();
    expect(
        digests(&read_model) == world.folded_afresh(1, u64::MAX),
        "the first worker goes on, and nothing was applied twice",
    )
}

#[test]
fn a_second_worker_of_the_same_partition_is_stopped_and_the_first_goes_on() {
    second_worker().unwrap();
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
