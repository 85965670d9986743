//! The three side doors, each on its own port and off the data path: admin (15000, loopback only; what changes anything
//! is POST), metrics (15020) and health (15021).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tracing::{info, warn};
use weft_transport::tls::IdentityHandle;

use crate::profile;
use crate::scrape;
use crate::shared::Shared;
use crate::telemetry::LogLevel;

/// Which door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Admin,
    Metrics,
    Health,
}

/// What the doors show.
pub struct Admin {
    pub shared: Arc<Shared>,
    pub identity: std::sync::OnceLock<IdentityHandle>,
    pub prometheus: metrics_exporter_prometheus::PrometheusHandle,
    pub log_level: LogLevel,
}

impl Admin {
    /// Serves one door for as long as the process lives.
    pub async fn serve(self: Arc<Self>, door: Door, listener: TcpListener) {
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(?door, %error, "cannot accept");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            if door == Door::Admin && !from.ip().is_loopback() {
                continue;
            }
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.respond(door, &request, from).await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn respond(&self, door: Door, request: &Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        let uri = request.uri();
        if (door, request.method(), uri.path()) != (Door::Admin, &Method::GET, "/debug/pprof/profile") {
            return self.answer(door, request, from);
        }
        match profile::take(uri.query().unwrap_or("")).await {
            Ok(profile) => answer(StatusCode::OK, profile, "application/octet-stream"),
            Err(error) => plain(error.status(), &format!("{error}\n")),
        }
    }

    fn answer(&self, door: Door, request: &Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (door, request.method(), path) {
            (Door::Metrics, &Method::GET, "/metrics" | "/stats/prometheus") => {
                text(StatusCode::OK, scrape::render(self), "text/plain; version=0.0.4")
            }
            (Door::Health, &Method::GET, "/healthz/ready") => self.ready(),
            (Door::Health, &Method::GET, "/healthz/live") => plain(StatusCode::OK, "live\n"),
            (Door::Admin, &Method::GET, _) => self.show(path),
            (Door::Admin, &Method::POST, _) => {
                info!(%from, path, "admin call");
                self.change(path, request.uri().query().unwrap_or(""))
            }
            _ => plain(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.shared.drain.is_draining() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
        }
        if self.identity.get().is_none() {
            return plain(StatusCode::SERVICE_UNAVAILABLE, "no identity yet\n");
        }
        match self.shared.snapshot.load().is_some() {
            true => plain(StatusCode::OK, "ready\n"),
            false => plain(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n"),
        }
    }

    fn show(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/" => plain(StatusCode::OK, INDEX),
            "/config_dump" => json_answer(&self.config_dump()),
            "/certs" => json_answer(&self.certs()),
            "/clusters" => json_answer(&self.clusters()),
            "/filters" => json_answer(&self.filters()),
            "/memory" => json_answer(&json!({ "resident_bytes": scrape::resident_bytes() })),
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
            "services": bundle.services.values().map(service_json).collect::<Vec<_>>(),
            "routes": bundle.routes.values().collect::<Vec<_>>(),
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
        Value::Array(snapshot.bundle.services.values().map(service_json).collect())
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

fn service_json(service: &weft_policy::bundle::Service) -> Value {
    json!({
        "name": service.name.to_string(),
        "vip": service.vip,
        "ports": service.ports,
        "endpoints": service.endpoints.values().collect::<Vec<_>>(),
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
POST /drain                 finish what is in flight, refuse readiness
POST /quitquitquit          end at once
";

fn plain(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    text(status, body.to_owned(), "text/plain; charset=utf-8")
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    text(StatusCode::OK, format!("{value:#}\n"), "application/json")
}

fn text(status: StatusCode, body: String, content_type: &'static str) -> Response<Full<Bytes>> {
    answer(status, Bytes::from(body), content_type)
}

fn answer(status: StatusCode, body: Bytes, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
