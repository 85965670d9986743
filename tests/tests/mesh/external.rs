//! Names outside the mesh that an ExternalService lets out: nothing else goes, what goes goes where the resource says, and with
//! TLS to nobody who can't prove his name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use weft_policy::bundle::{
    Backend, Balancing, Bundle, Egress, External, ExternalEndpoint, ExternalPort, ExternalProtocol, ExternalTls,
    Limits, ObjectName, PathChange, PathMatch, Retry, Revision, Rewrite, Route, RouteAction, RouteKind, RouteMatch,
    RouteRule, Traffic,
};
use weft_tests::client::{full, try_tunnel, tunnel};
use weft_tests::{App, Client, Mesh, TcpApp, Workload, address, eventually};

use super::in_process::{Of, Pair};

fn external(name: &str, hosts: &[&str], protocol: ExternalProtocol, port: u16, to: SocketAddr) -> External {
    External {
        name: ObjectName::new("default", name),
        mesh_wide: false,
        created: Revision(1),
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ports: vec![ExternalPort { port, target_port: port, protocol }],
        endpoints: vec![ExternalEndpoint { address: to.ip().to_string(), port: Some(to.port()) }],
        tls: None,
        traffic: None,
    }
}

/// The caller's proxy knows these, and lets nothing else out.
fn closed(externals: Vec<External>) -> Pair {
    routed(externals, Vec::new())
}

/// The same with routes.
fn routed(externals: Vec<External>, routes: Vec<Route>) -> Pair {
    Pair::start_with(&[], move |of, bundle: &mut Bundle| {
        if of == Of::Caller {
            bundle.mesh.as_mut().expect("settings").egress = Egress::RegistryOnly;
            bundle.externals = externals.iter().map(|it| (it.name.clone(), it.clone())).collect();
            bundle.routes = routes.iter().map(|it| (it.name.clone(), it.clone())).collect();
        }
    })
}

async fn get(proxy: SocketAddr, host: &str) -> (u16, String) {
    let answer = Client::through(proxy, host).await.get("/who").await;
    (answer.status.as_u16(), answer.text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_registry_only_what_an_external_service_names_is_the_only_way_out() {
    let app = App::start("outside", address::next(), 0).await;
    let bytes = TcpApp::start(address::next(), 0, "").await;
    let pair = closed(vec![
        external("api", &["api.example.com", "*.cdn.example.com"], ExternalProtocol::Http, 80, app.address),
        external("rpc", &["rpc.example.com"], ExternalProtocol::Grpc, 81, app.address),
        external("db", &["db.example.com"], ExternalProtocol::Tcp, 5432, bytes.address),
    ]);
    let served = (200, "outside".to_owned());
    assert_eq!(get(pair.proxy(), "api.example.com").await, served);
    assert_eq!(get(pair.proxy(), "a.b.cdn.example.com").await, served);
    // By the address of its endpoint, at the port that it declares.
    assert_eq!(get(pair.proxy(), &app.address.ip().to_string()).await, served);
    assert_eq!(Client::h1_in_tunnel(pair.proxy(), "api.example.com:80").await.get("/who").await.text(), "outside");
    assert_eq!(Client::h2_in_tunnel(pair.proxy(), "rpc.example.com:81").await.get("/who").await.text(), "outside");
    let before = app.served();
    for refused in ["cdn.example.com", "example.com", "api.example.com:81", &app.address.to_string()] {
        let (status, text) = get(pair.proxy(), refused).await;
        assert_eq!((status, text.contains("no ExternalService is for it")), (403, true), "{refused}: {text}");
        let authority = if refused.contains(':') { refused.to_owned() } else { format!("{refused}:80") };
        let (_, head) = try_tunnel(pair.proxy(), &authority).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{authority}: {head}");
    }
    // What is declared is law: no request to bytes, no bytes to requests.
    let (status, text) = get(pair.proxy(), "db.example.com:5432").await;
    assert_eq!((status, text.contains("declared tcp")), (400, true), "{text}");
    assert_eq!(app.served(), before);
    let mut stream = tunnel(pair.proxy(), "db.example.com:5432").await;
    stream.write_all(b"\x00there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), "\0there and backbye");
    // Counted by the resource, whatever name was asked for.
    eventually("requests are counted", || async {
        let series = pair.series(Of::Caller);
        let of = [("destination_service_name", "api"), ("destination_service", "api.example.com")];
        (series.sum("istio_requests_total", &of) >= 4.0).then_some(())
    })
    .await;
}

/// A rule for paths below a prefix that leads to an ExternalService.
fn leading(below: &str, to: &str, actions: Vec<RouteAction>) -> RouteRule {
    let to = Some(ObjectName::new("default", to));
    RouteRule {
        name: None,
        matches: vec![RouteMatch { path: Some(PathMatch::Prefix(below.to_owned())), ..RouteMatch::default() }],
        actions,
        backends: vec![Backend { service: to, outside: true, port: 80, weight: 1, actions: Vec::new() }],
    }
}

/// What goes outside meets routes and policies as what goes to a service does: it is led elsewhere, by the host of whom
/// it goes to, sent again within what is asked for, and kept to a time and a number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_policies_hold_for_what_goes_outside() {
    let [api, old] = [App::start("api", address::next(), 0).await, App::start("old", address::next(), 0).await];
    let http = |name: &str, host: &str, to: SocketAddr| external(name, &[host], ExternalProtocol::Http, 80, to);
    let traffic = Traffic {
        policy: ObjectName::new("default", "slow"),
        balancing: Balancing::default(),
        outliers: None,
        health_check: None,
        limits: Some(Limits { active: 1, pending_ms: 1_000, ..Limits::default() }),
        request_timeout_ms: Some(400),
        attempt_timeout_ms: None,
        stream_timeout_ms: None,
        retry: None,
        hedge: None,
    };
    let slow = External { traffic: Some(Box::new(traffic)), ..http("slow", "slow.example.com", api.address) };
    let path = Some(PathChange::Prefix { matched: "/old".to_owned(), to: "/".to_owned() });
    let retry = Retry { codes: vec![503], attempts: Some(2), backoff_ms: Some(1), ..Retry::default() };
    let route = Route {
        name: ObjectName::new("default", "r"),
        kind: RouteKind::Http,
        parent: ObjectName::new("default", "api"),
        outside: true,
        parent_port: None,
        consumer_namespace: None,
        hostnames: Vec::new(),
        created: Revision(1),
        rules: vec![
            leading("/old", "old", vec![RouteAction::Rewrite(Rewrite { host: None, path })]),
            leading("/", "api", vec![RouteAction::Retry(retry)]),
        ],
    };
    let externals =
        vec![http("api", "api.example.com", api.address), http("old", "old.example.com", old.address), slow];
    let pair = routed(externals, vec![route]);
    let mut client = Client::through(pair.proxy(), "api.example.com").await;
    let answer = client.get_with("/old/who", &[("x-show", "all")]).await;
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let host = serde_json::json!(["host", "old.example.com"]);
    let has_host = seen["headers"].as_array().is_some_and(|headers| headers.contains(&host));
    assert_eq!((seen["app"].as_str(), has_host), (Some("old"), true), "{}", answer.text());
    assert_eq!(client.get("/who").await.text(), "api");
    api.fail(503);
    let before = api.served();
    assert_eq!((client.get("/who").await.status.as_u16(), api.served() - before), (503, 3));
    // A route of one says nothing of what goes to the other itself.
    assert_eq!(get(pair.proxy(), "old.example.com").await, (200, "old".to_owned()));
    api.fail(0);
    let proxy = pair.proxy();
    let slow =
        || async move { Client::through(proxy, "slow.example.com").await.get("/slow/3000").await.status.as_u16() };
    let (one, other) = tokio::join!(slow(), slow());
    // One may be under way, and none may wait.
    assert_eq!([one.min(other), one.max(other)], [503, 504]);
    assert_eq!(get(pair.proxy(), "slow.example.com").await, (200, "api".to_owned()));
}

/// Somebody outside who speaks TLS as one of these names, and hands what is inside to an app.
struct Server {
    address: SocketAddr,
    /// Whoever believes this believes him.
    root: String,
    connections: Arc<AtomicU64>,
}

impl Server {
    async fn start(names: &[&str], back: SocketAddr) -> Self {
        let listener = TcpListener::bind((address::next(), 0)).await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let mut authority = CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // Of one name for each: a root of the same name would be tried, and found to be another by its key.
        authority.distinguished_name.push(DnType::CommonName, format!("authority of {address}"));
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap().der().clone();
        let leaf_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(weft_transport::tls::provider().clone());
        let config = config.with_protocol_versions(&[&rustls::version::TLS13]).unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![leaf], leaf_key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let seen = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(mut near) = acceptor.accept(near).await else { return };
                    seen.fetch_add(1, Ordering::SeqCst);
                    let mut far = TcpStream::connect(back).await.unwrap();
                    _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        Self { address, root, connections }
    }
}

fn with_tls(own: External, root: &str, server_name: Option<&str>) -> External {
    let (roots_pem, server_name) = (Some(root.to_owned()), server_name.map(str::to_owned));
    External { tls: Some(ExternalTls { server_name, roots_pem, ..ExternalTls::default() }), ..own }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_begun_with_who_proves_the_name_and_with_nobody_else() {
    let app = App::start("outside", address::next(), 0).await;
    let server = Server::start(&["api.example.com", "*.cdn.example.com"], app.address).await;
    let stranger = Server::start(&["api.example.com"], app.address).await;
    let bytes = TcpApp::start(address::next(), 0, "").await;
    let database = Server::start(&["db.example.com"], bytes.address).await;
    let http = |name: &str, host: &str, port| external(name, &[host], ExternalProtocol::Http, port, server.address);
    let further = |own: External, further: ExternalTls| {
        let tls = own.tls.map(|ExternalTls { roots_pem, .. }| ExternalTls { roots_pem, ..further });
        External { tls, ..own }
    };
    let db = external("db", &["db.example.com"], ExternalProtocol::Tcp, 5432, database.address);
    let under_tcp = ExternalTls { under_tcp: true, ..ExternalTls::default() };
    let bank = ExternalTls { certificate: Some("bank".to_owned()), ..ExternalTls::default() };
    let pair = closed(vec![
        further(with_tls(db, &database.root, None), under_tcp),
        further(with_tls(http("bank", "api.example.com", 83), &server.root, None), bank),
        with_tls(http("api", "api.example.com", 80), &server.root, None),
        with_tls(http("cdn", "*.cdn.example.com", 80), &server.root, None),
        with_tls(
            external("rpc", &["rpc.example.com"], ExternalProtocol::Grpc, 81, server.address),
            &server.root,
            Some("api.example.com"),
        ),
        // A root that did not issue what the server shows, and a name that is not his.
        with_tls(http("strange", "api.example.com", 82), &stranger.root, None),
        with_tls(http("other", "other.example.com", 80), &server.root, None),
    ]);
    let mut client = Client::through(pair.proxy(), "api.example.com").await;
    for round in 0..3 {
        let answer = client.call(Method::PUT, "/echo", &[], full(format!("round {round}"))).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, format!("round {round}")));
    }
    assert_eq!(server.connections.load(Ordering::SeqCst), 1, "a connection is kept, whatever TLS says on it meanwhile");
    let large = "x".repeat(3 << 20);
    let answer = client.call(Method::PUT, "/echo", &[], full(large.clone())).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().len()), (200, large.len()));
    assert_eq!(get(pair.proxy(), "a.cdn.example.com").await, (200, "outside".to_owned()));
    assert_eq!(Client::h2_in_tunnel(pair.proxy(), "rpc.example.com:81").await.get("/who").await.text(), "outside");
    // An app that speaks plain to a port of TCP has its proxy begin TLS, and each direction ends by itself.
    let mut stream = tunnel(pair.proxy(), "db.example.com:5432").await;
    stream.write_all(b"\x00there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&got), "\0there and backbye");
    assert_eq!(database.connections.load(Ordering::SeqCst), 1);
    let before = app.served();
    for (refused, reason) in [
        ("api.example.com:82", "UnknownIssuer"),
        ("other.example.com", "not valid for name"),
        ("api.example.com:83", "this proxy has no certificate \"bank\" for namespace default"),
    ] {
        let (status, text) = get(pair.proxy(), refused).await;
        assert_eq!(status, 502, "{refused}: {text}");
        assert!(text.contains("no TLS with") && text.contains(reason), "{refused}: {text}");
    }
    assert_eq!(app.served(), before);
}

/// The same by a control plane and a sidecar: what is applied is what goes out, from then on and as long as it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_external_service_is_applied_explained_and_deleted() {
    let mesh = Mesh::start().await;
    let caller = mesh.sidecar(Workload::client("shopper")).await;
    let app = App::start("outside", address::next(), 0).await;
    mesh.apply("{apiVersion: weft.dev/v1alpha1, kind: Mesh, metadata: {name: mesh}, spec: {egress: RegistryOnly}}\n");
    assert_eq!(get(caller.proxy(), "api.example.com").await.0, 403);
    mesh.apply(&format!(
        "{{apiVersion: weft.dev/v1alpha1, kind: ExternalService, metadata: {{name: api, namespace: default}}, spec: {{hosts: \
         [api.example.com], ports: [{{port: 80, protocol: http, targetPort: {}}}], resolution: Static, endpoints: \
         [{{address: {}}}]}}}}\n",
        app.address.port(),
        app.address.ip()
    ));
    assert_eq!(get(caller.proxy(), "api.example.com").await, (200, "outside".to_owned()));
    let explained = mesh.weft(&["explain", "--from", "default/shopper", "--to", "api.example.com"]);
    let told = format!("dialled: {}, http as the app sends it", app.address);
    assert!(explained.out.contains("ExternalService default/api lets requests out"), "{}", explained.out);
    assert!(explained.out.contains(&told), "{}", explained.out);
    // It is routed, and policies set its times, as those of a service.
    mesh.apply(
        "{apiVersion: weft.dev/v1alpha1, kind: TrafficPolicy, metadata: {name: api, namespace: default}, spec: {targetRefs: [{kind: \
         ExternalService, name: api}], timeouts: {request: 9s}}}\n---\n{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, \
         metadata: {name: api, namespace: default}, spec: {parentRefs: [{group: weft.dev, kind: ExternalService, name: api}], rules: \
         [{matches: [{path: {value: /who}}], backendRefs: [{group: weft.dev, kind: ExternalService, name: api, port: 80}]}]}}\n",
    );
    eventually("the route holds", || async {
        let answer = Client::through(caller.proxy(), "api.example.com").await.get("/elsewhere").await;
        (answer.status.as_u16() == 404 && answer.text().contains("no rule")).then_some(())
    })
    .await;
    assert_eq!(get(caller.proxy(), "api.example.com").await, (200, "outside".to_owned()));
    let explained = mesh.weft(&["explain", "--from", "default/shopper", "--to", "api.example.com", "--path", "/who"]);
    for told in ["HTTPRoute default/api", "9s in all, as TrafficPolicy default/api says", told.as_str()] {
        assert!(explained.out.contains(told), "{told}: {}", explained.out);
    }
    let described = mesh.weft(&["describe", "externalservice", "api"]);
    assert!(described.out.contains("- api.example.com"), "{}{}", described.out, described.err);
    let listed = mesh.weft(&["get", "externalservices"]);
    assert!(listed.out.contains("api.example.com"), "{}{}", listed.out, listed.err);
    assert_eq!(mesh.weft(&["delete", "externalservice", "api"]).code, 0);
    eventually("it is let out no longer", || async {
        (get(caller.proxy(), "api.example.com").await.0 == 403).then_some(())
    })
    .await;
}
