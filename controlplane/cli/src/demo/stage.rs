//! The processes of the demo and what can be asked of them. Everything is a child of this process and in one folder; both
//! go when it ends, and the children even when it is killed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::members::{self, CLIENTS, LOAD_PORT, Member, NAMESPACE, SERVERS};
use crate::access::Access;
use crate::answer::Failure;
use crate::api::Client;
use crate::children::{self, control_address, end_all, last_lines, spawn};
use crate::commands::{apply, wait};
use crate::manifests::Manifests;
use crate::metrics::Scrape;
use crate::programs::{CONTROL, SHOP};
use crate::{local, output, run};

const MEMBER_PATIENCE: Duration = Duration::from_secs(40);
const SYNC_PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);

pub(super) struct Stage {
    folder: PathBuf,
    /// Removes the folder when dropped; `None` where the person chose it.
    temporary: Option<tempfile::TempDir>,
    control_ip: IpAddr,
    control: Option<Child>,
    members: BTreeMap<&'static str, Playing>,
    http: reqwest::Client,
}

struct Playing {
    member: Member,
    ip: IpAddr,
    child: Child,
}

/// Figures that the load program reports of itself.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Load {
    pub(super) sent: u64,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) slowest_ms: u64,
    pub(super) statuses: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) releases: BTreeMap<String, u64>,
    pub(super) failures: Vec<String>,
}

impl Load {
    /// Answers that weren't 200 and requests without an answer.
    pub(super) fn bad(&self) -> u64 {
        let wrong = |statuses: &BTreeMap<String, u64>| {
            statuses.iter().filter(|(status, _)| *status != "200").map(|(_, count)| count).sum::<u64>()
        };
        self.failed + self.statuses.values().map(wrong).sum::<u64>()
    }

    pub(super) fn release(&self, name: &str) -> u64 {
        self.releases.get(name).copied().unwrap_or(0)
    }

    pub(super) fn releases_text(&self) -> String {
        self.releases.iter().map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
    }
}

/// One answer as curl would show it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    pub(super) took: Duration,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

impl Stage {
    pub(super) fn build(chosen: Option<PathBuf>) -> anyhow::Result<Self> {
        let (folder, temporary) = match chosen {
            Some(path) => {
                std::fs::create_dir(&path).with_context(|| format!("cannot make --state-dir {}", path.display()))?;
                (std::path::absolute(&path)?, None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("weft-demo-").tempdir().context("cannot make a folder")?;
                (made.path().to_owned(), Some(made))
            }
        };
        std::fs::create_dir(folder.join("logs")).context("cannot make the folder of logs")?;
        let control_ip = control_address()?;
        Ok(Self { folder, temporary, control_ip, control: None, members: BTreeMap::new(), http: local::client()? })
    }

    /// Control plane, services, clients, load: in this order, each ready before the next.
    pub(super) async fn open(&mut self, rate: u32) -> Result<(), Failure> {
        self.start_control().await?;
        output::complain(&format!("control plane up at {}", self.access().server));
        self.apply_without_wait(members::BASE).await?;
        let addresses = self.addresses()?;
        for (member, ip) in SERVERS.into_iter().zip(&addresses) {
            self.start_member(member, *ip, &[])?;
        }
        self.wait_for_members().await?;
        self.apply(&members::canary(100, 0)).await?;
        let rate = rate.to_string();
        for (member, ip) in CLIENTS.into_iter().zip(&addresses[SERVERS.len()..]) {
            let mut more = Vec::new();
            if member.name == members::SHOPPER {
                more.extend(["--rate", &rate]);
                more.extend(
                    members::LOAD_TARGETS
                        .iter()
                        .flat_map(|(url, times)| std::iter::repeat_n(["--target", url], *times))
                        .flatten(),
                );
            }
            self.start_member(member, *ip, &more)?;
        }
        self.wait_for_members().await?;
        output::complain(&format!("{} services and clients up, a sidecar each", self.members.len()));
        Ok(())
    }

    pub(super) async fn start_control(&mut self) -> Result<(), Failure> {
        let state = self.folder.join("control");
        let mut command = Command::new(CONTROL.find()?);
        command.arg("--state").arg(&state).arg("--bind").arg(self.control_ip.to_string());
        self.control = Some(spawn(command, &self.log("control"))?);
        let (access, log) = (self.access(), self.log("control"));
        let control = self.control.as_mut().context("the control plane was just started")?;
        children::control_up(control, &access, &log).await
    }

    /// Resolves when the control plane has ended without us. Cancel safe.
    pub(super) async fn control_gone(&mut self) {
        match &mut self.control {
            Some(control) => drop(control.wait().await),
            None => std::future::pending().await,
        }
    }

    pub(super) fn control_pid(&self) -> Option<u32> {
        self.control.as_ref().and_then(Child::id)
    }

    /// `kill -9`, and only then back.
    pub(super) async fn kill_control(&mut self) -> anyhow::Result<()> {
        let mut control = self.control.take().context("the control plane isn't running")?;
        control.kill().await.context("cannot kill weft-control")
    }

    fn start_member(&mut self, member: Member, ip: IpAddr, more: &[&str]) -> anyhow::Result<()> {
        let mut command = children::sidecar(&self.access())?;
        command.args(["--namespace", NAMESPACE, "--service", member.name, "--name", member.name]);
        command.args(["--service-account", member.service_account, "--ip", &ip.to_string(), "--workers", "1"]);
        command.args(["--drain-timeout", "5s"]);
        command.arg("--proxy-log").arg(self.log(&format!("{}-sidecar", member.name)));
        if let Some((port, protocol)) = member.serves {
            command.args(["--port", &port.to_string(), "--protocol", protocol]);
        }
        for label in member.labels {
            command.args(["--label", label]);
        }
        command.arg("--").arg(SHOP.find()?).args(member.command).args(more);
        let child = spawn(command, &self.log(member.name))?;
        self.members.insert(member.name, Playing { member, ip, child });
        Ok(())
    }

    async fn wait_for_members(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + MEMBER_PATIENCE;
        let logs = self.folder.join("logs");
        for playing in self.members.values_mut() {
            let name = playing.member.name;
            let port = match (playing.member.serves, name) {
                (Some((port, _)), _) => port,
                (None, members::SHOPPER) => LOAD_PORT,
                // Its command does nothing: it is there once the sidecar is.
                (None, _) => run::HEALTH_PORT,
            };
            while tokio::net::TcpStream::connect((playing.ip, port)).await.is_err() {
                if let Some(status) = playing.child.try_wait()? {
                    bail!("{name} ended ({status}): {}", last_lines(&logs.join(format!("{name}.log"))));
                }
                if Instant::now() > deadline {
                    bail!("{name} does not listen on {}:{port}: see {}", playing.ip, logs.display());
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Applies and waits until every proxy concerned has it.
    pub(super) async fn apply(&self, manifests: &str) -> Result<u64, Failure> {
        let revision = self.apply_without_wait(manifests).await?;
        match wait::watch(&self.api()?, revision, SYNC_PATIENCE, &|_| {}).await? {
            wait::Verdict::Everywhere { .. } => Ok(revision),
            wait::Verdict::NotEverywhere(lines) => {
                Err(Failure::Refused(format!("revision {revision} is not everywhere:\n{lines}")))
            }
        }
    }

    async fn apply_without_wait(&self, manifests: &str) -> Result<u64, Failure> {
        let manifests = Manifests::of_text("demo", manifests)?;
        Ok(apply::submit(&self.api()?, &manifests, apply::Submit::default()).await?.revision)
    }

    pub(super) fn access(&self) -> Access {
        children::access(self.control_ip, &self.folder.join("control"))
    }

    pub(super) fn api(&self) -> anyhow::Result<Client> {
        Client::new(&self.access())
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (Member, IpAddr)> {
        self.members.values().map(|playing| (playing.member, playing.ip))
    }

    pub(super) fn ip(&self, name: &str) -> anyhow::Result<IpAddr> {
        Ok(self.members.get(name).with_context(|| format!("{name} isn't in the shop"))?.ip)
    }

    /// The explicit proxy of a member's sidecar.
    pub(super) fn explicit(&self, name: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}", SocketAddr::new(self.ip(name)?, run::EXPLICIT_PORT)))
    }

    /// `curl -x <sidecar of via> url`.
    pub(super) async fn fetch(&self, via: &str, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Answer> {
        let mut request = self.client(via)?.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await.with_context(|| format!("GET {url} as {via}"))
    }

    /// The same with `--data`, as JSON.
    pub(super) async fn post(&self, via: &str, url: &str, json: &str) -> anyhow::Result<Answer> {
        let request = self.client(via)?.post(url).header("content-type", "application/json").body(json.to_owned());
        answer(request).await.with_context(|| format!("POST {url} as {via}"))
    }

    /// A client that goes through a member's sidecar.
    fn client(&self, via: &str) -> anyhow::Result<reqwest::Client> {
        let proxy = reqwest::Proxy::http(self.explicit(via)?).context("the sidecar's address")?;
        Ok(reqwest::Client::builder().proxy(proxy).timeout(Duration::from_secs(10)).build()?)
    }

    /// `weft`, as the operator of this mesh would type it; what it prints.
    pub(super) async fn weft(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let access = self.access();
        let mut command = Command::new(std::env::current_exe().context("cannot find this executable")?);
        command
            .args(arguments)
            .env("WEFT_SERVER", &access.server)
            .env("WEFT_TOKEN_FILE", &access.token_file)
            .env("WEFT_CA_FILE", &access.ca_file)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let typed = || format!("weft {}", arguments.join(" "));
        let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
        let output = output.with_context(|| format!("{} takes over 30 s", typed()))??;
        if !output.status.success() {
            bail!("{}: {}", typed(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) async fn scrape(&self, name: &str) -> anyhow::Result<Scrape> {
        let (status, text) = local::fetch(&self.http, SocketAddr::new(self.ip(name)?, 15020), "/metrics").await?;
        if status != 200 {
            bail!("/metrics of {name} answered {status}");
        }
        Ok(Scrape::parse(&text))
    }

    pub(super) async fn load(&self) -> anyhow::Result<Load> {
        let (_, text) = local::fetch(&self.http, self.load_address()?, "/stats").await?;
        serde_json::from_str(&text).context("the load's /stats")
    }

    pub(super) async fn set_load(&self, action: &str) -> anyhow::Result<()> {
        let url = format!("http://{}/{action}", self.load_address()?);
        self.http.post(&url).send().await.with_context(|| format!("POST {url}"))?;
        Ok(())
    }

    fn load_address(&self) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.ip(members::SHOPPER)?, LOAD_PORT))
    }

    /// Runs one of weft-shop's probes through a member's sidecar; its JSON.
    pub(super) async fn probe(&self, via: &str, probe: &str, target: &str) -> anyhow::Result<Value> {
        let proxy = self.explicit(via)?;
        let mut command = Command::new(SHOP.find()?);
        command
            .args([probe, target])
            .env("grpc_proxy", &proxy)
            .env("ALL_PROXY", &proxy)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(Duration::from_secs(15), command.output()).await;
        let output = output.with_context(|| format!("weft-shop {probe} {target} takes over 15 s"))??;
        if !output.status.success() {
            bail!("weft-shop {probe} {target}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("weft-shop {probe} printed no JSON"))
    }

    /// Ends everything in the order in which it hurts nobody; the folder stays where something failed.
    pub(super) async fn end(mut self, clean: bool) {
        let clients = CLIENTS.map(|member| member.name);
        let (mut first, mut then): (Vec<_>, Vec<_>) =
            self.members.into_values().partition(|playing| clients.contains(&playing.member.name));
        for group in [&mut first, &mut then] {
            end_all(group.iter_mut().map(|playing| &mut playing.child)).await;
        }
        end_all(self.control.iter_mut()).await;
        if !clean && let Some(folder) = self.temporary.take() {
            output::complain(&format!("logs and state are kept in {}", folder.keep().display()));
        }
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// Addresses for everyone: reserved together so that they differ, then left to each `weft run`.
    fn addresses(&self) -> anyhow::Result<Vec<IpAddr>> {
        let reserved: Result<Vec<_>, _> = (0..SERVERS.len() + CLIENTS.len()).map(|_| run::reserve(None)).collect();
        Ok(reserved?.iter().map(run::Reserved::ip).collect())
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok(Answer { status, text: response.text().await?, took: started.elapsed() })
}
