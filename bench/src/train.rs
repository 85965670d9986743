//! The load of a build that is laid out by it: requests without filters and with them, as many as a pair of sidecars carries
//! and at half that rate. The proxies end as an operator ends them, since they write their counters then.

use anyhow::{Context, Result};

use crate::chain::Bench;
use crate::load;
use crate::options::Places;

const CHAINS: [&str; 2] = ["weft", "weft-filters"];
const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 5;

pub(crate) fn run(places: &Places) -> Result<()> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let bench = Bench::new(places, scratch.path())?;
    let origin = bench.origin()?;
    for name in CHAINS {
        let chain = bench.start(name).with_context(|| format!("chain {name}"))?;
        let full = load::closed_loop(&chain.entry, CONNECTIONS, SECONDS, scratch.path())?;
        load::paced(&chain.entry, CONNECTIONS, full.rate / 2.0, SECONDS, scratch.path())?;
        for proxy in chain.proxies {
            proxy.end()?;
        }
    }
    drop(origin);
    Ok(())
}
