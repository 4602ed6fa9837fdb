//! Key to partition, exactly as Kafka's default partitioner: `(murmur2(key) & 0x7fffffff) % partitions`.

#![forbid(unsafe_code)]

/// Name of the hash, as written in `data/manifest.json`.
pub const HASH_NAME: &str = "murmur2";

/// Maps keys to one of a fixed count of partitions.
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
    pub fn partition_of(&self, key: &[u8]) -> u16 {
        let _ = key;
        todo!()
    }
}

/// Kafka's murmur2 (seed 0x9747b28c) of `key`.
#[must_use]
pub fn murmur2(key: &[u8]) -> u32 {
    let _ = key;
    todo!()
}
