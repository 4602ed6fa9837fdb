//! The flags that set the common settings. What a flag does not say, the layers below it do.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Loaded, LogFormat, Setting, Store, Switch, load};
use crate::failure::Failure;

/// Flags of every command that works on a data directory.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataDirectoryFlags {
    /// TOML file with settings
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept [default: data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Which messages to show, as in RUST_LOG [default: info]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// How messages look [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

/// Flags of the service itself.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServiceFlags {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Address to serve HTTP on; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Address to serve the operators' endpoints on, and then only there [default: beside the others]
    #[arg(long, value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
    /// Serve other machines although nobody has to say who they are
    #[arg(long)]
    insecure: bool,
    /// PEM file with the certificate to speak TLS with, and those that vouch for it [default: no TLS]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Partitions of a new log; an existing one keeps its own [default: 4]
    #[arg(long, value_name = "COUNT")]
    partitions: Option<u16>,
    /// Engine that keeps the events of a new data directory [default: segmented]
    #[arg(long, value_name = "ENGINE")]
    store: Option<Store>,
    /// When a write counts as done: always, `interval=<ms>` or os [default: always]
    #[arg(long, value_name = "MODE")]
    durability: Option<String>,
    /// Whether commands that queue during a sync share the next one [default: on]
    #[arg(long, value_name = "SWITCH")]
    group_commit: Option<Switch>,
    /// Files the read model is spread over [default: 1]
    #[arg(long, value_name = "COUNT")]
    read_model_shards: Option<u16>,
    /// Where integration events go: file, webhook or none [default: file]
    #[arg(long, value_name = "SINK")]
    outbox_sink: Option<String>,
}

/// Flags of a projector in a process of its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProjectorFlags {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Address to serve metrics, health and the projections' endpoints on; port 0 takes a free one [default:
    /// 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Serve other machines although nobody has to say who they are
    #[arg(long)]
    insecure: bool,
    /// Files the read model is spread over [default: 1]
    #[arg(long, value_name = "COUNT")]
    read_model_shards: Option<u16>,
}

impl ProjectorFlags {
    /// Reads the configuration with these flags on top.
    ///
    /// # Errors
    /// A usage failure for every wrong setting.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let own = [
            self.listen
                .as_deref()
                .map(|it| Setting::from_flag("listen", "projector.listen", it)),
            self.insecure
                .then(|| Setting::from_flag("insecure", "insecure", true)),
            self.read_model_shards
                .map(|it| Setting::from_flag("read-model-shards", "read_model_shards", it)),
        ];
        let mut settings = self.data_directory.settings();
        settings.extend(own.into_iter().flatten());
        load(self.data_directory.config.as_deref(), settings)
    }
}

impl DataDirectoryFlags {
    fn settings(&self) -> Vec<Setting> {
        let data_dir = self
            .data_dir
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        [
            data_dir.map(|path| Setting::from_flag("data-dir", "data_dir", path)),
            self.log_filter
                .as_deref()
                .map(|it| Setting::from_flag("log-filter", "logging.filter", it)),
            self.log_format
                .map(|it| Setting::from_flag("log-format", "logging.format", word(it))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Reads the configuration with these flags on top.
    ///
    /// # Errors
    /// A usage failure for every wrong setting.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        load(self.config.as_deref(), self.settings())
    }
}

impl ServiceFlags {
    /// Reads the configuration with these flags on top.
    ///
    /// # Errors
    /// A usage failure for every wrong setting.
    pub(crate) fn load(&self) -> Result<Loaded, Failure> {
        let own = [
            self.listen
                .as_deref()
                .map(|it| Setting::from_flag("listen", "listen", it)),
            self.admin_listen
                .as_deref()
                .map(|it| Setting::from_flag("admin-listen", "admin_listen", it)),
            self.insecure
                .then(|| Setting::from_flag("insecure", "insecure", true)),
            self.tls_certificate.as_deref().map(|it| {
                Setting::from_flag(
                    "tls-certificate",
                    "api.tls.certificate",
                    it.to_string_lossy().into_owned(),
                )
            }),
            self.tls_key.as_deref().map(|it| {
                Setting::from_flag("tls-key", "api.tls.key", it.to_string_lossy().into_owned())
            }),
            self.partitions
                .map(|it| Setting::from_flag("partitions", "partitions", it)),
            self.store
                .map(|it| Setting::from_flag("store", "store", word(it))),
            self.durability
                .as_deref()
                .map(|it| Setting::from_flag("durability", "durability", it)),
            self.group_commit
                .map(|it| Setting::from_flag("group-commit", "group_commit", word(it))),
            self.read_model_shards
                .map(|it| Setting::from_flag("read-model-shards", "read_model_shards", it)),
            self.outbox_sink
                .as_deref()
                .map(|it| Setting::from_flag("outbox-sink", "outbox.sink", it)),
        ];
        let mut settings = self.data_directory.settings();
        settings.extend(own.into_iter().flatten());
        load(self.data_directory.config.as_deref(), settings)
    }
}

/// The word of an enumerated flag: the same in flags, file and environment.
fn word(value: impl ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|possible| possible.get_name().to_owned())
        .unwrap_or_default()
}
