//! Report of the measurements, as Markdown for people and JSON for comparisons, with the ratios that goals are set in.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::options::{BEFORE, Peers, ROUTED};
use crate::statistics::{Median, ratio};

/// One chain.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) chain: String,
    pub(crate) requests_per_second: f64,
    /// Both proxies, whole process trees: median, least and most of the rounds.
    pub(crate) cpu_seconds_per_1000: f64,
    /// One for each round, so that rounds can be compared pair by pair.
    pub(crate) cpu_of_rounds: Vec<f64>,
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
    measured: Median,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The median is within it.
    Reached,
    /// The median lies above it, the interval doesn't: nothing is shown.
    Open,
    /// The whole interval lies above it.
    Missed,
}

impl Verdict {
    pub(crate) fn of(measured: &Median, most: f64) -> Self {
        if measured.low.is_some_and(|low| low > most) {
            Self::Missed
        } else if measured.median > most {
            Self::Open
        } else {
            Self::Reached
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Open => "not shown to be missed",
            Self::Missed => "missed",
        }
    }
}

const GOALS: &[(&str, &str, f64)] = &[
    ("weft", "haproxy", 1.05),
    ("weft", "envoy-h2", 0.4),
    ("weft-filters", "weft", 1.15),
    ("weft", BEFORE, 1.03),
    (ROUTED, BEFORE, 1.05),
];

impl Report {
    pub(crate) fn new(options: &Peers, rows: Vec<Row>) -> Self {
        let goals = GOALS.iter().filter_map(|goal| judge(*goal, &rows)).collect();
        let (rounds, seconds, connections) = (options.rounds, options.seconds, options.connections);
        Self { machine: machine(), commit: commit(), rounds, seconds, connections, rows, goals }
    }
}

fn judge((ours, theirs, most): (&str, &str, f64), rows: &[Row]) -> Option<Goal> {
    let rounds = |name: &str| rows.iter().find(|row| row.chain == name).map(|row| row.cpu_of_rounds.as_slice());
    let measured = ratio(rounds(ours)?, rounds(theirs)?)?;
    Some(Goal { what: format!("{ours} / {theirs}"), most, verdict: Verdict::of(&measured, most), measured })
}

/// Writes `peers.md` and `peers.json` into `folder`.
pub(crate) fn write(folder: &Path, report: &Report) -> Result<()> {
    write_pair(folder, "peers", &markdown(report), report)
}

/// Writes a report for people and one for comparisons, and shows the first.
pub(crate) fn write_pair(folder: &Path, name: &str, text: &str, figures: &impl Serialize) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let json = serde_json::to_string_pretty(figures)? + "\n";
    for (file, content) in [(format!("{name}.md"), text), (format!("{name}.json"), &json)] {
        std::fs::write(folder.join(&file), content).with_context(|| format!("cannot write {file}"))?;
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
        text.push_str(
            "\nRatios are of the rounds, pair by pair; the interval holds their median with 95 %. A goal is missed only where \
             the whole interval lies above it.\n\n| CPU per request | at most | median [95 %] | |\n|---|---|---|---|\n",
        );
    }
    for goal in &report.goals {
        let word = goal.verdict.word();
        _ = writeln!(text, "| {} | {:.2} | {} | {word} |", goal.what, goal.most, goal.measured);
    }
    text
}

pub(crate) fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU").trim();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {}, Linux {}", model.trim_start_matches(':').trim(), kernel.trim())
}

pub(crate) fn commit() -> String {
    let described = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    described.map_or_else(|_| "unknown".to_owned(), |out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(chain: &str, cpu: &[f64]) -> Row {
        Row {
            chain: chain.to_owned(),
            requests_per_second: 1.0,
            cpu_seconds_per_1000: cpu[0],
            cpu_of_rounds: cpu.to_vec(),
            cpu_min: cpu[0],
            cpu_max: cpu[0],
            p99_ms_saturated: 1.0,
            half_rate: 0.5,
            half_rate_cpu_seconds_per_1000: cpu[0],
            half_rate_p50_ms: 1.0,
            half_rate_p99_ms: 1.0,
            half_rate_p999_ms: 1.0,
            pss_mib_idle: 1.0,
            pss_mib_load: 1.0,
        }
    }

    fn verdict(ours: &[f64], theirs: &[f64], most: f64) -> Verdict {
        judge(("weft", "haproxy", most), &[row("weft", ours), row("haproxy", theirs)]).unwrap().verdict
    }

    #[test]
    fn a_goal_is_missed_where_the_whole_interval_is_above_it() {
        let theirs = [1.0; 8];
        assert_eq!(verdict(&[1.2, 1.3, 1.2, 1.25, 1.3, 1.2, 1.3, 1.25], &theirs, 1.1), Verdict::Missed);
        assert_eq!(verdict(&[1.0, 1.3, 1.2, 1.25, 1.3, 1.2, 1.3, 1.25], &theirs, 1.1), Verdict::Open);
        assert_eq!(verdict(&[1.0, 1.3, 1.0, 1.0, 1.0, 1.2, 1.3, 1.0], &theirs, 1.1), Verdict::Reached);
    }

    #[test]
    fn a_machine_that_slows_down_changes_no_ratio() {
        let theirs: Vec<f64> = (1..=8).map(f64::from).collect();
        let ours: Vec<f64> = theirs.iter().map(|cpu| cpu * 1.04).collect();
        assert_eq!(verdict(&ours, &theirs, 1.05), Verdict::Reached);
    }

    #[test]
    fn a_goal_without_its_chains_is_not_judged() {
        assert_eq!(judge(("weft", "haproxy", 1.6), &[row("weft", &[0.08])]), None);
    }
}
