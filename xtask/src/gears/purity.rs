//! Purity of the deciding crates: no clock, IO, environment or randomness below them, and a clippy.toml that forbids the
//! standard library's own (a crate's clippy.toml replaces the root's, so the root's lines must be repeated).

use std::collections::BTreeSet;

use anyhow::{Context, Result};

use super::Fault;
use crate::cargo::{self, Workspace};

/// A pure crate with everything that it stands on.
#[derive(Debug, Clone)]
pub(super) struct Pure {
    pub(super) name: String,
    pub(super) stands_on: BTreeSet<String>,
    pub(super) clippy: Option<String>,
    pub(super) root_clippy: String,
}

/// Crate, folder, and the features that stay pure (`wire` brings the generated gRPC code and is only for the edges).
const CRATES: &[(&str, &str, &str)] = &[("weft-policy", "policy", "manifest"), ("weft-flow", "dataplane/flow", "")];

/// `rand_core` is not among them: it has names for generators only, and takes chance from `getrandom`.
const IMPURE: &[&str] = &[
    "async-io",
    "chrono",
    "dirs",
    "fastrand",
    "getrandom",
    "hyper",
    "libc",
    "mio",
    "nix",
    "quinn",
    "quinn-proto",
    "rand",
    "reqwest",
    "rustix",
    "rustls",
    "socket2",
    "time",
    "tokio",
    "tonic",
    "tracing",
    "uuid",
    "wasmtime",
];

const FORBIDDEN_CALLS: &[&str] =
    &["std::time::Instant::now", "std::time::SystemTime::now", "std::env::var", "std::collections::HashMap"];

pub(super) fn judge(crates: &[Pure]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for pure in crates {
        for impure in IMPURE.iter().filter(|impure| pure.stands_on.contains(**impure)) {
            faults.push(Fault::new(&pure.name, format!("is pure, yet stands on {impure}")));
        }
        let Some(clippy) = &pure.clippy else {
            faults.push(Fault::new(&pure.name, "is pure, yet has no clippy.toml of its own"));
            continue;
        };
        for call in FORBIDDEN_CALLS.iter().filter(|call| !clippy.contains(**call)) {
            faults.push(Fault::new(&pure.name, format!("its clippy.toml does not forbid {call}")));
        }
        for line in pure.root_clippy.lines().filter(|line| line.contains('=') && !clippy.contains(line.trim())) {
            faults.push(Fault::new(&pure.name, format!("its clippy.toml does not repeat {line}")));
        }
    }
    faults
}

pub(super) fn read(workspace: &Workspace) -> Result<Vec<Pure>> {
    let root_clippy = std::fs::read_to_string(workspace.root.join("clippy.toml")).context("clippy.toml at the root")?;
    let mut crates = Vec::new();
    for (name, folder, features) in CRATES {
        let mut tree = workspace.cargo(["tree", "--locked", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
        tree.args(["-p", name, "--no-default-features", "--features", features]);
        let listed = cargo::output(&mut tree)?;
        let stands_on = listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        let clippy = std::fs::read_to_string(workspace.root.join(folder).join("clippy.toml")).ok();
        crates.push(Pure { name: (*name).to_owned(), stands_on, clippy, root_clippy: root_clippy.clone() });
    }
    Ok(crates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pure() -> Pure {
        Pure {
            name: "weft-flow".to_owned(),
            stands_on: BTreeSet::from(["serde".to_owned()]),
            clippy: Some(format!("x = 1\n{}", FORBIDDEN_CALLS.join("\n"))),
            root_clippy: "x = 1\n".to_owned(),
        }
    }

    #[test]
    fn a_pure_crate_passes() {
        assert_eq!(judge(&[pure()]), []);
    }

    #[test]
    fn a_clock_below_slips() {
        let mut impure = pure();
        impure.stands_on.insert("tokio".to_owned());
        assert_eq!(judge(&[impure]), [Fault::new("weft-flow", "is pure, yet stands on tokio")]);
    }

    #[test]
    fn a_missing_clippy_toml_slips() {
        let without = Pure { clippy: None, ..pure() };
        assert_eq!(judge(&[without]), [Fault::new("weft-flow", "is pure, yet has no clippy.toml of its own")]);
    }

    #[test]
    fn a_clippy_toml_that_forbids_too_little_slips() {
        let lax = Pure { clippy: Some("x = 1".to_owned()), ..pure() };
        assert_eq!(judge(&[lax]).len(), FORBIDDEN_CALLS.len());
    }

    #[test]
    fn a_root_line_that_is_not_repeated_slips() {
        let forgetful = Pure { root_clippy: "y = 2".to_owned(), ..pure() };
        assert_eq!(judge(&[forgetful]), [Fault::new("weft-flow", "its clippy.toml does not repeat y = 2")]);
    }
}
