//! Any bytes as the body of a command: a command or a problem, never a panic. A command can be decided and its events
//! encoded; a problem is JSON with a code.

#![no_main]

use libfuzzer_sys::fuzz_target;
use order_domain::codec::{Codec, decode, encode};
use order_domain::decide;

fuzz_target!(|input: &[u8]| {
    let command = match order_api::fuzzing::command_of(input) {
        Ok(command) => command,
        Err(problem) => {
            let problem: serde_json::Value =
                serde_json::from_slice(&problem).expect("a problem is JSON");
            assert!(problem["code"].is_string() && problem["status"].is_u64());
            return;
        }
    };
    for event in decide(None, &command).unwrap_or_default() {
        for codec in [Codec::Bincode, Codec::Json] {
            let mut bytes = Vec::new();
            let context = order_domain::EventContext::default();
            let header = encode(codec, &event, &context, &mut bytes);
            let recorded = decode(header, &bytes).expect("what was decided is read back");
            assert_eq!(recorded.event, event, "{codec:?}");
        }
    }
});
