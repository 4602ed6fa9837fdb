//! Reading a log of new orders back: verified, decoded, folded; each engine in the same run.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use order_benches::rooms::{Depth, OrderHistory, Store, open_log, replay};
use order_log::{Durability, PartitionId};

/// Orders in the log: some twenty megabytes, warm.
const ORDERS: u64 = 100_000;

fn read_back(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the logs");
    let partition = PartitionId::default();
    let mut group = criterion.benchmark_group("replay");
    group.throughput(Throughput::Elements(ORDERS));
    for store in Store::ALL {
        let log = open_log(
            store,
            &directory.path().join(store.name()),
            1,
            Durability::Always,
        )
        .expect("a new log opens");
        OrderHistory::new(&log, partition)
            .and_then(|mut history| history.place(ORDERS))
            .expect("orders are appended");
        let reader = log.reader(partition).expect("the partition is there");
        for depth in Depth::ALL {
            group.bench_function(BenchmarkId::new(depth.name(), store.name()), |bencher| {
                bencher.iter(|| {
                    let records = replay(&*reader, depth).expect("the log reads back");
                    assert_eq!(records, ORDERS);
                });
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = read_back
}
criterion_main!(benches);
