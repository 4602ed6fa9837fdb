//! Prints what this machine gives to the bare work, and what the rooms make of it, side by side.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use order_benches::machine::{Machine, ProcessorTime};
use order_benches::measure::{Contest, Row, Sample, latencies, nanos, repeat_for};
use order_benches::reference::{
    self, BareFile, OrderRows, Preparation, Rows, Sink, update_at_random,
};
use order_benches::report::{Report, Table};
use order_benches::rooms::{
    ClosedLog, Depth, LogSink, OrderHistory, Store, TRANSACTION_RECORDS, catch_up,
    measure_commands, open_log, open_read_model, replay,
};
use order_benches::sample;
use order_log::{Durability, EventLog, PartitionId};

/// That of the service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the bare references in turn; nothing is asserted about the figures.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to put the measured files: a directory on the file system in question.
    #[arg(long, default_value = "data")]
    directory: PathBuf,
    /// A small run: one round, few events, a short log; whether everything works, and nothing about how fast it is.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "open_gib"])]
    quick: bool,
    /// How often each contestant runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Measure only tables whose title contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Sizes of the logs that are opened, in GiB; each is written first, and takes its size on the disk.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10])]
    open_gib: Vec<u64>,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Events of a replay: enough to be read from more than a cache.
const REPLAY_EVENTS: u64 = 1_000_000;

/// New orders of a run of the projector.
const NEW_ORDERS: u64 = 300_000;

/// Rows that updates are spread over, and updates of a run.
const OLD_ORDERS: u64 = 1_000_000;
const UPDATES: u64 = 100_000;

/// Records of a scan: as many as the reference has in memory.
const SCANNED_RECORDS: u64 = 1_000_000;

/// A small run counts so many times less.
const QUICK_SHARE: u64 = 100;

/// The log that a small run opens, and how long each of its runs takes.
const QUICK_OPEN_BYTES: u64 = 32 << 20;
const QUICK_SECONDS: f64 = 0.05;

struct Limits {
    directory: tempfile::TempDir,
    rounds: usize,
    duration: Duration,
    /// By what counts of events are divided.
    share: u64,
    /// Bytes of the logs that are opened.
    open_bytes: Vec<u64>,
}

impl Limits {
    /// So many, or as many as a small run has of them.
    const fn count(&self, count: u64) -> u64 {
        count / self.share
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    let mut open_bytes: Vec<u64> = arguments.open_gib.iter().map(|gib| gib << 30).collect();
    if arguments.quick {
        (arguments.rounds, arguments.seconds) = (1, QUICK_SECONDS);
        open_bytes = vec![QUICK_OPEN_BYTES];
    }
    let limits = Limits {
        directory: tempfile::tempdir_in(&arguments.directory)
            .with_context(|| format!("make a directory in {}", arguments.directory.display()))?,
        rounds: arguments.rounds,
        duration: Duration::try_from_secs_f64(arguments.seconds).context("--seconds")?,
        share: if arguments.quick { QUICK_SHARE } else { 1 },
        open_bytes,
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

const TABLES: [(&str, &str, Measure); 10] = [
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
        "Start",
        "Opening a log of one partition for writing, until its writer is at hand. Its last segment is nearly full, which is \
         the most that a start reads. `forgotten`: no file of it is in the cache.",
        openings,
    ),
    (
        "Read model: new orders",
        "Time-ordered keys. The reference writes the same rows into the same tables and indexes (orders, sums of customers, \
         sums of goods), prepared in memory. Timed until all is in the file and nothing in the WAL, here and below.",
        new_orders,
    ),
    (
        "Read model: partitions and files",
        "As many new orders in all, a worker thread a partition; to the ratio of one partition in one file.",
        spread_orders,
    ),
    (
        "Read model: updates of old orders",
        "One later event each of orders drawn at random out of a million rows. The reference updates row after row, 1,000 a \
         transaction.",
        updates,
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
        for _ in 0..limits.count(SCANNED_RECORDS) / 1_000 {
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
        OrderHistory::new(&log, PartitionId::default())?.place(limits.count(REPLAY_EVENTS))?;
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

fn openings(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let empty = ClosedLog::new(limits.directory.path(), 0)?;
    let mut contest = Contest::new("open, ready to append", "openings")
        .against("an empty log", || {
            measure_openings(&empty, false, limits.duration)
        });
    for &bytes in &limits.open_bytes {
        let log = Arc::new(ClosedLog::new(limits.directory.path(), bytes)?);
        let size = match bytes >> 30 {
            0 => format!("{} MiB", bytes >> 20),
            gib => format!("{gib} GiB"),
        };
        for forgotten in [false, true] {
            let log = Arc::clone(&log);
            let name = if forgotten { ", forgotten" } else { "" };
            contest = contest.with_goal(
                format!("{size}{name}"),
                "p50 < 200 ms, then < 20 ms at any size",
                move || measure_openings(&log, forgotten, limits.duration),
            );
        }
    }
    contest.run(limits.rounds)
}

/// Opens a log again and again, for `duration` in all; what stands between two openings is not counted.
fn measure_openings(
    log: &ClosedLog,
    forgotten: bool,
    duration: Duration,
) -> anyhow::Result<Sample> {
    let mut latency = latencies();
    let mut elapsed = Duration::ZERO;
    while elapsed < duration {
        if forgotten {
            log.forget()?;
        }
        let opened = log.open()?;
        latency.saturating_record(nanos(opened));
        elapsed += opened;
    }
    Ok(Sample::with_latency(latency.len(), elapsed, &latency))
}

/// A log with [`NEW_ORDERS`], spread evenly over its partitions.
fn filled_log(limits: &Limits, name: &str, partitions: u16) -> anyhow::Result<Arc<dyn EventLog>> {
    let directory = limits.directory.path().join(name);
    std::fs::create_dir_all(&directory)?;
    let log = open_log(Store::Segmented, &directory, partitions, Durability::Always)?;
    for partition in (0..partitions).map(PartitionId::new) {
        OrderHistory::new(&log, partition)?
            .place(limits.count(NEW_ORDERS) / u64::from(partitions))?;
    }
    Ok(log)
}

fn insert_bare(limits: &Limits, rows: &OrderRows, kind: Rows) -> anyhow::Result<Sample> {
    let directory = tempfile::tempdir_in(limits.directory.path())?;
    let (read_model, paths) = open_read_model(directory.path(), 1, 1)?;
    drop(read_model);
    rows.insert(&paths[0], kind)
}

fn project(limits: &Limits, log: &Arc<dyn EventLog>, files: u16) -> anyhow::Result<Sample> {
    let directory = tempfile::tempdir_in(limits.directory.path())?;
    catch_up(log, directory.path(), files)
}

fn new_orders(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let log = filled_log(limits, "new-orders", 1)?;
    let rows = OrderRows::new(0, limits.count(NEW_ORDERS), TRANSACTION_RECORDS)?;
    let small = OrderRows::new(0, limits.count(NEW_ORDERS), 10_000)?;
    Contest::new("new orders, one file", "orders")
        .against(
            "bare SQLite, the same rows, 100,000 orders a transaction",
            || insert_bare(limits, &rows, Rows::All),
        )
        .against(
            "bare SQLite, the same rows, 10,000 orders a transaction",
            || insert_bare(limits, &small, Rows::All),
        )
        .against("bare SQLite, orders alone, 10,000 a transaction", || {
            insert_bare(limits, &small, Rows::Orders)
        })
        .with_goal("projector", "≥ 0.60, then ≥ 0.90", || {
            project(limits, &log, 1)
        })
        .run(limits.rounds)
}

fn spread_orders(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let mut contest = Contest::new("new orders, projector", "orders");
    for (partitions, files) in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 4), (8, 1), (8, 8)] {
        let log = filled_log(limits, &format!("spread-{partitions}-{files}"), partitions)?;
        let goal = ((partitions, files) == (2, 2)).then_some("≥ 1.3, then ≥ 1.5");
        let name = format!("partitions: {partitions}, files: {files}");
        contest = contest.with_goal(name, goal, move || project(limits, &log, files));
    }
    contest.run(limits.rounds)
}

fn updates(limits: &Limits) -> anyhow::Result<Vec<Row>> {
    let directory = limits.directory.path().join("updates");
    let (read_model, paths) = open_read_model(&directory.join("bare"), 1, 1)?;
    drop(read_model);
    let (old_orders, updates) = (limits.count(OLD_ORDERS), limits.count(UPDATES));
    OrderRows::new(0, old_orders, TRANSACTION_RECORDS)?.insert(&paths[0], Rows::All)?;
    let log = open_log(Store::Segmented, &directory, 1, Durability::Always)?;
    let mut history = OrderHistory::new(&log, PartitionId::default())?;
    history.place(old_orders)?;
    catch_up(&log, &directory, 1)?;

    let bare = |synchronous: &'static str| {
        let mut chance = sample::Chance::new(1);
        let path = &paths[0];
        move || update_at_random(path, synchronous, old_orders, updates, 1_000, &mut chance)
    };
    let mut chance = sample::Chance::new(1);
    Contest::new("updates of old orders over 1 M rows", "updates")
        .against("bare SQLite", bare("NORMAL"))
        .against("bare SQLite, synchronous = OFF", bare("OFF"))
        .with_goal("projector", "≥ 1, then ≥ 2.5", || {
            history.advance(updates, &mut chance)?;
            catch_up(&log, &directory, 1)
        })
        .run(limits.rounds)
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
                reference::replay_lines(&path, limits.count(REPLAY_EVENTS))
            })
            .run(limits.rounds)?,
    );
    Ok(rows)
}
