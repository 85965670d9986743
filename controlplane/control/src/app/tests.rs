//! A whole control plane in this process on ports of its own, clients for both of its ports, and what concerns the
//! process as a whole: first start, restart, shutdown, renewal.

mod away;
mod real;
mod roots;
mod several;
mod strangers;
mod token_file;

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use weft_policy::wire::{CAPABILITIES, Received, encode, v1, v1::mesh_control_client::MeshControlClient};
use weft_policy::{bundle::Bundle, delta::Delta};

use super::*;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A running control plane and its state folder.
pub(crate) struct Control {
    pub(crate) app: App,
    pub(crate) state: PathBuf,
    http: reqwest::Client,
}

/// A proxy's identity as files would hold it.
#[derive(Clone)]
pub(crate) struct Svid {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    pub(crate) identity: String,
}

impl Control {
    pub(crate) async fn start(state: &Path) -> Self {
        Self::start_with(state, |_| {}).await
    }

    pub(crate) async fn start_with(state: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Self::config(state);
        change(&mut config);
        Self::of(App::start(config).await.unwrap(), state)
    }

    fn config(state: &Path) -> Config {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ports = crate::config::Ports::ANY;
        // The filters of these tests are shapes only: there is nothing in them to try.
        let config = Config { state: state.to_owned(), try_filters: false, ports, ..Config::default() };
        Config { coalesce_quiet_ms: 10, disconnect_grace_ms: 50, ..config }
    }

    fn of(app: App, state: &Path) -> Self {
        let root = reqwest::Certificate::from_pem(app.hub.authority().trust_bundle_pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
        Self { app, state: state.to_owned(), http }
    }

    pub(crate) fn admin_token(&self) -> String {
        std::fs::read_to_string(self.state.join("operator.token")).unwrap().trim().to_owned()
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url = format!("https://{}{path}", self.app.api_address);
        self.http.request(method.to_uppercase().parse().unwrap(), url)
    }

    /// A call with the first token; status and body.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_as(&self.admin_token(), method, path, body).await
    }

    pub(crate) async fn call_as(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.request(method, path).bearer_auth(token);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
    }

    /// Applies YAML and gives the revision.
    pub(crate) async fn apply(&self, yaml: &str) -> u64 {
        let (status, body) = self.call("post", "/api/v1/apply", json!({ "documents": documents(yaml) })).await;
        assert_eq!(status, 200, "{body}");
        body["revision"].as_u64().unwrap()
    }

    pub(crate) async fn join_token(&self, account: &str) -> String {
        let body = json!({ "kind": "join", "service_account": account });
        let (status, body) = self.call("post", "/api/v1/tokens", body).await;
        assert_eq!(status, 200, "{body}");
        body["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn grpc(&self, svid: Option<&Svid>) -> MeshControlClient<Channel> {
        let ca = Certificate::from_pem(self.app.hub.authority().trust_bundle_pem());
        let mut tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("weft-control");
        if let Some(svid) = svid {
            tls = tls.identity(Identity::from_pem(&svid.chain_pem, &svid.key_pem));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.app.grpc_address)).unwrap();
        MeshControlClient::new(endpoint.tls_config(tls).unwrap().connect().await.unwrap())
    }

    /// Joins as an account of a namespace.
    pub(crate) async fn join(&self, account: &str) -> Svid {
        let token = self.join_token(account).await;
        let key = KeyPair::generate().unwrap();
        let request = v1::JoinRequest { token, csr_der: csr(&key), ..Default::default() };
        let response = self.grpc(None).await.join(request).await.unwrap().into_inner();
        svid(&response.certificate_chain_der, &key, response.workload_identity)
    }

    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.app.metrics_address);
        self.http.get(url).send().await.unwrap().text().await.unwrap()
    }
}

pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    let parsed = weft_policy::manifest::parse("test.yaml", yaml).unwrap();
    parsed.iter().map(|document| document.resource.revealed().unwrap()).collect()
}

pub(crate) fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn svid(chain: &[impl AsRef<[u8]>], key: &KeyPair, identity: String) -> Svid {
    use base64::Engine as _;
    let pem = |der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    let chain_pem = chain.iter().map(|der| pem(der.as_ref())).collect();
    Svid { chain_pem, key_pem: key.serialize_pem(), identity }
}

/// Hello of a proxy of this version.
pub(crate) fn greeting() -> v1::Hello {
    let capabilities = CAPABILITIES.map(str::to_owned).to_vec();
    v1::Hello { version: "test".to_owned(), capabilities, ..Default::default() }
}

/// The proxy's side of a control stream; it keeps a bundle as a proxy does.
pub(crate) struct Proxy {
    pub(crate) bundle: Bundle,
    /// The store of the last delta, and its view.
    pub(crate) lineage: Option<v1::Lineage>,
    pub(crate) view: u64,
    pub(crate) denied: Vec<String>,
    evicted: Vec<String>,
    outgoing: tokio::sync::mpsc::Sender<v1::ProxyMessage>,
    incoming: tonic::Streaming<v1::ControlMessage>,
}

impl Proxy {
    /// Connects as proxy `name` with one workload, or none, and what `bundle` holds already.
    pub(crate) async fn connect(
        control: &Control,
        svid: &Svid,
        name: &str,
        workload: Option<v1::WorkloadRegistration>,
        bundle: Bundle,
    ) -> Self {
        let held = bundle.objects();
        let known = held.values().map(encode).map(|it| v1::ObjectVersion { key: it.key, version: it.version });
        let hello = v1::Hello {
            proxy_name: name.to_owned(),
            workloads: workload.into_iter().collect(),
            known: known.collect(),
            current_revision: bundle.revision.0,
            ..greeting()
        };
        Box::pin(Self::connect_with(control, svid, hello, bundle)).await
    }

    pub(crate) async fn connect_with(control: &Control, svid: &Svid, hello: v1::Hello, bundle: Bundle) -> Self {
        let (outgoing, receiver) = tokio::sync::mpsc::channel(16);
        outgoing.send(message(v1::proxy_message::Message::Hello(hello))).await.unwrap();
        let mut client = control.grpc(Some(svid)).await;
        let incoming = client.connect(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { bundle, lineage: None, view: 0, denied: Vec::new(), evicted: Vec::new(), outgoing, incoming }
    }

    /// The next delta, or why there is none.
    pub(crate) async fn try_delta(&mut self) -> Result<Delta, String> {
        loop {
            match self.told().await? {
                v1::control_message::Message::Delta(mut delta) => {
                    self.lineage = delta.lineage.take();
                    self.view = delta.view;
                    return Received::try_from(delta).map(|it| it.delta).map_err(|refused| refused.reason);
                }
                v1::control_message::Message::Notice(notice) => return Err(format!("notice: {}", notice.reason)),
                v1::control_message::Message::Denials(denials) => self.keep_out(denials),
            }
        }
    }

    fn keep_out(&mut self, denials: v1::Denials) {
        self.denied = denials.identities;
        self.evicted = denials.evicted.into_iter().map(|evicted| evicted.serial).collect();
    }

    /// The next message, or why there is none.
    async fn told(&mut self) -> Result<v1::control_message::Message, String> {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await.map_err(|_| "nothing came")?;
        let message = next.map_err(|status| status.message().to_owned())?.and_then(|message| message.message);
        message.ok_or_else(|| "the stream ended".to_owned())
    }

    /// Waits until exactly these identities are kept out.
    pub(crate) async fn until_denied(&mut self, wanted: &[&str]) {
        self.until(|proxy| proxy.denied == wanted).await;
    }

    /// Waits until the connections of this certificate end.
    pub(crate) async fn until_evicted(&mut self, svid: &Svid) {
        let (_, pem) = x509_parser::pem::parse_x509_pem(svid.chain_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        self.until(|proxy| proxy.evicted == [certificate.serial.to_str_radix(16)]).await;
    }

    async fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        while !is_so(self) {
            match self.told().await.unwrap() {
                v1::control_message::Message::Denials(denials) => self.keep_out(denials),
                v1::control_message::Message::Delta(_) => {}
                v1::control_message::Message::Notice(notice) => panic!("the session ends: {}", notice.reason),
            }
        }
    }

    /// Why the stream was refused.
    pub(crate) async fn refusal(&mut self) -> tonic::Status {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("an answer in time");
        next.expect_err("a refusal")
    }

    /// The word with which the stream ends; deltas before it are read past.
    pub(crate) async fn notice(&mut self) -> v1::Notice {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await.expect("a word in time");
            match next.expect("a word before the end").and_then(|message| message.message) {
                Some(v1::control_message::Message::Notice(notice)) => return notice,
                Some(v1::control_message::Message::Delta(_) | v1::control_message::Message::Denials(_)) => {}
                None => panic!("the stream ended without a word"),
            }
        }
    }

    pub(crate) async fn delta(&mut self) -> Delta {
        self.try_delta().await.unwrap()
    }

    /// Takes the next delta and acknowledges it unless it is subtractive.
    pub(crate) async fn take(&mut self) -> Delta {
        let delta = self.delta().await;
        self.accept(&delta).await;
        delta
    }

    pub(crate) async fn accept(&mut self, delta: &Delta) {
        self.bundle.apply(delta);
        if !delta.subtractive && !delta.ahead {
            let ack = v1::Ack { revision: delta.revision.0, view: self.view, ..Default::default() };
            self.say(v1::proxy_message::Message::Ack(ack)).await;
        }
    }

    /// Takes deltas until the bundle is as wanted.
    pub(crate) async fn take_until(&mut self, wanted: impl Fn(&Bundle) -> bool) {
        while !wanted(&self.bundle) {
            self.take().await;
        }
    }

    pub(crate) async fn say(&mut self, said: v1::proxy_message::Message) {
        self.outgoing.send(message(said)).await.unwrap();
    }
}

fn message(said: v1::proxy_message::Message) -> v1::ProxyMessage {
    v1::ProxyMessage { message: Some(said) }
}

/// A registration of `name` in the namespace of the identity, on a loopback address.
pub(crate) fn workload(name: &str, namespace: &str, address: &str, service: Option<&str>) -> v1::WorkloadRegistration {
    v1::WorkloadRegistration {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        address: address.to_owned(),
        ports: vec![v1::WorkloadPort { port: 8080, protocol: v1::Protocol::Http.into() }],
        service: service.map(str::to_owned),
        mesh_address: format!("{address}:15008"),
        weight: 1,
        ..Default::default()
    }
}

#[tokio::test]
async fn the_first_start_makes_everything_and_a_restart_keeps_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    for private in ["operator.token", "weft.redb"] {
        let mode = std::fs::metadata(dir.path().join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    let token = control.admin_token();
    let root = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    let svid = control.join("shop/web").await;
    assert_eq!(svid.identity, "spiffe://cluster.local/ns/shop/sa/web");
    control.app.stop().await;

    let control = Control::start(dir.path()).await;
    assert_eq!(control.admin_token(), token);
    assert_eq!(std::fs::read_to_string(dir.path().join("ca.pem")).unwrap(), root);
    assert_eq!(control.call("get", "/api/v1/proxies", Value::Null).await.0, 200);
    // A certificate from before the restart still opens the stream.
    let mut proxy = Proxy::connect(&control, &svid, "web-1", None, Bundle::default()).await;
    proxy.take().await;
    let metrics = control.metrics().await;
    for name in ["weft_control_proxies_connected 1", "weft_control_revision", "weft_control_certificates_issued_total"]
    {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn tokens_and_requests_are_checked_over_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let key = KeyPair::generate().unwrap();
    let token = control.join_token("shop/web").await;
    let join = async |token: &str, csr_der: Vec<u8>| {
        let request = v1::JoinRequest { token: token.to_owned(), csr_der, ..Default::default() };
        control.grpc(None).await.join(request).await.map(|_| ())
    };
    let mut forged = csr(&key);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(join(&token, forged).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    join(&token, csr(&key)).await.unwrap();
    let error = join(&token, csr(&KeyPair::generate().unwrap())).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated);
    assert!(error.message().contains("used already"), "{error}");
}

#[tokio::test]
async fn every_call_but_join_needs_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let mut client = control.grpc(None).await;
    let renew = client.renew(v1::RenewRequest::default()).await.unwrap_err();
    let fetch = client.fetch_filter(v1::FetchFilterRequest::default()).await.err().unwrap();
    let connect = client.connect(tokio_stream::empty()).await.err().unwrap();
    for error in [renew, fetch, connect] {
        assert_eq!(error.code(), tonic::Code::Unauthenticated, "{error}");
    }
    // Somebody else's certificate doesn't get through the handshake.
    let stranger = tempfile::tempdir().unwrap();
    let stranger = Control::start(stranger.path()).await;
    let foreign = stranger.join("shop/web").await;
    let ca = Certificate::from_pem(control.app.hub.authority().trust_bundle_pem());
    let identity = Identity::from_pem(&foreign.chain_pem, &foreign.key_pem);
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("weft-control").identity(identity);
    let endpoint = Endpoint::from_shared(format!("https://{}", control.app.grpc_address)).unwrap();
    let refused = match endpoint.tls_config(tls).unwrap().connect().await {
        Ok(channel) => MeshControlClient::new(channel).renew(v1::RenewRequest::default()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test]
async fn a_proxy_renews_its_own_identity_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let first = control.join("shop/web").await;
    let key = KeyPair::generate().unwrap();
    let mut client = control.grpc(Some(&first)).await;
    let renewed = client.renew(v1::RenewRequest { csr_der: csr(&key) }).await.unwrap().into_inner();
    assert_eq!(renewed.workload_identity, first.identity);
    assert!(renewed.not_after_unix > crate::now_unix() + 23 * 3600);
    let leaf = CertificateDer::from(renewed.certificate_chain_der[0].to_vec());
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    let second = svid(&renewed.certificate_chain_der, &key, renewed.workload_identity);
    Proxy::connect(&control, &second, "web-1", None, Bundle::default()).await.take().await;
    let (_, audit) = control.call("get", "/api/v1/audit?limit=10", Value::Null).await;
    let actions: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions[..2], ["renew", "join"]);
}

#[tokio::test]
async fn shutdown_ends_streams_with_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start(dir.path()).await;
    let svid = control.join("shop/web").await;
    let mut proxy = Proxy::connect(&control, &svid, "web-1", None, Bundle::default()).await;
    proxy.take().await;
    let reason = tokio::spawn(async move { proxy.try_delta().await.unwrap_err() });
    tokio::time::timeout(PATIENCE, control.app.stop()).await.unwrap();
    assert!(reason.await.unwrap().contains("shuts down"));
}

#[tokio::test]
async fn shipped_filters_are_published_at_the_first_start_only() {
    use crate::artifact::tests::{component, sign};
    let dir = tempfile::tempdir().unwrap();
    let shipped = tempfile::tempdir().unwrap();
    let exports = ["configure", "on-connection", "on-request-head", "on-response-head", "on-done"];
    let write = |name: &str, bytes: &[u8]| std::fs::write(shipped.path().join(name), bytes).unwrap();
    let authz = component(&["weft:filter/log@0.1.0"], &exports);
    let (signature, key) = sign(&authz, 7);
    write("authz.wasm", &authz);
    write("authz.sig", signature.as_bytes());
    write("authz.pub", key.as_bytes());
    let others = ["body-guard", "expr", "extauth", "fault", "header-edit", "jwt", "ratelimit"];
    for name in others {
        write(&format!("{name}.wasm"), &component(&["weft:filter/token-bucket@0.1.0"], &exports));
    }
    let configure = |config: &mut Config| config.builtin_filters = Some(shipped.path().to_owned());
    let control = Control::start_with(dir.path(), configure).await;
    let versions = control.app.hub.filter_versions().await.unwrap();
    let names: Vec<_> = versions.iter().map(|v| v.name.as_str()).collect();
    assert_eq!((names[0], &names[1..]), ("authz", &others[..]));
    assert_eq!(versions[0].signature, signature, "signed by who shipped it");
    assert_ne!(versions[0].public_key_pem, versions[1].public_key_pem, "unsigned: vouched for by this server");
    control.app.stop().await;

    write("fault.wasm", &component(&["weft:filter/metrics@0.1.0"], &exports));
    let control = Control::start_with(dir.path(), configure).await;
    assert_eq!(control.app.hub.filter_versions().await.unwrap(), versions);
    control.app.stop().await;

    // Named in the configuration, so a missing one is an error that says which.
    let other = tempfile::tempdir().unwrap();
    std::fs::remove_file(shipped.path().join("ratelimit.wasm")).unwrap();
    let mut config = Config { state: other.path().to_owned(), ..Config::default() };
    config.ports = crate::config::Ports::ANY;
    configure(&mut config);
    let error = App::start(config).await.err().unwrap();
    assert!(format!("{error:#}").contains("ratelimit.wasm"), "{error:#}");
}

#[tokio::test]
async fn an_ended_certificate_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.identity_grace_seconds = 60).await;
    let key = KeyPair::generate().unwrap();
    // Not so long ago that this authority was not there yet.
    let before = OffsetDateTime::now_utc() - time::Duration::minutes(4);
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let issued = control.app.hub.authority().issue_workload(&csr(&key), &identity, time::Duration::minutes(1), before);
    let svid = svid(&issued.unwrap().chain, &key, identity.to_string());
    let mut client = control.grpc(Some(&svid)).await;
    let connect = client.connect(tokio_stream::empty()).await.err().unwrap();
    assert_eq!(connect.code(), tonic::Code::Unauthenticated);
    assert!(
        connect.message().contains("the certificate of spiffe://cluster.local/ns/shop/sa/web ended at"),
        "{connect}"
    );
    let renew = client.renew(v1::RenewRequest { csr_der: csr(&key) }).await.unwrap_err();
    assert_eq!(renew.code(), tonic::Code::PermissionDenied);
    let text = renew.message();
    assert!(text.contains("grace of 60 s") && text.contains("--service-account shop/web"), "{text}");
}

#[tokio::test]
async fn the_operator_token_ends_and_is_never_a_lock_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("operator.token");
    let control = Control::start(dir.path()).await;
    let first = control.admin_token();
    let (_, body) = control.call("get", "/api/v1/tokens", Value::Null).await;
    assert_eq!(body["tokens"][0]["name"], "first-operator");
    assert!(body["tokens"][0]["expires_unix"].as_i64().unwrap() > 0, "{body}");
    control.app.stop().await;

    // Taken away: its token ends, another one is made.
    std::fs::remove_file(&path).unwrap();
    let control = Control::start(dir.path()).await;
    assert_eq!(control.call("get", "/api/v1/proxies", Value::Null).await.0, 200);
    assert_eq!(control.call_as(&first, "get", "/api/v1/proxies", Value::Null).await.0, 401);
    let second = control.admin_token();

    // Revoked while another admin has one: it stays revoked.
    let admin = json!({"kind": "operator", "role": "admin", "name": "anna"});
    let (status, anna) = control.call("post", "/api/v1/tokens", admin.clone()).await;
    assert_eq!(status, 200, "{anna}");
    assert_eq!(control.call("post", "/api/v1/tokens", admin).await.0, 409, "a name is given once");
    let anna = anna["token"].as_str().unwrap().to_owned();
    assert_eq!(control.call_as(&anna, "delete", "/api/v1/tokens/first-operator", Value::Null).await.0, 200);
    assert_eq!(control.call_as(&anna, "delete", "/api/v1/tokens/first-operator", Value::Null).await.0, 404);
    control.app.stop().await;
    let control = Control::start(dir.path()).await;
    assert_eq!(control.admin_token(), second);
    assert_eq!(control.call_as(&second, "get", "/api/v1/proxies", Value::Null).await.0, 401);
    assert_eq!(control.call_as(&anna, "get", "/api/v1/proxies", Value::Null).await.0, 200);
    control.app.stop().await;

    // A new store under an old file.
    std::fs::remove_file(dir.path().join("weft.redb")).unwrap();
    let control = Control::start(dir.path()).await;
    assert_ne!(control.admin_token(), second);
    assert_eq!(control.call("get", "/api/v1/proxies", Value::Null).await.0, 200);
    let aside = std::fs::read_to_string(dir.path().join("operator.token.old-1")).unwrap();
    assert_eq!(aside.trim(), second);
}

#[tokio::test]
async fn the_store_alone_is_no_backup() {
    let dir = tempfile::tempdir().unwrap();
    Control::start(dir.path()).await.app.stop().await;
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("weft.redb"), other.path().join("weft.redb")).unwrap();
    let config = Config { state: other.path().to_owned(), ..Config::default() };
    let error = format!("{:#}", App::start(config.clone()).await.err().unwrap());
    assert!(error.contains("A whole backup is the state folder") && error.contains("ca.pem"), "{error}");
    assert!(!other.path().join("ca.pem").exists(), "no new root was made");
    assert_eq!(crate::check::findings(&Config { ports: crate::config::Ports::ANY, ..config }).faults.len(), 1);
}

#[tokio::test]
async fn renewals_of_one_identity_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_renewals_per_minute = 3).await;
    let svid = control.join("shop/web").await;
    let mut client = control.grpc(Some(&svid)).await;
    let mut renew = async || {
        let csr_der = csr(&KeyPair::generate().unwrap());
        client.renew(v1::RenewRequest { csr_der }).await.map(drop)
    };
    for _ in 0..3 {
        renew().await.unwrap();
    }
    let error = renew().await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    assert!(error.message().contains("renews too often"), "{error}");
    let metrics = control.metrics().await;
    assert!(metrics.contains("weft_control_throttled_total{reason=\"renewals\"} 1"), "{metrics}");
}

#[tokio::test]
async fn streams_of_one_certificate_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.max_streams_per_certificate = 1).await;
    let svid = control.join("shop/web").await;
    let mut first = Proxy::connect(&control, &svid, "web-1", None, Bundle::default()).await;
    first.take().await;
    let mut client = control.grpc(Some(&svid)).await;
    let refused = client.connect(tokio_stream::pending()).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
}

/// A connection of somebody without a certificate.
async fn tls(control: &Control, to: SocketAddr) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    try_tls(control, to).await.unwrap()
}

async fn try_tls(
    control: &Control,
    to: SocketAddr,
) -> std::io::Result<tokio_rustls::client::TlsStream<tokio::net::TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = control.app.hub.authority().trust_bundle_pem();
    for root in rustls_pki_types::pem::PemObject::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("weft-control").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await
}

#[tokio::test]
async fn a_connection_that_shows_the_api_no_token_ends_and_one_that_did_goes_on() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    /// True where an answer came.
    async fn ask(stream: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>, path: &str, token: &str) -> bool {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        let mut said = vec![0; 64 << 10];
        stream.write_all(head.as_bytes()).await.is_ok() && stream.read(&mut said).await.is_ok_and(|read| read > 0)
    }
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| config.limits.anonymous_connection_ms = 500).await;
    let mut known = tls(&control, control.app.api_address).await;
    assert!(ask(&mut known, "/api/v1/tokens", &control.admin_token()).await);
    let mut stranger = tls(&control, control.app.api_address).await;
    let ended = tokio::time::timeout(PATIENCE, async {
        while ask(&mut stranger, "/healthz", "nobody").await {
            tokio::task::yield_now().await;
        }
    });
    ended.await.expect("it is closed");
    assert!(ask(&mut known, "/healthz", "nobody").await, "older than the stranger's");
}

#[tokio::test]
async fn connections_of_one_are_bounded_and_idle_ones_end() {
    use tokio::io::AsyncReadExt as _;
    let dir = tempfile::tempdir().unwrap();
    let control = Control::start_with(dir.path(), |config| {
        config.limits.max_connections_of_one = 4;
        config.limits.idle_connection_ms = 300;
    })
    .await;
    let svid = control.join("shop/web").await;
    let own = workload("web-1", "shop", "127.0.0.11", Some("web"));
    let mut proxy = Proxy::connect(&control, &svid, "p", Some(own), Bundle::default()).await;
    proxy.take().await;
    // Whoever keeps connections open and asks nothing gets few places, and has none for long.
    let mut idle = Vec::new();
    while let Ok(stream) = try_tls(&control, control.app.grpc_address).await {
        idle.push(stream);
        assert!(idle.len() <= 4, "more than one may have");
    }
    assert!(control.metrics().await.contains("weft_control_connections_refused_total 1"));
    for mut stream in idle {
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        drop(ended.expect("nothing was asked: it ends"));
    }
    // The proxy's is older than they were: a stream that is open is no idleness.
    control.apply(&SERVICE.replace("name: web", "name: new")).await;
    proxy.take_until(|bundle| bundle.services.contains_key(&weft_policy::bundle::ObjectName::new("shop", "new"))).await;
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";
