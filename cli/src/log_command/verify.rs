//! `order-service log verify`: proof of every byte of the log, and a name for everything that is wrong.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::anyhow;
use order_log::segmented::SegmentedLog;
use order_log::{PartitionId, ScanLimit};

use crate::byte_progress::ByteProgress;
use crate::config::{DataDirectoryFlags, Store};
use crate::data_directory::DataDirectory;
use crate::engine;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::print;

/// Prove every frame of the log, and name what is wrong where; the service must be stopped
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
}

/// Reads everything; prints what it proved and a line for each finding.
///
/// # Errors
/// A failure if anything that had been synced does not verify. A torn tail is named too, but is none: it was never
/// acknowledged, and the next start cuts it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let directory = DataDirectory::own_existing(&config.data_dir)?;
    match directory.manifest.store {
        Store::Segmented => segmented(&directory.path, &directory.manifest),
        Store::Jsonl => jsonl(&directory.path, &directory.manifest),
    }
}

fn segmented(directory: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let mut progress = ByteProgress::new("read");
    let segmented = engine::segmented_config(directory, manifest);
    let report =
        SegmentedLog::verify(&segmented, &engine::disk(), &mut |bytes| progress.at(bytes))?;
    progress.end();
    for finding in &report.findings {
        print::line(&format!(
            "{}: partition {}, segment {}, byte {}, offset {}: {}",
            if finding.damage {
                "damaged"
            } else {
                "torn tail"
            },
            finding.partition,
            finding.path.display(),
            finding.position,
            finding.offset,
            finding.reason
        ))?;
    }
    let waiting = engine::waiting_segments(directory)?;
    if waiting > 0 {
        print::line(&format!(
            "{waiting} segments wait for their names since the service was killed, and were not read: the next start, or \
             `order-service log rotate`, takes them in"
        ))?;
    }
    print::line(&format!(
        "read {} segments, {} bytes: {} frames with {} records are proven",
        report.segments, report.bytes, report.frames, report.records
    ))?;
    let lost: u64 = report
        .lost
        .iter()
        .map(|range| range.end.get() - range.start.get())
        .sum();
    if lost > 0 {
        print::line(&format!(
            "{lost} records in {} places were declared lost by `log repair`; its reports tell which",
            report.lost.len()
        ))?;
    }
    if report.is_damaged() {
        let damaged = report
            .findings
            .iter()
            .filter(|finding| finding.damage)
            .count();
        return Err(anyhow!(
            "the log is damaged in {damaged} place(s), named above; do not delete anything: restore the segment from a \
             backup, or keep serving what is proven, or see what `order-service log repair` would save"
        )
        .into());
    }
    Ok(())
}

/// Opening reads and checks every line; walking the frames shows that every one of them is whole.
fn jsonl(directory: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let log = engine::open_read_only(directory, manifest)?;
    let (mut frames, mut records) = (0, 0);
    for partition in 0..manifest.partitions {
        let reader = log.reader(PartitionId::new(partition))?;
        reader.scan(reader.start(), ScanLimit::NONE, &mut |frame| {
            frames += 1;
            records += frame.len();
            ControlFlow::Continue(())
        })?;
    }
    let file = engine::jsonl_file(directory);
    print::line(&format!(
        "read {}: {frames} frames with {records} records are whole",
        file.display()
    ))
}
