//! The audit log: read back, followed, and narrowed to what the caller may know.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Access, ApiError, Caller, Endpoint, Query};
use crate::access::{Thing, Verb};
use crate::hub::Hub;
use crate::store::AuditQuery;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// The longest that a call waits for an entry.
const MAX_WAIT: Duration = Duration::from_secs(300);

pub(super) fn endpoints() -> Vec<Endpoint> {
    let endpoint = |path, summary| {
        let access = Access::Each(Verb::Read, Thing::Event);
        Endpoint::get(path, access, summary, axum::routing::get(events)).query(&[
            ("before", "only entries with a lower number"),
            ("after", "only entries with a higher number: the oldest of them"),
            ("limit", "at most this many; default 100, at most 1000"),
            ("actor", "part of an actor's id or of its token's name"),
            ("action", "part of an action's name"),
            ("object", "part of what it is about"),
            ("since_unix_ms", "not older than this"),
            ("refused", "true: only refused attempts; false: none of them"),
            ("wait_ms", "wait up to this long for an entry; default 0, at most 300000"),
        ])
    };
    vec![
        endpoint("/api/v1/events", "Who did what, from where, what it changed, and what was refused; the newest first"),
        endpoint("/api/v1/audit", "As /api/v1/events"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    before: Option<u64>,
    after: Option<u64>,
    limit: Option<usize>,
    actor: Option<String>,
    action: Option<String>,
    object: Option<String>,
    since_unix_ms: Option<i64>,
    refused: Option<bool>,
    wait_ms: Option<u64>,
}

async fn events(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<EventQuery>,
) -> Result<Json<Value>, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(query.wait_ms.unwrap_or(0)).min(MAX_WAIT);
    let EventQuery { before, after, limit, actor, action, object, since_unix_ms, refused, wait_ms: _ } = query;
    let namespaces = caller.rights.is_bound().then(|| caller.rights.namespaces.clone());
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let query = AuditQuery { before, after, actor, action, object, since_unix_ms, refused, namespaces, limit };
    let mut told = hub.watch_events();
    loop {
        told.borrow_and_update();
        let log = hub.search_events(query.clone()).await??;
        if !log.is_empty() || Instant::now() >= deadline {
            let entries: Vec<_> = log.iter().map(|(number, entry)| describe(*number, entry)).collect();
            return Ok(Json(json!({ "entries": entries })));
        }
        tokio::select! {
            _ = told.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = hub.stopping() => return Ok(Json(json!({ "entries": [] }))),
        }
    }
}

fn describe(number: u64, entry: &crate::store::AuditEntry) -> Value {
    let mut shown = json!(entry);
    shown["number"] = number.into();
    shown
}
