//! The least frame that can be checked: length, CRC, record.

use crate::sample::RECORD_BYTES;

/// Bytes before the record: its length and its CRC, four bytes each.
const HEADER_BYTES: usize = 8;

/// Bytes of a framed record of [`RECORD_BYTES`] bytes.
pub const FRAME_BYTES: usize = HEADER_BYTES + RECORD_BYTES;

/// Appends a framed record to `buffer`.
pub fn frame(record: &[u8], buffer: &mut Vec<u8>) {
    let length = u32::try_from(record.len()).expect("a record is far shorter than 4 GiB");
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
    buffer.extend_from_slice(record);
}

/// Visits the framed records of `bytes` until one does not verify; returns how many did.
pub fn verify(mut bytes: &[u8], mut visit: impl FnMut(&[u8])) -> u64 {
    let mut count = 0;
    while let Some((length, rest)) = bytes.split_first_chunk::<4>()
        && let Some((crc, rest)) = rest.split_first_chunk::<4>()
        && let Some((record, rest)) = usize::try_from(u32::from_le_bytes(*length))
            .ok()
            .and_then(|at| rest.split_at_checked(at))
        && !record.is_empty()
        && crc32fast::hash(record) == u32::from_le_bytes(*crc)
    {
        visit(record);
        count += 1;
        bytes = rest;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::record;

    #[test]
    fn framed_records_come_back_until_one_is_damaged() {
        let mut buffer = Vec::new();
        for number in 0..3 {
            frame(&record(number), &mut buffer);
        }
        assert_eq!(buffer.len(), 3 * FRAME_BYTES);
        let mut seen = Vec::new();
        assert_eq!(verify(&buffer, |record| seen.push(record.to_vec())), 3);
        assert_eq!(seen[2], record(2));

        buffer[2 * FRAME_BYTES - 1] ^= 1;
        assert_eq!(verify(&buffer, |_| ()), 1);
    }

    #[test]
    fn zeros_hold_no_record() {
        assert_eq!(verify(&[0; 64], |_| ()), 0);
    }
}
