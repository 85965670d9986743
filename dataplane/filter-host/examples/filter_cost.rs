//! Cost of a call of each shipped filter, in nanoseconds of this thread: `cargo run --release -p weft-filter-host
//! --example filter_cost`. Wants the components in `target/filters` (`cargo xtask build`) or `WEFT_FILTERS_DIR`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::pkcs8::EncodePublicKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::{Signer as _, SigningKey};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method};
use weft_filter_host::{
    Attributes, Chain, Digest, Event, FilterSpec, Host, HostConfig, Outcome, Position, Prepared, RequestView, Summary,
    Worker,
};
use weft_policy::bundle::{Direction, FilterMode, OnFailure, OverBody};
use weft_policy::path::{NormalPath, PathReading};

const ROUNDS: u32 = 400;
const CALLS: u32 = 500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Host::new(HostConfig::default())?;
    let bare = prepare(&host, "authz", "{}")?;
    let by_namespace = r#""namespaces": ["n{n}"]"#;
    let by_namespace = prepare(&host, "authz", &rules(by_namespace))?;
    let by_principal = r#""principals": ["spiffe://cluster.local/ns/web/sa/caller-{n}"]"#;
    let authz = prepare(&host, "authz", &rules(by_principal))?;
    let fault =
        prepare(&host, "fault", r#"{"abort": {"status": 503, "percentage": 0, "headers": [{"name": "x-fault"}]}}"#)?;
    let ratelimit = r#"{"limits": [{"key": "identity", "requests": 1000000000}]}"#;
    let ratelimit = prepare(&host, "ratelimit", ratelimit)?;
    let mut out = std::io::stdout().lock();
    for (name, filters) in [
        ("no filter", vec![]),
        ("fault", vec![fault.clone()]),
        ("ratelimit", vec![ratelimit.clone()]),
        ("authz, no rule", vec![bare]),
        ("authz, 100 rules by namespace", vec![by_namespace]),
        ("authz, 100 rules by principal", vec![authz.clone()]),
        ("all three", vec![fault, ratelimit, authz]),
    ] {
        let nanos = measure(&host, &Chain::new(filters));
        writeln!(out, "{name:30} {nanos:6} ns a request")?;
    }
    Ok(())
}

/// The least of all rounds: what the code costs where nothing disturbs it.
fn measure(host: &Host, chain: &Chain) -> u128 {
    let mut worker = Worker::new(host);
    let mut least = u128::MAX;
    let method = Method::GET;
    let mut authority = Some(Authority::from_static("reviews.shop:80"));
    let mut path = Some(NormalPath::new("/api/v1/items/42".into()).expect("a path"));
    let path_reading = PathReading::default();
    let mut headers = HeaderMap::new();
    for (name, value) in [("user-agent", "wrk"), ("accept", "*/*"), ("x-request-id", "0123456789abcdef")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let attributes = Attributes {
        principal: Some("spiffe://cluster.local/ns/web/sa/front"),
        source: None,
        destination_port: 80,
        direction: Direction::Inbound,
        request_id: None,
        destination_service: Some("shop/reviews"),
        route: None,
        tls: true,
        protocol: "h2",
    };
    let mut body = None;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for stream in 0..CALLS {
            let mut view = RequestView {
                method: &method,
                authority: &mut authority,
                path: &mut path,
                path_reading,
                headers: &mut headers,
                body: &mut body,
            };
            let stream = u64::from(stream);
            let outcome = worker.request_head(chain, Position::START, Event::Go, stream, &mut view, &attributes);
            assert!(matches!(outcome, Outcome::Permitted(_)), "{outcome:?}");
            worker.done(chain, stream, &Summary::default());
        }
        least = least.min(start.elapsed().as_nanos() / u128::from(CALLS));
    }
    least
}

/// 100 rules of which the last one matches; `from` with `{n}` in it says whom the others are for.
fn rules(from: &str) -> String {
    let mut rules = String::new();
    for n in 0..99 {
        let from = from.replace("{n}", &n.to_string());
        let to = format!(r#"{{"methods": ["GET"], "paths": ["/section-{n}/*"]}}"#);
        let _ = write!(rules, r#"{{"name": "r{n}", "from": [{{{from}}}], "to": [{to}]}},"#);
    }
    let last = r#"{"name": "last", "from": [{"principals": ["spiffe://cluster.local/ns/web/sa/front"]}], "to": [{"paths": ["/api/v1/items/{id}"]}]}"#;
    format!(r#"{{"policies": [{{"name": "shop/p", "action": "Allow", "rules": [{rules}{last}]}}]}}"#)
}

fn prepare(host: &Host, name: &str, config: &str) -> Result<Arc<Prepared>, Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/filters");
    let folder = std::env::var_os("WEFT_FILTERS_DIR").map_or(root, Into::into);
    let wasm = std::fs::read(folder.join(format!("{name}.wasm")))?;
    let key = SigningKey::from_bytes(&[7; 32]);
    let digest = Digest::of(&wasm);
    let spec = FilterSpec {
        name: name.to_owned(),
        filter: name.to_owned(),
        version: "1".to_owned(),
        digest,
        signature: key.sign(digest.as_bytes()).to_bytes().to_vec(),
        public_key_pem: key.verifying_key().to_public_key_pem(LineEnding::LF)?,
        statement: None,
        direction: Direction::Inbound,
        config_json: config.to_owned(),
        on_failure: OnFailure::Deny,
        mode: FilterMode::Enforce,
        authorization: name == "authz",
        capabilities: vec!["token-bucket".to_owned()],
        grants: Vec::new(),
        scope: String::new(),
        shipped: false,
        memory_bytes: 16 << 20,
        call_timeout: Duration::from_millis(10),
        body_bytes: 1 << 20,
        over_body: OverBody::Refuse,
    };
    Ok(host.prepare(&spec, &wasm)?)
}
