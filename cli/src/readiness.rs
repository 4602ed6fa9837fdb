//! What `/readyz` tells of the rooms that the API does not look into itself: the log and the outbox.

use order_api::Check;
use order_log::EventLog;
use order_outbox::Outbox;

/// Asks both. The service is of use as long as one partition takes writes, and whether the outside world hears of them
/// or not.
pub(crate) fn checks(log: &dyn EventLog, outbox: &Outbox) -> Vec<Check> {
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
    log_checks.chain([outbox_check]).collect()
}
