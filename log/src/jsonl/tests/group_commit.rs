//! Who syncs, and what is visible when. Goal: one sync serves everybody who wrote before it, and nothing is visible
//! before its sync. Method: a disk whose syncs are held and counted.

use std::time::Duration;

use super::memory_disk::MemoryDisk;
use super::*;

/// Only a hang reaches it.
const HANG: Duration = Duration::from_secs(120);
/// Longer than any test: whatever syncs before is not the interval.
const NEVER: Duration = Duration::from_secs(60);

#[test]
fn writers_that_come_during_a_sync_share_the_next_one() {
    let disk = MemoryDisk::empty();
    let as_disk: Arc<dyn Disk> = Arc::clone(&disk) as _;
    let mut config = config(Path::new(PATH), Durability::Always);
    config.partitions = 4;
    let log = JsonlLog::open(config, &as_disk).unwrap();
    let mut writers: Vec<_> = (0..4)
        .map(|partition| log.writer(PartitionId::new(partition)).unwrap())
        .collect();
    let before = disk.change(|state| state.syncs_begun);
    disk.hold_syncs();
    let frame = [Model::of(1, &["1"])];
    let append = |writer: &mut Box<dyn PartitionWriter>| append(&mut **writer, &frame);
    std::thread::scope(|scope| {
        let mut writers = writers.iter_mut();
        let first = writers.next().unwrap();
        scope.spawn(move || append(first));
        disk.wait_until(|state| state.syncs_begun == before + 1);
        let writes = disk.change(|state| state.writes);
        for writer in writers {
            scope.spawn(move || append(writer));
        }
        disk.wait_until(|state| state.writes == writes + 3);
        disk.let_one_sync_through();
        disk.wait_until(|state| state.syncs_begun == before + 2);
        disk.let_one_sync_through();
    });
    assert_eq!(disk.change(|state| state.syncs_begun), before + 2);
    for status in log.status() {
        assert_eq!(status.durable_end, Offset::new(1));
    }
}

#[test]
fn readers_do_not_see_what_is_not_synced() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut writer = log.writer(ZERO).unwrap();
    let reader = log.reader(ZERO).unwrap();
    let syncs = disk.change(|state| state.syncs_begun);
    disk.hold_syncs();
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| append(&mut *writer, &[Model::of(1, &["1"])]));
        disk.wait_until(|state| state.syncs_begun == syncs + 1);
        assert_eq!(frames_of(&log, ZERO), []);
        assert_eq!(reader.durable_end(), Offset::ZERO);
        assert_eq!(log.status()[0].active_segment_bytes, 0);
        assert!(!appending.is_finished());
        disk.let_one_sync_through();
        assert_eq!(reader.wait_beyond(Offset::ZERO, HANG), Offset::new(1));
        assert_eq!(frames_of(&log, ZERO).len(), 1);
    });
}

#[test]
fn without_waiting_for_syncs_an_append_is_visible_after_the_background_sync_only() {
    for durability in [
        Durability::Interval(Duration::from_millis(1)),
        Durability::Os,
    ] {
        let disk = MemoryDisk::empty();
        let log = open(&disk, durability);
        let mut writer = log.writer(ZERO).unwrap();
        let reader = log.reader(ZERO).unwrap();
        disk.hold_syncs();
        // Twice: the background goes on.
        for end in [2, 4] {
            append(&mut *writer, &[Model::of(end, &["1", "2"])]);
            // Returned, though no sync has been let through.
            let seen = Offset::new(end - 2);
            assert_eq!(reader.durable_end(), seen);
            disk.let_one_sync_through();
            assert_eq!(reader.wait_beyond(seen, HANG), Offset::new(end));
        }
        let frames = frames_of(&log, ZERO);
        assert_eq!(frames.len(), 2);
        disk.lose_power();
        assert_eq!(frames_of(&open_freely(&disk), ZERO), frames);
        disk.change(|state| state.syncs_let_through_for_good());
    }
}

fn open_freely(disk: &Arc<MemoryDisk>) -> JsonlLog {
    let copy = MemoryDisk::holding(&disk.contents());
    open(&copy, Durability::Always)
}

#[test]
fn closing_syncs_and_so_does_letting_go_of_the_log() {
    let closes: [fn(Box<dyn PartitionWriter>); 2] =
        [|mut writer| writer.close().unwrap(), |writer| drop(writer)];
    for close in closes {
        let disk = MemoryDisk::empty();
        let log = open(&disk, Durability::Interval(NEVER));
        let mut writer = log.writer(ZERO).unwrap();
        append(&mut *writer, &[Model::of(1, &["1"])]);
        drop(log);
        close(writer);
        disk.lose_power();
        assert_eq!(frames_of(&open_freely(&disk), ZERO).len(), 1);
    }
}

#[test]
fn closing_what_is_synced_syncs_nothing() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut writer = log.writer(ZERO).unwrap();
    append(&mut *writer, &[Model::of(1, &["1"])]);
    let syncs = disk.change(|state| state.syncs_begun);
    writer.idle().unwrap();
    writer.close().unwrap();
    let nothing = batch(writer.end(), &[]);
    writer.append(&nothing).unwrap();
    assert_eq!(disk.change(|state| state.syncs_begun), syncs);
}
