//! `order-service log export`: the events as a file of JSON lines, as `--store jsonl` keeps them and `log import` reads
//! them.
//!
//! The JSONL log is such a file already: its whole frames are copied byte for byte. The segmented log is written merged
//! over the partitions by append time.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use order_log::{Batch, EventLog, Offset, PartitionId};

use crate::byte_progress::ByteProgress;
use crate::config::{DataDirectoryFlags, Store};
use crate::data_directory::sync_directory;
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::Manifest;
use crate::print::unless_closed;
use crate::rewrite::{Merged, OwnedFrame, to_json};

/// Means standard output, in place of a file.
const STANDARD: &str = "-";
/// Bytes of lines gathered before they are written.
const GATHERED_BYTES: usize = 1024 * 1024;

/// Write the events as JSON lines, to be imported again; also while the service runs
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// The file, which must not be there yet, or `-` for standard output
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Writes all events; a file gets its name when it is whole.
///
/// # Errors
/// A usage failure for a file that is there; a failure where the log is damaged, and for whatever cannot be written.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let manifest = Manifest::read(&config.data_dir)?;
    let export = Export {
        directory: &config.data_dir,
        manifest: &manifest,
    };
    if arguments.to.as_os_str() == STANDARD {
        let events = export.write(&mut io::stdout().lock())?;
        eprintln!("order-service: {events} events exported");
        return Ok(());
    }
    let to = &arguments.to;
    if to.exists() {
        return Err(usage!("{} is there already: name a new file", to.display()));
    }
    let mut partial = to.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file =
        File::create(&partial).with_context(|| format!("create {}", partial.display()))?;
    let events = match export.write(&mut file) {
        Ok(events) => events,
        Err(failure) => {
            std::fs::remove_file(&partial)
                .with_context(|| format!("remove {}", partial.display()))?;
            return Err(failure);
        }
    };
    file.sync_all()
        .with_context(|| format!("sync {}", partial.display()))?;
    std::fs::rename(&partial, to).with_context(|| format!("create {}", to.display()))?;
    sync_directory(match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    })?;
    crate::print::line(&format!("{}: {events} events exported", to.display()))
}

struct Export<'a> {
    directory: &'a Path,
    manifest: &'a Manifest,
}

impl Export<'_> {
    /// Writes everything; returns how many events that is.
    fn write(&self, to: &mut impl Write) -> Result<u64, Failure> {
        let log = engine::open_read_only(self.directory, self.manifest)?;
        let events = match self.manifest.store {
            Store::Segmented => self.write_frames(&*log, to)?,
            Store::Jsonl => self.copy_lines(&*log, to)?,
        };
        match engine::damage(&*log, self.manifest) {
            None => Ok(events),
            Some(damage) => Err(anyhow!(
                "the export ends before damage: {damage}; `order-service log verify` tells more"
            )
            .into()),
        }
    }

    fn copy_lines(&self, log: &dyn EventLog, to: &mut impl Write) -> Result<u64, Failure> {
        let status = log.status();
        let whole = status.first().map_or(0, |it| it.active_segment_bytes);
        let path = engine::jsonl_file(self.directory);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        unless_closed(io::copy(&mut file.take(whole), to).map(drop))?;
        Ok(status.iter().map(|it| it.durable_end.get()).sum())
    }

    fn write_frames(&self, log: &dyn EventLog, to: &mut impl Write) -> Result<u64, Failure> {
        let mut to = BufWriter::with_capacity(GATHERED_BYTES, to);
        let mut frames = Merged::new(log)?;
        let mut renumbered = Renumbered::new(log)?;
        let mut batch = Batch::new();
        let mut lines = Vec::new();
        let mut events = 0;
        let mut progress = ByteProgress::new("exported");
        while let Some((partition, mut frame)) = frames.next()? {
            let at = frame.base;
            to_json(&mut frame)
                .and_then(|()| renumbered.place(partition, &mut frame))
                .and_then(|()| put(&frame, &mut batch))
                .with_context(|| format!("partition {partition}, offset {at}"))?;
            lines.clear();
            for frame in batch.iter() {
                order_log::jsonl::write_frame(partition, &frame, engine::type_name, &mut lines);
            }
            if let Err(error) = to.write_all(&lines) {
                unless_closed(Err(error))?;
                return Ok(events);
            }
            events += frame.records.len() as u64;
            progress.part_done(lines.len() as u64);
        }
        progress.end();
        unless_closed(to.flush())?;
        if renumbered.gaps > 0 {
            eprintln!(
                "order-service: {} offsets have no record any more: the events behind them are numbered anew",
                renumbered.gaps
            );
        }
        Ok(events)
    }
}

/// Puts a frame alone into a batch.
fn put(frame: &OwnedFrame, batch: &mut Batch) -> anyhow::Result<()> {
    let lengths = frame.records.iter().map(|(_, bytes)| bytes.len());
    anyhow::ensure!(
        Batch::fits_a_frame(lengths),
        "the frame is over the limits as JSON"
    );
    batch.start_at(frame.base);
    batch.begin_frame(frame.key, frame.sequence, frame.previous, frame.appended_at);
    for (tag, bytes) in &frame.records {
        batch.record(|buffer| {
            buffer.extend_from_slice(bytes);
            *tag
        });
    }
    batch.end_frame();
    Ok(())
}

/// Offsets without gaps: a repaired log has some, the file has none.
struct Renumbered {
    /// By partition: the first offset, and where each record went, 8 bytes a record.
    places: Vec<(u64, Vec<u64>)>,
    next: Vec<u64>,
    gaps: u64,
}

impl Renumbered {
    const NOWHERE: u64 = u64::MAX;

    fn new(log: &dyn EventLog) -> anyhow::Result<Self> {
        let status = log.status();
        let places = status.iter().map(|it| {
            let records = usize::try_from(it.durable_end.get() - it.start.get())?;
            Ok((it.start.get(), vec![Self::NOWHERE; records]))
        });
        Ok(Self {
            places: places.collect::<anyhow::Result<_>>()?,
            next: vec![0; status.len()],
            gaps: 0,
        })
    }

    fn place(&mut self, partition: PartitionId, frame: &mut OwnedFrame) -> anyhow::Result<()> {
        let (start, places) = &mut self.places[partition.index()];
        let next = &mut self.next[partition.index()];
        let index = |offset: Offset| usize::try_from(offset.get().checked_sub(*start)?).ok();
        let records = frame.records.len() as u64;
        let previous = match frame.previous {
            None => None,
            Some(previous) => {
                let place = index(previous).and_then(|at| places.get(at)).copied();
                let place = place.filter(|place| *place != Self::NOWHERE);
                Some(Offset::new(place.ok_or_else(|| {
                    anyhow!(
                        "its order lost events: it follows a frame at {previous} that a repair declared lost, which the \
                         file could not say"
                    )
                })?))
            }
        };
        if let Some(place) = index(frame.base).and_then(|at| places.get_mut(at)) {
            *place = *next;
        }
        self.gaps = self.gaps.max(frame.base.get().saturating_sub(*next));
        frame.base = Offset::new(*next);
        frame.previous = previous;
        *next += records;
        frame.end = Offset::new(*next);
        Ok(())
    }
}
