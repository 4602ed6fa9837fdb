//! Opening after a crash and opening damaged files. Goal: what was acknowledged is there, what was not is there whole or
//! not at all, and what is damaged is named. Method: files cut and changed at every place that matters.

use proptest::prelude::*;

use super::memory_disk::MemoryDisk;
use super::*;
use crate::LogError;

/// Frames of both partitions, and the file they make; the last frame has three records.
fn written() -> (Vec<Model>, Vec<Model>, Vec<u8>) {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let zero = vec![Model::of(10, &["{\"a\":\"ü\"}"]), Model::of(12, &["1"])];
    let one = vec![
        Model::of(11, &["2", "3"]),
        Model::of(13, &["4", "\"fünf\"", "6"]),
    ];
    let (mut zeros, mut ones) = (log.writer(ZERO).unwrap(), log.writer(ONE).unwrap());
    append(&mut *zeros, &zero[..1]);
    append(&mut *ones, &one[..1]);
    append(&mut *zeros, &zero[1..]);
    append(&mut *ones, &one[1..]);
    (zero, one, disk.contents())
}

fn position_of_line(bytes: &[u8], number: usize) -> usize {
    let newlines = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    newlines
        .map(|(at, _)| at + 1)
        .nth(number.wrapping_sub(2))
        .unwrap_or(0)
}

fn refusal(bytes: &[u8]) -> String {
    let disk = MemoryDisk::holding(bytes);
    let error = try_open(&disk, Durability::Always).unwrap_err();
    assert!(matches!(error, LogError::Incompatible { .. }), "{error}");
    assert_eq!(disk.contents(), bytes, "a refused file is not changed");
    let message = error.to_string();
    assert!(message.starts_with(PATH), "{message}");
    message
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_appending_goes_on_crash_after_crash() {
    let (zero, one, bytes) = written();
    let last_frame = position_of_line(&bytes, 5);
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 7);
    for length in last_frame..bytes.len() {
        let disk = MemoryDisk::holding(&bytes[..length]);
        let mut whole = one[..1].to_vec();
        // Over and over: a log that recovers but cannot recover again is no log.
        for round in 0..3 {
            let log = open(&disk, Durability::Always);
            assert_eq!(frames_of(&log, ZERO), zero, "cut at {length}");
            assert_eq!(frames_of(&log, ONE), whole, "cut at {length}");
            let kept = Model::of(14 + round, &["\"after\"", "\"the cut\""]);
            let mut writer = log.writer(ONE).unwrap();
            append(&mut *writer, std::slice::from_ref(&kept));
            whole.push(kept);
            let before = disk.contents().len();
            append(
                &mut *writer,
                &one[1..2].iter().map(later).collect::<Vec<_>>(),
            );
            disk.change(|state| state.cache.truncate(before + length - last_frame));
        }
    }
}

/// The frame, appended after all others.
fn later(frame: &Model) -> Model {
    let mut frame = frame.clone();
    frame.time = 100;
    frame
}

#[test]
fn a_last_line_that_is_not_json_is_cut_with_the_rest_of_its_frame() {
    let (zero, one, bytes) = written();
    let last_line = position_of_line(&bytes, 7);
    // A sector of the last line never arrived, its end did.
    let mut holed = bytes.clone();
    holed[last_line + 10..last_line + 60].fill(0);
    // The file grew, its bytes never arrived; more of them than any line is long.
    let mut zeros = bytes.clone();
    zeros.truncate(last_line);
    zeros.resize(last_line + 3 * crate::layout::FRAME_BODY_BYTES_MAX, 0);
    for tail in [holed, zeros] {
        let disk = MemoryDisk::holding(&tail);
        let log = open(&disk, Durability::Always);
        assert_eq!(frames_of(&log, ZERO), zero);
        assert_eq!(frames_of(&log, ONE), one[..1]);
        assert_eq!(disk.contents(), bytes[..position_of_line(&bytes, 5)]);
    }
}

#[test]
fn the_cut_is_on_stable_storage_before_the_log_is_open() {
    let (_, one, bytes) = written();
    let disk = MemoryDisk::holding(&bytes[..bytes.len() - 1]);
    drop(open(&disk, Durability::Always));
    let cut = disk.contents();
    disk.lose_power();
    assert_eq!(disk.contents(), cut);
    assert_eq!(frames_of(&open(&disk, Durability::Always), ONE), one[..1]);
}

#[test]
fn a_new_file_has_a_durable_name_before_the_log_is_open() {
    let disk = MemoryDisk::empty();
    drop(open(&disk, Durability::Always));
    assert_eq!(disk.change(|state| state.directory_syncs), 1);
}

#[test]
fn damage_before_the_last_line_is_refused_with_its_line_and_nothing_is_cut() {
    let (_, _, bytes) = written();
    for number in 1..7 {
        let position = position_of_line(&bytes, number);
        let mut damaged = bytes.clone();
        damaged[position] = b'#';
        let message = refusal(&damaged);
        let place = format!("line {number} (byte {position}) is damaged: it is not JSON");
        assert!(message.contains(&place), "{message}");
    }
}

#[test]
fn a_missing_doubled_or_moved_line_is_refused_with_its_line() {
    let (_, _, bytes) = written();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let file = |numbers: &[usize]| {
        numbers
            .iter()
            .map(|n| lines[n - 1])
            .collect::<Vec<_>>()
            .concat()
    };
    for (numbers, line, reason) in [
        (
            &[2, 3, 4, 5, 6, 7][..],
            3,
            "offset 1 of partition 0 where 0 is next",
        ),
        (
            &[1, 1, 2, 3][..],
            2,
            "offset 0 of partition 0 where 1 is next",
        ),
        (
            &[1, 3, 2, 4][..],
            2,
            "record 1 of a frame whose start is not before it",
        ),
        (&[1, 2, 4, 3][..], 3, "has 1 of its 2 records before it"),
        (
            &[1, 4, 5, 6, 7][..],
            3,
            "offset 2 of partition 1 where 0 is next",
        ),
    ] {
        let message = refusal(&file(numbers));
        assert!(message.contains(&format!("line {line} ")), "{message}");
        assert!(message.contains(reason), "{message}");
    }
}

#[test]
fn a_line_that_is_json_but_no_record_of_this_log_is_refused_even_at_the_end() {
    let (_, _, bytes) = written();
    let text = String::from_utf8(bytes).unwrap();
    let first = text.lines().next().unwrap();
    for (from, to, reason) in [
        ("\"partition\":0", "\"partition\":2", "the log has 2"),
        ("\"offset\":0", "\"offset\":-1", "it is not a record"),
        (
            "\"codec\":2",
            "\"codec\":2,\"frame\":[0,0]",
            "its frame has 0 records",
        ),
        (
            "\"codec\":2",
            "\"codec\":2,\"previous\":0",
            "`previous` is not before",
        ),
        ("\"order_id\":\"07", "\"order_id\":\"x7", "expected a UUID"),
        ("1970-01-01", "1970-01-32", "expected a time in UTC"),
        ("\"type_id\":1,", "", "missing field `type_id`"),
    ] {
        let line = first.replacen(from, to, 1);
        assert_ne!(line, first, "the line has {from}");
        let message = refusal(format!("{line}\n").as_bytes());
        assert!(message.contains("line 1 (byte 0)"), "{message}");
        assert!(message.contains(reason), "{message}");
    }
    let earlier = text
        .lines()
        .nth(3)
        .unwrap()
        .replacen("00.000012Z", "00.000009Z", 1);
    let message = refusal(format!("{first}\n{earlier}\n").as_bytes());
    assert!(message.contains("line 2 "), "{message}");
    assert!(message.contains("its time is before"), "{message}");
    let long = format!("{first}\n{}\n", " ".repeat(3 * 1024 * 1024));
    let message = refusal(long.as_bytes());
    assert!(message.contains("longer than any record"), "{message}");
}

#[test]
fn a_line_that_does_not_agree_with_the_rest_of_its_frame_is_refused() {
    let (_, _, bytes) = written();
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<_> = text.lines().collect();
    // The second line of the last frame.
    for (from, to) in [
        ("\"order_id\":\"07", "\"order_id\":\"08"),
        ("\"version\":2", "\"version\":3"),
        ("00.000013Z", "00.000014Z"),
        ("\"codec\":2", "\"codec\":2,\"previous\":0"),
        ("\"frame\":[1,3]", "\"frame\":[2,3]"),
        ("\"frame\":[1,3]", "\"frame\":[1,2]"),
        ("\"frame\":[1,3]", "\"frame\":[0,3]"),
        (
            "\"partition\":1,\"offset\":3",
            "\"partition\":0,\"offset\":2",
        ),
    ] {
        let changed = lines[5].replacen(from, to, 1);
        assert_ne!(changed, lines[5], "the line has {from}");
        let all = [&lines[..5], &[changed.as_str()], &lines[6..]].concat();
        let message = refusal(format!("{}\n", all.join("\n")).as_bytes());
        assert!(message.contains("line 6 "), "{message}");
        assert!(
            message.contains("has 1 of its 3 records before it"),
            "{message}"
        );
    }
}

#[test]
fn a_file_of_other_makers_is_read_whatever_the_order_and_spelling_of_its_fields() {
    let line = r#" {"frame":[0,1], "codec":2,"schema":1,"type_id":1,"extra":{"x":[1]},"data": {"a" : "\u00fc"} ,"time":"1970-01-01T00:00:00.01Z","version":1,"order_id":"\u00300000000-0000-0000-0000-0000000000AB","offset":0,"partition":0}"#;
    let disk = MemoryDisk::holding(format!("{line}\r\n").as_bytes());
    let mut expected = Model::of(10_000, &[r#"{"a" : "\u00fc"}"#]);
    expected.key = [0; 16];
    expected.key[15] = 0xab;
    assert_eq!(
        frames_of(&open(&disk, Durability::Always), ZERO),
        [expected]
    );
}

#[test]
fn reading_only_changes_nothing_and_stops_before_a_torn_tail() {
    let (zero, one, bytes) = written();
    let torn = &bytes[..bytes.len() - 1];
    let disk = MemoryDisk::holding(torn);
    let as_disk: Arc<dyn Disk> = Arc::clone(&disk) as _;
    let config = config(Path::new(PATH), Durability::Always);
    let log = JsonlLog::open_read_only(config, &as_disk).unwrap();
    assert_eq!(frames_of(&log, ZERO), zero);
    assert_eq!(frames_of(&log, ONE), one[..1]);
    assert!(matches!(log.writer(ZERO), Err(LogError::Io { .. })));
    assert!(log.status()[0].unwritable.is_some());
    assert_eq!(disk.contents(), torn);
    assert_eq!(
        disk.change(|state| (state.writes, state.syncs_begun)),
        (0, 0)
    );
}

#[test]
fn a_line_damaged_while_the_log_is_open_stops_the_scan_at_it() {
    let (_, one, bytes) = written();
    let disk = MemoryDisk::holding(&bytes);
    let log = open(&disk, Durability::Always);
    let position = position_of_line(&bytes, 6);
    disk.change(|state| state.cache[position + 20] = b'\n');
    let mut visited = 0;
    let error = log
        .reader(ONE)
        .unwrap()
        .scan(Offset::ZERO, ScanLimit::NONE, &mut |frame| {
            assert_eq!(frame.len(), one[visited].records.len() as u64);
            visited += 1;
            ControlFlow::Continue(())
        })
        .unwrap_err();
    assert_eq!(visited, 1);
    let LogError::Damaged {
        partition,
        position: found,
        offset,
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((partition, found), (ONE, position as u64));
    assert_eq!(offset, Offset::new(3));
}

proptest! {
    #[test]
    fn a_changed_byte_anywhere_is_never_a_panic_nor_a_gap(at: prop::sample::Index, to: u8) {
        let (_, _, mut bytes) = written();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(log) = try_open(&MemoryDisk::holding(&bytes), Durability::Always) {
            // Gaps would show here.
            prop_assert!(frames_of(&log, ZERO).len() <= 2);
            prop_assert!(frames_of(&log, ONE).len() <= 2);
        }
    }

    #[test]
    fn no_file_is_worth_a_panic(bytes: Vec<u8>, lines in "([{}\\[\\]\":,0-9a-z]{0,30}\n){0,5}") {
        for bytes in [bytes, lines.into_bytes()] {
            if let Ok(log) = try_open(&MemoryDisk::holding(&bytes), Durability::Always) {
                prop_assert!(frames_of(&log, ZERO).is_empty());
            }
        }
    }
}
