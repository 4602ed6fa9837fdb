//! Key to partition, exactly as Kafka's default partitioner: `(murmur2(key) & 0x7fffffff) % partitions`.
//!
//! Exactly, because a log may one day live in Kafka, and an order must keep its partition there. Clients that take the
//! absolute value instead of the mask, or hash otherwise, put keys elsewhere than Kafka's own client does.

#![forbid(unsafe_code)]

/// Name of the hash, as written in `data/manifest.json`.
pub const HASH_NAME: &str = "murmur2";

/// Maps keys to one of a fixed count of partitions.
///
/// ```
/// use order_partitioner::Partitioner;
///
/// let four = Partitioner::new(4).expect("4 is a count of partitions");
/// assert_eq!(four.partition_of(b"foobar"), 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partitioner {
    partitions: u16,
}

impl Partitioner {
    /// Most partitions a log can have: each costs two threads and a few open files.
    pub const PARTITIONS_MAX: u16 = 1024;

    /// A partitioner over `partitions`; `None` for 0 and above [`Self::PARTITIONS_MAX`].
    #[must_use]
    pub const fn new(partitions: u16) -> Option<Self> {
        if partitions == 0 || partitions > Self::PARTITIONS_MAX {
            None
        } else {
            Some(Self { partitions })
        }
    }

    /// How many partitions there are.
    #[must_use]
    pub const fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The partition of a key's bytes; for an order, the 36 bytes of its id's text.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the remainder is smaller than the divisor, which is a u16"
    )]
    pub const fn partition_of(&self, key: &[u8]) -> u16 {
        ((murmur2(key) & SIGN_CLEARED) % self.partitions as u32) as u16
    }
}

/// Kafka makes the hash positive by clearing its sign (`Utils.toPositive`), not by taking its absolute value.
const SIGN_CLEARED: u32 = 0x7fff_ffff;

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// Kafka's murmur2 (seed 0x9747b28c) of `key`: the 32 bits that `org.apache.kafka.common.utils.Utils.murmur2` returns as
/// a signed integer. Its only departure from MurmurHash2 is that keys of 4 GiB and more, which no client sends, mix in
/// the low 32 bits of their length.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "murmur2 mixes in the length as 32 bits"
)]
pub const fn murmur2(key: &[u8]) -> u32 {
    let mut hash = SEED ^ key.len() as u32;
    let mut rest = key;
    while let Some((word, tail)) = rest.split_first_chunk::<4>() {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
        rest = tail;
    }
    let last = match *rest {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    };
    if !rest.is_empty() {
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}
