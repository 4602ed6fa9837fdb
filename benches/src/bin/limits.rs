//! Prints what this machine gives to the bare work, and what the rooms make of it, side by side.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use order_benches::machine::{Machine, ProcessorTime};
use order_benches::measure::{Contest, Row, repeat_for};
use order_benches::reference::{self, BareFile, Preparation, Sink};
use order_benches::report::{Report, Table};
use order_benches::rooms::{
    Depth, LogSink, OrderHistory, Store, measure_commands, open_log, replay,
};
use order_benches::sample;
use order_log::{Durability, PartitionId};

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

/// Records of a scan: as many as the reference has in memory.
const SCANNED_RECORDS: u64 = 1_000_000;

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
                format!("{} bytes", sample::RECORD_BYTES),
            ),
        ],
        tables,
        checks: Vec::new(),
    };
    print!("{}", report.markdown());
    report.save(arguments.json.as_deref(), arguments.markdown.as_deref())
}

type Measure = fn(&Limits) -> anyhow::Result<Vec<Row>>;

const TABLES: [(&str, &str, Measure); 6] = [
    (
        "Disk: one sync",
        "4 KiB written in place, then `fdatasync`. The first row is what a segment prepared ahead costs.",
        syncs,
    ),
    (
        "Group commit: waiting producers",
        "Each producer appends one record and waits for its sync. One queue, one thread, one write and one sync a batch; \
         the reference's batches go to a bare file, the others' to a log.",
        producers,
    ),
    (
        "Durable batches: one producer",
        "One write and one sync a batch; latency is that of a batch.",
        batches,
    ),
    (
        "Memory",
        "Frames of a length, a CRC and a record, 264 MB of them, written before. The log's records are as many.",
        memory,
    ),
    (
        "Replay",
        "A log of new orders, each of one event, warm.",
        replays,
    ),
    (
        "JSON lines",
        "The example order as one JSON object a line, with serde_json.",
        json_lines,
    ),
];

/// Goals are for the log of the service; the baseline is looked at.
fn goal_of(store: Store, goal: &'static str) -> Option<&'static str> {
    (store == Store::Segmented).then_some(goal)
}

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
        let mut contest = Contest::new(work, "records").against("reference", || {
            let sink = Box::new(BareFile::durable(&path)?);
            reference::measure_producers(sink, producers, limits.duration)
        });
        for store in Store::ALL {
            let goal = goal_of(store, "≥ 0.60, then ≥ 0.90 with p99 ≤ 1.5 ×");
            contest = contest.with_goal(store.name(), goal, move || {
                let sink = LogSink::new(store, limits.directory.path(), Durability::Always)?;
                reference::measure_producers(Box::new(sink), producers, limits.duration)
            });
        }
        contest = contest.against("segmented, orders through a command worker", || {
            let directory = tempfile::tempdir_in(limits.directory.path())?;
            let log = open_log(Store::Segmented, directory.path(), 1, Durability::Always)?;
            measure_commands(&log, usize::try_from(producers)?, limits.duration)
        });
        rows.extend(contest.run(limits.rounds)?);
    }
    Ok(rows)
}

fn batches(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("batches");
    let mut rows = Vec::new();
    for records in [1, 100, 1_000] {
        let work = format!("append, durable batches of {records}");
        let mut contest = Contest::new(work, "records").against("reference", || {
            let mut file = BareFile::durable(&path)?;
            reference::append_batches(&mut file, records, limits.duration)
        });
        for store in Store::ALL {
            contest = contest.with_goal(
                store.name(),
                goal_of(store, "≥ 0.70, then ≥ 0.95"),
                move || {
                    let mut sink =
                        LogSink::new(store, limits.directory.path(), Durability::Always)?;
                    reference::append_batches(&mut sink, records, limits.duration)
                },
            );
        }
        rows.extend(contest.run(limits.rounds)?);
    }
    Ok(rows)
}

fn memory(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let path = limits.directory.path().join("unsynced");
    let mut contest = Contest::new("append, not synced, batches of 1000", "records")
        .against("frame + crc into warm memory", || {
            reference::frame_into_memory(limits.duration)
        })
        .against("the same + pwrite", || {
            reference::write_unsynced(&path, 1_000, limits.duration)
        });
    for store in Store::ALL {
        contest = contest.with_goal(
            store.name(),
            goal_of(store, "≥ 5 M/s, then ≥ 0.50"),
            move || {
                let mut sink = LogSink::new(store, limits.directory.path(), Durability::Os)?;
                reference::append_batches(&mut sink, 1_000, limits.duration)
            },
        );
    }
    let mut rows = contest.run(limits.rounds)?;

    let mut contest = Contest::new("scan + verify, warm", "records")
        .against("reference", || reference::scan_memory(limits.duration));
    for store in Store::ALL {
        let mut sink = LogSink::new(store, limits.directory.path(), Durability::Always)?;
        let record = sample::record(1);
        for _ in 0..SCANNED_RECORDS / 1_000 {
            (0..1_000).for_each(|_| sink.add(&record));
            sink.commit()?;
        }
        contest = contest.with_goal(
            store.name(),
            goal_of(store, "≥ 0.40, then ≥ 0.80"),
            move || {
                let reader = sink.reader()?;
                repeat_for(limits.duration, || replay(&*reader, Depth::Verify))
            },
        );
    }
    rows.extend(contest.run(limits.rounds)?);
    Ok(rows)
}

fn replays(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let mut readers = Vec::new();
    // The baseline first: it is what the ratio is to.
    for store in Store::ALL.into_iter().rev() {
        let directory = limits.directory.path().join("replay").join(store.name());
        std::fs::create_dir_all(&directory)?;
        let log = open_log(store, &directory, 1, Durability::Always)?;
        OrderHistory::new(&log, PartitionId::default())?.place(REPLAY_EVENTS)?;
        readers.push((store, log.reader(PartitionId::default())?));
    }
    let mut rows = Vec::new();
    for depth in Depth::ALL {
        let mut contest = Contest::new(depth.name(), "events");
        for (store, reader) in &readers {
            let run = move || repeat_for(limits.duration, || replay(&**reader, depth));
            let goal = goal_of(*store, "≥ 3, then ≥ 6").filter(|_| depth == Depth::Fold);
            contest = contest.with_goal(store.name(), goal, run);
        }
        rows.extend(contest.run(limits.rounds)?);
    }
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
