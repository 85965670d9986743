//! Proxies: who is connected, and how far a change has come.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use weft_policy::bundle::Revision;

use super::{ApiError, Endpoint, Query};
use crate::hub::Hub;
use crate::registry::{ProxyStatus, SyncState};
use crate::token::Permission;

/// The longest that a status call waits.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Proxies that went away are waited for no longer than the registry says.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/proxies",
            Some(Permission::Read),
            "Every proxy: version, identity, how far behind, filters, certificate, transport",
            axum::routing::get(list),
        ),
        Endpoint::get(
            "/api/v1/revisions/{revision}/status",
            Some(Permission::Read),
            "Whether every proxy has a revision; waits until it is settled",
            axum::routing::get(status),
        )
        .query(&[("wait_ms", "wait up to this long; default 0, at most 300000")]),
    ]
}

async fn list(State(hub): State<Arc<Hub>>) -> Json<Value> {
    let newest = hub.published().revision;
    let proxies: Vec<_> = hub.registry().list(newest, Revision(0)).iter().map(|p| describe(p, newest)).collect();
    Json(json!({ "proxies": proxies }))
}

fn describe(proxy: &ProxyStatus, newest: Revision) -> Value {
    let time = |at: time::OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let expiry = proxy.health.certificate_not_after_unix;
    let expiry = time::OffsetDateTime::from_unix_timestamp(expiry).ok().filter(|_| expiry > 0).map(time);
    json!({
        "name": proxy.key.name,
        "identity": proxy.key.identity.to_string(),
        "address": proxy.introduction.address.map(|address| address.to_string()).unwrap_or_default(),
        "version": proxy.introduction.version,
        "state": proxy.state,
        "reason": proxy.reason,
        "revision": proxy.synced.0,
        "current_revision": newest.0,
        "staleness_ms": u64::try_from(proxy.behind_for.as_millis()).unwrap_or(u64::MAX),
        "filters": proxy.health.filters,
        "certificate_not_after": expiry,
        "transport": proxy.health.transport,
        "connected_since": proxy.connected_since.map(time),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    wait_ms: Option<u64>,
}

async fn status(
    State(hub): State<Arc<Hub>>,
    Path(revision): Path<String>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<Value>, ApiError> {
    let wanted: u64 = revision.parse().map_err(|_| ApiError::invalid(format!("{revision:?} is no revision")))?;
    let newest = hub.published().revision.0;
    if wanted > newest {
        return Err(ApiError::not_found(format!("revision {wanted} does not exist; the newest is {newest}")));
    }
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let mut changes = hub.registry().watch();
    loop {
        changes.borrow_and_update();
        let mut proxies = hub.registry().list(Revision(wanted), Revision(wanted));
        proxies.retain(is_concerned);
        if settled(&proxies) || Instant::now() >= deadline {
            return Ok(Json(report(wanted, &proxies)));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK_AGAIN)) => {}
            () = hub.stopping() => return Ok(Json(report(wanted, &proxies))),
        }
    }
}

/// A proxy that is gone for good gets no revision and is no reason to wait.
fn is_concerned(proxy: &ProxyStatus) -> bool {
    proxy.state != SyncState::Disconnected || proxy.is_awaited
}

/// Nobody is left to wait for: each proxy has it or has refused it.
fn settled(proxies: &[ProxyStatus]) -> bool {
    proxies.iter().all(|proxy| matches!(proxy.state, SyncState::Synced | SyncState::Refused))
}

fn report(wanted: u64, proxies: &[ProxyStatus]) -> Value {
    let complete = proxies.iter().all(|proxy| proxy.state == SyncState::Synced);
    let list: Vec<_> = proxies
        .iter()
        .map(|p| {
            json!({ "name": p.key.name, "identity": p.key.identity.to_string(), "state": p.state,
            "revision": p.synced.0, "reason": p.reason, "held": p.held })
        })
        .collect();
    json!({ "revision": wanted, "complete": complete, "proxies": list })
}
