//! The rooms below the API, opened from the bottom up: what `serve`, `api` and `projector` have in common.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use order_api::{Api, ApiConfig, ApiParts, Check, Projector};
use order_command_workers::{CommandWorkers, CommandWorkersConfig, Snapshots};
use order_log::segmented::Scrub;
use order_log::{EventLog, PartitionId, PartitionReader};
use order_outbox::Outbox;
use order_projector_workers::{
    ProjectorConfig, ProjectorWorkers, ReadModel, ReadModelConfig, ReadModelError, ReadModelReader,
};
use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tracing::info;

use crate::config::{Config, PARTITIONS_DEFAULT};
use crate::data_directory::DataDirectory;
use crate::engine::{self, Followers};
use crate::failure::{Failure, usage};
use crate::front::millis;
use crate::log_metrics::LogMetrics;
use crate::manifest::Manifest;
use crate::snapshots::{InheritedKeys, ReadModelSnapshots};

/// A registry with the metrics of the process.
///
/// # Errors
/// Only if a metric were malformed.
pub(crate) fn registry() -> Result<Registry, Failure> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// The log, open for writing, and what reads it again in the background.
#[derive(Debug)]
pub(crate) struct OpenLog {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) scrub: Option<Arc<Scrub>>,
}

/// Opens the log for writing, with its metrics.
///
/// # Errors
/// A failure with what the log said.
pub(crate) fn open_log(
    config: &Config,
    directory: &DataDirectory,
    followers: Followers,
    registry: &Registry,
) -> Result<OpenLog, Failure> {
    let step = Instant::now();
    let log = engine::open(config, directory, followers)?;
    let records: u64 = log
        .status()
        .iter()
        .map(|it| it.durable_end.get() - it.start.get())
        .sum();
    info!(
        store = %directory.manifest.store,
        durability = %config.durability.0,
        partitions = directory.manifest.partitions,
        records,
        elapsed_ms = millis(step.elapsed()),
        "the log is open"
    );
    let scrub = NonZeroU64::new(config.log.scrub_bytes_per_second)
        .map(|bytes_per_second| log.start_scrub(bytes_per_second))
        .transpose()
        .context("start the scrub of the log")?
        .flatten()
        .map(Arc::new);
    registry.register(Box::new(LogMetrics::new(
        Arc::clone(&log),
        scrub.clone(),
        directory.path.clone(),
        config.durability.0,
    )?))?;
    Ok(OpenLog { log, scrub })
}

/// Refuses more files of the read model than partitions, before a data directory is made for them.
///
/// # Errors
/// A usage failure.
pub(crate) fn refuse_before_anything_is_made(config: &Config) -> Result<(), Failure> {
    config
        .outbox
        .check_target()
        .map_err(|error| usage!("configuration: {error}"))?;
    match Manifest::find(&config.data_dir) {
        Ok(None) => check_files(config, config.partitions.unwrap_or(PARTITIONS_DEFAULT)),
        // What there is says how many partitions there are, or what is wrong with it, when it is opened.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

fn check_files(config: &Config, partitions: u16) -> Result<(), Failure> {
    if config.read_model_shards <= partitions {
        return Ok(());
    }
    Err(usage!(
        "configuration: `read_model_shards` is {}, the log has {partitions} partitions: a file without a \
         partition stays empty, so at most {partitions} make sense",
        config.read_model_shards
    ))
}

/// Where the read model is and how it is spread.
///
/// # Errors
/// A usage failure for more files than partitions.
pub(crate) fn read_model_config(
    config: &Config,
    manifest: &Manifest,
) -> Result<ReadModelConfig, Failure> {
    let partitions = manifest.partitions;
    check_files(config, partitions)?;
    Ok(ReadModelConfig {
        directory: config.data_dir.clone(),
        partitions,
        shards: config.read_model_shards,
        log_id: manifest.log_id.to_string(),
    })
}

/// What of a read model does not fit is the asker's to change.
pub(crate) fn unfit(error: ReadModelError) -> Failure {
    match error {
        ReadModelError::Unfit(_) | ReadModelError::Incompatible { .. } => {
            Failure::Usage(error.into())
        }
        other => other.into(),
    }
}

/// The read model, open for writing, and the workers that fill it. `prepare` is done between the two.
///
/// # Errors
/// A failure with what the read model said.
pub(crate) fn open_read_model(
    config: &Config,
    manifest: &Manifest,
    log: &dyn EventLog,
    registry: &Registry,
    prepare: impl FnOnce(&ReadModel) -> Result<(), Failure>,
) -> Result<(Arc<ReadModel>, Arc<ProjectorWorkers>), Failure> {
    let step = Instant::now();
    let read_model = ReadModel::open(read_model_config(config, manifest)?).map_err(unfit)?;
    prepare(&read_model)?;
    let retention = config.idempotency_retention().as_micros();
    let projector = ProjectorWorkers::start(
        log,
        Arc::clone(&read_model),
        ProjectorConfig {
            batch_records_max: config.projector.batch_records_max,
            idempotency_retention_us: u64::try_from(retention).unwrap_or(u64::MAX),
        },
        registry,
    )?;
    let behind: u64 = projector
        .status()
        .iter()
        .map(|it| it.end.get().saturating_sub(it.checkpoint.get()))
        .max()
        .unwrap_or(0);
    info!(
        files = config.read_model_shards,
        records_behind = behind,
        elapsed_ms = millis(step.elapsed()),
        "the read model is open"
    );
    Ok((read_model, projector))
}

/// The write side above an open log, and what tells the outside world.
#[derive(Debug)]
pub(crate) struct WriteSide {
    pub(crate) commands: CommandWorkers,
    pub(crate) outbox: Arc<Outbox>,
}

impl WriteSide {
    /// Starts the command workers on the rows of `read_model`, and the outbox.
    ///
    /// # Errors
    /// A failure with what the room said.
    pub(crate) fn start(
        config: &Config,
        directory: &DataDirectory,
        log: &dyn EventLog,
        read_model: &Arc<ReadModel>,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let commands = start_commands(config, &directory.manifest, log, read_model, registry)?;
        let outbox = Outbox::start(log, config.outbox.clone(), &directory.path, registry)?;
        info!(sink = %config.outbox.sink, pending = outbox.status().pending, "the outbox runs");
        Ok(Self { commands, outbox })
    }

    /// Works off what is queued and syncs; the outbox ends where it is and goes on from its cursor at the next start.
    pub(crate) fn stop(self) {
        self.commands.stop();
        self.outbox.stop();
    }
}

fn start_commands(
    config: &Config,
    manifest: &Manifest,
    log: &dyn EventLog,
    read_model: &Arc<ReadModel>,
    registry: &Registry,
) -> Result<CommandWorkers, Failure> {
    // Made before the workers ask for them: a failure here should be told, not met half-way through starting threads.
    let mut readers = (0..manifest.partitions)
        .map(|_| read_model.reader())
        .collect::<Result<Vec<ReadModelReader>, _>>()?;
    let inherited = manifest
        .rewritten
        .as_ref()
        .map(|rewritten| InheritedKeys::new(rewritten, config.idempotency_retention(), log))
        .transpose()?
        .map(Arc::new);
    let mut snapshots = |partition: PartitionId| -> Box<dyn Snapshots> {
        let reader = readers
            .pop()
            .expect("one reader a partition was made, and each is asked for once");
        let checkpoints = Arc::clone(read_model.checkpoints());
        Box::new(ReadModelSnapshots::new(
            partition,
            checkpoints,
            reader,
            inherited.clone(),
        ))
    };
    let commands = CommandWorkers::start(
        log,
        manifest.partitioner()?,
        &mut snapshots,
        CommandWorkersConfig {
            queue_commands_max: config.commands.queue_max,
            batch_commands_max: config.commands.batch_max,
            lag_events_max: config.commands.lag_events_max,
            group_commit: config.group_commit.is_on(),
            idempotency_retention: config.idempotency_retention(),
        },
        registry,
    )?;
    Ok(commands)
}

/// What the API stands on in one process and another.
pub(crate) struct Below<'a> {
    pub(crate) config: &'a Config,
    pub(crate) manifest: &'a Manifest,
    pub(crate) log: &'a dyn EventLog,
    pub(crate) read_model: Arc<ReadModel>,
    pub(crate) projector: Projector,
    pub(crate) write_side: Option<&'a WriteSide>,
    pub(crate) registry: Registry,
    pub(crate) checks: Box<dyn Fn() -> Vec<Check> + Send + Sync>,
}

impl Below<'_> {
    /// The API on top.
    ///
    /// # Errors
    /// A failure if the log has no such partition, or the API cannot start.
    pub(crate) fn api(self, api_config: ApiConfig) -> Result<Api, Failure> {
        let manifest = self.manifest;
        let partitioner = manifest.partitioner()?;
        let facts = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("store", manifest.store.to_string()),
            ("durability", self.config.durability.0.to_string()),
            ("partitions", manifest.partitions.to_string()),
            ("log_id", manifest.log_id.to_string()),
        ];
        let parts = ApiParts {
            commands: self.write_side.map(|it| it.commands.clone()),
            outbox: self.write_side.map(|it| Arc::clone(&it.outbox)),
            read_model: self.read_model,
            projector: self.projector,
            log: readers(self.log, manifest.partitions)?,
            log_id: manifest.log_id.to_string(),
            partition_of: Box::new(move |order| {
                let mut text = [0; 36];
                PartitionId::new(partitioner.partition_of(order.text(&mut text).as_bytes()))
            }),
            registry: self.registry,
            facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            checks: self.checks,
        };
        let former = manifest.rewritten.iter().flat_map(|it| &it.former_log_ids);
        let api_config = ApiConfig {
            former_log_ids: former.map(ToString::to_string).collect(),
            ..api_config
        };
        Ok(Api::new(parts, api_config)?)
    }
}

fn readers(log: &dyn EventLog, partitions: u16) -> Result<Vec<Box<dyn PartitionReader>>, Failure> {
    let readers = (0..partitions).map(|partition| log.reader(PartitionId::new(partition)));
    Ok(readers.collect::<Result<_, _>>()?)
}

/// Says that a long-lived command starts; returns when.
pub(crate) fn begin(command: &str) -> Instant {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "order-service {command} starts"
    );
    Instant::now()
}

/// How long a wait is between two looks at something that another process makes.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);
