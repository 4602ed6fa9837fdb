//! One producer that appends batches and waits for each.

use std::time::Duration;

use super::Sink;
use crate::measure::{Sample, repeat_for};
use crate::sample;

/// Distinct records that are appended in turn: enough that no two of a sync are alike, few enough to stay in a cache.
const RECORDS: u64 = 1024;

/// Adds `batch_records` records and commits them, again and again, for `duration`; counts records, times commits.
///
/// # Errors
/// If a commit fails.
pub fn append_batches(
    sink: &mut dyn Sink,
    batch_records: usize,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let records: Vec<_> = (0..RECORDS).map(sample::record).collect();
    let mut next = records.iter().cycle();
    let count = u64::try_from(batch_records)?;
    repeat_for(duration, || {
        for record in next.by_ref().take(batch_records) {
            sink.add(record);
        }
        sink.commit()?;
        Ok(count)
    })
}
