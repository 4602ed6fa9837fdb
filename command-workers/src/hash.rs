//! Hashing of 16-byte keys that are already random: order ids and digests.

use std::hash::{BuildHasherDefault, Hasher};

/// Hash maps whose keys nobody outside can choose: ids are made by the server, digests are of a cryptographic hash.
pub(crate) type RandomKeys = BuildHasherDefault<FoldHasher>;

/// Folds 8 bytes at a time by a 64 × 64 → 128-bit product. Fast, and no defence against chosen keys.
#[derive(Debug, Default)]
pub(crate) struct FoldHasher(u64);

/// 2⁶⁴ divided by the golden ratio, odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for FoldHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        // The random half of an id is its last word, so each word must be able to reach every bit: the high half of the
        // product is folded back onto the low one.
        let product = u128::from(self.0.rotate_left(32) ^ word) * u128::from(SPREAD);
        let folded = (product >> 64) ^ (product & u128::from(u64::MAX));
        self.0 = u64::try_from(folded).expect("both halves have 64 bits");
    }

    #[inline]
    fn write_usize(&mut self, _length: usize) {
        // Slices announce their length; all keys have the same.
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use super::*;
    use crate::order_ids::OrderIds;

    #[test]
    fn ids_of_one_moment_spread_over_the_buckets() {
        let ids = OrderIds::new();
        let buckets: HashSet<_> = (0..4_096)
            .map(|_| RandomKeys::default().hash_one(ids.draw()) & 0xffff)
            .collect();

        // 4,096 balls in 65,536 bins meet about 126 times; ten times as many would be a bad hash.
        assert!(buckets.len() > 4_096 - 1_260, "{} buckets", buckets.len());
    }
}
