//! The segmented log on a disk that loses power, fails and fills up, against a plain list of what was acknowledged.
//!
//! Method: a seed makes a script of appends, idle moments, restarts, failed syncs and power losses, the latter at any file
//! operation, inside recovery too. After every recovery: all that was acknowledged or seen by a reader is there, once and
//! in order; what was in doubt is there in whole frames, in order, or not at all; nothing else is; the partition is not
//! called damaged. Then the log is appended to and loses power again.
//!
//! The same suites run once for every durability mutant and must fail for each: a suite that cannot fail shows nothing.
//!
//! Long because the script, the oracle and the suites that the mutants run are one argument.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::recovery::{Verdict, scan_tail};
use super::{Preparation, SegmentedConfig, SegmentedLog};
use crate::disk::Disk;
use crate::disk::simulated::{Fault, Random, SimulatedDisk};
use crate::layout::{
    FRAME_HEADER_BYTES, FrameHeader, Identity, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, is_zero, seal_frame,
};
use crate::mutants::{Mutant, keeps, without};
use crate::{
    AppendTime, Batch, DataLock, Durability, EventLog, Key, LogError, Offset, PartitionId,
    PartitionWriter, RecordTag, ScanLimit,
};

pub(super) const P0: PartitionId = PartitionId::new(0);
const SEGMENT_BYTES: u64 = 8 * 1024;

pub(super) type Outcome = Result<(), String>;

/// A frame as the oracle remembers it: a serial number and a length say all of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    base: u64,
    records: u16,
    serial: u32,
    length: u32,
}

pub(super) fn config() -> SegmentedConfig {
    SegmentedConfig {
        segment_bytes_first: SEGMENT_BYTES / 2,
        segment_bytes_max: SEGMENT_BYTES,
        preparation: Preparation::Inline,
        ..SegmentedConfig::new(PathBuf::from("/log"), [5; 16], 1, Durability::Always)
    }
}

pub(super) fn open(disk: &SimulatedDisk) -> Result<SegmentedLog, LogError> {
    open_for(disk, Durability::Always)
}

fn open_for(disk: &SimulatedDisk, durability: Durability) -> Result<SegmentedLog, LogError> {
    let config = SegmentedConfig {
        durability,
        ..config()
    };
    SegmentedLog::open(config, Arc::new(disk.clone()) as Arc<dyn Disk>)
}

fn record_bytes(serial: u32, length: u32, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&serial.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let mut random = Random(u64::from(serial));
    for _ in 0..length / 8 {
        // Runs of zeros are what a lost sector looks like: some records have them.
        let word = if serial.is_multiple_of(3) {
            0
        } else {
            random.next()
        };
        bytes.extend_from_slice(&word.to_le_bytes());
    }
}

pub(super) fn batch_of(
    random: &mut Random,
    start: Offset,
    serial: &mut u32,
    time: u64,
) -> (Batch, Vec<Written>) {
    let mut batch = Batch::new();
    let mut frames = Vec::new();
    batch.start_at(start);
    for _ in 0..=random.below(4) {
        let records = u16::try_from(1 + random.below(2)).unwrap();
        let length = u32::try_from(random.below(200) * 8).unwrap();
        let written = Written {
            base: batch.end().get(),
            records,
            serial: *serial,
            length,
        };
        batch.begin_frame(
            Key::new([1; 16]),
            *serial + 1,
            None,
            AppendTime::from_micros(time),
        );
        for _ in 0..records {
            batch.record(|bytes| {
                record_bytes(written.serial, written.length, bytes);
                RecordTag {
                    event_type: 1,
                    schema: 1,
                    codec: 1,
                }
            });
        }
        batch.end_frame();
        frames.push(written);
        *serial += 1;
    }
    (batch, frames)
}

/// Everything a reader sees, each byte checked against its serial number.
pub(super) fn read_all(log: &SegmentedLog) -> Result<Vec<Written>, String> {
    let reader = log.reader(P0).map_err(|error| error.to_string())?;
    let mut frames = Vec::new();
    let mut wrong = None;
    let mut expected = Vec::new();
    let scanned = reader.scan(Offset::ZERO, ScanLimit::NONE, &mut |frame| {
        let mut written = Written {
            base: frame.base.get(),
            records: 0,
            serial: 0,
            length: 0,
        };
        for record in frame.records() {
            let Some((head, _)) = record.bytes.split_at_checked(8) else {
                wrong = Some(format!("record {} is cut", record.offset));
                return ControlFlow::Break(());
            };
            written.serial = u32::from_le_bytes(head[..4].try_into().unwrap());
            written.length = u32::from_le_bytes(head[4..].try_into().unwrap());
            written.records += 1;
            expected.clear();
            record_bytes(written.serial, written.length.min(1 << 16), &mut expected);
            if record.bytes != expected {
                wrong = Some(format!("record {} has wrong bytes", record.offset));
                return ControlFlow::Break(());
            }
        }
        frames.push(written);
        ControlFlow::Continue(())
    });
    match (wrong, scanned) {
        (Some(wrong), _) => Err(wrong),
        (None, Err(error)) => Err(error.to_string()),
        (None, Ok(_)) => Ok(frames),
    }
}

/// What must be there, and what may be.
#[derive(Debug, Clone, Default)]
struct Oracle {
    acknowledged: Vec<Written>,
    /// Handed to the operating system: only lost power may take it.
    handed_over: Vec<Written>,
    in_doubt: Vec<Written>,
}

impl Oracle {
    /// What may be there, in order.
    fn promised(&self) -> Vec<Written> {
        let all = self.acknowledged.iter().chain(&self.handed_over);
        all.chain(&self.in_doubt).copied().collect()
    }

    /// All that was handed over is on stable storage, or safe from what happens next.
    fn is_safe(&mut self) {
        self.acknowledged.append(&mut self.handed_over);
    }

    /// Compares a recovered log with what was promised; what it shows is promised from now on.
    fn recovered(&mut self, log: &SegmentedLog) -> Outcome {
        if let Some(reason) = &log.status()[0].unwritable {
            return Err(format!("a crash is no damage, but: {reason}"));
        }
        // Nothing that was cut may lie in wait behind the end.
        let segments = log.partitions[0].segments();
        let last = &segments[segments.len() - 1];
        let map = last
            .disk
            .open(&last.path)
            .and_then(|file| file.map())
            .map_err(|error| error.to_string())?;
        let tail = scan_tail(map.bytes(), Identity::new([5; 16], 0), last.base);
        expect(
            tail.verdict == Verdict::Clean,
            "behind a recovered log stand zeros",
        )?;
        let footer = &map.bytes()[map.bytes().len() - SEGMENT_FOOTER_BYTES..];
        expect(is_zero(footer), "the segment that is written has no footer")?;
        let found = read_all(log)?;
        let promised = self.promised();
        if found.len() < self.acknowledged.len() {
            return Err(format!(
                "{} frames were acknowledged, {} are there",
                self.acknowledged.len(),
                found.len()
            ));
        }
        if promised.get(..found.len()) != Some(&*found) {
            return Err("the frames are not those that were appended".to_owned());
        }
        self.acknowledged = found;
        self.handed_over.clear();
        self.in_doubt.clear();
        Ok(())
    }

    /// Whatever a reader sees before a crash must be there after it.
    fn seen(&mut self, log: &SegmentedLog) -> Outcome {
        let seen = read_all(log)?;
        if seen.len() > self.acknowledged.len() {
            let mut promised = self.promised();
            if promised.get(..seen.len()) != Some(&*seen) {
                return Err("a reader saw frames that were not appended".to_owned());
            }
            let before_doubt = promised.len() - self.in_doubt.len();
            self.in_doubt = promised.split_off(before_doubt.max(seen.len()));
            self.handed_over = promised.split_off(seen.len());
            self.acknowledged = seen;
        }
        Ok(())
    }
}

/// One seed: several lives of one log. Returns how many recoveries were checked.
fn power_losses(seed: u64) -> Result<u64, String> {
    let mut random = Random(seed);
    let mut disk = SimulatedDisk::new();
    let mut oracle = Oracle::default();
    let mut serial = 0;
    let mut states = 0;
    let durability = if random.one_in(3) {
        Durability::Os
    } else {
        Durability::Always
    };
    // Whether the cache outlived the life before.
    let mut has_cache = false;
    for _ in 0..4 {
        // Recovery itself may be cut short, again and again.
        let mut cut_short = random.below(3);
        let log = loop {
            let cut = cut_short > 0 && random.one_in(2);
            if cut {
                cut_short -= 1;
                disk.set_fault(Some((1 + random.below(20), Fault::PowerLoss)));
            }
            match open_for(&disk, durability) {
                // Damage that only the lost power made is told by the log; here it is one more life cut short.
                Ok(log) if !disk.power_is_gone() => {
                    disk.set_fault(None);
                    break log;
                }
                Err(error) if !cut => return Err(format!("the log does not open: {error}")),
                Ok(_) | Err(_) => {
                    disk = disk.after_power_loss(&mut random);
                    has_cache = false;
                    states += 1;
                }
            }
        };
        if has_cache {
            oracle.is_safe();
        }
        oracle.recovered(&log)?;
        states += 1;
        live(
            &mut random,
            &disk,
            &log,
            durability,
            &mut oracle,
            &mut serial,
        )?;
        drop(log);
        // A killed process leaves the cache; lost power does not.
        has_cache = random.one_in(4);
        if has_cache {
            disk.set_fault(None);
        } else {
            disk = disk.after_power_loss(&mut random);
        }
    }
    Ok(states)
}

/// Appends until the power goes, a sync fails, or the script ends.
fn live(
    random: &mut Random,
    disk: &SimulatedDisk,
    log: &SegmentedLog,
    durability: Durability,
    oracle: &mut Oracle,
    serial: &mut u32,
) -> Outcome {
    let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
    let fault = match random.below(4) {
        0 => None,
        1 => Some(Fault::Error(std::io::ErrorKind::Other)),
        _ => Some(Fault::PowerLoss),
    };
    disk.set_fault(fault.map(|fault| (1 + random.below(40), fault)));
    let mut failed = false;
    for _ in 0..random.below(16) {
        if random.one_in(5) {
            // A marker promises nothing: its failure poisons, and loses nothing.
            match writer.idle() {
                Ok(()) => oracle.is_safe(),
                Err(_) => failed = true,
            }
            continue;
        }
        if random.one_in(8) {
            // A rotation promises nothing about records either.
            match writer.rotate() {
                Ok(true) if failed => {
                    return Err("a poisoned partition was rotated".to_owned());
                }
                Ok(_) => oracle.is_safe(),
                Err(LogError::StorageFull { .. } | LogError::Io { .. }) => {}
                Err(_) => failed = true,
            }
            continue;
        }
        let (batch, frames) = batch_of(
            random,
            writer.end(),
            serial,
            writer.last_append_time().as_micros() + 1,
        );
        match writer.append(&batch) {
            Ok(_) if failed => return Err("a poisoned partition acknowledged an append".to_owned()),
            Ok(_) if durability == Durability::Always => oracle.acknowledged.extend(frames),
            Ok(_) => oracle.handed_over.extend(frames),
            Err(LogError::OutcomeUnknown { .. }) => {
                failed = true;
                oracle.in_doubt.extend(frames);
            }
            Err(LogError::Poisoned { .. }) if failed => {}
            Err(LogError::StorageFull { .. } | LogError::Io { .. }) => {}
            Err(error) => return Err(format!("an append failed with {error}")),
        }
    }
    if random.one_in(3) {
        oracle.seen(log)
    } else {
        Ok(())
    }
}

#[test]
fn segments_that_wait_for_their_names_outlive_a_kill_and_are_not_believed_behind_a_torn_one() {
    let waiting = |disk: &SimulatedDisk| {
        let names = disk.list(&PathBuf::from("/log/p000")).unwrap();
        names.iter().filter(|name| name.ends_with(".next")).count()
    };
    let mut lost = 0;
    for seed in 0..20 {
        let mut random = Random(seed);
        let disk = SimulatedDisk::new();
        let log = open_for(&disk, Durability::Os).unwrap();
        let mut writer = log.writer(P0).unwrap();
        let mut oracle = Oracle::default();
        let mut serial = 0;
        while waiting(&disk) < 3 {
            let (batch, frames) = batch_of(&mut random, writer.end(), &mut serial, 1);
            writer.append(&batch).unwrap();
            oracle.handed_over.extend(frames);
        }
        assert_eq!(read_all(&log), Ok(Vec::new()), "nothing is synced yet");
        drop((writer, log));
        let after_power_loss = disk.after_power_loss(&mut random);

        let mut killed = oracle.clone();
        killed.is_safe();
        let log = open_for(&disk, Durability::Os).unwrap();
        assert_eq!(waiting(&disk), 0);
        killed.recovered(&log).unwrap();

        let log = open_for(&after_power_loss, Durability::Os).unwrap();
        assert_eq!(waiting(&after_power_loss), 0);
        let handed_over = oracle.handed_over.len();
        oracle.recovered(&log).unwrap();
        lost += usize::from(oracle.acknowledged.len() < handed_over);
    }
    assert!(lost > 0, "some power loss takes what nobody synced");
}

/// Many seeds; the error names the first that fails.
fn power_loss_seeds(first: u64, states_wanted: u64) -> Result<u64, String> {
    let mut states = 0;
    let mut seed = first;
    while states < states_wanted {
        let here = seed;
        states += power_losses(here).map_err(|error| {
            format!("seed {here}: {error}\n  again: ORDER_LOG_SEED={here} ORDER_LOG_STATES=1 cargo test -p order-log power_loss -- --nocapture")
        })?;
        seed += 1;
    }
    Ok(states)
}

fn power_loss() -> Outcome {
    power_loss_seeds(1, 4_000).map(|_| ())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

#[test]
fn power_loss_at_any_operation_loses_nothing_that_was_acknowledged() {
    let states = power_loss_seeds(
        number("ORDER_LOG_SEED", 1),
        number("ORDER_LOG_STATES", 100_000),
    )
    .unwrap();
    println!("{states} states after power loss, 0 violations");
}

/// A script of `operations` file operations, its n-th failing once or for ever, for every n.
#[test]
fn any_failing_operation_is_refused_or_in_doubt_and_never_a_false_acknowledgement() {
    const KIND: std::io::ErrorKind = std::io::ErrorKind::Other;
    let mut n = 1;
    loop {
        let mut reached = false;
        for fault in [
            Fault::Error(KIND),
            Fault::ErrorForever(KIND),
            Fault::Error(std::io::ErrorKind::StorageFull),
        ] {
            let mut random = Random(7);
            let disk = SimulatedDisk::new();
            disk.set_fault(Some((n, fault)));
            let mut oracle = Oracle::default();
            let mut serial = 0;
            if let Ok(log) = open(&disk) {
                let mut writer = log.writer(P0).unwrap();
                for _ in 0..120 {
                    let (batch, frames) = batch_of(&mut random, writer.end(), &mut serial, 1);
                    match writer.append(&batch) {
                        Ok(_) => oracle.acknowledged.extend(frames),
                        Err(LogError::OutcomeUnknown { .. }) => oracle.in_doubt.extend(frames),
                        Err(_) => {}
                    }
                }
            }
            reached |= disk.operations() >= n;
            disk.set_fault(None);
            let disk = disk.after_power_loss(&mut random);
            let log =
                open(&disk).unwrap_or_else(|error| panic!("operation {n}, {fault:?}: {error}"));
            oracle
                .recovered(&log)
                .unwrap_or_else(|error| panic!("operation {n}, {fault:?}: {error}"));
        }
        if !reached {
            break;
        }
        n += 1;
    }
    assert!(n > 500, "the script has only {n} operations");
    println!(
        "{} operations failed once, for ever, and for want of space",
        n - 1
    );
}

#[test]
fn a_disk_that_is_full_at_the_start_is_read_and_written_when_there_is_space() {
    full_disk_at_start().unwrap();
}

#[test]
fn a_full_disk_refuses_before_it_writes_and_writing_resumes_by_itself() {
    for free in 0..50 {
        let disk = SimulatedDisk::new();
        disk.set_free_bytes(16 * 1024 + free * 1024);
        let mut random = Random(free);
        let mut oracle = Oracle::default();
        let mut serial = 0;
        let log = open(&disk).unwrap();
        let mut writer = log.writer(P0).unwrap();
        let mut refused = 0;
        while refused < 3 {
            let (batch, frames) = batch_of(&mut random, writer.end(), &mut serial, 1);
            match writer.append(&batch) {
                Ok(_) => oracle.acknowledged.extend(frames),
                Err(LogError::StorageFull { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            oracle.seen(&log).unwrap();
        }
        disk.set_free_bytes(1 << 20);
        let (batch, frames) = batch_of(&mut random, writer.end(), &mut serial, 1);
        writer.append(&batch).unwrap();
        oracle.acknowledged.extend(frames);
        drop((writer, log));
        let disk = disk.after_power_loss(&mut random);
        oracle.recovered(&open(&disk).unwrap()).unwrap();
    }
}

// Suites that show what power losses cannot.

/// Bytes of a segment with the given frames, each `(base, epoch, synced, identity)`, of 16 bytes of body.
fn crafted(frames: &[(u64, u32, u64, Identity)]) -> Vec<u8> {
    let identity = Identity::new([5; 16], 0);
    let header = SegmentHeader {
        identity,
        epoch: 1,
        base: 0,
        capacity: 4096,
        created_at: 0,
    };
    let mut segment = vec![0; 4096];
    segment[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.to_bytes());
    let mut position = SEGMENT_HEADER_BYTES;
    for (base, epoch, synced, identity) in frames {
        let mut body = vec![0; 16];
        crate::layout::write_record_header(&mut body, 1, 1, 1, 8);
        body[8..].copy_from_slice(&base.to_le_bytes());
        let header = FrameHeader {
            body_crc: crc32fast::hash(&body),
            body_bytes: 16,
            records: 1,
            base: *base,
            synced: *synced,
            appended_at: 1,
            key: [0; 16],
            previous: None,
            sequence: 1,
            epoch: *epoch,
        };
        let frame = &mut segment[position..position + header.total_bytes()];
        header.write_unsealed(frame);
        frame[FRAME_HEADER_BYTES..].copy_from_slice(&body);
        seal_frame(frame, *synced, *epoch, *identity);
        position += header.total_bytes();
    }
    segment
}

pub(super) fn expect(condition: bool, claim: &str) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(format!("not so: {claim}"))
    }
}

fn misplaced_frames() -> Outcome {
    let own = Identity::new([5; 16], 0);
    for other in [Identity::new([5; 16], 1), Identity::new([6; 16], 0)] {
        let tail = scan_tail(&crafted(&[(0, 1, 0, own), (1, 1, 1, other)]), own, 0);
        expect(
            tail.end == 1,
            "a frame of another log or partition does not pass",
        )?;
    }
    let tail = scan_tail(&crafted(&[(0, 1, 0, own), (7, 1, 1, own)]), own, 0);
    expect(tail.end == 1, "a frame of another place does not pass")
}

fn leftover_frames() -> Outcome {
    let own = Identity::new([5; 16], 0);
    let tail = scan_tail(&crafted(&[(0, 2, 0, own), (1, 1, 0, own)]), own, 0);
    expect(
        tail.end == 1,
        "a frame of an older epoch behind a newer one is a leftover",
    )
}

/// A frame of one small record.
fn append_one(writer: &mut dyn PartitionWriter, key: u8) -> Outcome {
    let mut batch = Batch::new();
    batch.start_at(writer.end());
    batch.begin_frame(Key::new([key; 16]), 1, None, AppendTime::from_micros(1));
    batch.record(|_| RecordTag {
        event_type: 1,
        schema: 1,
        codec: 1,
    });
    batch.end_frame();
    writer
        .append(&batch)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn epochs() -> Outcome {
    let disk = SimulatedDisk::new();
    let mut seen = Vec::new();
    for life in 0..3 {
        let log = open(&disk).map_err(|error| error.to_string())?;
        let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
        append_one(&mut *writer, life)?;
        let segment = disk
            .open(&log.partitions[0].segments()[0].path)
            .and_then(|file| file.map());
        let segment = segment.map_err(|error| error.to_string())?;
        seen.push(scan_tail(segment.bytes(), Identity::new([5; 16], 0), 0).epoch);
    }
    expect(
        seen.is_sorted_by(|a, b| a < b),
        "every life of the log has a higher epoch",
    )
}

fn damage_behind_a_watermark() -> Outcome {
    let disk = SimulatedDisk::new();
    let log = open(&disk).map_err(|error| error.to_string())?;
    let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
    append_one(&mut *writer, 1)?;
    append_one(&mut *writer, 2)?;
    judge_flip(&disk, &log, SEGMENT_HEADER_BYTES + 20)
}

fn damage_before_the_idle_marker() -> Outcome {
    let disk = SimulatedDisk::new();
    let log = open(&disk).map_err(|error| error.to_string())?;
    let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
    append_one(&mut *writer, 1)?;
    writer.idle().map_err(|error| error.to_string())?;
    judge_flip(&disk, &log, SEGMENT_HEADER_BYTES + 20)
}

fn damaged_idle_marker() -> Outcome {
    let disk = SimulatedDisk::new();
    let log = open(&disk).map_err(|error| error.to_string())?;
    let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
    append_one(&mut *writer, 1)?;
    let marker = log.status()[0].active_segment_bytes;
    writer.idle().map_err(|error| error.to_string())?;
    append_one(&mut *writer, 2)?;
    judge_flip(&disk, &log, crate::layout::index(marker) + 20)
}

fn judge_flip(disk: &SimulatedDisk, log: &SegmentedLog, at: usize) -> Outcome {
    let segment = disk
        .open(&log.partitions[0].segments()[0].path)
        .and_then(|file| file.map());
    let mut bytes = segment.map_err(|error| error.to_string())?.bytes().to_vec();
    bytes[at] ^= 4;
    let tail = scan_tail(&bytes, Identity::new([5; 16], 0), 0);
    expect(
        matches!(tail.verdict, Verdict::Damaged { .. }),
        "a flipped bit in what was synced is damage",
    )
}

fn flipped_bits() -> Outcome {
    let own = Identity::new([5; 16], 0);
    let good = crafted(&[(0, 1, 0, own), (1, 1, 1, own), (2, 1, 2, own)]);
    for bit in SEGMENT_HEADER_BYTES * 8..(SEGMENT_HEADER_BYTES + 2 * 88) * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let tail = scan_tail(&bad, own, 0);
        expect(tail.end < 2, "a flipped bit does not pass")?;
    }
    Ok(())
}

/// A sync of the directory fails, the process ends, the next one goes on, and then the power goes.
fn failed_directory_sync_then_restart_then_power_loss() -> Outcome {
    for operation in 1..60 {
        let mut random = Random(operation);
        let mut oracle = Oracle::default();
        let mut serial = 0;
        let disk = SimulatedDisk::new();
        for fault in [
            Some((operation, Fault::Error(std::io::ErrorKind::Other))),
            None,
        ] {
            disk.set_fault(None);
            let log = open(&disk).map_err(|error| error.to_string())?;
            oracle.recovered(&log)?;
            disk.set_fault(fault);
            let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
            // The second life writes too little to begin a segment, which would sync the directory again.
            for _ in 0..if fault.is_some() { 6 } else { 1 } {
                let (batch, frames) = batch_of(&mut random, writer.end(), &mut serial, 1);
                match writer.append(&batch) {
                    Ok(_) => oracle.acknowledged.extend(frames),
                    Err(LogError::OutcomeUnknown { .. }) => oracle.in_doubt.extend(frames),
                    Err(_) => {}
                }
            }
        }
        for _ in 0..4 {
            let lost = disk.after_power_loss(&mut random);
            let mut oracle = oracle.clone();
            oracle.recovered(&open(&lost).map_err(|error| error.to_string())?)?;
        }
    }
    Ok(())
}

fn one_process() -> Outcome {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let _first = DataLock::acquire(directory.path()).map_err(|error| error.to_string())?;
    expect(
        DataLock::acquire(directory.path()).is_err(),
        "a second process is refused",
    )
}

/// A disk that is full at the start: everything is read, nothing is written, and the first write after there is space
/// notes the epoch it carries.
fn full_disk_at_start() -> Outcome {
    let mut random = Random(3);
    let disk = SimulatedDisk::new();
    let mut oracle = Oracle::default();
    let mut serial = 0;
    for life in 0..3 {
        disk.set_free_bytes(0);
        if life == 0 {
            disk.set_free_bytes(u64::MAX);
        }
        let log = open(&disk).map_err(|error| format!("life {life}: {error}"))?;
        oracle.recovered(&log)?;
        let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
        let (batch, frames) = batch_of(&mut random, writer.end(), &mut serial, 1);
        if life > 0 {
            writer.idle().ok();
            let refused = writer.append(&batch);
            expect(
                matches!(refused, Err(LogError::StorageFull { .. })),
                "a full disk refuses what would carry an epoch that is not noted",
            )?;
            oracle.seen(&log)?;
            disk.set_free_bytes(u64::MAX);
        }
        writer.append(&batch).map_err(|error| error.to_string())?;
        oracle.acknowledged.extend(frames);
        let last = &log.partitions[0].segments()[0];
        let segment = disk.open(&last.path).and_then(|file| file.map());
        let segment = segment.map_err(|error| error.to_string())?;
        let written = scan_tail(segment.bytes(), Identity::new([5; 16], 0), 0).epoch;
        let file = disk.open(&PathBuf::from("/log/epoch"));
        let mut noted = [0; 1];
        file.and_then(|file| file.read_exact_at(&mut noted, 0))
            .map_err(|error| error.to_string())?;
        expect(
            u32::from(noted[0] - b'0') >= written,
            "no frame carries an epoch that is not noted",
        )?;
    }
    Ok(())
}

type Suite = (&'static str, fn() -> Outcome);

const SUITES: [Suite; 13] = [
    ("misplaced_frames", misplaced_frames),
    ("leftover_frames", leftover_frames),
    ("epochs", epochs),
    ("damage_behind_a_watermark", damage_behind_a_watermark),
    (
        "damage_before_the_idle_marker",
        damage_before_the_idle_marker,
    ),
    ("damaged_idle_marker", damaged_idle_marker),
    ("flipped_bits", flipped_bits),
    ("full_disk_at_start", full_disk_at_start),
    ("one_process", one_process),
    (
        "failed_directory_sync_then_restart_then_power_loss",
        failed_directory_sync_then_restart_then_power_loss,
    ),
    ("power_loss", power_loss),
    (
        "interrupted_repair",
        super::repair_tests::interrupted_repair,
    ),
    ("archiving", super::care_simulation::archiving),
];

const MUTANTS: [Mutant; 26] = [
    Mutant::BatchSync,
    Mutant::PublishAfterSync,
    Mutant::SealSync,
    Mutant::HeaderSync,
    Mutant::DirectorySync,
    Mutant::DirectoryResync,
    Mutant::ParentSync,
    Mutant::HeaderChecksum,
    Mutant::BodyChecksum,
    Mutant::Identity,
    Mutant::Watermark,
    Mutant::IdleMarker,
    Mutant::EpochOrder,
    Mutant::EpochAdvance,
    Mutant::EpochNoted,
    Mutant::TailRewrite,
    Mutant::TailZero,
    Mutant::FooterClear,
    Mutant::AsideSync,
    Mutant::ReplacementSync,
    Mutant::ReplacementName,
    Mutant::StaleIndexes,
    Mutant::Poison,
    Mutant::Lock,
    Mutant::ArchiveSync,
    Mutant::ArchiveName,
];

#[test]
fn every_suite_passes_as_it_is_and_every_mutant_is_killed_by_one() {
    for (name, suite) in SUITES {
        suite().unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let mut survivors = Vec::new();
    let mut table = String::from("| taken away | noticed by |\n|---|---|\n");
    for mutant in MUTANTS {
        let killer = without(mutant, || {
            assert!(!keeps(mutant));
            // A panic is a way to notice, too.
            SUITES
                .iter()
                .find(|(_, suite)| !matches!(std::panic::catch_unwind(suite), Ok(Ok(()))))
        });
        match killer {
            Some((name, _)) => writeln!(table, "| {} | `{name}` |", mutant.describe()).unwrap(),
            None => survivors.push(mutant),
        }
    }
    assert_eq!(survivors, [], "these can be removed and no suite notices");
    println!("{table}");
    check_table(&table);
}

/// The table in `docs/durability.md` is what this run gave.
fn check_table(table: &str) {
    const BEGIN: &str = "<!-- mutants -->\n";
    const END: &str = "<!-- /mutants -->";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/durability.md");
    let document = std::fs::read_to_string(path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("ORDER_LOG_WRITE_TABLE").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert_eq!(written, table, "write it anew with ORDER_LOG_WRITE_TABLE=1");
    }
}
