//! A chain: the two proxies between client and origin, started from the committed configurations with ports and folders
//! filled in, each in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::load::Entry;
use crate::options::{BEFORE, Places, ROUTED};
use crate::process::{Process, Usage, wait_for};
use crate::{pki, weft};

/// Everything that measurements need to know of a chain.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) entry: Entry,
    /// A and B: what is accounted.
    pub(crate) proxies: Vec<Process>,
    /// Other processes that the chain needs to run; they are checked but not accounted.
    pub(crate) others: Vec<Process>,
}

impl Chain {
    pub(crate) fn usage(&self) -> Usage {
        self.proxies.iter().map(Process::usage).fold(Usage::default(), Usage::plus)
    }

    /// Of B, which stands before the origin and was started first.
    pub(crate) fn callee(&self) -> Usage {
        self.proxies.first().map_or_else(Usage::default, Process::usage)
    }

    pub(crate) fn check(&mut self) -> Result<()> {
        self.proxies.iter_mut().chain(&mut self.others).try_for_each(Process::check)
    }
}

/// In the order of the report.
pub(crate) const NAMES: &[&str] = &["weft", "weft-filters", ROUTED, "haproxy", "nginx", "envoy-h2", "envoy-h3", BEFORE];

const ORIGIN: &str = "127.0.0.1:19080";
const ORIGIN_PORT: u16 = 19080;

/// The folder of one run and how configurations are filled in.
#[derive(Debug)]
pub(crate) struct Bench<'o> {
    pub(crate) places: &'o Places,
    pub(crate) scratch: PathBuf,
}

impl<'o> Bench<'o> {
    pub(crate) fn new(places: &'o Places, scratch: &Path) -> Result<Self> {
        pki::write(scratch)?;
        Ok(Self { places, scratch: scratch.to_path_buf() })
    }

    /// The origin, and where it counts.
    pub(crate) fn origin(&self) -> Result<Process> {
        let configuration = self.fill("origin.conf", 0)?;
        let mut nginx = Command::new("nginx");
        let origin = Process::start("origin", &self.scratch, nginx.arg("-c").arg(configuration))?;
        wait_for("the origin answers", Duration::from_secs(10), || arrived().is_ok())?;
        Ok(origin)
    }

    pub(crate) fn start(&self, name: &'static str) -> Result<Chain> {
        let (index, _) = NAMES.iter().enumerate().find(|(_, known)| **known == name).context("a known chain")?;
        let ports = 19100 + 10 * u16::try_from(index)?;
        let mut chain = match name {
            "weft" | "weft-filters" | ROUTED | BEFORE => weft::start(self, name)?,
            "haproxy" => self.pair(name, ports, "cfg", |file| {
                let mut haproxy = Command::new("haproxy");
                haproxy.args(["-db", "-f"]).arg(file);
                haproxy
            })?,
            "nginx" => self.pair(name, ports, "conf", |file| {
                let mut nginx = Command::new("nginx");
                nginx.arg("-c").arg(file);
                nginx
            })?,
            _ => self.pair(name, ports, "yaml", |file| {
                let mut envoy = Command::new(&self.places.envoy);
                envoy.args(["--concurrency", "2", "--log-level", "warn", "--use-dynamic-base-id", "-c"]).arg(file);
                envoy
            })?,
        };
        let entry = chain.entry.clone();
        wait_for(&format!("{name} answers"), Duration::from_secs(20), || probe(&entry).is_ok())
            .with_context(|| probe(&entry).err().map_or_else(String::new, |error| format!("{error:#}")))?;
        chain.check()?;
        Ok(chain)
    }

    fn pair(&self, name: &'static str, ports: u16, suffix: &str, command: impl Fn(&Path) -> Command) -> Result<Chain> {
        let mut proxies = Vec::new();
        for side in ["b", "a"] {
            let configuration = self.fill(&format!("{name}-{side}.{suffix}"), ports)?;
            proxies.push(Process::start(&format!("{name}-{side}"), &self.scratch, &mut command(&configuration))?);
        }
        let entry = Entry { address: format!("127.0.0.1:{ports}"), forward_to: None, headers: Vec::new() };
        Ok(Chain { name, entry, proxies, others: Vec::new() })
    }

    /// Fills in a committed configuration and gives where the result lies.
    pub(crate) fn fill(&self, file: &str, ports: u16) -> Result<PathBuf> {
        let from = self.places.configurations.join(file);
        let mut text = std::fs::read_to_string(&from).with_context(|| format!("cannot read {}", from.display()))?;
        let numbers = [("@A@", ports), ("@B@", ports + 1), ("@ADMIN_A@", ports + 2), ("@ADMIN_B@", ports + 3)];
        for (mark, port) in numbers.into_iter().chain([("@ORIGIN_PORT@", ORIGIN_PORT)]) {
            text = text.replace(mark, &port.to_string());
        }
        text = text.replace("@ORIGIN@", ORIGIN).replace("@DIR@", &self.scratch.display().to_string());
        let to = self.scratch.join(file);
        std::fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(to)
    }
}

/// One request by curl; the answer has to be the origin's, byte for byte.
pub(crate) fn probe(entry: &Entry) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "5", "-w", "%{http_code}"]);
    for (name, value) in &entry.headers {
        curl.args(["-H", &format!("{name}: {value}")]);
    }
    match &entry.forward_to {
        Some(host) => curl.args(["-x", &format!("http://{}", entry.address), &format!("http://{host}/")]),
        None => curl.arg(format!("http://{}/", entry.address)),
    };
    let output = curl.output().context("cannot start curl")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let body = text
        .strip_suffix("200")
        .with_context(|| format!("not 200: {text} {}", String::from_utf8_lossy(&output.stderr)))?;
    if body.len() != 128 || !body.starts_with("weft-bench-") {
        bail!("not the origin's answer: {body:?}");
    }
    Ok(())
}

/// How many requests the origin has seen, by its own count.
pub(crate) fn arrived() -> Result<u64> {
    let output = Command::new("curl").args(["-sS", "--max-time", "5", &format!("http://{ORIGIN}/status")]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().nth(2).with_context(|| format!("no status: {text}"))?;
    line.split_whitespace().nth(2).and_then(|count| count.parse().ok()).context("the third number counts requests")
}
