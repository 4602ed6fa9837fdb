//! Files: made, found again, refused if they are somebody else's, set aside if they are damaged, rebuilt if they are gone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command as Program;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;

use order_domain::Command;
use rusqlite::Connection;

use super::world::{World, digests};
use crate::{PartitionId, ReadModel, ReadModelError};

fn small_world() -> World {
    let mut world = World::new(4);
    for number in 0..12 {
        let id = world.place(&format!("c{number}"), &[("A", 1, 10)]);
        world.run(id, &Command::Confirm).unwrap();
    }
    world.flush();
    world
}

fn refusal(opened: Result<std::sync::Arc<ReadModel>, ReadModelError>) -> String {
    match opened {
        Err(error @ ReadModelError::Incompatible { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_shard_is_read_db_and_more_are_numbered_and_nobody_else_may_read_them() {
    let world = World::new(4);
    for (shards, names) in [
        (1, vec!["read.db"]),
        (3, vec!["read-000.db", "read-001.db", "read-002.db"]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let read_model = ReadModel::open(world.config(directory.path(), shards)).unwrap();
        let paths = read_model.paths();
        let found: Vec<_> = paths.iter().map(|path| path.file_name().unwrap()).collect();
        assert_eq!(found, names);
        for entry in fs::read_dir(directory.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
        }
        assert_eq!(read_model.shard_of(PartitionId::new(3)), 3 % shards);
    }
}

#[test]
fn a_file_of_another_log_shard_count_partition_count_or_layout_is_refused_with_what_to_do() {
    let world = World::new(4);
    let directory = tempfile::tempdir().unwrap();
    let config = world.config(directory.path(), 1);
    drop(ReadModel::open(config.clone()).unwrap());

    let mut other = config.clone();
    other.log_id = "somebody else's".to_owned();
    let message = refusal(ReadModel::open(other));
    assert!(
        message.contains("log_id") && message.contains("delete"),
        "{message}"
    );

    let mut other = config.clone();
    other.partitions = 8;
    let message = refusal(ReadModel::open(other));
    assert!(message.contains("partitions 4, not 8"), "{message}");

    let mut other = config.clone();
    other.shards = 2;
    let message = refusal(ReadModel::open(other));
    assert!(message.contains("--read-model-shards 1"), "{message}");

    let connection = Connection::open(directory.path().join("read.db")).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    let message = refusal(ReadModel::open(config.clone()));
    assert!(
        message.contains("layout 99") && message.contains("delete it"),
        "{message}"
    );

    connection.pragma_update(None, "application_id", 1).unwrap();
    let message = refusal(ReadModel::open(config));
    assert!(message.contains("no read model"), "{message}");
}

#[test]
fn more_shards_than_partitions_are_refused() {
    let world = World::new(2);
    let directory = tempfile::tempdir().unwrap();
    let message = refusal(ReadModel::open(world.config(directory.path(), 3)));
    assert!(message.contains("use 1 to 2"), "{message}");
}

#[test]
fn missing_files_are_made_anew_and_rebuilt_from_the_log() {
    let world = small_world();
    let config = world.config(world.directory.path(), 2);
    let read_model = ReadModel::open(config.clone()).unwrap();
    world.projector(&read_model).catch_up();
    let before = digests(&read_model);
    let lost = read_model.paths().remove(1);
    drop(read_model);
    fs::remove_file(lost).unwrap();

    let read_model = ReadModel::open(config).unwrap();
    assert_ne!(digests(&read_model), before);
    world.projector(&read_model).catch_up();

    assert_eq!(digests(&read_model), before);
}

#[test]
fn a_file_that_is_no_database_is_set_aside_each_time_and_rebuilt() {
    let world = small_world();
    let expected = world.folded_afresh(1, u64::MAX);
    let path = world.directory.path().join("read.db");
    for time in 1..=2 {
        drop(world.open());
        fs::write(&path, vec![0xa5; 20_000]).unwrap();

        let read_model = world.open();
        world.projector(&read_model).catch_up();

        assert_eq!(digests(&read_model), expected);
        let aside = world
            .directory
            .path()
            .join(format!("read.db.corrupt-{time}"));
        assert_eq!(fs::read(aside).unwrap(), vec![0xa5; 20_000]);
    }
}

#[test]
fn damage_found_while_running_halts_the_worker_and_the_next_start_rebuilds() {
    let mut world = small_world();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    drop(read_model);
    let path = world.directory.path().join("read.db");
    let root: u16 = Connection::open(&path)
        .unwrap()
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'OrderView'",
            [],
            |row| row.get::<_, u16>(0),
        )
        .unwrap();
    let root = usize::from(root);
    let mut bytes = fs::read(&path).unwrap();
    bytes[(root - 1) * 4096..root * 4096].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    let id = world.place("late", &[("A", 1, 1)]);
    world.flush();

    let read_model = world.open();
    let stop = AtomicBool::new(false);
    let (_sender, requests) = channel();
    let mut projector = world.projector(&read_model);
    let worker = &mut projector.workers[world.partition_of(id).index()];
    let halted = worker.work(&requests, &stop).unwrap_err();
    assert!(halted.contains("restart the service"), "{halted}");
    drop((projector, read_model));
    let read_model = world.open();
    world.projector(&read_model).catch_up();

    assert!(world.directory.path().join("read.db.corrupt-1").exists());
    world.assert_rows_are_the_orders(&read_model);
    assert_eq!(digests(&read_model), world.folded_afresh(1, u64::MAX));
}

#[test]
fn a_checkpoint_past_the_end_of_the_log_halts_and_moves_nothing() {
    let world = small_world();
    let read_model = world.open();
    let mut projector = world.projector(&read_model);
    projector.catch_up();
    let partition = PartitionId::new(0);
    let beyond = world.end(partition).plus(10);
    let connection = Connection::open(world.directory.path().join("read.db")).unwrap();
    connection
        .execute(
            "UPDATE Checkpoint SET next_offset = ?1 WHERE projection = 'sku_demand' AND partition = 0",
            [beyond.get().cast_signed()],
        )
        .unwrap();

    let restarted = world.open();
    let mut projector = world.projector(&restarted);
    let stop = AtomicBool::new(false);
    let (_sender, requests) = channel();
    let halted = projector.workers[0].work(&requests, &stop).unwrap_err();

    assert!(halted.contains("the log lost records"), "{halted}");
    let checkpoint = restarted
        .checkpoints()
        .load(crate::Projection::SkuDemand, partition);
    assert_eq!(checkpoint, beyond);
}

#[test]
fn the_runbooks_statements_work_with_the_sqlite3_program_on_a_live_file() {
    let world = small_world();
    let read_model = world.open();
    world.projector(&read_model).catch_up();
    let sqlite3 = |sql: &str| {
        let output = Program::new("sqlite3")
            .arg("read.db")
            .arg(sql)
            .current_dir(world.directory.path())
            .output();
        match output {
            Ok(output) => {
                assert!(output.status.success(), "{sql}: {output:?}");
                Some(String::from_utf8(output.stdout).unwrap())
            }
            // A machine without the program shows this in the whole-service tests.
            Err(_) => None,
        }
    };
    let Some(tables) = sqlite3(".tables") else {
        return;
    };
    for table in [
        "OrderView",
        "OrderLineView",
        "CustomerSummary",
        "SkuDemand",
        "Checkpoint",
    ] {
        assert!(
            tables.split_whitespace().any(|word| word == table),
            "{tables}"
        );
    }
    assert_eq!(sqlite3("select count(1) from OrderView;").unwrap(), "12\n");
    assert_eq!(
        sqlite3("select sku, sum(quantity), currency from OrderLineView group by sku, currency;")
            .unwrap(),
        "A|12|EUR\n"
    );
    assert_eq!(
        sqlite3("select sku, units_wanted from SkuDemand;").unwrap(),
        "A|12\n"
    );
}
