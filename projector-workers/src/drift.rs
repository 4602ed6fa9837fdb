//! The drift proof: is what stands in SQLite what the log says?
//!
//! The log is folded again, in files of its own, up to the checkpoints of the live ones, and both are compared row by row.
//! The live files are only read, so a service may be using them: they are looked at as of one moment, and the fold goes
//! on to just there.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use order_log::{EventLog, Offset, PartitionId};
use rusqlite::Connection;

use crate::afresh::fold_on;
use crate::database::{check_readable, open_reader};
use crate::difference::{Difference, Rows, compare};
use crate::side::Side;
use crate::sql::from_sql;
use crate::{Projection, ProjectorConfig, ReadModel, ReadModelConfig, ReadModelError};

/// Page cache of the connection that walks a live file, in KiB.
const CACHE_KIB: u32 = 2_000;

/// A comparison of the live rows with the log.
#[derive(Debug)]
pub struct Drift {
    live: Vec<LiveFile>,
    refolded: Arc<ReadModel>,
    projector: ProjectorConfig,
    checkpoints: HashMap<(Projection, PartitionId), Offset>,
}

#[derive(Debug)]
struct LiveFile {
    path: PathBuf,
    connection: Connection,
    in_snapshot: bool,
}

impl Drift {
    /// Prepares a comparison of the read model at `live` with what its log says; the log is folded in the empty directory
    /// `scratch`, which takes as much space as the live files.
    ///
    /// # Errors
    /// [`ReadModelError::Incompatible`] if the live files are not there, or are of another layout, log or shard count;
    /// otherwise whatever SQLite said.
    pub fn new(
        live: &ReadModelConfig,
        scratch: &Path,
        projector: ProjectorConfig,
    ) -> Result<Self, ReadModelError> {
        let mut files = Vec::new();
        for (path, identity) in live.files()? {
            if !path.exists() {
                return Err(ReadModelError::Incompatible {
                    path,
                    reason: "is not there: there is no read model to compare".to_owned(),
                });
            }
            let connection = open_reader(&path, CACHE_KIB)?;
            check_readable(&connection, &path, &identity)?;
            files.push(LiveFile {
                path,
                connection,
                in_snapshot: false,
            });
        }
        let refolded = ReadModel::open(ReadModelConfig {
            directory: scratch.to_owned(),
            ..live.clone()
        })?;
        let mut drift = Self {
            live: files,
            refolded,
            projector,
            checkpoints: HashMap::new(),
        };
        drift.look()?;
        Ok(drift)
    }

    /// Folds the log up to the live checkpoints that were seen last; `progress` gets records folded and records to fold,
    /// and may end it.
    ///
    /// # Errors
    /// [`ReadModelError::Halted`] if a partition cannot be folded.
    pub fn fold(
        &self,
        log: &dyn EventLog,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<(), ReadModelError> {
        let until = |projection, partition| self.checkpoint(projection, partition);
        let total = self
            .refolded
            .partitions()
            .map(|partition| {
                let have = self.refolded.checkpoints();
                self.checkpoint(Projection::Orders, partition)
                    .get()
                    .saturating_sub(have.load(Projection::Orders, partition).get())
            })
            .sum();
        fold_on(log, &self.refolded, &self.projector, &until, &mut |done| {
            progress(done, total)
        })
    }

    /// From now on sees the live files as they are at this moment. To be followed by another [`Drift::fold`], of a log
    /// that was opened afterwards.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn take_snapshot(&mut self) -> Result<(), ReadModelError> {
        for file in &mut self.live {
            // The first read takes the snapshot.
            file.connection
                .execute_batch("BEGIN; SELECT count(*) FROM Checkpoint")
                .map_err(ReadModelError::sqlite(&file.path))?;
            file.in_snapshot = true;
        }
        self.look()
    }

    /// Projections and partitions whose live checkpoint is past what the log could be folded to: the log lost records, or
    /// the rows are of a later one.
    #[must_use]
    pub fn past_the_end(&self) -> Vec<(Projection, PartitionId, Offset, Offset)> {
        let mut past: Vec<_> = self
            .checkpoints
            .iter()
            .filter_map(|(at, live)| {
                let folded = self.refolded.checkpoints().load(at.0, at.1);
                (folded < *live).then_some((at.0, at.1, *live, folded))
            })
            .collect();
        past.sort_unstable();
        past
    }

    /// Compares a projection's rows; `visit` gets each difference. Returns how many rows were compared.
    ///
    /// # Errors
    /// Whatever SQLite said.
    pub fn compare(
        &self,
        projection: Projection,
        visit: &mut dyn FnMut(Difference),
        look: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<u64, ReadModelError> {
        let mut rows = 0;
        for (live, path) in self.live.iter().zip(self.refolded.paths()) {
            debug_assert!(live.in_snapshot, "a snapshot was taken before");
            let should = open_reader(&path, CACHE_KIB)?;
            let of = |connection| Rows {
                connection,
                side: Side::Live,
            };
            let before = rows;
            rows += compare(
                projection,
                of(&live.connection),
                of(&should),
                visit,
                &mut |seen| look(before + seen),
            )
            .map_err(ReadModelError::sqlite(&live.path))?;
        }
        Ok(rows)
    }

    fn checkpoint(&self, projection: Projection, partition: PartitionId) -> Offset {
        let known = self.checkpoints.get(&(projection, partition));
        known.copied().unwrap_or(Offset::ZERO)
    }

    /// Reads the live checkpoints.
    fn look(&mut self) -> Result<(), ReadModelError> {
        for file in &self.live {
            let read = || -> rusqlite::Result<Vec<(String, u16, i64)>> {
                file.connection
                    .prepare("SELECT projection, partition, next_offset FROM Checkpoint")?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect()
            };
            for (name, partition, next) in read().map_err(ReadModelError::sqlite(&file.path))? {
                if let Some(projection) = Projection::from_name(&name) {
                    let at = (projection, PartitionId::new(partition));
                    self.checkpoints.insert(at, Offset::new(from_sql(next)));
                }
            }
        }
        Ok(())
    }
}
