//! docs/conformance.md and what it speaks of stay in step: each row that says yes names tests or cases that there are, each case
//! is in the document, and no behaviour of the suite is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::edge_cases::tests_of_the_tree;
use super::cases::CASES;

/// Behaviours of the suite by the beginnings of their names.
const COUNTS: [(&str, usize); 5] = [("Mesh", 23), ("HTTPRoute", 58), ("GRPC", 6), ("TCPRoute", 8), ("TLSRoute", 13)];

/// What Weft does, as a row says it.
const SAID: [&str; 3] = ["yes", "not for a mesh", "not built"];

/// Said of what is no test but a case of the conformance table.
const OF_THE_TABLE: &str = "conformance::";

/// Name of a behaviour, what Weft does, and what shows it or why not.
type Row<'d> = (&'d str, &'d str, &'d str);

fn rows(document: &str) -> Vec<Row<'_>> {
    document.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row<'_>> {
    let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
    let (name, _, said, shown) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    let is_behaviour = COUNTS.iter().any(|(start, _)| name.starts_with(start));
    (is_behaviour && cells.next().is_none()).then_some((name, said, shown))
}

/// What stands between backticks.
fn named(shown: &str) -> impl Iterator<Item = &str> {
    shown.split('`').skip(1).step_by(2)
}

fn faults(document: &str, cases: &[(&str, &[&str])], tests: &BTreeSet<String>) -> Vec<String> {
    let rows = rows(document);
    let mut faults = Vec::new();
    for (start, expect) in COUNTS {
        let names: BTreeSet<_> = rows.iter().map(|row| row.0).filter(|name| name.starts_with(start)).collect();
        let count = rows.iter().filter(|row| row.0.starts_with(start)).count();
        if (names.len(), count) != (expect, expect) {
            faults.push(format!("{count} rows, {} names of {start}, not {expect}", names.len()));
        }
    }
    for (name, said, shown) in &rows {
        let is_there = |what: &str| match what.strip_prefix(OF_THE_TABLE) {
            Some(case) => cases.iter().any(|(own, of)| *own == case && of.contains(name)),
            None => tests.contains(what),
        };
        match *said {
            "yes" if named(shown).next().is_none() => faults.push(format!("{name} names nothing that shows it")),
            "yes" => faults.extend(
                named(shown)
                    .filter(|what| !is_there(what))
                    .map(|what| format!("{name} names {what}, which is no test, or no case of it")),
            ),
            other if !SAID.contains(&other) => faults.push(format!("{name} says {other}")),
            _ if shown.len() < 15 => faults.push(format!("{name} says too little why not")),
            _ => {}
        }
    }
    let by_name: BTreeMap<&str, (&str, &str)> =
        rows.iter().map(|(name, said, shown)| (*name, (*said, *shown))).collect();
    for (case, of) in cases {
        for name in *of {
            let own = format!("{OF_THE_TABLE}{case}");
            let is_said =
                by_name.get(name).is_some_and(|(said, shown)| *said == "yes" && named(shown).any(|what| what == own));
            if !is_said {
                faults.push(format!("{name} does not say that {case} shows it"));
            }
        }
    }
    faults
}

fn text() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace");
    std::fs::read_to_string(root.join("docs/conformance.md")).expect("the document is there")
}

#[test]
fn the_document_says_what_the_table_shows() {
    let cases: Vec<_> = CASES.iter().map(|case| (case.name, case.of)).collect();
    let names: BTreeSet<_> = cases.iter().map(|case| case.0).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    let faults = faults(&text(), &cases, &tests_of_the_tree());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_document_can_be_wrong() {
    let document = "| Name | Asserts | Weft | Shown by |\n|---|---|---|---|\n\
                    | MeshA | a | yes | `there`, `conformance::one` |\n| MeshB | b | yes | `gone` |\n| MeshC | c | yes | nothing |\n\
                    | HTTPRouteD | d | perhaps | some time |\n| HTTPRouteE | e | not built | no |\n\
                    | HTTPRouteF | f | yes | `conformance::one` |\n";
    let tests = BTreeSet::from(["there".to_owned()]);
    let cases: [(&str, &[&str]); 2] = [("one", &["MeshA"]), ("two", &["MeshB", "MeshZ"])];
    let faults = faults(document, &cases, &tests);
    let expect = [
        "3 rows, 3 names of Mesh, not 23",
        "3 rows, 3 names of HTTPRoute, not 58",
        "0 rows, 0 names of GRPC, not 6",
        "0 rows, 0 names of TCPRoute, not 8",
        "0 rows, 0 names of TLSRoute, not 13",
        "MeshB names gone, which is no test, or no case of it",
        "MeshC names nothing that shows it",
        "HTTPRouteD says perhaps",
        "HTTPRouteE says too little why not",
        "HTTPRouteF names conformance::one, which is no test, or no case of it",
        "MeshB does not say that two shows it",
        "MeshZ does not say that two shows it",
    ];
    assert_eq!(faults, expect);
}
