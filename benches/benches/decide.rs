//! The rules alone: what a command costs before anything is written, and what an event costs to fold.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use order_benches::rooms::{SampleOrder, order_id, place_command};
use order_domain::codec::{Codec, decode, encode};
use order_domain::{Command, Event, EventContext, Order, Timestamp, decide, fold};

const AT: Timestamp = Timestamp::from_micros(1_795_374_000_000_000);

fn place() -> Command {
    place_command().expect("the documented request is within the domain")
}

fn order() -> Order {
    let mut order = None;
    for event in decide(None, &place()).expect("a new order is allowed") {
        fold(&mut order, order_id(1), &event, AT).expect("what was decided folds");
    }
    order.expect("the order was placed")
}

fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    group.throughput(Throughput::Elements(1));
    let (place, order) = (place(), order());
    group.bench_function("place", |bencher| {
        bencher.iter(|| decide(None, black_box(&place)))
    });
    group.bench_function("confirm", |bencher| {
        bencher.iter(|| decide(Some(black_box(&order)), &Command::Confirm));
    });
    group.bench_function("deliver, which is refused", |bencher| {
        bencher.iter(|| decide(Some(black_box(&order)), &Command::Deliver));
    });
    group.finish();

    let mut group = criterion.benchmark_group("fold");
    group.throughput(Throughput::Elements(1));
    let sample = SampleOrder::new(1);
    let placed = sample.placed().expect("the sample is within the domain");
    group.bench_function("placed", |bencher| {
        bencher.iter(|| {
            let mut order = None;
            fold(&mut order, order_id(1), black_box(&placed), AT).expect("it is the first event");
            order
        });
    });
    group.bench_function("confirmed", |bencher| {
        bencher.iter_batched_ref(
            || Some(order.clone()),
            |order| fold(order, order_id(1), &Event::OrderConfirmed, AT),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    let sample = SampleOrder::new(1);
    let placed = sample.placed().expect("the sample is within the domain");
    for (name, codec) in [("bincode", Codec::Bincode), ("json", Codec::Json)] {
        let mut group = criterion.benchmark_group(format!("codec/{name}"));
        group.throughput(Throughput::Elements(1));
        let context = EventContext::default();
        let mut bytes = Vec::new();
        let header = encode(codec, &placed, &context, &mut bytes);
        let mut buffer = Vec::with_capacity(1024);
        group.bench_function("encode placed", |bencher| {
            bencher.iter(|| {
                buffer.clear();
                encode(codec, black_box(&placed), &context, &mut buffer)
            });
        });
        group.bench_function("decode placed, borrowed", |bencher| {
            bencher.iter(|| decode(header, black_box(&bytes)).map(black_box).is_ok());
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = rules, codec
}
criterion_main!(benches);
