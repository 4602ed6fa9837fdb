//! A log under construction in a staging directory: nobody reads it before it is whole.

use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use order_log::{
    AppendTime, Batch, Durability, EventLog, LogError, Offset, PartitionId, PartitionWriter,
};

use super::OwnedFrame;
use crate::config::Store;
use crate::engine;
use crate::failure::Failure;
use crate::manifest::Manifest;

/// Bytes gathered over all partitions before they are written, at least a few frames each.
const GATHERED_BYTES: usize = 16 * 1024 * 1024;
const GATHERED_BYTES_LEAST: usize = 16 * 1024;

/// One partition's end that is written to.
#[derive(Debug)]
struct Target {
    writer: Box<dyn PartitionWriter>,
    batch: Batch,
    last_time: AppendTime,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct NewLog {
    log: Arc<dyn EventLog>,
    targets: Vec<Target>,
    gathered_max: usize,
}

impl NewLog {
    /// Makes an empty log as `manifest` says.
    ///
    /// # Errors
    /// Whatever the log says.
    pub(crate) fn create(
        directory: &Path,
        manifest: &Manifest,
        segment_bytes_max: u64,
    ) -> Result<Self, Failure> {
        // Synced once, at the end: until then nothing of it counts.
        let log = engine::open_at(directory, manifest, Durability::Os, segment_bytes_max)?;
        let targets = (0..manifest.partitions).map(|partition| {
            let writer = log.writer(PartitionId::new(partition))?;
            let mut batch = Batch::new();
            batch.start_at(writer.end());
            Ok(Target {
                writer,
                batch,
                last_time: AppendTime::default(),
            })
        });
        let targets = targets.collect::<Result<Vec<_>, LogError>>()?;
        let gathered_max = match manifest.store {
            Store::Segmented => (GATHERED_BYTES / targets.len().max(1)).max(GATHERED_BYTES_LEAST),
            // One file for all partitions: its lines stand in the order the frames came in.
            Store::Jsonl => 0,
        };
        Ok(Self {
            log,
            targets,
            gathered_max,
        })
    }

    /// Adds a frame with another link back; returns its base offset in the new log.
    ///
    /// # Errors
    /// A failure for a frame that no log holds; whatever the log says.
    pub(crate) fn append(
        &mut self,
        to: PartitionId,
        frame: &OwnedFrame,
        previous: Option<Offset>,
    ) -> Result<Offset, Failure> {
        let Target {
            batch, last_time, ..
        } = &mut self.targets[to.index()];
        if frame.appended_at < *last_time {
            return Err(anyhow!(
                "the frame at offset {} was appended before the one ahead of it: times of a log never decrease",
                frame.base
            )
            .into());
        }
        let records = frame.records.iter().map(|(_, bytes)| bytes.len());
        if !Batch::fits_a_frame(records) {
            return Err(anyhow!("the frame at offset {} is over the limits", frame.base).into());
        }
        *last_time = frame.appended_at;
        batch.begin_frame(frame.key, frame.sequence, previous, frame.appended_at);
        for (tag, bytes) in &frame.records {
            batch.record(|buffer| {
                buffer.extend_from_slice(bytes);
                *tag
            });
        }
        let base = batch.end_frame();
        if batch.bytes() >= self.gathered_max {
            self.write(to)?;
        }
        Ok(base)
    }

    fn write(&mut self, partition: PartitionId) -> Result<(), Failure> {
        let Target { writer, batch, .. } = &mut self.targets[partition.index()];
        let end = writer.append(batch)?.end;
        batch.start_at(end);
        Ok(())
    }

    /// Writes what is gathered, syncs and closes the log; returns its ends.
    ///
    /// # Errors
    /// Whatever the log says.
    pub(crate) fn finish(mut self) -> Result<Vec<Offset>, Failure> {
        for partition in 0..self.log.partition_count() {
            self.write(PartitionId::new(partition))?;
        }
        let mut ends = Vec::new();
        for target in &mut self.targets {
            target.writer.close()?;
            ends.push(target.writer.end());
        }
        Ok(ends)
    }
}
