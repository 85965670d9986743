//! Runs the libFuzzer targets of `tests/fuzz` for a bounded time, two at a time, on the committed corpus. The pinned stable
//! compiler instruments by `RUSTC_BOOTSTRAP=1` and the coverage flags that libFuzzer reads; no sanitizer is linked.

use std::path::PathBuf;
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Workspace};

const TARGETS: &[&str] = &["h1", "h3_frames", "qpack", "detect", "manifest", "wire", "component"];

const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

pub(crate) fn run(workspace: &Workspace, seconds: u64, only: Option<&str>) -> Result<()> {
    let chosen: Vec<_> = TARGETS.iter().copied().filter(|target| only.is_none_or(|only| only == *target)).collect();
    if chosen.is_empty() {
        bail!("no fuzz target is called {}; there are {}", only.unwrap_or_default(), TARGETS.join(", "));
    }
    let binaries = build(workspace)?;
    for pair in chosen.chunks(2) {
        let running =
            pair.iter().map(|target| start(workspace, &binaries, target, seconds)).collect::<Result<Vec<_>>>()?;
        for (target, mut child) in running {
            let status = child.wait().with_context(|| format!("waiting for {target}"))?;
            if !status.success() {
                bail!("{target} found something ({status}): see tests/fuzz/artifacts/{target}");
            }
        }
    }
    eprintln!("xtask: {} fuzz targets ran {seconds} s each and found nothing", chosen.len());
    Ok(())
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let target = workspace.target.join("fuzz");
    let mut build = workspace.cargo(["build", "--release", "--bins", "--target", "x86_64-unknown-linux-gnu"]);
    build.current_dir(workspace.root.join("tests/fuzz")).env("CARGO_TARGET_DIR", &target);
    build.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    cargo::run(cargo::without_lints(&mut build))?;
    Ok(target.join("x86_64-unknown-linux-gnu/release"))
}

/// New inputs go to a scratch folder: the committed corpus is read only.
fn start<'t>(
    workspace: &Workspace,
    binaries: &std::path::Path,
    target: &'t str,
    seconds: u64,
) -> Result<(&'t str, Child)> {
    let fuzz = workspace.root.join("tests/fuzz");
    let scratch = workspace.target.join("fuzz/corpus").join(target);
    let artifacts = fuzz.join("artifacts").join(target);
    for folder in [&scratch, &artifacts] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(binaries.join(target));
    command.arg(&scratch).arg(fuzz.join("corpus").join(target));
    command.arg(format!("-max_total_time={seconds}")).args([
        "-rss_limit_mb=2048",
        "-timeout=10",
        "-print_final_stats=1",
    ]);
    command.arg(format!("-artifact_prefix={}/", artifacts.display()));
    let dictionary = fuzz.join(format!("{target}.dict"));
    if dictionary.is_file() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    eprintln!("xtask: fuzz {target} for {seconds} s");
    Ok((target, command.spawn().with_context(|| format!("cannot start {target}"))?))
}
