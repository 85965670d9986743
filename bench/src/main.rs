//! Measures Weft beside its peers: load, process accounting and reports. Starts what `cargo xtask bench` built and installed,
//! all of it on loopback, every run bounded in count and time.

mod bulk;
mod chain;
mod connections;
mod control;
mod distance;
mod filters;
mod first_calls;
mod index;
mod link;
mod load;
mod options;
mod peers;
mod pki;
mod process;
mod report;
mod statistics;
mod steady;
mod storm;
mod swarm;
mod train;
mod weft;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use self::options::{Bulk, Connections, Control, Distance, Filters, Index, Inside, Peers, Places, Storm};

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
    /// The rule of a request, with few routes and with many.
    Index(Index),
    /// Three tiers whose last fails: what retries make of it, beside Envoy.
    Storm(Storm),
    /// What filters cost: at heads, with bodies, in memory, and where they never end.
    Filters(Filters),
    /// One measurement of `filters` that wants a process of its own.
    #[command(hide = true)]
    FiltersInside(Inside),
    /// The origin of `distance`, which runs on a host of its own.
    #[command(hide = true)]
    Origin { address: std::net::SocketAddr, bytes: u64 },
    /// The load by which a proxy that counts what it does is laid out, and no figures.
    Train(Places),
    /// New connections a second, and the memory of idle ones, beside HAProxy and Envoy.
    Connections(Connections),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().what {
        Bench::Peers(options) => {
            peers::measure(&options).and_then(|report| report::write(&options.places.reports, &report))
        }
        Bench::Bulk(options) => bulk::run(&options),
        Bench::Control(options) => control::run(&options),
        Bench::Distance(options) => distance::run(&options),
        Bench::Index(options) => index::run(&options),
        Bench::Storm(options) => storm::run(&options),
        Bench::Filters(options) => filters::run(&options),
        Bench::FiltersInside(options) => filters::inside(&options),
        Bench::Origin { address, bytes } => std::net::TcpListener::bind(address)
            .with_context(|| format!("cannot bind {address}"))
            .map(|listener| bulk::origin(&listener, bytes)),
        Bench::Train(places) => train::run(&places),
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
