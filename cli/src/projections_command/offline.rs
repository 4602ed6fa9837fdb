//! A data directory's projections while no service runs.

use std::path::Path;
use std::sync::Arc;

use order_log::EventLog;
use order_projector_workers::{
    Action, OfflineProjections, Projection, ProjectorConfig, ReadModel, ReadModelConfig,
    ReadModelError,
};

use super::view::{OneProjection, Overview, ParkedOrder, Redriven, Task};
use crate::config::{Config, DataDirectoryFlags};
use crate::data_directory::{DataDirectory, ask_its_owner};
use crate::engine;
use crate::failure::Failure;
use crate::manifest::Manifest;
use crate::rooms::unfit;

/// Parked orders read at once.
const PARKED_PAGE: usize = 1_000;

/// An owned data directory.
pub(super) struct Offline {
    projections: OfflineProjections,
    log: Arc<dyn EventLog>,
    _directory: DataDirectory,
}

impl Offline {
    /// Locks the directory and opens its log, for reading, and its read model.
    ///
    /// # Errors
    /// A usage failure for a directory that is none, that a service owns, or whose read model does not fit it.
    pub(super) fn open(flags: &DataDirectoryFlags) -> Result<Self, Failure> {
        let config = flags.load()?.config;
        crate::logging::start(&config.logging)?;
        let directory = DataDirectory::own_existing(&config.data_dir)
            .map_err(|failure| ask_its_owner(failure, &config))?;
        let manifest = &directory.manifest;
        let log = engine::open_read_only(&config.data_dir, manifest)?;
        let read_model = ReadModel::open(read_model_config(&config, manifest)).map_err(unfit)?;
        let projections =
            OfflineProjections::new(&*log, read_model, projector_config(&config)).map_err(unfit)?;
        Ok(Self {
            projections,
            log,
            _directory: directory,
        })
    }

    pub(super) fn overview(&self) -> Result<Overview, Failure> {
        let status = self.projections.status();
        let mut reader = self.projections.read_model().reader()?;
        let one = |projection: &Projection| {
            let kept = reader.kept_tables(*projection)?;
            Ok(OneProjection::of(*projection, &status, kept))
        };
        let projections = Projection::ALL.iter().map(one);
        Ok(Overview {
            projections: projections.collect::<Result<_, ReadModelError>>()?,
            task: self.task(),
        })
    }

    pub(super) fn set_paused(&self, projection: Projection, paused: bool) -> Result<(), Failure> {
        Ok(self.projections.set_paused(projection, paused)?)
    }

    pub(super) fn parked(&self, projection: Projection) -> Result<Vec<ParkedOrder>, Failure> {
        let mut reader = self.projections.read_model().reader()?;
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = reader.parked(projection, after, PARKED_PAGE)?;
            after = page.last().map(|order| order.id);
            let full = page.len() == PARKED_PAGE;
            all.extend(page.into_iter().map(|order| ParkedOrder {
                order_id: order.id.to_string(),
                partition: order.partition.get(),
                offset: order.offset.get(),
                events: order.events,
                reason: order.reason,
            }));
            if !full {
                return Ok(all);
            }
        }
    }

    pub(super) fn redrive(&self, projection: Projection) -> Result<Redriven, Failure> {
        let redriven = self.projections.redrive(&*self.log, projection)?;
        Ok(Redriven {
            applied: redriven.applied_frames,
            parked_orders: redriven.parked_orders,
        })
    }

    pub(super) fn start(&self, projection: Projection, action: Action) -> Result<(), Failure> {
        let started = self.projections.tasks().start(projection, action);
        started.map_err(unfit)
    }

    pub(super) fn task(&self) -> Option<Task> {
        self.projections.tasks().status().map(Task::from)
    }
}

/// The read model of a data directory, in as many files as there are; as configured if there are none.
pub(super) fn read_model_config(config: &Config, manifest: &Manifest) -> ReadModelConfig {
    ReadModelConfig {
        directory: config.data_dir.clone(),
        partitions: manifest.partitions,
        shards: shards_found(&config.data_dir)
            .unwrap_or_else(|| config.read_model_shards.min(manifest.partitions)),
        log_id: manifest.log_id.to_string(),
    }
}

fn shards_found(directory: &Path) -> Option<u16> {
    if directory.join("read.db").exists() {
        return Some(1);
    }
    let found =
        (0..u16::MAX).take_while(|shard| directory.join(format!("read-{shard:03}.db")).exists());
    u16::try_from(found.count()).ok().filter(|count| *count > 0)
}

pub(super) fn projector_config(config: &Config) -> ProjectorConfig {
    let retention = config.idempotency_retention().as_micros();
    ProjectorConfig {
        batch_records_max: config.projector.batch_records_max,
        idempotency_retention_us: u64::try_from(retention).unwrap_or(u64::MAX),
    }
}
