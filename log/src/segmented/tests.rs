//! The segmented log against a plain list of frames: what was appended is what is read, through rolls, restarts, torn
//! tails and damage.
//!
//! Method: append random frames, remember them in a `Vec`, touch the files as a crash or a bad disk would, open again,
//! compare. After every recovery the log is appended to and recovered once more.
//!
//! Long because every test speaks through the same fixture and the same remembered frames.

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::recovery::{Verdict, scan_tail};
use super::*;
use crate::disk::RealDisk;
use crate::layout::{FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use crate::{Appended, Batch, Key, RecordTag, ScanLimit};

const TAG: RecordTag = RecordTag {
    event_type: 4,
    schema: 2,
    codec: 1,
};

/// A frame as a test remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) base: u64,
    pub(super) key: u8,
    pub(super) sequence: u32,
    pub(super) previous: Option<u64>,
    pub(super) time: u64,
    pub(super) records: Vec<Vec<u8>>,
}

pub(super) struct Fixture {
    pub(super) directory: TempDir,
    pub(super) durability: Durability,
    pub(super) segment_bytes_max: u64,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            durability: Durability::Always,
            segment_bytes_max: 1024 * 1024,
        }
    }

    pub(super) fn config(&self) -> SegmentedConfig {
        let directory = self.directory.path().join("log");
        SegmentedConfig {
            segment_bytes_max: self.segment_bytes_max,
            ..SegmentedConfig::new(directory, [9; 16], 1, self.durability)
        }
    }

    pub(super) fn open(&self) -> SegmentedLog {
        SegmentedLog::open(self.config(), Arc::new(RealDisk)).unwrap()
    }

    pub(super) fn verify(&self) -> VerifyReport {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        SegmentedLog::verify(&self.config(), &disk, &mut |_| {}).unwrap()
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(self.directory.path().join("log/p000"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
            .collect();
        paths.sort();
        paths
    }
}

pub(super) const P0: PartitionId = PartitionId::new(0);

/// Appends one batch of frames, `records` giving the record lengths of each.
pub(super) fn append(
    writer: &mut dyn PartitionWriter,
    frames: &[Vec<usize>],
    model: &mut Vec<Remembered>,
) -> Result<Appended, LogError> {
    let mut batch = Batch::new();
    batch.start_at(writer.end());
    let mut new = Vec::new();
    for records in frames {
        let serial = model.len() + new.len();
        let key = u8::try_from(serial % 5).unwrap();
        let (previous, sequence) = model
            .iter()
            .chain(&new)
            .rev()
            .find(|frame| frame.key == key)
            .map_or((None, 1), |last| {
                (
                    Some(last.base),
                    last.sequence + u32::try_from(last.records.len()).unwrap(),
                )
            });
        let time = writer.last_append_time().as_micros() + 1 + new.len() as u64;
        batch.begin_frame(
            Key::new([key; 16]),
            sequence,
            previous.map(Offset::new),
            AppendTime::from_micros(time),
        );
        let records: Vec<Vec<u8>> = records
            .iter()
            .enumerate()
            .map(|(at, length)| vec![u8::try_from((serial + at) % 251).unwrap(); *length])
            .collect();
        for record in &records {
            batch.record(|bytes| {
                bytes.extend_from_slice(record);
                TAG
            });
        }
        let base = batch.end_frame().get();
        new.push(Remembered {
            base,
            key,
            sequence,
            previous,
            time,
            records,
        });
    }
    let appended = writer.append(&batch)?;
    model.extend(new);
    Ok(appended)
}

pub(super) fn read_all(log: &SegmentedLog) -> Result<Vec<Remembered>, LogError> {
    let reader = log.reader(P0)?;
    read_from(&*reader, reader.start())
}

pub(super) fn read_from(
    reader: &dyn PartitionReader,
    from: Offset,
) -> Result<Vec<Remembered>, LogError> {
    let mut frames = Vec::new();
    reader.scan(from, ScanLimit::NONE, &mut |frame| {
        frames.push(Remembered {
            base: frame.base.get(),
            key: frame.key.as_bytes()[0],
            sequence: frame.sequence,
            previous: frame.previous.map(Offset::get),
            time: frame.appended_at.as_micros(),
            records: frame
                .records()
                .map(|record| record.bytes.to_vec())
                .collect(),
        });
        ControlFlow::Continue(())
    })?;
    Ok(frames)
}

#[test]
fn an_empty_log_is_empty_and_stays_so() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        let log = fixture.open();
        assert_eq!(read_all(&log).unwrap(), []);
        assert_eq!(log.writer(P0).unwrap().end(), Offset::ZERO);
    }
}

#[test]
fn a_partition_has_one_writer() {
    let log = Fixture::new().open();
    let _writer = log.writer(P0).unwrap();
    assert!(matches!(log.writer(P0), Err(LogError::WriterTaken(_))));
    assert!(matches!(
        log.writer(PartitionId::new(1)),
        Err(LogError::NoSuchPartition(_))
    ));
}

#[test]
fn frames_survive_rolls_and_restarts_and_every_segment_is_proven() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    for _ in 0..4 {
        let log = fixture.open();
        let mut writer = log.writer(P0).unwrap();
        for _ in 0..8 {
            append(&mut *writer, &vec![vec![900, 100]; 100], &mut model).unwrap();
        }
        assert_eq!(read_all(&log).unwrap(), model);
    }
    assert!(fixture.segments().len() > 3, "the test must roll");
    assert_eq!(read_all(&fixture.open()).unwrap(), model);
    let report = fixture.verify();
    assert_eq!(report.findings, []);
    assert_eq!(report.records, model.len() as u64 * 2);
}

#[test]
fn one_batch_may_be_larger_than_a_segment() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &vec![vec![300_000]; 12], &mut model).unwrap();
    append(&mut *writer, &vec![vec![10]; 3], &mut model).unwrap();
    assert_eq!(read_all(&log).unwrap(), model);
    drop((writer, log));
    assert_eq!(read_all(&fixture.open()).unwrap(), model);
}

#[test]
fn a_rotated_partition_goes_on_in_a_new_segment_and_an_empty_one_stays() {
    for durability in [
        Durability::Always,
        Durability::Interval(Duration::from_secs(60)),
    ] {
        let mut fixture = Fixture::new();
        fixture.durability = durability;
        let mut model = Vec::new();
        let log = fixture.open();
        let mut writer = log.writer(P0).unwrap();
        assert!(!writer.rotate().unwrap(), "nothing is in the first segment");
        for segments in 2..5 {
            append(&mut *writer, &[vec![40], vec![3, 70]], &mut model).unwrap();
            assert!(writer.rotate().unwrap());
            assert!(!writer.rotate().unwrap(), "rotating again changes nothing");
            assert_eq!(fixture.segments().len(), segments);
            // Sealed is synced, in every mode.
            assert_eq!(read_all(&log).unwrap(), model);
        }
        writer.idle().unwrap();
        assert!(!writer.rotate().unwrap(), "a marker is no record");
        append(&mut *writer, &[vec![5]], &mut model).unwrap();
        writer.close().unwrap();
        drop((writer, log));
        let log = fixture.open();
        assert_eq!(read_all(&log).unwrap(), model);
        assert!(log.writer(P0).unwrap().rotate().unwrap());
        drop(log);
        assert_eq!(fixture.verify().findings, []);
    }
}

#[test]
fn indexes_are_hints_that_can_be_deleted() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    for _ in 0..30 {
        append(&mut *writer, &vec![vec![500]; 200], &mut model).unwrap();
    }
    drop((writer, log));
    for entry in fs::read_dir(fixture.directory.path().join("log/p000")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "seg") {
            fs::remove_file(path).unwrap();
        }
    }
    let log = fixture.open();
    let reader = log.reader(P0).unwrap();
    for at in (0..model.len()).step_by(997) {
        assert_eq!(
            read_from(&*reader, Offset::new(model[at].base)).unwrap(),
            model[at..]
        );
    }
}

#[test]
fn seek_time_finds_the_first_frame_at_or_after_it() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    for _ in 0..25 {
        append(&mut *writer, &vec![vec![500]; 200], &mut model).unwrap();
    }
    let reader = log.reader(P0).unwrap();
    let last = model.last().unwrap().time;
    for time in [0, 1, 2, 1000, 1001, 2500, last - 1, last, last + 1] {
        let expected = model
            .iter()
            .find(|frame| frame.time >= time)
            .map_or(model.len() as u64, |frame| frame.base);
        assert_eq!(
            reader
                .seek_time(AppendTime::from_micros(time))
                .unwrap()
                .get(),
            expected,
            "time {time}"
        );
    }
}

#[test]
fn an_offset_inside_a_frame_or_beyond_the_end_is_refused() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &[vec![1, 1, 1]], &mut Vec::new()).unwrap();
    let reader = log.reader(P0).unwrap();
    assert!(matches!(
        read_from(&*reader, Offset::new(1)),
        Err(LogError::NotAFrame { .. })
    ));
    assert!(matches!(
        read_from(&*reader, Offset::new(4)),
        Err(LogError::OutOfRange { .. })
    ));
    assert_eq!(read_from(&*reader, Offset::new(3)).unwrap(), []);
}

#[test]
fn a_reader_waits_for_the_durable_end() {
    let fixture = Fixture::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    let reader = log.reader(P0).unwrap();
    assert_eq!(
        reader.wait_beyond(Offset::ZERO, Duration::from_millis(1)),
        Offset::ZERO
    );
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| reader.wait_beyond(Offset::ZERO, Duration::from_secs(60)));
        append(&mut *writer, &[vec![1]], &mut Vec::new()).unwrap();
        assert_eq!(waiting.join().unwrap(), Offset::new(1));
    });
}

#[test]
fn without_waiting_for_the_disk_frames_become_visible_by_themselves() {
    for durability in [
        Durability::Interval(Duration::from_millis(5)),
        Durability::Os,
    ] {
        let mut fixture = Fixture::new();
        fixture.durability = durability;
        let mut model = Vec::new();
        let log = fixture.open();
        let mut writer = log.writer(P0).unwrap();
        // Enough for a roll: the flusher must follow from file to file.
        for _ in 0..15 {
            append(&mut *writer, &vec![vec![500]; 200], &mut model).unwrap();
        }
        let reader = log.reader(P0).unwrap();
        let end = writer.end();
        let last = Offset::new(end.get() - 1);
        assert_eq!(reader.wait_beyond(last, Duration::from_secs(60)), end);
        assert_eq!(read_all(&log).unwrap(), model);
    }
}

#[test]
fn an_idle_log_marks_its_end_once() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &[vec![20]], &mut model).unwrap();
    let before = log.status()[0].active_segment_bytes;
    writer.idle().unwrap();
    writer.idle().unwrap();
    assert_eq!(
        log.status()[0].active_segment_bytes,
        before + FRAME_HEADER_BYTES as u64
    );
    append(&mut *writer, &[vec![20]], &mut model).unwrap();
    drop((writer, log));
    assert_eq!(read_all(&fixture.open()).unwrap(), model);
}

/// A log of two batches: the first is proven synced by the second, the second by nothing.
fn two_batches(fixture: &Fixture) -> (Vec<Remembered>, usize) {
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &[vec![40], vec![3, 70], vec![5]], &mut model).unwrap();
    let proven = model.len();
    append(&mut *writer, &[vec![33], vec![61, 2]], &mut model).unwrap();
    (model, proven)
}

fn used_bytes(path: &PathBuf) -> usize {
    fs::read(path)
        .unwrap()
        .iter()
        .rposition(|byte| *byte != 0)
        .unwrap()
        + 1
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_whole_frames_and_written_on() {
    let fixture = Fixture::new();
    let (model, proven) = two_batches(&fixture);
    let path = fixture.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    let used = used_bytes(&path);
    for cut in SEGMENT_HEADER_BYTES..=used {
        let mut torn = whole.clone();
        torn[cut..used].fill(0);
        fs::write(&path, &torn).unwrap();
        let log = fixture.open();
        let mut kept = read_all(&log).unwrap();
        assert_eq!(kept, model[..kept.len()], "cut at {cut}");
        // Nothing proves what is cut here: a cut before the second batch leaves no later watermark.
        if cut == used {
            assert_eq!(kept.len(), model.len());
        }
        let mut writer = log.writer(P0).unwrap();
        append(&mut *writer, &[vec![17, 17]], &mut kept).unwrap();
        drop((writer, log));
        assert_eq!(
            read_all(&fixture.open()).unwrap(),
            kept,
            "cut at {cut}, appended, opened again"
        );
    }
    assert!(proven > 0);
}

#[test]
fn every_flipped_bit_is_a_cut_tail_or_named_damage_and_never_wrong_data() {
    let fixture = Fixture::new();
    let (model, proven) = two_batches(&fixture);
    let path = fixture.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    let used = used_bytes(&path);
    let second_batch = model[proven].base;
    let identity = Identity::new([9; 16], 0);
    for bit in SEGMENT_HEADER_BYTES * 8..used * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let tail = scan_tail(&flipped, identity, 0);
        let damaged = matches!(tail.verdict, Verdict::Damaged { .. });
        assert_eq!(
            damaged,
            tail.end < second_batch,
            "bit {bit}: {:?} at {}",
            tail.verdict,
            tail.end
        );
        // Opening takes milliseconds: every 23rd bit goes the whole way through the files.
        if bit % 23 != 0 {
            continue;
        }
        fs::write(&path, &flipped).unwrap();
        let log = fixture.open();
        let kept = read_all(&log).unwrap();
        assert_eq!(kept, model[..kept.len()], "bit {bit}");
        let end = log.reader(P0).unwrap().durable_end().get();
        let status = log.status().remove(0);
        if end < second_batch {
            let reason = status
                .unwritable
                .expect("the second batch proves that the first was synced");
            assert!(reason.contains(&format!("offset {end}")), "{reason}");
            let refused = append(&mut *log.writer(P0).unwrap(), &[vec![1]], &mut Vec::new());
            assert!(matches!(refused, Err(LogError::Poisoned { .. })));
            drop(log);
            assert_eq!(
                fs::read(&path).unwrap(),
                flipped,
                "damage is never touched, bit {bit}"
            );
            assert!(fixture.verify().is_damaged());
        } else {
            assert_eq!(
                status.unwritable, None,
                "bit {bit} is in a tail that nothing proves"
            );
        }
    }
}

#[test]
fn with_the_idle_marker_every_flipped_bit_of_an_acknowledged_frame_is_damage() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &[vec![40], vec![3, 70]], &mut model).unwrap();
    let acknowledged = usize::try_from(log.status()[0].active_segment_bytes).unwrap();
    writer.idle().unwrap();
    drop((writer, log));
    let path = fixture.segments().remove(0);
    let whole = fs::read(&path).unwrap();
    for bit in (SEGMENT_HEADER_BYTES * 8..acknowledged * 8).step_by(5) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, &flipped).unwrap();
        let log = fixture.open();
        let kept = read_all(&log).unwrap();
        assert_eq!(kept, model[..kept.len()]);
        // Padding is the one place whose bits mean nothing.
        assert!(
            log.status()[0].unwritable.is_some() || kept.len() == model.len(),
            "bit {bit}"
        );
    }
}

#[test]
fn frames_of_another_log_or_partition_never_pass() {
    let fixture = Fixture::new();
    two_batches(&fixture);
    let mut other = fixture.config();
    other.log_id = [8; 16];
    let log = SegmentedLog::open(other, Arc::new(RealDisk)).unwrap();
    assert_eq!(read_all(&log).unwrap(), []);
    let reason = log.status()[0].unwritable.clone().unwrap();
    assert!(reason.contains("belongs to"), "{reason}");
}

#[test]
fn a_sealed_segment_without_its_footer_is_named() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    for _ in 0..15 {
        append(&mut *writer, &vec![vec![500]; 200], &mut model).unwrap();
    }
    drop((writer, log));
    let path = fixture.segments().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let report = fixture.verify();
    assert!(report.is_damaged());
    assert_eq!(report.findings[0].path, path);
}

#[test]
fn a_seal_without_a_successor_is_written_on() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    while fixture.segments().len() == 1 {
        append(&mut *writer, &vec![vec![500]; 20], &mut model).unwrap();
    }
    drop((writer, log));
    // As if the crash came between the seal and the name of the next segment.
    let second = fixture.segments().remove(1);
    let base: u64 = second
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    fs::remove_file(second).unwrap();
    model.retain(|frame| frame.base < base);
    for _ in 0..2 {
        let log = fixture.open();
        assert_eq!(read_all(&log).unwrap(), model);
        append(&mut *log.writer(P0).unwrap(), &[vec![600]], &mut model).unwrap();
    }
    assert_eq!(fixture.verify().findings, []);
}

#[test]
fn a_read_only_log_touches_nothing_and_has_no_writer() {
    let fixture = Fixture::new();
    let (model, _) = two_batches(&fixture);
    let path = fixture.segments().remove(0);
    let used = used_bytes(&path);
    let mut torn = fs::read(&path).unwrap();
    torn[used - 20] ^= 0xff;
    fs::write(&path, &torn).unwrap();
    let log = SegmentedLog::open_read_only(fixture.config(), Arc::new(RealDisk)).unwrap();
    assert_eq!(read_all(&log).unwrap(), model[..model.len() - 1]);
    assert!(matches!(log.writer(P0), Err(LogError::ReadOnly)));
    assert_eq!(fs::read(&path).unwrap(), torn);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_batches_with_restarts_anywhere_read_back_from_any_frame(
        script in prop::collection::vec(
            (prop::collection::vec(prop::collection::vec(0_usize..3000, 1..4), 1..40), prop::bool::ANY, prop::bool::ANY),
            1..30,
        )
    ) {
        let fixture = Fixture::new();
        let mut model = Vec::new();
        let mut log = fixture.open();
        let mut writer = log.writer(P0).unwrap();
        for (frames, idle, restart) in script {
            append(&mut *writer, &frames, &mut model).unwrap();
            if idle {
                writer.idle().unwrap();
            }
            if restart {
                drop((writer, log));
                log = fixture.open();
                writer = log.writer(P0).unwrap();
            }
            prop_assert_eq!(writer.end().get(), model.iter().map(|frame| frame.records.len() as u64).sum::<u64>());
        }
        let reader = log.reader(P0).unwrap();
        for at in (0..model.len()).step_by(model.len() / 7 + 1) {
            prop_assert_eq!(read_from(&*reader, Offset::new(model[at].base)).unwrap(), &model[at..]);
        }
        drop((writer, log));
        prop_assert_eq!(fixture.verify().findings, []);
    }
}
