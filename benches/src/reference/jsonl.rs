//! Events as lines of JSON: what encoding, appending and replaying them costs without anything around it.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::measure::{Sample, repeat_for};
use crate::sample::{ORDER_ID, ORDER_REQUEST, OrderRequest, TIMESTAMP};

/// Events between two looks at the clock where nothing else sets a batch.
const STEP_EVENTS: u64 = 1_000;

/// One event as a line.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a, D> {
    partition: u16,
    offset: u64,
    order_id: &'a str,
    version: u32,
    #[serde(rename = "type")]
    kind: &'a str,
    time: &'a str,
    data: D,
}

fn placed(data: &OrderRequest, offset: u64) -> Line<'static, &OrderRequest> {
    Line {
        partition: 0,
        offset,
        order_id: ORDER_ID,
        version: 1,
        kind: "OrderPlaced",
        time: TIMESTAMP,
        data,
    }
}

fn encode(order: &OrderRequest, offset: u64, lines: &mut Vec<u8>) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *lines, &placed(order, offset))?;
    lines.push(b'\n');
    Ok(())
}

/// Encodes events into warm memory.
///
/// # Errors
/// If the example order does not encode, which would be a fault of this program.
pub fn encode_lines(duration: Duration) -> anyhow::Result<Sample> {
    let order: OrderRequest = serde_json::from_str(ORDER_REQUEST)?;
    let mut lines = Vec::new();
    let mut offset = 0;
    repeat_for(duration, || {
        lines.clear();
        for _ in 0..STEP_EVENTS {
            encode(&order, offset, &mut lines)?;
            offset += 1;
        }
        black_box(&lines);
        Ok(STEP_EVENTS)
    })
}

/// Encodes and appends batches of events to a growing file, one `write` a batch, and one `fdatasync` if `synced`.
///
/// # Errors
/// If a file operation fails.
pub fn append_lines(
    path: &Path,
    batch_events: u64,
    synced: bool,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let order: OrderRequest = serde_json::from_str(ORDER_REQUEST)?;
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut lines = Vec::new();
    let mut offset = 0;
    repeat_for(duration, || {
        lines.clear();
        for _ in 0..batch_events {
            encode(&order, offset, &mut lines)?;
            offset += 1;
        }
        file.write_all(&lines).context("append lines")?;
        if synced {
            file.sync_data().context("sync lines")?;
        }
        Ok(batch_events)
    })
}

/// Reads `events` lines back from a file that was just written, and decodes each into an order of its own.
///
/// # Errors
/// If a file operation fails or a line does not decode.
pub fn replay_lines(path: &Path, events: u64) -> anyhow::Result<Sample> {
    let order: OrderRequest = serde_json::from_str(ORDER_REQUEST)?;
    let mut lines = Vec::new();
    for offset in 0..events {
        encode(&order, offset, &mut lines)?;
    }
    std::fs::write(path, &lines).with_context(|| format!("write {}", path.display()))?;
    drop(lines);

    let start = Instant::now();
    let mut reader = BufReader::with_capacity(
        1 << 20,
        File::open(path).with_context(|| format!("open {}", path.display()))?,
    );
    let mut line = Vec::new();
    let mut count = 0;
    while reader.read_until(b'\n', &mut line)? > 0 {
        let event: Line<'_, OrderRequest> = serde_json::from_slice(&line)?;
        anyhow::ensure!(
            event.offset == count,
            "line {count} holds offset {}",
            event.offset
        );
        black_box(&event.data);
        line.clear();
        count += 1;
    }
    Ok(Sample::rate(count, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_can_be_replayed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        append_lines(&path, 10, true, Duration::ZERO).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 10);
        let last: Line<'_, OrderRequest> =
            serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!((last.offset, last.data.customer_id.as_str()), (9, "c-1042"));
        assert!(replay_lines(&path, 100).unwrap().per_second > 0.0);
    }
}
