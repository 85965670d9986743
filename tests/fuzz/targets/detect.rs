//! Any first bytes of a connection: a verdict without a panic, and never one that more bytes would take back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_transport::detect::{Detected, detect};

fuzz_target!(|input: &[u8]| {
    let input = &input[..input.len().min(512)];
    let mut settled: Option<Detected> = None;
    for end in 0..=input.len() {
        let now = detect(&input[..end]);
        if let Some(before) = &settled {
            assert_eq!(*before, now, "settled at an earlier prefix than {end}");
        } else if now != Detected::NeedMore {
            settled = Some(now);
        }
    }
});
