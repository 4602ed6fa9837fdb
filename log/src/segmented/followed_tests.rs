//! A log followed from outside, against the frames its writer remembers: what was synced is seen, at once and whole;
//! what was not is never seen, whatever the file of told ends holds.
//!
//! Method: writer and follower are two logs on the same files, as two processes would have them; kills are logs that are
//! forgotten without being closed.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::followed::FollowedLog;
use super::tests::{Fixture, P0, Remembered, append, read_from};
use super::*;
use crate::disk::RealDisk;
use crate::shared_cells::CellsOwner;

/// Longer than anything here takes: who waits this long has missed a wake-up.
const FOR_EVER: Duration = Duration::from_secs(60);

fn told_file(fixture: &Fixture) -> PathBuf {
    fixture.config().directory.join("durable-end")
}

fn open_told(fixture: &Fixture) -> SegmentedLog {
    let config = SegmentedConfig {
        followed: true,
        segment_bytes_first: 4096,
        ..fixture.config()
    };
    SegmentedLog::open(config, Arc::new(RealDisk)).unwrap()
}

fn follow(fixture: &Fixture) -> Box<dyn PartitionReader> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let log = FollowedLog::open(&fixture.config(), &disk).unwrap();
    assert!(matches!(log.writer(P0), Err(LogError::ReadOnly)));
    log.reader(P0).unwrap()
}

/// Everything a follower shows.
fn shown(reader: &dyn PartitionReader) -> Vec<Remembered> {
    read_from(reader, reader.start()).unwrap()
}

#[test]
fn a_follower_sees_every_append_through_rolls_and_restarts_of_the_writer() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    drop(open_told(&fixture));
    let follower = follow(&fixture);
    for _ in 0..3 {
        let log = open_told(&fixture);
        let mut writer = log.writer(P0).unwrap();
        for frames in [1, 3, 40, 200] {
            let appended = append(&mut *writer, &vec![vec![100, 300]; frames], &mut model).unwrap();
            assert_eq!(follower.durable_end(), appended.end);
            assert_eq!(shown(&*follower), model);
        }
        // A kill: nothing is closed.
        std::mem::forget((writer, log));
        assert_eq!(shown(&*follow(&fixture)), model);
    }
    assert!(fixture.segments().len() > 3, "the test must roll");
}

#[test]
fn whoever_waits_for_another_process_is_woken_by_it() {
    let fixture = Fixture::new();
    let log = open_told(&fixture);
    let mut writer = log.writer(P0).unwrap();
    let follower = follow(&fixture);
    let seen = std::thread::spawn(move || {
        let mut ends = vec![follower.durable_end()];
        while ends.len() <= 50 {
            let last = ends[ends.len() - 1];
            let end = follower.wait_beyond(last, FOR_EVER);
            assert!(end > last, "nobody waits for ever");
            ends.push(end);
        }
    });
    let mut model = Vec::new();
    // As many as it takes: several appends may pass between two looks.
    for _ in 0..1_000_000 {
        if seen.is_finished() {
            break;
        }
        append(&mut *writer, &[vec![10]], &mut model).unwrap();
    }
    seen.join().unwrap();
}

#[test]
fn a_wait_for_nothing_ends_with_its_timeout() {
    let fixture = Fixture::new();
    drop(open_told(&fixture));
    let follower = follow(&fixture);
    let end = follower.wait_beyond(Offset::ZERO, Duration::from_millis(1));
    assert_eq!(end, Offset::ZERO);
    fs::remove_file(told_file(&fixture)).unwrap();
    let follower = follow(&fixture);
    let end = follower.wait_beyond(Offset::ZERO, Duration::from_millis(1));
    assert_eq!(end, Offset::ZERO);
}

#[test]
fn what_is_not_synced_is_not_shown() {
    let mut fixture = Fixture::new();
    // The background sync comes within the hour.
    fixture.durability = Durability::Interval(Duration::from_secs(3600));
    let mut model = Vec::new();
    let log = open_told(&fixture);
    let mut writer = log.writer(P0).unwrap();
    let running = follow(&fixture);
    append(&mut *writer, &vec![vec![50]; 10], &mut model).unwrap();
    assert_eq!(shown(&*running), []);
    assert_eq!(shown(&*follow(&fixture)), []);
    writer.idle().unwrap();
    assert_eq!(shown(&*running), model);

    // Killed with frames in the page cache: they may be on the disk or not, so nobody sees them until a writer has
    // recovered them.
    let synced = model.clone();
    append(&mut *writer, &vec![vec![60]; 10], &mut model).unwrap();
    std::mem::forget((writer, log));
    assert_eq!(shown(&*running), synced);
    assert_eq!(shown(&*follow(&fixture)), synced);
    let log = open_told(&fixture);
    assert_eq!(shown(&*running), model);
    drop(log);
}

#[test]
fn without_the_told_ends_the_frames_say_how_far_they_were_synced() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &vec![vec![50]; 10], &mut model).unwrap();
    let first = model.clone();
    append(&mut *writer, &[vec![70]], &mut model).unwrap();
    assert!(!told_file(&fixture).exists());
    // The second batch says that the first was synced; that the second was, nothing says yet.
    assert_eq!(shown(&*follow(&fixture)), first);
    writer.idle().unwrap();
    assert_eq!(shown(&*follow(&fixture)), model);
}

#[test]
fn a_follower_that_came_first_finds_the_told_ends_when_they_come() {
    let fixture = Fixture::new();
    drop(fixture.open());
    let follower = follow(&fixture);
    assert_eq!(follower.durable_end(), Offset::ZERO);
    let log = open_told(&fixture);
    let mut writer = log.writer(P0).unwrap();
    let mut model = Vec::new();
    append(&mut *writer, &[vec![5]], &mut model).unwrap();
    let end = follower.wait_beyond(Offset::ZERO, FOR_EVER);
    assert_eq!(end, writer.end());
    assert_eq!(shown(&*follower), model);
}

#[test]
fn a_log_that_is_not_there_is_an_error_and_nothing_is_made() {
    let fixture = Fixture::new();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let refused = FollowedLog::open(&fixture.config(), &disk).unwrap_err();
    assert!(matches!(refused, LogError::Io { .. }), "{refused}");
    assert!(!fixture.config().directory.exists());
    fs::create_dir_all(fixture.config().directory.join("p000")).unwrap();
    let refused = FollowedLog::open(&fixture.config(), &disk).unwrap_err();
    assert!(refused.to_string().contains("no segment yet"), "{refused}");
}

#[test]
fn an_end_beyond_the_log_is_not_believed_until_a_writer_of_another_epoch_tells_one() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = open_told(&fixture);
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &vec![vec![50]; 10], &mut model).unwrap();
    writer.close().unwrap();
    drop((writer, log));
    // As if the log had been longer once, and was brought back from a backup.
    let config = fixture.config();
    let owner = CellsOwner::open(&told_file(&fixture), config.log_id, 1, 1).unwrap();
    owner.tell(0, || 1_000_000).unwrap();
    let follower = follow(&fixture);
    assert_eq!(shown(&*follower), model);
    drop(owner);
    let log = open_told(&fixture);
    let mut writer = log.writer(P0).unwrap();
    append(&mut *writer, &[vec![5]], &mut model).unwrap();
    assert_eq!(shown(&*follower), model);
}

#[test]
fn damage_below_the_told_end_is_told_and_nothing_behind_it_is_shown() {
    let fixture = Fixture::new();
    let mut model = Vec::new();
    let log = open_told(&fixture);
    let mut writer = log.writer(P0).unwrap();
    for _ in 0..3 {
        append(&mut *writer, &[vec![50]], &mut model).unwrap();
    }
    let follower = follow(&fixture);
    let path = &fixture.segments()[0];
    let mut bytes = fs::read(path).unwrap();
    // The second frame's body.
    let second = crate::layout::SEGMENT_HEADER_BYTES + crate::layout::frame_bytes(8 + 50) + 100;
    bytes[second] ^= 1;
    fs::write(path, &bytes).unwrap();
    let damaged = read_from(&*follower, Offset::ZERO).unwrap_err();
    assert!(matches!(damaged, LogError::Damaged { .. }), "{damaged}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_in_the_file_of_told_ends_show_more_than_was_synced(
        garbage in proptest::collection::vec(any::<u8>(), 64),
        length in 0_usize..130,
    ) {
        let mut fixture = Fixture::new();
        fixture.durability = Durability::Interval(Duration::from_secs(3600));
        let mut model = Vec::new();
        let log = fixture.open();
        let mut writer = log.writer(P0).unwrap();
        append(&mut *writer, &[vec![50]], &mut model).unwrap();
        writer.idle().unwrap();
        let synced = model.clone();
        append(&mut *writer, &[vec![60]], &mut model).unwrap();
        let mut bytes = garbage;
        bytes.resize(length, 0);
        fs::write(told_file(&fixture), bytes).unwrap();
        prop_assert_eq!(shown(&*follow(&fixture)), synced);
    }
}
