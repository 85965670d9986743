//! `explain`: what would become of a request, by the world and by what is known of the proxies on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::{Extension, Json};
use weft_api::{ExplainQuery, Explanation};
use weft_policy::bundle::ObjectName;
use weft_policy::explain::{Barred, explain_among};
use weft_policy::identity::SpiffeId;
use weft_policy::resource::Kind;

use super::objects::{OBJECT, timestamp};
use super::{Access, ApiError, Body, Caller, Endpoint};
use crate::access::{Place, Thing, Verb};
use crate::hub::{Hub, Published};
use crate::registry::{ProxyKey, ProxyStatus};

/// Proxies that an explanation names.
const SHOWN: usize = 5;
/// How a proxy reports a filter that runs as it was told.
const LOADED: &str = "loaded";

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(
            "/api/v1/explain",
            Access::Each(Verb::Read, OBJECT),
            "Which route, endpoints, filters and rule decide a request",
            axum::routing::post(explain_request),
        )
        .described(|it| it.takes::<ExplainQuery>().answers::<Explanation>()),
    ]
}

async fn explain_request(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(query): Body<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    // The answer shows what a caller of that namespace meets: its routes and policies too.
    let from = query.from.split('/').next().unwrap_or_default();
    caller.may(Verb::Read, Thing::Object(Kind::Service), Place::Namespace(from))?;
    let told_by = if caller.rights.is_bound() { "; told by what this token may read" } else { "" };
    let mut proxies = hub.look_everywhere().await;
    proxies.retain(|proxy| caller.sees(Thing::Proxy, proxy.key.identity.namespace()));
    let barred = barred(&hub, &caller, &proxies);
    let (token, asking) = (caller.token_id.clone(), caller.clone());
    let explained = hub.plan(&token, move |published| match asking.part_of(&published.world) {
        // Objects that the caller may not read are answered for as if they were not there.
        Some(part) => explain_among(&part, &barred, &query),
        None => explain_among(&published.world, &barred, &query),
    });
    let mut explained = explained.await?.map_err(|error| ApiError::invalid(format!("{error}{told_by}")))?;
    let without = explained.service.parse().map(|name| hub.registry().without(explained.principal.as_str(), &name));
    if let Ok(without) = without
        && !without.is_empty()
    {
        let shown = first_of(without.iter().map(String::as_str));
        explained.reason.push_str(&format!("; not held yet by {shown}: the first call asks for it"));
    }
    explained.reason.push_str(told_by);
    let on_the_way = on_the_way(&hub.published(), &proxies, &explained);
    explained.notes.extend(doing_without(&on_the_way));
    explained.notes.extend(not_in_force(&hub.published(), &proxies, &explained));
    explained.notes.extend(ended(&on_the_way, &explained.principal));
    explained.notes.extend(put_out(&hub, &caller, &proxies, &explained));
    Ok(Json(explained))
}

/// Peers that others refuse: by the list of the banned that every proxy is told, and by the certificates that proxies report.
fn barred(hub: &Hub, caller: &Caller, proxies: &[ProxyStatus]) -> Barred {
    let bans = hub.bans();
    let seen = bans.keys().filter(|identity| caller.sees(Thing::Proxy, identity.namespace()));
    let mut barred = Barred {
        identities: seen.filter_map(|identity| Some((identity.clone(), hub.banned(identity)?))).collect(),
        ..Barred::default()
    };
    let ended: BTreeMap<&ProxyKey, String> = proxies.iter().filter_map(|it| Some((&it.key, end(it)?))).collect();
    for (key, why) in &ended {
        let mut of_account = proxies.iter().filter(|proxy| proxy.key.identity == key.identity);
        if of_account.all(|proxy| ended.contains_key(&proxy.key)) {
            barred.identities.entry(key.identity.clone()).or_insert_with(|| why.clone());
        }
    }
    let published = hub.published();
    for (key, why) in &ended {
        let served = published.world.registered_of(key);
        barred.workloads.extend(served.map(|workload| (workload.clone(), why.clone())));
    }
    barred
}

/// Why nobody takes the certificate of a proxy, where that is over.
fn end(proxy: &ProxyStatus) -> Option<String> {
    let at = proxy.health.certificate_not_after_unix;
    (at > 0 && at <= crate::now_unix()).then(|| {
        let (name, at) = (&proxy.key.name, timestamp(at).unwrap_or_default());
        format!(
            "the certificate of proxy {name} is over since {at}: it is renewed once the proxy reaches a control plane, or by a \
             new join token in its control.token_file"
        )
    })
}

/// The proxies of the caller's account, and those that serve an endpoint.
fn on_the_way<'p>(published: &Published, proxies: &'p [ProxyStatus], explained: &Explanation) -> Vec<&'p ProxyStatus> {
    let endpoints = explained.backends.iter().flat_map(|backend| &backend.endpoints);
    let reached = endpoints.filter_map(|endpoint| endpoint.workload.parse().ok());
    let serving: BTreeSet<&ProxyKey> =
        reached.filter_map(|workload| published.world.registered_by(&workload)).collect();
    let is_on_the_way =
        |proxy: &&ProxyStatus| proxy.key.identity == explained.principal || serving.contains(&proxy.key);
    proxies.iter().filter(is_on_the_way).collect()
}

/// The proxies that do without something which the answer takes for granted, each with what and why.
fn doing_without(on_the_way: &[&ProxyStatus]) -> Vec<String> {
    let without = on_the_way.iter().filter(|proxy| !proxy.held.is_empty());
    let told = |proxy: &&ProxyStatus| format!("proxy {} does without {}", proxy.key.name, proxy.held.join("; "));
    without.take(SHOWN).map(told).collect()
}

/// Names, as many as an explanation shows.
fn first_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    let shown: Vec<_> = names.take(SHOWN).collect();
    shown.join(", ") + more
}

/// Filters of the endpoints that their proxies have not reported as loaded, each with how it is and where.
fn not_in_force(published: &Published, proxies: &[ProxyStatus], explained: &Explanation) -> Vec<String> {
    let mut found = BTreeMap::<(&str, &str), BTreeSet<&str>>::new();
    for endpoint in explained.backends.iter().flat_map(|backend| &backend.endpoints) {
        let workload: Option<ObjectName> = endpoint.workload.parse().ok();
        let key = workload.and_then(|workload| published.world.registered_by(&workload));
        // Of one that nobody registered there is no proxy that could report.
        let Some(proxy) = key.and_then(|key| proxies.iter().find(|proxy| proxy.key == *key)) else { continue };
        // What rules of expressions make of the request stands behind the name.
        for name in endpoint.filters.iter().map(|told| told.split(" (").next().unwrap_or_default()) {
            let reported = proxy.health.filters.iter().find(|filter| filter.name == name);
            let state = reported.map_or("it has not reported it, so nobody knows", |filter| filter.state.as_str());
            if state != LOADED {
                found.entry((name, state)).or_default().insert(&proxy.key.name);
            }
        }
    }
    let told = |((name, state), at): ((&str, &str), BTreeSet<&str>)| {
        format!("filter {name} is not known to be in force at {}: {state}", first_of(at.into_iter()))
    };
    found.into_iter().take(SHOWN).map(told).collect()
}

/// Proxies of the caller's account whose certificates are over, where others' are not.
fn ended(on_the_way: &[&ProxyStatus], principal: &SpiffeId) -> Vec<String> {
    let of_caller = on_the_way.iter().filter(|proxy| proxy.key.identity == *principal);
    let (ended, good): (Vec<_>, Vec<_>) = of_caller.map(|proxy| end(proxy)).partition(Option::is_some);
    if good.is_empty() { Vec::new() } else { ended.into_iter().flatten().take(SHOWN).collect() }
}

/// Proxies that were evicted of late and are not back: of the caller's account, and of the service's namespace where nobody
/// answers for it.
fn put_out(hub: &Hub, caller: &Caller, proxies: &[ProxyStatus], explained: &Explanation) -> Vec<String> {
    let is_back = |key: &ProxyKey| proxies.iter().any(|it| it.key == *key && it.connected_since.is_some());
    let namespace = explained.service.split('/').next().unwrap_or_default();
    let concerns = |key: &ProxyKey| {
        let is_missed = key.identity.namespace() == namespace && explained.status == Some(503);
        caller.sees(Thing::Proxy, key.identity.namespace()) && (key.identity == explained.principal || is_missed)
    };
    let gone = hub.evicted_lately().into_iter().filter(|(key, _)| concerns(key) && !is_back(key));
    let told = |(key, at): (ProxyKey, Instant)| {
        let ago = at.elapsed().as_secs();
        format!(
            "proxy {key} was evicted {ago} s ago and is not back: its connections ended and nobody is sent to it; it comes back by \
             itself if it runs"
        )
    };
    gone.take(SHOWN).map(told).collect()
}
