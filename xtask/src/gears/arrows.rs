//! Arrows between crates: who may depend on whom, one way only (DESIGN section 2), and how long a chain may get.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Fault;
use crate::cargo::{self, Workspace};

/// A crate and the workspace crates that it names, in its own dependencies and in those of its tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Crate {
    pub(super) normal: Vec<String>,
    pub(super) tests: Vec<String>,
}

pub(super) type Graph = BTreeMap<String, Crate>;

const LONGEST_CHAIN: usize = 5;

/// Crates that a crate may name. `None`: it stands outside the product and may name all but the tests.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "weft-policy" | "weft-profiler" | "weft-store" | "weft-filters-sdk" | "xtask" => &[],
        "weft-flow" | "weft-transport" | "weft-filter-host" | "weft-api" => &["weft-policy"],
        "weft-control" => &["weft-policy", "weft-filter-host", "weft-api", "weft-store"],
        "weft" => &["weft-policy", "weft-api"],
        "weft-proxy" => &["weft-policy", "weft-flow", "weft-transport", "weft-filter-host", "weft-profiler"],
        filter if filter.starts_with("weft-filter-") => &["weft-filters-sdk", "weft-policy"],
        _ => return None,
    })
}

pub(super) fn judge(graph: &Graph) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (name, krate) in graph {
        let allowed = allowed(name);
        if allowed.is_none() && !["weft-tests", "weft-bench"].contains(&name.as_str()) {
            faults.push(Fault::new(name, "a crate that DESIGN section 2 does not know"));
        }
        for target in krate.normal.iter().chain(&krate.tests) {
            let forbidden = allowed.is_some_and(|allowed| !allowed.contains(&target.as_str()));
            if forbidden || target == "weft-tests" {
                faults.push(Fault::new(name, format!("may not depend on {target}")));
            }
        }
        let chain = chain(graph, name, graph.len());
        if chain > LONGEST_CHAIN {
            faults.push(Fault::new(name, format!("a chain of {chain} crates, at most {LONGEST_CHAIN}")));
        }
    }
    faults
}

/// Crates on the longest way down from `name`, itself included; `fuel` ends a cycle.
fn chain(graph: &Graph, name: &str, fuel: usize) -> usize {
    let below = graph.get(name).map_or(&[][..], |krate| &krate.normal);
    let deepest = if fuel == 0 { 0 } else { below.iter().map(|next| chain(graph, next, fuel - 1)).max().unwrap_or(0) };
    deepest + 1
}

/// The graph as cargo sees it.
pub(super) fn read(workspace: &Workspace) -> Result<Graph> {
    let text = cargo::output(&mut workspace.cargo(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata prints JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut graph = Graph::new();
    for package in packages {
        let krate = graph.entry(package["name"].as_str().unwrap_or_default().to_owned()).or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            if names.contains(&target) {
                let list = if dependency["kind"] == "dev" { &mut krate.tests } else { &mut krate.normal };
                list.push(target.to_owned());
            }
        }
    }
    Ok(graph)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(arrows: &[(&str, &[&str])]) -> Graph {
        let krate =
            |to: &[&str]| Crate { normal: to.iter().map(|name| (*name).to_owned()).collect(), tests: Vec::new() };
        arrows.iter().map(|(from, to)| ((*from).to_owned(), krate(to))).collect()
    }

    #[test]
    fn the_designed_arrows_hold() {
        let good = graph(&[
            ("weft-policy", &[]),
            ("weft-flow", &["weft-policy"]),
            ("weft-proxy", &["weft-flow", "weft-policy"]),
            ("weft-filter-authz", &["weft-filters-sdk", "weft-policy"]),
            ("weft-bench", &["weft-policy"]),
        ]);
        assert_eq!(judge(&good), []);
    }

    #[test]
    fn an_arrow_that_points_back_slips() {
        let faults = judge(&graph(&[("weft-policy", &["weft-flow"]), ("weft-flow", &[])]));
        assert_eq!(faults, [Fault::new("weft-policy", "may not depend on weft-flow")]);
    }

    #[test]
    fn planes_meet_only_in_policy() {
        let faults = judge(&graph(&[("weft-control", &["weft-transport"])]));
        assert_eq!(faults, [Fault::new("weft-control", "may not depend on weft-transport")]);
    }

    #[test]
    fn nothing_points_at_the_tests() {
        let mut graph = graph(&[("weft-bench", &[])]);
        graph.entry("weft-bench".to_owned()).or_default().tests.push("weft-tests".to_owned());
        assert_eq!(judge(&graph), [Fault::new("weft-bench", "may not depend on weft-tests")]);
    }

    #[test]
    fn an_unknown_crate_slips() {
        assert_eq!(judge(&graph(&[("weft-common", &[])])).len(), 1);
    }

    #[test]
    fn a_chain_that_is_too_long_slips() {
        let names = ["weft-bench", "b", "c", "d", "e", "f"];
        let mut long = Graph::new();
        for pair in names.windows(2) {
            long.insert(pair[0].to_owned(), Crate { normal: vec![pair[1].to_owned()], tests: Vec::new() });
        }
        assert!(judge(&long).contains(&Fault::new("weft-bench", "a chain of 6 crates, at most 5")));
    }
}
