//! The two load generators, both of Debian: wrk for the most that a chain carries, h2load for latency at a fixed rate.
//! An answer that is not the origin's makes the run an error: a broken chain is often a fast one.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Address to which a client sends requests, and the name by which they call the origin.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// `host:port` of the first proxy.
    pub(crate) address: String,
    /// `Some(host)`: the first proxy is a forward proxy, the target is `http://HOST/`.
    pub(crate) forward_to: Option<String>,
    /// Headers of each request beyond those that a client has by itself.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Entry {
    pub(crate) fn host(&self) -> &str {
        self.forward_to.as_deref().unwrap_or("origin.bench")
    }

    fn target(&self) -> String {
        self.forward_to.as_ref().map_or_else(|| "/".to_owned(), |host| format!("http://{host}/"))
    }
}

/// Results of wrk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    pub(crate) requests: u64,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// As many requests as `connections` keep-alive connections can carry one after the other.
pub(crate) fn closed_loop(entry: &Entry, connections: u32, seconds: u32, scratch: &Path) -> Result<Closed> {
    let script = scratch.join("wrk.lua");
    let mut lua = format!("wrk.path = \"{}\"\nwrk.headers[\"Host\"] = \"{}\"\n", entry.target(), entry.host());
    for (name, value) in &entry.headers {
        lua.push_str(&format!("wrk.headers[\"{name}\"] = \"{value}\"\n"));
    }
    std::fs::write(&script, lua).with_context(|| format!("cannot write {}", script.display()))?;
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "--latency", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"]).arg(&script);
    wrk.arg(format!("http://{}/", entry.address));
    let output = wrk.output().context("cannot start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        bail!("wrk saw failures:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    }
    parse_wrk(&text).with_context(|| format!("cannot read what wrk printed:\n{text}"))
}

fn parse_wrk(text: &str) -> Option<Closed> {
    let after = |key: &str| text.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
    let requests = text.lines().find(|line| line.contains(" requests in "))?.trim().split(' ').next()?.parse().ok()?;
    let (p50_ms, p99_ms) = (milliseconds(after("50%")?)?, milliseconds(after("99%")?)?);
    Some(Closed { requests, rate: after("Requests/sec:")?.parse().ok()?, p50_ms, p99_ms })
}

fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..split].parse().ok()?;
    Some(match &text[split..] {
        "us" => value / 1000.0,
        "ms" => value,
        "s" => value * 1000.0,
        _ => return None,
    })
}

/// Results of h2load at a fixed rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paced {
    pub(crate) requests: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
}

/// `rate` requests per second over `connections`, each sent when its time has come.
pub(crate) fn paced(entry: &Entry, connections: u32, rate: f64, seconds: u32, scratch: &Path) -> Result<Paced> {
    let log = scratch.join("h2load.tsv");
    drop(std::fs::remove_file(&log));
    let each = (rate / f64::from(connections)).max(1.0);
    let mut h2load = Command::new("h2load");
    h2load.args(["--h1", "-t1", "-c", &connections.to_string(), "-D", &seconds.to_string(), "--warm-up-time", "1"]);
    for (name, value) in &entry.headers {
        h2load.args(["-H", &format!("{name}: {value}")]);
    }
    h2load.args(["--rps", &format!("{each:.0}"), "--log-file"]).arg(&log);
    // The URI names the origin, so that Host does; the connection goes to the first proxy.
    h2load.arg("--connect-to").arg(&entry.address).arg(format!("http://{}/", entry.host()));
    let output = h2load.output().context("cannot start h2load")?;
    if !output.status.success() {
        bail!("h2load failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = std::fs::read_to_string(&log).context("h2load wrote no log")?;
    parse_h2load(&text)
}

/// Lines of start time in microseconds, status, duration in microseconds. Status 0 stands for an answer whose reason phrase
/// is empty (HAProxy's): h2load can't read it, the bodies are checked elsewhere.
fn parse_h2load(text: &str) -> Result<Paced> {
    let mut durations = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        let status = fields.next().context("h2load's log has a status")?;
        if !["200", "0"].contains(&status) {
            bail!("h2load saw status {status}");
        }
        durations.push(fields.next().context("h2load's log has a duration")?.trim().parse::<u64>()?);
    }
    if durations.is_empty() {
        bail!("h2load saw no answer");
    }
    durations.sort_unstable();
    let per_mille = |part: usize| {
        let at = (durations.len() * part / 1000).min(durations.len() - 1);
        std::time::Duration::from_micros(durations[at]).as_secs_f64() * 1000.0
    };
    let requests = durations.len().try_into()?;
    Ok(Paced { requests, p50_ms: per_mille(500), p99_ms: per_mille(990), p999_ms: per_mille(999) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_wrk() {
        let text = "  Latency Distribution\n     50%  1.03ms\n     99%  950.00us\n  123456 requests in 5.00s, 9MB read\nRequests/sec:  24691.2\n";
        let closed = parse_wrk(text).unwrap();
        assert_eq!((closed.requests, closed.rate), (123_456, 24_691.2));
        assert_eq!((closed.p50_ms, closed.p99_ms), (1.03, 0.95));
    }

    #[test]
    fn reads_h2load() {
        let paced = parse_h2load("1\t200\t1000\n2\t200\t3000\n3\t0\t2000\n").unwrap();
        assert_eq!((paced.requests, paced.p50_ms, paced.p999_ms), (3, 2.0, 3.0));
    }

    #[test]
    fn a_failed_answer_is_no_measurement() {
        assert!(parse_h2load("1\t502\t10\n").is_err());
        assert!(parse_h2load("").is_err());
    }
}
