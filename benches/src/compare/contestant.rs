//! Who takes part, and how each is started.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use order_log::Durability;

use crate::rooms::Store;

/// One program with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contestant {
    /// axum and nothing behind it.
    Bare,
    /// axum, and a group commit of one record a `POST`.
    BareDurable,
    /// The service.
    Service(Service),
}

/// Settings of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    /// Engine of the log.
    pub store: Store,
    /// When an append counts as done.
    pub durability: Durability,
    /// Whether commands that wait share a sync.
    pub group_commit: bool,
    /// Partitions.
    pub partitions: u16,
    /// SQLite files of the read model.
    pub shards: u16,
    /// Whether the outbox tells a file what happened, as it does when nothing is configured.
    pub outbox: bool,
    /// Whether the projector is a process of its own, beside the one that is asked.
    pub split: bool,
}

impl Service {
    /// The service as it comes, on an engine: every answer durable, four partitions, one file.
    #[must_use]
    pub const fn on(store: Store) -> Self {
        Self {
            store,
            durability: Durability::Always,
            group_commit: true,
            partitions: 4,
            shards: 1,
            outbox: true,
            split: false,
        }
    }

    /// The lab's way: JSON lines, one append and one sync a request.
    #[must_use]
    pub const fn naive() -> Self {
        Self {
            group_commit: false,
            partitions: 1,
            ..Self::on(Store::Jsonl)
        }
    }

    /// The same with so many partitions and SQLite files.
    #[must_use]
    pub const fn spread(self, partitions: u16, shards: u16) -> Self {
        Self {
            partitions,
            shards,
            ..self
        }
    }

    /// The same as `order-service api` and `order-service projector` on one data directory.
    #[must_use]
    pub const fn in_two_processes(self) -> Self {
        Self {
            split: true,
            ..self
        }
    }

    /// The same without an outbox.
    #[must_use]
    pub const fn without_outbox(self) -> Self {
        Self {
            outbox: false,
            ..self
        }
    }
}

impl Contestant {
    /// What it is called in the report.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Bare => "bare axum".to_owned(),
            Self::BareDurable => "bare axum + group commit".to_owned(),
            Self::Service(service) => format!(
                "{}{}, {}, {} partition{}, {} file{}{}",
                service.store.name(),
                if service.group_commit {
                    ""
                } else {
                    " without group commit"
                },
                service.durability,
                service.partitions,
                plural(service.partitions),
                service.shards,
                plural(service.shards),
                if service.split { ", two processes" } else { "" },
            ),
        }
    }

    /// The program with its arguments: the one that answers on `listen`.
    pub(super) fn command_line(
        &self,
        programs: &Programs,
        data: &Path,
        listen: SocketAddr,
    ) -> CommandLine {
        let listen = listen_on(listen);
        match self {
            Self::Bare => (programs.bare.clone(), listen.into()),
            Self::BareDurable => {
                let commit_to = ["--commit-to".into(), data.join("bare").into_os_string()];
                (
                    programs.bare.clone(),
                    listen.into_iter().chain(commit_to).collect(),
                )
            }
            Self::Service(service) => {
                let part = if service.split { "api" } else { "serve" };
                let mut arguments: Vec<OsString> =
                    vec![part.into(), "--data-dir".into(), data.into()];
                arguments.extend(listen);
                for (flag, value) in [
                    ("--store", service.store.name().to_owned()),
                    ("--durability", service.durability.to_string()),
                    (
                        "--group-commit",
                        if service.group_commit { "on" } else { "off" }.to_owned(),
                    ),
                    ("--partitions", service.partitions.to_string()),
                    ("--read-model-shards", service.shards.to_string()),
                ] {
                    arguments.extend([flag.into(), value.into()]);
                }
                if !service.outbox {
                    arguments.extend(["--outbox-sink".into(), "none".into()]);
                }
                arguments.extend(programs.service_arguments.iter().map(OsString::from));
                (programs.service.clone(), arguments)
            }
        }
    }

    /// The process that runs beside it, on an address of its own, if there is one: it is started first, and waits.
    pub(super) fn companion(
        &self,
        programs: &Programs,
        data: &Path,
        listen: SocketAddr,
    ) -> Option<CommandLine> {
        let Self::Service(service) = self else {
            return None;
        };
        service.split.then(|| {
            let mut arguments: Vec<OsString> =
                vec!["projector".into(), "--data-dir".into(), data.into()];
            arguments.extend(listen_on(listen));
            arguments.extend([
                "--read-model-shards".into(),
                service.shards.to_string().into(),
            ]);
            arguments.extend(programs.service_arguments.iter().map(OsString::from));
            (programs.service.clone(), arguments)
        })
    }
}

/// A program with its arguments.
pub(super) type CommandLine = (PathBuf, Vec<OsString>);

fn listen_on(address: SocketAddr) -> [OsString; 2] {
    ["--listen".into(), address.to_string().into()]
}

fn plural(count: u16) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) service: PathBuf,
    /// Further arguments of every service.
    pub(super) service_arguments: Vec<String>,
    pub(super) bare: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words((_, arguments): CommandLine) -> String {
        let words: Vec<_> = arguments.iter().map(|it| it.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn two_processes_are_started_on_one_data_directory_and_addresses_of_their_own() {
        let split = Contestant::Service(Service::on(Store::Segmented).in_two_processes());
        let programs = Programs {
            service: "order-service".into(),
            service_arguments: vec!["--log-filter=warn".to_owned()],
            bare: "bare-http".into(),
        };
        let [first, second] = ["127.0.0.1:9", "127.0.0.1:10"].map(|it| it.parse().unwrap());
        let api = words(split.command_line(&programs, Path::new("d"), first));
        assert!(
            api.starts_with("api --data-dir d --listen 127.0.0.1:9 "),
            "{api}"
        );
        let projector = split.companion(&programs, Path::new("d"), second);
        assert_eq!(
            projector.map(words).as_deref(),
            Some(
                "projector --data-dir d --listen 127.0.0.1:10 --read-model-shards 1 --log-filter=warn"
            )
        );
        let one = Contestant::Service(Service::on(Store::Segmented));
        assert!(one.companion(&programs, Path::new("d"), second).is_none());
        assert_ne!(one.name(), split.name());
    }

    #[test]
    fn the_naive_baseline_is_started_as_such() {
        let naive = Contestant::Service(Service::naive().without_outbox());
        let programs = Programs {
            service: "order-service".into(),
            service_arguments: vec!["--log-filter".to_owned(), "warn".to_owned()],
            bare: "bare-http".into(),
        };
        let listen = "127.0.0.1:9".parse().unwrap();
        assert_eq!(
            words(naive.command_line(&programs, Path::new("d"), listen)),
            "serve --data-dir d --listen 127.0.0.1:9 --store jsonl --durability always --group-commit off \
             --partitions 1 --read-model-shards 1 --outbox-sink none --log-filter warn"
        );
        assert_eq!(
            naive.name(),
            "jsonl without group commit, always, 1 partition, 1 file"
        );
    }
}
