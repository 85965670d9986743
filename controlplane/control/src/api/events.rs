//! The audit log: read back, followed, and narrowed to what the caller may know.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use tokio::time::Instant;
use weft_api::{Event, EventQuery, Events};

use super::tokens::Makers;
use super::{Access, ApiError, Caller, Endpoint, Query};
use crate::access::{Thing, Verb};
use crate::hub::Hub;
use crate::store::{AuditEntry, AuditQuery};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// The longest that a call waits for an entry.
const MAX_WAIT: Duration = Duration::from_secs(300);

pub(super) fn endpoints() -> Vec<Endpoint> {
    let endpoint = |path, summary| {
        let access = Access::Each(Verb::Read, Thing::Event);
        Endpoint::get(path, access, summary, axum::routing::get(events))
            .described(|it| it.query::<EventQuery>().answers::<Events>())
    };
    vec![
        endpoint("/api/v1/events", "Who did what, from where, what it changed, and what was refused; the newest first"),
        endpoint("/api/v1/audit", "As /api/v1/events"),
    ]
}

async fn events(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<EventQuery>,
) -> Result<Json<Events>, ApiError> {
    let deadline = Instant::now() + Duration::from_millis(query.wait_ms.unwrap_or(0)).min(MAX_WAIT);
    let EventQuery { before, after, limit, actor, action, object, since_unix_ms, refused, wait_ms: _ } = query;
    let namespaces = caller.rights.is_bound().then(|| caller.rights.namespaces.clone());
    let limit = limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
    let known = Makers::known_to(&hub, &caller).await?.into_ids();
    let mut query =
        AuditQuery { before, after, actor, action, object, since_unix_ms, refused, namespaces, known, limit };
    let mut told = hub.watch_events();
    loop {
        told.borrow_and_update();
        let newest = hub.newest_event().await.map_err(ApiError::unread)?;
        let log = hub.search_events(&caller.token_id, query.clone()).await?.map_err(ApiError::unread)?;
        if !log.is_empty() || Instant::now() >= deadline {
            let entries: Vec<_> = log.into_iter().map(|(number, entry)| describe(number, entry)).collect();
            return Ok(Json(Events { entries }));
        }
        // The next search begins behind the entries that matched nothing.
        query.after = Some(query.after.unwrap_or_default().max(newest));
        tokio::select! {
            _ = told.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = hub.stopping() => return Ok(Json(Events::default())),
        }
    }
}

fn describe(number: u64, entry: AuditEntry) -> Event {
    let AuditEntry {
        time_unix_ms,
        actor,
        name,
        role,
        from,
        action,
        object,
        revision,
        detail,
        diff,
        namespaces,
        refused,
    } = entry;
    Event { number, time_unix_ms, actor, name, role, from, action, object, revision, detail, diff, namespaces, refused }
}
