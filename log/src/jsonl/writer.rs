//! The writing end of a partition: encodes its lines alone, then takes its turn at the file.

use std::sync::Arc;
use std::time::Duration;

use super::JsonlConfig;
use super::flusher::Flusher;
use super::line;
use super::shared_file::{EncodedLines, SharedFile};
use crate::{
    AppendTime, Appended, Batch, Durability, LogError, Offset, PartitionId, PartitionWriter,
};

#[derive(Debug)]
pub(super) struct JsonlWriter {
    shared: Arc<SharedFile>,
    partition: PartitionId,
    durability: Durability,
    type_names: fn(u16) -> &'static str,
    end: Offset,
    last_append_time: AppendTime,
    lines: EncodedLines,
    /// Kept running while this can append.
    _flusher: Option<Arc<Flusher>>,
}

impl JsonlWriter {
    pub(super) fn new(
        shared: Arc<SharedFile>,
        partition: PartitionId,
        config: &JsonlConfig,
        last_append_time: AppendTime,
        flusher: Option<Arc<Flusher>>,
    ) -> Self {
        Self {
            end: shared.partitions[partition.index()].durable_end.load(),
            shared,
            partition,
            durability: config.durability,
            type_names: config.type_names,
            last_append_time,
            lines: EncodedLines::default(),
            _flusher: flusher,
        }
    }

    fn encode(&mut self, batch: &Batch) {
        self.lines.bytes.clear();
        self.lines.starts.clear();
        let mut time = self.last_append_time;
        for frame in batch.iter() {
            assert!(frame.appended_at >= time, "append times never decrease");
            time = frame.appended_at;
            for (index, record) in (0..).zip(frame.records()) {
                self.lines.starts.push(self.lines.bytes.len());
                line::write(
                    self.partition,
                    &frame,
                    &record,
                    index,
                    (self.type_names)(record.tag.event_type),
                    &mut self.lines.bytes,
                );
            }
        }
    }
}

impl PartitionWriter for JsonlWriter {
    fn end(&self) -> Offset {
        self.end
    }

    fn last_append_time(&self) -> AppendTime {
        self.last_append_time
    }

    fn append(&mut self, batch: &Batch) -> Result<Appended, LogError> {
        self.shared.refuse_if_poisoned(self.partition)?;
        assert_eq!(batch.start(), self.end, "a batch starts at the end");
        let mut appended = Appended {
            start: batch.start(),
            end: batch.end(),
            sync_time: Duration::ZERO,
        };
        if batch.is_empty() {
            return Ok(appended);
        }
        self.encode(batch);
        let position = self.shared.write(self.partition, self.end, &self.lines)?;
        if self.durability == Durability::Always {
            appended.sync_time =
                self.shared
                    .sync_through(position)
                    .map_err(|source| LogError::OutcomeUnknown {
                        partition: self.partition,
                        at: batch.start(),
                        source,
                    })?;
        }
        self.end = batch.end();
        self.last_append_time = batch.last_append_time();
        Ok(appended)
    }

    /// The baseline keeps no record of how far it is synced: there is nothing to do.
    fn idle(&mut self) -> Result<(), LogError> {
        self.shared.refuse_if_poisoned(self.partition)
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.shared.refuse_if_poisoned(self.partition)?;
        match self.shared.sync() {
            Ok(_) => Ok(()),
            Err(source) => Err(LogError::OutcomeUnknown {
                partition: self.partition,
                at: self.shared.partitions[self.partition.index()]
                    .durable_end
                    .load(),
                source,
            }),
        }
    }
}
