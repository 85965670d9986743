//! Resources: list, show, apply, delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderName, header};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::openapi::Required;
use weft_api::{ApplyRequest, DeleteQuery, Deleted, Detail, ListQuery, ResourceList, UnreadableList};
use weft_policy::bundle::Revision;
use weft_policy::lint::{Code, Finding};
use weft_policy::manifest::{from_json, read_at};
use weft_policy::plan::{Entry, Loss, Owned};
use weft_policy::resource::{Kind, ObjectKey, Resource};

use super::status::{self, Arrivals};
use super::{Access, ApiError, Body, Caller, Endpoint, Query, of_document, of_object};
use crate::access::{Place, Thing, Verb};
use crate::hub::{Applied, ApplyError, Expected, How, Hub, Misplaced, Published, Stale, apart};
use crate::store::{Unreadable, is_of_secret};
use crate::token::Role;

/// Any kind: the table tells them apart by place only.
pub(super) const OBJECT: Thing = Thing::Object(Kind::Service);
/// Stands for the namespace of kinds that have none.
const NO_NAMESPACE: &str = "_";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/resources/{kind}",
            Access::Each(Verb::Read, OBJECT),
            "All resources of a kind",
            axum::routing::get(list),
        )
        .described(|it| it.query::<ListQuery>().answers::<ResourceList>()),
        Endpoint::get(
            "/api/v1/resources/{kind}/{namespace}/{name}",
            Access::Each(Verb::Read, OBJECT),
            "One resource; namespace _ for kinds without one",
            axum::routing::get(show),
        )
        .described(|it| it.answers::<weft_api::Resource>()),
        Endpoint::get(
            "/api/v1/unreadable",
            Access::Each(Verb::Read, OBJECT),
            "Records of the store that can't be read, as they are",
            axum::routing::get(unreadable),
        )
        .described(|it| it.answers::<UnreadableList>()),
        Endpoint::delete(
            "/api/v1/resources/{kind}/{namespace}/{name}",
            Access::Each(Verb::Change, OBJECT),
            "Deletes one resource; with If-Match only where its revision is that of the ETag",
            axum::routing::delete(delete),
        )
        .described(|it| {
            it.query::<DeleteQuery>()
                .header("if-match", "the ETag of the resource as it was read", Required::False)
                .answers::<Deleted>()
        }),
        Endpoint::post(
            "/api/v1/apply",
            // A dry run only reads; the handler asks for more where it is none.
            Access::Each(Verb::Read, OBJECT),
            "Applies all documents or none; dry_run says what would change. Changing needs the role operator",
            axum::routing::post(apply),
        )
        .described(|it| it.takes::<ApplyRequest>().answers::<weft_api::Applied>()),
    ]
}

/// The longest that a list is waited for.
const MAX_WAIT: Duration = Duration::from_secs(300);

async fn list(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(kind): Path<String>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ResourceList>, ApiError> {
    let kind = parse_kind(&kind)?;
    if let Some(namespace) = query.namespace.as_ref().filter(|_| kind.is_namespaced()) {
        caller.may(Verb::Read, Thing::Object(kind), Place::Namespace(namespace))?;
    }
    let is_wanted = |key: &ObjectKey| {
        query.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
            && caller.rights.may_object(Verb::Read, key).is_ok()
    };
    let versions = |published: &Published| -> Vec<(ObjectKey, Revision)> {
        let items = published.world.of_kind(kind).filter(|(key, _)| is_wanted(key));
        items.map(|(key, entry)| (key.clone(), entry.modified)).collect()
    };
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(MAX_WAIT);
    let mut changes = hub.subscribe();
    let mut published = changes.borrow_and_update().clone();
    if query.after == Some(published.revision.0) {
        let before = versions(&published);
        let changed = async {
            while versions(&published) == before && changes.changed().await.is_ok() {
                published = changes.borrow_and_update().clone();
            }
        };
        tokio::select! {
            // Whatever ends the wait, the list is as it is now.
            _ = tokio::time::timeout(wait, changed) => {}
            () = hub.stopping() => {}
        }
    }
    let arrivals = Arrivals::of(&hub, &caller).await;
    let items = published.world.of_kind(kind).filter(|(key, _)| is_wanted(key));
    let items = items.map(|(key, stored)| describe(&hub, &published, &arrivals, key, stored));
    Ok(Json(ResourceList { revision: published.revision.0, items: items.collect() }))
}

async fn show(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<([(HeaderName, String); 1], Json<weft_api::Resource>), ApiError> {
    let key = parse_key(&kind, &namespace, &name)?;
    caller.may_object(Verb::Read, &key)?;
    let published = hub.published();
    let stored = published.world.get(&key).ok_or_else(|| ApiError::from(ApplyError::NotFound(key.clone())))?;
    //= rfc9110#section-8.8.3
    let tag = format!("\"{}\"", stored.modified.0);
    let arrivals = Arrivals::of(&hub, &caller).await;
    let shown = describe(&hub, &published, &arrivals, &key, stored);
    Ok(([(header::ETAG, tag)], Json(shown)))
}

async fn unreadable(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Json<UnreadableList> {
    let published = hub.published();
    // The record of a token holds nothing that a viewer may not see, but who made it is no concern of his.
    let is_admin = caller.rights.role == Role::Admin && !caller.rights.is_bound();
    let is_shown = |record: &&Unreadable| match record.object() {
        Some(key) => caller.rights.may_object(Verb::Read, &key).is_ok(),
        None => is_admin || (record.table == "objects" && !caller.rights.is_bound()),
    };
    let shown = |record: &Unreadable| {
        let Unreadable { table, key, reason, record } = record.clone();
        let record = match is_of_secret(&key) {
            // Damaged as it is, it may hold the values.
            true => format!("redacted ({} bytes)", record.len()),
            false => record,
        };
        weft_api::Unreadable { table: table.to_owned(), key, reason, record }
    };
    Json(UnreadableList { items: published.unreadable.values().filter(is_shown).map(shown).collect() })
}

async fn delete(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
    Query(query): Query<DeleteQuery>,
    headers: HeaderMap,
) -> Result<Json<Deleted>, ApiError> {
    let how = if query.force { How::Forced } else { How::Safely };
    let key = parse_key(&kind, &namespace, &name)?;
    caller.may_object(Verb::Change, &key)?;
    let expected = if_match(&headers)?.map(|revision| (key.clone(), revision)).into_iter().collect();
    let removed = hub.delete_if(caller.actor(), key, how, expected).await.map_err(|error| {
        let is_stale = matches!(error, ApplyError::Stale(_));
        let mut answer = ApiError::from(error);
        if is_stale {
            //= rfc9110#section-13.1.1
            answer.status = http::StatusCode::PRECONDITION_FAILED;
        }
        answer
    })?;
    let problems = removed.findings.iter().map(Into::into).collect();
    Ok(Json(Deleted { revision: removed.revision.0, problems }))
}

/// The revision of an If-Match; none where there is none, or where anything matches.
fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let number = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|number| number.parse().ok());
    match number {
        Some(number) => Ok(Some(Revision(number))),
        None if text == "*" => Ok(None),
        None => Err(ApiError::invalid(format!("if-match: {text:?} is not one ETag of this API, such as \"12\""))),
    }
}

async fn apply(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<ApplyRequest>,
) -> Result<Json<weft_api::Applied>, ApiError> {
    let verb = if request.dry_run { Verb::Read } else { Verb::Change };
    let right = caller.rights.may_somewhere(verb, OBJECT);
    let documents = bounded(&hub, request.documents)?;
    if let Err(denied) = right {
        // What it was about is for the audit log. Reading that is a dry run's work, which is bounded.
        let named = hub.plan(&caller.token_id, |_| parse_documents(documents)).await;
        let named = named.ok().and_then(Result::ok).map(|given| given.documents).unwrap_or_default();
        return Err(ApiError::from(denied).about(named.keys()));
    }
    // Many documents take long: that holds up no other call, and a dry run no change.
    let Given { documents, resources, seen } = if request.dry_run {
        hub.plan(&caller.token_id, |_| parse_documents(documents)).await??
    } else {
        apart(|| parse_documents(documents)).await?
    };
    within_reach(&caller, verb, &documents).map_err(|denied| denied.about(documents.keys()))?;
    if request.if_unchanged {
        all_seen(&documents, &seen)?;
    }
    let expected = if request.if_unchanged { seen } else { Expected::new() };
    let applied = if request.dry_run {
        // Nobody has a filter run here who could not have it run by a change.
        let known_only = within_reach(&caller, Verb::Change, &documents).is_err();
        hub.preview(caller.actor(), resources, expected, known_only).await
    } else {
        let how = if request.force { How::Forced } else { How::Safely };
        hub.apply_if(caller.actor(), resources, how, expected).await
    };
    let refused = |error| ApiError::from(error).in_documents(&documents).about(documents.keys());
    Ok(Json(report(&caller, &applied.map_err(refused)?)))
}

/// Refuses documents that don't tell the revision that they were read at, where that is to be compared.
fn all_seen(documents: &BTreeMap<ObjectKey, usize>, seen: &Expected) -> Result<(), ApiError> {
    let missing = documents.iter().filter(|(key, _)| !seen.contains_key(*key));
    let detail = |(key, number): (&ObjectKey, &usize)| {
        let message = "is missing: with if_unchanged it is the number of the revision that the object was read at";
        Detail { object: Some(key.into()), ..of_document(*number, "metadata.revision", message) }
    };
    let details: Vec<_> = missing.map(detail).collect();
    let Some(first) = details.first() else { return Ok(()) };
    Err(ApiError::invalid(format!("metadata.revision {}; nothing was applied", first.message)).with_details(details))
}

/// The documents, if they are not too many.
pub(super) fn bounded(hub: &Hub, documents: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    let limit = hub.config().limits.max_documents;
    // A List counts as what it holds.
    let count: usize = documents.iter().map(|it| it["items"].as_array().map_or(1, |items| items.len().max(1))).sum();
    if count > limit {
        return Err(ApiError::too_large(format!("{count} documents; at most {limit} in one apply")));
    }
    Ok(documents)
}

/// Refuses documents that the caller may not read or change, each by name.
pub(super) fn within_reach(
    caller: &Caller,
    verb: Verb,
    documents: &BTreeMap<ObjectKey, usize>,
) -> Result<(), ApiError> {
    let denied = |(key, number): (&ObjectKey, &usize)| {
        let message = caller.rights.may_object(verb, key).err()?.to_string();
        Some(Detail { object: Some(key.into()), ..of_document(*number, "metadata", message) })
    };
    let mut details: Vec<_> = documents.iter().filter_map(denied).collect();
    details.sort_by_key(|detail| detail.document);
    let Some(first) = details.first() else { return Ok(()) };
    Err(ApiError::forbidden(format!("{}; nothing was applied", first.message)).with_details(details))
}

/// What a request gives.
pub(super) struct Given {
    /// The number of each object's document.
    pub(super) documents: BTreeMap<ObjectKey, usize>,
    pub(super) resources: Vec<Resource>,
    /// The revisions that the objects were read at, where documents tell them.
    seen: Expected,
}

/// Every resource with the number of its document, or everything that is wrong with any.
pub(super) fn parse_documents(documents: Vec<Value>) -> Result<Given, ApiError> {
    let mut given =
        Given { documents: BTreeMap::new(), resources: Vec::with_capacity(documents.len()), seen: Expected::new() };
    let mut details = Vec::new();
    for (number, document) in documents.into_iter().enumerate() {
        let revisions = read_at(&document);
        let read = match from_json(document) {
            Ok(read) => read,
            Err(wrong) => {
                details.extend(wrong.into_iter().map(|wrong| of_document(number, wrong.key, wrong.message)));
                continue;
            }
        };
        for (place, resource) in read.into_iter().enumerate() {
            let key = resource.key();
            if given.documents.contains_key(&key) {
                let message = format!("{key} is given twice");
                let detail = of_document(number, "metadata.name", message);
                details.push(Detail { object: Some((&key).into()), ..detail });
                continue;
            }
            if let Some(Some(revision)) = revisions.get(place) {
                given.seen.insert(key.clone(), *revision);
            }
            given.documents.insert(key, number);
            given.resources.push(resource);
        }
    }
    let Some(first) = details.first() else { return Ok(given) };
    let more = match details.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let message = format!("{}: {}: {}{more}; nothing was applied", first.file, first.key, first.message);
    Err(ApiError::invalid(message).with_details(details))
}

fn report(caller: &Caller, applied: &Applied) -> weft_api::Applied {
    let is_seen = |finding: &&Finding| caller.rights.may_object(Verb::Read, &finding.object).is_ok();
    weft_api::Applied {
        revision: applied.revision.0,
        changes: applied.changes.iter().map(Into::into).collect(),
        problems: applied.findings.iter().filter(is_seen).map(Into::into).collect(),
    }
}

/// The manifest with what the server knows about it.
fn describe(
    hub: &Hub,
    published: &Published,
    arrivals: &Arrivals,
    key: &ObjectKey,
    stored: &Entry,
) -> weft_api::Resource {
    let mut manifest = serde_json::to_value(&stored.resource).unwrap_or_default();
    let metadata = stored.resource.metadata().clone();
    weft_api::Resource {
        api_version: key.kind.api_version().to_owned(),
        kind: key.kind.as_str().to_owned(),
        spec: manifest["spec"].take(),
        metadata: weft_api::Metadata {
            name: metadata.name,
            namespace: metadata.namespace,
            labels: metadata.labels,
            annotations: metadata.annotations,
            uid: stored.uid.clone(),
            generation: stored.generation,
            revision: stored.modified.0,
            creation_revision: stored.created.0,
            creation_timestamp: stored.created_unix.and_then(timestamp),
        },
        status: status::of(hub, published, arrivals, key, stored),
    }
}

/// A moment as RFC 3339.
pub(super) fn timestamp(unix: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(unix).ok()?.format(&Rfc3339).ok()
}

fn parse_kind(text: &str) -> Result<Kind, ApiError> {
    text.parse().map_err(|e: weft_policy::resource::KindError| ApiError::not_found(e.to_string()))
}

fn parse_key(kind: &str, namespace: &str, name: &str) -> Result<ObjectKey, ApiError> {
    let kind = parse_kind(kind)?;
    match (kind.is_namespaced(), namespace == NO_NAMESPACE) {
        (true, true) => Err(ApiError::invalid(format!("kind {kind} has a namespace"))),
        (false, false) => Err(ApiError::invalid(format!("kind {kind} has no namespace: use {NO_NAMESPACE}"))),
        (true, false) | (false, true) => Ok(ObjectKey::new(kind, namespace, name)),
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::NotFound(_) => Self::not_found(error.to_string()),
            ApplyError::Owned(Owned { ref key, .. }) => {
                let detail = of_object(key, "", error.to_string());
                Self::conflict(error.to_string()).with_details(vec![detail])
            }
            ApplyError::Unsound(ref findings) => {
                let detail = |finding: &Finding| {
                    let Finding { code, object, key, message, .. } = finding;
                    of_object(object, key, format!("{message} [{code}]"))
                };
                let details = findings.iter().map(detail).collect();
                Self::refused(format!("{error}; nothing was changed")).with_details(details)
            }
            ApplyError::Stale(ref stale) => {
                let detail = |stale: &Stale| of_object(&stale.key, "metadata.revision", stale.to_string());
                let details = stale.iter().map(detail).collect();
                Self::conflict(format!("{error}; nothing was applied")).with_details(details)
            }
            ApplyError::Misplaced(ref all) => {
                let detail = |one: &Misplaced| of_object(&one.object, &one.key, one.to_string());
                Self::forbidden(format!("{error}; nothing was applied")).with_details(all.iter().map(detail).collect())
            }
            ApplyError::Own(_) => Self::forbidden(error.to_string()),
            ApplyError::Busy(busy) => busy.into(),
            ApplyError::Unprotects(ref losses) => {
                let code = Code::Unprotects;
                let detail = |loss: &Loss| of_object(&loss.policy, "spec.targetRefs", format!("{loss} [{code}]"));
                Self::refused(error.to_string()).with_details(losses.iter().map(detail).collect())
            }
            ApplyError::Conflicts(_) => Self::refused(format!("{error}; nothing was changed")),
            ApplyError::Refused(_) => Self::refused(error.to_string()),
            ApplyError::Trying | ApplyError::Overtaken => Self::conflict(error.to_string()),
            ApplyError::Store(error) => error.into(),
        }
    }
}
