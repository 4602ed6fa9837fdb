//! Where a feed is: an offset a partition, as the opaque id of the events it shows. Sealed with the log's identity, so
//! that an id of another log is refused, not misread.

use order_projector_workers::Offset;

use crate::sync_token::{Seal, hex, unhex};

/// Longest variable-length number, in bytes.
const VARINT_BYTES_MAX: usize = 10;

/// The offset after the last event shown, by partition; always between two frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedPosition(pub(crate) Vec<Offset>);

impl FeedPosition {
    /// The id of an event that leads here.
    pub(crate) fn text(&self, seal: Seal) -> String {
        let mut bytes = Vec::with_capacity(4 + self.0.len() * 4);
        for offset in &self.0 {
            put_varint(offset.get(), &mut bytes);
        }
        let checksum = seal.over(&bytes);
        bytes.extend_from_slice(&checksum);
        hex(&bytes)
    }

    /// Whether [`Self::text`] made an id under this seal, for whatever count of partitions.
    pub(crate) fn is_of(text: &str, seal: Seal) -> bool {
        let Some(bytes) = unhex(text) else {
            return false;
        };
        let split = bytes.split_last_chunk::<4>();
        split.is_some_and(|(rest, checksum)| seal.over(rest) == *checksum)
    }

    /// Reads an id that [`Self::text`] made under the same seal, for as many partitions.
    pub(crate) fn parse(text: &str, seal: Seal, partitions: usize) -> Option<Self> {
        if text.len() > 2 * (partitions * VARINT_BYTES_MAX + 4) {
            return None;
        }
        let bytes = unhex(text)?;
        let (mut rest, checksum) = bytes.split_last_chunk::<4>()?;
        if seal.over(rest) != *checksum {
            return None;
        }
        let mut offsets = Vec::with_capacity(partitions);
        while !rest.is_empty() {
            offsets.push(Offset::new(take_varint(&mut rest)?));
        }
        (offsets.len() == partitions).then_some(Self(offsets))
    }
}

fn put_varint(mut number: u64, bytes: &mut Vec<u8>) {
    loop {
        let seven = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(seven);
            return;
        }
        bytes.push(seven | 0x80);
    }
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for place in 0..VARINT_BYTES_MAX {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let seven = u64::from(byte & 0x7f);
        let shift = 7 * u32::try_from(place).ok()?;
        if seven.leading_zeros() < shift {
            return None;
        }
        number |= seven << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_position_reads_back_for_its_own_partitions(offsets in proptest::collection::vec(any::<u64>(), 1..20)) {
            let seal = Seal::of_log("a log");
            let position = FeedPosition(offsets.iter().copied().map(Offset::new).collect());
            let text = position.text(seal);
            prop_assert_eq!(FeedPosition::parse(&text, seal, offsets.len()), Some(position));
            prop_assert_eq!(FeedPosition::parse(&text, seal, offsets.len() + 1), None);
            prop_assert!(FeedPosition::is_of(&text, seal));
            prop_assert!(!FeedPosition::is_of(&text, Seal::of_log("another")));
            prop_assert_eq!(FeedPosition::parse(&text, Seal::of_log("another"), offsets.len()), None);
        }

        #[test]
        fn any_text_is_a_position_or_none(text in "[0-9a-f]{0,64}") {
            let _read = FeedPosition::parse(&text, Seal::of_log("a log"), 3);
        }
    }
}
