//! Lists as people look at them: chosen by labels, with their age, again on each change; and what shells and `man` are told.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::control::{Control, Ran, weft};

fn service(name: &str, app: &str, created: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "shop", "name": name, "uid": "u", "generation": 1, "revision": 3, "creationRevision": 2,
            "labels": {"app": app}, "creationTimestamp": created},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}})
}

fn control() -> Control {
    let items =
        [service("reviews", "reviews", "2000-01-01T00:00:00Z"), service("ratings", "ratings", "2000-01-01T00:00:00Z")];
    Control::start(&[("GET /api/v1/resources/services", 200, json!({"revision": 3, "items": items}))])
}

#[test]
fn lists_are_chosen_by_labels_and_tell_ages() {
    let control = control();
    let get = |more: &[&str]| control.run(&[&["get", "services", "-n", "shop"][..], more].concat());
    let ran = get(&[]);
    assert!(ran.out.contains("ratings") && ran.out.lines().next().unwrap().ends_with("AGE"), "{}", ran.out);
    // More than 25 years, in days and hours.
    let age = ran.out.lines().nth(1).unwrap().split_whitespace().last().unwrap().to_owned();
    assert!(age.split_once('d').is_some_and(|(days, _)| days.parse::<u32>().is_ok_and(|days| days > 9_000)), "{age}");
    let ran = get(&["-l", "app=reviews"]);
    assert!(ran.out.contains("reviews") && !ran.out.contains("ratings"), "{}", ran.out);
    let ran = get(&["-l", "app!=reviews", "-o", "json"]);
    let items: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (items["items"].as_array().map(Vec::len), &items["items"][0]["metadata"]["name"]),
        (Some(1), &json!("ratings"))
    );
    let ran = get(&["-l", "app in (a)"]);
    assert_eq!(ran.status, 2, "{}", ran.err);
}

#[test]
fn what_is_watched_is_shown_again_when_it_has_changed_only() {
    let control = control();
    let mut command = control.command(&["get", "services", "-n", "shop", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.starts_with("NAMESPACE"), "{first}");
    assert!(lines.next().unwrap().unwrap().contains("shop"));
    // It has asked again and found the same.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while control.seen().len() < 3 {
        assert!(std::time::Instant::now() < deadline, "it asks no more");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(!rest.iter().any(|line| line.starts_with("NAMESPACE")), "{rest:?}");
}

/// `| head` and the like.
#[test]
fn a_reader_that_goes_away_ends_each_command_quietly() {
    let event = json!({"number": 1, "time_unix_ms": 0, "actor": "system", "action": "apply", "object": "shop/web",
        "revision": 1, "detail": ""});
    let events = json!({"entries": [event]});
    let services = json!({"revision": 3, "items": [service("reviews", "reviews", "2000-01-01T00:00:00Z")]});
    let control =
        Control::start(&[("GET /api/v1/resources/services", 200, services), ("GET /api/v1/events", 200, events)]);
    let commands: [&[&str]; 7] = [
        &["get", "services", "-n", "shop"],
        &["get", "services", "-n", "shop", "-o", "yaml"],
        &["get", "services", "-n", "shop", "--watch"],
        &["events", "-o", "json"],
        &["events", "--watch"],
        &["completions", "bash"],
        &["--help"],
    ];
    for arguments in commands {
        let mut command = control.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(std::time::Instant::now() < deadline, "{arguments:?} goes on without a reader");
            std::thread::yield_now();
        };
        let mut complaints = String::new();
        child.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        assert_eq!((status.code(), complaints.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

/// Something is missing, and somebody may rely on it.
#[test]
fn output_that_finds_no_room_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let child = weft(&["completions", "bash"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.status, 2, "{}", ran.err);
    assert!(ran.err.starts_with("error: cannot write to stdout: "), "{}", ran.err);
}

#[test]
fn shells_and_man_know_every_command() {
    for (shell, word) in [("bash", "_weft()"), ("zsh", "#compdef weft"), ("fish", "complete -c weft")] {
        let ran = Ran::of(weft(&["completions", shell]).output().unwrap());
        assert_eq!(ran.status, 0, "{}", ran.err);
        assert!(ran.out.contains(word) && ran.out.contains("snapshot"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let ran = Ran::of(weft(&["man", folder.path().to_str().unwrap()]).output().unwrap());
    assert_eq!(ran.status, 0, "{}", ran.err);
    for page in ["weft.1", "weft-apply.1", "weft-proxy-ban.1", "weft-token-create.1"] {
        assert!(std::fs::read_to_string(folder.path().join(page)).unwrap().contains(".SH OPTIONS"), "{page}");
    }
}

#[test]
fn the_version_is_told_of_both_and_without_a_server_of_one() {
    let version = json!({"name": "weft-control", "version": "9.8.7", "api": "v1"});
    let control = Control::start(&[("GET /api/v1/version", 200, version)]);
    let ran = control.run(&["version"]);
    assert!(ran.status == 0 && ran.out.contains("9.8.7") && ran.out.contains(env!("CARGO_PKG_VERSION")), "{ran:?}");
    let ran = Ran::of(weft(&["version", "--client"]).output().unwrap());
    assert_eq!((ran.status, ran.out), (0, format!("Client:  {}\n", env!("CARGO_PKG_VERSION"))));
}
