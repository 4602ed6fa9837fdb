//! A good segment with arbitrary edits: opening never panics, what is read is a prefix of what was written, and a log that
//! still takes writes keeps them.
//!
//! An input is a list of edits of five bytes: where (3), what (1), how often (1). Checksums make random edits look like
//! damage or a torn tail; which of the two is the unit tests' matter.

#![no_main]

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use order_log::disk::RealDisk;
use order_log::segmented::{Preparation, SegmentedConfig, SegmentedLog};
use order_log::{
    AppendTime, Batch, Durability, EventLog, Key, Offset, PartitionId, PartitionWriter, RecordTag,
    ScanLimit,
};

const P0: PartitionId = PartitionId::new(0);
const FRAMES: u32 = 12;
const TAG: RecordTag = RecordTag {
    event_type: 1,
    schema: 1,
    codec: 1,
};

fn config(directory: &Path) -> SegmentedConfig {
    SegmentedConfig {
        segment_bytes_first: 4096,
        segment_bytes_max: 4096,
        preparation: Preparation::Inline,
        ..SegmentedConfig::new(directory.join("log"), [7; 16], 1, Durability::Always)
    }
}

fn open(directory: &Path) -> Result<SegmentedLog, order_log::LogError> {
    SegmentedLog::open(config(directory), Arc::new(RealDisk))
}

fn append(writer: &mut dyn PartitionWriter, serial: u32) -> Result<(), order_log::LogError> {
    let mut batch = Batch::new();
    batch.start_at(writer.end());
    batch.begin_frame(
        Key::new([1; 16]),
        serial + 1,
        None,
        writer.last_append_time().max(AppendTime::from_micros(1)),
    );
    batch.record(|bytes| {
        bytes.extend_from_slice(&serial.to_le_bytes());
        bytes.resize(bytes.len() + serial as usize * 9 % 100, 0xa5);
        TAG
    });
    batch.end_frame();
    writer.append(&batch).map(|_| ())
}

fn serials(log: &SegmentedLog) -> Vec<u32> {
    let mut found = Vec::new();
    let reader = log.reader(P0).expect("the partition is there");
    let scanned = reader.scan(Offset::ZERO, ScanLimit::NONE, &mut |frame| {
        let record = frame
            .records()
            .next()
            .expect("readers see no frame without a record");
        found.push(u32::from_le_bytes(
            record.bytes[..4]
                .try_into()
                .expect("four bytes were written"),
        ));
        ControlFlow::Continue(())
    });
    assert!(
        scanned.is_ok() || found.len() < FRAMES as usize,
        "{scanned:?}"
    );
    found
}

/// The bytes of a segment with [`FRAMES`] frames, each a batch of its own.
fn good() -> &'static [u8] {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    GOOD.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = open(directory.path()).expect("an empty log opens");
        let mut writer = log.writer(P0).expect("the writer is free");
        for serial in 0..FRAMES {
            append(&mut *writer, serial).expect("an append to a good log");
        }
        fs::read(directory.path().join("log/p000/00000000000000000000.seg"))
            .expect("the first segment")
    })
}

fuzz_target!(|input: &[u8]| {
    let mut segment = good().to_vec();
    for edit in input.chunks_exact(5) {
        let at = usize::from(edit[0]) << 16 | usize::from(edit[1]) << 8 | usize::from(edit[2]);
        let length = segment.len();
        for step in 0..=usize::from(edit[4]) {
            segment[(at + step) % length] = edit[3];
        }
    }
    let directory = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
    fs::create_dir_all(directory.path().join("log/p000")).expect("a directory");
    fs::write(
        directory.path().join("log/p000/00000000000000000000.seg"),
        &segment,
    )
    .expect("a file");

    let Ok(log) = open(directory.path()) else {
        return;
    };
    let mut kept = serials(&log);
    assert!(kept.iter().copied().eq(0..kept.len() as u32), "{kept:?}");
    if log.status()[0].unwritable.is_some() {
        return;
    }
    let mut writer = log.writer(P0).expect("the writer is free");
    append(&mut *writer, 77).expect("a log that takes writes takes them");
    kept.push(77);
    drop((writer, log));
    let log = open(directory.path()).expect("what was recovered opens");
    assert_eq!(serials(&log), kept);
});
