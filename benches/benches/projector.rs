//! Folding the log into SQLite: new orders over partitions and files, and updates of old orders, next to bare SQLite on
//! the same rows in the same run.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use order_benches::measure::Sample;
use order_benches::reference::{OrderRows, Rows, update_at_random};
use order_benches::rooms::{
    OrderHistory, Store, TRANSACTION_RECORDS, catch_up, open_log, open_read_model,
};
use order_benches::sample::Chance;
use order_log::{Durability, EventLog, PartitionId};

/// New orders of a run, over all partitions.
const ORDERS: u64 = 100_000;

/// Rows that updates are spread over: more than the writers' page cache holds.
const OLD_ORDERS: u64 = 400_000;

/// Updates of a run.
const UPDATES: u64 = 20_000;

fn elapsed(sample: &Sample, count: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand")]
    Duration::from_secs_f64(count as f64 / sample.per_second)
}

fn new_orders(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("projector/new orders");
    group.throughput(Throughput::Elements(ORDERS));
    let rows = OrderRows::new(0, ORDERS, TRANSACTION_RECORDS).expect("the sample's rows");
    for (name, kind) in [
        ("bare SQLite", Rows::All),
        ("bare SQLite, orders alone", Rows::Orders),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                (0..iterations)
                    .map(|_| insert(&rows, kind, directory.path()))
                    .sum()
            });
        });
    }
    for (partitions, files) in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 4)] {
        let log_directory = directory.path().join(format!("log-{partitions}-{files}"));
        let log = log_of(&log_directory, partitions);
        for partition in (0..partitions).map(PartitionId::new) {
            OrderHistory::new(&log, partition)
                .and_then(|mut history| history.place(ORDERS / u64::from(partitions)))
                .expect("orders are appended");
        }
        let parameter = format!("{partitions} in {files}");
        group.bench_function(
            BenchmarkId::new("projector, partitions in files", parameter),
            |bencher| {
                bencher.iter_custom(|iterations| {
                    (0..iterations)
                        .map(|_| {
                            let fresh = tempfile::tempdir_in(&directory).expect("a directory");
                            let sample =
                                catch_up(&log, fresh.path(), files).expect("the projector works");
                            elapsed(&sample, ORDERS)
                        })
                        .sum()
                });
            },
        );
    }
    group.finish();
}

fn insert(rows: &OrderRows, kind: Rows, parent: &Path) -> Duration {
    let fresh = tempfile::tempdir_in(parent).expect("a directory");
    let (read_model, paths) = open_read_model(fresh.path(), 1, 1).expect("a read model");
    drop(read_model);
    let sample = rows.insert(&paths[0], kind).expect("SQLite works");
    elapsed(&sample, ORDERS)
}

fn updates(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("projector/updates of old orders");
    group.throughput(Throughput::Elements(UPDATES));

    let (read_model, paths) =
        open_read_model(&directory.path().join("bare"), 1, 1).expect("a read model");
    drop(read_model);
    OrderRows::new(0, OLD_ORDERS, TRANSACTION_RECORDS)
        .and_then(|rows| rows.insert(&paths[0], Rows::All))
        .expect("SQLite works");
    let mut chance = Chance::new(1);
    group.bench_function("bare SQLite", |bencher| {
        bencher.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    let sample = update_at_random(
                        &paths[0],
                        "NORMAL",
                        OLD_ORDERS,
                        UPDATES,
                        1_000,
                        &mut chance,
                    )
                    .expect("SQLite works");
                    elapsed(&sample, UPDATES)
                })
                .sum()
        });
    });

    group.bench_function("projector", |bencher| {
        let fresh = tempfile::tempdir_in(&directory).expect("a directory");
        let log = log_of(fresh.path(), 1);
        let mut history =
            OrderHistory::new(&log, PartitionId::default()).expect("the partition is there");
        history.place(OLD_ORDERS).expect("orders are appended");
        catch_up(&log, fresh.path(), 1).expect("the projector works");
        bencher.iter_custom(|iterations| {
            (0..iterations)
                .map(|_| {
                    history
                        .advance(UPDATES, &mut chance)
                        .expect("events are appended");
                    let sample = catch_up(&log, fresh.path(), 1).expect("the projector works");
                    elapsed(&sample, UPDATES)
                })
                .sum()
        });
    });
    group.finish();
}

fn log_of(directory: &Path, partitions: u16) -> Arc<dyn EventLog> {
    open_log(Store::Segmented, directory, partitions, Durability::Always).expect("a new log opens")
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_secs(2));
    targets = new_orders, updates
}
criterion_main!(benches);
