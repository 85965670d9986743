//! TCPRoutes and TLSRoutes between real sidecars: connections split by weight, led by the server name that they ask for, and
//! refused where no route is for them; and a backend of another namespace for as long as that one grants it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_tests::client::try_tunnel;
use weft_tests::{Mesh, Sidecar, TcpApp, Workload, address, eventually};

fn service(name: &str, app: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{selector: {{app: {app}}}, ports: \
         [{{port: {port}, appProtocol: tcp}}]}}\n"
    )
}

fn route(kind: &str, name: &str, parent: &str, rest: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec: \
         {{parentRefs: [{{group: '', kind: Service, name: {parent}}}], {rest}}}\n"
    )
}

/// What `count` connections to the database are greeted with, or the status that they are refused with.
async fn greetings(client: &Sidecar, count: u32) -> BTreeMap<String, u32> {
    let mut greeted = BTreeMap::new();
    for _ in 0..count {
        let (mut stream, head) = try_tunnel(client.proxy(), "db:5432").await;
        let met = match head.split(' ').nth(1) {
            Some("200") => {
                let mut greeting = [0; 2];
                stream.read_exact(&mut greeting).await.unwrap();
                String::from_utf8_lossy(&greeting).into_owned()
            }
            status => status.unwrap_or_default().to_owned(),
        };
        *greeted.entry(met).or_default() += 1;
    }
    greeted
}

/// The reason of the condition `ResolvedRefs` of the route.
fn resolved(mesh: &Mesh) -> String {
    let printed = mesh.weft(&["get", "tcproutes", "db", "-o", "json"]).json();
    let conditions = printed["status"]["parents"][0]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition["type"] == "ResolvedRefs");
    found.unwrap_or_else(|| panic!("{printed}"))["reason"].as_str().unwrap().to_owned()
}

const GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: to-db, namespace: bank}\n\
    spec: {from: [{group: gateway.networking.k8s.io, kind: TCPRoute, namespace: default}], to: [{group: '', kind: Service, name: \
    db-v2}]}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_split_for_as_long_as_the_other_namespace_grants_it() {
    let mesh = Mesh::start().await;
    let own = Workload::server("db-v1", 5432, "tcp");
    let foreign = Workload::server("db-v2", 5432, "tcp").namespace("bank");
    let _apps = [TcpApp::start(own.ip, 5432, "v1").await, TcpApp::start(foreign.ip, 5432, "v2").await];
    let _servers = [mesh.sidecar(own).await, mesh.sidecar(foreign).await];
    mesh.apply(&service("db", "db-v1", 5432));
    let client = mesh.sidecar(Workload::client("caller")).await;
    let only = |greeting: &str, count: u32| BTreeMap::from([(greeting.to_owned(), count)]);
    eventually("db is reachable", || async { (greetings(&client, 5).await == only("v1", 5)).then_some(()) }).await;

    let backends = "[{name: db-v1, port: 5432}, {name: db-v2, namespace: bank, port: 5432}]";
    mesh.apply(&route("TCPRoute", "db", "db", &format!("rules: [{{backendRefs: {backends}}}]")));
    assert_eq!(resolved(&mesh), "RefNotPermitted");
    // Half of a hundred, by dice: five deviations on both sides.
    let is_half = |met: &BTreeMap<String, u32>, other: &str| {
        let counts = ["v1", other].map(|key| met.get(key).copied().unwrap_or_default());
        counts[0] + counts[1] == 100 && (25..=75).contains(&counts[1])
    };
    let refused = greetings(&client, 100).await;
    assert!(is_half(&refused, "500"), "what is not granted keeps its share: {refused:?}");

    mesh.apply(GRANT);
    assert_eq!(resolved(&mesh), "ResolvedRefs");
    let split = greetings(&client, 100).await;
    assert!(is_half(&split, "v2"), "{split:?}");
    let weighed = backends.replace("v2, namespace: bank, port: 5432", "v2, namespace: bank, port: 5432, weight: 0");
    mesh.apply(&route("TCPRoute", "db", "db", &format!("rules: [{{backendRefs: {weighed}}}]")));
    assert_eq!(greetings(&client, 20).await, only("v1", 20));
    mesh.apply(&route("TCPRoute", "db", "db", "rules: [{backendRefs: [{name: db-v2, namespace: bank, port: 5432}]}]"));
    assert_eq!(greetings(&client, 20).await, only("v2", 20));
    let explained = mesh.weft(&["explain", "--from", "default/caller", "--to", "db:5432"]);
    assert!(explained.out.contains("TCPRoute default/db") && explained.out.contains("bank/db-v2"), "{}", explained.out);

    let printed = mesh.weft(&["delete", "referencegrant", "to-db", "--namespace", "bank"]);
    assert_eq!(printed.code, 0, "{}", printed.err);
    eventually("nobody is led there any more", || async {
        (greetings(&client, 5).await == only("500", 5)).then_some(())
    })
    .await;
    assert_eq!(resolved(&mesh), "RefNotPermitted");
    let metrics = client.metrics().await;
    let labels = [("side", "outbound"), ("reason", "backend_not_found")];
    assert!(metrics.sum("weft_local_replies_total", &labels) >= 5.0, "each is counted with its reason");

    // Out of the mesh, as an ExternalService says.
    let outside = TcpApp::start(address::next(), 0, "ex").await;
    mesh.apply(&format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: ExternalService, metadata: {{name: old-db, namespace: default}}, spec: {{hosts: \
         [db.example.com], ports: [{{port: 5432, protocol: tcp}}], resolution: Static, endpoints: [{{address: {}, port: {}}}]}}}}\n",
        outside.address.ip(),
        outside.address.port()
    ));
    let out = "rules: [{backendRefs: [{group: weft.dev, kind: ExternalService, name: old-db, port: 5432}]}]";
    mesh.apply(&route("TCPRoute", "db", "db", out));
    assert_eq!(resolved(&mesh), "ResolvedRefs");
    assert_eq!(greetings(&client, 5).await, only("ex", 5));
    let explained = mesh.weft(&["explain", "--from", "default/caller", "--to", "db:5432"]);
    let told = format!("dialled: {}, tcp as the app sends it", outside.address);
    assert!(
        explained.out.contains("ExternalService default/old-db") && explained.out.contains(&told),
        "{}",
        explained.out
    );
}

/// A server of TLS that says its name to whoever got through, whichever server was asked for.
async fn secure(name: &'static str, ip: IpAddr, port: u16) {
    let key = KeyPair::generate().unwrap();
    let names = ["a.example", "x.b.example", "c.example"].map(str::to_owned);
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind((ip, port)).await.unwrap());
    TRUSTED.lock().unwrap().push(certificate.der().clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                _ = stream.write_all(name.as_bytes()).await;
                _ = stream.shutdown().await;
            });
        }
    });
}

/// The certificates of the servers: each is its own authority.
static TRUSTED: std::sync::Mutex<Vec<rustls_pki_types::CertificateDer<'static>>> = std::sync::Mutex::new(Vec::new());

fn trusting() -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in TRUSTED.lock().unwrap().iter() {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

async fn tunnel(client: &Sidecar) -> TcpStream {
    let (stream, head) = try_tunnel(client.proxy(), "front:8443").await;
    assert!(head.starts_with("HTTP/1.1 200"), "what it is sent on by comes in it: {head}");
    stream
}

/// The server that a handshake for a name is made with; `None`: there is none.
async fn served(client: &Sidecar, name: &str) -> Option<String> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(trusting()).connect(name, tunnel(client).await).await.ok()?;
    let mut said = String::new();
    stream.read_to_string(&mut said).await.ok()?;
    Some(said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_led_by_the_name_that_it_asks_for() {
    let mesh = Mesh::start().await;
    let mut servers = Vec::new();
    for name in ["tls-a", "tls-b"] {
        let workload = Workload::server(name, 8443, "tcp");
        secure(name, workload.ip, 8443).await;
        servers.push(mesh.sidecar(workload).await);
    }
    mesh.apply(&service("front", "tls-a", 8443));
    let client = mesh.sidecar(Workload::client("caller")).await;
    eventually("front is reachable", || async { served(&client, "c.example").await }).await;

    let to = |names: &str, backend: &str| {
        format!("hostnames: [{names}], rules: [{{backendRefs: [{{name: {backend}, port: 8443}}]}}]")
    };
    let routes = [("a", to("a.example", "tls-a")), ("b", to("'*.b.example'", "tls-b"))];
    mesh.apply(&routes.map(|(name, rest)| route("TLSRoute", name, "front", &rest)).join("---\n"));
    for (name, expect) in [("a.example", Some("tls-a")), ("x.b.example", Some("tls-b")), ("c.example", None)] {
        assert_eq!(served(&client, name).await.as_deref(), expect, "{name}");
    }
    // A ClientHello in pieces is one; what is none goes nowhere.
    let name = ServerName::try_from("x.b.example").unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(trusting(), name).unwrap().write_tls(&mut hello).unwrap();
    let mut stream = tunnel(&client).await;
    stream.set_nodelay(true).unwrap();
    for piece in hello.chunks(100) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(stream.read_u8().await.unwrap(), 22, "the server's part of the handshake");
    let mut stream = tunnel(&client).await;
    stream.write_all(b"\0plain").await.unwrap();
    let mut nothing = Vec::new();
    let ended = tokio::time::timeout(weft_tests::wait::LIMIT, stream.read_to_end(&mut nothing)).await;
    assert!(ended.is_ok() && nothing.is_empty(), "{ended:?} {nothing:?}");
    let explain =
        |sni: &str| mesh.weft(&["explain", "--from", "default/caller", "--to", "front:8443", "--sni", sni]).out;
    let explained = explain("x.b.example");
    assert!(explained.contains("TLSRoute default/b") && explained.contains("default/tls-b"), "{explained}");
    let explained = explain("c.example");
    assert!(explained.contains("no TLSRoute of default/front is for the server name c.example"), "{explained}");
}
