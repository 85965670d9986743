//! The weft-proxy of one workload: its configuration file, its process, its readiness, its end. Started again with
//! patience when it dies while the command runs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::{Serialize, Serializer};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::Protocol;
use super::address::{HEALTH_PORT, LocalPorts};
use super::command::{self, Signals};
use crate::programs::PROXY;

const READY_POLL: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_secs(1);
/// A drain without open requests takes about a second.
const DRAIN_QUIET: Duration = Duration::from_secs(3);
/// Over the drain time that the proxy itself keeps, before it is killed.
const KILL_AFTER_DRAIN: Duration = Duration::from_secs(5);
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_LAST: Duration = Duration::from_secs(5);
const LOG_LINES_SHOWN: usize = 20;

/// weft-proxy's configuration file, the part that `weft run` sets.
#[derive(Debug, Serialize)]
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) state_dir: PathBuf,
    pub(super) control: Control,
    pub(super) workload: Workload,
    pub(super) listen: Listen,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workers: Option<u16>,
    pub(super) drain_timeout_s: u64,
    pub(super) log: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Control {
    #[serde(serialize_with = "one_or_several")]
    pub(super) address: Vec<String>,
    pub(super) ca_file: PathBuf,
    pub(super) token_file: PathBuf,
}

/// A single address stands alone: a proxy of an older release knows no list.
fn one_or_several<S: Serializer>(addresses: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    match addresses {
        [one] => one.serialize(serializer),
        several => several.serialize(serializer),
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) service_account: String,
    pub(super) address: IpAddr,
    pub(super) ports: Vec<Port>,
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<String>,
    /// Left out where it is so anyway: a proxy of an older release knows no such field.
    #[serde(skip_serializing_if = "is_true")]
    pub(super) app_on_loopback: bool,
}

fn is_true(flag: &bool) -> bool {
    *flag
}

#[derive(Debug, Serialize)]
pub(super) struct Port {
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

#[derive(Debug, Serialize)]
pub(super) struct Listen {
    pub(super) explicit: SocketAddr,
    pub(super) mesh: SocketAddr,
    pub(super) admin: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) health: SocketAddr,
}

impl Listen {
    /// Everything on a loopback address; elsewhere what apps and operators use stays on loopback.
    pub(super) fn on(ip: IpAddr, local: &LocalPorts) -> Self {
        let at = |port| SocketAddr::new(ip, port);
        let here = |port| SocketAddr::new(loopback_for(ip), port);
        Self {
            explicit: here(local.explicit),
            mesh: at(15008),
            admin: here(local.admin),
            metrics: at(15020),
            health: at(HEALTH_PORT),
        }
    }
}

/// Address at which a sidecar of `ip` binds admin and the explicit proxy.
pub(super) fn loopback_for(ip: IpAddr) -> IpAddr {
    match (ip.is_loopback(), ip) {
        (true, _) => ip,
        (false, IpAddr::V4(_)) => Ipv4Addr::LOCALHOST.into(),
        (false, IpAddr::V6(_)) => Ipv6Addr::LOCALHOST.into(),
    }
}

pub(super) struct Sidecar {
    child: Child,
    config: PathBuf,
    log: PathBuf,
    health: SocketAddr,
    drain_timeout: Duration,
    restart_pause: Duration,
}

impl Sidecar {
    pub(super) fn start(
        config: PathBuf,
        log: PathBuf,
        health: SocketAddr,
        drain_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let child = spawn(&config, &log)?;
        Ok(Self { child, config, log, health, drain_timeout, restart_pause: RESTART_FIRST })
    }

    /// Waits for `/healthz/ready`; a sidecar that ends or stays unready is shown with the end of its log.
    pub(super) async fn ready(&mut self, timeout: Duration) -> anyhow::Result<()> {
        let client = crate::local::client()?;
        let started = Instant::now();
        let mut told = false;
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the sidecar")? {
                bail!("the sidecar ended before it was ready ({status}){}", self.log_end());
            }
            let last = match crate::local::fetch(&client, self.health, "/healthz/ready").await {
                Ok((200, _)) => return Ok(()),
                Ok((_, text)) if is_final(&text) => {
                    bail!("the sidecar can't become ready: {}{}", text.trim(), self.log_end());
                }
                Ok((status, text)) => format!("{status} {}", text.trim()),
                Err(error) => format!("{error:#}"),
            };
            if started.elapsed() > timeout {
                let waited = crate::output::duration(timeout);
                bail!("the sidecar is not ready after {waited}: {last}{}", self.log_end());
            }
            if !told && started.elapsed() > QUIET {
                told = true;
                crate::output::complain(&format!("weft run: waiting for the sidecar ({last})"));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Resolves when the sidecar has ended by itself. Cancel safe.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Starts it again after a pause that grows; its identity is in the state folder.
    pub(super) async fn restart(&mut self, status: std::io::Result<ExitStatus>) {
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        crate::output::complain(&format!("weft run: the sidecar ended ({how}); starting it again"));
        tokio::time::sleep(self.restart_pause).await;
        self.restart_pause = (self.restart_pause * 2).min(RESTART_LAST);
        match spawn(&self.config, &self.log) {
            Ok(child) => self.child = child,
            Err(error) => crate::output::complain(&format!("weft run: {error:#}")),
        }
    }

    /// Asks it to finish and waits; past its drain time, or at a second request to end, it is killed.
    pub(super) async fn drain(&mut self, signals: &mut Signals) {
        if !command::signal_child(&self.child, rustix::process::Signal::TERM) {
            return;
        }
        let patience = tokio::time::sleep(self.drain_timeout + KILL_AFTER_DRAIN);
        let quiet = tokio::time::sleep(DRAIN_QUIET);
        tokio::pin!(patience, quiet);
        let mut told = false;
        loop {
            tokio::select! {
                _ = self.child.wait() => return,
                () = &mut patience => break,
                _ = signals.next() => break,
                () = &mut quiet, if !told => {
                    told = true;
                    crate::output::complain("weft run: the sidecar finishes its open requests (Ctrl-C ends it at once)");
                }
            }
        }
        if let Err(error) = self.child.kill().await {
            crate::output::complain(&format!("weft run: cannot end the sidecar: {error}"));
        }
    }

    fn log_end(&self) -> String {
        log_end(&self.log)
    }
}

/// True where the control plane refuses what it is told of the sidecar: asking again changes nothing.
fn is_final(told: &str) -> bool {
    told.contains("answered PermissionDenied")
}

fn spawn(config: &Path, log: &Path) -> anyhow::Result<Child> {
    let program = PROXY.find()?;
    let open = || std::fs::OpenOptions::new().create(true).append(true).open(log);
    let out = open().with_context(|| format!("cannot write the sidecar's log {}", log.display()))?;
    let err = out.try_clone().context("cannot share the sidecar's log")?;
    let mut command = Command::new(&program);
    command.arg("--config").arg(config).stdin(Stdio::null()).stdout(out).stderr(err);
    // Its own group: a Ctrl-C is for the app first, the sidecar drains after it.
    command.process_group(0);
    command::die_with_parent(&mut command);
    command.spawn().map_err(|error| anyhow!("cannot start {}: {error}", program.display()))
}

fn log_end(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return format!("; its log {} is empty", log.display());
    }
    let end = lines.len().saturating_sub(LOG_LINES_SHOWN);
    let shown = lines[end..].iter().map(|line| format!("\n  | {line}")).collect::<String>();
    format!("; the end of its log {}:{shown}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_carry_the_admin_port() {
        let listen = |ip: &str| Listen::on(ip.parse().unwrap(), &LocalPorts::usual());
        let here = listen("127.0.0.11");
        assert_eq!(here.admin, "127.0.0.11:15000".parse().unwrap());
        let there = listen("10.0.0.1");
        assert_eq!(there.admin, "127.0.0.1:15000".parse().unwrap());
        assert_eq!(there.explicit, "127.0.0.1:15080".parse().unwrap());
        assert_eq!(there.mesh, "10.0.0.1:15008".parse().unwrap());
        assert_eq!(listen("fd00::1").admin, "[::1]:15000".parse().unwrap());
    }

    #[test]
    fn a_refusal_for_good_is_told_from_one_that_may_pass() {
        assert!(is_final(
            "no configuration yet: the control plane answered PermissionDenied: web is another account's\n"
        ));
        assert!(!is_final("no configuration yet: the control plane answered ResourceExhausted: later\n"));
        assert!(!is_final("no identity yet\n"));
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("proxy.log");
        assert!(log_end(&log).contains("is empty"));
        std::fs::write(&log, (0..30).map(|n| format!("line {n}\n")).collect::<String>()).unwrap();
        let shown = log_end(&log);
        assert!(shown.contains("| line 29") && shown.contains("| line 10") && !shown.contains("| line 9\n"), "{shown}");
    }
}
