//! Weft's own two chains: one control plane and a pair of sidecars, without filters and with authorization (100 rules), fault
//! and rate limit at the callee. Everything by the commands that a person would type.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::chain::{Bench, Chain};
use crate::load::Entry;
use crate::options::{BEFORE, ROUTED};
use crate::process::{Process, wait_for};

/// One control plane and its pair of sidecars: at which addresses, and from which hosts they run.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    /// Folder of its programs.
    pub(crate) binaries: PathBuf,
    pub(crate) manifest: &'static str,
    pub(crate) control: Host,
    pub(crate) callee: Host,
    pub(crate) caller: Host,
    /// Data-plane threads of each sidecar.
    pub(crate) workers: u16,
    pub(crate) attached: Attached,
}

/// Filters beyond what a pair's manifest has.
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// Components to be published, by name.
    pub(crate) components: Vec<(&'static str, PathBuf)>,
    /// Objects to be applied.
    pub(crate) policies: Vec<serde_json::Value>,
}

impl Attached {
    fn put(&self, operator: &Operator<'_>) -> Result<()> {
        if !self.components.is_empty() {
            let key = operator.folder.join("publisher.key").display().to_string();
            operator.weft(&["filter", "keygen", "--out", &key])?;
            for (name, file) in &self.components {
                let file = file.display().to_string();
                let publish =
                    ["filter", "publish", file.as_str(), "--name", *name, "--version", "1.0.0", "--key", key.as_str()];
                operator.weft(&publish)?;
            }
        }
        if self.policies.is_empty() { Ok(()) } else { operator.apply(&self.policies) }
    }
}

/// An address, and the network namespace that it is in where that is another than ours.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) namespace: Option<&'static str>,
    pub(crate) address: String,
}

impl Host {
    /// The address for what only this host may reach.
    pub(crate) fn local(&self) -> &str {
        if self.namespace.is_some() { "127.0.0.1" } else { &self.address }
    }

    /// A program that runs on this host.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = self.namespace else { return Command::new(program) };
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", namespace]).arg(program);
        ip
    }
}

/// As it comes, with filters, with routes and a TrafficPolicy, or as an earlier build has it: pairs that run side by side on
/// loopback.
pub(crate) fn start(bench: &Bench<'_>, name: &'static str) -> Result<Chain> {
    let (digit, manifest) = match name {
        "weft" => (1, "weft.yaml"),
        ROUTED => (6, "weft-routed.yaml"),
        BEFORE => (3, "weft.yaml"),
        _ => (2, "weft-filters.yaml"),
    };
    let places = bench.places;
    let earlier = if name == BEFORE { places.before.as_ref() } else { None };
    let binaries = earlier.unwrap_or(&places.binaries).clone();
    let host = |last: u8| Host { namespace: None, address: format!("127.91.0.{digit}{last}") };
    let (control, callee, caller) = (host(0), host(2), host(1));
    let attached = Attached::default();
    start_pair(bench, &Pair { name, binaries, manifest, control, callee, caller, workers: 2, attached })
}

pub(crate) fn start_pair(bench: &Bench<'_>, pair: &Pair) -> Result<Chain> {
    let name = pair.name;
    let folder = bench.scratch.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let binaries = &pair.binaries;
    let mut control = pair.control.command(binaries.join("weft-control"));
    control.arg("--state").arg(folder.join("control")).args(["--bind", &pair.control.address]);
    let control = Process::start(&format!("{name}-control"), &folder, &mut control)?;
    let operator = Operator { binaries, folder: &folder, host: &pair.control };
    operator.wait()?;
    let manifest = bench.fill(pair.manifest, 0)?.display().to_string();
    operator.weft(&["apply", "-f", &manifest])?;
    pair.attached.put(&operator)?;
    let callee = sidecar(&operator, pair, "origin", &pair.callee, &pair.control.address)?;
    let caller = sidecar(&operator, pair, "client", &pair.caller, &pair.control.address)?;
    operator.weft(&["apply", "-f", &manifest, "--wait", "30s"])?;
    let address = format!("{}:15080", pair.caller.local());
    let entry = Entry { address, forward_to: Some("origin.bench".to_owned()), headers: Vec::new() };
    Ok(Chain { name, entry, proxies: vec![callee, caller], others: vec![control] })
}

/// The namespace of everything that is measured.
pub(crate) const NAMESPACE: &str = "bench";

/// Objects that are applied at a time.
const AT_ONCE: usize = 500;

/// A service in front of an app, at one port that leads to another.
pub(crate) fn service(name: &str, app: &str, (port, target): (u16, u16)) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"app": app},
            "ports": [{"port": port, "targetPort": target, "appProtocol": "http"}],
        },
    })
}

/// Whoever commands a control plane, by the commands that a person would type.
pub(crate) struct Operator<'p> {
    pub(crate) binaries: &'p Path,
    /// The control plane's state is in `control` of it.
    pub(crate) folder: &'p Path,
    pub(crate) host: &'p Host,
}

impl Operator<'_> {
    pub(crate) fn weft(&self, arguments: &[&str]) -> Result<String> {
        let state = self.folder.join("control");
        let mut weft = self.host.command(self.binaries.join("weft"));
        weft.args(arguments).env("WEFT_SERVER", format!("https://{}:15013", self.host.address));
        weft.env("WEFT_TOKEN_FILE", state.join("operator.token")).env("WEFT_CA_FILE", state.join("ca.pem"));
        let output = weft.output().context("cannot start weft")?;
        if !output.status.success() {
            bail!("weft {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Applies objects, as many at a time as one call takes well.
    pub(crate) fn apply_all(&self, count: usize, object: impl Fn(usize) -> serde_json::Value) -> Result<()> {
        for first in (0..count).step_by(AT_ONCE) {
            let some = first..count.min(first + AT_ONCE);
            self.apply(&some.map(&object).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    pub(crate) fn apply(&self, objects: &[serde_json::Value]) -> Result<()> {
        let manifest = self.folder.join("applied.yaml");
        // Each is JSON, which is YAML.
        std::fs::write(&manifest, objects.iter().map(|object| format!("---\n{object}\n")).collect::<String>())?;
        self.weft(&["apply", "-f", &manifest.display().to_string()]).map(drop)
    }

    /// Waits until the control plane, just started, answers.
    pub(crate) fn wait(&self) -> Result<()> {
        wait_for("the control plane answers", Duration::from_secs(20), || self.weft(&["get", "service"]).is_ok())
    }

    /// A join token for an account of the namespace that all are in, with `further` arguments.
    pub(crate) fn join_token(&self, account: &str, further: &[&str]) -> Result<String> {
        let account = format!("{NAMESPACE}/{account}");
        let printed =
            self.weft(&[&["token", "create", "--service-account", &account, "-o", "json"], further].concat())?;
        let printed: serde_json::Value =
            serde_json::from_str(&printed).context("weft token create -o json prints JSON")?;
        Ok(printed["token"].as_str().context("a token")?.to_owned())
    }
}

/// A sidecar, joined and ready, that finds its control plane at an address. Every account but the client's serves: `c-1` is one of `c`.
pub(crate) fn sidecar(
    operator: &Operator<'_>,
    pair: &Pair,
    account: &str,
    host: &Host,
    control: &str,
) -> Result<Process> {
    let folder = operator.folder.join(account);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let ip = &host.address;
    // It stands behind whatever service selects it.
    let app = account.split('-').next().unwrap_or(account);
    let grant = format!("app={app}");
    std::fs::write(folder.join("token"), operator.join_token(account, &["--label", &grant])?)?;
    let workload = serde_json::json!({
        "name": account, "namespace": "bench", "service_account": account, "address": ip,
        "ports": if account == "client" { serde_json::json!([]) } else { serde_json::json!([{"port": 19080, "protocol": "http"}]) },
        "labels": {"app": app},
    });
    let at = |port: u16| format!("{}:{port}", host.local());
    let configuration = serde_json::json!({
        "name": account,
        "state_dir": folder.join("state"),
        "control": {
            "address": format!("https://{control}:15012"),
            "ca_file": operator.folder.join("control/ca.pem"),
            "token_file": folder.join("token"),
        },
        "workload": workload,
        "listen": {
            "explicit": at(15080), "mesh": format!("{ip}:15008"), "admin": at(15000), "metrics": at(15020), "health": at(15021),
        },
        "workers": pair.workers,
    });
    let file = folder.join("proxy.yaml");
    std::fs::write(&file, serde_json::to_string_pretty(&configuration)?)?;
    let mut proxy = host.command(operator.binaries.join("weft-proxy"));
    let process =
        Process::start(&format!("{}-{account}", pair.name), operator.folder, proxy.arg("--config").arg(file))?;
    let health = format!("http://{}/healthz/ready", at(15021));
    let ready = || {
        host.command("curl").args(["-sf", "--max-time", "2", &health]).output().is_ok_and(|out| out.status.success())
    };
    wait_for(&format!("sidecar {account} is ready"), Duration::from_secs(30), ready)?;
    Ok(process)
}
