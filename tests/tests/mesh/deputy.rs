//! The confused deputy: a peer with a good certificate asks a sidecar to reach what it does not serve. And peers without a
//! good certificate: each refused for a reason that the operator can read.

use http::Method;
use rcgen::SanType;
use weft_tests::{App, Mesh, Sidecar, TcpApp, Workload, address, eventually};

use super::rogue::{Days, Hello, Peer, VALID, dial, forged, greet, stolen, uri};

const MALLORY: &str = "spiffe://cluster.local/ns/default/sa/mallory";

struct Victim {
    mesh: Mesh,
    sidecar: Sidecar,
    app: App,
    _tcp: TcpApp,
    /// Another app on the same machine, not in the mesh.
    neighbour: App,
}

async fn victim() -> Victim {
    let mesh = Mesh::start().await;
    let workload = Workload::server("victim", 8080, "http").port(7000, "tcp");
    let app = App::start("victim", workload.ip, 8080).await;
    let tcp = TcpApp::start(workload.ip, 7000, "").await;
    let neighbour = App::start("neighbour", address::next(), 8080).await;
    let sidecar = mesh.sidecar(workload).await;
    Victim { mesh, sidecar, app, _tcp: tcp, neighbour }
}

impl Victim {
    async fn peer(&self) -> Peer {
        let mallory = stolen(&self.mesh, &[uri(MALLORY)], VALID);
        Peer::new(dial(Some(&mallory), self.sidecar.at(15008), "h3").await.expect("a good certificate gets in"))
    }

    async fn refused(&self) -> f64 {
        self.sidecar.metrics().await.sum("weft_misdirected_refused_total", &[])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_served_sockets_only() {
    let victim = victim().await;
    let peer = victim.peer().await;
    let good = victim.app.address.to_string();
    let (status, _) = peer.ask(Method::GET, "victim", Some("/who"), &[("weft-dst", &good)]).await.unwrap();
    assert_eq!(status, 200, "the served socket is served");

    let ip = victim.sidecar.workload.ip;
    let (status, _) =
        peer.ask(Method::GET, "victim", Some("/who"), &[("weft-dst", &format!("{ip}:7000"))]).await.unwrap();
    assert_eq!(status, 400, "a port that is declared tcp takes no request");
    let table: Vec<(&str, String)> = vec![
        ("another address", victim.neighbour.address.to_string()),
        ("loopback with the same port", "127.0.0.1:8080".to_owned()),
        ("any address", "0.0.0.0:8080".to_owned()),
        ("a port that is not declared", format!("{ip}:8081")),
        ("its explicit proxy", format!("{ip}:15080")),
        ("its outbound listener", format!("{ip}:15001")),
        ("its inbound listener", format!("{ip}:15006")),
        ("its mesh port", format!("{ip}:15008")),
        ("its admin", format!("{ip}:15000")),
        ("its metrics", format!("{ip}:15020")),
        ("its readiness", format!("{ip}:15021")),
        ("the control plane", format!("{}:15013", victim.mesh.ip)),
        ("IPv6 loopback", "[::1]:8080".to_owned()),
        ("v4 in v6", format!("[::ffff:{ip}]:8081")),
        ("a name", "localhost:8080".to_owned()),
        ("no port", ip.to_string()),
        ("port 0", format!("{ip}:0")),
        ("nonsense", "x".to_owned()),
        ("nothing", String::new()),
        ("two", format!("{good}, {}", victim.neighbour.address)),
    ];
    let (before, arrived) = (victim.refused().await, victim.app.served());
    let mut refused = 0.0;
    for (what, destination) in &table {
        let answer = peer.ask(Method::GET, "victim", Some("/who"), &[("weft-dst", destination)]).await;
        let (status, _) = answer.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!((400..500).contains(&status), "{what} ({destination}): {status}");
        refused += 1.0;
    }
    let missing = peer.ask(Method::GET, "victim", Some("/who"), &[]).await.unwrap().0;
    assert!((400..500).contains(&missing), "no weft-dst at all: {missing}");
    let twice = [("weft-dst", good.as_str()), ("weft-dst", "127.0.0.1:15000")];
    let twice = peer.ask(Method::GET, "victim", Some("/who"), &twice).await.unwrap().0;
    assert!((400..500).contains(&twice), "two of them: {twice}");
    assert_eq!((victim.neighbour.served(), victim.app.served()), (0, arrived), "nothing arrived anywhere");
    let after = victim.refused().await;
    assert!(after - before >= refused - 4.0, "each is counted: {before} {after}, {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_reach_served_sockets_only() {
    let victim = victim().await;
    let peer = victim.peer().await;
    let ip = victim.sidecar.workload.ip;
    let (status, _) = peer.ask(Method::CONNECT, &format!("{ip}:7000"), None, &[]).await.unwrap();
    assert_eq!(status, 200, "the served socket is served");
    for authority in [
        victim.neighbour.address.to_string(),
        "127.0.0.1:7000".to_owned(),
        format!("{ip}:22"),
        format!("{ip}:15000"),
        format!("{ip}:15001"),
        format!("{ip}:15006"),
        format!("{ip}:15008"),
        format!("{ip}:15020"),
        format!("{ip}:15080"),
        format!("{}:15012", victim.mesh.ip),
        "localhost:7000".to_owned(),
        "[::1]:7000".to_owned(),
        "victim:7000".to_owned(),
    ] {
        let answer = peer.ask(Method::CONNECT, &authority, None, &[]).await;
        assert!(answer.as_ref().is_ok_and(|(status, _)| (400..500).contains(status)), "{authority}: {answer:?}");
    }
    assert_eq!(victim.neighbour.served(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_cannot_name_another_source() {
    let victim = victim().await;
    victim.mesh.apply(
        "apiVersion: weft.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: friends, namespace: default}\nspec:\n  targetRefs: \
         [{kind: Service, name: victim}]\n  action: Allow\n  rules: [{from: [{principals: \
         [\"spiffe://cluster.local/ns/default/sa/friend\"]}]}]\n",
    );
    let peer = victim.peer().await;
    let destination = victim.app.address.to_string();
    let friend = "spiffe://cluster.local/ns/default/sa/friend";
    let lies = [
        ("weft-dst", destination.as_str()),
        ("weft-source", "friend"),
        ("x-forwarded-client-cert", friend),
        ("baggage", "k8s.service.account=friend"),
    ];
    let (status, headers) = peer.ask(Method::GET, "victim", Some("/who"), &lies).await.unwrap();
    assert_eq!(status, 403, "identity comes from TLS only");
    let reply = headers.get("weft-reply").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(reply.starts_with("inbound;"), "a meshed peer is told side, stage, rule and reason: {reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_http3_client_is_understood() {
    let victim = victim().await;
    let mallory = stolen(&victim.mesh, &[uri(MALLORY)], VALID);
    let connection = dial(Some(&mallory), victim.sidecar.at(15008), "h3").await.unwrap();
    let (mut driver, mut sender) = ::h3::client::new(h3_quinn::Connection::new(connection)).await.unwrap();
    let driving = tokio::spawn(async move { std::future::poll_fn(|context| driver.poll_close(context)).await });
    let request = http::Request::get("https://victim/who").header("weft-dst", victim.app.address.to_string());
    let mut stream = sender.send_request(request.body(()).unwrap()).await.unwrap();
    stream.finish().await.unwrap();
    let response = stream.recv_response().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(stream.recv_data().await.unwrap().is_some());
    drop((stream, sender));
    driving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_cancelled_requests_costs_its_connection() {
    let victim = victim().await;
    let destination = victim.app.address.to_string();
    let good = victim.peer().await;
    let flooding = victim.peer().await;
    let flood = async {
        loop {
            // Dropped before its answer, a request is reset and stopped.
            if let Err(error) = flooding.open(&destination).await {
                break error;
            }
        }
    };
    let error = tokio::time::timeout(std::time::Duration::from_secs(60), flood).await.expect("the flood ends");
    assert!(error.contains("given up before their answer"), "{error}");
    let counted = eventually("it is counted", || async {
        let metrics = victim.sidecar.metrics().await;
        let reasons = metrics.labels("weft_peer_violations_total", "reason");
        let count = metrics.sum("weft_peer_violations_total", &[("code", "H3_EXCESSIVE_LOAD")]);
        (count == 1.0).then_some(reasons)
    })
    .await;
    let log = victim.sidecar.process.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains(counted[0].as_str())).collect();
    assert!(lines.len() == 1 && lines[0].contains("H3_EXCESSIVE_LOAD"), "one line that says why: {lines:?}");
    let (status, _) = good.ask(Method::GET, "victim", Some("/who"), &[("weft-dst", &destination)]).await.unwrap();
    assert_eq!(status, 200, "the other connection of the same peer goes on");
}

/// Callers that must not get in, each with the reason that the operator reads.
fn bad_callers(mesh: &Mesh) -> Vec<(&'static str, Hello, &'static str)> {
    let (expired, later): (Days, Days) = (-3..-1, 1..3);
    let named = |names: &[SanType]| Hello::Tls13(Some(stolen(mesh, names, VALID)), "h3");
    let dated = |days: Days| Hello::Tls13(Some(stolen(mesh, &[uri(MALLORY)], days)), "h3");
    let mallory = || stolen(mesh, &[uri(MALLORY)], VALID);
    vec![
        ("no certificate", Hello::Tls13(None, "h3"), "no_certificate"),
        ("another authority", Hello::Tls13(Some(forged(&[uri(MALLORY)])), "h3"), "untrusted"),
        ("expired", dated(expired), "expired"),
        ("not yet valid", dated(later), "not_yet_valid"),
        ("two URI SANs", named(&[uri(MALLORY), uri("spiffe://cluster.local/ns/a/sa/b")]), "several_uri_sans"),
        ("no SAN", named(&[]), "no_uri_san"),
        ("DNS SAN only", named(&[SanType::DnsName("victim".try_into().unwrap())]), "no_uri_san"),
        ("not SPIFFE", named(&[uri("https://cluster.local/ns/a/sa/b")]), "bad_spiffe_id"),
        ("another trust domain", named(&[uri("spiffe://other.local/ns/a/sa/b")]), "untrusted"),
        ("a malformed SPIFFE ID", named(&[uri("spiffe://cluster.local/a/b")]), "bad_spiffe_id"),
        ("another protocol", Hello::Tls13(Some(mallory()), "hq-interop"), "alpn"),
        ("TLS 1.2", Hello::Tls12(mallory()), "protocol_version"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_certificates_are_refused_with_a_reason() {
    let victim = victim().await;
    let destination = victim.app.address.to_string();
    for (what, hello, reason) in bad_callers(&victim.mesh) {
        let counted = async || {
            let metrics = victim.sidecar.metrics().await;
            let labels = [("side", "inbound"), ("reason", reason)];
            let name = "weft_handshake_failures_total";
            (metrics.sum(name, &[]), metrics.sum(name, &labels))
        };
        let logged = || {
            let named = format!("reason=\"{reason}\"");
            let log = victim.sidecar.process.log();
            log.lines().filter(|line| line.contains("mesh handshake refused") && line.contains(&named)).count()
        };
        let before = counted().await;
        if let Ok(connection) = greet(&hello, victim.sidecar.at(15008)).await {
            let peer = Peer::new(connection);
            let answer = peer.ask(Method::GET, "victim", Some("/who"), &[("weft-dst", &destination)]).await;
            assert!(answer.is_err(), "{what}: answered {answer:?}");
        }
        eventually(&format!("{what} is counted"), || async { (counted().await.0 == before.0 + 1.0).then_some(()) })
            .await;
        assert_eq!(
            counted().await.1,
            before.1 + 1.0,
            "{what} is counted under {reason}:\n{}",
            victim.sidecar.process.log()
        );
        // The first of each reason within ten seconds has a line of its own; a flood has two.
        eventually(&format!("{what} is logged as {reason}"), || async { (logged() > 0).then_some(()) }).await;
    }
    assert_eq!(victim.app.served(), 0, "none of them reached the app");
}
