//! The operator API: JSON under `/api/v1`, one table of endpoints from which both the router and the OpenAPI document are
//! made. Every endpoint names the access it needs; what it names nothing for, a token that is bound to namespaces does
//! not reach. All changes go through the `Hub`.

mod auth;
mod authority;
mod error;
mod events;
mod explained;
mod filters;
mod grants;
mod lint;
mod objects;
mod openapi;
mod proxies;
mod snapshot;
mod status;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::MethodRouter;
use axum::{Json, Router};
use http::{HeaderValue, StatusCode, header};
use utoipa::openapi::HttpMethod;
use weft_api::Version;

pub use self::auth::{Caller, Peer};
pub use self::error::ApiError;
use self::error::{Refusal, of_document, of_object};
use self::openapi::Described;
pub(crate) use self::status::watch as watch_conditions;
use crate::access::{Thing, Verb};
use crate::hub::Hub;
use crate::metrics::Throttled;

/// One endpoint: how it is reached, what it needs, what it does.
pub struct Endpoint {
    pub method: HttpMethod,
    pub path: &'static str,
    pub access: Access,
    described: Described,
    handler: MethodRouter<Arc<Hub>>,
}

/// What a call of an endpoint needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No token.
    Public,
    /// A right that holds for the whole mesh.
    Mesh(Verb, Thing),
    /// A right that the handler judges for each thing by its place.
    Each(Verb, Thing),
}

/// Every endpoint of the API.
pub fn endpoints() -> Vec<Endpoint> {
    let mut all = vec![
        Endpoint::get(
            "/healthz",
            Access::Public,
            "Whether the server is alive: to start it again would mend nothing while it answers",
            axum::routing::get(healthz),
        )
        .described(|it| it.answers_text("200", "It is")),
        Endpoint::get(
            "/readyz",
            Access::Public,
            "Whether the server can do all of its work: 503 with the reason where it can't",
            axum::routing::get(readyz),
        )
        .described(|it| it.answers_text("200", "It can").answers_text("503", "It can't, and why")),
        Endpoint::get("/api/v1/version", Access::Public, "Version of the server", axum::routing::get(version))
            .described(|it| it.answers::<Version>()),
        Endpoint::get("/api/v1/openapi.json", Access::Public, "This description", axum::routing::get(openapi::serve))
            .described(|it| it.answers_object()),
    ];
    all.extend(objects::endpoints());
    all.extend(explained::endpoints());
    all.extend(lint::endpoints());
    all.extend(proxies::endpoints());
    all.extend(grants::endpoints());
    all.extend(tokens::endpoints());
    all.extend(filters::endpoints());
    all.extend(events::endpoints());
    all.extend(authority::endpoints());
    all.extend(snapshot::endpoints());
    all
}

/// The router of port 15013.
pub fn router(hub: Arc<Hub>) -> Router {
    let limit = hub.config().limits.max_body_bytes;
    let mut router = Router::new();
    for endpoint in endpoints() {
        let mut handler = endpoint.handler;
        if endpoint.access != Access::Public {
            handler = handler.route_layer(from_fn_with_state((hub.clone(), endpoint.access), auth::authorize));
        }
        router = router.route(endpoint.path, handler);
    }
    router
        .fallback(async || ApiError::not_found("no such path: GET /api/v1/openapi.json lists all"))
        .method_not_allowed_fallback(async || {
            let mut error = ApiError::invalid("this path has no such method: GET /api/v1/openapi.json lists all");
            error.status = StatusCode::METHOD_NOT_ALLOWED;
            error
        })
        .layer(DefaultBodyLimit::max(limit))
        .layer(from_fn(no_store))
        .layer(from_fn_with_state(hub.clone(), count))
        .layer(from_fn(auth::count_uses))
        .with_state(hub)
}

impl Endpoint {
    fn new(
        method: HttpMethod,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: MethodRouter<Arc<Hub>>,
    ) -> Self {
        Self { method, path, access, described: Described::new(path, access, summary), handler }
    }

    fn get(path: &'static str, access: Access, summary: &'static str, handler: MethodRouter<Arc<Hub>>) -> Self {
        Self::new(HttpMethod::Get, path, access, summary, handler)
    }

    fn post(path: &'static str, access: Access, summary: &'static str, handler: MethodRouter<Arc<Hub>>) -> Self {
        Self::new(HttpMethod::Post, path, access, summary, handler)
    }

    fn delete(path: &'static str, access: Access, summary: &'static str, handler: MethodRouter<Arc<Hub>>) -> Self {
        Self::new(HttpMethod::Delete, path, access, summary, handler)
    }

    /// Adds to the description what it takes and answers.
    fn described(self, describe: impl FnOnce(Described) -> Described) -> Self {
        Self { described: describe(self.described), ..self }
    }
}

/// Also served on the metrics port, as is the next.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

pub(crate) async fn readyz(axum::extract::State(hub): axum::extract::State<Arc<Hub>>) -> (StatusCode, String) {
    match hub.store_fault() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}; proxies go on with what they have\n")),
    }
}

async fn version() -> Json<Version> {
    let [name, version, api] = ["weft-control", env!("CARGO_PKG_VERSION"), "v1"].map(str::to_owned);
    Json(Version { name, version, api })
}

/// Answers hold names and tokens: nobody on the way may keep them.
async fn no_store(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn count(axum::extract::State(hub): axum::extract::State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    hub.metrics().api_requests.increment(1);
    if response.status().is_client_error() || response.status().is_server_error() {
        hub.metrics().api_errors.increment(1);
    }
    response
}

/// A JSON body whose faults are told in the API's own shape.
pub(crate) struct Body<T>(pub(crate) T);

/// Bytes of memory that a value of a JSON text takes at the most, with its key, beside its own text.
const VALUE: usize = 96;

/// Values of a JSON text, counted before any of them is made: each is begun by a bracket, a comma or the text itself.
fn values(json: &[u8]) -> usize {
    let (mut count, mut is_text, mut is_escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' | b',' if !is_text => count += 1,
            _ => {}
        }
    }
    count
}

/// Larger bodies are read where that holds up no other task.
const READ_APART: usize = 64 << 10;

impl<T: serde::de::DeserializeOwned + Send + 'static> axum::extract::FromRequest<Arc<Hub>> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Result<Self, ApiError> {
        let told = |status, message: String| ApiError { status, ..ApiError::invalid(message) };
        let part = request.extensions().get::<auth::BodyPart>().cloned();
        let patience = hub.config().body_timeout();
        let arrived = tokio::time::timeout(patience, axum::body::Bytes::from_request(request, hub)).await;
        let late = || told(StatusCode::REQUEST_TIMEOUT, format!("the request body took longer than {patience:?}"));
        let bytes = arrived.map_err(|_| late())?.map_err(|it| told(it.status(), it.body_text()))?;
        if let Some(part) = part {
            let grown = part.grow(values(&bytes).saturating_mul(VALUE));
            grown.inspect_err(|_| hub.metrics().throttled(Throttled::Bodies))?;
        }
        let read = match bytes.len() > READ_APART {
            true => crate::hub::apart(move || serde_json::from_slice(&bytes)).await,
            false => serde_json::from_slice(&bytes),
        };
        read.map(Body).map_err(|e| ApiError::invalid(format!("request body: {e}")))
    }
}

/// A query string whose faults are told in the API's own shape.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: serde::de::DeserializeOwned, S: Send + Sync> axum::extract::FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, ApiError> {
        let found = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        found.map(|axum::extract::Query(value)| Self(value)).map_err(|e| ApiError::invalid(e.body_text()))
    }
}
