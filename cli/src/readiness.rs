//! What `/readyz` tells of what the API does not look into itself: the log, the outbox, and the disk below both.

use std::path::{Path, PathBuf};

use order_api::Check;
use order_log::EventLog;
use order_log::segmented::Scrub;
use order_outbox::Outbox;

use crate::config::Config;

/// Where the service writes, and how much it wants to find there.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: PathBuf,
    wanted_bytes: u64,
}

impl Disk {
    /// The file system of a data directory. With less than a whole segment free, the next one may not be had.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            directory: config.data_dir.clone(),
            wanted_bytes: config.log.segment_bytes_max,
        }
    }

    /// Bytes the service can still write.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn free_bytes(directory: &Path) -> std::io::Result<u64> {
        let space = rustix::fs::statvfs(directory)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Nobody is turned away for it: writes that find no room are refused one by one, and reads need none.
    fn check(&self) -> Check {
        let (ok, detail) = match Self::free_bytes(&self.directory) {
            Ok(free) if free >= self.wanted_bytes => (true, format!("{free} bytes free")),
            Ok(free) => (
                false,
                format!(
                    "{free} bytes free, a segment of the log may need {}: what finds no room is refused with 503 \
                     storage-full",
                    self.wanted_bytes
                ),
            ),
            Err(error) => (false, format!("its space is not known: {error}")),
        };
        Check {
            name: "disk".to_owned(),
            ok,
            required: false,
            detail,
        }
    }
}

/// Asks all of them. The service is of use as long as one partition takes writes, and whether the outside world hears of them
/// or not.
pub(crate) fn checks(
    log: &dyn EventLog,
    disk: &Disk,
    scrub: Option<&Scrub>,
    outbox: &Outbox,
) -> Vec<Check> {
    let partitions = log.status();
    let none_writable = partitions
        .iter()
        .all(|partition| partition.unwritable.is_some());
    let log_checks = partitions.into_iter().map(|partition| Check {
        name: format!("log-partition-{}", partition.partition),
        ok: partition.unwritable.is_none(),
        required: none_writable,
        detail: partition
            .unwritable
            .unwrap_or_else(|| format!("offsets {} to {}", partition.start, partition.durable_end)),
    });
    let status = outbox.status();
    let partition_trouble = status
        .partitions
        .iter()
        .find_map(|it| it.trouble.as_deref());
    let trouble = status.trouble.as_deref().or(partition_trouble);
    let outbox_check = Check {
        name: "outbox".to_owned(),
        ok: trouble.is_none(),
        required: false,
        detail: trouble.map_or_else(
            || {
                format!(
                    "sink {}, {} pending, {} dead",
                    status.sink, status.pending, status.dead
                )
            },
            str::to_owned,
        ),
    };
    log_checks
        .chain([disk.check()])
        .chain(scrub.map(scrub_check))
        .chain([outbox_check])
        .collect()
}

/// Damage in old segments stops nobody, but it wants a person: the first one is named.
fn scrub_check(scrub: &Scrub) -> Check {
    let status = scrub.status();
    Check {
        name: "log-scrub".to_owned(),
        ok: status.damaged.is_empty(),
        required: false,
        detail: match status.damaged.as_slice() {
            [] => format!("{} bytes read, {} passes", status.bytes, status.passes),
            [first, more @ ..] => format!(
                "{}: damaged at byte {} (offset {} of partition {}): {}; {} more segments",
                first.path.display(),
                first.position,
                first.offset,
                first.partition,
                first.reason,
                more.len()
            ),
        },
    }
}
