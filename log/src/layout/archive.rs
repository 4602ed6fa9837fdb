//! The bytes of an archived segment: the segment itself in zstd frames, then an index in a frame that zstd skips.
//!
//! ```text
//! archive   zstd frame | zstd frame | … | skippable frame
//! skippable zstd's magic (4) | length u32 | index
//! index     magic [8] | crc u32 | format u8 | zeros [3] | base u64 | segment bytes u64 | blocks u32 | zeros [4]
//!           | the segment's footer [64] | block | block | … | length u32
//! block     position u64 | offset u64 | time u64 | stored u64
//! ```
//!
//! The zstd frames put together are the segment, byte for byte, zeros and footer included: `zstd -d` gives it back. Each
//! holds whole log frames, but for the last, which holds the zeros and the footer. A block says where its zstd frame
//! begins in the segment (`position`) and in the archive (`stored`), the offset that comes next there, and the append time
//! of its first log frame. The index's checksum starts from the identity, as a footer's does.

use super::{
    FORMAT, Identity, SEGMENT_BYTES_MAX, SEGMENT_FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentFooter,
    index, put, u32_at, u64_at,
};

/// A zstd frame takes no more log frames once it holds this many bytes: small enough to be unpacked for one order,
/// large enough to compress.
pub(crate) const BLOCK_BYTES: usize = 256 * 1024;

const SKIPPABLE_MAGIC: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const SKIPPABLE_HEAD_BYTES: usize = 8;
const MAGIC: [u8; 8] = *b"ORDERARC";
const HEAD_BYTES: usize = 40;
const BLOCK_ENTRY_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;
const FIXED_BYTES: usize = HEAD_BYTES + SEGMENT_FOOTER_BYTES + LENGTH_BYTES;

/// Where one zstd frame stands, and what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Where it begins in the segment.
    pub(crate) position: u64,
    /// The offset that comes next there.
    pub(crate) offset: u64,
    /// Append time of its first log frame; that of the last log frame for the block without any.
    pub(crate) time: u64,
    /// Where it begins in the archive.
    pub(crate) stored: u64,
}

/// What an archive says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveIndex {
    /// Length of the segment, in bytes.
    pub(crate) capacity: u64,
    /// The segment's footer.
    pub(crate) footer: SegmentFooter,
    /// In order; the last one holds no log frame.
    pub(crate) blocks: Vec<Block>,
    /// Where the zstd frames end in the archive.
    pub(crate) stored_end: u64,
}

impl ArchiveIndex {
    /// The skippable frame that ends an archive.
    pub(crate) fn to_bytes(&self, identity: Identity) -> Vec<u8> {
        let length = FIXED_BYTES + self.blocks.len() * BLOCK_ENTRY_BYTES;
        let length_stored =
            u32::try_from(length).expect("a segment of 1 GiB has a few thousand blocks");
        let count = u32::try_from(self.blocks.len()).expect("as above");
        let mut bytes = vec![0; SKIPPABLE_HEAD_BYTES + length];
        put(&mut bytes, 0, &SKIPPABLE_MAGIC);
        put(&mut bytes, 4, &length_stored.to_le_bytes());
        let content = &mut bytes[SKIPPABLE_HEAD_BYTES..];
        put(content, 0, &MAGIC);
        content[12] = FORMAT;
        put(content, 16, &self.footer.base.to_le_bytes());
        put(content, 24, &self.capacity.to_le_bytes());
        put(content, 32, &count.to_le_bytes());
        put(content, HEAD_BYTES, &self.footer.to_bytes(identity));
        let mut at = HEAD_BYTES + SEGMENT_FOOTER_BYTES;
        for block in &self.blocks {
            put(content, at, &block.position.to_le_bytes());
            put(content, at + 8, &block.offset.to_le_bytes());
            put(content, at + 16, &block.time.to_le_bytes());
            put(content, at + 24, &block.stored.to_le_bytes());
            at += BLOCK_ENTRY_BYTES;
        }
        put(content, at, &length_stored.to_le_bytes());
        let crc = identity.crc_of(&content[12..]);
        put(content, 8, &crc.to_le_bytes());
        bytes
    }

    /// Reads the index at the end of an archive; the error says what does not fit.
    pub(crate) fn read(archive: &[u8], identity: Identity, base: u64) -> Result<Self, String> {
        let cut = || "the archive is cut: its index is not there".to_owned();
        let length_at = archive.len().checked_sub(LENGTH_BYTES).ok_or_else(cut)?;
        let length = u32_at(archive, length_at) as usize;
        let start = archive
            .len()
            .checked_sub(length)
            .and_then(|start| start.checked_sub(SKIPPABLE_HEAD_BYTES))
            .ok_or_else(cut)?;
        let (head, content) = archive[start..].split_at(SKIPPABLE_HEAD_BYTES);
        if length < FIXED_BYTES
            || head[..4] != SKIPPABLE_MAGIC
            || u32_at(head, 4) as usize != length
        {
            return Err(cut());
        }
        if content[..8] != MAGIC || u32_at(content, 8) != identity.crc_of(&content[12..]) {
            return Err("the archive's index does not verify".to_owned());
        }
        if content[12] != FORMAT {
            return Err(format!(
                "archive format {} is unknown; this version knows {FORMAT}",
                content[12]
            ));
        }
        let capacity = u64_at(content, 24);
        let count = u32_at(content, 32) as usize;
        let footer = SegmentFooter::read(&content[HEAD_BYTES..], identity, base)
            .filter(|_| u64_at(content, 16) == base)
            .ok_or_else(|| format!("the archive is not of the segment that starts at {base}"))?;
        let entries = &content[HEAD_BYTES + SEGMENT_FOOTER_BYTES..length - LENGTH_BYTES];
        let blocks: Vec<Block> = entries
            .chunks_exact(BLOCK_ENTRY_BYTES)
            .map(|entry| Block {
                position: u64_at(entry, 0),
                offset: u64_at(entry, 8),
                time: u64_at(entry, 16),
                stored: u64_at(entry, 24),
            })
            .collect();
        let found = Self {
            capacity,
            footer,
            blocks,
            stored_end: start as u64,
        };
        if entries.len() != count * BLOCK_ENTRY_BYTES || !found.is_sound(base) {
            return Err("the archive's index does not fit its segment".to_owned());
        }
        Ok(found)
    }

    /// Whether the blocks fill the segment and the archive, in order.
    fn is_sound(&self, base: u64) -> bool {
        let smallest = (SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) as u64;
        let [first, .., last] = self.blocks.as_slice() else {
            return false;
        };
        (smallest..=SEGMENT_BYTES_MAX).contains(&self.capacity)
            && (first.position, first.offset, first.stored) == (0, base, 0)
            && last.offset == self.footer.end
            && last.position < self.capacity
            && last.stored < self.stored_end
            && self.blocks.is_sorted_by(|one, next| {
                one.position < next.position
                    && one.offset <= next.offset
                    && one.stored < next.stored
            })
    }

    /// Where a block's bytes are: in the segment, and in the archive.
    pub(crate) fn extent(&self, at: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let block = self.blocks[at];
        let (position_end, stored_end) = self
            .blocks
            .get(at + 1)
            .map_or((self.capacity, self.stored_end), |next| {
                (next.position, next.stored)
            });
        (
            index(block.position)..index(position_end),
            index(block.stored)..index(stored_end),
        )
    }
}
