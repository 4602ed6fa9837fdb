//! Numbers across SQLite's border, which knows signed 64-bit integers alone.

/// As SQLite stores it. Offsets and microseconds never come near 2⁶³; a number beyond it would read back as the largest.
pub(crate) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// As it was before it was stored. No projector stores a negative number here; one that stands there reads as 0.
pub(crate) fn from_sql(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
