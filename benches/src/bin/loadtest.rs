//! Puts an order service under load and says how it bore it; or proves that it kept what it acknowledged.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use order_benches::compare::{Ceiling, ceiling};
use order_benches::load::{
    Bounds, Ledger, LoadConfig, LoadReport, Mix, Ramp, RampReport, Target, climb, draw_ramp,
    draw_run, prove_ledger, run,
};
use serde::Serialize;
use tokio::runtime::Runtime;

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
    /// Weights of create (new orders), advance (confirm, pay, ship, deliver), cancel, get, list (a customer's page) and
    /// bulk (many new orders in one request).
    #[arg(long, default_value = "create=1,advance=1,get=8")]
    mix: Mix,
    /// Orders of one bulk request.
    #[arg(long, default_value_t = 20)]
    bulk_lines: usize,
    /// Find the knee: raise the rate step by step from --rate, each step --duration long behind its --warm-up, until
    /// latency or projector lag leave their bounds.
    #[arg(long)]
    ramp: bool,
    /// No step of a ramp above this rate.
    #[arg(long, default_value_t = 100_000.0, value_name = "RATE")]
    ramp_to: f64,
    /// Each step of a ramp is the one before, times this.
    #[arg(long, default_value_t = 1.5, value_name = "FACTOR")]
    ramp_factor: f64,
    /// How often the gap between the last rate that held and the first that did not is halved.
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    ramp_refinements: usize,
    /// The 99th percentile that every operation must keep in a ramp, in milliseconds.
    #[arg(long, default_value_t = 20.0, value_name = "MS")]
    p99_max: f64,
    /// The projector lag that must be kept in a ramp, in seconds; read from the service's /metrics, or from --metrics-url.
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    lag_max: f64,
    /// Who tells the projector lag, as http://host:port, if not the service: a projector in a process of its own.
    #[arg(long, value_name = "URL")]
    metrics_url: Option<String>,
    /// A file with the bearer token of every request; otherwise the variable ORDER_SERVICE_TOKEN, if it is set. The token
    /// needs the scopes of what is asked: write for orders, read for reads and the lag.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// First measure this generator's own ceiling, against a bare server on this machine.
    #[arg(long)]
    ceiling: bool,
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
    /// Draw latency over time and percentiles, or the ramp, as SVG.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Write every acknowledged command as a line of JSON.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prove_ledger", "ramp"])]
    ledger: Option<PathBuf>,
    /// Send no load: ask for every order of a ledger and fail if one is missing or older than acknowledged.
    #[arg(long, value_name = "FILE")]
    prove_ledger: Option<PathBuf>,
    /// Allow a target that is not this machine.
    #[arg(long)]
    allow_remote: bool,
}

/// The token of requests, as the service's own commands take it.
const TOKEN_VARIABLE: &str = "ORDER_SERVICE_TOKEN";

/// How long the read model may take to catch up while a ledger is proven.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A result with the generator's own ceiling, if that was asked for.
#[derive(Debug, Serialize)]
struct WithCeiling<R> {
    #[serde(flatten)]
    result: R,
    ceiling: Option<Ceiling>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = Runtime::new().context("start the runtime")?;
    let token = token(&arguments)?;
    let parse = |url: &str| {
        let target = Target::parse(url, arguments.allow_remote)?;
        match &token {
            Some(token) => target.with_token(token),
            None => Ok(target),
        }
    };
    let target = parse(&arguments.url)?;
    if let Some(path) = &arguments.prove_ledger {
        return runtime.block_on(prove(&arguments, &target, path));
    }
    let config = LoadConfig {
        target,
        rate: arguments.rate,
        connections: arguments.connections,
        warm_up: seconds(arguments.warm_up)?,
        duration: seconds(arguments.duration)?,
        requests_max: arguments.requests,
        drain: seconds(arguments.drain)?,
        timeout: seconds(arguments.timeout)?,
        mix: arguments.mix,
        bulk_lines: arguments.bulk_lines,
        idempotency_keys: arguments.idempotency_keys,
        read_back: arguments.read_back,
        known: Vec::new(),
        metrics: arguments.metrics_url.as_deref().map(parse).transpose()?,
        seed: arguments.seed,
    };
    let ceiling = if arguments.ceiling {
        let bare = std::env::current_exe()
            .context("find this program")?
            .with_file_name("bare-http");
        anyhow::ensure!(
            bare.is_file(),
            "{} is not there: `cargo build --release -p order-benches`",
            bare.display()
        );
        Some(ceiling(&bare, &config, &runtime)?)
    } else {
        None
    };
    if arguments.ramp {
        find_knee(&arguments, &config, ceiling, &runtime)
    } else {
        bear(&arguments, config, ceiling, &runtime)
    }
}

/// The token of every request, if there is to be one.
fn token(arguments: &Arguments) -> anyhow::Result<Option<String>> {
    let token = match &arguments.token_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .with_context(|| format!("read the token in {}", path.display()))?,
        ),
        None => std::env::var(TOKEN_VARIABLE).ok(),
    };
    let token = token.map(|token| token.trim().to_owned());
    Ok(token.filter(|token| !token.is_empty()))
}

/// One run.
fn bear(
    arguments: &Arguments,
    config: LoadConfig,
    ceiling: Option<Ceiling>,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let ledger = arguments
        .ledger
        .as_deref()
        .map(Ledger::create)
        .transpose()?;
    let report: LoadReport = runtime.block_on(run(config, ledger))?;
    print!("{report}");
    if let Some(ceiling) = &ceiling {
        println!("{}", ceiling.beside(report.answered_per_second));
    }
    if let Some(directory) = &arguments.plots {
        for path in draw_run(&report, directory)? {
            println!("drawn: {}", path.display());
        }
    }
    save_json(
        arguments,
        &WithCeiling {
            result: report,
            ceiling,
        },
    )
}

/// A ramp.
fn find_knee(
    arguments: &Arguments,
    config: &LoadConfig,
    ceiling: Option<Ceiling>,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let ramp = Ramp {
        from: arguments.rate,
        to: arguments.ramp_to,
        factor: arguments.ramp_factor,
        refinements: arguments.ramp_refinements,
    };
    let bounds = Bounds {
        p99_ms_max: arguments.p99_max,
        lag_seconds_max: arguments.lag_max,
    };
    println!(
        "{:>10}{:>12}{:>10}{:>10}  holds",
        "rate", "succeeded/s", "p99 ms", "lag s"
    );
    let report: RampReport = runtime.block_on(climb(config, ramp, bounds, |step| {
        let lag = step
            .lag_seconds
            .map_or_else(|| "unknown".to_owned(), |lag| format!("{lag:.2}"));
        let holds = if step.holds() {
            "yes".to_owned()
        } else {
            format!("no: {}", step.objections.join(", "))
        };
        println!(
            "{:>10.0}{:>12.0}{:>10.2}{lag:>10}  {holds}",
            step.rate, step.succeeded_per_second, step.p99_ms
        );
    }))?;
    println!("{}", report.verdict());
    if let (Some(ceiling), Some(knee)) = (&ceiling, report.knee) {
        println!("{}", ceiling.beside(knee));
    }
    if let Some(directory) = &arguments.plots {
        println!("drawn: {}", draw_ramp(&report, directory)?.display());
    }
    save_json(
        arguments,
        &WithCeiling {
            result: report,
            ceiling,
        },
    )
}

async fn prove(arguments: &Arguments, target: &Target, path: &Path) -> anyhow::Result<()> {
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

fn save_json(arguments: &Arguments, result: &impl Serialize) -> anyhow::Result<()> {
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
