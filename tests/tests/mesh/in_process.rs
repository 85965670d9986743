//! The third level between unit tests and whole meshes: two proxies inside the test process, over loopback sockets, with a bundle
//! and certificates made by hand. No control plane, no doors, no child process.

mod filters;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use weft_filter_host::{Host, HostConfig, Prepared};
use weft_policy::bundle::{
    AppVersion, Bundle, Egress, Endpoint, MeshSettings, ObjectName, Protocol, Revision, ServedWorkload, Service,
    ServicePort, WorkloadPort,
};
use weft_policy::path::PathReading;
use weft_proxy::app;
use weft_proxy::config::Config;
use weft_proxy::shared::Shared;
use weft_proxy::snapshot::{Awaited, Loaded, Snapshot};
use weft_proxy::stalls::StallSums;
use weft_proxy::telemetry::render;
use weft_tests::{Scrape, address};
use weft_transport::quic::SharedKeys;
use weft_transport::tls::{IdentityHandle, Trust, WorkloadIdentity};

const DOMAIN: &str = "cluster.local";

pub(super) use filters::{
    Filter, attach, attach_all, attach_claims, attach_with, attachment, prepared, specification, wasm,
};

/// A port of the service `origin`, the same at the service and at its workload.
pub(super) type Port = (u16, Protocol);

/// A caller and the workload behind the service `origin`, each with its proxy.
pub(super) struct Pair {
    pub(super) caller: IpAddr,
    pub(super) origin: IpAddr,
    proxies: Vec<Arc<Shared>>,
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Caller,
    Origin,
}

impl Pair {
    /// # Panics
    /// When a proxy can't be started.
    pub(super) fn start(ports: &[Port]) -> Self {
        Self::begin(ports, |_| json!({}), |_, _| {})
    }

    /// The same, each on its bundle as `change` leaves it.
    ///
    /// # Panics
    /// When a proxy can't be started.
    pub(super) fn start_with(ports: &[Port], change: impl Fn(Of, &mut Bundle)) -> Self {
        Self::begin(ports, |_| json!({}), change)
    }

    /// The same with `limits` in the configuration of both proxies.
    ///
    /// # Panics
    /// When a proxy can't be started.
    pub(super) fn start_limited(ports: &[Port], limits: &Value) -> Self {
        Self::begin(ports, |_| json!({"limits": limits}), |_, _| {})
    }

    /// The same with `settings` in the configuration of each, and an access log.
    ///
    /// # Panics
    /// When a proxy can't be started.
    pub(super) fn start_logged(ports: &[Port], settings: impl Fn(Of) -> Value) -> Self {
        let logged = |_, bundle: &mut Bundle| bundle.mesh.iter_mut().for_each(|mesh| mesh.access_log = true);
        Self::begin(ports, settings, logged)
    }

    /// The same with `settings` in the configuration of each, on its bundle as `change` leaves it.
    ///
    /// # Panics
    /// When a proxy can't be started.
    pub(super) fn start_altered(
        ports: &[Port],
        settings: impl Fn(Of) -> Value,
        change: impl Fn(Of, &mut Bundle),
    ) -> Self {
        Self::begin(ports, settings, change)
    }

    fn begin(ports: &[Port], settings: impl Fn(Of) -> Value, change: impl Fn(Of, &mut Bundle)) -> Self {
        let authority = Authority::new();
        let mut pair = Self { caller: address::next(), origin: address::next(), proxies: Vec::new() };
        let services = BTreeMap::from([(name("origin"), pair.service(ports))]);
        let of = [(Of::Caller, "caller", pair.caller, &[][..]), (Of::Origin, "origin", pair.origin, ports)];
        for (of, account, ip, ports) in of {
            let mut bundle = Bundle {
                revision: Revision(1),
                mesh: Some(mesh_settings(&authority.pem)),
                workloads: BTreeMap::from([(format!("default/{account}"), workload(account, ip, ports))]),
                services: services.clone(),
                ..Bundle::default()
            };
            change(of, &mut bundle);
            pair.proxies.push(proxy(account, ip, settings(of), &authority.identity(account), bundle));
        }
        pair
    }

    fn service(&self, ports: &[Port]) -> Service {
        let endpoint = Endpoint {
            workload: name("origin"),
            identity: Some(spiffe("origin").parse().expect("a SPIFFE ID")),
            address: self.origin,
            addresses: Vec::new(),
            mesh_address: SocketAddr::new(self.origin, 15008),
            weight: 1,
            labels: BTreeMap::new(),
        };
        let port = |(port, protocol): &Port| ServicePort {
            name: None,
            port: *port,
            target_port: *port,
            protocol: *protocol,
            app_version: AppVersion::AsCaller,
            opaque_refused: false,
            other_targets: BTreeMap::new(),
        };
        Service {
            name: name("origin"),
            ports: ports.iter().map(port).collect(),
            vip: None,
            path_reading: PathReading::default(),
            traffic: None,
            spread: None,
            endpoints: BTreeMap::from([(name("origin"), endpoint)]),
        }
    }

    pub(super) fn shared(&self, of: Of) -> &Arc<Shared> {
        &self.proxies[of as usize]
    }

    /// The request series of one of them.
    pub(super) fn series(&self, of: Of) -> Scrape {
        let mut text = String::new();
        render::series(&self.shared(of).series, &mut text);
        Scrape::parse(&text)
    }

    /// Gives one of them another configuration, as the control plane would. `filters` are those that are ready, by name.
    ///
    /// # Panics
    /// When it can't be served.
    pub(super) fn change(&self, of: Of, filters: &HashMap<String, Arc<Prepared>>, change: impl FnOnce(&mut Bundle)) {
        let shared = self.shared(of);
        let current = shared.snapshot.load_full().expect("it serves");
        let mut bundle = (*current.bundle).clone();
        change(&mut bundle);
        shared.swap(Snapshot::build(Arc::new(bundle), filters).expect("a bundle that can be served"));
    }

    /// The same while some filters are awaited: of those, `loaded` are what ran before.
    ///
    /// # Panics
    /// When it can't be served.
    pub(super) fn stage(&self, of: Of, (loaded, awaited): (&Loaded, &Awaited), change: impl FnOnce(&mut Bundle)) {
        let shared = self.shared(of);
        let current = shared.snapshot.load_full().expect("it serves");
        let mut bundle = (*current.bundle).clone();
        change(&mut bundle);
        let staged = Snapshot::staged(Some(&current), Arc::new(bundle), loaded, awaited);
        shared.swap(staged.expect("a bundle that can be served"));
    }

    /// Sums that the caller's proxy and the origin's hold for streams that stall.
    pub(super) fn stalls(&self) -> Vec<StallSums> {
        self.proxies.iter().map(|shared| shared.stalls.sums()).collect()
    }

    /// The caller's proxy for applications.
    pub(super) fn proxy(&self) -> SocketAddr {
        SocketAddr::new(self.caller, 15080)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for shared in &self.proxies {
            shared.drain.quit();
        }
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

fn spiffe(account: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/sa/{account}")
}

fn mesh_settings(trust: &str) -> MeshSettings {
    MeshSettings {
        trust_domain: DOMAIN.parse().expect("a trust domain"),
        trust_bundle_pem: trust.to_owned(),
        access_log: false,
        request_timeout_ms: None,
        connect_timeout_ms: 5_000,
        max_retries: 2,
        egress: Egress::Allow,
        namespaces: BTreeSet::new(),
        ranges: None,
    }
}

fn workload(account: &str, ip: IpAddr, ports: &[Port]) -> ServedWorkload {
    ServedWorkload {
        name: name(account),
        identity: spiffe(account).parse().expect("a SPIFFE ID"),
        address: ip,
        addresses: Vec::new(),
        ports: ports.iter().map(|(port, protocol)| WorkloadPort::new(*port, *protocol)).collect(),
        labels: BTreeMap::new(),
        service: None,
        outbound_closed: None,
    }
}

fn proxy(account: &str, ip: IpAddr, settings: Value, identity: &IdentityHandle, bundle: Bundle) -> Arc<Shared> {
    let at = |port: u16| SocketAddr::new(ip, port).to_string();
    let mut text = json!({
        "name": account,
        "state_dir": "/nonexistent",
        "control": {"address": "https://127.0.0.1:1", "ca_file": "/nonexistent"},
        "workload": {"namespace": "default", "service_account": account, "address": ip},
        "listen": {
            "explicit": at(15080), "mesh": at(15008), "admin": at(15000), "metrics": at(15020), "health": at(15021),
        },
        "workers": 1,
    });
    if let (Value::Object(text), Value::Object(settings)) = (&mut text, settings) {
        text.extend(settings);
    }
    let config = Config::parse(Path::new("in-process.yaml"), &text.to_string()).expect("a configuration");
    let host = Host::new(HostConfig::default()).expect("a filter host");
    let shared = Arc::new(Shared::new(config, host).expect("what workers share"));
    shared.swap(Snapshot::build(Arc::new(bundle), &HashMap::new()).expect("a bundle that can be served"));
    app::start_data_plane(&shared, identity, &SharedKeys::from_secret(&[7; 32])).expect("workers");
    shared
}

/// An authority for one test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, DOMAIN);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("an authority").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn identity(&self, account: &str) -> IdentityHandle {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(spiffe(account).as_str().try_into().expect("ASCII"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate").der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let identity = WorkloadIdentity::new(vec![leaf], key).expect("an SVID");
        IdentityHandle::new(identity, Trust::from_pem(DOMAIN, &self.pem).expect("a trust bundle"))
    }
}

mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use weft_policy::bundle::Protocol;
    use weft_tests::client::tunnel;
    use weft_tests::{App, Client, TcpApp};

    use super::Pair;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_proxies_in_one_process_carry_http_and_grpc() {
        let pair = Pair::start(&[(8080, Protocol::Http), (8081, Protocol::Grpc)]);
        let _apps = (App::start("one", pair.origin, 8080).await, App::start("two", pair.origin, 8081).await);
        assert_eq!(Client::through(pair.proxy(), "origin:8080").await.get("/who").await.text(), "one");
        assert_eq!(Client::h1_in_tunnel(pair.proxy(), "origin:8080").await.get("/who").await.text(), "one");
        assert_eq!(Client::h2_in_tunnel(pair.proxy(), "origin:8081").await.get("/who").await.text(), "two");
    }

    /// The status of the answer to a request on the explicit proxy.
    async fn status_of(proxy: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(proxy).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(!answer.contains("secret"), "{answer}");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_proxy_answers_what_must_not_go_on() {
        let pair = Pair::start(&[(8080, Protocol::Http)]);
        let _app = App::start("one", pair.origin, 8080).await;
        let last = |method: &str| {
            format!("{method} http://origin:8080/ HTTP/1.1\r\nhost: a\r\ncookie: secret\r\nmax-forwards: 0\r\n\r\n")
        };
        assert_eq!(status_of(pair.proxy(), "GET / HTTP/1.0\r\n\r\n").await, "400", "nobody says whereto");
        assert_eq!(status_of(pair.proxy(), &last("OPTIONS")).await, "200");
        assert_eq!(status_of(pair.proxy(), &last("TRACE")).await, "501");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_app_that_speaks_no_http2_is_a_bad_gateway() {
        let pair = Pair::start(&[(8080, Protocol::Http)]);
        let listener = TcpListener::bind((pair.origin, 8080)).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
            }
        });
        let answer = Client::h2_in_tunnel(pair.proxy(), "origin:8080").await.get("/").await;
        assert_eq!(answer.status.as_u16(), 502);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_proxies_in_one_process_carry_tcp() {
        let pair = Pair::start(&[(6000, Protocol::Tcp), (6001, Protocol::Auto)]);
        let _apps = (TcpApp::start(pair.origin, 6000, "").await, TcpApp::start(pair.origin, 6001, "hello").await);
        for (port, greeting) in [(6000, ""), (6001, "hello")] {
            let mut stream = tunnel(pair.proxy(), &format!("origin:{port}")).await;
            stream.write_all(b"\x00to and fro").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&got), format!("{greeting}\0to and frobye"));
        }
    }
}
