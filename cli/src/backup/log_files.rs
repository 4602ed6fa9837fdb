//! The log's part of a backup: every sealed segment whole, the one being written up to the end it had; or the one file of
//! JSON lines up to its end. Proven in the copy, frame by frame.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, anyhow};
use order_log::EventLog;
use order_log::segmented::SegmentedLog;

use super::Backup;
use crate::byte_progress::ByteProgress;
use crate::config::Store;
use crate::engine;
use crate::failure::Failure;
use crate::manifest::Manifest;

/// Files beside a segment that spare a scan of it; made anew if they are missing.
const HINTS: [&str; 2] = ["index", "timeindex"];

impl Backup<'_> {
    /// Copies the log up to where it ends now; returns the ends.
    pub(super) fn copy_log(&mut self, manifest: &Manifest) -> Result<Vec<u64>, Failure> {
        match manifest.store {
            Store::Segmented => self.copy_segments(manifest),
            Store::Jsonl => self.copy_jsonl(manifest),
        }
    }

    fn copy_segments(&mut self, manifest: &Manifest) -> Result<Vec<u64>, Failure> {
        let log = engine::open_segments_beside_a_writer(self.from, manifest)?;
        if let Some(damage) = engine::damage(&log, manifest) {
            return Err(anyhow!(
                "the log is damaged, and a backup would hide that: {damage}; `order-service log verify` tells more"
            )
            .into());
        }
        let active: BTreeMap<_, _> = log
            .status()
            .into_iter()
            .map(|status| (status.partition, status))
            .collect();
        let segments = log.segments()?;
        for (at, segment) in segments.iter().enumerate() {
            let is_last = segments
                .get(at + 1)
                .is_none_or(|next| next.partition != segment.partition);
            let name = relative(&segment.path, self.from)?;
            self.make_parent(&name)?;
            let length = std::fs::metadata(&segment.path)
                .with_context(|| segment.path.display().to_string())?
                .len();
            let bytes = if is_last {
                active[&segment.partition].active_segment_bytes
            } else {
                length
            };
            self.copy_file(&name, bytes, length)?;
            if is_last {
                continue;
            }
            for extension in HINTS {
                let hints = segment
                    .path
                    .with_file_name(format!("{:020}.{extension}", segment.base.get()));
                if let Ok(found) = std::fs::metadata(&hints) {
                    let name = relative(&hints, self.from)?;
                    self.copy_file(&name, found.len(), found.len())?;
                }
            }
        }
        let directory = engine::segmented_config(self.from, manifest).directory;
        let epoch = relative(&directory.join("epoch"), self.from)?;
        match std::fs::metadata(self.from.join(&epoch)) {
            Ok(found) => self.copy_file(&epoch, found.len(), found.len())?,
            // A disk can be too full for it; the frames have it as well.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(anyhow::Error::new(error).context(epoch).into()),
        }
        prove_segments(self.to, manifest)?;
        Ok(active
            .values()
            .map(|status| status.durable_end.get())
            .collect())
    }

    fn copy_jsonl(&mut self, manifest: &Manifest) -> Result<Vec<u64>, Failure> {
        let ends = {
            let log = engine::open_read_only(self.from, manifest)?;
            let status = log.status();
            let name = relative(&engine::jsonl_file(self.from), self.from)?;
            let bytes = status
                .first()
                .map_or(0, |status| status.active_segment_bytes);
            self.copy_file(&name, bytes, bytes)?;
            ends_of(&*log)
        };
        let copied = ends_of(&*engine::open_read_only(self.to, manifest)?);
        if copied != ends {
            return Err(anyhow!("the copy ends at {copied:?}, the log at {ends:?}").into());
        }
        Ok(ends)
    }

    fn make_parent(&self, name: &str) -> Result<(), Failure> {
        match self.to.join(name).parent() {
            Some(parent) => crate::data_directory::create_durably(parent),
            None => Ok(()),
        }
    }
}

/// Offset after the last record, by partition.
pub(crate) fn ends_of(log: &dyn EventLog) -> Vec<u64> {
    log.status()
        .iter()
        .map(|status| status.durable_end.get())
        .collect()
}

/// Proves every frame of a segmented log that nobody writes.
///
/// # Errors
/// A failure that names the first thing that does not verify.
pub(crate) fn prove_segments(directory: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let mut progress = ByteProgress::new("proven");
    let config = engine::segmented_config(directory, manifest);
    let report = SegmentedLog::verify(&config, &engine::disk(), &mut |bytes| progress.at(bytes))?;
    progress.end();
    match report.findings.first() {
        None => Ok(()),
        Some(finding) => Err(anyhow!(
            "the copy of the log does not verify: {}, byte {}, offset {} of partition {}: {}",
            finding.path.display(),
            finding.position,
            finding.offset,
            finding.partition,
            finding.reason
        )
        .into()),
    }
}

/// A file's path within the data directory.
fn relative(path: &Path, directory: &Path) -> Result<String, Failure> {
    let within = path
        .strip_prefix(directory)
        .with_context(|| path.display().to_string())?;
    let text = within
        .to_str()
        .ok_or_else(|| anyhow!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
