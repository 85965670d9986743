//! Lines of the access log for what leaves a proxy: where it went, for whom, and whom TLS has proved to be there.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weft_policy::bundle::Protocol;
use weft_tests::client::{try_tunnel, tunnel};
use weft_tests::{App, Client, TcpApp, address, eventually};

use super::in_process::{Of, Pair};

const CALLER: &str = "spiffe://cluster.local/ns/default/sa/caller";
const ORIGIN: &str = "spiffe://cluster.local/ns/default/sa/origin";

fn log(folder: &Path) -> PathBuf {
    folder.join("caller.log")
}

/// A pair whose caller writes a log.
fn pair(folder: &Path, ports: &[(u16, Protocol)]) -> Pair {
    Pair::start_logged(ports, |of| match of {
        Of::Caller => json!({"access_log_file": log(folder)}),
        Of::Origin => json!({"access_log_file": folder.join("origin.log")}),
    })
}

/// The caller's line about what went to this place.
async fn line(folder: &Path, upstream: SocketAddr) -> Value {
    eventually("a line of the access log", || async {
        let text = std::fs::read_to_string(log(folder)).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["upstream_host"] == upstream.to_string())
    })
    .await
}

/// Says something through a tunnel, hears it again, and ends it.
async fn echoed(proxy: SocketAddr, authority: &str) {
    let mut stream = tunnel(proxy, authority).await;
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"hellobye");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_outside_has_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let pair = pair(folder.path(), &[]);
    let (tcp, http) = (TcpApp::start(address::next(), 0, "").await, App::start("outside", address::next(), 0).await);
    echoed(pair.proxy(), &tcp.address.to_string()).await;
    let of_tcp = line(folder.path(), tcp.address).await;
    assert_eq!((&of_tcp["protocol"], &of_tcp["response_flags"]), (&json!("TCP"), &json!("-")), "{of_tcp}");
    assert_eq!((&of_tcp["source_principal"], &of_tcp["destination_principal"]), (&json!(CALLER), &Value::Null));
    assert_eq!((&of_tcp["bytes_received"], &of_tcp["bytes_sent"]), (&json!(5), &json!(8)), "{of_tcp}");
    assert_eq!(Client::through(pair.proxy(), &http.address.to_string()).await.get("/who").await.text(), "outside");
    let of_http = line(folder.path(), http.address).await;
    assert_eq!((&of_http["response_code"], &of_http["path"]), (&json!(200), &json!("/who")), "{of_http}");
    assert_eq!(of_http["destination_principal"], Value::Null, "{of_http}");
}

/// How often a request was tried, and that the budget let nobody try again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_tells_attempts_and_those_that_were_refused() {
    for (per_second, attempts, refused) in [(1_000, json!(2), Value::Null), (0, Value::Null, json!(true))] {
        let folder = tempfile::tempdir().unwrap();
        let limits = json!({"retry_budget_percent": 0, "retry_budget_per_second": per_second});
        let traffic =
            json!({"policy": {"namespace": "default", "name": "p"}, "retry": {"codes": [503], "attempts": 1}});
        let pair = Pair::start_altered(
            &[(8080, Protocol::Http)],
            |of| match of {
                Of::Caller => json!({"access_log_file": log(folder.path()), "limits": limits}),
                Of::Origin => json!({"access_log_file": folder.path().join("origin.log")}),
            },
            |_, bundle| {
                bundle.mesh.iter_mut().for_each(|mesh| mesh.access_log = true);
                for service in bundle.services.values_mut() {
                    service.traffic = Some(serde_json::from_value(traffic.clone()).unwrap());
                }
            },
        );
        let app = App::start("one", pair.origin, 8080).await;
        app.fail(503);
        assert_eq!(Client::through(pair.proxy(), "origin:8080").await.get("/who").await.status, 503);
        let told = line(folder.path(), SocketAddr::new(pair.origin, 8080)).await;
        assert_eq!((&told["attempts"], &told["retry_refused"]), (&attempts, &refused), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_names_whom_tls_has_proved_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let ports = [(6000, Protocol::Tcp), (8080, Protocol::Http)];
    let pair = pair(folder.path(), &ports);
    let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
    let (_tcp, _http) = (TcpApp::start(pair.origin, 6000, "").await, App::start("one", pair.origin, 8080).await);
    echoed(pair.proxy(), "origin:6000").await;
    assert_eq!(Client::through(pair.proxy(), "origin:8080").await.get("/who").await.text(), "one");
    for port in [6000, 8080] {
        let told = line(folder.path(), at(pair.origin, port)).await;
        assert_eq!(told["destination_principal"], ORIGIN, "{told}");
        assert_eq!((&told["side"], &told["source_principal"]), (&json!("outbound"), &json!(CALLER)), "{told}");
    }
    // Nobody answers where this endpoint's proxy should be.
    let elsewhere = address::next();
    let dead = Pair::start_altered(
        &ports,
        |of| json!({"access_log_file": folder.path().join(format!("dead-{of:?}.log"))}),
        |_, bundle| {
            bundle.mesh.iter_mut().for_each(|mesh| mesh.access_log = true);
            let endpoints = bundle.services.values_mut().flat_map(|service| service.endpoints.values_mut());
            endpoints.for_each(|endpoint| endpoint.mesh_address = SocketAddr::new(elsewhere, 15008));
        },
    );
    assert_eq!(Client::through(dead.proxy(), "origin:8080").await.get("/who").await.status, 503);
    let (_, head) = try_tunnel(dead.proxy(), "origin:6000").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let lines = eventually("two lines", || async {
        let text = std::fs::read_to_string(folder.path().join("dead-Caller.log")).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    for line in lines {
        assert_eq!((&line["response_flags"], &line["destination_principal"]), (&json!("UF"), &Value::Null), "{line}");
    }
}
