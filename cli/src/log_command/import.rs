//! `order-service log import`: a new data directory from a file of JSON lines, with either engine.
//!
//! Every line is held against its place and decoded before anything is kept; what is refused is named by its line. Then
//! the new log is read back, as JSON, and held against the file, record by record.
//!
//! Offsets stay what they are in the file, unless its partitions are not those of the directory and `--repartition`
//! asks for others.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use order_domain::{Idempotency, OrderId, Timestamp, fold_owned};
use order_log::jsonl::JsonlLog;
use order_log::{EventLog, Offset, PartitionId, ScanLimit};
use order_outbox::OfflineOutbox;
use order_partitioner::{HASH_NAME, Partitioner};

use crate::byte_progress::ByteProgress;
use crate::config::{Config, DataDirectoryFlags, PARTITIONS_DEFAULT, Store};
use crate::data_directory::{WholeDirectory, create_durably};
use crate::engine;
use crate::failure::{Failure, usage};
use crate::manifest::{Manifest, Rewritten};
use crate::print;
use crate::rewrite::{
    Chains, Fingerprint, Merged, NewLog, OwnedFrame, event_of, to_binary, to_json,
};
use crate::staging::{self, Staging};

/// Means standard input, in place of a file.
const STANDARD: &str = "-";
/// Where standard input is kept while it is read twice.
const SPOOLED: &str = "input.jsonl";
/// The name this command is told by.
const COMMAND: &str = "log import";

/// Make a data directory from JSON lines, as `log export` writes them
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data_directory: DataDirectoryFlags,
    /// The file, or `-` for standard input
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Partitions of the new log [default: 4]
    #[arg(long, value_name = "COUNT")]
    partitions: Option<u16>,
    /// Engine that keeps the events [default: segmented]
    #[arg(long, value_name = "ENGINE")]
    store: Option<Store>,
    /// Spread the orders anew where the file's partitions are others: offsets change then
    #[arg(long)]
    repartition: bool,
    /// Tell the outside world nothing of these events: it was told before
    #[arg(long)]
    already_told: bool,
}

/// Imports into an empty data directory. Interrupted, it is run again.
///
/// # Errors
/// A usage failure for a directory that is not empty, and for the first line that is no record, not in its place, or of
/// another partition than its order belongs in. Nothing is kept then.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.data_directory.load()?.config;
    let partitions = arguments
        .partitions
        .or(config.partitions)
        .unwrap_or(PARTITIONS_DEFAULT);
    let partitioner = Partitioner::new(partitions).ok_or_else(|| {
        usage!(
            "--partitions {partitions}: 1 to {} are possible",
            Partitioner::PARTITIONS_MAX
        )
    })?;
    let from_standard = arguments.from.as_os_str() == STANDARD;
    if !from_standard && !arguments.from.is_file() {
        return Err(usage!(
            "--from {}: there is no such file",
            arguments.from.display()
        ));
    }
    let target = &config.data_dir;
    staging::refuse_occupied(target, COMMAND)?;
    create_durably(target)?;
    let _lock = WholeDirectory::lock(target)?;
    if staging::finish_pending(target)?.as_deref() == Some(COMMAND) {
        return print::line(&format!(
            "{}: the import that was interrupted is finished",
            target.display()
        ));
    }
    staging::refuse_occupied(target, COMMAND)?;
    let staging = Staging::begin(target, COMMAND)?;
    let import = Import {
        config: &config,
        arguments,
        partitioner,
        staging: staging.path(),
    };
    let done = match import.build(from_standard) {
        Ok(done) => done,
        Err(failure) => {
            staging.abandon();
            return Err(failure);
        }
    };
    staging.commit(None)?;
    print::line(&format!(
        "{}: {} events in {} frames imported, and proven record by record",
        target.display(),
        done.records,
        done.frames
    ))?;
    print::line(if arguments.already_told {
        "the outbox takes them as told; the read model is built at the next start"
    } else {
        "the outbox tells all of them, and the read model is built, at the next start"
    })
}

struct Import<'a> {
    config: &'a Config,
    arguments: &'a Arguments,
    partitioner: Partitioner,
    staging: &'a Path,
}

/// What was found out about the file on the way.
#[derive(Default)]
struct Found {
    proof: Fingerprint,
    last_append_us: u64,
    /// Whether a key leads to another partition than the order it made is in.
    has_stray_keys: bool,
}

impl Import<'_> {
    fn build(&self, from_standard: bool) -> Result<Fingerprint, Failure> {
        let spooled = self.staging.join(SPOOLED);
        let from = if from_standard {
            let mut file =
                File::create(&spooled).with_context(|| format!("create {}", spooled.display()))?;
            io::copy(&mut io::stdin().lock(), &mut file).context("read standard input")?;
            &spooled
        } else {
            &self.arguments.from
        };
        let lines = engine::open_lines(from).map_err(|error| usage!("{error}"))?;
        let length = std::fs::metadata(from)
            .with_context(|| from.display().to_string())?
            .len();
        if lines.whole_bytes() < length {
            let cut = lines.line_number(PartitionId::new(0), Offset::new(u64::MAX))?;
            return Err(usage!(
                "{}: line {cut} is cut off, or its frame misses lines: the file is not whole",
                from.display()
            ));
        }
        let mut manifest = Manifest::new(
            self.partitioner.partitions(),
            self.arguments
                .store
                .or(self.config.store)
                .unwrap_or(Store::Segmented),
        );
        let found = self.copy(&lines, from, &manifest)?;
        let new = engine::open_read_only(self.staging, &manifest)?;
        let ends = self.prove(&*new, &lines, &found.proof)?;
        drop(new);
        if self.arguments.already_told {
            OfflineOutbox::create(self.staging, &ends)?;
        }
        if found.has_stray_keys {
            manifest.rewritten = Some(Rewritten {
                at: jiff::Timestamp::now(),
                ends: ends.iter().map(|end| end.get()).collect(),
                last_append_us: found.last_append_us,
                former_log_ids: Vec::new(),
            });
        }
        if from_standard {
            std::fs::remove_file(&spooled)
                .with_context(|| format!("remove {}", spooled.display()))?;
        }
        manifest.write(self.staging)?;
        Ok(found.proof)
    }

    /// Writes every frame of the file where it belongs, or refuses the first that cannot be.
    fn copy(&self, lines: &JsonlLog, from: &Path, manifest: &Manifest) -> Result<Found, Failure> {
        let mut new = NewLog::create(self.staging, manifest, self.config.log.segment_bytes_max)?;
        let mut frames = Merged::new(lines)?;
        let mut chains: Vec<Chains> = Vec::new();
        chains.resize_with(usize::from(lines.partition_count()), Chains::default);
        // Where each frame went; its order's next one has to know.
        let mut last: std::collections::HashMap<order_log::Key, Offset> = Default::default();
        let mut found = Found::default();
        let mut progress = ByteProgress::new("imported");
        while let Some((partition, mut frame)) = frames.next()? {
            let base = frame.base;
            let refuse = |error: anyhow::Error| match lines.line_number(partition, base) {
                Ok(number) => usage!("{}: line {number}: {error:#}", from.display()),
                Err(failure) => failure.into(),
            };
            let home = self.home(&frame);
            chains[partition.index()]
                .follow(&frame)
                .and_then(|()| self.look(&frame, home, &mut found))
                .map_err(refuse)?;
            if home != partition && !self.arguments.repartition {
                return Err(refuse(anyhow!(
                    "its order is in partition {partition} of the file, with {} partitions and the hash {HASH_NAME} it \
                     belongs in {home}: name the file's count with --partitions, or spread the orders anew with \
                     --repartition",
                    self.partitioner.partitions()
                )));
            }
            found.proof.add(&frame);
            found.last_append_us = found.last_append_us.max(frame.appended_at.as_micros());
            progress.part_done(frame.bytes());
            if manifest.store == Store::Segmented {
                to_binary(&mut frame).map_err(refuse)?;
            }
            let previous = frame.previous.and(last.get(&frame.key).copied());
            let base = new.append(home, &frame, previous)?;
            last.insert(frame.key, base);
        }
        progress.end();
        new.finish()?;
        Ok(found)
    }

    /// The partition an order belongs in.
    fn home(&self, frame: &OwnedFrame) -> PartitionId {
        let id = OrderId::from_bytes(*frame.key.as_bytes());
        let text = &mut [0; 36];
        PartitionId::new(self.partitioner.partition_of(id.text(text).as_bytes()))
    }

    /// Every event must be one, and what has nothing before it must make an order.
    fn look(&self, frame: &OwnedFrame, home: PartitionId, found: &mut Found) -> anyhow::Result<()> {
        let id = OrderId::from_bytes(*frame.key.as_bytes());
        let at = Timestamp::from_micros(frame.appended_at.as_micros());
        let mut order = None;
        for (tag, bytes) in &frame.records {
            let recorded = event_of(*tag, bytes)?;
            if let (true, Some(used)) = (
                recorded.event.key_scope(id).is_none(),
                &recorded.context.idempotency,
            ) {
                let key = Idempotency::partition_key(&used.key);
                found.has_stray_keys |= self.partitioner.partition_of(key.as_bytes()) != home.get();
            }
            if frame.previous.is_none() {
                fold_owned(&mut order, id, recorded.event, at)?;
            }
        }
        let last = u64::from(frame.sequence) + frame.records.len() as u64 - 1;
        match order {
            Some(order) if u64::from(order.version.get()) != last => Err(anyhow!(
                "it makes version {} of its order, and says {last}",
                order.version.get()
            )),
            _ => Ok(()),
        }
    }

    /// Reads the new log back and holds it against the file. Returns its ends.
    fn prove(
        &self,
        new: &dyn EventLog,
        lines: &JsonlLog,
        file: &Fingerprint,
    ) -> Result<Vec<Offset>, Failure> {
        let mut proof = Fingerprint::default();
        let mut progress = ByteProgress::new("proven");
        let mut ends = Vec::new();
        for partition in (0..new.partition_count()).map(PartitionId::new) {
            let reader = new.reader(partition)?;
            let mut chains = Chains::default();
            let mut wrong = None;
            reader.scan(reader.start(), ScanLimit::NONE, &mut |frame| {
                let mut frame = OwnedFrame::of(&frame);
                match to_json(&mut frame).and_then(|()| chains.follow(&frame)) {
                    Ok(()) => {
                        proof.add(&frame);
                        progress.part_done(frame.bytes());
                        ControlFlow::Continue(())
                    }
                    Err(error) => {
                        wrong = Some(error);
                        ControlFlow::Break(())
                    }
                }
            })?;
            if let Some(error) = wrong {
                return Err(error
                    .context(format!("the new log is wrong in partition {partition}"))
                    .into());
            }
            ends.push(reader.durable_end());
        }
        progress.end();
        let in_file = lines.status();
        let same_places = self.arguments.repartition
            || ends
                .iter()
                .zip(&in_file)
                .all(|(end, partition)| *end == partition.durable_end);
        if proof != *file || !same_places {
            return Err(anyhow!(
                "the new log does not say what the file says: {proof:?}, not {file:?}"
            )
            .into());
        }
        Ok(ends)
    }
}
