//! `bench peers`: builds what ships, installs the peers, and hands over to `weft-bench`, which measures and reports.

use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::build::{self, Profile};
use crate::cargo::{self, Workspace};
use crate::programs;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// A pair of sidecars beside HAProxy, nginx and Envoy, alternating in one run.
    Peers {
        /// Rounds that alternate over all chains.
        #[arg(long, default_value_t = 8)]
        rounds: u32,
        /// Seconds of load for each chain in each round.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// Only these chains, by name, separated by commas.
        #[arg(long, value_delimiter = ',')]
        chains: Vec<String>,
    },
}

pub(crate) fn run(workspace: &Workspace, what: &Bench) -> Result<()> {
    let Bench::Peers { rounds, seconds, chains } = what;
    let installed = programs::install(workspace)?;
    let binaries = build::everything(workspace, Profile::Release)?;
    let mut bench = Command::new(binaries.join("weft-bench"));
    bench.arg("peers").arg("--rounds").arg(rounds.to_string()).arg("--seconds").arg(seconds.to_string());
    if !chains.is_empty() {
        bench.arg("--chains").arg(chains.join(","));
    }
    bench.arg("--binaries").arg(&binaries).arg("--envoy").arg(&installed.envoy);
    bench.arg("--configurations").arg(workspace.root.join("bench/peers"));
    bench.arg("--reports").arg(workspace.root.join("bench/reports"));
    cargo::run(bench.env("PATH", &installed.path).current_dir(&workspace.root))
}
