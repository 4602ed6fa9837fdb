//! Any bytes where a frame should stand, with wrong and with right checksums: nothing panics, what verifies keeps to its
//! bounds, a start judges it and a repair makes a whole segment of it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    order_log::fuzzing::frame(input);
});
