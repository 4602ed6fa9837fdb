//! What memory and processor give when no disk is asked: the upper end of every append and every scan.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use super::{BareFile, FRAME_BYTES, Sink, frame, verify};
use crate::measure::{Sample, repeat_for};
use crate::sample;

/// Records that are framed into memory and scanned again: 264 MB, more than a processor's caches hold.
const MEMORY_RECORDS: usize = 1_000_000;

/// Records between two looks at the clock.
const STEP_RECORDS: usize = 1_000;

/// Distinct records the frames are made from.
const SOURCE_RECORDS: u64 = 1024;

fn source() -> Vec<[u8; sample::RECORD_BYTES]> {
    (0..SOURCE_RECORDS).map(sample::record).collect()
}

/// Frames records, with their CRC, into memory that was written before; starts over when it is full.
///
/// # Errors
/// None today; the signature is that of all references.
pub fn frame_into_memory(duration: Duration) -> anyhow::Result<Sample> {
    let source = source();
    let mut next = source.iter().cycle();
    // Written once, so that no page is new when the clock runs.
    let mut memory = vec![1_u8; MEMORY_RECORDS * FRAME_BYTES];
    memory.clear();
    repeat_for(duration, || {
        if memory.len() + STEP_RECORDS * FRAME_BYTES > memory.capacity() {
            memory.clear();
        }
        for record in next.by_ref().take(STEP_RECORDS) {
            frame(record, &mut memory);
        }
        black_box(&memory);
        Ok(u64::try_from(STEP_RECORDS)?)
    })
}

/// Walks over framed records in memory and verifies each CRC, again and again.
///
/// # Errors
/// If a frame does not verify, which would be a fault of this program or of the memory.
pub fn scan_memory(duration: Duration) -> anyhow::Result<Sample> {
    let mut memory = Vec::with_capacity(MEMORY_RECORDS * FRAME_BYTES);
    let source = source();
    for record in source.iter().cycle().take(MEMORY_RECORDS) {
        frame(record, &mut memory);
    }
    let step_bytes = STEP_RECORDS * FRAME_BYTES;
    let mut steps = memory.chunks_exact(step_bytes).cycle();
    let mut bytes_seen = 0_usize;
    repeat_for(duration, || {
        let step = steps.next().unwrap_or_default();
        let count = verify(step, |record| bytes_seen += record.len());
        anyhow::ensure!(
            count == u64::try_from(STEP_RECORDS)?,
            "frame {count} does not verify"
        );
        black_box(bytes_seen);
        Ok(count)
    })
}

/// Frames batches of records and hands each to the operating system with one `pwrite`, without a sync.
///
/// # Errors
/// If a file operation fails.
pub fn write_unsynced(
    path: &Path,
    batch_records: usize,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let mut file = BareFile::unsynced(path)?;
    super::append_batches(&mut file as &mut dyn Sink, batch_records, duration)
}
