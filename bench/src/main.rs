//! Measures Weft beside its peers: load, process accounting and reports. Starts what `cargo xtask bench` built and installed,
//! all of it on loopback, every run bounded in count and time.

mod chain;
mod load;
mod peers;
mod pki;
mod process;
mod report;
mod weft;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// Measures Weft beside its peers. Usually called as `cargo xtask bench peers`.
#[derive(Parser)]
#[command(after_help = "Example: cargo xtask bench peers --rounds 3 --seconds 5")]
struct Arguments {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// A pair of sidecars beside HAProxy, nginx and Envoy.
    Peers(Peers),
}

#[derive(Debug, Args)]
struct Peers {
    /// Rounds that alternate over all chains.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds of load for each chain in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Connections of the client.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    /// Only these chains.
    #[arg(long, value_delimiter = ',')]
    chains: Vec<String>,
    /// Folder of weft-proxy, weft-control, weft and filters/.
    #[arg(long)]
    binaries: PathBuf,
    /// Envoy's binary.
    #[arg(long)]
    envoy: PathBuf,
    /// Folder of the peers' configurations.
    #[arg(long)]
    configurations: PathBuf,
    /// Where the reports go.
    #[arg(long)]
    reports: PathBuf,
}

fn main() -> ExitCode {
    let Bench::Peers(options) = Arguments::parse().what;
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Peers) -> Result<()> {
    let report = peers::measure(options)?;
    report::write(&options.reports, &report)
}
