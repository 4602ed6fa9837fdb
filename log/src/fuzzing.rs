//! What the fuzz target of frames drives: compiled under `--cfg fuzzing` alone, part of no release.

use crate::frame::Frame;
use crate::layout::{FRAME_HEADER_BYTES, FrameHeader, Identity, put_body_crc, seal_frame};

/// Reads bytes as a frame: as they are, and again with both checksums made right, so that what stands behind them is
/// reached. Whatever verifies keeps to its bounds.
///
/// # Panics
/// If something that verifies does not: that is what the fuzzer looks for.
pub fn frame(input: &[u8]) {
    let identity = Identity::new([7; 16], 3);
    check(input, identity);
    let mut sealed = input.to_vec();
    if sealed.len() < FRAME_HEADER_BYTES {
        return;
    }
    let header = FrameHeader::read_unchecked(&sealed);
    put_body_crc(&mut sealed, header.body_bytes as usize);
    seal_frame(&mut sealed, header.synced, header.epoch, identity);
    check(&sealed, identity);
    crate::segmented::fuzz_segment(&sealed, identity);
}

fn check(bytes: &[u8], identity: Identity) {
    let Ok(Some(claimed)) = FrameHeader::read(bytes, identity) else {
        return;
    };
    let Ok(Some((header, body))) = FrameHeader::read_frame(bytes, identity, claimed.base) else {
        return;
    };
    assert!(header.total_bytes() <= bytes.len());
    assert_eq!(body.len(), header.body_bytes as usize);
    assert!(header.base.checked_add(header.span()).is_some() || header.base > u64::MAX / 2);
    if header.is_silent() || header.base > u64::MAX / 2 {
        return;
    }
    let frame = Frame::new(&header, body);
    let (mut records, mut bytes) = (0, 0);
    for record in frame.records() {
        assert_eq!(record.offset.get(), header.base + records);
        records += 1;
        bytes += record.bytes.len();
    }
    assert_eq!(records, frame.len());
    assert!(bytes <= body.len());
}
