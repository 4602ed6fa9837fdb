//! The metrics, by the names of the runbook, and the workers on their threads.

use std::sync::Arc;
use std::time::Duration;

use order_domain::Command;
use prometheus::{Encoder, Registry, TextEncoder};

use super::world::{World, digests, projector_config};
use crate::{PartitionId, Projection, ProjectorWorkers, ReadModel, ReadModelError};

fn scrape(registry: &Registry) -> String {
    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .unwrap();
    String::from_utf8(text).unwrap()
}

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.trim().parse().unwrap()
}

fn start(world: &World, read_model: &Arc<ReadModel>, registry: &Registry) -> Arc<ProjectorWorkers> {
    let config = projector_config(1_000);
    ProjectorWorkers::start(&world.log, Arc::clone(read_model), config, registry).unwrap()
}

fn wait_until_caught_up(world: &World, read_model: &ReadModel) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    for partition in world.partitions() {
        for projection in Projection::ALL {
            let reached = runtime.block_on(read_model.checkpoints().wait_for(
                projection,
                partition,
                world.end(partition),
                Duration::from_secs(60),
            ));
            assert!(reached, "{projection:?} {partition}");
        }
    }
}

#[test]
fn every_known_series_is_there_before_anything_happened_and_starts_at_0() {
    let world = World::new(2);
    let read_model = world.open();
    let registry = Registry::new();
    let workers = start(&world, &read_model, &registry);
    let text = scrape(&registry);
    for projection in ["orders", "customer_summary", "sku_demand"] {
        for partition in 0..2 {
            // The text format sorts labels by name.
            let labels = format!("{{partition=\"{partition}\",projection=\"{projection}\"}}");
            for name in [
                "projector_event_lag_seconds",
                "projector_lag_events",
                "projector_checkpoint_offset",
                "projector_paused",
                "projector_parked_orders",
                "projector_errors_total",
            ] {
                assert_eq!(
                    value(&text, &format!("{name}{labels}")),
                    0.0,
                    "{name}{labels}"
                );
            }
        }
    }
    assert_eq!(value(&text, "sqlite_busy_total{file=\"read.db\"}"), 0.0);
    assert_eq!(
        value(&text, "projector_apply_seconds_count{partition=\"1\"}"),
        0.0
    );
    assert_eq!(
        value(&text, "projector_batch_size_count{partition=\"0\"}"),
        0.0
    );
    assert!(text.contains("sqlite_wal_bytes{file=\"read.db\"}"));
    workers.stop();
}

#[test]
fn lag_is_the_age_of_the_oldest_event_not_applied_and_0_when_there_is_none() {
    let mut world = World::new(1);
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    world.place("c1", &[("A", 1, 10)]);
    world.place("c1", &[("A", 1, 10)]);
    world.flush();
    let oldest = super::world::FIRST_MICROS;
    let labels = "{partition=\"0\",projection=\"orders\"}";

    let text = scrape(&projector.registry);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let age = now - Duration::from_micros(oldest).as_secs_f64();
    let lag = value(&text, &format!("projector_event_lag_seconds{labels}"));
    assert!((lag - age).abs() < 60.0, "{lag} is not about {age}");
    assert_eq!(value(&text, &format!("projector_lag_events{labels}")), 2.0);

    projector.catch_up();
    let text = scrape(&projector.registry);
    assert_eq!(
        value(&text, &format!("projector_event_lag_seconds{labels}")),
        0.0
    );
    assert_eq!(
        value(&text, &format!("projector_checkpoint_offset{labels}")),
        2.0
    );
    assert_eq!(
        value(&text, "projector_batch_size_sum{partition=\"0\"}"),
        2.0
    );
}

#[test]
fn workers_on_their_threads_apply_what_is_appended_while_they_run() {
    let mut world = World::new(3);
    let read_model = world.open();
    let workers = start(&world, &read_model, &Registry::new());
    for round in 0..30 {
        let id = world.place(&format!("c{round}"), &[("A", 1, 10)]);
        world.flush();
        world.run(id, &Command::Confirm).unwrap();
        world.flush();
    }
    wait_until_caught_up(&world, &read_model);
    world.assert_rows_are_the_orders(&read_model);
    for status in workers.status() {
        assert_eq!(status.checkpoint, status.end);
        assert_eq!((status.lag_seconds, status.halted), (0.0, None));
        assert!(workers.lag_seconds(status.projection, status.partition) < f64::EPSILON);
    }
    workers.stop();
    drop(workers);
    assert_eq!(digests(&read_model), world.folded_afresh(3, 4));
}

#[test]
fn a_pause_through_the_door_stops_one_projection_and_a_resume_lets_it_catch_up() {
    let mut world = World::new(2);
    let read_model = world.open();
    let registry = Registry::new();
    let workers = start(&world, &read_model, &registry);
    workers.pause(Projection::CustomerSummary).unwrap();
    for round in 0..10 {
        world.place(&format!("c{round}"), &[("A", 1, 10)]);
    }
    world.flush();
    let paused = "projector_paused{partition=\"0\",projection=\"customer_summary\"}";
    assert_eq!(value(&scrape(&registry), paused), 1.0);

    workers.resume(Projection::CustomerSummary).unwrap();
    wait_until_caught_up(&world, &read_model);

    assert_eq!(value(&scrape(&registry), paused), 0.0);
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn one_halted_partition_says_why_lags_and_lets_the_others_go_on() {
    let mut world = World::new(2);
    let read_model = world.open();
    read_model
        .writer(PartitionId::new(0))
        .execute(
            "UPDATE Checkpoint SET next_offset = 99 WHERE partition = 0",
            [],
        )
        .unwrap();
    drop(read_model);
    let read_model = world.open();
    let registry = Registry::new();
    let workers = start(&world, &read_model, &registry);
    let id = loop {
        let id = world.place("c1", &[("A", 1, 10)]);
        if world.partition_of(id).get() == 1 {
            break id;
        }
    };
    world.flush();

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let other = PartitionId::new(1);
    let end = world.end(other);
    let wait = |projection, partition, offset, timeout| {
        let checkpoints = Arc::clone(read_model.checkpoints());
        runtime.block_on(async move {
            checkpoints
                .wait_for(projection, partition, offset, timeout)
                .await
        })
    };
    assert!(wait(
        Projection::Orders,
        other,
        end,
        Duration::from_secs(60)
    ));
    let mut reader = read_model.reader().unwrap();
    assert!(reader.order(other, id).unwrap().is_some());
    assert!(!wait(
        Projection::Orders,
        PartitionId::new(0),
        crate::Offset::new(100),
        Duration::from_millis(1)
    ));

    let refused = workers.redrive(Projection::Orders);
    assert!(
        matches!(refused, Err(ReadModelError::Halted { .. })),
        "{refused:?}"
    );
    let halted: Vec<_> = workers
        .status()
        .into_iter()
        .filter(|status| status.halted.is_some())
        .collect();
    assert_eq!(halted.len(), 3);
    for status in &halted {
        assert_eq!(status.partition.get(), 0);
        assert!(status.halted.as_ref().unwrap().contains("the log ends at"));
        assert!(status.lag_seconds > 0.0);
    }
    let lag = "projector_event_lag_seconds{partition=\"0\",projection=\"orders\"}";
    assert!(value(&scrape(&registry), lag) > 0.0);
}

#[test]
fn redrive_through_the_door_asks_every_partition() {
    let mut world = World::new(2);
    let id = world.place("c1", &[("A", 1, 10)]);
    world.append_undecodable(id);
    world.flush();
    let read_model = world.open();
    let registry = Registry::new();
    let workers = start(&world, &read_model, &registry);
    wait_until_caught_up(&world, &read_model);

    let redriven = workers.redrive(Projection::SkuDemand).unwrap();

    assert_eq!((redriven.applied_frames, redriven.parked_orders), (0, 1));
    let partition = world.partition_of(id);
    let errors =
        format!("projector_errors_total{{partition=\"{partition}\",projection=\"sku_demand\"}}");
    assert_eq!(value(&scrape(&registry), &errors), 2.0);
}
