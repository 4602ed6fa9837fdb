//! Idempotency keys: found by their digest, forgotten when their time is over, in every layout alike.

use order_domain::{Command, Idempotency, OrderId};

use super::world::{TICK_MICROS, World, digests, place};
use crate::{IdempotencyRow, PartitionId, ProjectorConfig, ReadModel};

fn find(read_model: &ReadModel, key: &str, scope: Option<OrderId>) -> Option<IdempotencyRow> {
    let mut reader = read_model.reader().unwrap();
    let digest = Idempotency::digest(key, scope);
    reader.idempotency(PartitionId::new(0), digest).unwrap()
}

#[test]
fn a_key_leads_to_the_order_the_version_and_the_frame_it_made() {
    let mut world = World::new(1);
    let id = world.new_id();
    let placed = world.run_keyed(id, &place("c1", &[("A", 1, 10)]), "k1");
    let confirmed = world.run_keyed(id, &Command::Confirm, "k1");
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();

    let first = find(&read_model, "k1", None).unwrap();
    assert_eq!(
        (first.order_id, first.version.get(), first.frame),
        (id, 1, placed)
    );
    assert_eq!(first.fingerprint, Idempotency::fingerprint(&[b"k1"]));
    let second = find(&read_model, "k1", Some(id)).unwrap();
    assert_eq!(
        (second.order_id, second.version.get(), second.frame),
        (id, 2, confirmed)
    );
    assert_eq!(find(&read_model, "k2", None), None);
}

#[test]
fn a_key_of_a_frame_with_several_events_leads_to_the_version_after_the_last() {
    let mut world = World::new(1);
    let id = world.place("c1", &[("A", 1, 10)]);
    world.run(id, &Command::Confirm).unwrap();
    world.run(id, &super::world::pay(10)).unwrap();
    world.run_keyed(id, &super::world::cancel(), "cancel");
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();

    let found = find(&read_model, "cancel", Some(id)).unwrap();

    assert_eq!(found.version, world.orders[&id].order.version);
    assert_eq!(found.version.get(), 5);
}

#[test]
fn keys_past_their_retention_are_forgotten_in_small_steps_and_newer_ones_are_not() {
    let mut world = World::new(1);
    let config = ProjectorConfig {
        batch_records_max: 50,
        idempotency_retention_us: 100 * TICK_MICROS,
    };
    let read_model = world.open();
    let mut projector = world.projector_with(&read_model, &config);
    for number in 0..1_000 {
        let id = world.new_id();
        world.run_keyed(id, &place("c1", &[("A", 1, 10)]), &format!("k{number}"));
    }
    world.flush();
    projector.catch_up();

    assert!(find(&read_model, "k898", None).is_none());
    assert!(find(&read_model, "k899", None).is_some());
    assert!(find(&read_model, "k999", None).is_some());
}

#[test]
fn keys_that_wait_to_be_deleted_make_no_difference_to_the_digest() {
    let mut world = World::new(2);
    for number in 0..600 {
        let id = world.new_id();
        world.run_keyed(id, &place("c1", &[("A", 1, 10)]), &format!("k{number}"));
    }
    world.flush();
    let fold = |shards: u16, batch_records_max: u64| {
        let directory = tempfile::tempdir().unwrap();
        let config = ProjectorConfig {
            batch_records_max,
            idempotency_retention_us: 10 * TICK_MICROS,
        };
        let read_model = ReadModel::open(world.config(directory.path(), shards)).unwrap();
        world.projector_with(&read_model, &config).catch_up();
        digests(&read_model)
    };

    assert_eq!(fold(1, 1_000), fold(2, 3));
}

#[test]
fn a_key_used_again_after_it_was_forgotten_leads_to_the_later_use() {
    let mut world = World::new(1);
    let first = world.new_id();
    world.run_keyed(first, &place("c1", &[("A", 1, 10)]), "again");
    let second = world.new_id();
    let frame = world.run_keyed(second, &place("c1", &[("A", 1, 10)]), "again");
    world.flush();
    let read_model = world.open();
    world.projector(&read_model).catch_up();

    assert_eq!(find(&read_model, "again", None).unwrap().frame, frame);
}
