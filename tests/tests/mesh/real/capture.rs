//! Transparent capture by nftables: two hosts as network namespaces with a cable between them, programs that know of no mesh, over
//! IPv4 and IPv6; what must not be captured isn't, and a crash fails closed.

use std::net::IpAddr;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use weft_tests::namespace::{HERE, Hosts, THERE};
use weft_tests::process::{Process, command};
use weft_tests::{Mesh, Scrape, Sidecar, Workload, until};

use super::run;

/// Services' virtual addresses, on the cable's networks so that a route exists.
const VIP4: &str = "10.231.7.100";
const VIP6: &str = "fd77:7::100";
const NOBODY: u32 = 65534;

fn inside(netns: &str, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns, program]).args(arguments);
    command
}

fn curl(netns: &str, url: &str) -> Command {
    inside(netns, "curl", &["-sS", "-g", "--max-time", "10", url])
}

/// The same by a user whose traffic is excluded from capture.
fn uncaptured(netns: &str, url: &str) -> Output {
    let user = NOBODY.to_string();
    let arguments = ["--reuid", &user, "--clear-groups", "curl", "-sS", "-g", "--max-time", "5", url];
    inside(netns, "setpriv", &arguments).output().expect("setpriv runs")
}

fn scrape(sidecar: &Sidecar, netns: &str) -> Scrape {
    Scrape::parse(&run(&mut curl(netns, &format!("http://{}/metrics", sidecar.at(15020)))))
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn service(name: &str, vip: &str, port: u16, target: u16, protocol: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  selector: {{app: web}}\n  \
         clusterIP: \"{vip}\"\n  ports: [{{port: {port}, targetPort: {target}, appProtocol: {protocol}}}]\n"
    )
}

struct Captured {
    hosts: Hosts,
    client: Sidecar,
    server: Sidecar,
    _apps: Vec<Process>,
    mesh: Mesh,
}

async fn captured() -> Captured {
    captured_by(json!({"exclude_uids": [NOBODY]})).await
}

/// With these settings of the caller's capture.
async fn captured_by(capture: serde_json::Value) -> Captured {
    let hosts = Hosts::new();
    let mesh = Mesh::start_inside(&hosts.there, address(THERE));
    std::fs::write(mesh.folder().join("index.html"), "seen by nobody\n").expect("the scratch folder is writable");
    let folder = mesh.folder().display().to_string();
    let mut apps = Vec::new();
    for port in ["8080", "9999"] {
        let arguments = ["-m", "http.server", port, "--bind", THERE, "--directory", &folder];
        apps.push(Process::start(
            &format!("http-{port}"),
            mesh.folder(),
            &mut inside(&hosts.there, "python3", &arguments),
        ));
    }
    let arguments = ["--bind", THERE, "--port", "6379", "--save", "", "--protected-mode", "no", "--dir", &folder];
    apps.push(Process::start("redis", mesh.folder(), &mut inside(&hosts.there, "redis-server", &arguments)));

    let listen = json!({"outbound": "[::]:15001", "inbound": "[::]:15006", "admin": "127.0.0.1:15000"});
    let server = Workload::server("web", 8080, "http").port(6379, "tcp").inside(&hosts.there, address(THERE));
    let server = server.setting("listen", listen.clone());
    let server =
        server.setting("capture", json!({"exclude_ports": [15012, 15013, 15014, 9999], "exclude_uids": [NOBODY]}));
    let server = mesh.sidecar(server).await;
    let client = Workload::client("me").inside(&hosts.here, address(HERE)).setting("listen", listen);
    let client = client.setting("capture", capture);
    let client = mesh.sidecar(client).await;
    mesh.apply(
        &[
            service("web4", VIP4, 80, 8080, "http"),
            service("web6", VIP6, 80, 8080, "http"),
            service("redis", "10.231.7.101", 6379, 6379, "tcp"),
        ]
        .concat(),
    );
    Captured { hosts, client, server, _apps: apps, mesh }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn programs_that_know_no_mesh_are_in_it() {
    let captured = captured().await;
    let (here, there) = (captured.hosts.here.as_str(), captured.hosts.there.as_str());
    let page = "/index.html";
    for url in [format!("http://{VIP4}{page}"), format!("http://[{VIP6}]{page}"), format!("http://{THERE}:8080{page}")]
    {
        let answers = || curl(here, &url).output().is_ok_and(|output| output.stdout == b"seen by nobody\n");
        until(&format!("{url} answers"), answers, || format!("{:?}", curl(here, &url).output()));
    }
    let metrics = scrape(&captured.server, there);
    let meshed = [("reporter", "destination"), ("connection_security_policy", "mutual_tls"), ("response_code", "200")];
    let principal = ("source_principal", "spiffe://cluster.local/ns/default/sa/me");
    assert!(
        metrics.sum("istio_requests_total", &[&meshed[..], &[principal]].concat()) >= 3.0,
        "{}",
        metrics.lines("istio_req")
    );

    let mut redis = inside(here, "redis-cli", &["-h", "10.231.7.101", "set", "a", "b"]);
    assert_eq!(run(&mut redis), "OK\n");

    // Outside the mesh passes; a plain-text caller from outside does not get in, but a health probe does.
    assert_eq!(run(&mut curl(here, &format!("http://{THERE}:9999{page}"))), "seen by nobody\n");
    let passed = scrape(&captured.client, here);
    assert!(passed.sum("weft_passthrough_connections_total", &[]) >= 1.0, "{}", passed.lines("passthrough"));
    let plain = uncaptured(here, &format!("http://{THERE}:8080{page}"));
    assert!(!String::from_utf8_lossy(&plain.stdout).contains("seen by nobody"), "{plain:?}");
    let refused = scrape(&captured.server, there);
    assert!(refused.sum("weft_inbound_plaintext_refused_total", &[]) >= 1.0, "{}", refused.lines("plaintext"));
    let probe = uncaptured(here, &format!("http://{THERE}:15021/healthz/ready"));
    assert!(probe.status.success(), "{probe:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn a_crash_fails_closed_and_a_clean_end_cleans_up() {
    let mut captured = captured().await;
    let here = captured.hosts.here.clone();
    let url = format!("http://{THERE}:8080/index.html");
    let rules = || run(&mut inside(&here, "nft", &["list", "ruleset"]));
    assert!(rules().contains("weft"), "{}", rules());
    captured.client.process.kill();
    assert!(rules().contains("weft"), "the rules survive a crash");
    let output = curl(&here, &url).output().expect("curl runs");
    assert!(!output.status.success(), "nothing leaks past the mesh: {output:?}");
    let mut remove = command("weft-proxy", Some(&here));
    run(remove.arg("--config").arg(captured.client.configuration()).arg("--capture-remove"));
    assert!(!rules().contains("weft"), "{}", rules());

    captured.client.restart();
    captured.client.ready();
    assert!(rules().contains("weft"), "{}", rules());
    assert_eq!(captured.client.terminate().code(), Some(0), "{}", captured.client.process.tail());
    assert!(!rules().contains("weft"), "a clean end cleans up: {}", rules());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn an_upgrade_that_keeps_the_rules_lets_nothing_out_meanwhile() {
    let mut captured = captured_by(json!({"exclude_uids": [NOBODY], "keep_on_stop": true})).await;
    let here = captured.hosts.here.clone();
    let url = format!("http://{THERE}:8080/index.html");
    let page = || curl(&here, &url).output().expect("curl runs");
    until("it is captured", || page().stdout == b"seen by nobody\n", || format!("{:?}", page()));
    assert_eq!(captured.client.terminate().code(), Some(0), "{}", captured.client.process.tail());
    assert!(ruleset(&here).contains("weft"), "{}", ruleset(&here));
    // The port that is outside of the mesh answers anybody who passes by the capture.
    let outside = || curl(&here, &format!("http://{THERE}:9999/index.html")).output().expect("curl runs");
    assert!(!page().status.success() && !outside().status.success(), "{:?} {:?}", page(), outside());
    captured.client.restart();
    captured.client.ready();
    until("it is captured again", || page().stdout == b"seen by nobody\n", || format!("{:?}", page()));
    assert!(outside().status.success());
    captured.client.terminate();
    let mut remove = command("weft-proxy", Some(&here));
    run(remove.arg("--config").arg(captured.client.configuration()).arg("--capture-remove"));
    assert!(!ruleset(&here).contains("weft"), "{}", ruleset(&here));
    assert!(outside().status.success(), "{:?}", outside());
}

/// Docker publishes ports by rules of its own, which come before ours or after them: they lead to no app of the mesh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn ports_that_others_publish_stay_theirs() {
    let captured = captured().await;
    let (here, there) = (captured.hosts.here.as_str(), captured.hosts.there.as_str());
    let chain = "type nat hook prerouting priority -100; tcp dport 8088";
    let publish = format!("table ip docker {{ chain published {{ {chain} dnat to {THERE}:9999; }}; }}");
    run(&mut inside(there, "nft", &[&publish]));
    let published = uncaptured(here, &format!("http://{THERE}:8088/index.html"));
    assert_eq!(String::from_utf8_lossy(&published.stdout), "seen by nobody\n", "{published:?}");
    assert!(!leaks(here), "what nobody publishes is captured");
}

/// The rules of one namespace.
fn ruleset(netns: &str) -> String {
    run(&mut inside(netns, "nft", &["list", "ruleset"]))
}

fn flush(netns: &str) {
    run(&mut inside(netns, "nft", &["flush", "ruleset"]));
}

/// True where the page came: past the mesh, since the caller is in none.
fn leaks(netns: &str) -> bool {
    let plain = uncaptured(netns, &format!("http://{THERE}:8080/index.html"));
    String::from_utf8_lossy(&plain.stdout).contains("seen by nobody")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn rules_that_are_flushed_are_back_within_a_second() {
    let captured = captured().await;
    let (here, there) = (captured.hosts.here.as_str(), captured.hosts.there.as_str());
    assert!(!leaks(here));
    for round in 1..=3_u32 {
        let flushed = Instant::now();
        flush(there);
        until("the rules are back", || ruleset(there).contains("chain inbound"), || ruleset(there));
        assert!(flushed.elapsed() < Duration::from_secs(1), "after {:?}", flushed.elapsed());
        assert!(!leaks(here));
        let restored = || scrape(&captured.server, there).sum("weft_capture_restored_total", &[]);
        until("it is counted", || restored() >= f64::from(round), || captured.server.process.tail());
    }
    // Less than everything taken away is noticed as well.
    let table =
        ruleset(there).lines().find_map(|line| line.strip_prefix("table ")?.strip_suffix(" {")).unwrap().to_owned();
    run(inside(there, "nft", &["flush", "chain"]).args(table.split(' ')).arg("inbound"));
    until("the chain is back", || ruleset(there).matches("redirect to").count() == 2, || ruleset(there));
    until("it is ready", || captured.server.health("ready") == 200, || captured.server.process.tail());
    let metrics = scrape(&captured.server, there);
    assert_eq!(metrics.sum("weft_capture_rules_present", &[]), 1.0);
    assert!(captured.server.process.log().contains("they are back"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn there_are_rules_before_there_is_an_identity() {
    let mut captured = captured().await;
    let (here, there) = (captured.hosts.here.clone(), captured.hosts.there.clone());
    captured.mesh.kill_control();
    captured.server.process.kill();
    let mut remove = command("weft-proxy", Some(&there));
    run(remove.arg("--config").arg(captured.server.configuration()).arg("--capture-remove"));
    assert!(leaks(&here), "without rules anybody reaches the app");
    std::fs::remove_dir_all(captured.server.state()).expect("the scratch folder is writable");
    captured.server.restart();
    until("there are rules", || ruleset(&there).contains("chain inbound"), || captured.server.process.tail());
    let refused = || {
        let plain = uncaptured(&here, &format!("http://{THERE}:8080/index.html"));
        assert!(!String::from_utf8_lossy(&plain.stdout).contains("seen by nobody"), "{plain:?}");
        // 56: reset. Those of the first second wait for a proxy that is about to serve them.
        plain.status.code() == Some(56)
    };
    until("who comes is told so", refused, || captured.server.process.tail());
    assert_eq!(captured.server.health("ready"), 503);
    assert_eq!(captured.server.terminate().code(), Some(0), "{}", captured.server.process.tail());
    assert!(!ruleset(&there).contains("weft"), "a clean end cleans up, also before the identity");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn a_second_proxy_neither_replaces_nor_removes_the_first_ones_rules() {
    let captured = captured().await;
    let (here, there) = (captured.hosts.here.as_str(), captured.hosts.there.as_str());
    let before = ruleset(there);
    let at = |port: u16| format!("127.0.0.1:{port}");
    let second = Workload::client("second").inside(there, address(THERE)).setting(
        "listen",
        json!({
            "outbound": at(25001), "inbound": at(25006), "explicit": at(25080), "mesh": at(25008), "admin": at(25000),
            "metrics": at(25020), "health": at(25021),
        }),
    );
    let mut second = Sidecar::start(&captured.mesh, second.setting("capture", json!({})));
    assert_eq!(second.process.ended().code(), Some(2));
    let log = second.process.log();
    assert!(log.contains("another proxy captures in this network namespace") && log.contains("weft_web"), "{log}");
    assert_eq!(ruleset(there), before);
    assert!(!leaks(here));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn the_network_reaches_no_port_for_local_use_and_a_squatter_gets_nothing() {
    let mut captured = captured().await;
    let here = captured.hosts.here.clone();
    for port in [15000, 15001, 15006, 15080] {
        let asked = uncaptured(&here, &format!("http://{THERE}:{port}/"));
        assert!(!asked.status.success(), "{port}: {asked:?}");
    }
    // Link-local addresses mean nothing without their interface: they are left alone, on the way out only.
    assert!(ruleset(&here).contains("fe80::/10"), "{}", ruleset(&here));
    // While the proxy is away another user takes its port; what is redirected there doesn't reach him.
    captured.client.process.kill();
    let squat = "import socket\ns = socket.socket(socket.AF_INET6)\ns.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n\
                 s.bind(('::', 15001))\ns.listen()\nprint('listening', flush=True)\ns.accept()\nprint('taken', flush=True)\n";
    let user = NOBODY.to_string();
    let arguments = ["--reuid", &user, "--clear-groups", "/usr/bin/python3", "-c", squat];
    let squatter = Process::start("squatter", captured.mesh.folder(), &mut inside(&here, "setpriv", &arguments));
    squatter.logs("listening");
    let output = curl(&here, &format!("http://{THERE}:8080/index.html")).output().expect("curl runs");
    assert!(!output.status.success(), "{output:?}");
    assert!(!squatter.log().contains("taken"), "{}", squatter.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn signals_leave_the_rules_and_the_process() {
    let mut captured = captured().await;
    let here = captured.hosts.here.clone();
    for signal in ["HUP", "USR1", "USR2"] {
        captured.client.process.signal(signal);
        captured.client.process.logs(&format!("signal=\"{signal}\""));
    }
    assert_eq!(captured.client.process.has_ended(), None);
    assert!(ruleset(&here).contains("weft_me"), "{}", ruleset(&here));
    assert_eq!(captured.client.terminate().code(), Some(0));
    assert!(!ruleset(&here).contains("weft_me"), "{}", ruleset(&here));
}

/// A plaintext caller of the captured server that never rests; each line of its log: the time in milliseconds, and `passed` or not.
fn prober(captured: &Captured) -> Process {
    // By its text: that user may not read files of ours.
    let (user, script) = (NOBODY.to_string(), include_str!("../../../real/plaintext_prober.py"));
    let arguments = ["--reuid", &user, "--clear-groups", "/usr/bin/python3", "-c", script, THERE, "8080"];
    Process::start("prober", captured.mesh.folder(), &mut inside(&captured.hosts.here, "setpriv", &arguments))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("before the year 584 million")
}

/// When plaintext passed, in milliseconds.
fn passed(prober: &Process) -> Vec<u64> {
    let log = prober.log();
    let times = log.lines().filter_map(|line| line.strip_suffix(" passed")?.parse().ok());
    times.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, nft and network namespaces: cargo xtask test --real"]
async fn plaintext_passes_for_less_than_a_second_however_often_rules_are_flushed() {
    let captured = captured().await;
    let there = captured.hosts.there.clone();
    let prober = prober(&captured);
    prober.logs("refused");
    assert_eq!(passed(&prober), [] as [u64; 0]);
    let mut flushes = Vec::new();
    for pause in [1_500, 300, 300, 1_500] {
        flushes.push(now_ms());
        flush(&there);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    let lines = prober.log().lines().count();
    until("the prober has gone on", || prober.log().lines().count() > lines + 10, || prober.tail());
    let passed = passed(&prober);
    for time in &passed {
        let flushed = flushes.iter().rev().find(|flushed| *flushed <= time);
        let after = flushed.map(|flushed| time - flushed);
        assert!(after.is_some_and(|after| after < 1_000), "plaintext at {time}, flushed at {flushes:?}");
    }
    eprintln!("{} flushes, plaintext passed {} times", flushes.len(), passed.len());

    // While somebody takes them away all the time, readiness and the metric say so.
    let stop = Arc::new(AtomicBool::new(false));
    let flushing = std::thread::spawn({
        let (stop, there) = (Arc::clone(&stop), there.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                flush(&there);
            }
        }
    });
    until("it is not ready", || captured.server.health("ready") == 503, || captured.server.process.tail());
    let present = || scrape(&captured.server, &there).sum("weft_capture_rules_present", &[]);
    until("the metric says so", || present() == 0.0, || captured.server.process.tail());
    stop.store(true, Ordering::SeqCst);
    flushing.join().expect("flushing does not fail");
    until("it is ready", || captured.server.health("ready") == 200, || captured.server.process.tail());
    until("the rules are back", || ruleset(&there).contains("chain inbound"), || ruleset(&there));
}
