//! Any bytes as messages between proxy and control plane: refused, or parsed into inner types that encode to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use weft_policy::delta::Object;
use weft_policy::wire::v1;

fuzz_target!(|input: &[u8]| {
    if let Ok(message) = v1::Object::decode(input)
        && let Ok(object) = Object::try_from(message)
    {
        let again = Object::try_from(v1::Object::from(&object)).expect("what we write, we read");
        assert_eq!(again, object);
    }
    _ = v1::ControlMessage::decode(input);
    _ = v1::ProxyMessage::decode(input);
});
