//! `order-service log archive`: compresses sealed segments in place.
//!
//! The service must be stopped: a data directory has one process that writes it. What is archived reads as before, by every
//! reader, a little slower; an order whose history is asked for often should stay plain, hence `--keep-last`.

use order_log::DataLock;
use order_log::segmented::{SegmentInfo, SegmentedLog, archive_segment};

use crate::age::{Age, now_micros};
use crate::byte_progress::ByteProgress;
use crate::config::DataDirectoryFlags;
use crate::engine;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::log_command::rotate::refuse_jsonl;
use crate::manifest::Manifest;
use crate::print;

/// Compress sealed segments in place; the service must be stopped
///
/// Archived segments stay readable by everything. Each is proven to unpack to the same bytes before the plain file goes.
/// Interrupted, it can be run again.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Only segments whose last event is older than this: `90d`, `12h`, `30m`, `45s`
    #[arg(long, value_name = "AGE")]
    older_than: Option<Age>,
    /// Leave this many of the latest sealed segments of each partition as they are
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    keep_last: usize,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Prints a line for each segment that is archived, and what was left.
///
/// # Errors
/// A usage failure for a log of one file; a failure naming the process that runs the service, a damaged segment, or what
/// the disk said.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let manifest = Manifest::read(&config.data_dir)?;
    refuse_jsonl(&manifest, "archive")?;
    let _lock = DataLock::acquire(&config.data_dir)?;
    let interrupt = Interrupt::watch()?;
    let segments = engine::open_segments(&config.data_dir, &manifest)?.segments()?;
    let before = arguments
        .older_than
        .map_or(u64::MAX, |age| now_micros().saturating_sub(age.as_micros()));
    let choice = choose(&segments, before, arguments.keep_last);
    if !arguments.dry_run {
        // What an interrupted run left is not in the way of a full disk.
        SegmentedLog::remove_leftovers(
            &engine::segmented_config(&config.data_dir, &manifest),
            &*engine::disk(),
        )?;
    }

    let (mut plain, mut packed) = (0, 0);
    let segmented = engine::segmented_config(&config.data_dir, &manifest);
    let total = choice.chosen.iter().map(|segment| segment.bytes).sum();
    let mut progress = ByteProgress::of("compressed", total);
    for segment in &choice.chosen {
        if arguments.dry_run {
            plain += segment.bytes;
            print::line(&format!("would archive {}", segment.path.display()))?;
            continue;
        }
        interrupt.check()?;
        let archived = archive_segment(
            &segmented,
            &*engine::disk(),
            segment.partition,
            segment.base,
        )?;
        plain += archived.bytes_before;
        packed += archived.bytes_after;
        print::line(&format!(
            "{}: {} -> {}",
            segment.path.display(),
            bytes(archived.bytes_before),
            bytes(archived.bytes_after)
        ))?;
        progress.part_done(archived.bytes_before);
    }
    progress.end();
    let count = choice.chosen.len();
    print::line(&if arguments.dry_run {
        format!("would archive {count} segments of {}", bytes(plain))
    } else {
        format!(
            "archived {count} segments: {} -> {}",
            bytes(plain),
            bytes(packed)
        )
    })?;
    let Choice {
        active,
        archived,
        younger,
        kept,
        ..
    } = choice;
    print::line(&format!(
        "left: {archived} archived before, {younger} not old enough, {kept} kept as the latest, {active} being written"
    ))
}

/// Which segments are archived, and how many are left for which reason.
#[derive(Debug, Default)]
struct Choice<'s> {
    chosen: Vec<&'s SegmentInfo>,
    active: usize,
    archived: usize,
    younger: usize,
    kept: usize,
}

/// `segments` are in order, partition by partition.
fn choose(segments: &[SegmentInfo], before_micros: u64, keep_last: usize) -> Choice<'_> {
    let mut choice = Choice::default();
    for partition in segments.chunk_by(|one, next| one.partition == next.partition) {
        let (active, sealed) = match partition.split_last() {
            Some((last, sealed)) => (last, sealed),
            None => continue,
        };
        debug_assert!(active.sealed_at.is_none(), "the last one is being written");
        choice.active += 1;
        let kept_from = sealed.len().saturating_sub(keep_last);
        for (number, segment) in sealed.iter().enumerate() {
            let old = segment
                .sealed_at
                .is_none_or(|sealed_at| sealed_at.as_micros() < before_micros);
            if segment.archived {
                choice.archived += 1;
            } else if number >= kept_from {
                choice.kept += 1;
            } else if !old {
                choice.younger += 1;
            } else {
                // One without a valid footer is chosen too: archiving names what is wrong with it.
                choice.chosen.push(segment);
            }
        }
    }
    choice
}

/// Bytes as people read them.
fn bytes(count: u64) -> String {
    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    let (unit, name) = if count < MIB {
        (KIB, "KiB")
    } else {
        (MIB, "MiB")
    };
    format!("{}.{} {name}", count / unit, count % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use order_log::{AppendTime, Offset, PartitionId};

    use super::*;

    /// A sealed segment of a partition, with the time of its last event.
    fn sealed(partition: u16, base: u64, time: u64, archived: bool) -> SegmentInfo {
        SegmentInfo {
            partition: PartitionId::new(partition),
            path: "a".into(),
            base: Offset::new(base),
            end: Offset::new(base + 10),
            bytes: 100,
            sealed_at: Some(AppendTime::from_micros(time)),
            archived,
        }
    }

    fn active(partition: u16, base: u64) -> SegmentInfo {
        SegmentInfo {
            sealed_at: None,
            ..sealed(partition, base, 0, false)
        }
    }

    #[test]
    fn only_what_is_sealed_plain_old_enough_and_not_among_the_latest_is_chosen() {
        let segments = [
            sealed(0, 0, 100, true),
            sealed(0, 10, 200, false),
            sealed(0, 20, 300, false),
            sealed(0, 30, 400, false),
            active(0, 40),
            sealed(1, 0, 400, false),
            active(1, 10),
        ];
        let bases = |before, keep_last| -> Vec<(u16, u64)> {
            let choice = choose(&segments, before, keep_last);
            let chosen = choice.chosen.iter();
            chosen
                .map(|segment| (segment.partition.get(), segment.base.get()))
                .collect()
        };
        assert_eq!(bases(u64::MAX, 0), [(0, 10), (0, 20), (0, 30), (1, 0)]);
        assert_eq!(bases(u64::MAX, 1), [(0, 10), (0, 20)]);
        assert_eq!(bases(300, 0), [(0, 10)]);
        assert_eq!(bases(u64::MAX, 9), []);
        let choice = choose(&segments, 300, 1);
        let left = (choice.active, choice.archived, choice.younger, choice.kept);
        assert_eq!(left, (2, 1, 1, 2));
    }
}
