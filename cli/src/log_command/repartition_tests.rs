//! What becomes of the outbox when the partitions were not equally far: each event is told once, before or afterwards.

use std::collections::HashMap;

use order_domain::Version;
use order_log::{AppendTime, Batch, Key, RecordTag};
use order_outbox::{EventId, Outbox, OutboxConfig, OutboxError, SinkKind};
use prometheus::Registry;

use super::*;

/// Logs that are played, and how long each is.
const ROUNDS: u64 = 8;
const FRAMES: u64 = 120;
const OLD_PARTITIONS: u16 = 3;

/// xorshift64*: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }
}

/// One event: its order and its place in the order's history.
type Event = ([u8; 16], u32);

fn settings(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        partitions: Some(OLD_PARTITIONS),
        outbox: OutboxConfig {
            sink: SinkKind::None,
            ..OutboxConfig::default()
        },
        ..Config::default()
    }
}

/// Writes a log of frames of one to three records of a few orders, appended at rising times, and an outbox that has told
/// some beginning of each partition. Returns which events it has told.
fn play(config: &Config, dice: &mut Dice) -> HashMap<Event, bool> {
    let directory = DataDirectory::own(config).unwrap();
    let partitioner = directory.manifest.partitioner().unwrap();
    let log = engine::open(config, &directory, engine::Followers::None).unwrap();
    let mut writers: Vec<_> = (0..OLD_PARTITIONS)
        .map(|partition| log.writer(PartitionId::new(partition)).unwrap())
        .collect();
    let orders: Vec<[u8; 16]> = (0..20_u128)
        .map(|number| (number << 64 | u128::from(dice.below(1 << 31))).to_be_bytes())
        .collect();
    let mut last: HashMap<[u8; 16], (Offset, u32)> = HashMap::new();
    let mut bases = vec![vec![Offset::ZERO]; usize::from(OLD_PARTITIONS)];
    let mut events: Vec<(Event, u16, Offset)> = Vec::new();
    let mut batch = Batch::new();
    for time in 0..FRAMES {
        let order = orders[usize::try_from(dice.below(20)).unwrap()];
        let id = OrderId::from_bytes(order);
        let partition = partitioner.partition_of(id.to_string().as_bytes());
        let writer = &mut writers[usize::from(partition)];
        let before = last.get(&order).copied();
        let sequence = before.map_or(1, |(_, next)| next);
        let records = u32::try_from(1 + dice.below(3)).unwrap();
        batch.start_at(writer.end());
        batch.begin_frame(
            Key::new(order),
            sequence,
            before.map(|(base, _)| base),
            AppendTime::from_micros(time / 2),
        );
        for _ in 0..records {
            batch.record(|bytes| {
                bytes.extend_from_slice(&time.to_le_bytes());
                RecordTag {
                    event_type: 1,
                    schema: 1,
                    codec: 1,
                }
            });
        }
        let base = batch.end_frame();
        writer.append(&batch).unwrap();
        last.insert(order, (base, sequence + records));
        bases[usize::from(partition)].push(batch.end());
        let of_frame = (0..records).map(|at| ((order, sequence + at), partition, base));
        events.extend(of_frame);
    }
    let cursors: Vec<Offset> = bases
        .iter()
        .map(|ends| ends[usize::try_from(dice.below(ends.len() as u64)).unwrap()])
        .collect();
    let outbox = Outbox::start(
        &*log,
        config.outbox.clone(),
        &directory.path,
        &Registry::new(),
    );
    drop(outbox.unwrap());
    let mut outbox = OfflineOutbox::open(&directory.path, &config.outbox.source)
        .unwrap()
        .unwrap();
    outbox.relocate(&cursors).unwrap();
    let told = |(event, partition, base)| (event, base < cursors[usize::from(partition)]);
    events.into_iter().map(told).collect()
}

#[test]
fn what_the_outbox_has_not_told_is_told_once_however_far_each_partition_was() {
    let mut dice = Dice(7);
    let mut passed_over = 0;
    for round in 0..ROUNDS {
        let place = tempfile::tempdir().unwrap();
        let config = settings(place.path());
        let told_before = play(&config, &mut dice);
        let partitions = [1, 2, 5, 4][usize::try_from(round % 4).unwrap()];

        rewrite(&config, partitions, round % 2 == 0).unwrap();

        let manifest = Manifest::read(place.path()).unwrap();
        let log = engine::open_read_only(place.path(), &manifest).unwrap();
        let outbox = OfflineOutbox::open(place.path(), &config.outbox.source)
            .unwrap()
            .unwrap();
        let cursors = outbox.cursors();
        assert_eq!(cursors.len(), usize::from(partitions));
        let mut seen = 0;
        for partition in (0..partitions).map(PartitionId::new) {
            let reader = log.reader(partition).unwrap();
            let visit = &mut |frame: order_log::Frame<'_>| {
                for record in frame.records() {
                    let event = (*frame.key.as_bytes(), record.sequence);
                    let order = OrderId::from_bytes(event.0);
                    let id = EventId::new(order, Version::new(event.1));
                    let held = !matches!(outbox.inspect(id), Err(OutboxError::NotHeld(_)));
                    let to_come = record.offset >= cursors[partition.index()];
                    assert!(!(held && to_come), "{id} would be told twice");
                    assert_eq!(!told_before[&event], held || to_come, "{id}, round {round}");
                    passed_over += u64::from(held);
                    seen += 1;
                }
                ControlFlow::Continue(())
            };
            reader.scan(reader.start(), ScanLimit::NONE, visit).unwrap();
        }
        assert_eq!(seen, told_before.len());
    }
    assert!(passed_over > 0, "no cursor passed over anything");
}
