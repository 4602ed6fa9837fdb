//! Puts an order service under load and says how it bore it; or proves that it kept what it acknowledged.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use order_benches::load::{Ledger, LoadConfig, Mix, Target, prove_ledger, run};

/// Load at a constant rate, whatever the service does; latencies count from the moment each request was due.
#[derive(Debug, Parser)]
struct Arguments {
    /// The service, as http://host:port.
    #[arg(default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Requests a second; 0 sends the next when the last was answered (a closed loop, to find the most it can do).
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Measured time, in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    duration: f64,
    /// Time before the measured time, in seconds.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    warm_up: f64,
    /// Most requests, warm-up included.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "COUNT")]
    requests: u64,
    /// Keep-alive connections; a request that finds none free waits, and its latency includes the wait.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Weights of new orders, next steps (confirm, pay, ship, deliver) and reads.
    #[arg(long, default_value = "create=1,advance=1,get=8")]
    mix: Mix,
    /// How long an answer may take, in seconds.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    timeout: f64,
    /// How long requests that are overdue at the end may still be sent, in seconds.
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS")]
    drain: f64,
    /// Give every command an Idempotency-Key.
    #[arg(long)]
    idempotency_keys: bool,
    /// Read each new order at once, waiting until it is visible: from acknowledgement to visible row. These reads come on
    /// top of the rate.
    #[arg(long)]
    read_back: bool,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the result as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write every acknowledged command as a line of JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "prove_ledger")]
    ledger: Option<PathBuf>,
    /// Send no load: ask for every order of a ledger and fail if one is missing or older than acknowledged.
    #[arg(long, value_name = "FILE")]
    prove_ledger: Option<PathBuf>,
    /// Allow a target that is not this machine.
    #[arg(long)]
    allow_remote: bool,
}

/// How long the read model may take to catch up while a ledger is proven.
const CATCH_UP: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let target = Target::parse(&arguments.url, arguments.allow_remote)?;
    if let Some(path) = &arguments.prove_ledger {
        return prove(&arguments, &target, path).await;
    }
    let ledger = arguments
        .ledger
        .as_deref()
        .map(Ledger::create)
        .transpose()?;
    let report = run(
        LoadConfig {
            target,
            rate: arguments.rate,
            connections: arguments.connections,
            warm_up: seconds(arguments.warm_up)?,
            duration: seconds(arguments.duration)?,
            requests_max: arguments.requests,
            drain: seconds(arguments.drain)?,
            timeout: seconds(arguments.timeout)?,
            mix: arguments.mix,
            idempotency_keys: arguments.idempotency_keys,
            read_back: arguments.read_back,
            seed: arguments.seed,
        },
        ledger,
    )
    .await?;
    print!("{report}");
    save_json(&arguments, &report)
}

async fn prove(
    arguments: &Arguments,
    target: &Target,
    path: &std::path::Path,
) -> anyhow::Result<()> {
    let versions = Ledger::read(path)?;
    let proof = prove_ledger(target, &versions, CATCH_UP).await?;
    println!("{} orders acknowledged, {} kept", proof.orders, proof.kept);
    for id in &proof.missing {
        println!("missing: {id}");
    }
    for id in &proof.behind {
        println!("older than acknowledged: {id}");
    }
    save_json(arguments, &proof)?;
    anyhow::ensure!(
        proof.kept == proof.orders,
        "{} of {} acknowledged orders were not kept",
        proof.orders - proof.kept,
        proof.orders
    );
    Ok(())
}

fn save_json(arguments: &Arguments, result: &impl serde::Serialize) -> anyhow::Result<()> {
    let Some(path) = &arguments.json else {
        return Ok(());
    };
    let mut text = serde_json::to_string_pretty(result)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

fn seconds(value: f64) -> anyhow::Result<Duration> {
    Duration::try_from_secs_f64(value)
        .with_context(|| format!("{value} is not a number of seconds"))
}
