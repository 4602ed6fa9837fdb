//! Compares the service with the bare reference and with its own baseline, side by side, and proves the results right.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use order_benches::compare::{CompareConfig, Contestant, Generator, Service, compare};
use order_benches::rooms::Store;
use order_log::Durability;

/// Runs the same load on everybody in turn (A B A B …) and writes medians, ratios and checks.
#[derive(Debug, Parser)]
struct Arguments {
    /// The service; by default the program beside this one.
    #[arg(long, value_name = "PROGRAM")]
    service: Option<PathBuf>,
    /// A further argument of every service, for example --service-argument=--outbox-sink=none.
    #[arg(
        long = "service-argument",
        value_name = "ARGUMENT",
        allow_hyphen_values = true
    )]
    service_arguments: Vec<String>,
    /// Where data directories are made: on the file system in question. They are removed again.
    #[arg(long, default_value = "data/compare", value_name = "DIRECTORY")]
    work_directory: PathBuf,
    /// Engines of the log.
    #[arg(long, value_delimiter = ',', default_values = ["segmented", "jsonl"])]
    stores: Vec<StoreName>,
    /// Durability modes: always, `interval=<ms>`, os.
    #[arg(long, value_delimiter = ',', default_values = ["always"], value_parser = parse_durability)]
    durability: Vec<Durability>,
    /// Counts of partitions.
    #[arg(long, value_delimiter = ',', default_values = ["4"])]
    partitions: Vec<u16>,
    /// Counts of SQLite files; more than there are partitions are left out.
    #[arg(long, value_delimiter = ',', default_values = ["1"])]
    shards: Vec<u16>,
    /// Leave out JSONL without group commit: one append and one sync a request.
    #[arg(long)]
    no_naive: bool,
    /// Connections of the writing loads; `0` for none.
    #[arg(long, value_delimiter = ',', default_values = ["64", "256"])]
    post_connections: Vec<usize>,
    /// Connections of the reading loads; `0` for none.
    #[arg(long, value_delimiter = ',', default_values = ["64"])]
    get_connections: Vec<usize>,
    /// How often everybody runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured time of a run, in whole seconds.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    seconds: u64,
    /// Time before it, with the same load, in whole seconds.
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    warm_up: u64,
    /// What sends the load; by default wrk if it is installed.
    #[arg(long)]
    generator: Option<GeneratorName>,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StoreName {
    Segmented,
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GeneratorName {
    Wrk,
    Own,
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    text.parse()
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let programs = std::env::current_exe().context("find this program")?;
    let beside = |name: &str| programs.with_file_name(name);
    let service = arguments
        .service
        .clone()
        .unwrap_or_else(|| beside("order-service"));
    let bare = beside("bare-http");
    for program in [&service, &bare] {
        anyhow::ensure!(
            program.is_file(),
            "{} is not there: `cargo build --release --workspace`, or name the service with --service",
            program.display()
        );
    }
    let generator = match arguments.generator {
        None => Generator::best(),
        Some(GeneratorName::Wrk) => Generator::Wrk,
        Some(GeneratorName::Own) => Generator::Own,
    };
    let report = compare(&CompareConfig {
        service,
        service_arguments: arguments.service_arguments.clone(),
        bare,
        work_directory: arguments.work_directory.clone(),
        contestants: contestants(&arguments),
        post_connections: without_zero(&arguments.post_connections),
        get_connections: without_zero(&arguments.get_connections),
        rounds: arguments.rounds,
        duration: Duration::from_secs(arguments.seconds),
        warm_up: Duration::from_secs(arguments.warm_up),
        generator,
    })?;
    print!("{}", report.markdown());
    report.save(arguments.json.as_deref(), arguments.markdown.as_deref())?;
    anyhow::ensure!(report.holds(), "a check does not hold: see the report");
    Ok(())
}

fn without_zero(connections: &[usize]) -> Vec<usize> {
    connections
        .iter()
        .copied()
        .filter(|&connections| connections > 0)
        .collect()
}

/// The bare references first, then every combination asked for, then the naive baseline.
fn contestants(arguments: &Arguments) -> Vec<Contestant> {
    let mut contestants = vec![Contestant::Bare, Contestant::BareDurable];
    for store in &arguments.stores {
        for &durability in &arguments.durability {
            for &partitions in &arguments.partitions {
                for &shards in arguments
                    .shards
                    .iter()
                    .filter(|&&shards| shards <= partitions)
                {
                    contestants.push(Contestant::Service(Service {
                        store: match store {
                            StoreName::Segmented => Store::Segmented,
                            StoreName::Jsonl => Store::Jsonl,
                        },
                        durability,
                        group_commit: true,
                        partitions,
                        shards,
                    }));
                }
            }
        }
    }
    if !arguments.no_naive && arguments.stores.contains(&StoreName::Jsonl) {
        contestants.push(Contestant::Service(Service {
            store: Store::Jsonl,
            durability: Durability::Always,
            group_commit: false,
            partitions: 1,
            shards: 1,
        }));
    }
    contestants
}
