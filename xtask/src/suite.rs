//! The two suites and the demo: hermetic tests need nothing but this checkout; real ones need programs of other people,
//! which are installed first. A test is hermetic unless it is ignored and lives in a module called `real`.

use std::process::Command;

use anyhow::Result;

use crate::build::{self, Profile};
use crate::cargo::{self, Workspace};
use crate::programs;

/// `cargo test` of the whole workspace on what the demo runs too.
pub(crate) fn hermetic(workspace: &Workspace, name: Option<&str>) -> Result<()> {
    build::everything(workspace, Profile::Dev)?;
    let mut test = workspace.cargo(["test", "--workspace", "--no-fail-fast"]);
    if let Some(name) = name {
        test.args(["--", name]);
    }
    cargo::run(&mut test)
}

/// The tests against real programs, one at a time: they measure memory and watch packets.
pub(crate) fn real(workspace: &Workspace, name: Option<&str>) -> Result<()> {
    let installed = programs::install(workspace)?;
    build::everything(workspace, Profile::Dev)?;
    let mut test = workspace.cargo(["test", "--workspace", "--test", "mesh", "--", "--ignored", "--test-threads=1"]);
    test.arg(name.unwrap_or("real::"));
    test.env("WEFT_REAL_PYTHON", installed.python).env("PATH", installed.path);
    cargo::run(&mut test)
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
