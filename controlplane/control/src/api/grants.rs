//! Grants of accounts that have joined: who has them, and their end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use ipnet::IpNet;
use weft_api::{AccountGrants, GrantList, LeftWorkload, WithdrawRequest, Withdrawn};
use weft_policy::identity::{SpiffeId, is_label};
use weft_policy::registration::OWN_PREFIX;
use weft_policy::resource::wrong_labels;

use super::proxies::identity_of;
use super::{Access, ApiError, Body, Caller, Endpoint};
use crate::access::{Thing, Verb};
use crate::claims::Grants;
use crate::hub::{Hub, WithdrawError};

/// Services, labels and addresses that one call names, each.
const MAX_GRANTS: usize = 64;

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/grants",
            Access::Each(Verb::Read, Thing::Proxy),
            "Services, labels and addresses that join tokens granted to accounts",
            axum::routing::get(list),
        )
        .described(|it| it.answers::<GrantList>()),
        Endpoint::post(
            "/api/v1/grants/withdraw",
            Access::Each(Verb::Change, Thing::Proxy),
            "Takes grants away from an account: its workloads that stand by them leave, and their proxies are told why",
            axum::routing::post(withdraw),
        )
        .described(|it| it.takes::<WithdrawRequest>().answers::<Withdrawn>()),
    ]
}

async fn list(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Json<GrantList> {
    let claims = hub.published().claims.clone();
    let seen = claims.granted().filter(|(identity, _)| caller.sees(Thing::Proxy, identity.namespace()));
    Json(GrantList { grants: seen.map(|(identity, grants)| told(identity, grants)).collect() })
}

fn told(identity: &SpiffeId, grants: &Grants) -> AccountGrants {
    let Lists { services, labels, addresses } = Lists::from(grants);
    AccountGrants { identity: identity.to_string(), services, labels, addresses }
}

async fn withdraw(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<WithdrawRequest>,
) -> Result<Json<Withdrawn>, ApiError> {
    let lists = Lists { services: request.services, labels: request.labels, addresses: request.addresses };
    let what = parsed(&lists)?;
    let what = match (request.all, what.is_empty()) {
        (true, true) => None,
        (false, false) => Some(what),
        (true, false) => return Err(ApiError::invalid("all: with it nothing else is named")),
        (false, true) => return Err(ApiError::invalid("services, labels, addresses or all: what is withdrawn?")),
    };
    let identity = identity_of(&hub, &caller, &request.proxy).await?;
    let withdrawn = hub.withdraw(caller.actor(), identity, what).await?;
    let left =
        withdrawn.left.into_iter().map(|(workload, reason)| LeftWorkload { workload: workload.to_string(), reason });
    Ok(Json(Withdrawn {
        withdrawn: told(&withdrawn.identity, &withdrawn.grants),
        left: left.collect(),
        tokens: withdrawn.tokens.iter().map(|record| record.called().to_owned()).collect(),
    }))
}

impl From<WithdrawError> for ApiError {
    fn from(error: WithdrawError) -> Self {
        match error {
            WithdrawError::NotGranted { .. } => Self::not_found(error.to_string()),
            WithdrawError::Owned(_) => Self::conflict(error.to_string()),
            WithdrawError::Store(error) => error.into(),
        }
    }
}

/// Grants as bodies have them.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists {
    pub(super) services: Vec<String>,
    pub(super) labels: Vec<String>,
    pub(super) addresses: Vec<String>,
}

impl From<&Grants> for Lists {
    fn from(grants: &Grants) -> Self {
        Self {
            services: grants.services.iter().cloned().collect(),
            labels: grants.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            addresses: grants.addresses.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What the lists of a request mean.
pub(super) fn parsed(lists: &Lists) -> Result<Grants, ApiError> {
    let named = [("services", &lists.services), ("labels", &lists.labels), ("addresses", &lists.addresses)];
    if let Some((key, list)) = named.into_iter().find(|(_, list)| list.len() > MAX_GRANTS) {
        return Err(ApiError::invalid(format!("{key}: {} of them; at most {MAX_GRANTS} are taken", list.len())));
    }
    let mut grants = Grants::default();
    for service in &lists.services {
        if !is_label(service) {
            return Err(ApiError::invalid(format!("services: {service:?} is not the name of a service")));
        }
        grants.services.insert(service.clone());
    }
    for label in &lists.labels {
        let parts = label.split_once('=').filter(|(key, _)| !key.is_empty() && !key.starts_with(OWN_PREFIX));
        let (key, value) = parts.ok_or_else(|| ApiError::invalid(format!("labels: {label:?} is not KEY=VALUE")))?;
        grants.labels.insert((key.to_owned(), value.to_owned()));
    }
    let labels: BTreeMap<_, _> = grants.labels.iter().cloned().collect();
    if let Some((key, why)) = wrong_labels(&labels).next() {
        return Err(ApiError::invalid(format!("labels: {key}: {why}")));
    }
    grants.addresses = ranges(&lists.addresses)?;
    Ok(grants)
}

pub(super) fn ranges(texts: &[String]) -> Result<BTreeSet<IpNet>, ApiError> {
    let parse = |range: &String| {
        // One address is the range of itself.
        let parsed = range.parse::<IpNet>().or_else(|_| range.parse::<IpAddr>().map(IpNet::from));
        parsed.map_err(|_| ApiError::invalid(format!("addresses: {range:?} is not a range of addresses")))
    };
    texts.iter().map(parse).collect()
}
