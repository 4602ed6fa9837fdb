//! `order-service log repair`: keeps what is proven of a damaged log, declares lost what is not, and sets the damaged
//! files aside. Only on request, and only shown until it is asked for twice.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use order_domain::OrderId;
use order_log::Offset;
use order_log::segmented::{KnownLoss, LostRange, RepairPlan, SegmentedLog};
use order_outbox::OfflineOutbox;

use crate::byte_progress::ByteProgress;
use crate::config::{Config, DataDirectoryFlags, Store};
use crate::data_directory::{DataDirectory, create_durably, sync_directory};
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::{print, sql};

/// Where damaged files are kept, in the data directory.
const ASIDE: &str = "repair";
/// What is lost, beside the damaged files.
const REPORT: &str = "report.txt";

/// Repair a damaged log: keep what is proven, declare lost what is not; the service must be stopped
///
/// Without --yes it only shows what it would do. Every record that is proven keeps its offset; offsets of lost records
/// are never given again. Damaged files are copied to `repair/<time>/` in the data directory first, with a report of what
/// is lost.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// Prints what is damaged and what is lost, and repairs it if so asked.
///
/// # Errors
/// A usage failure for a directory without a segmented log; a failure while another process has the directory, if the log
/// is damaged and was not to be repaired, or if the disk fails. Run again, it goes on where it was.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let directory = DataDirectory::own_existing(&config.data_dir)?;
    engine::refuse_waiting_segments(&directory.path)?;
    let manifest = &directory.manifest;
    if manifest.store == Store::Jsonl {
        return Err(usage!(
            "{} holds a JSONL log, which is a file of lines: mend it with an editor; `log repair` is for the segmented log",
            config.data_dir.display()
        ));
    }
    let segmented = engine::segmented_config(&config.data_dir, manifest);
    let disk = engine::disk();
    let seen = seen(&config, manifest)?;
    let mut progress = ByteProgress::new("read");
    let plan =
        SegmentedLog::plan_repair(&segmented, &disk, &seen, &mut |bytes| progress.at(bytes))?;
    progress.end();
    if plan.is_empty() {
        return print::line("the log needs no repair");
    }
    let report = report_of(&plan);
    print::line(report.trim_end())?;
    if !arguments.yes {
        return Err(anyhow!(
            "nothing was changed. Restoring the damaged segments from a backup loses nothing; `order-service log repair \
             --yes` loses what is listed above"
        )
        .into());
    }

    let aside = make_aside(&config.data_dir)?;
    write_report(&aside, &report)?;
    SegmentedLog::repair(&segmented, &disk, &plan, &aside, &mut |segment| {
        tracing::debug!(path = %segment.path.display(), "repaired");
    })
    .with_context(|| {
        format!(
            "the repair was cut short; damaged files are in {}; run it again",
            aside.display()
        )
    })?;
    let mut progress = ByteProgress::new("read again");
    let verified = SegmentedLog::verify(&segmented, &disk, &mut |bytes| progress.at(bytes))?;
    progress.end();
    if let Some(finding) = verified.findings.iter().find(|finding| finding.damage) {
        return Err(anyhow!(
            "{} still does not verify at byte {}: {}; the damaged files are in {}",
            finding.path.display(),
            finding.position,
            finding.reason,
            aside.display()
        )
        .into());
    }
    print::line(&format!(
        "repaired: {} records are proven; the damaged files and this report are in {}",
        verified.records,
        aside.display()
    ))
}

/// How far each partition was applied or told: offsets below were given to records.
fn seen(config: &Config, manifest: &Manifest) -> Result<Vec<Offset>, Failure> {
    let mut seen = vec![Offset::ZERO; usize::from(manifest.partitions)];
    let mut note = |partition: usize, offset: Offset| {
        if let Some(known) = seen.get_mut(partition) {
            *known = offset.max(*known);
        }
    };
    match sql::checkpoints(&config.data_dir) {
        Ok(checkpoints) => checkpoints
            .into_iter()
            .for_each(|(partition, offset)| note(partition, Offset::new(offset))),
        Err(failure) => print::line(&format!(
            "the read model does not tell how far it was ({failure}): should the log's last records be lost without a \
             trace, their offsets will be given again"
        ))?,
    }
    match OfflineOutbox::open(&config.data_dir, &config.outbox.source) {
        Ok(outbox) => outbox
            .iter()
            .flat_map(OfflineOutbox::cursors)
            .enumerate()
            .for_each(|(partition, offset)| note(partition, offset)),
        Err(error) => print::line(&format!(
            "the outbox does not tell how far it was ({error})"
        ))?,
    }
    Ok(seen)
}

fn report_of(plan: &RepairPlan) -> String {
    let mut report = String::new();
    for segment in &plan.segments {
        add(
            &mut report,
            &format!(
                "damaged: partition {}, segment {}, {}; {} records in {} frames stay",
                segment.partition,
                segment.path.display(),
                segment.reason,
                segment.records,
                segment.frames
            ),
        );
    }
    for range in &plan.lost {
        add(&mut report, &told(range));
        for known in &range.known {
            add(&mut report, &format!("  {}", told_of(known)));
        }
    }
    let records: u64 = plan
        .lost
        .iter()
        .map(|range| range.end.get() - range.start.get())
        .sum();
    add(
        &mut report,
        &format!(
            "{} damaged segments, {records} records lost in {} places",
            plan.segments.len(),
            plan.lost.len()
        ),
    );
    report
}

fn add(report: &mut String, line: &str) {
    writeln!(report, "{line}").expect("writing to a string does not fail");
}

fn told(range: &LostRange) -> String {
    let records = range.end.get() - range.start.get();
    format!(
        "lost: partition {}, offsets {} to {} ({records} records), segment {}, byte {}: {}",
        range.partition,
        range.start,
        range.end.get() - 1,
        range.path.display(),
        range.position,
        range.reason
    )
}

fn told_of(known: &KnownLoss) -> String {
    let order = OrderId::from_bytes(*known.key.as_bytes());
    match known.sequence {
        Some((first, 1)) => format!("offset {}: order {order}, version {first}", known.offset),
        Some((first, records)) => format!(
            "offset {}: order {order}, versions {first} to {}",
            known.offset,
            u64::from(first) + u64::from(records) - 1
        ),
        None => format!(
            "offset {}: order {order}, as a later event of it says",
            known.offset
        ),
    }
}

/// A new directory for the damaged files.
fn make_aside(data: &Path) -> Result<PathBuf, Failure> {
    let repairs = data.join(ASIDE);
    create_durably(&repairs)?;
    let time = jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    // A second repair in the same second gets a number.
    for attempt in 1..=100 {
        let name = if attempt == 1 {
            time.clone()
        } else {
            format!("{time}-{attempt}")
        };
        let aside = repairs.join(name);
        match fs::create_dir(&aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(anyhow::Error::new(error)
                    .context(format!("create {}", aside.display()))
                    .into());
            }
        }
    }
    Err(anyhow!(
        "{} holds a hundred repairs of this second",
        repairs.display()
    )
    .into())
}

/// On return the report is on stable storage: afterwards nothing else tells what was lost.
fn write_report(aside: &Path, report: &str) -> Result<(), Failure> {
    let path = aside.join(REPORT);
    File::create(&path)
        .and_then(|mut file| {
            file.write_all(report.as_bytes())?;
            file.sync_all()
        })
        .with_context(|| format!("write {}", path.display()))?;
    // The report's name, and that of its directory.
    for directory in aside.ancestors().take(2) {
        sync_directory(directory)?;
    }
    Ok(())
}
