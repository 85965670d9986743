//! What each comparison may be told on the command line.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

/// The chain of Weft as an earlier build has it.
pub(crate) const BEFORE: &str = "weft-before";
/// The chain with routes and a TrafficPolicy.
pub(crate) const ROUTED: &str = "weft-routed";

/// Folders and programs that a comparison needs.
#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Only these chains.
    #[arg(long, value_delimiter = ',')]
    pub(crate) chains: Vec<String>,
    /// Folder of weft-proxy, weft-control, weft and filters/.
    #[arg(long)]
    pub(crate) binaries: PathBuf,
    /// The same of an earlier build: the chain `weft-before` of `peers` runs on it.
    #[arg(long)]
    pub(crate) before: Option<PathBuf>,
    /// Envoy's binary.
    #[arg(long)]
    pub(crate) envoy: PathBuf,
    /// Folder of the peers' configurations.
    #[arg(long)]
    pub(crate) configurations: PathBuf,
    /// Folder for the reports.
    #[arg(long)]
    pub(crate) reports: PathBuf,
}

impl Places {
    /// Those of `all` that were asked for.
    pub(crate) fn chosen(&self, all: &[&'static str]) -> Result<Vec<&'static str>> {
        let wanted = |name: &&&str| match **name {
            BEFORE => self.before.is_some(),
            name => self.chains.is_empty() || self.chains.iter().any(|chosen| chosen == name),
        };
        let chosen: Vec<_> = all.iter().filter(wanted).copied().collect();
        if chosen.is_empty() {
            bail!("no chain of that name; there are {}", all.join(", "));
        }
        Ok(chosen)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Peers {
    /// Rounds that alternate over all chains; an interval of 95 % needs six.
    #[arg(long, default_value_t = 8)]
    pub(crate) rounds: u32,
    /// Seconds of load for each chain in each round.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u32,
    /// Connections of the client.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: u32,
    #[command(flatten)]
    pub(crate) places: Places,
}

#[derive(Debug, Args)]
pub(crate) struct Bulk {
    /// Size of a body.
    #[arg(long, default_value_t = 1024)]
    pub(crate) mebibytes: u64,
    /// Bodies each way for each chain, alternating.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: u32,
    #[command(flatten)]
    pub(crate) places: Places,
}

#[derive(Debug, Args)]
pub(crate) struct Distance {
    /// Size of a body.
    #[arg(long, default_value_t = 50)]
    pub(crate) mebibytes: u64,
    /// Bodies each way, plain and through Weft in turn; an interval of 95 % needs six.
    #[arg(long, default_value_t = 8)]
    pub(crate) rounds: u32,
    /// Round trips in milliseconds.
    #[arg(long, value_delimiter = ',', default_value = "0,20,100")]
    pub(crate) rtt: Vec<u32>,
    /// Rate of the link in Mbit/s.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) megabits: u32,
    #[command(flatten)]
    pub(crate) places: Places,
}

#[derive(Debug, Args)]
pub(crate) struct Control {
    /// Proxies and services, as in 1000x200; empty: none.
    #[arg(long, value_delimiter = ',', default_value = "100x20,300x60,1000x200")]
    pub(crate) sizes: Vec<String>,
    /// Services that each proxy uses, its own among them; 0: it is told of all, as a proxy that can't ask.
    #[arg(long, default_value_t = 10)]
    pub(crate) uses: usize,
    /// Changes a second, and for how many seconds: 0 leaves them out.
    #[arg(long, default_value_t = 100)]
    pub(crate) changes: u32,
    #[arg(long, default_value_t = 60)]
    pub(crate) changes_seconds: u32,
    /// First calls of new names in each case, through a real pair of sidecars; 0: none.
    #[arg(long, default_value_t = 100)]
    pub(crate) first_calls: usize,
    #[command(flatten)]
    pub(crate) places: Places,
}

#[derive(Debug, Args)]
pub(crate) struct Index {
    /// Routes, in several sizes.
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    pub(crate) routes: Vec<usize>,
    /// Rounds that alternate over all sizes; an interval of 95 % needs six.
    #[arg(long, default_value_t = 12)]
    pub(crate) rounds: u32,
    /// Requests for each size in each round.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) requests: usize,
    /// Folder for the reports.
    #[arg(long, default_value = "bench/reports")]
    pub(crate) reports: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Storm {
    /// Requests a second.
    #[arg(long, default_value_t = 100)]
    pub(crate) rate: u32,
    /// Seconds of each phase.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u32,
    #[command(flatten)]
    pub(crate) places: Places,
}

#[derive(Debug, Args)]
pub(crate) struct Filters {
    /// Rounds that alternate over what is compared; an interval of 95 % needs six.
    #[arg(long, default_value_t = 12)]
    pub(crate) rounds: u32,
    /// Seconds of load for each pair in each round.
    #[arg(long, default_value_t = 3)]
    pub(crate) seconds: u32,
    /// Connections of the client.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: u32,
    /// Size of a body.
    #[arg(long, default_value_t = 512)]
    pub(crate) mebibytes: u64,
    /// One short round of everything: shows that it runs, and writes no report.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Folder of all components, those for tests too.
    #[arg(long)]
    pub(crate) components: PathBuf,
    #[command(flatten)]
    pub(crate) places: Places,
}

/// A measurement in a process that does nothing else.
#[derive(Debug, Args)]
pub(crate) struct Inside {
    #[arg(value_enum)]
    pub(crate) what: Measure,
    #[arg(long)]
    pub(crate) rounds: u32,
    #[arg(long)]
    pub(crate) components: PathBuf,
    /// Folder of compiled filters.
    #[arg(long)]
    pub(crate) cache: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measure {
    Heads,
    Rules,
    Cookie,
    FirstCall,
    Loop,
    /// 100 chains of one namespace.
    Chains,
    /// 100 chains, each of a namespace of its own.
    ChainsApart,
}

#[derive(Debug, Args)]
pub(crate) struct Connections {
    /// Seconds of new connections for each chain, each of one request.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u32,
    /// Clients that open them.
    #[arg(long, default_value_t = 16)]
    pub(crate) clients: u32,
    /// Connections that stay open, each after one request.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) idle: u32,
    #[command(flatten)]
    pub(crate) places: Places,
}
