//! What was measured, as Markdown for people and JSON for comparisons, with the ratios that the goals are set in.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::Peers;

/// One chain.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) chain: String,
    pub(crate) requests_per_second: f64,
    /// Both proxies, whole process trees: median, least and most of the rounds.
    pub(crate) cpu_seconds_per_1000: f64,
    pub(crate) cpu_min: f64,
    pub(crate) cpu_max: f64,
    pub(crate) p99_ms_saturated: f64,
    pub(crate) half_rate: f64,
    pub(crate) half_rate_cpu_seconds_per_1000: f64,
    pub(crate) half_rate_p50_ms: f64,
    pub(crate) half_rate_p99_ms: f64,
    pub(crate) half_rate_p999_ms: f64,
    pub(crate) pss_mib_idle: f64,
    pub(crate) pss_mib_load: f64,
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: String,
    commit: String,
    rounds: u32,
    seconds: u32,
    connections: u32,
    rows: Vec<Row>,
    goals: Vec<Goal>,
}

/// A ratio of CPU per request that must not be exceeded.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Goal {
    what: String,
    most: f64,
    measured: f64,
    reached: bool,
}

const GOALS: &[(&str, &str, f64)] =
    &[("weft", "haproxy", 1.6), ("weft", "envoy-h2", 0.4), ("weft-filters", "weft", 1.25)];

impl Report {
    pub(crate) fn new(options: &Peers, rows: Vec<Row>) -> Self {
        let goals = GOALS.iter().filter_map(|goal| judge(*goal, &rows)).collect();
        let (rounds, seconds, connections) = (options.rounds, options.seconds, options.connections);
        Self { machine: machine(), commit: commit(), rounds, seconds, connections, rows, goals }
    }
}

fn judge((ours, theirs, most): (&str, &str, f64), rows: &[Row]) -> Option<Goal> {
    let cpu = |name: &str| rows.iter().find(|row| row.chain == name).map(|row| row.cpu_seconds_per_1000);
    let measured = cpu(ours)? / cpu(theirs)?;
    Some(Goal { what: format!("{ours} / {theirs}"), most, measured, reached: measured <= most })
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// Writes `peers.md` and `peers.json` into `folder`.
pub(crate) fn write(folder: &Path, report: &Report) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let text = markdown(report);
    for (file, content) in [("peers.md", text.clone()), ("peers.json", serde_json::to_string_pretty(report)? + "\n")] {
        std::fs::write(folder.join(file), content).with_context(|| format!("cannot write {file}"))?;
    }
    eprintln!("{text}");
    Ok(())
}

fn markdown(report: &Report) -> String {
    let mut text = format!(
        "# Weft beside its peers\n\n{}; commit {}. {} rounds of {} s, alternating, {} keep-alive connections, 128-byte \
         answers, metrics on where a peer has them, access logs off. Client, both proxies and origin share the machine, so \
         the figure to compare is the CPU time of both proxies per 1,000 requests; only ratios inside this run mean much.\n\n",
        report.machine, report.commit, report.rounds, report.seconds, report.connections
    );
    text.push_str("| chain | req/s | CPU-s per 1,000 [min-max] | p99 ms | half rate | p50/p99/p99.9 ms | CPU-s per 1,000 | PSS MiB idle -> load |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for row in &report.rows {
        let latencies = format!("{:.2}/{:.2}/{:.2}", row.half_rate_p50_ms, row.half_rate_p99_ms, row.half_rate_p999_ms);
        let cpu = format!("{:.4} [{:.4}-{:.4}]", row.cpu_seconds_per_1000, row.cpu_min, row.cpu_max);
        _ = writeln!(
            text,
            "| {} | {:.0} | {cpu} | {:.1} | {:.0} | {latencies} | {:.4} | {:.0} -> {:.0} |",
            row.chain,
            row.requests_per_second,
            row.p99_ms_saturated,
            row.half_rate,
            row.half_rate_cpu_seconds_per_1000,
            row.pss_mib_idle,
            row.pss_mib_load
        );
    }
    if !report.goals.is_empty() {
        text.push_str("\n| CPU per request | at most | measured | |\n|---|---|---|---|\n");
    }
    for goal in &report.goals {
        let word = if goal.reached { "reached" } else { "missed" };
        _ = writeln!(text, "| {} | {:.2} | {:.2} | {word} |", goal.what, goal.most, goal.measured);
    }
    text
}

fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU").trim();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {}, Linux {}", model.trim_start_matches(':').trim(), kernel.trim())
}

fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    described.map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(chain: &str, cpu: f64) -> Row {
        Row {
            chain: chain.to_owned(),
            requests_per_second: 1.0,
            cpu_seconds_per_1000: cpu,
            cpu_min: cpu,
            cpu_max: cpu,
            p99_ms_saturated: 1.0,
            half_rate: 0.5,
            half_rate_cpu_seconds_per_1000: cpu,
            half_rate_p50_ms: 1.0,
            half_rate_p99_ms: 1.0,
            half_rate_p999_ms: 1.0,
            pss_mib_idle: 1.0,
            pss_mib_load: 1.0,
        }
    }

    #[test]
    fn a_goal_can_be_missed() {
        let goal = judge(("weft", "haproxy", 1.6), &[row("weft", 0.08), row("haproxy", 0.04)]).unwrap();
        assert!(!goal.reached);
        let goal = judge(("weft", "haproxy", 1.6), &[row("weft", 0.05), row("haproxy", 0.04)]).unwrap();
        assert!(goal.reached);
    }

    #[test]
    fn a_goal_without_its_chains_is_not_judged() {
        assert_eq!(judge(("weft", "haproxy", 1.6), &[row("weft", 0.08)]), None);
    }
}
