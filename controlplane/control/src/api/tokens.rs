//! Tokens of proxies and people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use weft_api::{CreateToken, CreatedToken, Revoked, Token, TokenKind, Tokens};
use weft_policy::identity::is_label;
use weft_policy::resource::ROOT_NAMESPACE;

use super::grants::{Lists, parsed, ranges};
use super::{Access, ApiError, Body, Caller, Endpoint};
use crate::access::{Place, Thing, Verb};
use crate::hub::Hub;
use crate::store::{OPERATOR, is_hidden};
use crate::token::{Grant, Role, TokenRecord};

const DEFAULT_JOIN_TTL: u64 = 600;
const MAX_JOIN_TTL: u64 = 30 * 24 * 3600;
const MAX_USES: u32 = 10_000;
/// Namespaces that one token is for.
const MAX_NAMESPACES: usize = 64;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(
            "/api/v1/tokens",
            // The handler asks for more, by the kind that is made.
            Access::Each(Verb::Read, Thing::JoinToken),
            "Makes a join token (operator) or a person's token (admin); its text is shown once",
            axum::routing::post(create),
        )
        .described(|it| it.takes::<CreateToken>().answers::<CreatedToken>()),
        Endpoint::get(
            "/api/v1/tokens",
            Access::Each(Verb::Read, Thing::JoinToken),
            "Every token that is good for something: name, what for, when it ends; never its text",
            axum::routing::get(list),
        )
        .described(|it| it.answers::<Tokens>()),
        Endpoint::delete(
            "/api/v1/tokens/{name}",
            Access::Each(Verb::Change, Thing::JoinToken),
            "Ends a token by its name or id, at once; a person's needs the role admin",
            axum::routing::delete(revoke),
        )
        .described(|it| it.answers::<Revoked>()),
    ]
}

async fn create(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<CreateToken>,
) -> Result<Json<CreatedToken>, ApiError> {
    let (grant, ttl) = match request.kind {
        TokenKind::Join => (join_grant(&hub, &request)?, Some(join_ttl(request.ttl_seconds)?)),
        TokenKind::Operator => (operator_grant(&request)?, request.ttl_seconds.map(Duration::from_secs)),
    };
    may(&caller, Verb::Change, &grant)?;
    if !request.addresses.is_empty() {
        // Addresses are of the whole mesh: whoever holds one gets what every proxy sends there.
        caller.may(Verb::Change, Thing::JoinToken, Place::Mesh)?;
    }
    if let Some(name) = &request.name {
        free_name(&hub, &caller, name).await?;
    }
    let made = hub.create_named_token(caller.actor(), request.name.as_deref(), grant, ttl).await?;
    let name = request.name.unwrap_or_else(|| made.id.clone());
    let token = made.text.reveal().to_owned();
    Ok(Json(CreatedToken { token, id: made.id, name, expires_unix: made.expires_unix }))
}

/// Whether the caller may read or change a token, by what it grants.
fn may(caller: &Caller, verb: Verb, grant: &Grant) -> Result<(), ApiError> {
    match grant {
        Grant::Join { identity, .. } => caller.may(verb, Thing::JoinToken, Place::Namespace(identity.namespace())),
        Grant::Operator { namespaces, .. } if namespaces.is_empty() => {
            caller.may(verb, Thing::PersonToken, Place::Mesh)
        }
        Grant::Operator { namespaces, .. } => namespaces
            .iter()
            .try_for_each(|namespace| caller.may(verb, Thing::PersonToken, Place::Namespace(namespace))),
    }
}

fn known(role: weft_api::Role) -> Role {
    match role {
        weft_api::Role::Viewer => Role::Viewer,
        weft_api::Role::Operator => Role::Operator,
        weft_api::Role::Publisher => Role::Publisher,
        weft_api::Role::Admin => Role::Admin,
    }
}

fn operator_grant(request: &CreateToken) -> Result<Grant, ApiError> {
    let role = request.role.map(known).ok_or_else(|| ApiError::invalid("an operator token needs a role"))?;
    let grants = [&request.services, &request.labels];
    if request.service_account.is_some() || request.uses.is_some() || grants.iter().any(|list| !list.is_empty()) {
        return Err(ApiError::invalid("service_account, uses, services and labels are for join tokens"));
    }
    let namespaces = request.namespaces.clone();
    if namespaces.is_empty() && !request.addresses.is_empty() {
        return Err(ApiError::invalid("addresses: a token for the whole mesh may set any"));
    }
    let addresses = ranges(&request.addresses)?;
    if namespaces.len() > MAX_NAMESPACES {
        return Err(ApiError::invalid(format!(
            "namespaces: {} of them; at most {MAX_NAMESPACES} are taken",
            namespaces.len()
        )));
    }
    if let Some(wrong) = namespaces.iter().find(|namespace| !is_label(namespace)) {
        return Err(ApiError::invalid(format!("namespaces: {wrong:?} is not the name of a namespace")));
    }
    if namespaces.contains(ROOT_NAMESPACE) {
        let message = "what is in it holds for the whole mesh, which takes a token without namespaces";
        return Err(ApiError::invalid(format!("namespaces: {ROOT_NAMESPACE}: {message}")));
    }
    if role == Role::Publisher && !namespaces.is_empty() {
        return Err(ApiError::invalid(
            "namespaces: filters are of the whole mesh, a publisher can't be for some of it",
        ));
    }
    Ok(Grant::Operator { role, namespaces, addresses })
}

/// A name that is one and that no other token has which the caller may read.
async fn free_name(hub: &Hub, caller: &Caller, name: &str) -> Result<(), ApiError> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 63 || !name.chars().all(is_allowed) {
        return Err(ApiError::invalid(format!("name {name:?}: lower-case letters, digits and '-', at most 63")));
    }
    let is_named = |record: &TokenRecord| record.called() == name || record.id == name;
    let tokens = hub.tokens().await?;
    let is_taken = tokens.iter().any(|record| is_named(record) && may(caller, Verb::Read, &record.grant).is_ok());
    if is_taken {
        Err(ApiError::conflict(format!("a token named {name} is there: weft token revoke {name}")))
    } else {
        Ok(())
    }
}

async fn list(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Result<Json<Tokens>, ApiError> {
    let is_seen = |record: &TokenRecord| may(&caller, Verb::Read, &record.grant).is_ok();
    let tokens = hub.tokens().await.map_err(ApiError::unread)?;
    let seen: Vec<_> = tokens.into_iter().filter(is_seen).collect();
    let makers = Makers::of(&caller, &seen);
    Ok(Json(Tokens { tokens: seen.into_iter().map(|record| describe(record, &makers)).collect() }))
}

/// The tokens that a caller may know of.
pub(super) struct Makers {
    /// Where he may not know of all.
    known: Option<BTreeSet<String>>,
    /// Their names by their ids, as far as they were looked up.
    names: BTreeMap<String, String>,
}

impl Makers {
    pub(super) async fn known_to(hub: &Hub, caller: &Caller) -> Result<Self, ApiError> {
        if !caller.rights.is_bound() {
            return Ok(Self { known: None, names: BTreeMap::new() });
        }
        Self::named(hub, caller).await
    }

    /// The same with the names of all of them. While a store on the network is away, nobody's is known and a bound caller knows
    /// of his own token only.
    pub(super) async fn named(hub: &Hub, caller: &Caller) -> Result<Self, ApiError> {
        let mut tokens = match hub.tokens().await {
            Err(error) if error.is_unreachable() => Vec::new(),
            read => read?,
        };
        tokens.retain(|record| may(caller, Verb::Read, &record.grant).is_ok());
        Ok(Self::of(caller, &tokens))
    }

    fn of(caller: &Caller, seen: &[TokenRecord]) -> Self {
        let own = std::iter::once(&caller.token_id);
        let known = || seen.iter().map(|record| &record.id).chain(own).cloned().collect();
        let names = seen.iter().map(|record| (record.id.clone(), record.called().to_owned()));
        Self { known: caller.rights.is_bound().then(known), names: names.collect() }
    }

    pub(super) fn into_ids(self) -> Option<BTreeSet<String>> {
        self.known
    }

    /// The name of the token by which somebody did something; empty where it has ended or is not the caller's to know.
    pub(super) fn name(&self, actor: &str) -> String {
        let id = actor.strip_prefix("operator:").unwrap_or_default();
        self.names.get(id).cloned().unwrap_or_default()
    }

    /// Whoever did something, as far as the caller may know.
    pub(super) fn shown(&self, actor: &str) -> String {
        let is_hidden = self.known.as_ref().is_some_and(|known| is_hidden(actor, known));
        if is_hidden { OPERATOR.to_owned() } else { actor.to_owned() }
    }
}

fn describe(record: TokenRecord, makers: &Makers) -> Token {
    let shown = Token {
        name: record.called().to_owned(),
        id: record.id,
        created_unix: record.created_unix,
        created_by: makers.shown(&record.created_by),
        created_by_name: makers.name(&record.created_by),
        expires_unix: record.expires_unix,
        ..Token::default()
    };
    match record.grant {
        Grant::Join { identity, uses_left, grants } => {
            let Lists { services, labels, addresses } = Lists::from(&grants);
            let (identity, uses_left) = (Some(identity.to_string()), Some(uses_left));
            Token { kind: "join".to_owned(), identity, uses_left, services, labels, addresses, ..shown }
        }
        Grant::Operator { role, namespaces, addresses } => {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            Token { kind: "operator".to_owned(), role: Some(role.to_string()), namespaces, addresses, ..shown }
        }
    }
}

async fn revoke(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Revoked>, ApiError> {
    let tokens = hub.tokens().await?;
    let is_meant = |record: &&TokenRecord| record.id == name || record.called() == name;
    // A token that the caller may not know of is not there for him: another one may have the same name.
    let known = tokens.iter().filter(is_meant).filter(|record| may(&caller, Verb::Read, &record.grant).is_ok());
    let known: Vec<_> = known.collect();
    if known.is_empty() {
        return Err(ApiError::not_found(format!("no token is called {name}: weft token list")));
    }
    known.iter().try_for_each(|record| may(&caller, Verb::Change, &record.grant))?;
    let ids: BTreeSet<_> = known.into_iter().map(|record| record.id.clone()).collect();
    let ended = hub.revoke_tokens(caller.actor(), move |record| ids.contains(&record.id)).await?;
    Ok(Json(Revoked { revoked: ended.into_iter().map(|record| record.id).collect() }))
}

fn join_grant(hub: &Hub, request: &CreateToken) -> Result<Grant, ApiError> {
    if request.role.is_some() || !request.namespaces.is_empty() {
        return Err(ApiError::invalid("role and namespaces are for operator tokens"));
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
    let (services, labels) = (request.services.clone(), request.labels.clone());
    let grants = parsed(&Lists { services, labels, addresses: request.addresses.clone() })?;
    Ok(Grant::Join { identity, uses_left, grants })
}

fn join_ttl(seconds: Option<u64>) -> Result<Duration, ApiError> {
    let seconds = seconds.unwrap_or(DEFAULT_JOIN_TTL);
    if !(1..=MAX_JOIN_TTL).contains(&seconds) {
        return Err(ApiError::invalid(format!("ttl_seconds must be between 1 and {MAX_JOIN_TTL}")));
    }
    Ok(Duration::from_secs(seconds))
}
