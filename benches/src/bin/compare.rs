//! Compares the segmented log with JSON lines, side by side in one run, and proves the results right.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use order_benches::compare::{CompareConfig, Generator, Plan, Question, compare};

/// Runs the same work on everybody in turn (A B A B …) and writes report.json, report.md and pictures.
#[derive(Debug, Parser)]
struct Arguments {
    /// A small run: whether everything works, and roughly what comes of it.
    #[arg(long)]
    quick: bool,
    /// Where the report goes.
    #[arg(long, default_value = "target/report", value_name = "DIRECTORY")]
    out: PathBuf,
    /// Ask only these questions.
    #[arg(long, value_delimiter = ',', value_name = "QUESTION")]
    only: Vec<Question>,
    /// How often everybody runs.
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Measured time of a closed loop, in whole seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Connections of the writing loads; the first is also that of the reads.
    #[arg(long, value_delimiter = ',', value_name = "COUNT")]
    connections: Vec<usize>,
    /// Events of the logs that are replayed and started with.
    #[arg(long, value_delimiter = ',', value_name = "COUNT")]
    events: Vec<u64>,
    /// The service; by default the program beside this one.
    #[arg(long, value_name = "PROGRAM")]
    service: Option<PathBuf>,
    /// A further argument of every service, for example --service-argument=--log-filter=warn.
    #[arg(
        long = "service-argument",
        value_name = "ARGUMENT",
        allow_hyphen_values = true
    )]
    service_arguments: Vec<String>,
    /// Where data directories are made: on the file system in question. They are removed again.
    #[arg(long, default_value = "data/compare", value_name = "DIRECTORY")]
    work_directory: PathBuf,
    /// What sends the closed loops; by default wrk if it is installed.
    #[arg(long)]
    generator: Option<GeneratorName>,
    /// Only say what would be measured and about how long it takes.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GeneratorName {
    Wrk,
    Own,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let plan = plan(&arguments)?;
    let questions: Vec<String> = plan.questions.iter().map(Question::to_string).collect();
    println!(
        "asking {}; about {:.0} min on two processors",
        questions.join(", "),
        (plan.estimate().as_secs_f64() / 60.0).ceil()
    );
    if arguments.dry_run {
        return Ok(());
    }
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
            "{} is not there: `cargo build --release -p order-benches -p order-cli`, or name the service with --service",
            program.display()
        );
    }
    let generator = match arguments.generator {
        None => Generator::best(),
        Some(GeneratorName::Wrk) => Generator::Wrk,
        Some(GeneratorName::Own) => Generator::Own,
    };
    let evidence = compare(&CompareConfig {
        command: std::env::args().collect(),
        service,
        service_arguments: arguments.service_arguments,
        bare,
        work_directory: arguments.work_directory,
        plan,
        generator,
    })?;
    // Saved first: whoever read along may be gone by now, and that must not cost a run of many minutes.
    evidence.save(&arguments.out)?;
    let mut output = std::io::stdout().lock();
    write!(output, "{}", evidence.markdown())
        .and_then(|()| {
            writeln!(
                output,
                "written: {}",
                arguments.out.join("report.md").display()
            )
        })
        .context("print the report, which is saved")?;
    anyhow::ensure!(evidence.holds(), "a check does not hold: see the report");
    Ok(())
}

fn plan(arguments: &Arguments) -> anyhow::Result<Plan> {
    let mut plan = if arguments.quick {
        Plan::quick()
    } else {
        Plan::full()
    };
    if !arguments.only.is_empty() {
        plan.questions.clone_from(&arguments.only);
    }
    if let Some(rounds) = arguments.rounds {
        plan.rounds = rounds;
    }
    if let Some(seconds) = arguments.seconds {
        plan.duration = Duration::from_secs(seconds);
    }
    if !arguments.connections.is_empty() {
        plan.connections.clone_from(&arguments.connections);
    }
    if !arguments.events.is_empty() {
        plan.events.clone_from(&arguments.events);
    }
    anyhow::ensure!(
        plan.rounds > 0 && plan.duration >= Duration::from_secs(1),
        "a comparison needs at least one round of at least one second"
    );
    anyhow::ensure!(
        plan.connections.iter().all(|&connections| connections > 0),
        "a load needs at least one connection"
    );
    Ok(plan)
}
