//! `weft run` with a stand-in for weft-proxy: this test binary, started by a script that the test writes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::control::{Control, Ran};

/// Not a test: answers readiness on the health address of `FAKE_PROXY_CONFIG` until it is ended.
#[test]
#[ignore = "the stand-in for weft-proxy, started by the tests below"]
fn stand_in() {
    let Ok(path) = std::env::var("FAKE_PROXY_CONFIG") else { return };
    let config = std::fs::read_to_string(path).unwrap();
    let health = config.lines().find_map(|line| line.trim().strip_prefix("health: ")).unwrap();
    let health: SocketAddr = health.trim_matches(['"', '\'']).parse().unwrap();
    let listener = TcpListener::bind(health).unwrap();
    for mut stream in listener.incoming().flatten() {
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    }
}

fn control() -> Control {
    Control::start(&[(
        "POST /api/v1/tokens",
        200,
        json!({"token": "join-secret", "id": "a", "name": "a", "expires_unix": 9}),
    )])
}

/// A script in weft-proxy's place.
fn proxy(control: &Control, body: &str) -> std::path::PathBuf {
    let path = control.file("weft-proxy", &format!("#!/bin/sh\n{body}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn ready_proxy(control: &Control) -> std::path::PathBuf {
    let own = std::env::current_exe().unwrap();
    let body = format!(
        "export FAKE_PROXY_CONFIG=\"$2\"\ncp \"$2\" '{}/seen.yaml'\nexec '{}' --ignored --exact run::stand_in",
        control.folder.path().display(),
        own.display()
    );
    proxy(control, &body)
}

fn run(control: &Control, proxy: &std::path::Path, arguments: &[&str]) -> Ran {
    let mut command =
        control.command(&["run", "--service", "reviews", "--ready-timeout", "10s", "--drain-timeout", "1s"]);
    Ran::of(command.args(arguments).env("WEFT_PROXY_BIN", proxy).output().unwrap())
}

#[test]
fn the_command_has_its_environment_and_its_status() {
    let control = control();
    let script = "echo $WEFT_IP $http_proxy $grpc_proxy $NO_PROXY; exit 3";
    let ran =
        run(&control, &ready_proxy(&control), &["--port", "9080", "--namespace", "shop", "--", "sh", "-c", script]);
    assert_eq!(ran.status, 3, "{}", ran.err);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    let ip = words[0];
    let proxy = format!("http://{ip}:15080");
    assert!(ip.starts_with("127.0.0."), "{ip}");
    assert_eq!(words[1..], [proxy.as_str(), proxy.as_str(), &format!("localhost,127.0.0.1,::1,{ip}")]);
    let body = control.seen()[0].json();
    assert_eq!(
        (&body["kind"], &body["service_account"], &body["uses"]),
        (&json!("join"), &json!("shop/reviews"), &json!(1))
    );
    let config = std::fs::read_to_string(control.folder.path().join("seen.yaml")).unwrap();
    for part in
        ["namespace: shop", "service: reviews", "port: 9080", &format!("mesh: {ip}:15008"), "https://127.0.0.1:15012"]
    {
        assert!(config.replace('"', "").contains(part), "{part} in {config}");
    }
    // The state folder of the run went with it.
    let state = config.lines().find_map(|line| line.strip_prefix("state_dir: ")).unwrap();
    assert!(!std::path::Path::new(state.trim_matches('"')).exists(), "{state}");
}

#[test]
fn two_runs_at_once_have_two_addresses() {
    let control = control();
    let proxy = ready_proxy(&control);
    let start = || {
        let mut command = control.command(&["run", "--service", "a", "--", "sh", "-c", "echo $WEFT_IP; read line"]);
        command.env("WEFT_PROXY_BIN", &proxy).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let runs = [start(), start()];
    let ips = runs.map(|run| Ran::of(run.wait_with_output().unwrap()).out);
    assert_ne!(ips[0], ips[1]);
}

#[test]
fn signals_reach_the_command() {
    let control = control();
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = control.command(&["run", "--service", "reviews", "--", "sh", "-c", script]);
    let mut child = command.env("WEFT_PROXY_BIN", ready_proxy(&control)).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => panic!("the command is still running"),
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(status.code(), Some(7));
}

#[test]
fn a_command_that_is_not_there_has_the_status_of_a_shell() {
    let control = control();
    let proxy = ready_proxy(&control);
    let ran = run(&control, &proxy, &["--", "/no/such/program"]);
    assert_eq!(ran.status, 127);
    assert!(ran.err.contains("/no/such/program"), "{}", ran.err);
}

#[test]
fn a_sidecar_that_fails_is_shown_with_its_log() {
    let control = control();
    let proxy = proxy(&control, "echo 'state_dir: permission denied'; exit 9");
    let ran = run(&control, &proxy, &["--", "true"]);
    assert_eq!(ran.status, 2);
    for part in ["before it was ready", "exit status: 9", "| state_dir: permission denied"] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
}

#[test]
fn a_sidecar_that_stays_unready_is_given_up() {
    let control = control();
    let proxy = proxy(&control, "echo waiting for the control plane; exec sleep 60");
    let mut command =
        control.command(&["run", "--service", "reviews", "--ready-timeout", "300ms", "--drain-timeout", "1s"]);
    let ran = Ran::of(command.args(["--", "true"]).env("WEFT_PROXY_BIN", proxy).output().unwrap());
    assert_eq!(ran.status, 2);
    assert!(
        ran.err.contains("not ready after 300ms") && ran.err.contains("| waiting for the control plane"),
        "{}",
        ran.err
    );
}

#[test]
fn without_a_control_plane_nothing_is_started() {
    let control = Control::start(&[]);
    let ran =
        run(&control, &ready_proxy(&control), &["--", "touch", control.folder.path().join("ran").to_str().unwrap()]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    assert!(!control.folder.path().join("ran").exists());
    let ran = control.run(&["run", "--service", "Bad_Name", "--", "true"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("Bad_Name"), "{}", ran.err);
}

#[test]
fn a_port_that_the_service_does_not_lead_to_is_told_at_the_join() {
    let finding = json!({"code": "WEFT305", "severity": "warning", "kind": "Workload", "namespace": "shop",
        "name": "reviews-a", "key": "spec.ports", "message": "stands behind Service shop/reviews, which leads to port 8080"});
    let control = Control::start(&[
        ("POST /api/v1/tokens", 200, json!({"token": "join-secret", "id": "a", "name": "a", "expires_unix": 9})),
        ("GET /api/v1/lint", 200, json!({"revision": 1, "findings": [finding]})),
    ]);
    let proxy = ready_proxy(&control);
    let ran = run(
        &control,
        &proxy,
        &["--port", "9090", "--namespace", "shop", "--name", "reviews-a", "--", "sh", "-c", "exit 0"],
    );
    assert_eq!(ran.status, 0, "{}", ran.err);
    let told = "weft run: warning WEFT305: Workload shop/reviews-a: spec.ports: stands behind Service shop/reviews";
    assert!(ran.err.contains(told), "{}", ran.err);
    let asked = control.seen().into_iter().find(|seen| seen.line.contains("/lint")).unwrap();
    assert!(asked.line.contains("kind=Workload&namespace=shop&name=reviews-a"), "{}", asked.line);
}
