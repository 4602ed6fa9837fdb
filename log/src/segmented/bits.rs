//! Every bit flipped and every length cut, through the front door: whatever stands in the files, the log opens, what it
//! gives out was appended, and what is wrong has a name.
//!
//! Method: a log of one sealed segment and one that is written, whose every byte has a known meaning, on the simulated disk.
//! For each bit of the last segment, and each length of its file: `verify`, open, read everything, compare with what the
//! meaning of the byte says. Beyond that, random flips over all files of a larger log.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Preparation, SegmentedConfig, SegmentedLog, VerifyReport};
use crate::disk::Disk;
use crate::disk::simulated::{Random, SimulatedDisk};
use crate::layout::{
    FRAME_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES,
    frame_bytes,
};
use crate::{
    AppendTime, Batch, Durability, EventLog, Key, LogError, Offset, PartitionId, PartitionStatus,
    RecordTag, ScanLimit,
};

const P0: PartitionId = PartitionId::new(0);
const DIRECTORY: &str = "/log/p000";

fn config(segment_bytes: u64) -> SegmentedConfig {
    SegmentedConfig {
        segment_bytes_first: segment_bytes,
        segment_bytes_max: segment_bytes,
        preparation: Preparation::Inline,
        ..SegmentedConfig::new(PathBuf::from("/log"), [5; 16], 1, Durability::Always)
    }
}

/// Bytes of the record at an offset: lengths of all remainders, so that frames have padding of every size.
fn record(offset: u64) -> Vec<u8> {
    let mut random = Random(offset + 1);
    let length = usize::try_from(20 + offset % 9 * 13).unwrap();
    (0..length)
        .map(|_| random.next().to_le_bytes()[0])
        .collect()
}

fn batch_at(start: Offset) -> Batch {
    let mut batch = Batch::new();
    batch.start_at(start);
    let time = AppendTime::from_micros(start.get() + 1);
    batch.begin_frame(Key::new([3; 16]), 1, None, time);
    batch.record(|bytes| {
        bytes.extend_from_slice(&record(start.get()));
        RecordTag {
            event_type: 1,
            schema: 1,
            codec: 1,
        }
    });
    batch.end_frame();
    batch
}

/// A log with its files.
struct Image {
    segment_bytes: u64,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Records in the log.
    records: u64,
    /// Where the last segment's frames stand: offset, start, end of the body, end with padding.
    frames: Vec<(u64, usize, usize, usize)>,
    last: PathBuf,
}

impl Image {
    /// Appends frame by frame until `segments` have begun and the last one is nearly full, then marks the end.
    fn new(segment_bytes: u64, segments: usize) -> Self {
        let disk = SimulatedDisk::new();
        let log = open(&disk, segment_bytes).unwrap();
        let mut writer = log.writer(P0).unwrap();
        let mut frames = Vec::new();
        let mut begun = 1;
        loop {
            let offset = writer.end();
            writer.append(&batch_at(offset)).unwrap();
            let status = log.status().remove(0);
            if status.segments > begun {
                begun = status.segments;
                frames.clear();
            }
            let end = usize::try_from(status.active_segment_bytes).unwrap();
            let body = RECORD_HEADER_BYTES + record(offset.get()).len();
            let start = end - frame_bytes(body);
            frames.push((offset.get(), start, start + FRAME_HEADER_BYTES + body, end));
            // Some room is left, so that zeros stand behind the end.
            if begun == segments && status.active_segment_bytes + 600 > segment_bytes {
                break;
            }
        }
        writer.idle().unwrap();
        let records = writer.end().get();
        let last = log.segments().unwrap().pop().unwrap().path;
        drop((writer, log));
        let files = ["/log", DIRECTORY]
            .iter()
            .flat_map(|directory| {
                let names = disk.list(Path::new(directory)).unwrap();
                names
                    .into_iter()
                    .map(|name| Path::new(directory).join(name))
                    .collect::<Vec<_>>()
            })
            .filter(|path| path != Path::new(DIRECTORY))
            .map(|path| {
                let file = disk.open(&path).unwrap();
                let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
                file.read_exact_at(&mut bytes, 0).unwrap();
                (path, bytes)
            })
            .collect();
        Self {
            segment_bytes,
            files,
            records,
            frames,
            last,
        }
    }

    /// The disk with one file changed.
    fn with(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> SimulatedDisk {
        let mut files = self.files.clone();
        let changed = files.iter_mut().find(|file| file.0 == path).unwrap();
        change(&mut changed.1);
        SimulatedDisk::with_files(&[Path::new("/log"), Path::new(DIRECTORY)], files)
    }

    fn verify(&self, disk: &SimulatedDisk) -> VerifyReport {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        SegmentedLog::verify(&config(self.segment_bytes), &disk, &mut |_| {}).unwrap()
    }

    /// Opens the log and reads all of it: how many records came, all of them right, and how the partition stands.
    fn read(&self, disk: &SimulatedDisk) -> (u64, PartitionStatus, SegmentedLog) {
        let log = open(disk, self.segment_bytes).unwrap();
        let (read, _) = read_from(&log, 0);
        let status = log.status().remove(0);
        (read, status, log)
    }
}

fn open(disk: &SimulatedDisk, segment_bytes: u64) -> Result<SegmentedLog, LogError> {
    SegmentedLog::open(config(segment_bytes), Arc::new(disk.clone()))
}

/// Reads on from an offset; returns the offset after the last record, each compared, and what stopped the reading.
fn read_from(log: &SegmentedLog, from: u64) -> (u64, Option<LogError>) {
    let reader = log.reader(P0).unwrap();
    let mut next = from;
    let scanned = reader.scan(Offset::new(from), ScanLimit::NONE, &mut |frame| {
        assert_eq!(frame.base.get(), next);
        for found in frame.records() {
            assert_eq!(found.bytes, record(found.offset.get()), "wrong data");
        }
        next = frame.end().get();
        ControlFlow::Continue(())
    });
    (next, scanned.err())
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number"))
    })
}

/// What the meaning of a byte of the last segment says of a change to it.
enum Meaning {
    Header,
    Frame { offset: u64, start: usize },
    Padding,
    Unused,
}

fn meaning(image: &Image, byte: usize) -> Meaning {
    if byte < SEGMENT_HEADER_BYTES {
        return Meaning::Header;
    }
    for (offset, start, body_end, end) in &image.frames {
        if (*start..*body_end).contains(&byte) {
            return Meaning::Frame {
                offset: *offset,
                start: *start,
            };
        }
        if (*body_end..*end).contains(&byte) {
            return Meaning::Padding;
        }
    }
    Meaning::Unused
}

#[test]
fn every_bit_of_the_last_segment_is_judged_by_what_it_means() {
    let bytes = number("ORDER_LOG_BITS_KIB", 4) * 1024;
    let image = Image::new(bytes, 2);
    let bits = usize::try_from(bytes * 8).unwrap();
    let mut padding = 0;
    for bit in 0..bits {
        let disk = image.with(&image.last, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let report = image.verify(&disk);
        let (read, status, log) = image.read(&disk);
        let unwritable = status.unwritable.as_deref();
        let names = |what: &str| {
            let reason = unwritable.unwrap_or_else(|| panic!("bit {bit} is not noticed"));
            assert!(
                reason.contains(what) && reason.contains(".seg"),
                "bit {bit}: {reason}"
            );
        };
        let finding = |position: usize, offset: u64, damage: bool| {
            let found = report.findings.first();
            let found = found.unwrap_or_else(|| panic!("bit {bit} is not found"));
            assert_eq!(
                (
                    &found.path,
                    found.position,
                    found.offset.get(),
                    found.damage
                ),
                (&image.last, position as u64, offset, damage),
                "bit {bit}: {}",
                found.reason
            );
        };
        let first = image.frames[0].0;
        match meaning(&image, bit / 8) {
            Meaning::Header => {
                names("damaged at byte 0");
                finding(0, first, true);
                assert_eq!(read, image.records, "frames prove themselves, bit {bit}");
            }
            Meaning::Frame { offset, start } => {
                names(&format!("damaged at byte {start} (offset {offset}"));
                finding(start, offset, true);
                assert_eq!(read, offset, "what is proven is served, bit {bit}");
            }
            Meaning::Padding | Meaning::Unused => {
                padding += 1;
                assert_eq!((unwritable, read), (None, image.records), "bit {bit}");
                assert!(!report.is_damaged(), "bit {bit}");
            }
        }
        if bit % 37 == 0 {
            goes_on(&image, &disk, log, read);
        }
    }
    println!("{bits} bits, {padding} of them without a meaning");
}

/// Whatever was found, a log that takes an append keeps it, and one that does not stays as it is.
fn goes_on(image: &Image, disk: &SimulatedDisk, log: SegmentedLog, read: u64) {
    let mut writer = log.writer(P0).unwrap();
    let appended = writer.append(&batch_at(writer.end())).is_ok();
    assert_eq!(appended, log.status()[0].unwritable.is_none());
    drop((writer, log));
    let disk = disk.after_power_loss(&mut Random(read));
    let (again, _, _) = image.read(&disk);
    assert_eq!(again, read + u64::from(appended));
}

#[test]
fn a_last_segment_cut_to_any_length_is_named_and_serves_what_is_whole() {
    let image = Image::new(4096, 2);
    for length in 0..4096 {
        let disk = image.with(&image.last, |bytes| bytes.truncate(length));
        let report = image.verify(&disk);
        assert!(
            report.is_damaged() && report.findings[0].path == image.last,
            "length {length}"
        );
        let (read, status, log) = image.read(&disk);
        let reason = status
            .unwritable
            .unwrap_or_else(|| panic!("length {length} is not noticed"));
        assert!(reason.contains("bytes"), "length {length}: {reason}");
        // A frame that reaches into the place of the footer is not believed.
        let whole = image
            .frames
            .iter()
            .filter(|frame| frame.3 + SEGMENT_FOOTER_BYTES <= length)
            .count() as u64;
        assert_eq!(read, image.frames[0].0 + whole, "length {length}");
        drop(log);
    }
}

#[test]
fn random_flips_over_all_files_of_a_log_give_no_wrong_data_and_verify_names_each() {
    let image = Image::new(4096, 6);
    let mut random = Random(number("ORDER_LOG_SEED", 5));
    let rounds = number("ORDER_LOG_FLIPS", 3_000);
    let mut found = 0;
    for round in 0..rounds {
        let file = &image.files[usize::try_from(random.below(image.files.len() as u64)).unwrap()];
        if file.1.is_empty() {
            continue;
        }
        let byte = usize::try_from(random.below(file.1.len() as u64)).unwrap();
        let bit = random.below(8);
        let path = &file.0;
        let disk = image.with(path, |bytes| bytes[byte] ^= 1 << bit);
        let report = image.verify(&disk);
        let is_sealed = path.extension().is_some_and(|it| it == "seg") && path != &image.last;
        if is_sealed {
            // A sealed segment has no byte without a meaning.
            let finding = report.findings.first();
            let finding =
                finding.unwrap_or_else(|| panic!("round {round}: byte {byte} of {path:?}"));
            assert!(
                finding.damage && &finding.path == path && finding.position <= byte as u64,
                "round {round}: byte {byte}, {finding:?}"
            );
            found += 1;
        }
        let log = open(&disk, 4096).unwrap();
        for segment in log.segments().unwrap_or_default() {
            let (_, stopped) = read_from(&log, segment.base.get());
            if let Some(error) = stopped {
                assert!(
                    error.to_string().contains(&path.display().to_string()),
                    "round {round}: {error}"
                );
                assert!(report.is_damaged(), "round {round}: {error}");
            }
        }
    }
    assert!(
        found > rounds / 4,
        "{found} of {rounds} hit a sealed segment"
    );
}
