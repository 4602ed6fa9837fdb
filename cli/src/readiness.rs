//! What `/readyz` tells of the rooms that the API does not look into itself: the log and the outbox.

use order_api::Check;
use order_log::EventLog;
use order_log::segmented::Scrub;
use order_outbox::Outbox;

/// Asks both. The service is of use as long as one partition takes writes, and whether the outside world hears of them
/// or not.
pub(crate) fn checks(log: &dyn EventLog, scrub: Option<&Scrub>, outbox: &Outbox) -> Vec<Check> {
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
