//! `bench filters`: what filters cost beside none: at the heads of requests and with bodies through pairs of sidecars, in this
//! process without any proxy, in memory, and where one never ends. What is compared takes turns in one run.

mod bodies;
mod heads;
mod inside;
mod line;
mod loops;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;
use serde::Serialize;
use serde_json::{Value, json};

use self::line::Line;
use crate::chain::{Bench, Chain, probe};
use crate::options::{Filters, Inside, Measure};
use crate::process::wait_for;
use crate::report::{self, write_pair};
use crate::weft::{Attached, Host, NAMESPACE, Pair, start_pair};

/// Processes of their own in which one value is measured each: enough for an interval.
const PROCESSES: u32 = 6;

/// How much is measured.
#[derive(Debug, Clone, Copy, Serialize)]
struct Extent {
    rounds: u32,
    seconds: u32,
    connections: u32,
    mebibytes: u64,
    processes: u32,
}

impl Extent {
    fn of(options: &Filters) -> Self {
        let Filters { rounds, seconds, connections, mebibytes, quick, .. } = *options;
        if quick {
            return Self { rounds: 1, seconds: 1, connections, mebibytes: 16, processes: 1 };
        }
        Self { rounds, seconds, connections, mebibytes, processes: PROCESSES }
    }
}

#[derive(Debug, Serialize)]
struct Figures {
    machine: String,
    commit: String,
    extent: Extent,
    lines: Vec<Line>,
}

pub(crate) fn run(options: &Filters) -> Result<()> {
    let scratch = tempfile::tempdir().context("a scratch folder")?;
    let extent = Extent::of(options);
    let bench = Bench::new(&options.places, scratch.path())?;
    let cache = scratch.path().join("compiled");
    let mut lines = Vec::new();
    // First what is disturbed most by what else runs.
    for measure in Measure::value_variants() {
        lines.extend(told(&format!("{measure:?}"), in_child(options, extent, *measure, &cache)));
    }
    lines.extend(told("heads of requests", heads::measure(&bench, extent)));
    lines.extend(told("bodies", bodies::measure(&bench, extent, &options.components)));
    lines.extend(told("loops and traps", loops::measure(&bench, extent, &options.components)));
    let is_whole = lines.iter().all(Line::is_measured);
    let figures = Figures { machine: report::machine(), commit: report::commit(), extent, lines };
    // What one short round says is no report.
    let folder = if options.quick { scratch.path() } else { options.places.reports.as_path() };
    write_pair(folder, "filters", &markdown(&figures), &figures)?;
    if !is_whole {
        bail!("some of it was not measured: the report says why");
    }
    Ok(())
}

/// What a part came to: one that fails hides no other.
fn told(what: &str, lines: Result<Vec<Line>>) -> Vec<Line> {
    let lines = lines.unwrap_or_else(|error| vec![Line::failed(what, &error)]);
    for line in &lines {
        eprint!("weft-bench: {}", line.row());
    }
    lines
}

/// The hidden command: measures one thing in this process and prints the values.
pub(crate) fn inside(options: &Inside) -> Result<()> {
    use std::io::Write as _;
    let series = inside::measure(options)?;
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&series)?).context("cannot print what was measured")
}

/// Values of one thing, as a process of its own measured them.
type Series = Vec<(String, Vec<f64>)>;

fn in_child(options: &Filters, extent: Extent, measure: Measure, cache: &Path) -> Result<Vec<Line>> {
    let processes = if inside::is_single(measure) { extent.processes } else { 1 };
    let mut all: Series = Vec::new();
    for _ in 0..processes {
        for (name, values) in child(options, extent.rounds, measure, cache)? {
            match all.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => known.extend(values),
                None => all.push((name, values)),
            }
        }
    }
    Ok(inside::lines(measure, all))
}

fn child(options: &Filters, rounds: u32, measure: Measure, cache: &Path) -> Result<Series> {
    let what = measure.to_possible_value().context("every measure has a name")?;
    let mut child = Command::new(std::env::current_exe().context("our own program")?);
    child.args(["filters-inside", what.get_name(), "--rounds", &rounds.to_string(), "--components"]);
    child.arg(&options.components).arg("--cache").arg(cache);
    let output = child.output().context("cannot start our own program")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("values as JSON")
}

/// What makes a pair of sidecars of this comparison differ from the others.
struct Setup {
    /// Its addresses are told by it.
    number: u8,
    name: &'static str,
    workers: u16,
    attached: Attached,
    headers: Vec<(&'static str, String)>,
}

/// The host that a pair's callee and its origin are on.
fn callee(number: u8) -> String {
    format!("127.91.1.{number}2")
}

fn start(bench: &Bench<'_>, setup: Setup) -> Result<Chain> {
    let Setup { number, name, workers, attached, headers } = setup;
    eprintln!("weft-bench: starting the pair {name}");
    let host = |address: String| Host { namespace: None, address };
    let pair = Pair {
        name,
        binaries: bench.places.binaries.clone(),
        manifest: "weft.yaml",
        control: host(format!("127.91.1.{number}0")),
        callee: host(callee(number)),
        caller: host(format!("127.91.1.{number}1")),
        workers,
        attached,
    };
    let mut chain = start_pair(bench, &pair).with_context(|| format!("the pair {name}"))?;
    chain.entry.headers = headers;
    let entry = chain.entry.clone();
    wait_for(&format!("the pair {name} answers"), Duration::from_secs(30), || probe(&entry).is_ok())
        .with_context(|| probe(&entry).err().map_or_else(String::new, |error| format!("{error:#}")))?;
    chain.check()?;
    Ok(chain)
}

/// A policy that has the callee run a filter, required as it is by default.
fn policy(name: &str, filter: &str, more: &Value, config: &Value) -> Value {
    let mut spec = json!({
        "targetRefs": [{"kind": "Service", "name": "origin"}],
        "filter": {"name": filter},
        "config": config,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": "FilterPolicy", "metadata": metadata, "spec": spec})
}

/// The component of the tests that does as it is told.
fn told_component(components: &Path) -> Vec<(&'static str, PathBuf)> {
    vec![("told", components.join("hostile2.wasm"))]
}

fn markdown(figures: &Figures) -> String {
    let Figures { machine, commit, extent, lines } = figures;
    let Extent { rounds, seconds, connections, mebibytes, .. } = extent;
    let mut text = format!(
        "# What filters cost\n\n{machine}; commit {commit}. {rounds} rounds of {seconds} s, {connections} keep-alive connections, \
         bodies of {mebibytes} MiB; what is compared takes turns. Client, proxies and origin share the machine. Figures of pairs \
         are the difference to a pair without filters, of both proxies together, round by round; memory is that of the callee's \
         proxy, which runs the filters: what it holds is all but the pages of files, which machines drop and read again. Figures \
         without a proxy are of one thread. The interval holds the median with 95 %; a goal is missed only where the whole interval lies above it.\n\n| | measured: median [95 %] | at most | |\n|---|---|---|---|\n"
    );
    text.extend(lines.iter().map(Line::row));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_hides_no_other() {
        let good = told("good", Ok(vec![Line::of("good", "us", vec![1.0], None)]));
        let bad = told("bad", Err(anyhow::anyhow!("no answer")));
        assert_eq!((good[0].is_measured(), bad[0].is_measured()), (true, false));
        let extent = Extent { rounds: 1, seconds: 1, connections: 1, mebibytes: 1, processes: 1 };
        let figures = Figures { machine: "m".to_owned(), commit: "c".to_owned(), extent, lines: [good, bad].concat() };
        let text = markdown(&figures);
        assert!(
            text.ends_with("| good | 1.000 [too few rounds] us |  |  |\n| bad | not measured: no answer |  |  |\n")
        );
    }

    #[test]
    fn a_policy_is_a_manifest_that_is_taken() {
        let policy = policy("p", "expr", &json!({"order": 3, "capabilities": ["crypto"]}), &json!({"rules": []}));
        assert_eq!((policy["spec"]["order"].as_i64(), policy["spec"]["config"]["rules"].is_array()), (Some(3), true));
        assert_eq!(policy["spec"]["capabilities"][0], "crypto");
    }
}
