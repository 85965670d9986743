//! Tokens and the audit log.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use weft_policy::identity::is_label;
use weft_policy::registration::OWN_PREFIX;

use super::{ApiError, Body, Caller, Endpoint, Query};
use crate::claims::Grants;
use crate::hub::Hub;
use crate::token::{Grant, Permission, Role, TokenRecord};

const DEFAULT_JOIN_TTL: u64 = 600;
const MAX_JOIN_TTL: u64 = 30 * 24 * 3600;
const MAX_USES: u32 = 10_000;
/// Services, labels and addresses that one token grants, each.
const MAX_GRANTS: usize = 64;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(
            "post",
            "/api/v1/tokens",
            Some(Permission::Read),
            "Makes a join token (operator) or a person's token (admin); its text is shown once",
            axum::routing::post(create),
        )
        .body("CreateToken"),
        Endpoint::get(
            "/api/v1/tokens",
            Some(Permission::CreateJoinToken),
            "Every token that is good for something: name, what for, when it ends; never its text",
            axum::routing::get(list),
        ),
        Endpoint::new(
            "delete",
            "/api/v1/tokens/{name}",
            Some(Permission::CreateJoinToken),
            "Ends a token by its name or id, at once; a person's needs the role admin",
            axum::routing::delete(revoke),
        ),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateToken {
    kind: Kind,
    /// The token's name in lists.
    name: Option<String>,
    /// For join tokens: `namespace/service-account`.
    service_account: Option<String>,
    /// For operator tokens.
    role: Option<Role>,
    ttl_seconds: Option<u64>,
    uses: Option<u32>,
    /// For join tokens: services of the account's namespace that its workloads may stand behind.
    #[serde(default)]
    services: Vec<String>,
    /// For join tokens: labels, `KEY=VALUE`, that put its workloads behind what selects by them.
    #[serde(default)]
    labels: Vec<String>,
    /// For join tokens: ranges that its workloads may be in.
    #[serde(default)]
    addresses: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Join,
    Operator,
}

async fn create(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateToken>,
) -> Result<Json<Value>, ApiError> {
    let (permission, grant, ttl) = match request.kind {
        Kind::Join => (Permission::CreateJoinToken, join_grant(&hub, &request)?, Some(join_ttl(request.ttl_seconds)?)),
        Kind::Operator => {
            let role = request.role.ok_or_else(|| ApiError::invalid("an operator token needs a role"))?;
            let grants = [&request.services, &request.labels, &request.addresses];
            if request.service_account.is_some() || request.uses.is_some() || grants.iter().any(|list| !list.is_empty())
            {
                return Err(ApiError::invalid(
                    "service_account, uses, services, labels and addresses are for join tokens",
                ));
            }
            (Permission::CreateOperatorToken, Grant::Operator { role }, request.ttl_seconds.map(Duration::from_secs))
        }
    };
    caller.require(permission)?;
    if let Some(name) = &request.name {
        free_name(&hub, name).await?;
    }
    let made = hub.create_named_token(&caller.actor(), request.name.as_deref(), grant, ttl).await?;
    let name = request.name.as_ref().unwrap_or(&made.id);
    Ok(Json(json!({ "token": made.text.reveal(), "id": made.id, "name": name, "expires_unix": made.expires_unix })))
}

/// A name that is one and that no other token has.
async fn free_name(hub: &Hub, name: &str) -> Result<(), ApiError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(is_allowed) {
        return Err(ApiError::invalid(format!("name {name:?}: lower-case letters, digits and '-', at most 63")));
    }
    let is_taken = hub.tokens().await?.iter().any(|record| record.called() == name || record.id == name);
    if is_taken {
        Err(ApiError::conflict(format!("a token named {name} is there: weft token revoke {name}")))
    } else {
        Ok(())
    }
}

async fn list(State(hub): State<Arc<Hub>>) -> Result<Json<Value>, ApiError> {
    let describe = |record: TokenRecord| {
        let mut shown = json!({
            "name": record.called(), "id": record.id, "created_unix": record.created_unix,
            "created_by": record.created_by, "expires_unix": record.expires_unix,
        });
        match record.grant {
            Grant::Join { identity, uses_left, .. } => {
                shown["kind"] = "join".into();
                shown["identity"] = identity.to_string().into();
                shown["uses_left"] = uses_left.into();
            }
            Grant::Operator { role } => {
                shown["kind"] = "operator".into();
                shown["role"] = role.as_str().into();
            }
        }
        shown
    };
    let tokens: Vec<_> = hub.tokens().await?.into_iter().map(describe).collect();
    Ok(Json(json!({ "tokens": tokens })))
}

async fn revoke(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let tokens = hub.tokens().await?;
    let mut is_person = None;
    for record in &tokens {
        if record.id == name || record.called() == name {
            is_person = Some(is_person == Some(true) || matches!(record.grant, Grant::Operator { .. }));
        }
    }
    match is_person {
        None => return Err(ApiError::not_found(format!("no token is called {name}: weft token list"))),
        Some(true) => caller.require(Permission::CreateOperatorToken)?,
        Some(false) => {}
    }
    let ended = hub.revoke_tokens(&caller.actor(), &name).await?;
    Ok(Json(json!({ "revoked": ended.iter().map(|record| record.id.clone()).collect::<Vec<_>>() })))
}

fn join_grant(hub: &Hub, request: &CreateToken) -> Result<Grant, ApiError> {
    if request.role.is_some() {
        return Err(ApiError::invalid("role is for operator tokens"));
    }
    let account = request.service_account.as_deref().and_then(|text| text.split_once('/'));
    let (namespace, name) =
        account.ok_or_else(|| ApiError::invalid("a join token needs service_account: namespace/service-account"))?;
    let identity = hub.trust_domain().workload(namespace, name);
    let identity = identity.map_err(|e| ApiError::invalid(format!("service_account: {e}")))?;
    let uses_left = request.uses.unwrap_or(1);
    if !(1..=MAX_USES).contains(&uses_left) {
        return Err(ApiError::invalid(format!("uses must be between 1 and {MAX_USES}")));
    }
    Ok(Grant::Join { identity, uses_left, grants: grants(request)? })
}

/// Rights that a join token grants beside its account.
fn grants(request: &CreateToken) -> Result<Grants, ApiError> {
    let lists = [("services", &request.services), ("labels", &request.labels), ("addresses", &request.addresses)];
    if let Some((key, list)) = lists.into_iter().find(|(_, list)| list.len() > MAX_GRANTS) {
        return Err(ApiError::invalid(format!("{key}: {} of them; at most {MAX_GRANTS} are taken", list.len())));
    }
    let mut grants = Grants::default();
    for service in &request.services {
        if !is_label(service) {
            return Err(ApiError::invalid(format!("services: {service:?} is not the name of a service")));
        }
        grants.services.insert(service.clone());
    }
    for label in &request.labels {
        let parts = label.split_once('=').filter(|(key, _)| !key.is_empty() && !key.starts_with(OWN_PREFIX));
        let (key, value) = parts.ok_or_else(|| ApiError::invalid(format!("labels: {label:?} is not KEY=VALUE")))?;
        grants.labels.insert((key.to_owned(), value.to_owned()));
    }
    for range in &request.addresses {
        // One address is the range of itself.
        let parsed = range.parse::<IpNet>().or_else(|_| range.parse::<IpAddr>().map(IpNet::from));
        let parsed = parsed.map_err(|_| ApiError::invalid(format!("addresses: {range:?} is not a range of addresses")));
        grants.addresses.insert(parsed?);
    }
    Ok(grants)
}

fn join_ttl(seconds: Option<u64>) -> Result<Duration, ApiError> {
    let seconds = seconds.unwrap_or(DEFAULT_JOIN_TTL);
    if !(1..=MAX_JOIN_TTL).contains(&seconds) {
        return Err(ApiError::invalid(format!("ttl_seconds must be between 1 and {MAX_JOIN_TTL}")));
    }
    Ok(Duration::from_secs(seconds))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    before: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn audit(
    State(hub): State<Arc<Hub>>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Value>, ApiError> {
    let entries = hub.audit(query.before, query.limit.unwrap_or(100).min(1_000)).await?;
    let entries: Vec<_> = entries
        .into_iter()
        .map(|(number, e)| {
            json!({
                "number": number, "time_unix_ms": e.time_unix_ms, "actor": e.actor, "action": e.action,
                "object": e.object, "revision": e.revision, "detail": e.detail,
            })
        })
        .collect();
    Ok(Json(json!({ "entries": entries })))
}
