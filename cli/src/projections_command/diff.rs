//! `order-service projections diff`: the proof that the rows are what the log says, or the names of those that are not.
//!
//! The log is folded again, in a directory of its own that is deleted afterwards, and both are compared row by row. The
//! live files are only read, as of one moment: a service may be running.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use order_log::{DataLock, LogError};
use order_projector_workers::{Drift, Projection};

use super::offline::{projector_config, read_model_config};
use super::show::{Progress, difference_line};
use super::view::RowDifference;
use crate::config::DataDirectoryFlags;
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::print;
use crate::rooms::unfit;
use crate::staging;

/// Where the log is folded again, within the data directory: where there is space for the rows, there is for a copy.
const SCRATCH: &str = "projections-diff";

/// Differences that are named; the others are counted.
const NAMED_MAX: u64 = 1_000;

/// Prove that the rows are what the log says, or name those that are not; also while the service runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// Where the log is folded again, which takes as much space as the read model [default: in the data directory]
    #[arg(long, value_name = "DIR")]
    scratch_dir: Option<PathBuf>,
    /// Only this projection: orders, customer_summary or sku_demand
    #[arg(value_name = "PROJECTION", value_parser = super::projection)]
    projection: Option<Projection>,
}

/// Compares; prints a line for each row that differs, and a summary.
///
/// # Errors
/// A usage failure for a directory without a read model that fits it; a failure if a row differs, or if the log or the
/// rows cannot be read.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    crate::logging::start(&config.logging)?;
    if staging::is_pending(&config.data_dir) {
        return Err(usage!(
            "{}: an interrupted command is switching to its result; start the service, which finishes that, and compare then",
            config.data_dir.display()
        ));
    }
    let manifest = Manifest::read(&config.data_dir)?;
    let live = read_model_config(&config, &manifest);
    let log = engine::open_read_only(&config.data_dir, &manifest)?;
    let parent = arguments.scratch_dir.as_ref().unwrap_or(&config.data_dir);
    let scratch = Scratch::make(parent)?;
    let mut progress = Progress::new(std::io::stderr().is_terminal());
    let mut folding = |done: u64, total: u64| {
        progress.say("folding", &format!("folding {done} of {total} records"));
        ControlFlow::Continue(())
    };

    let mut drift = Drift::new(&live, &scratch.path, projector_config(&config)).map_err(unfit)?;
    drift.fold(&*log, &mut folding)?;
    drift.take_snapshot()?;
    // What the rows show by now may be beyond what the log held when it was opened.
    let log = engine::open_read_only(&config.data_dir, &manifest)?;
    drift.fold(&*log, &mut folding)?;

    let (mut rows, mut differences) = (0, 0);
    let mut named: Result<(), Failure> = Ok(());
    for projection in Projection::ALL {
        if arguments.projection.is_some_and(|only| only != projection) {
            continue;
        }
        rows += drift.compare(
            projection,
            &mut |difference| {
                differences += 1;
                if differences <= NAMED_MAX && named.is_ok() {
                    named = print::line(&difference_line(&RowDifference::from(&difference)));
                }
            },
            &mut |seen| {
                let line = format!("comparing {}: {seen} rows", projection.name());
                progress.say(projection.name(), &line);
                ControlFlow::Continue(())
            },
        )?;
    }
    progress.end();
    named?;
    if differences > NAMED_MAX {
        print::line(&format!("… and {} more", differences - NAMED_MAX))?;
    }
    let past = drift.past_the_end();
    for (projection, partition, checkpoint, end) in &past {
        print::line(&format!(
            "{}: partition {partition}: the checkpoint is {checkpoint}, the log ends at {end}: it lost records, or the rows \
             are of a later one",
            projection.name()
        ))?;
    }
    print::line(&format!(
        "compared {rows} rows with the log: {differences} differ"
    ))?;
    if differences == 0 && past.is_empty() {
        return Ok(());
    }
    Err(anyhow!(
        "the rows are not what the log says; `order-service projections rebuild` puts those in their place that are"
    )
    .into())
}

/// A directory of this run alone, deleted at its end. One that a killed run left is taken over.
struct Scratch {
    path: PathBuf,
    _lock: DataLock,
}

impl Scratch {
    fn make(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(SCRATCH);
        std::fs::create_dir_all(&path).map_err(|error| usage!("{}: {error}", path.display()))?;
        let lock = DataLock::acquire(&path).map_err(|error| match error {
            LogError::Locked { holder, .. } => usage!(
                "{} is used by process {holder}, which compares too: wait for it, or give another --scratch-dir",
                path.display()
            ),
            other => other.into(),
        })?;
        let scratch = Self { path, _lock: lock };
        scratch.clear().context("clear what an earlier run left")?;
        Ok(scratch)
    }

    /// Deletes the files of a read model.
    fn clear(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with("read")) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let cleared = self
            .clear()
            .and_then(|()| std::fs::remove_file(self.path.join("LOCK")))
            .and_then(|()| std::fs::remove_dir(&self.path));
        if let Err(error) = cleared {
            eprintln!(
                "order-service: {} stays behind: {error}",
                self.path.display()
            );
        }
    }
}
