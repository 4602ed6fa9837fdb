//! The tools that rewrite sealed segments, on a disk that loses power at any of their file operations.
//!
//! Method: a log of several segments, all durable; then the tool, cut short at its first operation, its second, and so on.
//! After every cut the log opens, shows what it is to show, and the tool, run again, finishes.

use std::sync::Arc;

use super::simulation::{Outcome, P0, Written, batch_of, config, expect, open, read_all};
use super::{SegmentInfo, SegmentedLog, archive_segment};
use crate::disk::Disk;
use crate::disk::simulated::{Fault, Random, SimulatedDisk};
use crate::{EventLog, LogError, Offset};

/// More operations than any of the tools needs here.
const OPERATIONS_MAX: u64 = 2_000;

/// A closed log of several segments, every byte of it durable, and its frames.
pub(super) fn closed_log(random: &mut Random) -> Result<(SimulatedDisk, Vec<Written>), String> {
    let disk = SimulatedDisk::new();
    let log = open(&disk).map_err(|error| error.to_string())?;
    let mut writer = log.writer(P0).map_err(|error| error.to_string())?;
    let mut serial = 0;
    let mut time = 0;
    while log.status()[0].segments < 4 {
        time += 1;
        let (batch, _) = batch_of(random, writer.end(), &mut serial, time);
        writer.append(&batch).map_err(|error| error.to_string())?;
    }
    writer.close().map_err(|error| error.to_string())?;
    drop(writer);
    let frames = read_all(&log)?;
    Ok((disk, frames))
}

/// All segments, as a tool lists them.
pub(super) fn listed(disk: &SimulatedDisk) -> Result<Vec<SegmentInfo>, LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    SegmentedLog::open_read_only(config(), disk)?.segments()
}

/// Whether every byte of the log verifies.
pub(super) fn proven(disk: &SimulatedDisk) -> Outcome {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = SegmentedLog::verify(&config(), &disk, &mut |_| {});
    let report = report.map_err(|error| error.to_string())?;
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(format!("{finding:?}")),
    }
}

fn archive_all(disk: &SimulatedDisk, bases: &[Offset]) -> Result<(), LogError> {
    for base in bases {
        archive_segment(&config(), disk, P0, *base)?;
    }
    Ok(())
}

fn to_archive(disk: &SimulatedDisk) -> Result<Vec<Offset>, String> {
    let listed = listed(disk).map_err(|error| error.to_string())?;
    let sealed = listed
        .iter()
        .filter(|segment| segment.sealed_at.is_some() && !segment.archived);
    Ok(sealed.map(|segment| segment.base).collect())
}

/// Archiving, cut short anywhere, loses nothing, and run again it finishes.
pub(super) fn archiving() -> Outcome {
    for seed in 1..4 {
        let mut random = Random(seed);
        let (whole, frames) = closed_log(&mut random)?;
        let bases = to_archive(&whole)?;
        expect(bases.len() >= 3, "there are segments to archive")?;
        let mut operation = 0;
        loop {
            operation += 1;
            expect(operation < OPERATIONS_MAX, "archiving ends")?;
            let disk = whole.after_power_loss(&mut random);
            disk.set_fault(Some((operation, Fault::PowerLoss)));
            let archived = archive_all(&disk, &bases);
            disk.set_fault(None);
            let disk = disk.after_power_loss(&mut random);
            let check = |when: &str| -> Outcome {
                let log = open(&disk).map_err(|error| format!("{when}: {error}"))?;
                let found = read_all(&log).map_err(|error| format!("{when}: {error}"))?;
                expect(found == frames, when)
            };
            check(&format!(
                "cut at operation {operation}, everything is there"
            ))?;
            archive_all(&disk, &to_archive(&disk)?).map_err(|error| error.to_string())?;
            expect(to_archive(&disk)?.is_empty(), "run again, it finishes")?;
            check("archived after all, everything is there")?;
            proven(&disk)?;
            if archived.is_ok() {
                break;
            }
        }
    }
    Ok(())
}
