//! Reviews over HTTP, in two releases so that a canary has something to show.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use clap::Args;
use serde_json::{Value, json};

use crate::Listen;

#[derive(Debug, Args)]
pub(crate) struct ReviewsArgs {
    #[command(flatten)]
    listen: Listen,
    /// The release that this instance claims to be.
    #[arg(long, default_value = "v1")]
    release: String,
    /// Time that an answer takes, milliseconds.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
}

#[derive(Debug, Clone)]
struct Release {
    name: String,
    latency: Duration,
}

pub(crate) async fn serve(args: ReviewsArgs) -> anyhow::Result<()> {
    let release = Release { name: args.release, latency: Duration::from_millis(args.latency_ms) };
    let router = Router::new()
        .route("/reviews/{product}", get(reviews).post(write))
        .route("/admin/settings", get(settings))
        .route("/healthz", get(async || "ok"))
        .with_state(release);
    crate::serve_http(args.listen, router).await
}

async fn reviews(State(release): State<Release>, Path(product): Path<String>, headers: HeaderMap) -> Response {
    if is_broken(&release.name, &headers) {
        return (StatusCode::SERVICE_UNAVAILABLE, "broken, as x-demo asks\n").into_response();
    }
    if !release.latency.is_zero() {
        tokio::time::sleep(release.latency).await;
    }
    let stars = if release.name == "v1" { Value::Null } else { json!(5) };
    let body = json!({
        "product": product,
        "release": release.name,
        "caller": caller(&headers),
        "reviews": [{"author": "Ada", "text": "Keeps the tea warm.", "stars": stars}],
    });
    ([("x-shop-release", release.name)], Json(body)).into_response()
}

/// Takes whatever it is sent: that it is a review is for the mesh's policy to say.
async fn write(State(release): State<Release>, Path(product): Path<String>, review: Bytes) -> Response {
    let taken = json!({"product": product, "release": release.name, "bytes": review.len()});
    (StatusCode::CREATED, Json(taken)).into_response()
}

/// True where `x-demo` asks for failures: `broken` of every release, `broken-v2` of that one.
fn is_broken(release: &str, headers: &HeaderMap) -> bool {
    let asked = headers.get("x-demo").and_then(|value| value.to_str().ok());
    asked
        .and_then(|asked| asked.strip_prefix("broken"))
        .is_some_and(|of| of.is_empty() || of.strip_prefix('-') == Some(release))
}

/// Settings that only an administrator should see; the mesh's policy says who that is, not this code.
async fn settings(State(release): State<Release>) -> Json<Value> {
    Json(json!({"release": release.name, "moderation": "strict"}))
}

/// The caller's identity as the sidecar vouches for it (`URI=spiffe://...`).
pub(crate) fn caller(headers: &HeaderMap) -> String {
    let value = headers.get("x-forwarded-client-cert").and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split([';', ',']).find_map(|part| part.trim().strip_prefix("URI=")).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_fails_where_it_is_asked_to() {
        let check = |asked: &str, expect: bool| {
            let headers =
                HeaderMap::from_iter([(axum::http::HeaderName::from_static("x-demo"), asked.parse().unwrap())]);
            assert_eq!(is_broken("v2", &headers), expect, "{asked}");
        };
        check("broken", true);
        check("broken-v2", true);
        check("broken-v1", false);
        check("slow", false);
        assert!(!is_broken("v2", &HeaderMap::new()));
    }

    #[test]
    fn the_caller_is_read_from_the_client_certificate_header() {
        let check = |value: &str, expect: &str| {
            let headers = HeaderMap::from_iter([(
                axum::http::HeaderName::from_static("x-forwarded-client-cert"),
                value.parse().unwrap(),
            )]);
            assert_eq!(caller(&headers), expect, "{value}");
        };
        check(
            "By=spiffe://a;URI=spiffe://cluster.local/ns/shop/sa/frontend",
            "spiffe://cluster.local/ns/shop/sa/frontend",
        );
        check("Hash=1", "unknown");
        assert_eq!(caller(&HeaderMap::new()), "unknown");
    }
}
