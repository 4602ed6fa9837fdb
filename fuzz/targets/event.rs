//! Any bytes under any record header: decoding never panics, and what decodes encodes to something that decodes to it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use order_domain::codec::{Codec, RecordHeader, decode, encode};

fuzz_target!(|input: &[u8]| {
    let [kind, schema, codec, bytes @ ..] = input else {
        return;
    };
    let header = RecordHeader {
        event_type: u16::from(*kind),
        schema: *schema,
        codec: *codec,
    };
    let Ok(recorded) = decode(header, bytes) else {
        return;
    };
    for codec in [Codec::Bincode, Codec::Json] {
        let mut again = Vec::new();
        let header = encode(codec, &recorded.event, &recorded.context, &mut again);
        assert_eq!(decode(header, &again).as_ref(), Ok(&recorded), "{codec:?}");
    }
});
