//! Tables made anew beside the live ones: compared, switched, kept, switched back, and never seen half-made.
//!
//! Long because every incident in which tables change places is played here, and they share how it is looked at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use order_domain::{Command, OrderId, Status};
use order_log::Offset;
use rusqlite::Connection;

use super::world::{Digests, World, cancel, digests, pay, projector_config};
use crate::{
    Action, DifferenceKind, Drift, OfflineProjections, PartitionId, Phase, Projection,
    ProjectorWorkers, ReadModel, TaskStatus,
};

/// Far more than any of these tasks takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Orders in several states, of a few customers, over all partitions.
fn busy_world(partitions: u16) -> World {
    let mut world = World::new(partitions);
    for number in 0..60_i64 {
        let id = world.place(
            &format!("c{}", number % 7),
            &[("A", 2, 100 + number), ("B", 1, 5)],
        );
        let total = world.orders[&id].order.total.minor_units();
        match number % 4 {
            0 => {
                world.run(id, &cancel()).unwrap();
            }
            1 => {
                world.run_keyed(id, &Command::Confirm, &format!("key {number}"));
            }
            2 => {
                world.run(id, &Command::Confirm).unwrap();
                world.run(id, &pay(total)).unwrap();
            }
            _ => {}
        }
    }
    world.flush();
    world
}

fn open(world: &World, shards: u16) -> Arc<ReadModel> {
    ReadModel::open(world.config(world.directory.path(), shards)).unwrap()
}

fn offline(world: &World, shards: u16) -> OfflineProjections {
    let read_model = open(world, shards);
    OfflineProjections::new(&world.log, read_model, projector_config(50)).unwrap()
}

/// Waits until the task is over.
fn ended(status: impl Fn() -> Option<TaskStatus>) -> TaskStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = status().unwrap();
        if status.phase.is_over() {
            return status;
        }
        assert!(Instant::now() < deadline, "{status:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn do_offline(world: &World, shards: u16, projection: Projection, action: Action) -> TaskStatus {
    let offline = offline(world, shards);
    offline.tasks().start(projection, action).unwrap();
    ended(|| offline.tasks().status())
}

fn connect(read_model: &ReadModel) -> Vec<Connection> {
    let paths = read_model.paths().into_iter();
    paths.map(|path| Connection::open(path).unwrap()).collect()
}

/// Changes live rows behind the projector's back; returns the order whose row it changed and the one it deleted.
fn tamper(world: &World, read_model: &ReadModel) -> (OrderId, OrderId) {
    let mut ids = world.orders.keys();
    let (changed, deleted) = (*ids.next().unwrap(), *ids.next().unwrap());
    let run = |sql: &str| -> usize {
        let connections = connect(read_model);
        let changes = connections.iter().map(|it| it.execute(sql, []).unwrap());
        changes.sum()
    };
    let update = format!(
        "UPDATE OrderView SET total = total + 1, customer_id = 'nobody' WHERE order_id = '{changed}'"
    );
    assert_eq!(run(&update), 1);
    let delete = format!("DELETE FROM OrderView WHERE order_id = '{deleted}'");
    assert_eq!(run(&delete), 1);
    (changed, deleted)
}

fn folded(world: &World, shards: u16) -> Digests {
    world.folded_afresh(shards, u64::MAX)
}

#[test]
fn a_rebuild_names_what_had_drifted_and_puts_rows_in_its_place_that_are_what_the_log_says() {
    for shards in [1, 3] {
        let world = busy_world(3);
        let read_model = open(&world, shards);
        world.projector(&read_model).catch_up();
        let (changed, deleted) = tamper(&world, &read_model);
        drop(read_model);

        let status = do_offline(&world, shards, Projection::Orders, Action::Rebuild);

        assert_eq!(status.phase, Phase::Done, "{status:?}");
        let mut findings = status.findings.unwrap();
        assert_eq!((findings.differences, findings.rows >= 60), (2, true));
        findings.first.sort_by_key(|difference| difference.order);
        let told: Vec<_> = findings
            .first
            .iter()
            .map(|it| (it.order.unwrap(), it.partition, it.offset, it.kind.clone()))
            .collect();
        let last_frame = |id| Some(world.orders[&id].last_frame);
        let columns = DifferenceKind::Columns(vec!["customer_id", "total"]);
        let expected = [
            (
                changed,
                world.partition_of(changed),
                last_frame(changed),
                columns,
            ),
            (
                deleted,
                world.partition_of(deleted),
                last_frame(deleted),
                DifferenceKind::Missing,
            ),
        ];
        assert_eq!(told, expected);
        let read_model = open(&world, shards);
        assert_eq!(digests(&read_model), folded(&world, shards));
        world.assert_rows_are_the_orders(&read_model);
        let kept = read_model.reader().unwrap().kept_tables(Projection::Orders);
        assert!(kept.is_ok_and(|kept| kept.old && !kept.unfinished));
    }
}

#[test]
fn every_projection_can_be_rebuilt_alone_and_again_once_the_old_tables_were_discarded() {
    let world = busy_world(2);
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    let before = digests(&read_model);
    drop(read_model);
    for projection in Projection::ALL {
        for round in 0..3 {
            let status = do_offline(&world, 1, projection, Action::Rebuild);
            assert_eq!(
                status.phase,
                Phase::Done,
                "{projection:?} {round}: {status:?}"
            );
            assert_eq!(status.findings.unwrap().differences, 0);
            let refused = offline(&world, 1)
                .tasks()
                .start(projection, Action::Rebuild);
            let refusal = refused.unwrap_err().to_string();
            assert!(refusal.contains("discard-old"), "{refusal}");
            let status = do_offline(&world, 1, projection, Action::DiscardOld);
            assert_eq!(status.phase, Phase::Done, "{status:?}");
        }
    }
    let read_model = open(&world, 1);
    assert_eq!(digests(&read_model), before);
    let tables: Vec<String> = connect(&read_model)[0]
        .prepare("SELECT name FROM sqlite_schema WHERE name LIKE '%\\_%' ESCAPE '\\'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert!(
        tables.iter().all(|name| name.starts_with("sqlite_")),
        "left behind: {tables:?}"
    );
}

#[test]
fn the_rebuilt_tables_are_defined_indexed_and_viewed_as_the_first_ones() {
    let world = busy_world(1);
    let definitions = |read_model: &ReadModel| -> Vec<(String, String, String)> {
        let connection = &connect(read_model)[0];
        let mut found: Vec<_> = connection
            .prepare("SELECT type, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
            .unwrap()
            .query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
            })
            .unwrap()
            .map(|row| {
                let (kind, table, sql) = row.unwrap();
                // An index keeps the number it got beside the live one's name.
                let sql = sql.replace('"', "").replace("2 ON", " ON");
                (kind, table, sql)
            })
            .collect();
        found.sort();
        found
    };
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    let before = definitions(&read_model);
    assert!(before.len() > 10, "{before:?}");
    drop(read_model);
    for projection in Projection::ALL {
        do_offline(&world, 1, projection, Action::Rebuild);
        do_offline(&world, 1, projection, Action::DiscardOld);
    }
    let read_model = open(&world, 1);
    assert_eq!(definitions(&read_model), before);
    let lines: i64 = connect(&read_model)[0]
        .query_row("SELECT count(*) FROM OrderLineView", [], |row| row.get(0))
        .unwrap();
    assert_eq!(lines, 120);
}

#[test]
fn switching_back_brings_the_old_rows_up_to_date_first() {
    let mut world = busy_world(2);
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    let (changed, _) = tamper(&world, &read_model);
    drop(read_model);
    do_offline(&world, 1, Projection::Orders, Action::Rebuild);
    let ids: Vec<OrderId> = world.orders.keys().copied().skip(2).collect();
    for id in ids {
        if world.orders[&id].order.status == Status::Placed {
            world.run(id, &cancel()).unwrap();
        }
    }
    world.place("new", &[("A", 1, 1)]);
    world.flush();
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    world.assert_rows_are_the_orders(&read_model);
    drop(read_model);

    let status = do_offline(&world, 1, Projection::Orders, Action::SwitchBack);

    assert_eq!(status.phase, Phase::Done, "{status:?}");
    // What had been tampered with is back, and nothing else differs.
    assert_eq!(status.findings.unwrap().differences, 2);
    let read_model = open(&world, 1);
    let mut reader = read_model.reader().unwrap();
    for (id, known) in &world.orders {
        let row = reader.order(world.partition_of(*id), *id).unwrap();
        let is_right = row.is_some_and(|row| row.to_order().is_ok_and(|it| it == known.order));
        let tampered = world.orders.keys().take(2).any(|it| it == id);
        assert_eq!(is_right, !tampered, "{id} {changed}");
    }
    drop((reader, read_model));
    // Forth again.
    let status = do_offline(&world, 1, Projection::Orders, Action::SwitchBack);
    assert_eq!(status.phase, Phase::Done, "{status:?}");
    assert_eq!(digests(&open(&world, 1)), folded(&world, 1));
    let refused = offline(&world, 1)
        .tasks()
        .start(Projection::SkuDemand, Action::SwitchBack);
    assert!(refused.unwrap_err().to_string().contains("no old tables"));
}

#[test]
fn a_rebuild_that_was_stopped_anywhere_leaves_the_live_rows_and_the_next_one_begins_anew() {
    let world = busy_world(2);
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    let before = digests(&read_model);
    drop(read_model);
    for stop_at in [Phase::Folding, Phase::Comparing, Phase::Switching] {
        let offline = offline(&world, 1);
        offline
            .tasks()
            .start_until(Projection::Orders, Action::Rebuild, stop_at)
            .unwrap();
        let status = ended(|| offline.tasks().status());
        assert_eq!(status.phase, Phase::Stopped, "{status:?}");
        drop(offline);
        let read_model = open(&world, 1);
        assert_eq!(digests(&read_model), before, "{stop_at:?}");
        let kept = read_model.reader().unwrap().kept_tables(Projection::Orders);
        assert!(
            kept.is_ok_and(|kept| kept.unfinished && !kept.old),
            "{stop_at:?}"
        );
    }
    let status = do_offline(&world, 1, Projection::Orders, Action::Rebuild);
    assert_eq!(status.phase, Phase::Done, "{status:?}");
    assert_eq!(status.findings.unwrap().differences, 0);
    assert_eq!(digests(&open(&world, 1)), before);
}

struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn readers_see_every_order_at_every_moment_while_tables_are_switched_to_and_fro_under_load() {
    let mut world = busy_world(2);
    let read_model = open(&world, 2);
    let registry = prometheus::Registry::new();
    let workers = ProjectorWorkers::start(
        &world.log,
        Arc::clone(&read_model),
        projector_config(100),
        &registry,
    )
    .unwrap();
    let partitions: Vec<PartitionId> = world.partitions().collect();
    wait_until(|| {
        partitions
            .iter()
            .all(|at| is_caught_up(&world, &read_model, *at))
    });
    let known: Vec<(PartitionId, OrderId)> = world
        .orders
        .keys()
        .map(|id| (world.partition_of(*id), *id))
        .collect();
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let rounds = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = read_model.reader().unwrap();
            let mut versions = vec![0; known.len()];
            while !done.load(Ordering::SeqCst) {
                for (row, seen) in reader.orders(&known).unwrap().iter().zip(&mut versions) {
                    let version = row.as_ref().expect("an order is never missing").version;
                    assert!(
                        version.get() >= *seen,
                        "an order is never older than before"
                    );
                    *seen = version.get();
                }
                reads.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Also when something below fails: the scope waits for the reader.
        let _done = SetWhenDropped(&done);
        let mut rounds = 0;
        for action in [
            Action::Rebuild,
            Action::SwitchBack,
            Action::Reindex,
            Action::DiscardOld,
            Action::Rebuild,
        ] {
            for projection in Projection::ALL {
                workers.tasks().start(projection, action).unwrap();
                while !workers.tasks().status().unwrap().phase.is_over() {
                    world.place("busy", &[("A", 1, 1)]);
                    world.flush();
                }
                let status = workers.tasks().status().unwrap();
                assert_eq!(status.phase, Phase::Done, "{status:?}");
                let differences = status.findings.map_or(0, |findings| findings.differences);
                assert_eq!(differences, 0, "{projection:?} {action:?}");
                rounds += 1;
            }
        }
        wait_until(|| reads.load(Ordering::SeqCst) > 0);
        rounds
    });
    assert_eq!(rounds, 15);
    wait_until(|| {
        partitions
            .iter()
            .all(|at| is_caught_up(&world, &read_model, *at))
    });
    assert!(
        workers
            .status()
            .iter()
            .all(|status| status.halted.is_none())
    );
    workers.stop();
    assert_eq!(digests(&read_model), folded(&world, 2));
    world.assert_rows_are_the_orders(&read_model);
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_caught_up(world: &World, read_model: &ReadModel, partition: PartitionId) -> bool {
    let end = world.end(partition);
    Projection::ALL
        .iter()
        .all(|projection| read_model.checkpoints().load(*projection, partition) >= end)
}

#[test]
fn a_checkpoint_past_the_end_of_the_log_halts_the_projector_until_its_tables_are_rebuilt() {
    let world = busy_world(1);
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    connect(&read_model)[0]
        .execute("UPDATE Checkpoint SET next_offset = next_offset + 5", [])
        .unwrap();
    drop(read_model);
    let read_model = open(&world, 1);
    let registry = prometheus::Registry::new();
    let workers = ProjectorWorkers::start(
        &world.log,
        Arc::clone(&read_model),
        projector_config(100),
        &registry,
    )
    .unwrap();
    let halted = || workers.status()[0].halted.clone();
    wait_until(|| halted().is_some());
    let reason = halted().unwrap();
    assert!(reason.contains("the log ends at"), "{reason}");
    assert!(reason.contains("projections rebuild orders"), "{reason}");
    assert!(workers.redrive(Projection::Orders).is_err());

    for projection in Projection::ALL {
        workers.tasks().start(projection, Action::Rebuild).unwrap();
        let status = ended(|| workers.tasks().status());
        assert_eq!(status.phase, Phase::Done, "{status:?}");
    }

    wait_until(|| halted().is_none());
    assert!(is_caught_up(&world, &read_model, PartitionId::new(0)));
    let next = read_model
        .checkpoints()
        .load(Projection::Orders, PartitionId::new(0));
    assert_eq!(next, world.end(PartitionId::new(0)));
    workers.stop();
    assert_eq!(digests(&read_model), folded(&world, 1));
}

#[test]
fn a_rebuild_parks_again_what_still_cannot_be_applied_and_takes_up_what_can() {
    let mut world = busy_world(1);
    let poisoned = world.place("c1", &[("A", 1, 10)]);
    world.append_undecodable(poisoned);
    world.flush();
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    // As if an earlier version had not been able to apply the last event of another order.
    let mended = *world.orders.keys().find(|id| **id != poisoned).unwrap();
    let frame = world.orders[&mended].last_frame;
    connect(&read_model)[0]
        .execute(
            "INSERT INTO ParkedEvent VALUES ('orders', 0, ?1, ?2, 1, 'by an earlier version')",
            (mended.to_string(), i64::try_from(frame.get()).unwrap()),
        )
        .unwrap();
    drop(read_model);

    let status = do_offline(&world, 1, Projection::Orders, Action::Rebuild);

    let findings = status.findings.unwrap();
    assert_eq!(findings.differences, 1, "{findings:?}");
    let unexpected = &findings.first[0];
    assert_eq!(
        (unexpected.table, unexpected.order, &unexpected.kind),
        ("ParkedEvent", Some(mended), &DifferenceKind::Unexpected)
    );
    let read_model = open(&world, 1);
    let parked = read_model
        .reader()
        .unwrap()
        .parked(Projection::Orders, None, 10)
        .unwrap();
    let ids: Vec<_> = parked.iter().map(|order| order.id).collect();
    assert_eq!(ids, [poisoned]);
}

#[test]
fn a_paused_projection_is_rebuilt_to_where_it_stands_and_stays_paused() {
    let mut world = busy_world(1);
    let read_model = open(&world, 1);
    world.projector(&read_model).catch_up();
    read_model.set_paused(Projection::SkuDemand, true).unwrap();
    let stood_at = world.end(PartitionId::new(0));
    world.place("later", &[("A", 1, 1)]);
    world.flush();
    drop(read_model);

    let status = do_offline(&world, 1, Projection::SkuDemand, Action::Rebuild);

    assert_eq!(status.findings.unwrap().differences, 0);
    let read_model = open(&world, 1);
    assert!(read_model.is_paused(Projection::SkuDemand));
    let checkpoint = read_model
        .checkpoints()
        .load(Projection::SkuDemand, PartitionId::new(0));
    assert_eq!(checkpoint, stood_at);
}

#[test]
fn the_drift_proof_finds_nothing_where_nothing_drifted_and_names_every_row_that_did() {
    for shards in [1, 2] {
        let mut world = busy_world(2);
        let read_model = open(&world, shards);
        let mut projector = world.projector(&read_model);
        projector.catch_up();
        let prove = |world: &World| {
            let scratch = tempfile::tempdir().unwrap();
            let live = world.config(world.directory.path(), shards);
            let mut drift = Drift::new(&live, scratch.path(), projector_config(50)).unwrap();
            let mut go_on = |_, _| std::ops::ControlFlow::Continue(());
            drift.fold(&world.log, &mut go_on).unwrap();
            drift.take_snapshot().unwrap();
            drift.fold(&world.log, &mut go_on).unwrap();
            let mut found = Vec::new();
            for projection in Projection::ALL {
                let rows = drift
                    .compare(
                        projection,
                        &mut |difference| found.push(difference),
                        &mut |_| std::ops::ControlFlow::Continue(()),
                    )
                    .unwrap();
                assert!(rows > 0, "{projection:?}");
            }
            (found, drift.past_the_end())
        };
        assert_eq!(prove(&world), (Vec::new(), Vec::new()));
        // A live model that is behind the log has not drifted.
        world.place("c1", &[("A", 1, 10)]);
        world.flush();
        assert_eq!(prove(&world), (Vec::new(), Vec::new()));
        projector.catch_up();

        let (changed, deleted) = tamper(&world, &read_model);
        let sums =
            "UPDATE SkuDemandByPartition SET units_ordered = 0 WHERE sku = 'B' AND partition = 1";
        let changes = connect(&read_model)
            .iter()
            .map(|it| it.execute(sums, []).unwrap())
            .sum::<usize>();
        assert_eq!(changes, 1);
        let (mut found, _) = prove(&world);
        found.sort_by_key(|difference| (difference.projection, difference.order));
        let told: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                format!(
                    "OrderView {changed}: partition {}, offset {}: customer_id, total differ",
                    world.partition_of(changed),
                    world.orders[&changed].last_frame
                ),
                format!(
                    "OrderView {deleted}: partition {}, offset {}: the row is missing",
                    world.partition_of(deleted),
                    world.orders[&deleted].last_frame
                ),
                "SkuDemandByPartition B: partition 1: units_ordered differ".to_owned(),
            ]
        );

        connect(&read_model)
            .iter()
            .for_each(|it| {
                it.execute("UPDATE Checkpoint SET next_offset = next_offset + 1 WHERE partition = 0 AND projection = 'orders'", [])
                    .unwrap();
            });
        let (_, past) = prove(&world);
        let end: Offset = world.end(PartitionId::new(0));
        assert_eq!(
            past,
            [(Projection::Orders, PartitionId::new(0), end.plus(1), end)]
        );
    }
}
