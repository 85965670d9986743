//! The shop's guard: says of each request that a sidecar asks it about whether it may pass. Cake is for those with a badge.

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};

use crate::Listen;

/// Where sidecars ask; the path that they ask about stands behind it.
const ASKED_AT: &str = "/check";
const GUARDED: &str = "/product/cake";
const BADGE: &str = "x-badge";

pub(crate) async fn serve(listen: Listen) -> anyhow::Result<()> {
    let asked = async |uri: Uri, headers: HeaderMap| judge(uri.path(), &headers);
    crate::serve_http(listen, Router::new().fallback(asked)).await
}

fn judge(asked: &str, headers: &HeaderMap) -> (StatusCode, &'static str) {
    match asked.strip_prefix(ASKED_AT) {
        None => (StatusCode::NOT_FOUND, "ask below /check\n"),
        Some(GUARDED) if !headers.contains_key(BADGE) => (StatusCode::FORBIDDEN, "cake is for those with a badge\n"),
        Some(_) => (StatusCode::OK, "let it pass\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cake_takes_a_badge_and_nothing_else_does() {
        let badge = HeaderMap::from_iter([(axum::http::HeaderName::from_static(BADGE), "gold".parse().unwrap())]);
        for (asked, headers, expect) in [
            ("/check/product/cake", HeaderMap::new(), 403),
            ("/check/product/cake", badge, 200),
            ("/check/product/tea", HeaderMap::new(), 200),
            ("/product/cake", HeaderMap::new(), 404),
        ] {
            assert_eq!(judge(asked, &headers).0.as_u16(), expect, "{asked}");
        }
    }
}
