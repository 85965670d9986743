//! weft-proxy: reads its arguments and its file, and runs.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use weft_filter_host::{COMPILE, compile_child};

use weft_proxy::check::{self, Findings};
use weft_proxy::config::Config;
use weft_proxy::telemetry::LogLevel;
use weft_proxy::{app, capturing, chain};

/// Carries an application's traffic through the mesh.
///
/// Example: weft-proxy --config /etc/weft/proxy.yaml
#[derive(Debug, Parser)]
#[command(name = "weft-proxy", version)]
struct Arguments {
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE", env = "WEFT_PROXY_CONFIG")]
    config: PathBuf,
    /// Try what a start would try (the file, what it names, the addresses), change nothing and end: 0 good, 1 bad.
    #[arg(long)]
    check: bool,
    /// Remove this proxy's capture rules and end (after a crash they stay: fail closed).
    #[arg(long)]
    capture_remove: bool,
}

fn main() -> ExitCode {
    let mut told = std::env::args_os().skip(1);
    // By itself: no configuration, no runtime, nothing but its limits.
    if told.next().is_some_and(|argument| argument == COMPILE) {
        return compile_child(told);
    }
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&chain(&error), if arguments.check { 1 } else { 2 }),
    };
    if arguments.check {
        return checked(&arguments.config, &check::findings(&config));
    }
    if arguments.capture_remove {
        return match capturing::remove(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{error:#}"), 2),
        };
    }
    let log_level = match LogLevel::init(&config.log) {
        Ok(log_level) => log_level,
        Err(error) => return fail(&format!("log '{}': {error}", config.log), 2),
    };
    if config.danger_plaintext_tunnel {
        tracing::warn!("danger_plaintext_tunnel is on: requests to peers are NOT encrypted");
    }
    match app::run(config, log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("{error:#}"), 2),
    }
}

/// Tells what `--check` found.
fn checked(path: &Path, found: &Findings) -> ExitCode {
    for fault in &found.faults {
        let _ = fail(&format!("{}: {fault}", path.display()), 1);
    }
    for note in &found.notes {
        let _ = fail(&format!("{}: note: {note}", path.display()), 0);
    }
    if !found.faults.is_empty() {
        return ExitCode::from(1);
    }
    let _ = writeln!(std::io::stdout(), "{}: good", path.display());
    ExitCode::SUCCESS
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "weft-proxy: {message}");
    ExitCode::from(code)
}
