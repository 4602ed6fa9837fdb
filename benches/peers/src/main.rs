//! The log beside other people's logs and stores: the same records, the same loops, in turn, in one run.

#![forbid(unsafe_code)]

mod others;
mod ours;
mod peer;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use order_benches::machine::{Machine, ProcessorTime};
use order_benches::measure::{Contest, Row, Sample};
use order_benches::plot::{Bar, Scale, bars};
use order_benches::reference::{
    BareFile, Sink, append_batches, frame_into_memory, measure_producers, scan_memory,
};
use order_benches::report::{Check, Report, Table};
use order_benches::sample::{RECORD_BYTES, record};

use crate::peer::{Entry, PEERS, Peer};

/// Measures everybody in turn; nothing is asserted about the figures.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to put the measured files: a directory on the file system in question.
    #[arg(long, default_value = "data")]
    directory: PathBuf,
    /// How often everybody runs.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long each run takes, in seconds.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Records that are read back.
    #[arg(long, default_value_t = 500_000)]
    records: u64,
    /// Write peers.json, peers.md and a picture into this directory.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

struct Peers {
    directory: PathBuf,
    rounds: usize,
    duration: Duration,
    records: u64,
}

/// Records of a batch while a log is filled to be read back.
const FILL_RECORDS: u64 = 1_000;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.directory)
        .with_context(|| format!("make {}", arguments.directory.display()))?;
    let machine = Machine::look(&arguments.directory);
    let before = ProcessorTime::now();
    let peers = Peers {
        directory: arguments.directory.clone(),
        rounds: arguments.rounds,
        duration: Duration::try_from_secs_f64(arguments.seconds).context("--seconds")?,
        records: arguments.records,
    };
    let (read_back, check) = peers.read_back()?;
    let tables = vec![
        Table {
            title: "Durable, waiting producers".to_owned(),
            note: "Each producer appends one record and waits for its sync. One queue and one thread in front of everybody, \
                   who gets what has gathered as one batch: the same loop, another log behind it."
                .to_owned(),
            rows: peers.producers()?,
        },
        Table {
            title: "Durable batches of one producer".to_owned(),
            note: "One commit and one sync a batch; latency is that of a batch.".to_owned(),
            rows: peers.durable_batches()?,
        },
        Table {
            title: "Not synced".to_owned(),
            note: "Batches of 1000, handed to the operating system. The reference is a frame with its checksum into warm \
                   memory, which is not written anywhere."
                .to_owned(),
            rows: peers.unsynced()?,
        },
        Table {
            title: "Read back".to_owned(),
            note: "Everything that was appended, in order, warm, checked as the peer checks it. The reference scans and \
                   verifies frames in memory. okaywal is read when it is opened, which is counted."
                .to_owned(),
            rows: read_back,
        },
    ];
    let report = Report {
        title: "The log and its peers".to_owned(),
        machine,
        disturbance: ProcessorTime::now()
            .zip(before)
            .map(|(now, before)| now.since(&before)),
        settings: vec![
            ("rounds, in turn".to_owned(), arguments.rounds.to_string()),
            ("seconds a run".to_owned(), arguments.seconds.to_string()),
            ("record".to_owned(), format!("{RECORD_BYTES} bytes")),
            (
                "records read back".to_owned(),
                arguments.records.to_string(),
            ),
        ],
        tables,
        checks: vec![check],
    };
    print!("{}", report.markdown());
    if let Some(out) = &arguments.out {
        fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
        report.save(Some(&out.join("peers.json")), Some(&out.join("peers.md")))?;
        draw(&report, out)?;
    }
    anyhow::ensure!(report.holds(), "a check does not hold: see the report");
    Ok(())
}

impl Peers {
    /// Runs something on a new peer in a directory of its own.
    fn on<T>(
        &self,
        entry: Entry,
        durable: bool,
        work: impl FnOnce(Box<dyn Peer>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        eprintln!("{}", entry.name);
        let directory = tempfile::tempdir_in(&self.directory)
            .with_context(|| format!("make a directory in {}", self.directory.display()))?;
        let peer = (entry.make)(directory.path(), durable)?;
        work(peer).with_context(|| entry.name.to_owned())
    }

    fn bare(&self) -> anyhow::Result<(tempfile::TempDir, BareFile)> {
        let directory = tempfile::tempdir_in(&self.directory)
            .with_context(|| format!("make a directory in {}", self.directory.display()))?;
        let file = BareFile::durable(&directory.path().join("bare"))?;
        Ok((directory, file))
    }

    fn producers(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for producers in [64, 256] {
            let work = format!("append, {producers} waiting producers");
            let mut contest = Contest::new(work, "records").against("bare file", move || {
                let (_directory, file) = self.bare()?;
                measure_producers(Box::new(file), producers, self.duration)
            });
            for entry in PEERS.into_iter().filter(|entry| entry.durable) {
                contest = contest.against(entry.name, move || {
                    self.on(entry, true, |peer| {
                        measure_producers(Box::new(Boxed(peer)), producers, self.duration)
                    })
                });
            }
            rows.extend(contest.run(self.rounds)?);
        }
        Ok(rows)
    }

    fn durable_batches(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for records in [1, 100, 1_000] {
            let work = format!("append, durable batches of {records}");
            let mut contest = Contest::new(work, "records").against("bare file", move || {
                let (_directory, mut file) = self.bare()?;
                append_batches(&mut file, records, self.duration)
            });
            for entry in PEERS.into_iter().filter(|entry| entry.durable) {
                contest = contest.against(entry.name, move || {
                    self.on(entry, true, |mut peer| {
                        append_batches(&mut *peer, records, self.duration)
                    })
                });
            }
            rows.extend(contest.run(self.rounds)?);
        }
        Ok(rows)
    }

    fn unsynced(&self) -> anyhow::Result<Vec<Row>> {
        let mut contest = Contest::new("append, not synced, batches of 1000", "records")
            .against("frame + crc into warm memory", || {
                frame_into_memory(self.duration)
            });
        for entry in PEERS.into_iter().filter(|entry| entry.unsynced) {
            contest = contest.against(entry.name, move || {
                self.on(entry, false, |mut peer| {
                    append_batches(&mut *peer, 1_000, self.duration)
                })
            });
        }
        contest.run(self.rounds)
    }

    /// Fills everybody and reads it back; whoever gives back another count than it was given fails the check.
    fn read_back(&self) -> anyhow::Result<(Vec<Row>, Check)> {
        let complaints = std::cell::RefCell::new(Vec::new());
        let batches = self.records / FILL_RECORDS;
        let expected = batches * FILL_RECORDS;
        let mut contest = Contest::new("read back", "records")
            .against("scan + verify in memory", || scan_memory(self.duration));
        for entry in PEERS {
            let complaints = &complaints;
            contest = contest.against(entry.name, move || {
                self.on(entry, entry.durable, |mut peer| {
                    fill(&mut *peer, batches)?;
                    let start = Instant::now();
                    let count = peer.read_back()?;
                    let sample = Sample::rate(count, start.elapsed());
                    if count != expected {
                        complaints
                            .borrow_mut()
                            .push(format!("{}: {count} of {expected}", entry.name));
                    }
                    Ok(sample)
                })
            });
        }
        let rows = contest.run(self.rounds)?;
        let complaints = complaints.into_inner();
        Ok((
            rows,
            Check {
                claim: "Everybody gives back as many records as it was given".to_owned(),
                holds: complaints.is_empty(),
                detail: if complaints.is_empty() {
                    expected.to_string()
                } else {
                    complaints.join("; ")
                },
            },
        ))
    }
}

fn fill(peer: &mut dyn Peer, batches: u64) -> anyhow::Result<()> {
    for batch in 0..batches {
        for number in 0..FILL_RECORDS {
            peer.add(&record(batch * FILL_RECORDS + number));
        }
        peer.commit()?;
    }
    Ok(())
}

/// A peer as what takes batches.
struct Boxed(Box<dyn Peer>);

impl Sink for Boxed {
    fn add(&mut self, record: &[u8]) {
        self.0.add(record);
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        self.0.commit()
    }
}

/// One picture: durable appends of 64 producers, and of batches of 1000.
fn draw(report: &Report, out: &Path) -> anyhow::Result<()> {
    let rows: Vec<&Row> = report.tables.iter().flat_map(|table| &table.rows).collect();
    for (name, work) in [
        ("peers-producers", "append, 64 waiting producers"),
        ("peers-batches", "append, durable batches of 1000"),
        ("peers-read-back", "read back"),
    ] {
        let all: Vec<Bar> = rows
            .iter()
            .filter(|row| row.work == work)
            .map(|row| Bar {
                name: row.who.clone(),
                value: row.per_second,
            })
            .collect();
        let path = out.join(format!("{name}.svg"));
        bars(&path, work, "records a second", Scale::Logarithmic, &all)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gives_back_what_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        for entry in PEERS {
            for durable in [true, false] {
                if (durable && entry.durable) || (!durable && entry.unsynced) {
                    let own = tempfile::tempdir_in(directory.path()).unwrap();
                    let mut peer = (entry.make)(own.path(), durable).unwrap();
                    fill(&mut *peer, 3).unwrap();
                    let expected = 3 * FILL_RECORDS;
                    assert_eq!(peer.read_back().unwrap(), expected, "{}", entry.name);
                }
            }
        }
    }
}
