//! Proof of a whole log: every frame of every segment, and how the segments join.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use super::archive;
use super::proof::{SealedProof, prove_sealed};
use super::recovery::{Verdict, list_segments, proven_loss, scan_tail};
use super::segment::Segment;
use super::segment_bytes::SegmentBytes;
use super::{SegmentedConfig, SegmentedLog};
use crate::disk::Disk;
use crate::layout::{Identity, SegmentHeader};
use crate::{AppendTime, LogError, Offset, PartitionId};

/// What a proof of a log found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Segments read.
    pub segments: u64,
    /// Frames proven; markers among them.
    pub frames: u64,
    /// Records proven.
    pub records: u64,
    /// Bytes of segments read.
    pub bytes: u64,
    /// Records that a repair declared lost: known, and no damage any more.
    pub lost: Vec<LostRecords>,
    /// What does not verify.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether anything that had been synced does not verify. A torn tail is not damage: the next start cuts it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage)
    }
}

/// A range of offsets whose records are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LostRecords {
    /// The partition.
    pub partition: PartitionId,
    /// The first lost record.
    pub start: Offset,
    /// The offset after the last lost record.
    pub end: Offset,
}

/// One thing that does not verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The partition.
    pub partition: PartitionId,
    /// The segment file.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub position: u64,
    /// Offset of the record that should stand there.
    pub offset: Offset,
    /// What does not verify.
    pub reason: String,
    /// `true` for damage, `false` for a torn tail that was never acknowledged.
    pub damage: bool,
}

/// One segment of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The partition.
    pub partition: PartitionId,
    /// The segment file.
    pub path: PathBuf,
    /// Offset of its first record.
    pub base: Offset,
    /// Offset after its last record.
    pub end: Offset,
    /// Length of the file, in bytes.
    pub bytes: u64,
    /// Append time of its last record, if it is sealed.
    pub sealed_at: Option<AppendTime>,
    /// Whether the file is an archive.
    pub archived: bool,
}

impl SegmentedLog {
    /// The segments of all partitions, in order.
    ///
    /// # Errors
    /// [`LogError`] if a segment cannot be read.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>, LogError> {
        let mut all = Vec::new();
        for partition in &self.partitions {
            let segments = partition.segments();
            for (at, segment) in segments.iter().enumerate() {
                let footer = if at + 1 < segments.len() {
                    segment.footer()?
                } else {
                    None
                };
                let end = segments
                    .get(at + 1)
                    .map_or(partition.durable_end.load(), |next| Offset::new(next.base));
                let (path, bytes, archived) = segment.file()?;
                all.push(SegmentInfo {
                    partition: partition.id,
                    path,
                    base: Offset::new(segment.base),
                    end,
                    bytes,
                    archived,
                    sealed_at: footer
                        .map(|footer| AppendTime::from_micros(footer.last_append_time)),
                });
            }
        }
        Ok(all)
    }

    /// Reads and verifies every byte of a log on disk that nobody is writing. `progress` hears of the bytes read so far.
    ///
    /// # Errors
    /// [`LogError::Io`] if a file cannot be read; what does not verify is in the report, not an error.
    pub fn verify(
        config: &SegmentedConfig,
        disk: &Arc<dyn Disk>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, LogError> {
        let mut report = VerifyReport::default();
        for partition in 0..config.partitions {
            let directory = config.partition_directory(partition);
            let io_error = |path: &PathBuf| {
                let path = path.clone();
                move |source| LogError::Io {
                    action: "reading",
                    path,
                    source,
                }
            };
            let (bases, _) = list_segments(&**disk, &directory).map_err(io_error(&directory))?;
            let identity = Identity::new(config.log_id, partition);
            for (at, base) in bases.iter().enumerate() {
                let segment_path = Segment::path_of(&directory, *base);
                let opened = archive::open_file(&**disk, &segment_path, identity, *base);
                let (path, file) = opened.map_err(io_error(&segment_path))?;
                let before = report.bytes;
                let mut place = Place {
                    partition: PartitionId::new(partition),
                    path: path.clone(),
                    report: &mut report,
                };
                let file = match file {
                    Ok(file) => file,
                    Err(reason) => {
                        place.found(0, *base, true, reason);
                        report.segments += 1;
                        continue;
                    }
                };
                let length = file.length().map_err(io_error(&path))?;
                match bases.get(at + 1) {
                    Some(next_base) => {
                        let mut read = before;
                        let mut pace = |bytes| {
                            read += bytes;
                            progress(read);
                            ControlFlow::Continue(())
                        };
                        place.sealed(prove_sealed(&*file, identity, *base, *next_base, &mut pace));
                    }
                    None => {
                        let read = SegmentBytes::read(&*file).map_err(io_error(&path))?;
                        place.last(&read, identity, *base);
                    }
                }
                report.segments += 1;
                report.bytes = before + length;
                progress(report.bytes);
            }
        }
        Ok(report)
    }
}

/// What the proof of a log's last segment, or of a sealed one, adds to a report.
struct Place<'r> {
    partition: PartitionId,
    path: PathBuf,
    report: &'r mut VerifyReport,
}

impl Place<'_> {
    fn found(&mut self, position: u64, offset: u64, damage: bool, reason: String) {
        self.report.findings.push(Finding {
            partition: self.partition,
            path: self.path.clone(),
            position,
            offset: Offset::new(offset),
            reason,
            damage,
        });
    }

    fn lost(&mut self, ranges: impl IntoIterator<Item = (u64, u64)>) {
        let partition = self.partition;
        let lost = ranges.into_iter().map(|(start, end)| LostRecords {
            partition,
            start: Offset::new(start),
            end: Offset::new(end),
        });
        self.report.lost.extend(lost);
    }

    fn sealed(&mut self, proof: SealedProof) {
        self.report.frames += proof.frames;
        self.report.records += proof.records;
        self.lost(proof.lost);
        for fault in proof.faults {
            self.found(fault.position, fault.offset, true, fault.reason);
        }
    }

    fn last(&mut self, read: &SegmentBytes, identity: Identity, base: u64) {
        let length = read.bytes.len() as u64;
        if let Err(reason) = SegmentHeader::read(&read.bytes, identity, base, length) {
            self.found(0, base, true, reason);
        }
        let tail = scan_tail(&read.bytes, identity, base);
        self.report.frames += tail.frames;
        self.report.records +=
            tail.end - base - tail.lost.iter().map(|(from, to)| to - from).sum::<u64>();
        if let Some((position, reason)) = read.fault() {
            self.found(position as u64, tail.end, true, reason);
        }
        let (position, end) = (tail.position as u64, tail.end);
        match tail.verdict {
            Verdict::Clean => {}
            Verdict::Torn { to, fault } => self.found(
                position,
                end,
                false,
                format!(
                    "{} bytes were never synced ({fault}); the next start cuts them",
                    to - tail.position
                ),
            ),
            Verdict::Damaged { fault, proof } => {
                self.found(position, end, true, proven_loss(fault, proof));
            }
        }
        self.lost(tail.lost);
    }
}
