//! `order-service serve`: the whole pipeline in one process.
//!
//! Opened from the bottom up: log, read model, projector workers, command workers, outbox, API. Closed from the top
//! down: the API stops taking requests and answers those it has, the command workers work off their queues and sync, the
//! readers of the log end where they are and go on from their checkpoints at the next start.

use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use order_api::{Api, ApiConfig, ApiParts, Endpoints, Listener};
use order_command_workers::{CommandWorkers, CommandWorkersConfig, Snapshots};
use order_log::segmented::Scrub;
use order_log::{EventLog, PartitionId};
use order_outbox::Outbox;
use order_projector_workers::{
    ProjectorConfig, ProjectorWorkers, ReadModel, ReadModelConfig, ReadModelReader,
};
use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::{Config, ServiceFlags};
use crate::data_directory::DataDirectory;
use crate::engine;
use crate::failure::{Failure, usage};
use crate::log_metrics::LogMetrics;
use crate::readiness;
use crate::snapshots::{InheritedKeys, ReadModelSnapshots};

/// How long the rooms below the API may take to stop, after the API has drained: the queues are bounded, a sync takes
/// milliseconds. Past it the process ends with a failure; what was acknowledged is safe either way.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// Run the service
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: ServiceFlags,
}

/// Runs until SIGTERM or SIGINT, then drains and stops.
///
/// # Errors
/// A usage failure for a configuration or data directory that does not fit; a failure if a room cannot be opened.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.service.load()?.config;
    crate::logging::start(&config.logging)?;
    let begun = Instant::now();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
        "order-service starts"
    );

    crate::file_limit::raise(config.api.connections_max);
    // Before anything is made: what does not fit should leave nothing behind.
    let api_config = config.api()?;
    let scheme = if api_config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let directory = DataDirectory::own(&config)?;
    let public = bind(config.listen, "listen")?;
    let admin = config
        .admin_listen
        .map(|address| bind(address, "admin-listen"))
        .transpose()?;

    let rooms = Rooms::open(&config, &directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .context("start the HTTP threads")?;
    let api = rooms.api(&config, api_config, &directory)?;

    let served = runtime.block_on(async {
        let signals = StopSignals::watch().context("watch for signals")?;
        let listeners = listeners(public, admin).context("listen")?;
        for Listener { socket, endpoints } in &listeners {
            let address = socket.local_addr().context("listen")?;
            match endpoints {
                Endpoints::Admin => info!("operators' endpoints on {scheme}://{address}"),
                Endpoints::All | Endpoints::Public => {
                    info!(
                        elapsed_ms = millis(begun.elapsed()),
                        "listening on {scheme}://{address}"
                    );
                }
            }
        }
        let stop_limit = config.drain_timeout() + STOP_LIMIT;
        order_api::serve(listeners, api, signals.first(stop_limit))
            .await
            .context("accept connections")
    });
    rooms.stop();
    served?;
    info!("stopped: everything acknowledged is in the log");
    Ok(())
}

/// Takes an address early: what is taken by another process should be told before a log is recovered.
fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("listen on {address}: choose another with --{flag}"))?;
    listener
        .set_nonblocking(true)
        .context("prepare the listening socket")?;
    Ok(listener)
}

/// Both listeners with what each serves.
fn listeners(public: TcpListener, admin: Option<TcpListener>) -> std::io::Result<Vec<Listener>> {
    let endpoints = if admin.is_some() {
        Endpoints::Public
    } else {
        Endpoints::All
    };
    [
        Some((public, endpoints)),
        admin.map(|admin| (admin, Endpoints::Admin)),
    ]
    .into_iter()
    .flatten()
    .map(|(listener, endpoints)| {
        Ok(Listener {
            socket: tokio::net::TcpListener::from_std(listener)?,
            endpoints,
        })
    })
    .collect()
}

/// The rooms below the API, open.
struct Rooms {
    log: Arc<dyn EventLog>,
    scrub: Option<Arc<Scrub>>,
    read_model: Arc<ReadModel>,
    projector: Arc<ProjectorWorkers>,
    commands: CommandWorkers,
    outbox: Arc<Outbox>,
    registry: Registry,
}

impl Rooms {
    fn open(config: &Config, directory: &DataDirectory) -> Result<Self, Failure> {
        let manifest = &directory.manifest;
        let partitions = manifest.partitions;
        if config.read_model_shards > partitions {
            return Err(usage!(
                "configuration: `read_model_shards` is {}, the log has {partitions} partitions: a file without a \
                 partition stays empty, so at most {partitions} make sense",
                config.read_model_shards
            ));
        }
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let step = Instant::now();
        let log = engine::open(config, directory)?;
        let records: u64 = log
            .status()
            .iter()
            .map(|it| it.durable_end.get() - it.start.get())
            .sum();
        info!(
            store = %manifest.store,
            durability = %config.durability.0,
            partitions,
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

        let step = Instant::now();
        let read_model = ReadModel::open(ReadModelConfig {
            directory: directory.path.clone(),
            partitions,
            shards: config.read_model_shards,
            log_id: manifest.log_id.to_string(),
        })?;
        let retention = config.idempotency_retention();
        let projector = ProjectorWorkers::start(
            &*log,
            Arc::clone(&read_model),
            ProjectorConfig {
                batch_records_max: config.projector.batch_records_max,
                idempotency_retention_us: u64::try_from(retention.as_micros()).unwrap_or(u64::MAX),
            },
            &registry,
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

        let commands = start_commands(config, directory, &*log, &read_model, retention, &registry)?;
        let outbox = Outbox::start(&*log, config.outbox.clone(), &directory.path, &registry)?;
        info!(sink = %config.outbox.sink, pending = outbox.status().pending, "the outbox runs");
        Ok(Self {
            log,
            scrub,
            read_model,
            projector,
            commands,
            outbox,
            registry,
        })
    }

    fn api(
        &self,
        config: &Config,
        api_config: ApiConfig,
        directory: &DataDirectory,
    ) -> Result<Api, Failure> {
        let manifest = &directory.manifest;
        let partitioner = manifest.partitioner()?;
        let readers = (0..manifest.partitions)
            .map(|partition| self.log.reader(PartitionId::new(partition)))
            .collect::<Result<_, _>>()?;
        let facts = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("store", manifest.store.to_string()),
            ("durability", config.durability.0.to_string()),
            ("partitions", manifest.partitions.to_string()),
            ("log_id", manifest.log_id.to_string()),
        ];
        let (log, outbox) = (Arc::clone(&self.log), Arc::clone(&self.outbox));
        let scrub = self.scrub.clone();
        let parts = ApiParts {
            commands: self.commands.clone(),
            read_model: Arc::clone(&self.read_model),
            projector: Arc::clone(&self.projector),
            outbox: Some(Arc::clone(&self.outbox)),
            log: readers,
            log_id: manifest.log_id.to_string(),
            partition_of: Box::new(move |order| {
                let mut text = [0; 36];
                PartitionId::new(partitioner.partition_of(order.text(&mut text).as_bytes()))
            }),
            registry: self.registry.clone(),
            facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            checks: Box::new(move || readiness::checks(&*log, scrub.as_deref(), &outbox)),
        };
        let former = manifest.rewritten.iter().flat_map(|it| &it.former_log_ids);
        let api_config = ApiConfig {
            former_log_ids: former.map(ToString::to_string).collect(),
            ..api_config
        };
        Ok(Api::new(parts, api_config)?)
    }

    fn stop(self) {
        self.commands.stop();
        self.projector.stop();
        self.outbox.stop();
    }
}

fn start_commands(
    config: &Config,
    directory: &DataDirectory,
    log: &dyn EventLog,
    read_model: &Arc<ReadModel>,
    idempotency_retention: Duration,
    registry: &Registry,
) -> Result<CommandWorkers, Failure> {
    let partitions = directory.manifest.partitions;
    // Made before the workers ask for them: a failure here should be told, not met half-way through starting threads.
    let mut readers = (0..partitions)
        .map(|_| read_model.reader())
        .collect::<Result<Vec<ReadModelReader>, _>>()?;
    let inherited = directory
        .manifest
        .rewritten
        .as_ref()
        .map(|rewritten| InheritedKeys::new(rewritten, idempotency_retention, log))
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
        directory.manifest.partitioner()?,
        &mut snapshots,
        CommandWorkersConfig {
            queue_commands_max: config.commands.queue_max,
            batch_commands_max: config.commands.batch_max,
            lag_events_max: config.commands.lag_events_max,
            group_commit: config.group_commit.is_on(),
            idempotency_retention,
        },
        registry,
    )?;
    Ok(commands)
}

/// SIGTERM and SIGINT.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> (&'static str, SignalKind) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", SignalKind::terminate()),
            _ = self.interrupt.recv() => ("SIGINT", SignalKind::interrupt()),
        }
    }

    /// Completes at the first signal. From then on the process ends by force at the second one, or after `limit`.
    async fn first(mut self, limit: Duration) {
        let (name, _) = self.next().await;
        info!("{name}: not ready any more, draining; a second signal ends at once");
        tokio::spawn(async move {
            tokio::select! {
                (name, kind) = self.next() => {
                    warn!("{name} again: ending at once; what was acknowledged is in the log");
                    end_by_force(128 + kind.as_raw_value());
                }
                () = tokio::time::sleep(limit) => {
                    warn!(limit_ms = millis(limit), "stopping took too long: ending by force");
                    end_by_force(1);
                }
            }
        });
    }
}

fn end_by_force(code: i32) -> ! {
    std::process::exit(code)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
