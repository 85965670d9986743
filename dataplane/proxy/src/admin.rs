//! The three side doors, each on its own port and off the data path: admin (15000, loopback only; what changes anything
//! is POST with the token of the state directory), metrics (15020) and health (15021).

mod caller;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{info, warn};
use weft_policy::bundle::{Bundle, ObjectName, Service};
use weft_profiler::ProfileError;
use weft_transport::tls::IdentityHandle;

use crate::capturing::Capturing;
use crate::heartbeat::Heartbeats;
use crate::life;
use crate::scrape;
use crate::shared::Shared;
use crate::side::{Side, SideLimits};
use crate::telemetry::LogLevel;
use crate::telemetry::process::Process;
use crate::telemetry::throttle;

/// Longest life of a connection to the admin door, which gives profiles of up to 300 s; and to the others.
const LIFETIMES: (Duration, Duration) = (Duration::from_secs(330), Duration::from_secs(60));

/// Which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Admin,
    Metrics,
    Health,
}

impl Door {
    pub const ALL: [Door; 3] = [Door::Admin, Door::Metrics, Door::Health];

    pub fn as_str(self) -> &'static str {
        match self {
            Door::Admin => "admin",
            Door::Metrics => "metrics",
            Door::Health => "health",
        }
    }
}

/// Sources of the answers that the doors give.
pub struct Admin {
    pub shared: Arc<Shared>,
    pub identity: OnceLock<IdentityHandle>,
    /// Once the rules are installed, where there is capture.
    pub capture: OnceLock<Arc<Capturing>>,
    pub hearts: Heartbeats,
    /// Secret that a caller must know to change anything; in `admin.token` of the state directory.
    pub token: String,
    pub prometheus: metrics_exporter_prometheus::PrometheusHandle,
    pub log_level: LogLevel,
    pub sides: [Arc<Side>; 3],
}

impl Admin {
    /// Serves one door for as long as the process lives.
    pub async fn serve(self: Arc<Self>, door: Door, listener: TcpListener) {
        let limits = &self.shared.config.limits;
        let limits = SideLimits {
            connections: limits.side_connections,
            head_timeout: Duration::from_millis(limits.side_head_timeout_ms),
            lifetime: if door == Door::Admin { LIFETIMES.0 } else { LIFETIMES.1 },
        };
        let admit: fn(SocketAddr) -> bool = match door {
            Door::Admin => |from| from.ip().is_loopback(),
            Door::Metrics | Door::Health => |_| true,
        };
        let side = Arc::clone(&self.sides[door as usize]);
        let respond = move |request: Request<Incoming>, from| {
            let admin = Arc::clone(&self);
            async move { admin.respond(door, &request, from).await }
        };
        side.serve(listener, limits, admit, respond).await;
    }

    pub fn side(&self, door: Door) -> &Side {
        &self.sides[door as usize]
    }

    /// Answers HEAD as GET: the server sends no body with it.
    async fn respond<B>(&self, door: Door, request: &Request<B>, from: SocketAddr) -> Response<Full<Bytes>> {
        if door == Door::Admin
            && let Err(refusal) = caller::check(request.method(), request.headers(), &self.token)
        {
            if throttle::ADMIN.first() {
                warn!(%from, reason = refusal.reason(), "admin call refused");
            }
            return plain(refusal.status(), &format!("{}\n", refusal.reason()));
        }
        let uri = request.uri();
        // A profile takes time, which a HEAD would spend on nothing.
        if (door, request.method(), uri.path()) != (Door::Admin, &Method::GET, "/debug/pprof/profile") {
            return self.answer(door, request, from);
        }
        match weft_profiler::take(uri.query().unwrap_or("")).await {
            Ok(profile) => answer(StatusCode::OK, profile, "application/octet-stream"),
            Err(error) => {
                let status = match error {
                    ProfileError::Busy => StatusCode::CONFLICT,
                    ProfileError::Seconds(_) => StatusCode::BAD_REQUEST,
                    ProfileError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                plain(status, &format!("{error}\n"))
            }
        }
    }

    fn answer<B>(&self, door: Door, request: &Request<B>, from: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        match (door, method, path) {
            (Door::Metrics, &Method::GET, "/metrics" | "/stats/prometheus") => {
                let text = scrape::render(self);
                zipped(text, "text/plain; version=0.0.4", accepts_gzip(request.headers()))
            }
            (Door::Health, &Method::GET, "/healthz/ready") => self.ready(),
            (Door::Health, &Method::GET, "/healthz/live") => self.live(),
            (Door::Admin, &Method::GET, _) => self.show(path),
            (Door::Admin, &Method::POST, _) => {
                info!(%from, path, "admin call");
                self.change(path, request.uri().query().unwrap_or(""))
            }
            _ => plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        match self.stalled() {
            None => plain(StatusCode::OK, "live\n"),
            Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, &reason),
        }
    }

    /// Says which workers make no progress.
    fn stalled(&self) -> Option<String> {
        let stalled = self.hearts.stalled();
        (!stalled.is_empty()).then(|| format!("no progress for 5 s in worker {stalled:?}\n"))
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.shared.drain.is_draining() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        if self.capture.get().is_some_and(|capturing| !capturing.is_present()) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the capture rules are gone or changed\n");
        }
        if let Some(reason) = self.stalled() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &reason);
        }
        let Some(identity) = self.identity.get() else {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "no identity yet\n");
        };
        let contact = &self.shared.contact;
        if let Some(reason) = life::fault(&identity.current().identity, SystemTime::now(), contact.not_renewed()) {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n"));
        }
        match self.shared.snapshot.load().is_some() {
            true => match contact.not_followed().or_else(|| contact.refused()) {
                None => plain(StatusCode::OK, "ready\n"),
                Some(reason) => {
                    plain(StatusCode::OK, &format!("ready, on the configuration that was kept: {reason}\n"))
                }
            },
            false => {
                let reason = contact.refused().map(|reason| format!(": {reason}")).unwrap_or_default();
                plain(StatusCode::SERVICE_UNAVAILABLE, &format!("no configuration yet{reason}\n"))
            }
        }
    }

    fn show(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/" => plain(StatusCode::OK, INDEX),
            "/config_dump" => json_answer(&self.config_dump()),
            "/certs" => json_answer(&self.certs()),
            "/clusters" => json_answer(&self.clusters()),
            "/filters" => json_answer(&self.filters()),
            "/memory" => json_answer(&json!({ "resident_bytes": Process::now().resident_bytes })),
            "/logging" => plain(StatusCode::OK, &format!("{}\n", self.log_level.current())),
            "/drain" | "/quitquitquit" => plain(StatusCode::METHOD_NOT_ALLOWED, "POST only\n"),
            _ => plain(StatusCode::NOT_FOUND, "not found; / lists what there is\n"),
        }
    }

    fn change(&self, path: &str, query: &str) -> Response<Full<Bytes>> {
        match path {
            "/drain" => {
                self.shared.drain.start();
                plain(StatusCode::OK, "draining\n")
            }
            "/quitquitquit" => {
                self.shared.drain.quit();
                plain(StatusCode::OK, "quitting\n")
            }
            "/logging" => match query.strip_prefix("level=") {
                None => plain(StatusCode::BAD_REQUEST, "POST /logging?level=FILTER, e.g. level=debug\n"),
                Some(level) => match self.log_level.set(level) {
                    Ok(()) => plain(StatusCode::OK, &format!("{level}\n")),
                    Err(error) => plain(StatusCode::BAD_REQUEST, &format!("level '{level}': {error}\n")),
                },
            },
            _ => plain(StatusCode::NOT_FOUND, "not found; / lists what there is\n"),
        }
    }

    fn config_dump(&self) -> Value {
        let Some(snapshot) = self.shared.snapshot.load_full() else { return json!({ "revision": 0 }) };
        let bundle = &snapshot.bundle;
        json!({
            "revision": bundle.revision,
            "mesh": bundle.mesh,
            "workloads": bundle.workloads.values().collect::<Vec<_>>(),
            "services": self.services(bundle),
            "routes": bundle.routes.values().collect::<Vec<_>>(),
            "external_services": bundle.externals.values().collect::<Vec<_>>(),
            "filters": bundle.filters.values().collect::<Vec<_>>(),
        })
    }

    fn certs(&self) -> Value {
        let Some(identity) = self.identity.get() else { return json!({ "identity": null }) };
        let current = identity.current();
        json!({
            "identity": current.identity.id().to_string(),
            "not_before_unix": current.identity.not_before().as_secs(),
            "not_after_unix": current.identity.not_after().as_secs(),
            "certificates_in_chain": current.identity.chain().len(),
        })
    }

    fn clusters(&self) -> Value {
        let Some(snapshot) = self.shared.snapshot.load_full() else { return json!([]) };
        self.services(&snapshot.bundle)
    }

    fn services(&self, bundle: &Bundle) -> Value {
        let told = |service: &Service| service_json(service, &self.shared.checks.unhealthy_of(&service.name));
        Value::Array(bundle.services.values().map(told).collect())
    }

    fn filters(&self) -> Value {
        let Some(snapshot) = self.shared.snapshot.load_full() else { return json!([]) };
        Value::Array(
            snapshot
                .bundle
                .filters
                .values()
                .map(|filter| {
                    json!({
                        "name": filter.name, "filter": filter.filter, "version": filter.version,
                        "digest": filter.digest, "direction": filter.direction, "order": filter.order,
                        "mode": filter.mode, "on_failure": filter.on_failure, "authorization": filter.authorization,
                        "in_chain": snapshot.has_filter(&filter.name),
                    })
                })
                .collect(),
        )
    }
}

fn service_json(service: &Service, unhealthy: &BTreeSet<ObjectName>) -> Value {
    json!({
        "name": service.name.to_string(),
        "vip": service.vip,
        "ports": service.ports,
        "traffic": service.traffic,
        "spread": service.spread,
        "endpoints": service.endpoints.values().collect::<Vec<_>>(),
        "unhealthy": unhealthy.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

const INDEX: &str = "weft-proxy admin
GET  /config_dump           the configuration in force
GET  /certs                 this workload's certificate
GET  /clusters              services and endpoints
GET  /filters               filters in the chains
GET  /memory                resident memory
GET  /debug/pprof/profile   where the processor's time goes, for pprof (?seconds=N, default 30, at most 300)
GET  /logging               the log filter
POST /logging?level=FILTER  change it
POST /drain                 refuse readiness, finish what is in flight, then end
POST /quitquitquit          end at once
A POST needs the header 'authorization: Bearer TOKEN', TOKEN from the file admin.token of the state directory.
";

fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    text(status, body.to_owned(), "text/plain; charset=utf-8")
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    text(StatusCode::OK, format!("{value:#}\n"), "application/json")
}

/// A body that is compressed for who wants that.
fn zipped(body: String, content_type: &'static str, gzip: bool) -> Response<Full<Bytes>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut response = match gzip.then(|| encoder.write_all(body.as_bytes()).and_then(|()| encoder.finish())) {
        Some(Ok(compressed)) => {
            let mut response = answer(StatusCode::OK, compressed.into(), content_type);
            response.headers_mut().insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        }
        None | Some(Err(_)) => text(StatusCode::OK, body, content_type),
    };
    response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

//= rfc9110#section-12.5.3
/// True if gzip is named, or all codings are, with a weight above 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let weight = |wanted: &str| {
        let values = headers.get_all(http::header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).find_map(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight = weight.trim().to_ascii_lowercase();
            name.trim().eq_ignore_ascii_case(wanted).then(|| weight.trim_start_matches("q=").parse().unwrap_or(0.0))
        })
    };
    weight("gzip").or_else(|| weight("x-gzip")).or_else(|| weight("*")).is_some_and(|weight: f32| weight > 0.0)
}

fn text(status: StatusCode, body: String, content_type: &'static str) -> Response<Full<Bytes>> {
    answer(status, Bytes::from(body), content_type)
}

fn answer(status: StatusCode, body: Bytes, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests;
