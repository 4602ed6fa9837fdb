//! The configuration: every setting with its default, and the flags that set the common ones.
//!
//! Defaults lie under the TOML file, that under the environment, that under the flags. A setting nobody knows is refused
//! wherever it stands: a misspelt durability must not become the default one.

mod flags;
mod sources;
mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use figment::Figment;
use order_api::{ApiConfig, BearerToken, Scope, Tls, check_listen};
use order_log::segmented::SegmentedConfig;
use order_outbox::OutboxConfig;
use order_partitioner::Partitioner;
use order_projector_workers::ProjectorConfig;
use serde::{Deserialize, Serialize};

pub(crate) use flags::{DataDirectoryFlags, ProjectorFlags, ServiceFlags};
pub(crate) use sources::{Setting, origin};
pub(crate) use values::{Durability, LogFormat, Store, Switch};

use crate::failure::{Failure, usage};

/// Every setting of the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Where HTTP is served.
    pub(crate) listen: SocketAddr,
    /// Where the operators' endpoints are served, and then only there. Absent: beside the others.
    pub(crate) admin_listen: Option<SocketAddr>,
    /// Serve other machines although nobody has to say who they are.
    pub(crate) insecure: bool,
    /// Partitions of the log. Absent: as the data directory says, and [`PARTITIONS_DEFAULT`] for a new one.
    pub(crate) partitions: Option<u16>,
    /// The engine that keeps the events. Absent: as the data directory says, and segmented for a new one.
    pub(crate) store: Option<Store>,
    /// When a write counts as done.
    pub(crate) durability: Durability,
    /// Whether commands that queue during a sync share the next one.
    pub(crate) group_commit: Switch,
    /// Files the read model is spread over.
    pub(crate) read_model_shards: u16,
    /// How long a used idempotency key is remembered, in hours.
    pub(crate) idempotency_retention_hours: u32,
    /// The API's limits.
    pub(crate) api: Api,
    /// The log's files.
    pub(crate) log: Log,
    /// The write side.
    pub(crate) commands: Commands,
    /// The read side.
    pub(crate) projector: Projector,
    /// The integration events.
    pub(crate) outbox: OutboxConfig,
    /// The service's own messages.
    pub(crate) logging: Logging,
}

/// Partitions of a new log: enough for the cores of a small machine, few enough to share syncs.
pub(crate) const PARTITIONS_DEFAULT: u16 = 4;

/// Smallest and largest segment the log makes: it checks them too, but does not know the setting's name.
const SEGMENT_BYTES_MIN: u64 = 1024 * 1024;
const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Settings of the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Api {
    /// Most connections at once.
    pub(crate) connections_max: usize,
    /// Longest time for the head of a request, and between two, in milliseconds.
    pub(crate) header_timeout_ms: u64,
    /// Longest time for a request and its answer, in milliseconds; streams are exempt.
    pub(crate) request_timeout_ms: u64,
    /// How long the service serves on after the signal to stop, while `/readyz` turns new traffic away, in milliseconds.
    pub(crate) shutdown_pause_ms: u64,
    /// Longest time open requests may take after that, in milliseconds.
    pub(crate) drain_timeout_ms: u64,
    /// Threads that read the read model; 0 for one a core.
    pub(crate) reader_threads: usize,
    /// How long a read waits by itself for the read model to catch up, in milliseconds.
    pub(crate) read_patience_ms: u64,
    /// Whether every command on an existing order must carry `If-Match`.
    pub(crate) require_if_match: bool,
    /// Whether every POST that changes an order must carry `Idempotency-Key`.
    pub(crate) require_idempotency_key: bool,
    /// Who may use the API; without any, everybody who reaches it.
    pub(crate) tokens: Vec<Token>,
    /// What to prove the service with. Absent: HTTP is not encrypted.
    pub(crate) tls: Option<TlsFiles>,
}

/// Two PEM files; a changed pair is taken over without a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    /// The certificate and those that vouch for it, the service's own first.
    certificate: PathBuf,
    /// The certificate's private key. Nobody but its owner and group may read it.
    key: PathBuf,
}

impl TlsFiles {
    fn read(&self) -> Result<Tls, Failure> {
        Tls::from_pem_files(&self.certificate, &self.key)
            .map_err(|error| usage!("configuration: `api.tls`: {error}"))
    }
}

/// A bearer token, known by its hash alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// What messages call it.
    name: String,
    /// SHA-256 of the token, in hexadecimal.
    sha256: String,
    /// What it allows: `read`, `write`, `admin`.
    scopes: Vec<String>,
}

impl Token {
    fn parse(&self) -> Result<BearerToken, Failure> {
        let scopes = self
            .scopes
            .iter()
            .map(|name| {
                Scope::parse(name).ok_or_else(|| {
                    usage!(
                        "configuration: `api.tokens`: token {} has scope `{name}`; there are read, write and admin",
                        self.name
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        BearerToken::new(&self.name, &self.sha256, &scopes)
            .map_err(|error| usage!("configuration: `api.tokens`: {error}"))
    }
}

/// Settings of the log's files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    /// Largest segment, in bytes.
    pub(crate) segment_bytes_max: u64,
    /// How fast sealed segments are read again in the background to find rot, in bytes a second; 0 for not at all.
    pub(crate) scrub_bytes_per_second: u64,
}

/// Settings of the command workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Commands {
    /// Most commands waiting a partition; beyond it they are refused with 503.
    pub(crate) queue_max: usize,
    /// Most commands in one append.
    pub(crate) batch_max: usize,
    /// Most records the read model may be behind before commands are refused with 503.
    pub(crate) lag_events_max: u64,
}

/// Settings of the projector workers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Projector {
    /// Where `order-service projector` serves its own endpoints.
    pub(crate) listen: SocketAddr,
    /// Most records applied in one transaction.
    pub(crate) batch_records_max: u64,
}

/// Settings of the service's own messages.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logging {
    /// Which messages, as in `RUST_LOG`: `info`, `order_api=debug,warn`.
    pub(crate) filter: String,
    /// How they look.
    pub(crate) format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: None,
            insecure: false,
            partitions: None,
            store: None,
            durability: Durability(order_log::Durability::Always),
            group_commit: Switch::On,
            read_model_shards: 1,
            idempotency_retention_hours: 24,
            api: Api {
                connections_max: 4_096,
                header_timeout_ms: 30_000,
                request_timeout_ms: 30_000,
                // Nobody routes traffic to a terminal.
                shutdown_pause_ms: 0,
                drain_timeout_ms: 10_000,
                reader_threads: 0,
                read_patience_ms: 1_000,
                require_if_match: false,
                require_idempotency_key: false,
                tokens: Vec::new(),
                tls: None,
            },
            log: Log {
                segment_bytes_max: SegmentedConfig::SEGMENT_BYTES_MAX_DEFAULT,
                // 10 GiB in three quarters of an hour, and too little for anybody to notice.
                scrub_bytes_per_second: 4 * 1024 * 1024,
            },
            commands: Commands {
                queue_max: 8_192,
                batch_max: 4_096,
                lag_events_max: 200_000,
            },
            projector: Projector {
                listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
                batch_records_max: ProjectorConfig::BATCH_RECORDS_MAX_DEFAULT,
            },
            outbox: OutboxConfig::default(),
            logging: Logging {
                filter: "info".to_owned(),
                format: LogFormat::Auto,
            },
        }
    }
}

/// A configuration with the layers it was read from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The effective settings.
    pub(crate) config: Config,
    /// Where each came from.
    pub(crate) layers: Figment,
}

/// Reads the configuration: defaults, `file`, the process's environment, `flags`.
///
/// # Errors
/// A usage failure that names every wrong setting and where it came from.
pub(crate) fn load(file: Option<&std::path::Path>, flags: Vec<Setting>) -> Result<Loaded, Failure> {
    let environment = sources::from_environment(std::env::vars_os())?;
    let layers = sources::layered(file, environment, flags)?;
    let config = sources::extract(&layers)?;
    config.check(&layers)?;
    Ok(Loaded { config, layers })
}

impl Config {
    /// How long a used idempotency key is remembered.
    pub(crate) fn idempotency_retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.idempotency_retention_hours) * 60 * 60)
    }

    /// How long the service serves on after the signal to stop.
    pub(crate) fn shutdown_pause(&self) -> Duration {
        Duration::from_millis(self.api.shutdown_pause_ms)
    }

    /// How long open requests may take after that.
    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.api.drain_timeout_ms)
    }

    fn tokens(&self) -> Result<Vec<BearerToken>, Failure> {
        self.api.tokens.iter().map(Token::parse).collect()
    }

    /// The API's part of the configuration; limits that are not settings stay as the API has them. Reads the certificate
    /// and its key.
    ///
    /// # Errors
    /// A usage failure for a token that is none, and for a certificate that does not fit.
    pub(crate) fn api(&self) -> Result<ApiConfig, Failure> {
        let defaults = ApiConfig::default();
        Ok(ApiConfig {
            connections_max: self.api.connections_max,
            header_timeout: Duration::from_millis(self.api.header_timeout_ms),
            request_timeout: Duration::from_millis(self.api.request_timeout_ms),
            drain_timeout: self.drain_timeout(),
            reader_threads: match self.api.reader_threads {
                0 => defaults.reader_threads,
                threads => threads,
            },
            read_patience: Duration::from_millis(self.api.read_patience_ms),
            require_if_match: self.api.require_if_match,
            require_idempotency_key: self.api.require_idempotency_key,
            tokens: self.tokens()?,
            tls: self.api.tls.as_ref().map(TlsFiles::read).transpose()?,
            idempotency_retention: self.idempotency_retention(),
            ..defaults
        })
    }

    /// Holds each number against its range; types alone do not.
    fn check(&self, layers: &Figment) -> Result<(), Failure> {
        let source = |path: &str| {
            layers
                .find_metadata(path)
                .map_or_else(|| "default".to_owned(), sources::origin)
        };
        let within = |path: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(usage!(
                    "configuration: `{path}` is {value}, between {least} and {most} are allowed ({})",
                    source(path)
                ))
            }
        };
        let partitions_max = u64::from(Partitioner::PARTITIONS_MAX);
        if let Some(partitions) = self.partitions {
            within("partitions", partitions.into(), 1, partitions_max)?;
        }
        within(
            "read_model_shards",
            self.read_model_shards.into(),
            1,
            partitions_max,
        )?;
        within(
            "commands.queue_max",
            self.commands.queue_max as u64,
            1,
            1_000_000,
        )?;
        within(
            "commands.batch_max",
            self.commands.batch_max as u64,
            1,
            100_000,
        )?;
        within(
            "commands.lag_events_max",
            self.commands.lag_events_max,
            1,
            u64::MAX,
        )?;
        within(
            "projector.batch_records_max",
            self.projector.batch_records_max,
            1,
            1_000_000,
        )?;
        within(
            "log.segment_bytes_max",
            self.log.segment_bytes_max,
            SEGMENT_BYTES_MIN,
            SEGMENT_BYTES_MAX,
        )?;
        let api = &self.api;
        within(
            "api.connections_max",
            api.connections_max as u64,
            1,
            1_000_000,
        )?;
        within("api.header_timeout_ms", api.header_timeout_ms, 1, 600_000)?;
        within("api.request_timeout_ms", api.request_timeout_ms, 1, 600_000)?;
        within("api.shutdown_pause_ms", api.shutdown_pause_ms, 0, 600_000)?;
        within("api.drain_timeout_ms", api.drain_timeout_ms, 0, 600_000)?;
        within("api.reader_threads", api.reader_threads as u64, 0, 1_024)?;
        within("api.read_patience_ms", api.read_patience_ms, 0, 600_000)?;
        let request_timeout = Duration::from_millis(api.request_timeout_ms);
        let longest_wait = ApiConfig::longest_wait(request_timeout);
        if Duration::from_millis(api.read_patience_ms) > longest_wait {
            return Err(usage!(
                "configuration: `api.read_patience_ms` is {} ({}), at most {} leave time for an answer within \
                 `api.request_timeout_ms`, which is {} ({})",
                api.read_patience_ms,
                source("api.read_patience_ms"),
                longest_wait.as_millis(),
                api.request_timeout_ms,
                source("api.request_timeout_ms"),
            ));
        }
        if let Err(error) = self.outbox.validate() {
            return Err(usage!("configuration: {error}"));
        }
        let tokens = self.tokens()?;
        for (path, address) in [
            ("listen", Some(self.listen)),
            ("admin_listen", self.admin_listen),
            ("projector.listen", Some(self.projector.listen)),
        ] {
            if let Some(address) = address {
                check_listen(address, &tokens, self.insecure).map_err(|error| {
                    usage!("configuration: `{path}`: {error} ({})", source(path))
                })?;
            }
        }
        Ok(())
    }
}
