//! Processes of ours that a command runs for as long as it runs itself: a control plane on loopback, and others beside it.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::process::Signal;
use tokio::process::{Child, Command};

use crate::access::Access;
use crate::answer::Failure;
use crate::api::Client;
use crate::{output, run};

const CONTROL_PATIENCE: Duration = Duration::from_secs(20);
const END_PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

/// 127.0.0.1 where the control plane's ports are free, else the next one below the sidecars'.
pub(crate) fn control_address() -> anyhow::Result<IpAddr> {
    let free = |ip: &Ipv4Addr| [15012, 15013, 15014].iter().all(|port| TcpListener::bind((*ip, *port)).is_ok());
    let found = (1..=10).map(|last| Ipv4Addr::new(127, 0, 0, last)).find(free);
    Ok(found.context("ports 15012 to 15014 are taken on each of 127.0.0.1 to 127.0.0.10")?.into())
}

/// Access as the first operator of a control plane that keeps its state here.
pub(crate) fn access(control: IpAddr, state: &Path) -> Access {
    Access {
        server: format!("https://{control}:15013"),
        token_file: state.join("operator.token"),
        ca_file: state.join("ca.pem"),
    }
}

/// Waits until a control plane that was just started answers its operator.
pub(crate) async fn control_up(control: &mut Child, access: &Access, log: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + CONTROL_PATIENCE;
    loop {
        if let Some(status) = control.try_wait().context("cannot wait for weft-control")? {
            return Err(anyhow!("weft-control ended ({status}): {}", last_lines(log)).into());
        }
        let reason = match Client::new(access) {
            Ok(client) => match client.authenticated_version().await {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            },
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            return Err(anyhow!("weft-control is not up: {reason}; see {}", log.display()).into());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `weft run` as a member of the mesh of this control plane, for further arguments: what, where and with which command.
pub(crate) fn sidecar(access: &Access) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this executable")?);
    command.args(["run", "--server", &access.server]);
    command.arg("--token-file").arg(&access.token_file).arg("--ca-file").arg(&access.ca_file);
    // The mesh of who started us is another one.
    command.env_remove("WEFT_CONTROL");
    Ok(command)
}

/// Starts a program that ends with us, with all that it prints appended to a log.
pub(crate) fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Child> {
    let open = std::fs::OpenOptions::new().create(true).append(true).open(log);
    let out = open.with_context(|| format!("cannot write {}", log.display()))?;
    let err = out.try_clone().context("cannot share a log")?;
    // A group of its own: Ctrl-C reaches us alone, and we end the others in order.
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).kill_on_drop(true);
    run::die_with_parent(&mut command);
    let program = command.as_std().get_program().to_owned();
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// Asks all of them to end, and ends those that don't.
pub(crate) async fn end_all<'a>(children: impl Iterator<Item = &'a mut Child>) {
    let mut children: Vec<&mut Child> = children.collect();
    for child in &children {
        run::signal_child(child, Signal::TERM);
    }
    let deadline = tokio::time::Instant::now() + END_PATIENCE;
    for child in &mut children {
        if tokio::time::timeout_at(deadline, child.wait()).await.is_err() && child.kill().await.is_err() {
            output::complain("weft: a process could not be ended");
        }
    }
}

/// The end of a log, in one line.
pub(crate) fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join(" | ")
}
