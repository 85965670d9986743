//! Proxies: who is connected, and how far a change has come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::{Extension, Json};
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use weft_api::{
    Ahead, Ban, BanRequest, Banned, Bans, Evicted, Leads, LoadedFilter, Proxies, Proxy, ProxyRevision, RevisionStatus,
    SilentReplica, StatusQuery, Store, Unbanned,
};
use weft_policy::bundle::Revision;
use weft_policy::identity::SpiffeId;
use weft_policy::lineage::Lineage;
use weft_policy::text::printable;

use super::tokens::Makers;
use super::{Access, ApiError, Body, Caller, Endpoint, Query};
use crate::access::{Place, Thing, Verb};
use crate::hub::{self, AcceptError, BanError, EvictError, Hub, Published, Silent, gathered};
use crate::registry::{self, ProxyKey, ProxyStatus, SyncState};

/// Characters of a ban's reason.
const MAX_REASON: usize = 500;

/// Proxies that are ahead of the store and named; all are counted.
const MAX_AHEAD_NAMED: usize = 10;

/// The longest that a status call waits.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Proxies that went away are waited for no longer than the registry says.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get(
            "/api/v1/proxies",
            Access::Each(Verb::Read, Thing::Proxy),
            "Every proxy: version, identity, how far behind, filters, certificate, transport",
            axum::routing::get(list),
        )
        .described(|it| it.answers::<Proxies>()),
        Endpoint::get(
            "/api/v1/revisions/{revision}/status",
            Access::Each(Verb::Read, Thing::Proxy),
            "Whether every proxy has a revision; waits until it is settled",
            axum::routing::get(status),
        )
        .described(|it| it.query::<StatusQuery>().answers::<RevisionStatus>()),
        Endpoint::get(
            "/api/v1/bans",
            Access::Each(Verb::Read, Thing::Proxy),
            "Identities that are kept out of the mesh",
            axum::routing::get(bans),
        )
        .described(|it| it.answers::<Bans>()),
        Endpoint::post(
            "/api/v1/bans",
            Access::Each(Verb::Change, Thing::Proxy),
            "Keeps an identity out: its connections are closed everywhere, it gets no certificate until the ban is lifted",
            axum::routing::post(ban),
        )
        .described(|it| it.takes::<BanRequest>().answers::<Banned>()),
        Endpoint::delete(
            "/api/v1/bans/{proxy}",
            Access::Each(Verb::Change, Thing::Proxy),
            "Lifts a ban, by the identity (percent-encoded) or by the name of a proxy that has it",
            axum::routing::delete(unban),
        )
        .described(|it| it.answers::<Unbanned>()),
        Endpoint::post(
            "/api/v1/proxies/{name}/evict",
            Access::Each(Verb::Change, Thing::Proxy),
            "Ends a proxy's session, at whichever control plane it is, and takes its endpoints out of discovery; one that still runs comes back",
            axum::routing::post(evict),
        )
        .described(|it| it.answers::<Evicted>()),
        Endpoint::get(
            "/api/v1/store",
            Access::Mesh(Verb::Read, Thing::Store),
            "Which store this is, and whether it leads proxies",
            axum::routing::get(store),
        )
        .described(|it| it.answers::<Store>()),
        Endpoint::post(
            "/api/v1/store/accept",
            Access::Mesh(Verb::Change, Thing::Store),
            "Lets this store lead, also whoever followed another one or a later state of it",
            axum::routing::post(accept_store),
        )
        .described(|it| it.answers::<Leads>()),
    ]
}

async fn bans(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Result<Json<Bans>, ApiError> {
    let makers = Makers::named(&hub, &caller).await?;
    let bans = hub.bans();
    let seen = bans.values().filter(|ban| caller.sees(Thing::Proxy, ban.identity.namespace()));
    Ok(Json(Bans { bans: seen.cloned().map(|ban| told(ban, &makers)).collect() }))
}

fn told(ban: hub::Ban, makers: &Makers) -> Ban {
    let (by, by_name) = (makers.shown(&ban.by), makers.name(&ban.by));
    Ban { identity: ban.identity.to_string(), reason: ban.reason, since_unix: ban.since_unix, by, by_name }
}

async fn ban(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Body(request): Body<BanRequest>,
) -> Result<Json<Banned>, ApiError> {
    let reason: String = printable(&request.reason).chars().take(MAX_REASON).collect();
    let identity = identity_of(&hub, &caller, &request.proxy).await?;
    let makers = Makers::known_to(&hub, &caller).await?;
    // Nobody is asked before it holds, and those that are known by now may be gone then.
    let mut known: BTreeSet<_> = hub.registry().keys().into_iter().collect();
    let (ban, durable) = hub.ban(caller.actor(), identity.clone(), reason).await?;
    known.extend(hub.known_proxies().await);
    let with_it = known.into_iter().filter(|key| key.identity == identity).map(|key| key.name);
    Ok(Json(Banned { ban: told(ban, &makers), proxies: with_it.collect(), durable }))
}

async fn unban(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(proxy): Path<String>,
) -> Result<Json<Unbanned>, ApiError> {
    let identity = identity_of(&hub, &caller, &proxy).await?;
    hub.unban(caller.actor(), &identity).await?;
    Ok(Json(Unbanned { identity: identity.to_string() }))
}

async fn evict(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Evicted>, ApiError> {
    let mut named = hub.proxies_named(&name).await;
    // A proxy in a namespace that the caller may not read is answered for as one that is not there.
    named.retain(|key| caller.sees(Thing::Proxy, key.identity.namespace()));
    if named.is_empty() {
        return Err(ApiError::not_found(format!("no proxy is called {name}: weft proxies")));
    }
    for key in &named {
        caller.may(Verb::Change, Thing::Proxy, Place::Namespace(key.identity.namespace()))?;
    }
    let evicted = named.iter().map(ToString::to_string).collect();
    let silent = hub.evict(caller.actor(), named).await?;
    Ok(Json(Evicted { evicted, silent: told_of(silent, &caller) }))
}

/// Control planes that did not say what they know, with the number of proxies there that the caller may know of.
fn told_of(silent: Vec<Silent>, caller: &Caller) -> Vec<SilentReplica> {
    let is_seen = |proxy: &&ProxyKey| caller.sees(Thing::Proxy, proxy.identity.namespace());
    let told = |Silent { replica, reason, proxies }: Silent| {
        let proxies = u64::try_from(proxies.iter().filter(is_seen).count()).unwrap_or(u64::MAX);
        SilentReplica { replica, reason, proxies }
    };
    silent.into_iter().map(told).collect()
}

impl From<EvictError> for ApiError {
    fn from(error: EvictError) -> Self {
        match error {
            EvictError::NotTold { .. } => Self::unavailable(error.to_string()),
            EvictError::Store(error) => error.into(),
        }
    }
}

/// The identity that is meant, if the caller may change what has it.
pub(super) async fn identity_of(hub: &Hub, caller: &Caller, named: &str) -> Result<SpiffeId, ApiError> {
    let identity = find_identity(hub, caller, named).await?;
    caller.may(Verb::Change, Thing::Proxy, Place::Namespace(identity.namespace()))?;
    Ok(identity)
}

/// The identity that is meant: a SPIFFE ID, `namespace/account`, or that of the one proxy with this name.
async fn find_identity(hub: &Hub, caller: &Caller, named: &str) -> Result<SpiffeId, ApiError> {
    if named.starts_with("spiffe://") {
        return named.parse().map_err(|error| ApiError::invalid(format!("{named:?}: {error}")));
    }
    if let Some((namespace, account)) = named.split_once('/') {
        let identity = hub.trust_domain().workload(namespace, account);
        return identity.map_err(|error| ApiError::invalid(format!("{named:?}: {error}")));
    }
    let mut identities: Vec<_> = hub.proxies_named(named).await.into_iter().map(|key| key.identity).collect();
    identities.retain(|identity| caller.sees(Thing::Proxy, identity.namespace()));
    identities.sort();
    identities.dedup();
    match identities.as_slice() {
        [identity] => Ok(identity.clone()),
        [] => Err(ApiError::not_found(format!("no proxy is called {named}: name its identity, spiffe://..."))),
        several => {
            let several: Vec<_> = several.iter().map(ToString::to_string).collect();
            Err(ApiError::conflict(format!("several proxies are called {named}: name one of {}", several.join(", "))))
        }
    }
}

impl From<BanError> for ApiError {
    fn from(error: BanError) -> Self {
        match error {
            BanError::NotBanned(_) => Self::not_found(error.to_string()),
            BanError::TooMany | BanError::TooManyOf(_) | BanError::Foreign(_) => Self::refused(error.to_string()),
            BanError::Store(error) => error.into(),
        }
    }
}

async fn store(State(hub): State<Arc<Hub>>) -> Json<Store> {
    let lead = hub.lead();
    let Lineage { store, epoch, supersedes } = lead.lineage.clone();
    let doubt = lead.doubt.as_ref().map(|doubt| doubt.reason.clone());
    // One that leads nobody says so itself.
    let ahead = if doubt.is_none() { ahead(&hub.look_everywhere().await) } else { None };
    let (revision, in_etcd) = (hub.published().revision.0, hub.is_in_etcd());
    Json(Store { store, epoch, supersedes, revision, in_etcd, doubt, ahead })
}

/// The proxies that the store may not lead, though it leads others.
fn ahead(proxies: &[ProxyStatus]) -> Option<Ahead> {
    let ahead: Vec<_> = proxies.iter().filter(|proxy| proxy.is_left_alone).collect();
    // It is told behind what they refused besides.
    let reason = ahead.first()?.held.last().cloned().unwrap_or_default();
    let names = ahead.iter().take(MAX_AHEAD_NAMED).map(|proxy| proxy.key.name.clone());
    Some(Ahead { proxies: u64::try_from(ahead.len()).unwrap_or(u64::MAX), names: names.collect(), reason })
}

impl From<AcceptError> for ApiError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Leads { .. } => Self::conflict(error.to_string()),
            AcceptError::Store(error) => error.into(),
        }
    }
}

async fn accept_store(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Leads>, ApiError> {
    let Lineage { store, epoch, supersedes } = hub.accept_store(caller.actor()).await?;
    Ok(Json(Leads { store, epoch, supersedes }))
}

async fn list(State(hub): State<Arc<Hub>>, Extension(caller): Extension<Caller>) -> Json<Proxies> {
    let published = hub.published();
    let newest = published.revision;
    let mut everywhere = hub.everywhere(newest, Revision(0));
    everywhere.ask(Duration::ZERO).await;
    let (mut list, silent) = everywhere.proxies();
    list.retain(|proxy| caller.sees(Thing::Proxy, proxy.key.identity.namespace()));
    let proxies = list.into_iter().map(|proxy| {
        let served_at = served_at(&published, &proxy);
        describe(proxy, newest, served_at)
    });
    Json(Proxies { proxies: proxies.collect(), silent: told_of(silent, &caller) })
}

/// Addresses at which the workloads of a proxy take mesh traffic.
fn served_at(published: &Published, proxy: &ProxyStatus) -> BTreeSet<String> {
    let own = published.world.registered_of(&proxy.key);
    let workloads = own.filter_map(|name| published.world.workload(name));
    workloads.map(|workload| workload.spec.mesh_address().to_string()).collect()
}

fn describe(proxy: ProxyStatus, newest: Revision, served_at: BTreeSet<String>) -> Proxy {
    let time = |at: time::OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let expiry = proxy.health.certificate_not_after_unix;
    let expiry = time::OffsetDateTime::from_unix_timestamp(expiry).ok().filter(|_| expiry > 0);
    let filters: Vec<_> = proxy.health.filters.into_iter().map(loaded).collect();
    let without = without(&filters);
    let (mut state, mut reason) = (state(proxy.state), proxy.reason);
    if state == weft_api::SyncState::Synced && !without.is_empty() {
        (state, reason) = (weft_api::SyncState::Degraded, format!("it runs without {}", without.join("; ")));
    }
    Proxy {
        name: proxy.key.name,
        identity: proxy.key.identity.to_string(),
        address: proxy.introduction.address.map(|address| address.to_string()).unwrap_or_default(),
        mesh_addresses: served_at.into_iter().collect(),
        heard_ms: milliseconds(proxy.heard_ago),
        version: proxy.introduction.version,
        state,
        reason,
        revision: proxy.synced.0,
        current_revision: newest.0,
        staleness_ms: milliseconds(proxy.behind_for),
        filters,
        certificate_not_after: expiry.map(time),
        transport: proxy.health.transport,
        connected_since: proxy.connected_since.map(time),
    }
}

fn loaded(filter: registry::LoadedFilter) -> LoadedFilter {
    let registry::LoadedFilter { name, version, digest, state } = filter;
    LoadedFilter { name, version, digest, state }
}

/// Filters that a proxy runs without, each with the reason.
fn without(filters: &[LoadedFilter]) -> Vec<String> {
    let out = filters.iter().filter(|filter| filter.is_out());
    out.map(|filter| format!("filter {}: {}", filter.name, filter.state)).collect()
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn state(state: SyncState) -> weft_api::SyncState {
    match state {
        SyncState::Synced => weft_api::SyncState::Synced,
        SyncState::Behind => weft_api::SyncState::Behind,
        SyncState::Refused => weft_api::SyncState::Refused,
        SyncState::Disconnected => weft_api::SyncState::Disconnected,
        SyncState::Elsewhere => weft_api::SyncState::Elsewhere,
    }
}

async fn status(
    State(hub): State<Arc<Hub>>,
    Extension(caller): Extension<Caller>,
    Path(revision): Path<String>,
    Query(query): Query<StatusQuery>,
) -> Result<Json<RevisionStatus>, ApiError> {
    let wanted: u64 = revision.parse().map_err(|_| ApiError::invalid(format!("{revision:?} is no revision")))?;
    let newest = hub.published().revision.0;
    if wanted > newest {
        return Err(ApiError::not_found(format!("revision {wanted} does not exist; the newest is {newest}")));
    }
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let mut changes = hub.registry().watch();
    let mut everywhere = hub.everywhere(Revision(wanted), Revision(wanted));
    let mut patience = Duration::ZERO;
    loop {
        changes.borrow_and_update();
        // Others answer as soon as their proxies have settled.
        let is_stopping = tokio::select! {
            () = everywhere.ask(patience) => false,
            () = hub.stopping() => true,
        };
        let (mut proxies, silent) = everywhere.proxies();
        proxies.retain(|proxy| caller.sees(Thing::Proxy, proxy.key.identity.namespace()));
        let away: Vec<_> = proxies.iter().filter(|proxy| proxy.is_away()).cloned().collect();
        proxies.retain(is_concerned);
        proxies.iter_mut().for_each(excuse);
        let now = Instant::now();
        if is_stopping || now >= deadline || proxies.iter().all(ProxyStatus::is_settled) {
            return Ok(Json(report(wanted, proxies, away, told_of(silent, &caller))));
        }
        patience = if everywhere.waits() { deadline - now } else { Duration::ZERO };
        if !patience.is_zero() {
            continue;
        }
        tokio::select! {
            () = gathered(&mut changes) => {}
            () = tokio::time::sleep_until(deadline.min(now + LOOK_AGAIN)) => {}
            () = hub.stopping() => {}
        }
    }
}

/// A proxy that is gone for good gets no revision and is no reason to wait, nor is one that holds nothing of the change.
fn is_concerned(proxy: &ProxyStatus) -> bool {
    // What it refused earlier is told all the same.
    (proxy.is_concerned || !proxy.held.is_empty()) && (proxy.state != SyncState::Disconnected || proxy.is_awaited)
}

/// An older change that a proxy has not got yet is no reason to wait for one that does not concern it.
fn excuse(proxy: &mut ProxyStatus) {
    if !proxy.is_concerned && proxy.state == SyncState::Behind {
        (proxy.state, proxy.reason) = (SyncState::Synced, String::new());
    }
}

fn report(
    wanted: u64,
    proxies: Vec<ProxyStatus>,
    away: Vec<ProxyStatus>,
    silent: Vec<SilentReplica>,
) -> RevisionStatus {
    let complete = proxies.iter().all(|proxy| proxy.state == SyncState::Synced);
    let told = |proxy: ProxyStatus| ProxyRevision {
        name: proxy.key.name,
        identity: proxy.key.identity.to_string(),
        state: state(proxy.state),
        revision: proxy.synced.0,
        reason: proxy.reason,
        heard_ms: milliseconds(proxy.heard_ago),
        held: proxy.held,
        without: without(&proxy.health.filters.into_iter().map(loaded).collect::<Vec<_>>()),
    };
    let told = |proxies: Vec<ProxyStatus>| proxies.into_iter().map(told).collect();
    RevisionStatus { revision: wanted, complete, proxies: told(proxies), away: told(away), silent }
}
