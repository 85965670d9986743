//! The comparison: every chain runs all the time, load alternates over them, so that whatever else the machine does falls
//! on all of them alike. Ratios inside one run mean something, absolute figures drift.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::chain::{self, Bench, Chain};
use crate::report::{Report, Row};
use crate::statistics::{count, median};
use crate::{Peers, load};

/// Everything that was seen of one chain.
#[derive(Debug, Default)]
struct Samples {
    rate: Vec<f64>,
    cpu: Vec<f64>,
    p99: Vec<f64>,
    paced: Vec<(f64, f64, f64)>,
    paced_cpu: Vec<f64>,
    idle_kib: u64,
    load_kib: u64,
}

pub(crate) fn measure(options: &Peers) -> Result<Report> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let bench = Bench::new(&options.places, scratch.path())?;
    let origin = bench.origin()?;
    let mut chains = Vec::new();
    for name in options.places.chosen(chain::NAMES)? {
        eprintln!("weft-bench: starting {name}");
        chains.push((bench.start(name).with_context(|| format!("chain {name}"))?, Samples::default()));
    }
    for (chain, samples) in &mut chains {
        samples.idle_kib = chain.usage().pss_kib;
        load::closed_loop(&chain.entry, options.connections, 1, scratch.path())
            .with_context(|| format!("warming {}", chain.name))?;
    }
    for round in 1..=options.rounds {
        // Forth and back: a machine that becomes slower within a round does so to either side of a ratio as often.
        chains.reverse();
        for (chain, samples) in &mut chains {
            saturate(options, chain, samples, scratch.path())
                .with_context(|| format!("{} in round {round}", chain.name))?;
        }
    }
    for (chain, samples) in &mut chains {
        pace(options, chain, samples, scratch.path()).with_context(|| format!("{} at half rate", chain.name))?;
    }
    drop(origin);
    let place = |name: &str| chain::NAMES.iter().position(|known| *known == name);
    chains.sort_by_key(|(chain, _)| place(chain.name));
    let rows = chains.into_iter().map(|(chain, samples)| row(chain.name, &samples)).collect();
    Ok(Report::new(options, rows))
}

fn saturate(options: &Peers, chain: &mut Chain, samples: &mut Samples, scratch: &Path) -> Result<()> {
    let (arrived, before) = (chain::arrived()?, chain.usage());
    let seen = load::closed_loop(&chain.entry, options.connections, options.seconds, scratch)?;
    let after = chain.usage();
    counted(chain, seen.requests, arrived)?;
    let per_thousand = (after.cpu - before.cpu).as_secs_f64() / thousands(seen.requests);
    eprintln!("weft-bench: {:<12} {:>8.0} req/s, {per_thousand:.4} CPU-s per 1,000", chain.name, seen.rate);
    samples.rate.push(seen.rate);
    samples.cpu.push(per_thousand);
    samples.p99.push(seen.p99_ms);
    samples.load_kib = samples.load_kib.max(after.pss_kib);
    Ok(())
}

fn pace(options: &Peers, chain: &mut Chain, samples: &mut Samples, scratch: &Path) -> Result<()> {
    let (arrived, before) = (chain::arrived()?, chain.usage());
    let rate = median(&samples.rate) / 2.0;
    let seen = load::paced(&chain.entry, options.connections, rate, options.seconds.max(3), scratch)?;
    let after = chain.usage();
    counted(chain, seen.requests, arrived)?;
    let sent = chain::arrived()?.saturating_sub(arrived);
    samples.paced.push((seen.p50_ms, seen.p99_ms, seen.p999_ms));
    samples.paced_cpu.push((after.cpu - before.cpu).as_secs_f64() / thousands(sent));
    Ok(())
}

/// The origin must have seen each request that was answered, and the answer must still be its own.
fn counted(chain: &mut Chain, answered: u64, before: u64) -> Result<()> {
    let at_origin = chain::arrived()?.saturating_sub(before);
    if at_origin < answered {
        bail!("{answered} answers, yet only {at_origin} requests reached the origin");
    }
    chain.check()?;
    chain::probe(&chain.entry)
}

fn thousands(requests: u64) -> f64 {
    (count(requests) / 1000.0).max(0.001)
}

fn row(name: &'static str, samples: &Samples) -> Row {
    let paced = samples.paced.first().copied().unwrap_or_default();
    Row {
        chain: name.to_owned(),
        requests_per_second: median(&samples.rate),
        cpu_seconds_per_1000: median(&samples.cpu),
        cpu_of_rounds: samples.cpu.clone(),
        cpu_min: samples.cpu.iter().copied().fold(f64::INFINITY, f64::min),
        cpu_max: samples.cpu.iter().copied().fold(0.0, f64::max),
        p99_ms_saturated: median(&samples.p99),
        half_rate: median(&samples.rate) / 2.0,
        half_rate_cpu_seconds_per_1000: median(&samples.paced_cpu),
        half_rate_p50_ms: paced.0,
        half_rate_p99_ms: paced.1,
        half_rate_p999_ms: paced.2,
        pss_mib_idle: mib(samples.idle_kib),
        pss_mib_load: mib(samples.load_kib),
    }
}

fn mib(kib: u64) -> f64 {
    count(kib) / 1024.0
}
