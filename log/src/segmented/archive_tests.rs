//! Archived segments against the frames that were appended: read in place from anywhere, damage named, and a log that
//! opens without touching them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::tests::{Fixture, P0, Remembered, append, read_all, read_from};
use super::*;
use crate::disk::RealDisk;

/// A closed log of several segments.
fn closed(fixture: &Fixture) -> Vec<Remembered> {
    let mut model = Vec::new();
    let log = fixture.open();
    let mut writer = log.writer(P0).unwrap();
    for _ in 0..30 {
        append(&mut *writer, &vec![vec![500]; 200], &mut model).unwrap();
    }
    assert!(fixture.segments().len() > 3, "the test must roll");
    model
}

/// Archives every sealed segment.
fn archive(fixture: &Fixture) -> Vec<Archived> {
    let log = SegmentedLog::open_read_only(fixture.config(), Arc::new(RealDisk)).unwrap();
    let sealed = log.segments().unwrap().into_iter();
    sealed
        .filter(|segment| segment.sealed_at.is_some())
        .map(|segment| archive_segment(&fixture.config(), &RealDisk, P0, segment.base).unwrap())
        .collect()
}

fn archives(fixture: &Fixture) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(fixture.directory.path().join("log/p000"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "zst"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn an_archived_log_reads_the_same_from_every_frame_and_at_every_time() {
    let fixture = Fixture::new();
    let mut model = closed(&fixture);
    let sealed = fixture.segments().len() - 1;
    for archived in archive(&fixture) {
        assert!(archived.bytes_after * 2 < archived.bytes_before);
    }
    assert_eq!(
        (archives(&fixture).len(), fixture.segments().len()),
        (sealed, 1)
    );

    let log = fixture.open();
    assert_eq!(read_all(&log).unwrap(), model);
    let reader = log.reader(P0).unwrap();
    for at in (0..model.len()).rev().step_by(397) {
        let base = Offset::new(model[at].base);
        assert_eq!(read_from(&*reader, base).unwrap(), model[at..]);
        let time = AppendTime::from_micros(model[at].time);
        let expected = model
            .iter()
            .find(|frame| frame.time >= time.as_micros())
            .map(|frame| Offset::new(frame.base));
        assert_eq!(Some(reader.seek_time(time).unwrap()), expected);
    }
    assert_eq!(fixture.verify().findings, []);
    append(&mut *log.writer(P0).unwrap(), &[vec![3]], &mut model).unwrap();
    drop((reader, log));
    assert_eq!(read_all(&fixture.open()).unwrap(), model);
}

#[test]
fn an_archived_log_needs_no_repair_and_the_scrub_reads_it() {
    let fixture = Fixture::new();
    closed(&fixture);
    archive(&fixture);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let plan = SegmentedLog::plan_repair(&fixture.config(), &disk, &[], &mut |_| {}).unwrap();
    assert!(plan.is_empty(), "{plan:?}");

    let scrubbed = |log: &SegmentedLog| {
        let scrub = log.start_scrub(std::num::NonZeroU64::MAX).unwrap().unwrap();
        for _ in 0..60_000 {
            let status = scrub.status();
            if status.passes > 0 {
                return status.damaged;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("no pass in a minute");
    };
    let log = fixture.open();
    assert_eq!(scrubbed(&log), []);
    let path = archives(&fixture).remove(1);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damaged = scrubbed(&log);
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert!(damaged[0].reason.contains("archive"), "{damaged:?}");

    // What an archive lost is lost whole: nothing is changed, and the file is named.
    drop(log);
    let refused = SegmentedLog::plan_repair(&fixture.config(), &disk, &[], &mut |_| {});
    match refused {
        Err(LogError::Incompatible { path: named, .. }) => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_whose_segments_are_archived_under_it_reads_on() {
    let fixture = Fixture::new();
    let model = closed(&fixture);
    let log = SegmentedLog::open_read_only(fixture.config(), Arc::new(RealDisk)).unwrap();
    archive(&fixture);
    assert_eq!(read_all(&log).unwrap(), model);
}

#[test]
fn every_changed_byte_of_an_archive_is_named_or_harmless() {
    let fixture = Fixture::new();
    let model = closed(&fixture);
    archive(&fixture);
    let path = archives(&fixture).remove(0);
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        fs::write(&path, &changed).unwrap();
        // The log opens in any case: what is sealed is not looked at.
        match read_all(&fixture.open()) {
            Ok(found) => assert_eq!(found, model, "byte {at}"),
            Err(LogError::Damaged { path: named, .. }) => assert_eq!(named, path, "byte {at}"),
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let report = fixture.verify();
    assert!(report.is_damaged());
    assert_eq!(report.findings[0].path, path);
}

#[test]
fn a_damaged_segment_is_not_archived() {
    let fixture = Fixture::new();
    closed(&fixture);
    let path = fixture.segments().remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = archive_segment(&fixture.config(), &RealDisk, P0, Offset::ZERO);
    assert!(
        matches!(refused, Err(LogError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(
        (fs::read(&path).unwrap(), archives(&fixture)),
        (bytes, Vec::new())
    );
}

#[test]
fn zstd_itself_gives_the_segment_back() {
    let fixture = Fixture::new();
    closed(&fixture);
    let segment = fs::read(fixture.segments().remove(0)).unwrap();
    archive(&fixture);
    let archive = fs::read(archives(&fixture).remove(0)).unwrap();
    assert_eq!(zstd::stream::decode_all(&*archive).unwrap(), segment);
    // The tool of that name, where it is installed.
    if let Ok(told) = Command::new("zstd")
        .arg("-dc")
        .arg(&archives(&fixture)[0])
        .output()
    {
        assert_eq!(told.stdout, segment);
    }
}

#[test]
fn unpacked_blocks_are_kept_within_their_bound() {
    let cache = archive::BlockCache::default();
    let mut unpacked = 0;
    let mut get = |number: usize| {
        cache
            .get((0, 0, number), || {
                unpacked += 1;
                Ok(vec![0; 8 * 1024 * 1024])
            })
            .unwrap();
    };
    (0..4).for_each(&mut get);
    // All four are there; a fifth takes the place of the one that was used longest ago.
    get(0);
    get(4);
    get(0);
    get(1);
    assert_eq!(unpacked, 6);
}
