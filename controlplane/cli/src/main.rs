//! `weft`: the operator's and the author's tool. Arguments, one command, the exit status. It talks to the control plane by
//! the operator API alone.

mod access;
mod answer;
mod api;
mod args;
mod check;
mod children;
mod commands;
mod demo;
mod findings;
mod kinds;
mod local;
mod manifests;
mod metrics;
mod output;
mod programs;
mod run;
mod running;
mod values;

use std::process::ExitCode;

fn main() -> ExitCode {
    let (cli, is_structured) = match args::parse() {
        Ok(parsed) => parsed,
        Err((error, is_structured)) => return answer::usage(&error, is_structured),
    };
    // reqwest asks for the process's provider where no TLS configuration is given: plain HTTP to our own ports.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        output::complain("weft: another crypto provider is installed");
    }
    // One thread: `weft run` waits beside its command, and a child's parent-death signal follows the thread that made it.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::complain(&format!("error: cannot start: {error}"));
            return ExitCode::from(2);
        }
    };
    let outcome = runtime.block_on(cli.execute());
    answer::conclude(&outcome, is_structured)
}
