//! The tree's own checks: what DESIGN and STYLE promise about crates and files, as code that can fail. Each gear takes what
//! it judges as an argument, so that a test of its own shows it failing once.

mod arrows;
mod cycles;
mod docs;
mod domain;
mod files;
mod purity;
mod source;

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{self, Workspace};

/// One broken promise: where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) place: String,
    pub(crate) what: String,
}

impl Fault {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut faults = arrows::judge(&arrows::read(workspace)?);
    faults.extend(purity::judge(&purity::read(workspace)?));
    let (names, page) = docs::read(workspace)?;
    faults.extend(docs::judge(&names, &page));
    let sources = sources(workspace)?;
    faults.extend(cycles::judge(&sources));
    for (path, text) in &sources {
        faults.extend(files::judge(path, text));
        faults.extend(domain::judge(path, text));
    }
    for fault in &faults {
        eprintln!("xtask: gear: {}: {}", fault.place, fault.what);
    }
    if !faults.is_empty() {
        bail!("{} gears slip", faults.len());
    }
    eprintln!("xtask: every gear holds");
    Ok(())
}

/// Every Rust file that is, or is about to be, in the repository.
fn sources(workspace: &Workspace) -> Result<Vec<(String, String)>> {
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.rs"]).current_dir(&workspace.root);
    let mut sources = Vec::new();
    for path in cargo::output(&mut list)?.lines() {
        let full = workspace.root.join(path);
        if full.is_file() {
            let text = std::fs::read_to_string(&full).with_context(|| format!("cannot read {path}"))?;
            sources.push((path.to_owned(), text));
        }
    }
    Ok(sources)
}
