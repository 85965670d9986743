//! `bench`: builds what ships, installs the peers, and hands over to `weft-bench`, which measures and reports.

use std::process::Command;

use anyhow::Result;
use clap::Subcommand;

use crate::build::{self, Profile};
use crate::cargo::{self, Workspace};
use crate::guided;
use crate::programs;

#[derive(Subcommand)]
pub(crate) enum Bench {
    /// A pair of sidecars beside HAProxy, nginx and Envoy, alternating in one run.
    Peers {
        /// Rounds that alternate over all chains; an interval of 95 % needs six.
        #[arg(long, default_value_t = 8)]
        rounds: u32,
        /// Seconds of load for each chain in each round.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// Only these chains, by name, separated by commas.
        #[arg(long, value_delimiter = ',')]
        chains: Vec<String>,
        /// Folder of an earlier release build: the chain `weft-before` runs on it, in turn with the others.
        #[arg(long)]
        before: Option<std::path::PathBuf>,
        /// Measure the build of `cargo xtask build --guided`.
        #[arg(long)]
        guided: bool,
    },
    /// One large body at a time, each way: CPU time for a GiB beside HAProxy and Envoy.
    Bulk {
        /// Size of a body.
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
        /// Bodies each way for each chain, alternating.
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// Only these chains, by name, separated by commas.
        #[arg(long, value_delimiter = ',')]
        chains: Vec<String>,
    },
    /// One large body between two hosts with a round trip between them, beside plain TCP.
    Distance {
        /// Size of a body.
        #[arg(long, default_value_t = 50)]
        mebibytes: u64,
        /// Bodies each way, plain and through Weft in turn; an interval of 95 % needs six.
        #[arg(long, default_value_t = 8)]
        rounds: u32,
        /// Round trips in milliseconds, separated by commas.
        #[arg(long, default_value = "0,20,100")]
        rtt: String,
    },
    /// What proxies cost the control plane, and how soon they know of changes.
    Control {
        /// Proxies and services, as in 1000x200, separated by commas.
        #[arg(long, default_value = "100x20,300x60,1000x200")]
        sizes: String,
        /// Services that each proxy uses; 0: it is told of all, as one that can't ask.
        #[arg(long, default_value_t = 10)]
        uses: usize,
        /// Changes a second, and for how many seconds: 0 leaves them out.
        #[arg(long, default_value_t = 100)]
        changes: u32,
        #[arg(long, default_value_t = 60)]
        changes_seconds: u32,
    },
    /// What finding the rule of a request costs with 10, 1,000 and 10,000 routes; starts nothing and needs no peers.
    Index {
        /// Rounds that alternate over all sizes; an interval of 95 % needs six.
        #[arg(long, default_value_t = 12)]
        rounds: u32,
    },
    /// Three tiers whose last is slow and fails: what reaches it, what is answered, beside Envoy.
    Storm {
        /// Requests a second.
        #[arg(long, default_value_t = 100)]
        rate: u32,
        /// Seconds of each phase.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
    },
    /// What filters cost: at heads, with bodies, in memory, and where they never end.
    Filters {
        /// Rounds that alternate over what is compared; an interval of 95 % needs six.
        #[arg(long, default_value_t = 12)]
        rounds: u32,
        /// Seconds of load for each pair of sidecars in each round.
        #[arg(long, default_value_t = 3)]
        seconds: u32,
        /// One short round of everything: shows that it runs, and writes no report.
        #[arg(long)]
        quick: bool,
    },
    /// New connections a second and the memory of idle ones, beside HAProxy and Envoy.
    Connections {
        /// Seconds of new connections for each chain.
        #[arg(long, default_value_t = 5)]
        seconds: u32,
        /// Connections that stay open.
        #[arg(long, default_value_t = 10_000)]
        idle: u32,
        /// Only these chains, by name, separated by commas.
        #[arg(long, value_delimiter = ',')]
        chains: Vec<String>,
    },
}

impl Bench {
    /// The call of `weft-bench`, without the places.
    fn arguments(&self) -> Vec<String> {
        let none = Vec::new();
        let (mut arguments, chains) = match self {
            Self::Peers { rounds, seconds, chains, before, guided: _ } => {
                let mut call = vec!["peers".to_owned(), format!("--rounds={rounds}"), format!("--seconds={seconds}")];
                call.extend(before.iter().map(|folder| format!("--before={}", folder.display())));
                (call, chains)
            }
            Self::Bulk { mebibytes, rounds, chains } => {
                (vec!["bulk".to_owned(), format!("--mebibytes={mebibytes}"), format!("--rounds={rounds}")], chains)
            }
            Self::Distance { mebibytes, rounds, rtt } => {
                let mebibytes = format!("--mebibytes={mebibytes}");
                (vec!["distance".to_owned(), mebibytes, format!("--rounds={rounds}"), format!("--rtt={rtt}")], &none)
            }
            Self::Control { sizes, uses, changes, changes_seconds } => {
                let (sizes, uses) = (format!("--sizes={sizes}"), format!("--uses={uses}"));
                let steady = (format!("--changes={changes}"), format!("--changes-seconds={changes_seconds}"));
                (vec!["control".to_owned(), sizes, uses, steady.0, steady.1], &none)
            }
            Self::Index { rounds } => (vec!["index".to_owned(), format!("--rounds={rounds}")], &none),
            Self::Storm { rate, seconds } => {
                (vec!["storm".to_owned(), format!("--rate={rate}"), format!("--seconds={seconds}")], &none)
            }
            Self::Filters { rounds, seconds, quick } => {
                let mut call = vec!["filters".to_owned(), format!("--rounds={rounds}"), format!("--seconds={seconds}")];
                call.extend(quick.then(|| "--quick".to_owned()));
                (call, &none)
            }
            Self::Connections { seconds, idle, chains } => {
                (vec!["connections".to_owned(), format!("--seconds={seconds}"), format!("--idle={idle}")], chains)
            }
        };
        if !chains.is_empty() {
            arguments.push(format!("--chains={}", chains.join(",")));
        }
        arguments
    }
}

pub(crate) fn run(workspace: &Workspace, what: &Bench) -> Result<()> {
    if let Bench::Index { .. } = what {
        let mut bench = workspace.cargo(["run", "--release", "--package", "weft-bench", "--"]);
        return cargo::run(bench.args(what.arguments()));
    }
    let installed = programs::install(workspace)?;
    let is_guided = matches!(what, Bench::Peers { guided: true, .. });
    let binaries =
        if is_guided { guided::everything(workspace)? } else { build::everything(workspace, Profile::Release)? };
    let mut bench = Command::new(binaries.join("weft-bench"));
    bench.args(what.arguments());
    bench.arg("--binaries").arg(&binaries).arg("--envoy").arg(&installed.envoy);
    bench.arg("--configurations").arg(workspace.root.join("bench/peers"));
    bench.arg("--reports").arg(workspace.root.join("bench/reports"));
    if let Bench::Filters { .. } = what {
        bench.arg("--components").arg(workspace.target.join("filters"));
    }
    cargo::run(bench.env("PATH", &installed.path).current_dir(&workspace.root))
}
