//! What one sync costs: 4 KiB written in place, then `fdatasync`, again and again.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Preparation;
use crate::measure::{Sample, latencies, nanos};

const PAGE: [u8; 4096] = [0x5a; 4096];

/// Pages that are prepared, which is also the most that are written: none is written twice, so that each meets the file
/// as it was prepared.
const PAGES_MAX: u64 = 16_384;

/// Writes and syncs page after page of a new file for `duration`, or until the prepared pages are used up.
///
/// # Errors
/// If a file operation fails.
pub fn sync_pages(
    path: &Path,
    preparation: Preparation,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let page_bytes = u64::try_from(PAGE.len())?;
    let file = preparation.make(path, PAGES_MAX * page_bytes)?;
    let mut latency = latencies();
    let start = Instant::now();
    let mut before = start;
    let mut pages = 0;
    while pages < PAGES_MAX && before - start < duration {
        file.write_all_at(&PAGE, pages * page_bytes)
            .context("write a page")?;
        file.sync_data().context("sync a page")?;
        let after = Instant::now();
        latency.saturating_record(nanos(after - before));
        before = after;
        pages += 1;
    }
    Ok(Sample::with_latency(pages, before - start, &latency))
}
