//! What authors of filters use: the examples of the SDK do what their cases say, run by the programs that ship.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use weft_policy::component::{CASES_SECTION, with_section};
use weft_tests::app::App;
use weft_tests::client::{Answer, Client};
use weft_tests::process::{Process, command};
use weft_tests::wait::eventually;

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

/// Puts a file there whole, as editors do.
fn place(file: &Path, bytes: &[u8]) {
    let new = file.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(&new, file).unwrap();
}

async fn seen(at: SocketAddr) -> Answer {
    Client::direct(at).await.get("/seen").await
}

fn is_greeted(answer: &Answer) -> bool {
    answer.status == 200 && answer.text().contains("hello caller")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_before_a_port_follows_its_source_and_outlives_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::start("app", Ipv4Addr::LOCALHOST.into(), 0).await;
    let (component, config) = (folder.path().join("mine.wasm"), folder.path().join("config.yaml"));
    place(&component, &wasm("starter"));
    place(&config, b"refused: [eve]");
    let mut run = command("weft", None);
    run.args(["filter", "run"]).arg(&component).arg("--config").arg(&config);
    run.args(["--to", &app.address.to_string()]);
    let mut run = Process::start("filter-run", folder.path(), &mut run);
    run.logs(" leads through mine to ");
    let log = run.log();
    let line = log.lines().find(|line| line.contains(" leads through ")).unwrap();
    let at: SocketAddr = line.trim_start_matches("http://").split(' ').next().unwrap().parse().unwrap();
    assert!(is_greeted(&seen(at).await), "{}", run.tail());

    place(&config, b"refused: [caller]");
    run.logs("version 0.0.1 is in force, ");
    assert_eq!(seen(at).await.status, 403, "{}", run.tail());
    run.logs("GET /seen 403 in ");
    run.logs(", by filter: caller_refused: rule caller");

    place(&config, b"refused: [1]");
    run.logs("not taken over: ");
    run.logs("version 0.0.1 goes on");
    place(&component, b"no component");
    run.logs("not a WebAssembly binary");
    assert_eq!(seen(at).await.status, 403, "the last good version goes on: {}", run.tail());

    place(&config, b"refused: []");
    let cases = br#"{"cases": [{"name": "passes", "expect": {"verdict": "pass"}}]}"#;
    place(&component, &with_section(wasm("starter"), CASES_SECTION, cases));
    eventually("the mended filter", || async { is_greeted(&seen(at).await).then_some(()) }).await;
    run.signal("INT");
    assert!(run.ended().success(), "{}", run.tail());
}

mod long {
    use super::*;

    /// Runs `weft` in a folder; gives what it prints.
    fn weft_says(folder: &Path, arguments: &[&str]) -> String {
        let ran = weft(folder, arguments);
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(0), "{arguments:?}: {out}{err}");
        out.into_owned()
    }

    #[test]
    #[ignore = "installs compilers and runs for minutes: cargo xtask test --long languages"]
    fn languages_build_what_new_makes_and_the_examples() {
        let place = tempfile::tempdir().unwrap();
        for (language, ending) in [("c", "c"), ("javascript", "js"), ("python", "py")] {
            let folder = place.path().join(language);
            weft_says(place.path(), &["filter", "new", language, "--language", language]);
            let file = format!("{language}.wasm");
            weft_says(&folder, &["filter", "build"]);
            weft_says(&folder, &["filter", "test", &file]);
            eprintln!("{}", weft_says(&folder, &["filter", "bench", &file, "--case", "ada is greeted and counted"]));

            let example = examples().join(format!("apikeys.{ending}"));
            fs::copy(example, folder.join(format!("src/filter.{ending}"))).unwrap();
            fs::copy(examples().join("apikeys.yaml"), folder.join("cases.yaml")).unwrap();
            fs::remove_file(folder.join("schema.json")).unwrap();
            let world = fs::read_to_string(folder.join("wit/world.wit")).unwrap();
            let metrics = "  import weft:filter/metrics@0.2.0;\n";
            let both = world.replace(metrics, &format!("{metrics}  import weft:filter/crypto@0.2.0;\n"));
            assert_ne!(both, world, "a capability is one more import");
            fs::write(folder.join("wit/world.wit"), both).unwrap();
            weft_says(&folder, &["filter", "test"]);
            eprintln!("{}", weft_says(&folder, &["filter", "bench", &file]));
        }
    }
}
