//! `weft filter test` and `weft filter bench`: the filter runs in weft-control's sandbox, which is the proxies' own.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use weft_policy::component::cases::{BenchReport, Case, CaseReport, Cases, Done, Job, TRY};

use super::{build, cases, inspect};
use crate::answer::{Answer, Failure, Outcome};
use crate::output::{self, OutputArgs, Paint, Table, cell};
use crate::programs;

pub(super) const TEST_EXAMPLE: &str = "Examples:
  weft filter test                                # builds the filter of this folder first
  weft filter test mine.wasm --cases cases.yaml";
pub(super) const BENCH_EXAMPLE: &str = "Examples:
  weft filter bench mine.wasm
  weft filter bench mine.wasm --against before.wasm --case 'eve is refused'";

#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    /// A component, or the folder of a filter, which is built.
    #[arg(default_value = ".", value_name = "FILE|DIR")]
    what: PathBuf,
    /// Run these cases [default: those that the component carries].
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    /// The component.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Another component, measured in the same way.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Take the request from these cases [default: those that the component carries].
    #[arg(long, value_name = "FILE")]
    cases: Option<PathBuf>,
    /// Send the request of this case [default: the first].
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// Requests that are sent; a measurement ends after 20 seconds in any case.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: u32,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn test(args: &TestArgs) -> Outcome {
    let file = if args.what.is_dir() { build::of_folder(&args.what)? } else { args.what.clone() };
    let Some(cases) = cases_for(&file, args.cases.as_deref())? else {
        let why = format!(
            "{} carries no cases: write cases.yaml beside its source, or name a file by --cases",
            file.display()
        );
        return Err(Failure::Refused(why));
    };
    let reports = match tried(&Job::Test { file, cases })? {
        Done::Tested(reports) => reports,
        Done::Measured(_) => return Err(unexpected().into()),
    };
    let text = output::structured(args.output.format, &reports)?;
    output::print(&text.unwrap_or_else(|| results(&reports, &Paint::stdout())));
    let holds = reports.iter().all(|report| report.faults.is_empty());
    Ok(if holds { Answer::Yes } else { Answer::No })
}

pub(super) fn bench(args: &BenchArgs) -> Outcome {
    let mut cases = cases_for(&args.file, args.cases.as_deref())?.unwrap_or_else(|| {
        let plain = Case { name: "GET /".to_owned(), ..Case::default() };
        Cases { cases: vec![plain], ..Cases::default() }
    });
    if let Some(name) = &args.case {
        cases.cases.retain(|case| case.name == *name);
        if cases.cases.is_empty() {
            return Err(Failure::Refused(format!("there is no case {name:?}")));
        }
    }
    cases.cases.truncate(1);
    let files = [Some(args.file.clone()), args.against.clone()].into_iter().flatten().collect();
    let reports = match tried(&Job::Bench { files, cases, requests: args.requests })? {
        Done::Measured(reports) => reports,
        Done::Tested(_) => return Err(unexpected().into()),
    };
    let text = output::structured(args.output.format, &reports)?;
    output::print(&text.unwrap_or_else(|| costs(&reports)));
    Ok(Answer::Yes)
}

/// The cases of a component that is a filter, or those of a file in their place.
fn cases_for(file: &Path, cases: Option<&Path>) -> anyhow::Result<Option<Cases>> {
    let wasm = super::binary(file)?;
    inspect::publishable(&wasm).with_context(|| file.display().to_string())?;
    match cases {
        Some(cases) => cases::of_file(cases).map(Some),
        None => cases::of_binary(&wasm).with_context(|| file.display().to_string()),
    }
}

/// Has weft-control do a job. What the filter logs, and why it fails, comes on stderr.
fn tried(job: &Job) -> anyhow::Result<Done> {
    let program = programs::CONTROL.find()?;
    let shown = program.display();
    let mut command = Command::new(&program);
    let child = command.arg(TRY).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {shown}"))?;
    let mut stdin = child.stdin.take().context("a child whose stdin was asked for has one")?;
    let job = serde_json::to_vec(job)?;
    // One that does not read says why by its end.
    let written = stdin.write_all(&job);
    drop(stdin);
    let told = child.wait_with_output().with_context(|| format!("cannot wait for {shown}"))?;
    if !told.status.success() {
        bail!("{shown} did not try the filter: {}", told.status);
    }
    written.with_context(|| format!("cannot tell {shown} what to do"))?;
    serde_json::from_slice(&told.stdout).with_context(unread)
}

fn unread() -> String {
    "weft-control answers otherwise than this weft reads it: they are of different releases".to_owned()
}

fn unexpected() -> anyhow::Error {
    anyhow::anyhow!(unread())
}

fn results(reports: &[CaseReport], paint: &Paint) -> String {
    let mut table = Table::new(["CASE", "RESULT"]);
    for report in reports {
        let result = if report.faults.is_empty() { paint.good("holds") } else { paint.bad("fails") };
        table.row([cell(&report.name), result]);
    }
    let mut text = table.render();
    let failed = reports.iter().filter(|report| !report.faults.is_empty());
    for report in failed.clone() {
        for fault in &report.faults {
            text.push_str(&format!("{}: {}\n", cell(&report.name), cell(fault)));
        }
    }
    let failed = failed.count();
    if failed > 0 {
        text.push_str(&format!("{failed} of {} cases fail\n", reports.len()));
    }
    text
}

fn costs(reports: &[BenchReport]) -> String {
    let mut table = Table::new(["FILE", "BYTES", "COMPILED IN", "REQUESTS", "P50", "P99", "MEMORY"]);
    for report in reports {
        table.row([
            cell(&report.file.display().to_string()),
            report.bytes.to_string(),
            format!("{} ms", report.compile_ms),
            report.requests.to_string(),
            format!("{:?}", Duration::from_nanos(report.p50_ns)),
            format!("{:?}", Duration::from_nanos(report.p99_ns)),
            format!("{} KiB", report.memory_bytes.div_ceil(1_024)),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_told_below_the_table() {
        let report = |name: &str, faults: &[&str]| CaseReport {
            name: name.to_owned(),
            faults: faults.iter().map(|fault| (*fault).to_owned()).collect(),
        };
        let reports = [report("a", &[]), report("b\x1b", &["status: \"200\", not \"403\"", "two"])];
        assert_eq!(
            results(&reports, &Paint::plain()),
            "CASE     RESULT\na        holds\nb\\u{1b}  fails\nb\\u{1b}: status: \"200\", not \"403\"\nb\\u{1b}: two\n\
             1 of 2 cases fail\n"
        );
    }

    #[test]
    fn what_a_filter_costs_is_one_row() {
        let report = BenchReport {
            file: "a.wasm".into(),
            bytes: 10,
            compile_ms: 20,
            requests: 30,
            p50_ns: 1_500,
            p99_ns: 2_000_000,
            memory_bytes: 65_536,
        };
        let text = costs(&[report]);
        assert!(text.contains("a.wasm  10     20 ms        30        1.5µs  2ms  64 KiB"), "{text}");
    }
}
