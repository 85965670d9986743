//! Programs that speak HTTP as they do without a mesh: Python's websockets, ab, nc, socat, curl, clients of events, grpcio, h2load.
//! Each under `weft run` and captured.

use std::net::IpAddr;

use super::programs::{python, script};
use super::stage::{Server, Stage, Way};
use weft_tests::until;

/// A server in Python.
fn python_server(name: &'static str, port: u16, protocol: &'static str, more: &'static [&'static str]) -> Server {
    let command = move |ip: IpAddr| {
        let mut words = vec![python().display().to_string(), script(name).display().to_string()];
        match protocol {
            "grpc" => words.push(format!("{ip}:{port}")),
            _ => words.extend([ip.to_string(), port.to_string()]),
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    };
    Server { port, protocol, command: Box::new(command) }
}

/// nginx that answers with the target as it came; `http2` is spoken without TLS, with prior knowledge only.
fn nginx(http2: bool) -> Server {
    let command = move |ip: IpAddr| {
        let http2 = if http2 { " http2" } else { "" };
        let configuration = format!(
            "daemon off; user root; pid nginx.pid; worker_processes 1; error_log stderr notice; events {{ worker_connections 1024; }} \
             http {{ access_log off; keepalive_requests 20; server {{ listen {ip}:8080{http2}; location / {{ \
             default_type text/plain; return 200 $request_uri; }} }} }}"
        );
        // nginx reads a file only, and says nothing of being there: the notice of its start does.
        let script = "folder=$(mktemp -d) && echo \"$0\" >\"$folder/nginx.conf\" && echo listening && \
                      exec nginx -p \"$folder\" -c \"$folder/nginx.conf\"";
        ["sh", "-c", script, configuration.as_str()].map(str::to_owned).to_vec()
    };
    Server { port: 8080, protocol: "http", command: Box::new(command) }
}

/// Waits until nginx answers: it listens a moment after its start.
async fn nginx_stage(way: Way) -> Stage {
    let stage = Stage::new(way, nginx(false)).await;
    let url = format!("http://{}/there", stage.authority());
    let there =
        || stage.program("curl", &["-s", "--max-time", "5", &url]).output().is_ok_and(|out| out.stdout == b"/there");
    until("nginx answers", there, || stage.server.tail());
    stage
}

async fn websockets(way: Way, messages: &str, seconds: &str, silence: &str) {
    let stage = Stage::new(way, python_server("websocket_server.py", 8080, "http", &[])).await;
    let (script, url) = (script("websocket_client.py"), format!("ws://{}/chat?x=%2F", stage.authority()));
    let printed = stage
        .plays(&python().display().to_string(), &[&script.display().to_string(), &url, messages, seconds, silence]);
    assert_eq!(printed.trim(), "all heard");
}

/// ApacheBench speaks HTTP/1.0, with keep-alive and without.
async fn apache_bench(way: Way) {
    let stage = nginx_stage(way).await;
    let (url, proxy) =
        (format!("http://{}/ab//x%2Fy", stage.authority()), stage.proxy().map(|proxy| proxy.to_string()));
    for keep_alive in [&[][..], &["-k"][..]] {
        let mut arguments = vec!["-q", "-n", "1000", "-c", "8"];
        arguments.extend(keep_alive);
        arguments.extend(proxy.iter().flat_map(|proxy| ["-X", proxy.as_str()]));
        arguments.push(&url);
        let told = stage.plays("ab", &arguments);
        let value = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name}: {told}")).trim().to_owned()
        };
        assert_eq!(
            (value("Complete requests"), value("Failed requests")),
            ("1000".to_owned(), "0".to_owned()),
            "{told}"
        );
        assert!(!told.contains("Non-2xx"), "{told}");
        assert_eq!(value("Document Length"), "10 bytes", "{told}");
        if !keep_alive.is_empty() {
            let kept: u32 = value("Keep-Alive requests").parse().expect("a number");
            assert!(kept > 500, "kept alive: {told}");
        }
    }
}

/// A client that has said all closes its sending side, and still gets its answer.
async fn half_closed(way: Way) {
    let stage = nginx_stage(way).await;
    let authority = stage.authority();
    let (host, port) = authority.rsplit_once(':').expect("a port");
    let says = |target: &str| format!("printf 'GET {target} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n'");
    let nc_and_socat = match stage.proxy() {
        None => vec![
            format!("{} | nc -N -w 10 {host} {port}", says("/half")),
            format!("{} | socat -t 10 - TCP:{host}:{port}", says("/half")),
        ],
        Some(proxy) => vec![
            format!("{} | nc -N -w 10 -X connect -x {proxy} {host} {port}", says("/half")),
            format!("{} | nc -N -w 10 {} {}", says(&format!("http://{authority}/half")), proxy.ip(), proxy.port()),
            format!("{} | socat -t 10 - PROXY:{}:{host}:{port},proxyport={}", says("/half"), proxy.ip(), proxy.port()),
        ],
    };
    for line in nc_and_socat {
        let answer = stage.plays("timeout", &["20", "sh", "-c", &line]);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n/half"), "{line}: {answer:?}");
    }
}

/// Targets of registries and object stores, as clients send them, and as they arrive where that differs.
const TARGETS: &[(&str, Option<&str>)] = &[
    ("/@scope%2Fname", None),
    // Escapes that differ in case are the same, and are made one (RFC 3986 section 6.2.2.1).
    ("/@scope%2fname/-/name-1.0.0.tgz", Some("/@scope%2Fname/-/name-1.0.0.tgz")),
    ("/api/v4/projects/group%2Fsub%2Fproject/repository/files/src%2Fmain.rs/raw?ref=a%2Fb", None),
    ("/api/queues/%2F/jobs", None),
    ("//bucket//key", None),
    ("/bucket//prefix//key/", None),
    ("/bucket/a//?list-type=2&prefix=a//b&delimiter=%2F", None),
    ("/maven2/com//acme;v=1/x", None),
    ("/v2/library%2Fredis/manifests/sha256:abc", None),
    ("/search?q=a|b&r=%E9&s=%2f", None),
    ("/caf%E9", None),
    ("/caf%C3%A9", None),
];

/// Such targets arrive as they were sent.
async fn targets(way: Way) {
    let stage = nginx_stage(way).await;
    let urls: Vec<_> = TARGETS.iter().map(|(target, _)| format!("http://{}{target}", stage.authority())).collect();
    let arrive: Vec<_> = TARGETS.iter().map(|(target, arrives)| arrives.unwrap_or(target)).collect();
    let tunnelled = [&[][..], &["--proxytunnel"]];
    for more in if way == Way::Run { &tunnelled[..] } else { &tunnelled[..1] } {
        let mut arguments = vec!["-sS", "--path-as-is", "-g", "--max-time", "10", "-w", "\n"];
        arguments.extend(*more);
        arguments.extend(urls.iter().map(String::as_str));
        let arrived = stage.plays("curl", &arguments);
        assert_eq!(arrived.lines().collect::<Vec<_>>(), arrive, "{more:?}");
    }
}

/// Events arrive one by one, and a client that leaves is missed.
async fn events(way: Way) {
    let stage = Stage::new(way, python_server("sse_server.py", 8080, "http", &[])).await;
    let base = format!("http://{}", stage.authority());
    let printed =
        stage.plays(&python().display().to_string(), &[&script("sse_client.py").display().to_string(), &base]);
    assert_eq!(printed.trim(), "all events");
    stage.server.logs("a client has gone");
}

/// A server that retires its connections every 300 ms, under eight callers.
async fn retiring_connections(way: Way, calls: &str) {
    let stage = Stage::new(way, python_server("grpc_server.py", 50051, "grpc", &["300"])).await;
    let arguments = [&script("grpc_callers.py").display().to_string(), &stage.authority(), calls];
    let told = stage.plays(&python().display().to_string(), &arguments);
    eprintln!("{way:?}: {told}");
    assert!(told.starts_with(&format!("0 of {calls} calls went wrong")), "{told}");
}

/// nginx ends each HTTP/2 connection after 20 requests with a GOAWAY; h2load counts what is lost.
async fn h2load(way: Way, requests: &str) {
    let stage = Stage::new(way, nginx(true)).await;
    let authority = format!(":authority: {}", stage.authority());
    let url = match stage.proxy() {
        None => format!("http://{}/h2", stage.authority()),
        Some(proxy) => format!("http://{proxy}/h2"),
    };
    let arguments = ["-n", requests, "-c", "4", "-m", "5", "-H", &authority, &url];
    let told = stage.plays("h2load", &arguments);
    let good = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(told.contains(&good) && told.contains(&format!("{requests} 2xx")), "{told}");
}

macro_rules! both_ways {
    ($why:literal: $($name:ident($($argument:expr),*);)*) => {
        mod run {
            use super::super::{self as http, Way};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = $why]
            async fn $name() {
                http::$name(Way::Run, $($argument),*).await;
            })*
        }
        mod captured {
            use super::super::{self as http, Way};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = $why]
            async fn $name() {
                http::$name(Way::Captured, $($argument),*).await;
            })*
        }
    };
}

mod short {
    both_ways! {
        "needs root, nft, network namespaces and other people's programs: cargo xtask test --real":
        websockets("100", "2", "2");
        apache_bench();
        half_closed();
        targets();
        events();
        retiring_connections("2000");
        h2load("1000");
    }
}

mod long {
    both_ways! {
        "takes minutes, needs root and other people's programs: cargo xtask test --long":
        websockets("1000", "120", "60");
        retiring_connections("10000");
        h2load("20000");
    }
}
