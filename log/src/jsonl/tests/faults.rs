//! Disks that fill and break. Goal: a full disk costs nothing but the refused batch; any other failure ends writing for
//! good, and nobody is told that something is stored which is not. Method: faults on demand.

use super::memory_disk::MemoryDisk;
use super::*;
use crate::LogError;

#[test]
fn a_full_disk_refuses_the_batch_leaves_nothing_of_it_and_takes_the_next_when_there_is_room() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut writer = log.writer(ZERO).unwrap();
    let mut other = log.writer(ONE).unwrap();
    let frame = Model::of(1, &["1", "2"]);
    append(&mut *writer, std::slice::from_ref(&frame));
    let before = disk.contents();
    // Wherever the disk is full, down to the last byte that misses.
    for room in 0..before.len() {
        disk.change(|state| state.bytes_max = Some(before.len() + room));
        let refused = writer
            .append(&batch(writer.end(), std::slice::from_ref(&frame)))
            .unwrap_err();
        let LogError::StorageFull { partition, path } = refused else {
            panic!("{refused}");
        };
        assert_eq!((partition, &*path), (ZERO, Path::new("data")));
        assert_eq!(disk.contents(), before);
        assert_eq!(writer.end(), Offset::new(2));
    }
    disk.change(|state| state.bytes_max = None);
    append(&mut *other, std::slice::from_ref(&frame));
    append(&mut *writer, std::slice::from_ref(&frame));
    disk.lose_power();
    let log = open(&disk, Durability::Always);
    assert_eq!(frames_of(&log, ZERO), [frame.clone(), frame.clone()]);
    assert_eq!(frames_of(&log, ONE), [frame]);
}

#[test]
fn a_full_disk_that_cannot_be_cut_back_poisons() {
    for sync_fails in [false, true] {
        let disk = MemoryDisk::empty();
        let log = open(&disk, Durability::Always);
        let mut writer = log.writer(ZERO).unwrap();
        disk.change(|state| {
            state.bytes_max = Some(10);
            state.fails_cuts = !sync_fails;
            state.fails_syncs = sync_fails;
        });
        let first = writer.append(&batch(Offset::ZERO, &[Model::of(1, &["1"])]));
        assert_in_doubt(first, ZERO);
        assert_poisoned(&log, &disk);
    }
}

#[test]
fn a_failed_write_poisons_every_partition() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut writer = log.writer(ONE).unwrap();
    append(&mut *writer, &[Model::of(1, &["1"])]);
    disk.change(|state| state.fails_writes = true);
    let failed = writer.append(&batch(writer.end(), &[Model::of(2, &["2"])]));
    assert_in_doubt(failed, ONE);
    assert_refused(&mut *writer);
    disk.change(|state| state.fails_writes = false);
    assert_poisoned(&log, &disk);
    assert_eq!(frames_of(&log, ONE), [Model::of(1, &["1"])]);
}

#[test]
fn a_failed_sync_is_unknown_to_everybody_it_was_for_and_poisons_the_rest() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut zeros = log.writer(ZERO).unwrap();
    let mut ones = log.writer(ONE).unwrap();
    let (syncs, writes) = disk.change(|state| (state.syncs_begun, state.writes));
    disk.hold_syncs();
    let frame = [Model::of(1, &["1"])];
    std::thread::scope(|scope| {
        let zero = scope.spawn(|| zeros.append(&batch(Offset::ZERO, &frame)));
        disk.wait_until(|state| state.syncs_begun == syncs + 1);
        let one = scope.spawn(|| ones.append(&batch(Offset::ZERO, &frame)));
        disk.wait_until(|state| state.writes == writes + 2);
        disk.change(|state| state.fails_syncs = true);
        disk.let_one_sync_through();
        assert_in_doubt(zero.join().unwrap(), ZERO);
        assert_in_doubt(one.join().unwrap(), ONE);
    });
    // Never tried again: the second answer would be worth nothing.
    assert_eq!(disk.change(|state| state.syncs_begun), syncs + 1);
    disk.change(|state| {
        state.fails_syncs = false;
        state.syncs_let_through_for_good();
    });
    for writer in [&mut zeros, &mut ones] {
        assert_refused(&mut **writer);
    }
    for partition in [ZERO, ONE] {
        assert_eq!(frames_of(&log, partition), []);
    }
    assert!(
        log.status()
            .iter()
            .all(|status| status.unwritable.as_deref() == Some("simulated fault"))
    );
}

#[test]
fn a_write_that_fails_during_a_sync_leaves_the_sync_in_doubt_however_it_ends() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut zeros = log.writer(ZERO).unwrap();
    let mut ones = log.writer(ONE).unwrap();
    let syncs = disk.change(|state| state.syncs_begun);
    let frame = [Model::of(1, &["1"])];
    disk.hold_syncs();
    std::thread::scope(|scope| {
        let zero = scope.spawn(|| zeros.append(&batch(Offset::ZERO, &frame)));
        disk.wait_until(|state| state.syncs_begun == syncs + 1);
        disk.change(|state| state.fails_writes = true);
        assert_in_doubt(ones.append(&batch(Offset::ZERO, &frame)), ONE);
        // The kernel tells an error once: the failed operation may have had the sync's.
        disk.let_one_sync_through();
        assert_in_doubt(zero.join().unwrap(), ZERO);
    });
    assert_eq!(frames_of(&log, ZERO), []);
}

#[test]
fn a_failed_background_sync_poisons_as_well() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Os);
    let mut writer = log.writer(ZERO).unwrap();
    let syncs = disk.change(|state| {
        state.fails_syncs = true;
        state.syncs_ended
    });
    append(&mut *writer, &[Model::of(1, &["1"])]);
    disk.wait_until(|state| state.syncs_ended > syncs);
    // Closing meets the failure as it happens or right after.
    let closed = writer.close().unwrap_err();
    assert!(
        matches!(
            closed,
            LogError::Poisoned { .. } | LogError::OutcomeUnknown { .. }
        ),
        "{closed}"
    );
    assert_refused(&mut *writer);
}

#[test]
fn what_is_visible_after_reopening_survives_a_power_loss_even_after_a_failed_sync() {
    let disk = MemoryDisk::empty();
    let log = open(&disk, Durability::Always);
    let mut writer = log.writer(ZERO).unwrap();
    append(&mut *writer, &[Model::of(1, &["1"])]);
    disk.change(|state| state.fails_syncs = true);
    let failed = writer.append(&batch(writer.end(), &[Model::of(2, &["2"])]));
    assert_in_doubt(failed, ZERO);
    disk.change(|state| state.fails_syncs = false);
    drop((writer, log));
    // The cache has the second frame and calls it clean; the disk never got it.
    let log = open(&disk, Durability::Always);
    assert_eq!(frames_of(&log, ZERO).len(), 2);
    append(&mut *log.writer(ZERO).unwrap(), &[Model::of(3, &["3"])]);
    let seen = frames_of(&log, ZERO);
    disk.lose_power();
    assert_eq!(frames_of(&open(&disk, Durability::Always), ZERO), seen);
}

fn assert_in_doubt(outcome: Result<crate::Appended, LogError>, expected: PartitionId) {
    match outcome {
        Err(LogError::OutcomeUnknown { partition, .. }) => assert_eq!(partition, expected),
        other => panic!("the outcome is unknown, not {other:?}"),
    }
}

fn assert_refused(writer: &mut dyn PartitionWriter) {
    let refused = writer.append(&batch(writer.end(), &[Model::of(9, &["9"])]));
    for refused in [refused.map(drop), writer.idle(), writer.close()] {
        assert!(
            matches!(refused, Err(LogError::Poisoned { .. })),
            "{refused:?}"
        );
    }
}

/// Nobody can write any more, nothing is written, and the status says why.
fn assert_poisoned(log: &JsonlLog, disk: &MemoryDisk) {
    disk.change(|state| {
        state.bytes_max = None;
        state.fails_cuts = false;
        state.fails_syncs = false;
    });
    let (bytes, writes) = (disk.contents(), disk.change(|state| state.writes));
    let mut writer = log.writer(ZERO).or_else(|_| log.writer(ONE)).unwrap();
    assert_refused(&mut *writer);
    assert_eq!(disk.contents(), bytes);
    assert_eq!(disk.change(|state| state.writes), writes);
    assert!(
        log.status()
            .iter()
            .all(|status| status.unwritable.is_some())
    );
}
