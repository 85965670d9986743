//! What a filter that sees each chunk of a body and passes it adds to a large body, each way, beside a pair without filters.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::line::Line;
use super::{Extent, Setup, callee, policy, start, told_component};
use crate::bulk::{self, Way, carry};
use crate::chain::{Bench, Chain};
use crate::statistics::differences;
use crate::weft::Attached;

/// Numbers of the two pairs.
const WITHOUT: u8 = 10;
const LOOKS: u8 = 11;
const ORIGIN_PORT: u16 = 19_080;
/// What the hook may add to a GiB, in seconds of processor.
const GOAL: f64 = 1.0;

pub(super) fn measure(bench: &Bench<'_>, extent: Extent, components: &Path) -> Result<Vec<Line>> {
    let bytes = extent.mebibytes << 20;
    for number in [WITHOUT, LOOKS] {
        let address = format!("{}:{ORIGIN_PORT}", callee(number));
        let listener = TcpListener::bind(&address).with_context(|| format!("cannot bind {address}"))?;
        std::thread::spawn(move || bulk::origin(&listener, bytes));
    }
    let upload = bulk::file_to_upload(&bench.scratch, bytes)?;
    // One for each way: a hook sees what it is told to.
    let hooks = ["request-body", "response-body"];
    let policies = hooks.map(|hook| policy(hook, "told", &json!({}), &json!({"mode": "pass", "at": hook})));
    let looks = Attached { components: told_component(components), policies: policies.to_vec() };
    let mut pairs = Vec::new();
    for (number, name, attached) in
        [(WITHOUT, "without-body-hook", Attached::default()), (LOOKS, "with-body-hook", looks)]
    {
        pairs.push(start(bench, Setup { number, name, workers: 2, attached, headers: Vec::new() })?);
    }
    let mut lines = Vec::new();
    for way in [Way::Down, Way::Up] {
        let mut cpu: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
        for _ in 0..extent.rounds {
            for (chain, cpu) in pairs.iter_mut().zip(&mut cpu) {
                cpu.push(gibibyte(chain, way, bytes, &upload)?);
            }
        }
        let [without, with] = cpu;
        let name = way.name();
        lines.push(Line::of(format!("{name} without filters"), "CPU-s per GiB", without.clone(), None));
        let more = differences(&with, &without);
        lines.push(Line::of(format!("{name}: a hook that passes each chunk"), "CPU-s per GiB", more, Some(GOAL)));
    }
    Ok(lines)
}

/// Seconds of processor that both proxies take for a GiB.
fn gibibyte(chain: &mut Chain, way: Way, bytes: u64, upload: &Path) -> Result<f64> {
    let (rate, cpu, _) = carry(chain, way, bytes, upload).with_context(|| format!("{} {}", way.name(), chain.name))?;
    eprintln!("weft-bench: {:<20} {:<8} {rate:>6.0} MiB/s, {cpu:.3} CPU-s per GiB", chain.name, way.name());
    Ok(cpu)
}
