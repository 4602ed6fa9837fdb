//! Repair on a disk that loses power: whatever is damaged and wherever the repair is cut short, every frame that is not
//! listed as lost is there at its old offset, damaged files are kept aside, and the log goes on.
//!
//! Method: a log of several segments on the simulated disk, remembered frame by frame; damage by hand; a repair that loses
//! power at every one of its operations in turn, and is run again; then appends, a power loss, and recovery.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::salvage::{End, salvage};
use super::segment::Segment;
use super::{Preparation, RepairPlan, SegmentedConfig, SegmentedLog};
use crate::disk::Disk;
use crate::disk::simulated::{Fault, Random, SimulatedDisk};
use crate::layout::{Identity, SEGMENT_HEADER_BYTES};
use crate::{
    AppendTime, Batch, Durability, EventLog, Key, LogError, Offset, PartitionId, PartitionReader,
    RecordTag, ScanLimit,
};

const P0: PartitionId = PartitionId::new(0);
const LOG_ID: [u8; 16] = [5; 16];

fn config() -> SegmentedConfig {
    SegmentedConfig {
        segment_bytes_first: 16 * 1024,
        segment_bytes_max: 16 * 1024,
        preparation: Preparation::Inline,
        ..SegmentedConfig::new(PathBuf::from("/data/log"), LOG_ID, 1, Durability::Always)
    }
}

/// A frame: base offset, key, bytes of its only record.
type Remembered = (u64, u8, Vec<u8>);

fn record(serial: u64) -> Vec<u8> {
    let mut random = Random(serial);
    let length = 40 + usize::try_from(random.below(60)).unwrap() * 8;
    (0..length)
        .map(|_| random.next().to_le_bytes()[0])
        .collect()
}

fn open(disk: &SimulatedDisk) -> Result<SegmentedLog, LogError> {
    SegmentedLog::open(config(), Arc::new(disk.clone()) as Arc<dyn Disk>)
}

/// Appends `count` frames of one record, one a batch, each with the offset of its key's frame before it.
fn append(log: &SegmentedLog, count: u64, model: &mut Vec<Remembered>) -> Result<(), LogError> {
    let mut writer = log.writer(P0)?;
    for _ in 0..count {
        let base = writer.end();
        let key = u8::try_from(base.get() % 7).unwrap();
        let previous = model.iter().rev().find(|frame| frame.1 == key);
        let mut batch = Batch::new();
        batch.start_at(base);
        let sequence = u32::try_from(base.get() / 7 + 1).unwrap();
        let time = writer.last_append_time().as_micros() + 10;
        batch.begin_frame(
            Key::new([key; 16]),
            sequence,
            previous.map(|frame| Offset::new(frame.0)),
            AppendTime::from_micros(time),
        );
        batch.record(|bytes| {
            bytes.extend_from_slice(&record(base.get()));
            RecordTag {
                event_type: 1,
                schema: 1,
                codec: 1,
            }
        });
        batch.end_frame();
        writer.append(&batch)?;
        model.push((base.get(), key, record(base.get())));
    }
    writer.idle()
}

/// A closed log of several sealed segments and one that is written.
fn sound() -> (SimulatedDisk, Vec<Remembered>) {
    let disk = SimulatedDisk::new();
    disk.create_directory(Path::new("/data")).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    let mut model = Vec::new();
    let log = open(&disk).unwrap();
    append(&log, 150, &mut model).unwrap();
    assert!(segments(&disk).len() > 3);
    (disk, model)
}

fn segments(disk: &SimulatedDisk) -> Vec<u64> {
    let names = disk.list(Path::new("/data/log/p000")).unwrap();
    let mut bases: Vec<u64> = names
        .iter()
        .filter_map(|name| Segment::base_of(name))
        .collect();
    bases.sort_unstable();
    bases
}

fn path_of(base: u64) -> PathBuf {
    Segment::path_of(Path::new("/data/log/p000"), base)
}

fn bytes_of(disk: &SimulatedDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path).ok()?;
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

/// Writes over a part of a segment, durably.
fn damage(disk: &SimulatedDisk, base: u64, position: u64, with: &[u8]) {
    let file = disk.open(&path_of(base)).unwrap();
    file.write_all_at(with, position).unwrap();
    file.sync_data().unwrap();
}

fn plan(disk: &SimulatedDisk, seen: u64) -> Result<RepairPlan, LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    SegmentedLog::plan_repair(&config(), &disk, &[Offset::new(seen)], &mut |_| {})
}

fn repair(disk: &SimulatedDisk, seen: u64, aside: &str) -> Result<RepairPlan, LogError> {
    let plan = plan(disk, seen)?;
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    SegmentedLog::repair(&config(), &disk, &plan, Path::new(aside), &mut |_| {})?;
    Ok(plan)
}

fn lost_offsets(plan: &RepairPlan) -> BTreeSet<u64> {
    plan.lost
        .iter()
        .flat_map(|range| range.start.get()..range.end.get())
        .collect()
}

fn read(reader: &dyn PartitionReader, from: u64) -> Result<(Vec<Remembered>, u64), LogError> {
    let mut found = Vec::new();
    let end = reader.scan(Offset::new(from), ScanLimit::NONE, &mut |frame| {
        let bytes = frame.records().next().unwrap().bytes.to_vec();
        found.push((frame.base.get(), frame.key.as_bytes()[0], bytes));
        ControlFlow::Continue(())
    })?;
    Ok((found, end.get()))
}

/// A repaired log holds the model without what is lost, from wherever it is read, and takes appends.
fn check_goes_on(
    disk: &SimulatedDisk,
    model: &[Remembered],
    lost: &BTreeSet<u64>,
) -> Result<(), String> {
    let told = |error: LogError| error.to_string();
    let verified: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = SegmentedLog::verify(&config(), &verified, &mut |_| {}).map_err(told)?;
    if !report.findings.is_empty() {
        return Err(format!("a repaired log verifies: {:?}", report.findings));
    }
    let declared: BTreeSet<u64> = report
        .lost
        .iter()
        .flat_map(|range| range.start.get()..range.end.get())
        .collect();
    if &declared != lost {
        return Err(format!("lost are {lost:?}, declared are {declared:?}"));
    }
    let mut random = Random(1);
    let mut disk = disk.clone();
    let mut left: Vec<Remembered> = model
        .iter()
        .filter(|frame| !lost.contains(&frame.0))
        .cloned()
        .collect();
    let end = model.len() as u64;
    for life in 0..2 {
        let log = open(&disk).map_err(told)?;
        if let Some(reason) = &log.status()[0].unwritable {
            return Err(format!("a repaired log takes writes, but: {reason}"));
        }
        let reader = log.reader(P0).map_err(told)?;
        for from in 0..reader.durable_end().get() {
            let expected = left.partition_point(|frame| frame.0 < from);
            let (found, reached) = read(&*reader, from).map_err(told)?;
            if found != left[expected..] || reached != reader.durable_end().get() {
                return Err(format!("life {life}: wrong frames from {from}"));
            }
        }
        let next = log.reader(P0).map_err(told)?.durable_end().get();
        if life == 0 && next != end {
            return Err(format!("the log ends at {next}, it ended at {end}"));
        }
        append(&log, 3, &mut left).map_err(told)?;
        drop(log);
        disk = disk.after_power_loss(&mut random);
    }
    Ok(())
}

/// Damages of one log: which segment, where, with what.
type Damage = (usize, u64, Vec<u8>);

fn damages() -> Vec<(&'static str, Vec<Damage>)> {
    vec![
        ("a header", vec![(1, 20, vec![0xff; 4])]),
        ("the last header", vec![(usize::MAX, 8, vec![0xff; 4])]),
        ("a frame's header", vec![(1, 64 + 16, vec![0xff; 4])]),
        ("a frame's body", vec![(1, 64 + 100, vec![0xff; 4])]),
        ("a page", vec![(1, 4096, vec![0xa5; 4096])]),
        ("a page of zeros", vec![(0, 4096, vec![0; 4096])]),
        ("a footer", vec![(2, 16 * 1024 - 30, vec![0xff; 4])]),
        ("all of a segment", vec![(1, 0, vec![0; 16 * 1024])]),
        (
            "the last segment's first frame",
            vec![(usize::MAX, 64 + 80, vec![0xff; 8])],
        ),
        (
            "frames of the last segment",
            vec![(usize::MAX, 400, vec![0; 700])],
        ),
        (
            "several",
            vec![
                (0, 300, vec![0x11; 3000]),
                (1, 0, vec![0; 4096]),
                (2, 9000, vec![0; 7384]),
                (usize::MAX, 200, vec![0xff; 64]),
            ],
        ),
    ]
}

fn damaged(disk: &SimulatedDisk, damages: &[Damage]) -> BTreeSet<u64> {
    let bases = segments(disk);
    damages
        .iter()
        .map(|(segment, position, with)| {
            let base = bases[(*segment).min(bases.len() - 1)];
            damage(disk, base, *position, with);
            base
        })
        .collect()
}

#[test]
fn what_is_not_listed_as_lost_stays_where_it_was_and_the_log_goes_on() {
    for (name, damages) in damages() {
        let (disk, model) = sound();
        let touched = damaged(&disk, &damages);
        let plan = repair(&disk, 0, "/data/repair/1").unwrap();
        let planned: BTreeSet<u64> = plan.segments.iter().map(|segment| segment.base).collect();
        assert_eq!(planned, touched, "{name}");
        check_goes_on(&disk, &model, &lost_offsets(&plan))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn a_lost_frame_is_named_by_its_own_header_or_by_the_next_frame_of_its_key() {
    let (disk, model) = sound();
    let base = segments(&disk)[1];
    // The body of one frame, and all of the one behind it.
    let first = 64 + 72;
    let length = 8 + model[usize::try_from(base).unwrap()].2.len() as u64;
    let second = 64 + (72 + length).next_multiple_of(8);
    damage(&disk, base, first + 20, &[0xff; 3]);
    damage(&disk, base, second, &[0xff; 80]);
    let plan = plan(&disk, 0).unwrap();
    assert_eq!(lost_offsets(&plan), BTreeSet::from([base, base + 1]));
    let known: Vec<_> = plan.lost[0]
        .known
        .iter()
        .map(|known| (known.offset.get(), known.key.as_bytes()[0], known.sequence))
        .collect();
    let key = |offset: u64| u8::try_from(offset % 7).unwrap();
    let sequence = u32::try_from(base / 7 + 1).unwrap();
    assert_eq!(
        known,
        [
            (base, key(base), Some((sequence, 1))),
            (base + 1, key(base + 1), None)
        ]
    );
}

#[test]
fn no_offset_that_somebody_has_seen_is_given_again() {
    let (disk, model) = sound();
    let bases = segments(&disk);
    let last = bases[bases.len() - 1];
    // All that the last segment held is gone, and with it every trace of where the log ended.
    damage(&disk, last, 0, &vec![0; 16 * 1024]);
    let end = model.len() as u64;
    let plan = repair(&disk, end, "/data/repair/1").unwrap();
    assert_eq!(lost_offsets(&plan), (last..end).collect());
    check_goes_on(&disk, &model, &lost_offsets(&plan)).unwrap();
}

#[test]
fn a_sound_log_and_a_torn_tail_need_no_repair() {
    let (disk, _) = sound();
    assert!(plan(&disk, 10_000).unwrap().is_empty());
    let last = *segments(&disk).last().unwrap();
    damage(&disk, last, 12_000, &[0xff; 30]);
    let plan = plan(&disk, 10_000).unwrap();
    assert!(plan.is_empty() && plan.lost.is_empty());
}

#[test]
fn a_file_of_another_log_is_refused_and_nothing_changes() {
    let (disk, _) = sound();
    let base = segments(&disk)[1];
    let mut other = config();
    other.log_id = [6; 16];
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let refused = SegmentedLog::plan_repair(&other, &shared, &[], &mut |_| {}).unwrap_err();
    assert!(
        matches!(refused, LogError::Incompatible { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("belongs to"), "{refused}");
    assert!(bytes_of(&disk, &path_of(base)).is_some());
}

#[test]
fn any_bytes_make_a_segment_that_verifies_and_keeps_to_its_offsets() {
    let (disk, _) = sound();
    let bases = segments(&disk);
    let identity = Identity::new(LOG_ID, 0);
    let good = bytes_of(&disk, &path_of(bases[1])).unwrap();
    let mut random = Random(11);
    for round in 0..400 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(6) {
            let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
            let length = usize::try_from(random.below(900)).unwrap();
            let to = (at + length).min(bytes.len());
            let fill = random.next().to_le_bytes()[0];
            bytes[at..to].fill(fill);
        }
        bytes.truncate(bytes.len() - usize::try_from(random.below(3) * 4000).unwrap());
        for end in [
            End::Sealed {
                next_base: bases[2],
            },
            End::Last { seen: bases[1] + 3 },
        ] {
            let kept = salvage(&bytes, identity, bases[1], end);
            let rebuilt = kept.rebuild(&bytes, identity);
            let again = salvage(&rebuilt, identity, bases[1], end);
            assert_eq!(again.losses, [], "round {round}");
            assert_eq!(again.end, kept.end, "round {round}");
            assert_eq!(again.records, kept.records, "round {round}");
            if let End::Sealed { next_base } = end {
                assert_eq!(kept.end, next_base);
            }
        }
    }
    assert!(SEGMENT_HEADER_BYTES < good.len());
}

/// A repair that loses power at any of its operations, run again until it is through.
pub(super) fn interrupted_repair() -> Result<(), String> {
    let damages = damages().pop().unwrap().1;
    let (sound_disk, model) = sound();
    let touched = damaged(&sound_disk, &damages);
    let originals: Vec<(u64, Vec<u8>)> = touched
        .iter()
        .map(|base| (*base, bytes_of(&sound_disk, &path_of(*base)).unwrap()))
        .collect();
    let lost = lost_offsets(&plan(&sound_disk, 0).unwrap());
    let mut operation = 1;
    loop {
        let mut random = Random(operation);
        // As it is after a power loss: everything that was synced, on a disk of its own.
        let mut disk = sound_disk.after_power_loss(&mut random);
        disk.set_fault(Some((operation, Fault::PowerLoss)));
        let whole = repair(&disk, 0, "/data/repair/1").is_ok();
        let gone = disk.power_is_gone();
        // Any part of what is not synced may be lost: one time tells little.
        for _ in 0..if whole { 12 } else { 0 } {
            let lost = disk.after_power_loss(&mut random);
            if !plan(&lost, 0).is_ok_and(|plan| plan.is_empty()) {
                return Err("a repair that was done is undone by a power loss".to_owned());
            }
        }
        disk = disk.after_power_loss(&mut random);
        check_copies(&disk, &originals, &["/data/repair/1"])?;
        repair(&disk, 0, "/data/repair/2").map_err(|error| error.to_string())?;
        check_copies(&disk, &originals, &["/data/repair/1", "/data/repair/2"])?;
        // Every few, for the whole check takes long.
        if operation % 5 == 1 || !gone {
            check_goes_on(&disk, &model, &lost)
                .map_err(|error| format!("cut at operation {operation}: {error}"))?;
        }
        if !gone {
            return Ok(());
        }
        operation += 1;
    }
}

/// Every damaged segment is either still in its place or kept aside, byte for byte.
fn check_copies(
    disk: &SimulatedDisk,
    originals: &[(u64, Vec<u8>)],
    asides: &[&str],
) -> Result<(), String> {
    for (base, bytes) in originals {
        let name = format!("p000/{base:020}.seg");
        let kept = asides
            .iter()
            .any(|aside| bytes_of(disk, &Path::new(aside).join(&name)).as_ref() == Some(bytes));
        if !kept && bytes_of(disk, &path_of(*base)).as_ref() != Some(bytes) {
            return Err(format!("segment {base} was replaced and is not kept aside"));
        }
    }
    Ok(())
}

#[test]
fn a_repair_that_is_cut_short_anywhere_loses_nothing_more_and_is_run_again() {
    interrupted_repair().unwrap();
}

#[test]
fn a_full_disk_stops_a_repair_before_it_changes_anything() {
    let (disk, model) = sound();
    let damages = damages().pop().unwrap().1;
    damaged(&disk, &damages);
    let lost = lost_offsets(&plan(&disk, 0).unwrap());
    for free in [0, 10_000, 20_000, 40_000] {
        disk.set_free_bytes(free);
        let refused = repair(&disk, 0, &format!("/data/repair/{free}")).unwrap_err();
        assert!(matches!(refused, LogError::Io { .. }), "{refused}");
    }
    disk.set_free_bytes(u64::MAX);
    repair(&disk, 0, "/data/repair/last").unwrap();
    check_goes_on(&disk, &model, &lost).unwrap();
}
