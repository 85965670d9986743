//! The mesh that runs the filter: a control plane, the app's sidecar and the caller's, on loopback and in one folder. They
//! end with this process.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use tokio::process::{Child, Command};
use weft_policy::component::MAX_BYTES;
use weft_policy::identity::SpiffeId;

use crate::access::Access;
use crate::answer::Failure;
use crate::api::Client;
use crate::children;
use crate::commands::apply;
use crate::manifests::Manifests;
use crate::programs::CONTROL;
use crate::{local, output, run};

pub(super) const NAMESPACE: &str = "dev";
pub(super) const SERVICE: &str = "app";
/// What the caller asks for.
pub(super) const TARGET: &str = "app.dev:80";

const CALLER: &str = "caller";
const MEMBER_PATIENCE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Mesh {
    folder: tempfile::TempDir,
    control_ip: IpAddr,
    app_ip: IpAddr,
    caller_ip: IpAddr,
    /// Control plane, app's sidecar, caller's: those that were started.
    children: Vec<(&'static str, Child)>,
}

impl Mesh {
    pub(super) fn build() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("weft-filter-").tempdir().context("cannot make a folder")?;
        let control_ip = children::control_address()?;
        // Reserved together so that they differ, then left to each `weft run`.
        let (app, caller) = (run::reserve(None)?, run::reserve(None)?);
        let (app_ip, caller_ip) = (app.ip(), caller.ip());
        Ok(Self { folder, control_ip, app_ip, caller_ip, children: Vec::new() })
    }

    /// Everything up and ready, the app's service known.
    pub(super) async fn open(&mut self, app: SocketAddr, identity: &SpiffeId) -> Result<(), Failure> {
        self.start_control(identity.trust_domain()).await?;
        let spec = json!({"trustDomain": identity.trust_domain(), "telemetry": {"accessLog": true}});
        let mesh =
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "mesh"}, "spec": spec});
        let manifests = Manifests::of_text("the mesh", &output::yaml(&mesh)?)?;
        apply::submit(&self.api()?, &manifests, apply::Submit::default()).await?;
        let port = app.port().to_string();
        let serves = ["--namespace", NAMESPACE, "--service", SERVICE, "--port", &port, "--protocol", "http"];
        self.start_member(SERVICE, self.app_ip, &serves)?;
        let (namespace, account) = (identity.namespace(), identity.service_account());
        let calls = ["--namespace", namespace, "--service", CALLER, "--service-account", account];
        self.start_member(CALLER, self.caller_ip, &calls)?;
        self.wait_for_members().await?;
        Ok(())
    }

    /// Takes filters as large as proxies do: interpreters are filters here, too.
    async fn start_control(&mut self, trust_domain: &str) -> Result<(), Failure> {
        let config = self.folder().join("control.yaml");
        let text = output::yaml(&json!({"trust_domain": trust_domain, "limits": {"max_filter_bytes": MAX_BYTES}}))?;
        std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut command = Command::new(CONTROL.find()?);
        command.arg("--config").arg(config).arg("--state").arg(self.state());
        command.arg("--bind").arg(self.control_ip.to_string());
        let (access, log) = (self.access(), self.log("control"));
        let mut control = children::spawn(command, &log)?;
        let up = children::control_up(&mut control, &access, &log).await;
        self.children.push(("the control plane", control));
        up
    }

    /// A sidecar by `weft run`; the app runs elsewhere, so that its command does nothing.
    fn start_member(&mut self, name: &'static str, ip: IpAddr, more: &[&str]) -> anyhow::Result<()> {
        let mut command = children::sidecar(&self.access())?;
        command.args(more).args(["--name", name, "--ip", &ip.to_string(), "--workers", "1", "--drain-timeout", "2s"]);
        command.arg("--proxy-log").arg(self.proxy_log(name)).args(["--", "sleep", "infinity"]);
        let child = children::spawn(command, &self.log(name))?;
        self.children.push((name, child));
        Ok(())
    }

    async fn wait_for_members(&mut self) -> anyhow::Result<()> {
        let (client, deadline) = (local::client()?, Instant::now() + MEMBER_PATIENCE);
        for (name, ip) in [(SERVICE, self.app_ip), (CALLER, self.caller_ip)] {
            let health = SocketAddr::new(ip, run::HEALTH_PORT);
            while !matches!(local::fetch(&client, health, "/healthz/ready").await, Ok((200, _))) {
                let log = self.log(name);
                let child = self.children.iter_mut().find(|(of, _)| *of == name);
                let (_, child) = child.context("it was just started")?;
                if let Some(status) = child.try_wait().context("cannot wait for a sidecar")? {
                    bail!("the sidecar of {name} ended ({status}): {}", children::last_lines(&log));
                }
                if Instant::now() > deadline {
                    bail!("the sidecar of {name} is not ready: {}", children::last_lines(&log));
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Resolves when a process has ended without us, and says which. Cancel safe.
    pub(super) async fn gone(&mut self) -> anyhow::Error {
        let waits = self.children.iter_mut().map(|(name, child)| Box::pin(async move { (*name, child.wait().await) }));
        let ((name, status), ..) = futures_util::future::select_all(waits).await;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        anyhow!("{name} ended ({how}): see {}", self.folder().display())
    }

    pub(super) fn api(&self) -> anyhow::Result<Client> {
        Client::new(&self.access())
    }

    /// The caller's proxy for applications.
    pub(super) fn explicit(&self) -> SocketAddr {
        SocketAddr::new(self.caller_ip, run::EXPLICIT_PORT)
    }

    /// The log of the proxy that runs the filter.
    pub(super) fn app_log(&self) -> PathBuf {
        self.proxy_log(SERVICE)
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends everything, callers first; the folder stays where something failed.
    pub(super) async fn end(mut self, is_good: bool) {
        while let Some((_, mut child)) = self.children.pop() {
            children::end_all(std::iter::once(&mut child)).await;
        }
        if !is_good {
            output::complain(&format!("logs are kept in {}", self.folder.keep().display()));
        }
    }

    fn access(&self) -> Access {
        children::access(self.control_ip, &self.state())
    }

    fn state(&self) -> PathBuf {
        self.folder().join("control")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.log"))
    }

    fn proxy_log(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}-proxy.log"))
    }
}
