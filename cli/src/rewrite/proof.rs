//! What shows that a rewritten log says what the first one said.

use std::collections::HashMap;

use anyhow::anyhow;
use order_log::{Key, Offset};
use sha2::{Digest, Sha256};

use super::OwnedFrame;

/// A digest of a set of frames, whatever their order and offsets: the sum of a SHA-256 of each. A frame's digest is over its
/// order, its place in the order's history, its time and its records, so that equal sums mean equal histories of every order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) frames: u64,
    pub(crate) records: u64,
    sum: [u64; 4],
}

impl Fingerprint {
    /// Adds a frame.
    pub(crate) fn add(&mut self, frame: &OwnedFrame) {
        let mut digest = Sha256::new();
        digest.update(frame.key.as_bytes());
        digest.update(frame.sequence.to_le_bytes());
        digest.update([u8::from(frame.previous.is_some())]);
        digest.update(frame.appended_at.as_micros().to_le_bytes());
        for (tag, bytes) in &frame.records {
            digest.update(tag.event_type.to_le_bytes());
            digest.update([tag.schema, tag.codec]);
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        }
        for (sum, lane) in self.sum.iter_mut().zip(digest.finalize().chunks_exact(8)) {
            let lane = lane.try_into().map_or(0, u64::from_le_bytes);
            *sum = sum.wrapping_add(lane);
        }
        self.frames += 1;
        self.records += frame.records.len() as u64;
    }
}

/// The walk back through each order's history, followed as frames of one partition come in their order.
#[derive(Debug, Default)]
pub(crate) struct Chains {
    /// The last frame of each order, and the place in the history of what follows it.
    last: HashMap<Key, (Offset, u32)>,
}

impl Chains {
    /// Checks that a frame goes on where its order's last one ended, and says so.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn follow(&mut self, frame: &OwnedFrame) -> anyhow::Result<()> {
        let before = self.last.get(&frame.key);
        if frame.previous != before.map(|(base, _)| *base) {
            return Err(anyhow!(
                "`previous` of the frame at offset {} is {:?}, its order's frame before it is at {:?}",
                frame.base,
                frame.previous.map(Offset::get),
                before.map(|(base, _)| base.get())
            ));
        }
        if let Some((_, expected)) = before
            && *expected != frame.sequence
        {
            return Err(anyhow!(
                "the frame at offset {} begins with version {} of its order, {expected} is next",
                frame.base,
                frame.sequence
            ));
        }
        let records = u32::try_from(frame.records.len())?;
        let next = frame
            .sequence
            .checked_add(records)
            .ok_or_else(|| anyhow!("the frame at offset {} has no end", frame.base))?;
        self.last.insert(frame.key, (frame.base, next));
        Ok(())
    }
}
