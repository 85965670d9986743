//! A host with a signed filter in it, and requests to send through.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use weft_filter_host::{
    Attributes, Chain, Digest, Event, FilterSpec, Host, HostConfig, LocalReply, Outcome, Position, Prepared,
    RequestView, ResponseView, Worker,
};
use weft_policy::bundle::{Direction, FilterMode, OnFailure, OverBody};
use weft_policy::path::{NormalPath, PathReading};

pub(crate) const CALLER: &str = "spiffe://cluster.local/ns/web/sa/front";

pub(crate) fn host() -> Host {
    Host::new(HostConfig { max_instances: 64, spares: 0, ..HostConfig::default() }).expect("a host")
}

/// The bytes of a built filter; without them there is nothing to test.
pub(crate) fn wasm(name: &str) -> Vec<u8> {
    let path = filters().join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; `cargo xtask build` makes it", path.display()))
}

fn filters() -> PathBuf {
    if let Some(folder) = std::env::var_os("WEFT_FILTERS_DIR") {
        return folder.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |target| root.join(target)).join("filters")
}

/// A signed filter with 16 MiB and 50 ms a call, onFailure Deny, everything granted.
pub(crate) fn spec(name: &str, wasm: &[u8], config: &str) -> FilterSpec {
    let key = SigningKey::from_bytes(&[7; 32]);
    let digest = Digest::of(wasm);
    FilterSpec {
        name: name.to_owned(),
        filter: format!("weft-system/{name}"),
        version: "1.0.0".to_owned(),
        digest,
        signature: key.sign(digest.as_bytes()).to_bytes().to_vec(),
        public_key_pem: key.verifying_key().to_public_key_pem(LineEnding::LF).expect("a key"),
        statement: None,
        direction: Direction::Inbound,
        config_json: config.to_owned(),
        on_failure: OnFailure::Deny,
        mode: FilterMode::Enforce,
        authorization: false,
        capabilities: vec!["token-bucket".to_owned()],
        grants: Vec::new(),
        scope: String::new(),
        shipped: false,
        memory_bytes: 16 << 20,
        call_timeout: Duration::from_millis(50),
        body_bytes: 1 << 20,
        over_body: OverBody::Refuse,
    }
}

/// The hostile filter, changed as the test needs it.
pub(crate) fn hostile(host: &Host, change: impl FnOnce(&mut FilterSpec)) -> Arc<Prepared> {
    let wasm = wasm("hostile");
    let mut spec = spec("hostile", &wasm, "");
    change(&mut spec);
    host.prepare(&spec, &wasm).expect("a sound filter")
}

/// A request's head, owned.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) authority: Option<Authority>,
    pub(crate) path: Option<NormalPath>,
    pub(crate) path_reading: PathReading,
    pub(crate) headers: HeaderMap,
    pub(crate) principal: Option<&'static str>,
    pub(crate) port: u16,
}

impl Head {
    pub(crate) fn get(path: &'static str) -> Self {
        Self {
            method: Method::GET,
            authority: Some(Authority::from_static("app.test:80")),
            path: Some(NormalPath::new(path.into()).expect("a path")),
            path_reading: PathReading::default(),
            headers: HeaderMap::new(),
            principal: Some(CALLER),
            port: 80,
        }
    }

    /// A request that tells the hostile filter what to do.
    pub(crate) fn told(what: &'static str) -> Self {
        Self::get("/").with("x-do", what)
    }

    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    pub(crate) fn attributes(&self) -> Attributes<'static> {
        Attributes {
            principal: self.principal,
            source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            destination_port: self.port,
            direction: Direction::Inbound,
            request_id: Some("id-1"),
            destination_service: Some("shop/books"),
            route: None,
            tls: true,
            protocol: "h2",
        }
    }

    pub(crate) fn send(&mut self, worker: &mut Worker, chain: &Chain, from: Position, stream: u64) -> Outcome {
        let id = format!("id-{stream}");
        let attributes = Attributes { request_id: Some(&id), ..self.attributes() };
        let mut body = None;
        let mut view = RequestView {
            method: &self.method,
            authority: &mut self.authority,
            path: &mut self.path,
            path_reading: self.path_reading,
            headers: &mut self.headers,
            body: &mut body,
        };
        worker.request_head(chain, from, Event::Go, stream, &mut view, &attributes)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Sends a head through a chain from its start; `Ok` with the head as the chain left it, or the answer.
pub(crate) fn ask(worker: &mut Worker, chain: &Chain, stream: u64, mut head: Head) -> Result<Head, Box<LocalReply>> {
    match head.send(worker, chain, Position::START, stream) {
        Outcome::Permitted(_) => Ok(head),
        Outcome::Respond(reply) => Err(reply),
        outcome @ (Outcome::Delay { .. } | Outcome::Body { .. } | Outcome::Wait { .. } | Outcome::Reset(_)) => {
            panic!("{outcome:?}")
        }
    }
}

/// Runs the response hooks over a head with status 200; what a filter changed is in `headers`.
pub(crate) fn respond(worker: &mut Worker, chain: &Chain, stream: u64, headers: &mut HeaderMap) -> Outcome<()> {
    let (mut status, mut body) = (StatusCode::OK, None);
    let mut view = ResponseView { status: &mut status, headers, body: &mut body };
    worker.response_head(chain, Position::START, Event::Go, stream, &mut view)
}

/// The reason of a refusal.
pub(crate) fn refused(answer: Result<Head, Box<LocalReply>>) -> String {
    answer.expect_err("an answer").reason
}
