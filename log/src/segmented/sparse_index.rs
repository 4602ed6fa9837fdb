//! Where frames are, every few kilobytes: hints beside a segment, by offset and by time.
//!
//! A lost, stale or damaged index costs a scan of its segment, never a wrong answer: whoever follows a hint verifies the
//! frame it points to.

use std::io;
use std::path::Path;

use crate::disk::Disk;
use crate::layout::{Identity, SEGMENT_HEADER_BYTES, index};

/// Bytes of frames between two hints: a look-up walks half of this on average.
const INDEX_INTERVAL_BYTES: u32 = 4096;
const HEAD_BYTES: usize = 24;
const OFFSET_MAGIC: [u8; 8] = *b"ORDEROFF";
const TIME_MAGIC: [u8; 8] = *b"ORDERTIM";

/// One hint: a frame's offset relative to its segment, its position in bytes, its append time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hint {
    pub(super) relative: u32,
    pub(super) position: u32,
    pub(super) time: u64,
}

/// The hints of one segment, in order.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct SparseIndex {
    hints: Vec<Hint>,
}

impl SparseIndex {
    /// Bytes of frames between two hints.
    pub(super) const INTERVAL_BYTES: usize = INDEX_INTERVAL_BYTES as usize;

    /// Whether a frame at `position` is far enough behind the last hint to get one.
    pub(super) fn wants(&self, position: u32) -> bool {
        self.hints
            .last()
            .is_none_or(|last| position >= last.position.saturating_add(INDEX_INTERVAL_BYTES))
    }

    /// Adds a hint if it is wanted.
    pub(super) fn note(&mut self, hint: Hint) {
        if self.wants(hint.position) {
            self.hints.push(hint);
        }
    }

    /// The last hint at or before a relative offset.
    pub(super) fn before_offset(&self, relative: u64) -> Option<Hint> {
        let behind = self
            .hints
            .partition_point(|hint| u64::from(hint.relative) <= relative);
        behind.checked_sub(1).map(|at| self.hints[at])
    }

    /// The last hint before a time: frames at or after the time stand behind it.
    pub(super) fn before_time(&self, time: u64) -> Option<Hint> {
        let behind = self.hints.partition_point(|hint| hint.time < time);
        behind.checked_sub(1).map(|at| self.hints[at])
    }

    /// Writes both index files beside a sealed segment.
    pub(super) fn save(
        &self,
        disk: &dyn Disk,
        segment: &Path,
        identity: Identity,
        base: u64,
    ) -> io::Result<()> {
        let mut offsets = Vec::with_capacity(HEAD_BYTES + self.hints.len() * 8);
        let mut times = Vec::with_capacity(HEAD_BYTES + self.hints.len() * 12);
        offsets.resize(HEAD_BYTES, 0);
        times.resize(HEAD_BYTES, 0);
        for hint in &self.hints {
            offsets.extend_from_slice(&hint.relative.to_le_bytes());
            offsets.extend_from_slice(&hint.position.to_le_bytes());
            times.extend_from_slice(&hint.time.to_le_bytes());
            times.extend_from_slice(&hint.relative.to_le_bytes());
        }
        save_file(
            disk,
            &segment.with_extension("index"),
            OFFSET_MAGIC,
            offsets,
            identity,
            base,
        )?;
        save_file(
            disk,
            &segment.with_extension("timeindex"),
            TIME_MAGIC,
            times,
            identity,
            base,
        )
    }

    /// Reads both index files; `None` if either is not there or not right.
    pub(super) fn load(
        disk: &dyn Disk,
        segment: &Path,
        identity: Identity,
        base: u64,
    ) -> Option<Self> {
        let offsets = load_file(
            disk,
            &segment.with_extension("index"),
            OFFSET_MAGIC,
            identity,
            base,
        )?;
        let times = load_file(
            disk,
            &segment.with_extension("timeindex"),
            TIME_MAGIC,
            identity,
            base,
        )?;
        let (offsets, times) = (offsets.chunks_exact(8), times.chunks_exact(12));
        if offsets.len() != times.len()
            || !offsets.remainder().is_empty()
            || !times.remainder().is_empty()
        {
            return None;
        }
        let hints = offsets
            .zip(times)
            .map(|(offset, time)| {
                let relative = u32::from_le_bytes(offset[..4].try_into().ok()?);
                let position = u32::from_le_bytes(offset[4..].try_into().ok()?);
                let time_relative = u32::from_le_bytes(time[8..].try_into().ok()?);
                let time = u64::from_le_bytes(time[..8].try_into().ok()?);
                let in_frames = position as usize >= SEGMENT_HEADER_BYTES;
                (relative == time_relative && in_frames).then_some(Hint {
                    relative,
                    position,
                    time,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let rising = hints.is_sorted_by(|a, b| a.relative < b.relative && a.position < b.position);
        rising.then_some(Self { hints })
    }
}

fn head(magic: [u8; 8], entries: &[u8], identity: Identity, base: u64) -> [u8; HEAD_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&identity.log_id);
    hasher.update(&identity.partition.to_le_bytes());
    hasher.update(&base.to_le_bytes());
    hasher.update(entries);
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&magic);
    head[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
    head[16..24].copy_from_slice(&base.to_le_bytes());
    head
}

fn save_file(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 8],
    mut bytes: Vec<u8>,
    identity: Identity,
    base: u64,
) -> io::Result<()> {
    let head = head(magic, &bytes[HEAD_BYTES..], identity, base);
    bytes[..HEAD_BYTES].copy_from_slice(&head);
    let partial = path.with_extension("tmp");
    match disk.remove(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&partial)?;
    file.write_all_at(&bytes, 0)?;
    file.sync_data()?;
    disk.rename(&partial, path)
}

fn load_file(
    disk: &dyn Disk,
    path: &Path,
    magic: [u8; 8],
    identity: Identity,
    base: u64,
) -> Option<Vec<u8>> {
    let file = disk.open_read_only(path).ok()?;
    let length = index(file.length().ok()?);
    let entries_bytes_max =
        index(crate::layout::SEGMENT_BYTES_MAX) / INDEX_INTERVAL_BYTES as usize * 12;
    if !(HEAD_BYTES..=HEAD_BYTES + entries_bytes_max).contains(&length) {
        return None;
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let entries = bytes.split_off(HEAD_BYTES);
    (bytes == head(magic, &entries, identity, base)).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    fn ten_hints() -> SparseIndex {
        let mut index = SparseIndex::default();
        for step in 0..100 {
            index.note(Hint {
                relative: step * 5,
                position: 64 + step * 500,
                time: u64::from(step) * 10,
            });
        }
        index
    }

    #[test]
    fn a_hint_stands_at_or_before_what_is_looked_for() {
        let index = ten_hints();
        assert_eq!(index.before_offset(0).unwrap().position, 64);
        let hint = index.before_offset(333).unwrap();
        assert!(u64::from(hint.relative) <= 333);
        assert!(index.before_time(0).is_none());
        assert!(index.before_time(501).unwrap().time < 501);
    }

    #[test]
    fn saved_hints_come_back_and_every_flipped_bit_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let segment = directory.path().join("00000000000000000007.seg");
        let identity = Identity::new([3; 16], 2);
        let index = ten_hints();
        index.save(&RealDisk, &segment, identity, 7).unwrap();
        assert_eq!(
            SparseIndex::load(&RealDisk, &segment, identity, 7),
            Some(index)
        );
        assert_eq!(SparseIndex::load(&RealDisk, &segment, identity, 8), None);
        assert_eq!(
            SparseIndex::load(&RealDisk, &segment, Identity::new([3; 16], 1), 7),
            None
        );
        for extension in ["index", "timeindex"] {
            let path = segment.with_extension(extension);
            let good = std::fs::read(&path).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, &bad).unwrap();
                assert_eq!(
                    SparseIndex::load(&RealDisk, &segment, identity, 7),
                    None,
                    "bit {bit}"
                );
            }
            std::fs::write(&path, &good).unwrap();
        }
    }
}
