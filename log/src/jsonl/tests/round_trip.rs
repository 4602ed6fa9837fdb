//! What goes in comes out. Goal: whatever frames are appended, in whatever partitions and batches, every reader sees
//! exactly them, before and after reopening. Method: random frames against a list.

use proptest::prelude::*;

use super::*;
use crate::LogError;
use crate::disk::RealDisk;

/// JSON with what could break a line: escapes, newlines, quotes, other scripts, nesting.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "\\PC{0,40}",
        Just("line\nbreak\r\n\t\"quoted\" \\ \u{0} \u{2028} ünïcode 注文 🛒".to_owned()),
        Just("x".repeat(9_000)),
    ];
    text.prop_flat_map(|text| {
        let value = serde_json::json!({ "text": text, "nested": [{ "key": text }, null, 1.5] });
        prop_oneof![
            Just(value.to_string()),
            Just(serde_json::Value::String(text).to_string()),
            any::<i64>().prop_map(|number| number.to_string()),
        ]
    })
}

fn record() -> impl Strategy<Value = (RecordTag, String)> {
    (1_u16..4, any::<u8>(), any::<u8>(), json()).prop_map(|(event_type, schema, codec, json)| {
        let tag = RecordTag {
            event_type,
            schema,
            codec,
        };
        (tag, json)
    })
}

/// A batch: a partition and its frames, but for times and previous offsets.
fn frames() -> impl Strategy<Value = (u16, Vec<Model>)> {
    let frame = (
        any::<[u8; 16]>(),
        1_u32..1_000_000,
        any::<Option<u64>>(),
        0_u64..3,
        prop::collection::vec(record(), 1..5),
    )
        .prop_map(|(key, sequence, previous, time, records)| Model {
            key,
            sequence,
            previous,
            time,
            records,
        });
    (0_u16..2, prop::collection::vec(frame, 1..6))
}

fn end_of(frames: &[Model]) -> u64 {
    frames.iter().map(|frame| frame.records.len() as u64).sum()
}

/// Turns steps of time into times, and wild previous offsets into ones that can be.
fn settle(known: &[Model], mut frames: Vec<Model>) -> Vec<Model> {
    let mut time = known.last().map_or(1_795_374_000_000_000, |last| last.time);
    let mut end = end_of(known);
    for frame in &mut frames {
        time += frame.time;
        frame.time = time;
        frame.previous = frame
            .previous
            .and_then(|previous| previous.checked_rem(end));
        end += frame.records.len() as u64;
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_frame_is_read_back_as_it_was_appended_before_and_after_reopening(
        rounds in prop::collection::vec(prop::collection::vec(frames(), 0..6), 1..4),
        from: prop::sample::Index,
        wanted: prop::sample::Index,
    ) {
        let disk = memory_disk::MemoryDisk::empty();
        let mut known = [Vec::new(), Vec::new()];
        for batches in rounds {
            let log = open(&disk, Durability::Always);
            let mut writers = [log.writer(ZERO).unwrap(), log.writer(ONE).unwrap()];
            for (writer, known) in writers.iter().zip(&known) {
                prop_assert_eq!(writer.end().get(), end_of(known));
                let time = known.last().map_or(0, |frame: &Model| frame.time);
                prop_assert_eq!(writer.last_append_time().as_micros(), time);
            }
            for (partition, frames) in batches {
                let partition = usize::from(partition);
                let frames = settle(&known[partition], frames);
                append(&mut *writers[partition], &frames);
                known[partition].extend(frames);
            }
            prop_assert_eq!(&frames_of(&log, ZERO), &known[0]);
            prop_assert_eq!(&frames_of(&log, ONE), &known[1]);
        }
        let log = open(&disk, Durability::Always);
        for (partition, known) in [ZERO, ONE].into_iter().zip(&known) {
            prop_assert_eq!(&frames_of(&log, partition), known);
            if known.is_empty() {
                continue;
            }
            let reader = log.reader(partition).unwrap();
            let from = from.index(known.len());
            let base = Offset::new(end_of(&known[..from]));
            prop_assert_eq!(&frames_from(&*reader, base), &known[from..]);
            let time = known[wanted.index(known.len())].time;
            let first = known.iter().position(|frame| frame.time >= time).unwrap();
            let found = reader.seek_time(AppendTime::from_micros(time)).unwrap();
            prop_assert_eq!(found.get(), end_of(&known[..first]));
        }
    }
}

#[test]
fn on_the_real_disk_a_new_file_is_made_with_its_directory_appended_to_and_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data/events.jsonl");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let config = config(&path, Durability::Always);
    assert!(matches!(
        JsonlLog::open_read_only(config.clone(), &disk),
        Err(LogError::Io { .. })
    ));
    let mut known = Vec::new();
    for time in 0..3 {
        let log = JsonlLog::open(config.clone(), &disk).unwrap();
        assert_eq!(frames_of(&log, ONE), known);
        let frame = Model::of(time, &["\"日本\"", "{}"]);
        append(&mut *log.writer(ONE).unwrap(), std::slice::from_ref(&frame));
        known.push(frame);
        assert_eq!(frames_of(&log, ONE), known);
        // A crash in the middle of the next append.
        let torn = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&torn[..], &torn[..30]].concat()).unwrap();
        let read_only = JsonlLog::open_read_only(config.clone(), &disk).unwrap();
        assert_eq!(frames_of(&read_only, ONE), known);
    }
}

#[test]
fn a_line_is_what_the_documentation_says() {
    let disk = memory_disk::MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut writer = log.writer(ONE).unwrap();
    let mut frame = Model::of(1_795_374_000_000_001, &["{\"a\":1}", "[2]"]);
    frame.sequence = 3;
    frame.previous = Some(0);
    append(&mut *writer, &[Model::of(0, &["null"]), frame]);
    let key = "07070707-0707-0707-0707-070707070707";
    let expected = [
        format!(
            r#"{{"partition":1,"offset":0,"order_id":"{key}","version":1,"type":"OrderPlaced","time":"1970-01-01T00:00:00.000000Z","data":null,"type_id":1,"schema":1,"codec":2}}"#
        ),
        format!(
            r#"{{"partition":1,"offset":1,"order_id":"{key}","version":3,"type":"OrderPlaced","time":"2026-11-22T19:00:00.000001Z","data":{{"a":1}},"type_id":1,"schema":1,"codec":2,"previous":0,"frame":[0,2]}}"#
        ),
        format!(
            r#"{{"partition":1,"offset":2,"order_id":"{key}","version":4,"type":"OrderPlaced","time":"2026-11-22T19:00:00.000001Z","data":[2],"type_id":1,"schema":1,"codec":2,"previous":0,"frame":[1,2]}}"#
        ),
    ];
    let contents = String::from_utf8(disk.contents()).unwrap();
    assert_eq!(contents.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_scan_stops_after_the_first_frame_that_reaches_a_bound_or_at_the_offset_it_was_given() {
    let disk = memory_disk::MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let frame = Model::of(1, &["1", "2"]);
    append(
        &mut *log.writer(ZERO).unwrap(),
        &[frame.clone(), frame.clone(), frame],
    );
    let line_bytes = disk.contents().len() as u64 / 6;
    let reader = log.reader(ZERO).unwrap();
    let none = ScanLimit::NONE;
    let until = |offset| ScanLimit {
        until: Offset::new(offset),
        ..none
    };
    let cases = [
        (ScanLimit { records: 0, ..none }, 2),
        (ScanLimit { records: 1, ..none }, 2),
        (ScanLimit { records: 2, ..none }, 2),
        (ScanLimit { records: 3, ..none }, 4),
        (ScanLimit { bytes: 1, ..none }, 2),
        (
            ScanLimit {
                bytes: 2 * line_bytes + 1,
                ..none
            },
            4,
        ),
        (until(0), 0),
        (until(1), 2),
        (until(2), 2),
        (until(3), 4),
        (none, 6),
    ];
    for (limit, expected) in cases {
        let end = reader.scan(Offset::ZERO, limit, &mut |_| ControlFlow::Continue(()));
        assert_eq!(end.unwrap(), Offset::new(expected), "{limit:?}");
    }
    let broken_off = reader.scan(Offset::ZERO, none, &mut |_| ControlFlow::Break(()));
    assert_eq!(broken_off.unwrap(), Offset::new(2));
}

#[test]
fn a_scan_from_beyond_the_end_or_from_within_a_frame_is_refused() {
    let disk = memory_disk::MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    append(
        &mut *log.writer(ZERO).unwrap(),
        &[Model::of(1, &["1", "2"])],
    );
    let reader = log.reader(ZERO).unwrap();
    let scan = |from| {
        reader.scan(Offset::new(from), ScanLimit::NONE, &mut |_| -> ControlFlow<
            (),
        > {
            panic!("nothing is there to visit")
        })
    };
    assert_eq!(scan(2).unwrap(), Offset::new(2));
    assert!(matches!(scan(3), Err(LogError::OutOfRange { .. })));
    let within = scan(1).unwrap_err();
    assert!(matches!(within, LogError::Damaged { .. }), "{within}");
}

#[test]
fn times_before_and_after_everything_find_the_start_and_the_end() {
    let disk = memory_disk::MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let reader = log.reader(ZERO).unwrap();
    let seek = |time| reader.seek_time(AppendTime::from_micros(time)).unwrap();
    assert_eq!(seek(0), Offset::ZERO);
    append(
        &mut *log.writer(ZERO).unwrap(),
        &[Model::of(5, &["1", "2"]), Model::of(7, &["3"])],
    );
    let found: Vec<_> = [4, 5, 6, 7, 8].map(|time| seek(time).get()).to_vec();
    assert_eq!(found, [0, 0, 2, 2, 3]);
}

#[test]
fn a_partition_has_one_writer_and_a_log_only_its_partitions() {
    let log = open(&memory_disk::MemoryDisk::empty(), Durability::Always);
    let _writer = log.writer(ZERO).unwrap();
    assert!(matches!(log.writer(ZERO), Err(LogError::WriterTaken(ZERO))));
    let beyond = PartitionId::new(2);
    for refused in [log.writer(beyond).err(), log.reader(beyond).err()] {
        assert!(
            matches!(refused, Some(LogError::NoSuchPartition(partition)) if partition == beyond)
        );
    }
}
