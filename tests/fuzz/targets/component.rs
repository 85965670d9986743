//! Any bytes as a filter's binary, as they are and written over a real one: refused with a reason, or a filter within the
//! bounds, whose cases and schema are text that can be judged too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_policy::component::cases::Cases;
use weft_policy::component::{MAX_BYTES, MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLES, World, inspect, judge};

/// A component of an earlier release, which stays as it is.
const SOUND: &[u8] = include_bytes!("../../../dataplane/filter-host/tests/released/0.1/hostile.wasm");

fuzz_target!(|input: &[u8]| {
    let [choice, rest @ ..] = input else { return };
    match choice & 1 {
        0 => check(rest),
        _ => check(&written_over(rest)),
    }
});

/// The sound one with bytes replaced, five of the input for each: four say where; and cut short by what is left.
fn written_over(input: &[u8]) -> Vec<u8> {
    let mut bytes = SOUND.to_vec();
    let (edits, rest) = input.as_chunks::<5>();
    for [a, b, c, d, byte] in edits {
        let at = u32::from_le_bytes([*a, *b, *c, *d]) as usize % bytes.len();
        bytes[at] = *byte;
    }
    let cut = rest.iter().fold(0, |cut, byte| cut << 8 | usize::from(*byte));
    bytes.truncate(bytes.len() - cut % bytes.len());
    bytes
}

fn check(bytes: &[u8]) {
    let (facts, shape) = match inspect(bytes) {
        Ok(found) => found,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return;
        }
    };
    assert_eq!(judge(&facts).as_ref(), Ok(&shape), "one judgement");
    assert!(facts.is_component && facts.bytes == bytes.len() && facts.bytes <= MAX_BYTES);
    assert!(facts.core_instances <= MAX_CORE_INSTANCES && facts.memories <= MAX_MEMORIES && facts.tables <= MAX_TABLES);
    let contract = match shape.world {
        World::V01 => "weft:filter@0.1.",
        World::V02 => "weft:filter@0.2.",
    };
    assert!(shape.abi.starts_with(contract), "{}", shape.abi);
    if let Some(cases) = facts.cases {
        _ = Cases::parse(&cases);
    }
}
