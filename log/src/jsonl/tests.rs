//! What the JSONL log promises, shown on the real disk and on one in memory that can be gated, filled and broken.

mod faults;
mod group_commit;
mod memory_disk;
mod recovery;
mod round_trip;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::{JsonlConfig, JsonlLog};
use crate::disk::Disk;
use crate::{
    AppendTime, Batch, Durability, EventLog, Key, Offset, PartitionId, PartitionReader,
    PartitionWriter, RecordTag, ScanLimit,
};

const PATH: &str = "data/events.jsonl";
const ZERO: PartitionId = PartitionId::new(0);
const ONE: PartitionId = PartitionId::new(1);

/// A frame as a test thinks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    key: [u8; 16],
    sequence: u32,
    previous: Option<u64>,
    time: u64,
    records: Vec<(RecordTag, String)>,
}

impl Model {
    /// A frame of plain records.
    fn of(time: u64, records: &[&str]) -> Self {
        let tag = RecordTag {
            event_type: 1,
            schema: 1,
            codec: 2,
        };
        Self {
            key: [7; 16],
            sequence: 1,
            previous: None,
            time,
            records: records
                .iter()
                .map(|json| (tag, (*json).to_owned()))
                .collect(),
        }
    }
}

fn config(path: &Path, durability: Durability) -> JsonlConfig {
    JsonlConfig {
        path: path.to_owned(),
        partitions: 2,
        durability,
        type_names: |event_type| match event_type {
            1 => "OrderPlaced",
            _ => "Other \"event\"",
        },
    }
}

/// Two partitions in `data/events.jsonl` of a disk in memory.
fn open(disk: &Arc<memory_disk::MemoryDisk>, durability: Durability) -> JsonlLog {
    try_open(disk, durability).unwrap()
}

fn try_open(
    disk: &Arc<memory_disk::MemoryDisk>,
    durability: Durability,
) -> Result<JsonlLog, crate::LogError> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as _;
    JsonlLog::open(config(Path::new(PATH), durability), &disk)
}

fn batch(start: Offset, frames: &[Model]) -> Batch {
    let mut batch = Batch::new();
    batch.start_at(start);
    for frame in frames {
        batch.begin_frame(
            Key::new(frame.key),
            frame.sequence,
            frame.previous.map(Offset::new),
            AppendTime::from_micros(frame.time),
        );
        for (tag, json) in &frame.records {
            batch.record(|bytes| {
                bytes.extend_from_slice(json.as_bytes());
                *tag
            });
        }
        batch.end_frame();
    }
    batch
}

fn append(writer: &mut dyn PartitionWriter, frames: &[Model]) {
    let batch = batch(writer.end(), frames);
    let appended = writer.append(&batch).unwrap();
    assert_eq!((appended.start, appended.end), (batch.start(), batch.end()));
}

/// The visible frames of a partition from `from` on.
fn frames_from(reader: &dyn PartitionReader, from: Offset) -> Vec<Model> {
    let mut frames = Vec::new();
    let mut next = from;
    let end = reader
        .scan(from, ScanLimit::NONE, &mut |frame| {
            assert_eq!(frame.base, next, "offsets have no gaps");
            next = frame.end();
            let records = frame.records().enumerate().map(|(index, record)| {
                assert_eq!(record.offset, frame.base.plus(index as u64));
                let json = std::str::from_utf8(record.bytes).unwrap().to_owned();
                (record.tag, json)
            });
            frames.push(Model {
                key: *frame.key.as_bytes(),
                sequence: frame.sequence,
                previous: frame.previous.map(Offset::get),
                time: frame.appended_at.as_micros(),
                records: records.collect(),
            });
            assert_eq!(frame.len(), frames.last().unwrap().records.len() as u64);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(end, next);
    frames
}

/// All visible frames of a partition.
fn frames_of(log: &JsonlLog, partition: PartitionId) -> Vec<Model> {
    let reader = log.reader(partition).unwrap();
    let frames = frames_from(&*reader, Offset::ZERO);
    let records: usize = frames.iter().map(|frame| frame.records.len()).sum();
    assert_eq!(reader.durable_end(), Offset::new(records as u64));
    frames
}
