//! Any bytes as messages between proxy and control plane: refused, or parsed into inner types that encode to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use weft_policy::wire::{Received, v1};

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = v1::Delta::decode(input)
        && let Ok(Received { delta, .. }) = Received::try_from(message)
    {
        let again = Received::try_from(v1::Delta::from(&delta)).expect("what we write, we read");
        assert_eq!(again.delta, delta);
    }
    _ = v1::ControlMessage::decode(input);
    _ = v1::ProxyMessage::decode(input);
});
