//! Proof of a whole log: every frame of every segment, and how the segments join.

use std::path::PathBuf;
use std::sync::Arc;

use super::recovery::{Verdict, list_segments, scan_tail};
use super::segment::{Segment, frames_of};
use super::{SegmentedConfig, SegmentedLog};
use crate::disk::{Disk, Map};
use crate::layout::{
    FrameFault, FrameHeader, Identity, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter,
    SegmentHeader, chain, header_crc,
};
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
                all.push(SegmentInfo {
                    partition: partition.id,
                    path: segment.path.clone(),
                    base: Offset::new(segment.base),
                    end,
                    bytes: segment.capacity()?,
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
            for (at, base) in bases.iter().enumerate() {
                let path = Segment::path_of(&directory, *base);
                let map = disk
                    .open_read_only(&path)
                    .and_then(|file| file.map())
                    .map_err(io_error(&path))?;
                let mut proof = SegmentProof {
                    identity: Identity::new(config.log_id, partition),
                    base: *base,
                    path,
                    report: &mut report,
                };
                proof.prove(&map, bases.get(at + 1).copied());
                report.segments += 1;
                report.bytes += map.bytes().len() as u64;
                progress(report.bytes);
            }
        }
        Ok(report)
    }
}

struct SegmentProof<'r> {
    identity: Identity,
    base: u64,
    path: PathBuf,
    report: &'r mut VerifyReport,
}

impl SegmentProof<'_> {
    fn found(&mut self, position: usize, offset: u64, damage: bool, reason: String) {
        self.report.findings.push(Finding {
            partition: PartitionId::new(self.identity.partition),
            path: self.path.clone(),
            position: position as u64,
            offset: Offset::new(offset),
            reason,
            damage,
        });
    }

    fn prove(&mut self, map: &Map, next_base: Option<u64>) {
        let bytes = map.bytes();
        if let Err(reason) =
            SegmentHeader::read(bytes, self.identity, self.base, bytes.len() as u64)
        {
            return self.found(0, self.base, true, reason);
        }
        match next_base {
            Some(next_base) => self.prove_sealed(bytes, next_base),
            None => self.prove_last(bytes),
        }
    }

    fn prove_sealed(&mut self, bytes: &[u8], next_base: u64) {
        let frames = frames_of(bytes);
        let footer_position = frames.len();
        let footer = SegmentFooter::read(&bytes[footer_position..], self.identity, self.base);
        let mut position = SEGMENT_HEADER_BYTES;
        let mut offset = self.base;
        let mut chained = 0;
        let end_position = footer.map_or(footer_position, |footer| {
            crate::layout::index(footer.end_position)
        });
        while position < end_position {
            let read = FrameHeader::read_frame(&frames[position..], self.identity, offset)
                .and_then(|frame| frame.ok_or(FrameFault::Missing));
            match read {
                Ok((header, _)) => {
                    chained = chain(chained, header_crc(&frames[position..]));
                    self.report.frames += 1;
                    self.report.records += u64::from(header.records);
                    offset += u64::from(header.records);
                    position += header.total_bytes();
                }
                // Without a footer the end is not known: zeros may be it.
                Err(FrameFault::Missing) if footer.is_none() => break,
                Err(fault) => {
                    self.found(position, offset, true, fault.to_string());
                    return;
                }
            }
        }
        let Some(footer) = footer else {
            let reason = format!(
                "a sealed segment's footer of {SEGMENT_FOOTER_BYTES} bytes does not verify"
            );
            return self.found(footer_position, offset, true, reason);
        };
        if footer.chain != chained || footer.end != offset || footer.end_position != position as u64
        {
            self.found(
                footer_position,
                offset,
                true,
                "the footer does not fit the frames".to_owned(),
            );
        }
        if offset != next_base {
            let reason =
                format!("the segment ends at offset {offset}, the next one starts at {next_base}");
            self.found(position, offset, true, reason);
        }
    }

    fn prove_last(&mut self, bytes: &[u8]) {
        let tail = scan_tail(bytes, self.identity, self.base);
        self.report.frames += tail.frames;
        self.report.records += tail.end - self.base;
        match tail.verdict {
            Verdict::Clean => {}
            Verdict::Torn { to, fault } => self.found(
                tail.position,
                tail.end,
                false,
                format!("{} bytes were never synced ({fault}); the next start cuts them", to - tail.position),
            ),
            Verdict::Damaged { fault, proof } => self.found(
                tail.position,
                tail.end,
                true,
                format!("{fault}, and a later frame proves that everything before offset {proof} had been synced"),
            ),
        }
    }
}
