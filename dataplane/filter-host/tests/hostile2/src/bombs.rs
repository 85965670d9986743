//! What never ends well: traps of every kind, loops, memory, recursion, and floods of what the host bounds.

use std::hint::black_box;
use std::time::Duration;

use weft_filters_sdk::{Counter, kv, log};

/// Acts on the modes that end in a trap or never.
pub(crate) fn trap(mode: &str) {
    match mode {
        "trap-panic" => panic!("as told"),
        "trap-index" => {
            let _ = black_box([0_u8; 4][black_box(9)]);
        }
        "trap-overflow" => {
            let _ = black_box(black_box(i32::MIN) / black_box(-1));
        }
        "trap-unreachable" => unreachable(),
        "loop" => forever(),
        "memory" => eat(),
        "stack" => {
            let _ = black_box(deeper(0));
        }
        _ => {}
    }
}

#[cfg(target_arch = "wasm32")]
fn unreachable() -> ! {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn unreachable() -> ! {
    std::process::abort()
}

pub(crate) fn forever() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn deeper(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    deeper(depth + 1) + frame[0]
}

pub(crate) fn lines() {
    (0..1_000).for_each(|line| log::warn(&format!("line {line}\n")));
}

/// More metrics and more sets of labels than anybody has room for.
pub(crate) fn metrics() {
    for number in 0..100 {
        if let Ok(counter) = Counter::define(&format!("bomb_{number}_total"), &["set"])
            && number == 0
        {
            (0..2_000).for_each(|set: u32| counter.add(&[&set.to_string()], 1));
        }
    }
}

/// How many of 200 values were taken, and how many of them are there then.
pub(crate) fn values() -> String {
    let value = vec![7_u8; 32 << 10];
    let keys = || (0_u32..200).map(u32::to_le_bytes);
    let taken = keys().filter(|key| kv::set(key, &value, Duration::ZERO).is_ok()).count();
    let found = keys().filter(|key| matches!(kv::get(key), Ok(Some(_)))).count();
    format!("{taken} taken, {found} there")
}
