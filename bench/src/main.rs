//! Measures Weft beside its peers: load, process accounting and reports. Starts what `cargo xtask bench` built and installed,
//! all of it on loopback, every run bounded in count and time.

mod bulk;
mod chain;
mod connections;
mod control;
mod distance;
mod link;
mod load;
mod peers;
mod pki;
mod process;
mod report;
mod statistics;
mod swarm;
mod weft;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
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
    /// The cost of a large body, each way, beside HAProxy and Envoy.
    Bulk(Bulk),
    /// One body over a link with a round trip, beside plain TCP on the same link.
    Distance(Distance),
    /// What proxies cost the control plane, and how soon they know of changes.
    Control(Control),
    /// The origin of `distance`, which runs on a host of its own.
    #[command(hide = true)]
    Origin { address: std::net::SocketAddr, bytes: u64 },
    /// New connections a second, and the memory of idle ones, beside HAProxy and Envoy.
    Connections(Connections),
}

/// Folders and programs that a comparison needs.
#[derive(Debug, Args)]
struct Places {
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
    /// Folder for the reports.
    #[arg(long)]
    reports: PathBuf,
}

impl Places {
    /// Those of `all` that were asked for.
    fn chosen(&self, all: &[&'static str]) -> Result<Vec<&'static str>> {
        let wanted = |name: &&&str| self.chains.is_empty() || self.chains.iter().any(|chosen| chosen == **name);
        let chosen: Vec<_> = all.iter().filter(wanted).copied().collect();
        if chosen.is_empty() {
            bail!("no chain of that name; there are {}", all.join(", "));
        }
        Ok(chosen)
    }
}

#[derive(Debug, Args)]
struct Peers {
    /// Rounds that alternate over all chains; an interval of 95 % needs six.
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// Seconds of load for each chain in each round.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Connections of the client.
    #[arg(long, default_value_t = 64)]
    connections: u32,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Bulk {
    /// Size of a body.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Bodies each way for each chain, alternating.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Distance {
    /// Size of a body.
    #[arg(long, default_value_t = 50)]
    mebibytes: u64,
    /// Bodies each way, plain and through Weft in turn; an interval of 95 % needs six.
    #[arg(long, default_value_t = 8)]
    rounds: u32,
    /// Round trips in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "0,20,100")]
    rtt: Vec<u32>,
    /// Rate of the link in Mbit/s.
    #[arg(long, default_value_t = 1_000)]
    megabits: u32,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Control {
    /// Proxies and services, as in 1000x200.
    #[arg(long, value_delimiter = ',', default_value = "100x20,300x60,1000x200")]
    sizes: Vec<String>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Connections {
    /// Seconds of new connections for each chain, each of one request.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Clients that open them.
    #[arg(long, default_value_t = 16)]
    clients: u32,
    /// Connections that stay open, each after one request.
    #[arg(long, default_value_t = 10_000)]
    idle: u32,
    #[command(flatten)]
    places: Places,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        Bench::Peers(options) => {
            peers::measure(&options).and_then(|report| report::write(&options.places.reports, &report))
        }
        Bench::Bulk(options) => bulk::run(&options),
        Bench::Control(options) => control::run(&options),
        Bench::Distance(options) => distance::run(&options),
        Bench::Origin { address, bytes } => std::net::TcpListener::bind(address)
            .with_context(|| format!("cannot bind {address}"))
            .map(|listener| bulk::origin(&listener, bytes)),
        Bench::Connections(options) => connections::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
