//! The demo's shop: small real services that know nothing of the mesh but what any program does, the proxy variables
//! of their environment. Also the two probes that the demo and its reader run beside curl.

mod frontend;
mod guard;
mod load;
mod prices;
mod probe;
mod reviews;
mod stock;
mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The services of Weft's demo shop.
#[derive(Debug, Parser)]
#[command(
    name = "weft-shop",
    version,
    after_help = "Example:\n  weft run --service reviews --port 9080 -- weft-shop reviews --port 9080 --release v1"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The shop's pages: asks reviews (HTTP), prices (gRPC) and stock (TCP).
    Frontend(Listen),
    /// Reviews of a product, over HTTP.
    Reviews(reviews::ReviewsArgs),
    /// Says of each request that it is asked about whether it may pass, over HTTP.
    Guard(Listen),
    /// Prices, over gRPC.
    Prices(Listen),
    /// Stock levels: a line protocol over TCP in which the server speaks first.
    Stock(Listen),
    /// Steady load on the shop; counts what it sends and gets, shown at /stats of its port.
    Load(load::LoadArgs),
    /// Calls each of the four gRPC kinds of prices once and prints what came as JSON.
    ProbePrices(probe::ProbeArgs),
    /// Talks to stock once and prints what came as JSON.
    ProbeStock(probe::ProbeArgs),
    /// Does nothing until told to end: a workload that only lends its sidecar.
    Idle,
}

/// Address and port that a service listens on; the address is the workload's own under `weft run`.
#[derive(Debug, Clone, Args)]
struct Listen {
    #[arg(long, env = "WEFT_IP", default_value = "127.0.0.1")]
    bind: IpAddr,
    #[arg(long)]
    port: u16,
}

impl Listen {
    async fn listener(&self) -> anyhow::Result<TcpListener> {
        let address = SocketAddr::new(self.bind, self.port);
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // reqwest asks for the process's crypto provider even where only plain HTTP is spoken.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        // Somebody was first: fine.
    }
    let outcome = match Cli::parse().command {
        Command::Frontend(listen) => frontend::serve(listen).await,
        Command::Reviews(args) => reviews::serve(args).await,
        Command::Guard(listen) => guard::serve(listen).await,
        Command::Prices(listen) => prices::serve(listen).await,
        Command::Stock(listen) => stock::serve(listen).await,
        Command::Load(args) => load::run(args).await,
        Command::ProbePrices(args) => probe::prices(args).await,
        Command::ProbeStock(args) => probe::stock(args).await,
        Command::Idle => {
            told_to_end().await;
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-shop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves at SIGTERM or SIGINT: services finish what they have begun.
async fn told_to_end() {
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Serves HTTP on a listener until told to end.
async fn serve_http(listen: Listen, router: axum::Router) -> anyhow::Result<()> {
    let listener = listen.listener().await?;
    axum::serve(listener, router).with_graceful_shutdown(told_to_end()).await.context("the server failed")
}
