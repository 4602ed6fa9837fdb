//! The small types that cross the room's door.

use std::fmt;

/// Position of a record in its partition: 0, 1, 2, … without gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(u64);

impl Offset {
    /// The first record of a partition.
    pub const ZERO: Self = Self(0);

    /// Takes a record's position.
    #[must_use]
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// The record's position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset `records` further on.
    ///
    /// # Panics
    /// Past 2⁶⁴ records, which no partition reaches.
    #[must_use]
    pub const fn plus(self, records: u64) -> Self {
        Self(
            self.0
                .checked_add(records)
                .expect("a partition has fewer than 2^64 records"),
        )
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// A partition's number, from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u16);

impl PartitionId {
    /// Takes a partition's number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The partition's number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as an index into something with one entry a partition.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

/// What a frame is about: 16 opaque bytes. Frames of one key form a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// Takes the bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// When a frame was appended: microseconds since the Unix epoch, never decreasing within a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendTime(u64);

impl AppendTime {
    /// Takes microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }
}

/// What stands beside a record's bytes: numbers that mean something to whoever wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordTag {
    /// Kind of the record.
    pub event_type: u16,
    /// Version of that kind's layout.
    pub schema: u8,
    /// Encoding of the bytes.
    pub codec: u8,
}
