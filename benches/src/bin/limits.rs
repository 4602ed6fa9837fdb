//! Prints what this machine gives to the bare work, and what the rooms make of it, side by side.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use order_benches::machine::{Machine, ProcessorTime};
use order_benches::measure::{Contest, Row};
use order_benches::reference::{self, BareFile, Preparation};
use order_benches::report::{Report, Table};

/// Measures the bare references in turn; nothing is asserted about the figures.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to put the measured files: a directory on the file system in question.
    #[arg(long, default_value = "data")]
    directory: PathBuf,
    /// How often each contestant runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measure only tables whose title contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Events of a replay: enough to be read from more than a cache.
const REPLAY_EVENTS: u64 = 1_000_000;

struct Limits {
    directory: tempfile::TempDir,
    rounds: usize,
    duration: Duration,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let limits = Limits {
        directory: tempfile::tempdir_in(&arguments.directory)
            .with_context(|| format!("make a directory in {}", arguments.directory.display()))?,
        rounds: arguments.rounds,
        duration: Duration::try_from_secs_f64(arguments.seconds).context("--seconds")?,
    };
    let machine = Machine::look(&arguments.directory);
    let before = ProcessorTime::now();
    let mut tables = Vec::new();
    for (title, note, measure) in TABLES {
        if title.contains(&arguments.only) {
            eprintln!("measuring: {title}");
            let rows = measure(&limits)?;
            tables.push(Table {
                title: title.to_owned(),
                note: note.to_owned(),
                rows,
            });
        }
    }
    let report = Report {
        title: "Limits".to_owned(),
        machine,
        disturbance: ProcessorTime::now()
            .zip(before)
            .map(|(now, before)| now.since(&before)),
        settings: vec![
            ("rounds, in turn".to_owned(), arguments.rounds.to_string()),
            ("seconds a run".to_owned(), arguments.seconds.to_string()),
            (
                "record".to_owned(),
                format!("{} bytes", order_benches::sample::RECORD_BYTES),
            ),
        ],
        tables,
        checks: Vec::new(),
    };
    print!("{}", report.markdown());
    report.save(arguments.json.as_deref(), arguments.markdown.as_deref())
}

type Measure = fn(&Limits) -> anyhow::Result<Vec<Row>>;

const TABLES: [(&str, &str, Measure); 5] = [
    (
        "Disk: one sync",
        "4 KiB written in place, then `fdatasync`. The first row is what a segment prepared ahead costs.",
        syncs,
    ),
    (
        "Group commit: waiting producers",
        "Each producer appends one record and waits for its sync. One queue, one thread, one write and one sync a batch.",
        producers,
    ),
    (
        "Durable batches: one producer",
        "One write and one sync a batch; latency is that of a batch.",
        batches,
    ),
    (
        "Memory",
        "Frames of a length, a CRC and a record, 264 MB of them, written before.",
        memory,
    ),
    (
        "JSON lines",
        "The example order as one JSON object a line, with serde_json.",
        json_lines,
    ),
];

fn syncs(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("pages");
    let mut contest = Contest::new("4 KiB pwrite + fdatasync", "syncs");
    for preparation in Preparation::ALL {
        let path = &path;
        contest = contest.against(preparation.name(), move || {
            reference::sync_pages(path, preparation, limits.duration)
        });
    }
    contest.run(limits.rounds)
}

fn producers(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("group-commit");
    let mut rows = Vec::new();
    for producers in [64, 256, 1_024] {
        let work = format!("append, {producers} waiting producers");
        rows.extend(
            Contest::new(work, "records")
                .against("reference", || {
                    let sink = Box::new(BareFile::durable(&path)?);
                    reference::measure_producers(sink, producers, limits.duration)
                })
                .run(limits.rounds)?,
        );
    }
    Ok(rows)
}

fn batches(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("batches");
    let mut rows = Vec::new();
    for records in [1, 100, 1_000] {
        rows.extend(
            Contest::new(format!("append, durable batches of {records}"), "records")
                .against("reference", || {
                    let mut file = BareFile::durable(&path)?;
                    reference::append_batches(&mut file, records, limits.duration)
                })
                .run(limits.rounds)?,
        );
    }
    Ok(rows)
}

fn memory(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("unsynced");
    let mut rows = Contest::new("append, not synced", "records")
        .against("frame + crc into warm memory", || {
            reference::frame_into_memory(limits.duration)
        })
        .against("the same + pwrite, batches of 1000", || {
            reference::write_unsynced(&path, 1_000, limits.duration)
        })
        .run(limits.rounds)?;
    rows.extend(
        Contest::new("scan + verify, warm", "records")
            .against("reference", || reference::scan_memory(limits.duration))
            .run(limits.rounds)?,
    );
    Ok(rows)
}

fn json_lines(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("events.jsonl");
    let mut rows = Contest::new("encode", "events")
        .against("reference", || reference::encode_lines(limits.duration))
        .run(limits.rounds)?;
    rows.extend(
        Contest::new("append, not synced, batches of 1000", "events")
            .against("reference", || {
                reference::append_lines(&path, 1_000, false, limits.duration)
            })
            .run(limits.rounds)?,
    );
    for events in [1, 100, 1_000] {
        rows.extend(
            Contest::new(format!("append, durable batches of {events}"), "events")
                .against("reference", || {
                    reference::append_lines(&path, events, true, limits.duration)
                })
                .run(limits.rounds)?,
        );
    }
    rows.extend(
        Contest::new("replay: read + decode, warm", "events")
            .against("reference", || {
                reference::replay_lines(&path, REPLAY_EVENTS)
            })
            .run(limits.rounds)?,
    );
    Ok(rows)
}
