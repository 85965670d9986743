//! Weft's own two chains: one control plane and a pair of sidecars, without filters and with authorization (100 rules), fault
//! and rate limit at the callee. Everything by the commands that a person would type.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::chain::{Bench, Chain};
use crate::load::Entry;
use crate::process::{Process, wait_for};

/// Addresses end in this digit for the pair: 1 without filters, 2 with.
struct Pair {
    name: &'static str,
    digit: u8,
    manifest: &'static str,
}

pub(crate) fn start(bench: &Bench<'_>, name: &'static str) -> Result<Chain> {
    let pair = match name {
        "weft" => Pair { name, digit: 1, manifest: "weft.yaml" },
        _ => Pair { name, digit: 2, manifest: "weft-filters.yaml" },
    };
    let folder = bench.scratch.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let binaries = &bench.places.binaries;
    let address = format!("127.91.0.{}0", pair.digit);
    let mut control = Command::new(binaries.join("weft-control"));
    control.arg("--state").arg(folder.join("control")).args(["--bind", &address]);
    let control = Process::start(&format!("{name}-control"), &folder, &mut control)?;
    let operator = Operator { binaries, folder: &folder, address: &address };
    wait_for("the control plane answers", Duration::from_secs(20), || operator.weft(&["get", "service"]).is_ok())?;
    let manifest = bench.fill(pair.manifest, 0)?.display().to_string();
    operator.weft(&["apply", "-f", &manifest])?;
    let callee = sidecar(&operator, &pair, "origin", 2)?;
    let caller = sidecar(&operator, &pair, "client", 1)?;
    operator.weft(&["apply", "-f", &manifest, "--wait", "30s"])?;
    let entry =
        Entry { address: format!("127.91.0.{}1:15080", pair.digit), forward_to: Some("origin.bench".to_owned()) };
    Ok(Chain { name, entry, proxies: vec![callee, caller], others: vec![control] })
}

struct Operator<'p> {
    binaries: &'p Path,
    folder: &'p Path,
    address: &'p str,
}

impl Operator<'_> {
    fn weft(&self, arguments: &[&str]) -> Result<String> {
        let state = self.folder.join("control");
        let mut weft = Command::new(self.binaries.join("weft"));
        weft.args(arguments).env("WEFT_SERVER", format!("https://{}:15013", self.address));
        weft.env("WEFT_TOKEN_FILE", state.join("operator.token")).env("WEFT_CA_FILE", state.join("ca.pem"));
        let output = weft.output().context("cannot start weft")?;
        if !output.status.success() {
            bail!("weft {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A sidecar on its own address; `last` is the address' last digit.
fn sidecar(operator: &Operator<'_>, pair: &Pair, account: &str, last: u8) -> Result<Process> {
    let folder = operator.folder.join(account);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let ip = format!("127.91.0.{}{last}", pair.digit);
    let printed =
        operator.weft(&["token", "create", "--service-account", &format!("bench/{account}"), "-o", "json"])?;
    let printed: serde_json::Value = serde_json::from_str(&printed).context("weft token create -o json prints JSON")?;
    std::fs::write(folder.join("token"), printed["token"].as_str().context("a token")?)?;
    let workload = serde_json::json!({
        "name": account, "namespace": "bench", "service_account": account, "address": ip,
        "ports": if account == "origin" { serde_json::json!([{"port": 19080, "protocol": "http"}]) } else { serde_json::json!([]) },
        "labels": {"app": account},
    });
    let at = |port: u16| format!("{ip}:{port}");
    let configuration = serde_json::json!({
        "name": account,
        "state_dir": folder.join("state"),
        "control": {
            "address": format!("https://{}:15012", operator.address),
            "ca_file": operator.folder.join("control/ca.pem"),
            "token_file": folder.join("token"),
        },
        "workload": workload,
        "listen": {
            "explicit": at(15080), "mesh": at(15008), "admin": at(15000), "metrics": at(15020), "health": at(15021),
        },
        "workers": 2,
    });
    let file = folder.join("proxy.yaml");
    std::fs::write(&file, serde_json::to_string_pretty(&configuration)?)?;
    let mut proxy = Command::new(operator.binaries.join("weft-proxy"));
    let process =
        Process::start(&format!("{}-{account}", pair.name), operator.folder, proxy.arg("--config").arg(file))?;
    let health = format!("http://{}/healthz/ready", at(15021));
    let ready = || {
        Command::new("curl").args(["-sf", "--max-time", "2", &health]).output().is_ok_and(|out| out.status.success())
    };
    wait_for(&format!("sidecar {account} is ready"), Duration::from_secs(30), ready)?;
    Ok(process)
}
