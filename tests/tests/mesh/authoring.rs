//! What authors of filters use: the examples of the SDK do what their cases say, run by the programs that ship.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use weft_policy::component::{CASES_SECTION, with_section};
use weft_tests::process::command;

use super::in_process::wasm;

fn weft(folder: &Path, arguments: &[&str]) -> Output {
    command("weft", None).current_dir(folder).args(arguments).output().expect("weft runs")
}

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../filters-sdk/examples")
}

#[test]
fn the_examples_do_what_their_cases_say() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["starter", "apikeys", "rewrite", "quota", "flags", "labels"] {
        let file = format!("{name}.wasm");
        fs::write(folder.path().join(&file), wasm(name)).unwrap();
        let cases = examples().join(format!("{name}.yaml"));
        let ran = weft(folder.path(), &["filter", "test", &file, "--cases", cases.to_str().unwrap(), "-o", "json"]);
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(0), "{name}: {out}{err}");
        let reports: Vec<Value> = serde_json::from_str(&out).unwrap();
        assert!(reports.len() >= 4, "{name}: {out}");
    }
}

#[test]
fn a_case_that_fails_is_told_and_what_a_filter_costs_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let cases = r#"{"cases": [{"name": "greeted", "caller": "spiffe://mesh/ns/a/sa/ada",
        "expect": {"verdict": "pass", "request": {"headers": {"x-greeting": "good day ada"}}}}]}"#;
    let carries = with_section(wasm("starter"), CASES_SECTION, cases.as_bytes());
    fs::write(folder.path().join("mine.wasm"), carries).unwrap();
    let ran = weft(folder.path(), &["filter", "test", "mine.wasm"]);
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(1), "{out}{err}");
    let fault = "greeted: header x-greeting of the request: \"hello ada\", not \"good day ada\"";
    assert!(out.contains(fault) && out.contains("1 of 1 cases fail"), "{out}");

    let ran = weft(
        folder.path(),
        &["filter", "bench", "mine.wasm", "--against", "mine.wasm", "--requests", "50", "-o", "json"],
    );
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{out}{err}");
    let reports: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert_eq!(reports.len(), 2);
    for report in &reports {
        assert_eq!(report["requests"], 50, "{out}");
        assert!(
            report["p50_ns"].as_u64() <= report["p99_ns"].as_u64() && report["memory_bytes"].as_u64() > Some(0),
            "{out}"
        );
    }

    let ran = weft(folder.path(), &["filter", "new", "greet"]);
    assert_eq!(ran.status.code(), Some(0));
    let ran = weft(folder.path(), &["filter", "new", "greet"]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("is not empty"));
}
