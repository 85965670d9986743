//! The commands that the README, CONTRIBUTING and CI call: each builds what it needs in one target directory, says
//! what it runs, and fails where a program is missing. Knows how to build and start things, never how they work.

mod bench;
mod build;
mod cargo;
mod fuzz;
mod gears;
mod guided;
mod programs;
mod suite;
mod wasm;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::cargo::Workspace;

/// Builds, tests, shows and measures Weft.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = "Example: cargo xtask demo --once")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a mesh on this machine: control plane, a small shop with a sidecar each, load, filters.
    Demo {
        /// Tell the story once, check each step, end with a summary and the exit status.
        #[arg(long)]
        once: bool,
    },
    /// Build everything that the demo and the tests run: binaries and signed filters.
    Build {
        /// The profile that ships.
        #[arg(long)]
        release: bool,
        /// The same, into `target/guided`, with the proxy laid out by what it does under load: twice the time, and it
        /// installs what the load needs.
        #[arg(long, conflicts_with = "release")]
        guided: bool,
    },
    /// Build and run every hermetic test.
    Test {
        /// Install what is needed from package registries and run the tests against real programs instead.
        #[arg(long, conflicts_with = "long")]
        real: bool,
        /// Run the tests that take long, or need root, instead: modules called `long`.
        #[arg(long)]
        long: bool,
        /// Only tests whose name contains this.
        name: Option<String>,
    },
    /// Compare exchanges through two sidecars, by every way in, with the same ones without them; then random messages.
    Differential {
        /// Minutes of random messages.
        #[arg(long, default_value_t = 1)]
        minutes: u64,
        /// Leave out the captured way, which needs root, ip and nft; without this flag their absence is a failure.
        #[arg(long)]
        without_captured: bool,
    },
    /// Measure.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Run the fuzz targets, two at a time.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only this target.
        target: Option<String>,
    },
    /// Check the tree: crate arrows, import cycles, file and function sizes, file headers, purity.
    Gears,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Demo { once } => suite::demo(&workspace, once),
        Task::Build { guided: true, .. } => guided::everything(&workspace).map(drop),
        Task::Build { release, .. } => build::everything(&workspace, build::Profile::of(release)).map(drop),
        Task::Test { real: true, name, .. } => suite::real(&workspace, name.as_deref()),
        Task::Test { long: true, name, .. } => suite::long(&workspace, name.as_deref()),
        Task::Test { name, .. } => suite::hermetic(&workspace, name.as_deref()),
        Task::Differential { minutes, without_captured } => suite::differential(&workspace, minutes, without_captured),
        Task::Bench { what } => bench::run(&workspace, &what),
        Task::Fuzz { seconds, target } => fuzz::run(&workspace, seconds, target.as_deref()),
        Task::Gears => gears::run(&workspace),
    }
}
