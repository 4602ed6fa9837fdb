//! The projector workers, timed from their start to the moment they have caught up and all rows are in the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use order_log::{EventLog, Offset, PartitionId};
use order_projector_workers::{
    Projection, ProjectorConfig, ProjectorWorkers, ReadModel, ReadModelConfig,
};

use crate::measure::Sample;

/// Orders of a transaction of the bare reference: some of what the projector takes when that many wait.
pub const TRANSACTION_RECORDS: u64 = 100_000;

/// How long catching up may take before it counts as standing still.
const CATCH_UP_MAX: Duration = Duration::from_secs(600);

/// Time between two looks at the checkpoints.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// Opens the read model in `directory`, which is made if missing; returns its files.
///
/// # Errors
/// Whatever SQLite said.
pub fn open_read_model(
    directory: &Path,
    partitions: u16,
    shards: u16,
) -> anyhow::Result<(Arc<ReadModel>, Vec<PathBuf>)> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let read_model = ReadModel::open(ReadModelConfig {
        directory: directory.to_owned(),
        partitions,
        shards,
        log_id: "benches".to_owned(),
    })?;
    let paths = read_model.paths();
    Ok((read_model, paths))
}

/// Applies what `log` has beyond the checkpoints of the read model in `directory`; counts records.
///
/// # Errors
/// Whatever the read model or the log said; and if the workers stand still.
pub fn catch_up(log: &Arc<dyn EventLog>, directory: &Path, shards: u16) -> anyhow::Result<Sample> {
    let (read_model, _) = open_read_model(directory, log.partition_count(), shards)?;
    let partitions: Vec<PartitionId> = (0..log.partition_count()).map(PartitionId::new).collect();
    let ends = partitions
        .iter()
        .map(|&partition| Ok((partition, log.reader(partition)?.durable_end())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let checkpoints = Arc::clone(read_model.checkpoints());
    let at =
        |projection: Projection, partition: PartitionId| checkpoints.load(projection, partition);
    let behind = ends
        .iter()
        .map(|&(partition, end)| end.get() - at(Projection::Orders, partition).get())
        .sum();

    let start = Instant::now();
    let workers = ProjectorWorkers::start(
        &**log,
        Arc::clone(&read_model),
        ProjectorConfig {
            batch_records_max: ProjectorConfig::BATCH_RECORDS_MAX_DEFAULT,
            idempotency_retention_us: 3_600_000_000,
        },
        &prometheus::Registry::new(),
    )?;
    let caught_up = |end: &(PartitionId, Offset)| {
        Projection::ALL
            .iter()
            .all(|&projection| at(projection, end.0) >= end.1)
    };
    while !ends.iter().all(caught_up) {
        let halted = workers
            .status()
            .into_iter()
            .find_map(|status| status.halted);
        if let Some(reason) = halted {
            anyhow::bail!("a projector stands still: {reason}");
        }
        anyhow::ensure!(
            start.elapsed() < CATCH_UP_MAX,
            "not caught up after {CATCH_UP_MAX:?}"
        );
        std::thread::sleep(LOOK_EVERY);
    }
    // Until all is in the files themselves: what waits in a WAL is work that was put off.
    workers.stop();
    Ok(Sample::rate(behind, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{OrderRows, Rows, update_at_random};
    use crate::rooms::{OrderHistory, Store, open_log};
    use crate::sample::Chance;
    use order_log::Durability;
    use rusqlite::Connection;
    use rusqlite::types::Value;

    /// Every row of a table, in the order of its key.
    fn rows(path: &Path, table: &str) -> Vec<Vec<Value>> {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection
            .prepare(&format!("select * from {table} order by 1, 2, 3"))
            .unwrap();
        let columns = statement.column_count();
        statement
            .query_map([], |row| {
                (0..columns).map(|column| row.get(column)).collect()
            })
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn the_bare_reference_writes_the_same_rows_as_the_projector() {
        let directory = tempfile::tempdir().unwrap();
        let log = open_log(Store::Segmented, directory.path(), 1, Durability::Always).unwrap();
        OrderHistory::new(&log, PartitionId::default())
            .unwrap()
            .place(500)
            .unwrap();
        let projected = directory.path().join("projected");
        catch_up(&log, &projected, 1).unwrap();
        let (read_model, projected) = open_read_model(&projected, 1, 1).unwrap();
        drop(read_model);

        let (read_model, bare) = open_read_model(&directory.path().join("bare"), 1, 1).unwrap();
        drop(read_model);
        OrderRows::new(0, 500, 100)
            .unwrap()
            .insert(&bare[0], Rows::All)
            .unwrap();

        for table in [
            "OrderView",
            "CustomerSummaryByPartition",
            "SkuDemandByPartition",
        ] {
            let expected = rows(&projected[0], table);
            assert!(!expected.is_empty());
            assert_eq!(rows(&bare[0], table), expected, "{table}");
        }
    }

    #[test]
    fn bare_updates_change_the_rows_they_count() {
        let directory = tempfile::tempdir().unwrap();
        let (read_model, paths) = open_read_model(directory.path(), 1, 1).unwrap();
        drop(read_model);
        OrderRows::new(0, 100, 50)
            .unwrap()
            .insert(&paths[0], Rows::Orders)
            .unwrap();
        update_at_random(&paths[0], "OFF", 100, 300, 100, &mut Chance::new(1)).unwrap();
        let connection = Connection::open(&paths[0]).unwrap();
        let versions: i64 = connection
            .query_row("select sum(version) from OrderView", [], |row| row.get(0))
            .unwrap();
        assert_eq!(versions, 400);
    }
}
