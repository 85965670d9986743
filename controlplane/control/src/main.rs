//! `weft-control`: arguments, configuration, run, drain.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use weft_control::app::App;
use weft_control::check::{Findings, findings};
use weft_control::config::{Config, ConfigError, log_filter};
use weft_filter_host::{COMPILE, TRY, compile_child, try_child};
use weft_policy::text::OneLine;

/// Weft's control plane: keeps the mesh's resources, certificates and filters, and tells every proxy what concerns it.
///
/// Example: weft-control --state /var/lib/weft/control --bind 127.0.0.1
#[derive(Debug, Parser)]
#[command(name = "weft-control", version)]
struct Arguments {
    /// YAML configuration; flags win over it.
    #[arg(long, value_name = "FILE", env = "WEFT_CONTROL_CONFIG")]
    config: Option<PathBuf>,
    /// State folder: store, CA, first operator token.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Store: redb (in the state folder), or etcd://HOST:PORT,HOST:PORT/PREFIX for several weft-control.
    #[arg(long, value_name = "STORE")]
    store: Option<String>,
    /// Address of the listeners: 15012 gRPC for proxies, 15013 API, 15014 metrics.
    #[arg(long, value_name = "IP")]
    bind: Option<IpAddr>,
    /// Try what a start would try (configuration, files, store, listeners), change nothing and end: status 1 where something
    /// is wrong.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let mut told = std::env::args_os().skip(1);
    // By itself: no configuration, no runtime, nothing but its limits.
    match told.next() {
        Some(argument) if argument == COMPILE => return compile_child(told),
        Some(argument) if argument == TRY => {
            // What a filter says, and why it fails, is for its author.
            tracing_subscriber::fmt().with_writer(|| OneLine(std::io::stderr())).with_ansi(false).init();
            return try_child();
        }
        Some(_) | None => {}
    }
    match run(Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            tracing::error!("{error:#}");
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "weft-control: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut config = match Config::load(arguments.config.as_deref()) {
        Err(error) if arguments.check => {
            let faults = match error {
                ConfigError::Values(faults) => faults,
                ConfigError::Read { .. } | ConfigError::Parse { .. } => vec![error.to_string()],
            };
            return Ok(checked(&Findings { faults, ..Findings::default() }));
        }
        loaded => loaded?,
    };
    if let Some(state) = arguments.state {
        config.state = state;
    }
    if let Some(store) = arguments.store {
        config.store = store;
    }
    if let Some(bind) = arguments.bind {
        config.bind = bind;
    }
    let told = std::env::var("WEFT_LOG").ok();
    let filter = log_filter(told.as_ref().unwrap_or(&config.log)).map_err(|reason| format!("WEFT_LOG: {reason}"));
    if arguments.check {
        let mut found = findings(&config);
        // That of the file is among them.
        found.faults.extend(filter.err().filter(|_| told.is_some()));
        return Ok(checked(&found));
    }
    config.validate()?;
    let filter = filter.map_err(anyhow::Error::msg)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| OneLine(std::io::stderr()))
        .with_ansi(false)
        .init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(config))?;
    Ok(ExitCode::SUCCESS)
}

/// Tells what `--check` found.
fn checked(found: &Findings) -> ExitCode {
    use std::io::Write as _;
    for fault in &found.faults {
        let _ = writeln!(std::io::stderr(), "weft-control: {fault}");
    }
    for note in &found.notes {
        let _ = writeln!(std::io::stderr(), "weft-control: note: {note}");
    }
    if found.faults.is_empty() {
        let _ = writeln!(std::io::stdout(), "good");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(1)
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    let app = App::start(config).await?;
    let is_restart = loop {
        // None of the others may end the process without its drain.
        let name = tokio::select! {
            _ = terminate.recv() => break false,
            _ = interrupt.recv() => break false,
            () = app.hub.restart_wanted() => break true,
            _ = hangup.recv() => "HUP",
            _ = user1.recv() => "USR1",
            _ = user2.recv() => "USR2",
        };
        tracing::info!(signal = name, "signal without a meaning; nothing is done, nothing is read again");
    };
    tracing::info!("shutting down");
    app.stop().await;
    if is_restart { Err(again()) } else { Ok(()) }
}

/// This program with the same arguments in the place of this process: nothing of the old state is held by anything.
/// Returns only where that fails.
fn again() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    anyhow::Error::new(error).context("a snapshot is ready and this process can't start itself again: start it")
}
