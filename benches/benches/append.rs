//! Appending to the log: batches of 1, 100 and 1,000 records of 256 bytes, in every durability mode, next to the bare
//! file in the same run.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use order_benches::reference::{BareFile, Sink};
use order_benches::rooms::{LogSink, Store};
use order_benches::sample;
use order_log::Durability;

/// Bytes after which a log is started anew, outside the measured time: keeps the disk's and the cache's part bounded.
const LOG_BYTES_MAX: u64 = 512 << 20;

/// Distinct records that are appended in turn.
const RECORDS: u64 = 1024;

fn append(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory for the logs");
    let records: Vec<_> = (0..RECORDS).map(sample::record).collect();
    let modes = [
        Durability::Always,
        Durability::Interval(Duration::from_millis(10)),
        Durability::Os,
    ];
    for durability in modes {
        let mut group = criterion.benchmark_group(format!("append/{durability}"));
        for batch in [1, 100, 1_000] {
            group.throughput(Throughput::Elements(batch));
            let mut contestant = |name: &str, make: &dyn Fn() -> anyhow::Result<Box<dyn Sink>>| {
                group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                    bencher.iter_custom(|iterations| {
                        append_batches(&records, batch, iterations, make).expect("appending works")
                    });
                });
            };
            contestant("bare file", &|| {
                let path = directory.path().join("bare");
                let durable = durability == Durability::Always;
                let make = if durable {
                    BareFile::durable
                } else {
                    BareFile::unsynced
                };
                Ok(Box::new(make(&path)?))
            });
            for store in Store::ALL {
                contestant(store.name(), &|| {
                    Ok(Box::new(LogSink::new(store, directory.path(), durability)?))
                });
            }
        }
        group.finish();
    }
}

/// How long appending `iterations` batches took, without the making of files.
fn append_batches(
    records: &[[u8; sample::RECORD_BYTES]],
    batch: u64,
    iterations: u64,
    make: &dyn Fn() -> anyhow::Result<Box<dyn Sink>>,
) -> anyhow::Result<Duration> {
    let batch_bytes = batch * u64::try_from(sample::RECORD_BYTES)?;
    let mut next = records.iter().cycle();
    let mut elapsed = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let mut sink = make()?;
        let batches = left.min(LOG_BYTES_MAX / batch_bytes);
        let start = Instant::now();
        for _ in 0..batches {
            for _ in 0..batch {
                sink.add(next.next().expect("a cycle does not end"));
            }
            sink.commit()?;
        }
        elapsed += start.elapsed();
        left -= batches;
    }
    Ok(elapsed)
}

criterion_group! {
    name = benches;
    // Short: a whole set of modes and sizes within a minute or two.
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = append
}
criterion_main!(benches);
