//! The suites and the demo: hermetic tests need nothing but this checkout; real ones need programs of other people, which are
//! installed first; long ones take minutes, or root. A test is hermetic unless it is ignored and lives in a module called `real`
//! or `long`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::build::{self, Profile};
use crate::cargo::{self, Workspace};
use crate::programs;
use crate::watch;

/// A test that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(300);

/// The same for tests that take long: some measure for minutes without a word.
const LONG_SILENCE: Duration = Duration::from_secs(1800);

/// `cargo test` of the whole workspace on what the demo runs too.
pub(crate) fn hermetic(workspace: &Workspace, name: Option<&str>) -> Result<()> {
    build::everything(workspace, Profile::Dev)?;
    let mut test = workspace.cargo(["test", "--workspace", "--no-fail-fast"]);
    if let Some(name) = name {
        test.args(["--", name]);
    }
    watch::run(&mut test, SILENCE)
}

/// The tests against real programs, one at a time: they measure memory and watch packets.
pub(crate) fn real(workspace: &Workspace, name: Option<&str>) -> Result<()> {
    let installed = programs::install(workspace)?;
    build::everything(workspace, Profile::Dev)?;
    let suites = ["test", "--workspace", "--no-fail-fast", "--lib", "--test", "mesh", "--test", "behaviour"];
    let mut test = workspace.cargo(suites.into_iter().chain(["--", "--ignored", "--test-threads=1"]));
    test.args([name.unwrap_or("real::"), "--skip", "long::"]);
    test.env("WEFT_REAL_PYTHON", installed.python).env("PATH", installed.path);
    watch::run(&mut test, SILENCE)
}

/// The tests that take long, one at a time: they need the machine for themselves, and some of them programs of other people.
pub(crate) fn long(workspace: &Workspace, name: Option<&str>) -> Result<()> {
    let installed = programs::install(workspace)?;
    can_capture()?;
    let languages = name.is_none_or(|name| name.contains("languages")).then(|| programs::languages(workspace));
    build::everything(workspace, Profile::Dev)?;
    let mut test = workspace.cargo(["test", "--workspace", "--no-fail-fast", "--", "--ignored", "--test-threads=1"]);
    test.arg(name.unwrap_or("long::"));
    if let Some(folder) = languages.transpose()? {
        test.env("WEFT_LANGUAGES", folder);
    }
    test.env("WEFT_REAL_PYTHON", installed.python).env("PATH", installed.path);
    watch::run(&mut test, LONG_SILENCE)
}

/// Each exchange of the table by every way, and minutes of random messages.
pub(crate) fn differential(workspace: &Workspace, minutes: u64, without_captured: bool) -> Result<()> {
    if without_captured {
        eprintln!("xtask: the captured way is LEFT OUT, as asked for");
    } else {
        can_capture()?;
    }
    build::everything(workspace, Profile::Dev)?;
    let arguments = ["test", "--package", "weft-tests", "--test", "mesh", "--", "mesh::differential::", "--nocapture"];
    let mut test = workspace.cargo(arguments);
    test.arg("--test-threads=1").env("WEFT_DIFFERENTIAL_MINUTES", minutes.to_string());
    if without_captured {
        test.arg("--skip=captured");
    }
    cargo::run(test.arg("--include-ignored"))
}

/// Capture needs namespaces and nftables.
fn can_capture() -> Result<()> {
    let root = cargo::output(Command::new("id").arg("-u"))?.trim() == "0";
    let path = programs::search_path()?;
    let missing: Vec<_> =
        ["ip", "nft"].into_iter().filter(|program| programs::find(program, &path).is_none()).collect();
    if !root || !missing.is_empty() {
        bail!(
            "capture needs root, ip and nft (root: {root}, missing: {missing:?}); `differential --without-captured` leaves it out"
        );
    }
    Ok(())
}

/// Hands over to `weft demo`, which keeps the terminal and the signals.
pub(crate) fn demo(workspace: &Workspace, once: bool) -> Result<()> {
    let binaries = build::everything(workspace, Profile::Dev)?;
    let mut demo = Command::new(binaries.join("weft"));
    demo.arg("demo").current_dir(&workspace.root);
    if once {
        demo.arg("--once");
    }
    cargo::run(&mut demo)
}
