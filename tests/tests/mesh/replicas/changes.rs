//! Changes as fast as they are taken: operators that each change objects of their own over one connection, and know of each
//! change whether it was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use weft_tests::control::Operator;

/// Objects that one apply changes, and operators at each control plane.
pub(super) const AT_ONCE: usize = 4;
const OPERATORS: usize = 6;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of the changes of one operator.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Fate {
    /// Applies that were acknowledged, and the number of the last of them.
    pub(super) acknowledged: u64,
    pub(super) last: u64,
    /// Applies of which nothing is known: the connection ended, or the store could not be reached.
    pub(super) unknown: u64,
}

#[derive(Default)]
pub(super) struct Changes {
    stop: AtomicBool,
    pub(super) applied: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) fates: Mutex<BTreeMap<String, Fate>>,
}

/// The operators of all control planes.
pub(super) struct Changing {
    pub(super) all: Arc<Changes>,
    tasks: JoinSet<()>,
    began: Instant,
}

impl Changing {
    pub(super) fn start(operators: impl IntoIterator<Item = Operator>) -> Self {
        let all = Arc::<Changes>::default();
        let mut tasks = JoinSet::new();
        for (plane, operator) in operators.into_iter().enumerate() {
            for number in 0..OPERATORS {
                tasks.spawn(all.clone().run(operator.clone(), format!("c-{plane}-{number}")));
            }
        }
        Self { all, tasks, began: Instant::now() }
    }

    /// Applies in a second so far.
    pub(super) fn rate(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let applied = self.all.applied.load(Ordering::SeqCst) as f64;
        applied / self.began.elapsed().as_secs_f64()
    }

    pub(super) async fn end(mut self) -> Arc<Changes> {
        self.all.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.all
    }
}

impl Changes {
    async fn run(self: Arc<Self>, operator: Operator, name: String) {
        let mut connection = None;
        for number in 1.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if connection.is_none() {
                connection = tokio::time::timeout(PATIENCE, connect(&operator)).await.ok().flatten();
            }
            let Some((sender, token)) = &mut connection else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let said = tokio::time::timeout(PATIENCE, apply(sender, token, &name, number)).await.ok().flatten();
            let is_done = said == Some(200);
            {
                let mut fates = self.fates.lock().unwrap();
                let fate = fates.entry(name.clone()).or_default();
                match is_done {
                    true => (fate.acknowledged, fate.last) = (fate.acknowledged + 1, number),
                    false => fate.unknown += 1,
                }
            }
            let counter = if is_done { &self.applied } else { &self.refused };
            counter.fetch_add(1, Ordering::SeqCst);
            if !is_done {
                connection = None;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The name of one of an operator's objects.
pub(super) fn object(operator: &str, at: usize) -> String {
    format!("{operator}-{at}")
}

/// The port by which an object shows which apply it is of.
pub(super) fn port(number: u64) -> u64 {
    1_000 + number % 60_000
}

async fn connect(operator: &Operator) -> Option<(SendRequest<Full<Bytes>>, String)> {
    let (address, roots_pem, token) = operator.access();
    let mut roots = rustls::RootCertStore::empty();
    for root in rustls_pki_types::CertificateDer::pem_slice_iter(&roots_pem) {
        roots.add(root.ok()?).ok()?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let tls = tls.ok()?.with_root_certificates(roots).with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let name = ServerName::try_from("weft-control").ok()?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some((sender, token))
}

/// Applies one change of all objects of an operator; gives the status.
async fn apply(sender: &mut SendRequest<Full<Bytes>>, token: &str, name: &str, number: u64) -> Option<u16> {
    let document = |at: usize| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": object(name, at), "namespace": "changes"},
            "spec": {"selector": {"app": name}, "ports": [{"port": port(number), "targetPort": 8080}]}})
    };
    let documents: Vec<Value> = (0..AT_ONCE).map(document).collect();
    let request = http::Request::post("/api/v1/apply")
        .header("host", "weft-control")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::from(json!({ "documents": documents }).to_string()))
        .ok()?;
    sender.ready().await.ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await.ok()?;
    Some(status)
}

/// Checks the objects as a control plane lists them: no acknowledged change is lost, and none was made more often than it
/// was sent.
pub(super) fn check(fates: &BTreeMap<String, Fate>, listed: &Value) {
    let of =
        |name: &str| listed["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).cloned();
    for (operator, fate) in fates.iter().filter(|(_, fate)| fate.acknowledged > 0) {
        for at in 0..AT_ONCE {
            let name = object(operator, at);
            let found = of(&name).unwrap_or_else(|| panic!("{name} is lost: {fate:?}"));
            let generation = found["metadata"]["generation"].as_u64().unwrap();
            let most = fate.acknowledged + fate.unknown;
            assert!((fate.acknowledged..=most).contains(&generation), "{name}: {generation} changes; {fate:?}");
            let shown = found["spec"]["ports"][0]["port"].as_u64().unwrap();
            let newest = fate.last + fate.unknown;
            assert!((fate.last..=newest).any(|number| port(number) == shown), "{name} is of port {shown}: {fate:?}");
        }
    }
}
