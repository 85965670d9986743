//! Answers what would become of a request, and why: with the same route table and the same authorization engine that
//! proxies run, over the world as it is. No request is sent.

mod audit;
mod expression;
mod judging;
mod near;
mod outbound;
mod settings;
mod stand_in;
#[cfg(test)]
mod tests;
mod told;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::told::{BackendExplanation, EndpointExplanation, Explanation, MirrorExplanation, RouteExplanation};
use crate::authz::{Decision, Engine, is_alike};
use crate::bundle::{
    Backend, Balancing, Bundle, Direction, Endpoint, FilterAttachment, HashKey, MeshSettings, ObjectName, Protocol,
    RouteName, Service, TunnelRefusal,
};
use crate::identity::SpiffeId;
use crate::path::NormalPath;
use crate::plan::{
    Sources, World, access_config, externals, filters_for, mesh_settings, serve, sources_of, sources_outside, undone,
    visible,
};
use crate::resource::{Object, WorkloadSpec};
use crate::route::{
    self, Authority, Choice, EgressRefusal, Fields, HeadView, Hello, Meant, MetRule, Plan, Resolution, Resolved,
    Resolver, RouteTable, Setting, WayOut,
};

/// The request to be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = ExplainQuery))]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// `namespace/service-account` of the caller.
    pub from: String,
    /// A service's name as the caller would write it.
    pub to: String,
    /// The service's port; its first where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Claims of the caller's token by name in lower case, each with its value or the members of its list.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Vec<String>>,
    /// The server name that a TLS connection asks for. Where nothing is declared of the port, it is a connection that is asked
    /// about, and no request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// Status that a proxy answers where no endpoint can be connected to.
const NOT_REACHED: u16 = 503;

/// The port of a name without one.
const HTTP_PORT: u16 = 80;

/// A question that can't be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("from: {0:?} is not namespace/service-account")]
    From(String),
    #[error("to: {to:?} for a caller in namespace {namespace}: {refusal}")]
    To { to: String, namespace: String, refusal: EgressRefusal },
    #[error("to: {to:?} is no host name: the service NAME of namespace NS is NAME.NS, here {host}")]
    NoHost { to: String, host: String },
    #[error("to: {0:?} is outside the mesh, which says nothing of it")]
    Outside(String),
}

/// Peers that others refuse whatever rules say, each with why and with the cure: those that are banned, and those whose
/// certificate is over.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Barred {
    pub identities: BTreeMap<SpiffeId, String>,
    pub workloads: BTreeMap<ObjectName, String>,
}

impl Barred {
    fn endpoint(&self, endpoint: &Endpoint) -> Option<&String> {
        let of_identity = endpoint.identity.as_ref().and_then(|identity| self.identities.get(identity));
        of_identity.or_else(|| self.workloads.get(&endpoint.workload))
    }
}

/// Follows a request through the world, in which nobody is barred.
pub fn explain(world: &World, query: &Query) -> Result<Explanation, QueryError> {
    explain_among(world, &Barred::default(), query)
}

/// Follows a request through the world.
pub fn explain_among(world: &World, barred: &Barred, query: &Query) -> Result<Explanation, QueryError> {
    let mut explanation = followed(world, barred, query)?;
    let note = outbound::note(world, &explanation);
    explanation.notes.extend(note);
    if let Some(why) = barred.identities.get(&explanation.principal) {
        explanation.bar(format!("nobody accepts its connections: {why}"));
    }
    Ok(explanation)
}

fn followed(world: &World, barred: &Barred, query: &Query) -> Result<Explanation, QueryError> {
    let wrong = || QueryError::From(query.from.clone());
    let (namespace, account) = query.from.split_once('/').ok_or_else(wrong)?;
    let principal = world.trust_domain.workload(namespace, account).map_err(|_| wrong())?;
    let (mesh, table) = (mesh_settings(world, ""), table(world, &principal));
    let note = unknown_account(world, namespace, account);
    let destination = resolve(&table, &mesh, namespace, query)?;
    let (resolved, way) = match &destination {
        Destination::Mesh(resolved) => (*resolved, None),
        Destination::External(way) if !way.port.protocol.is_http() => {
            return Ok(outside(way, query, principal, note));
        }
        Destination::External(way) => (way.resolved(), Some(&**way)),
    };
    let mut explanation = Explanation {
        allowed: false,
        status: None,
        rule: None,
        reason: String::new(),
        principal,
        service: if way.is_some() { query.to.clone() } else { resolved.service.name.to_string() },
        port: resolved.port,
        connection: is_connection(&resolved, query),
        barred: false,
        path: query.path.clone(),
        reading: None,
        route: None,
        backends: Vec::new(),
        mirrors: Vec::new(),
        notes: note.into_iter().collect(),
    };
    let addresses = judging::addresses_of(world, &explanation.principal);
    let claims: Vec<(&str, &str)> = judging::claims_of(query).collect();
    if explanation.connection {
        let (principal, what) = (explanation.principal.clone(), What::Connection);
        let asked = Asked { world, barred, mesh: &mesh, principal, addresses: &addresses, claims: &claims, what };
        asked.connection((&table, &resolved, namespace), query, &mut explanation);
        return Ok(explanation);
    }
    let path = match NormalPath::new(Bytes::copy_from_slice(query.path.as_bytes())) {
        Ok(path) => path,
        Err(error) => {
            explanation.refuse(400, error.to_string());
            return Ok(explanation);
        }
    };
    explanation.path = path.standard().into_owned();
    let headers: BTreeMap<String, &str> =
        query.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    explanation.notes.extend(settings::patience(&headers));
    let lookup = |name: &str| headers.get(name).copied();
    let host = host_of(query);
    // How servers that take `_` for `-` read the fields. A query has each field once: no other reading is left.
    let folded = |name: &str| {
        let found = headers.iter().rev().find(|(own, _)| is_alike(own, name));
        found.map(|(_, value)| *value)
    };
    let others: [Fields<'_>; 1] = [&folded];
    let head = HeadView { method: &query.method, path: &path, host: Some(&host), headers: &lookup, others: &others };
    let what = What::Request { method: &query.method, path: &path, host: &host, headers: &headers };
    let principal = explanation.principal.clone();
    let asked = Asked { world, barred, mesh: &mesh, principal, addresses: &addresses, claims: &claims, what };
    asked.request(&table, (&resolved, way, namespace), &head, &mut explanation);
    Ok(explanation)
}

/// Whether a page of the origin that the request has may read its answer.
fn sharing(met: &MetRule<'_>, backend: usize, head: &HeadView<'_>) -> Option<String> {
    let (origin, route) = ((head.headers)("origin").unwrap_or_default(), RouteName::of(&met.route.name));
    Some(match route::is_shared(met, Some(backend), head)? {
        true => format!("pages of {origin} may read the answer, as {route} says"),
        false => format!("pages of {origin} may not read the answer: {route} does not allow it"),
    })
}

/// True where it is asked about a connection whose bytes are not looked into.
fn is_connection(to: &Resolved<'_>, query: &Query) -> bool {
    match to.protocol() {
        Protocol::Tcp | Protocol::Udp => true,
        Protocol::Auto => query.sni.is_some(),
        Protocol::Http | Protocol::Grpc => false,
    }
}

/// The host that a caller's request has, without a port.
fn host_of(query: &Query) -> Cow<'_, str> {
    match query.to.parse::<Ipv6Addr>() {
        Ok(_) => Cow::Owned(format!("[{}]", query.to)),
        Err(_) => Cow::Borrowed(&query.to),
    }
}

/// Rules are judged by the caller's name alone: whether anybody has it is nobody's question but that of who asks.
fn unknown_account(world: &World, namespace: &str, account: &str) -> Option<String> {
    let is_known = workloads_of(world, namespace, account).next().is_some();
    (!is_known).then(|| format!("no workload has the account {namespace}/{account}: this is told of one that would"))
}

/// The workloads that have an account.
fn workloads_of<'w>(
    world: &'w World,
    namespace: &str,
    account: &str,
) -> impl Iterator<Item = &'w Object<WorkloadSpec>> {
    world
        .workloads()
        .filter(move |workload| workload.metadata.namespace == namespace && workload.spec.service_account == account)
}

fn resolve<'t>(
    table: &'t RouteTable,
    mesh: &MeshSettings,
    namespace: &str,
    query: &Query,
) -> Result<Destination<'t>, QueryError> {
    if let Some((of, name)) = query.to.split_once('/') {
        return Err(QueryError::NoHost { to: query.to.clone(), host: format!("{name}.{of}") });
    }
    let resolver = Resolver { table, mesh, from_namespace: namespace, is_local: &|_| false };
    let authority = Authority { host: &query.to, port: query.port };
    let mut resolved = match resolver.resolve(Meant::Nothing, Some(authority)) {
        Resolution::Mesh(resolved) => resolved,
        Resolution::External(way) => return Ok(Destination::External(Box::new(way))),
        Resolution::Outside | Resolution::Unknown(_) => return Err(QueryError::Outside(query.to.clone())),
        Resolution::Refused(refusal) => {
            return Err(QueryError::To { to: query.to.clone(), namespace: namespace.to_owned(), refusal });
        }
    };
    if query.port.is_none() {
        // A service that serves nothing is answered for as a caller meets it.
        resolved.port = resolved.service.ports.first().map_or(HTTP_PORT, |port| port.port);
    }
    Ok(Destination::Mesh(resolved))
}

/// What a caller meets.
fn table(world: &World, caller: &SpiffeId) -> RouteTable {
    let callers = BTreeSet::from([caller.namespace()]);
    let (services, routes) = visible(world, &callers);
    let externals = externals(world, &callers, &routes);
    let filters = outbound::filters(world, caller);
    RouteTable::new(&Arc::new(Bundle { services, routes, externals, filters, ..Bundle::default() }))
}

/// Where a request that somebody answers goes.
enum Destination<'t> {
    Mesh(Resolved<'t>),
    External(Box<WayOut<'t>>),
}

/// What becomes of a connection to a name outside: what is answered there nobody here knows.
fn outside(way: &WayOut<'_>, query: &Query, principal: SpiffeId, note: Option<String>) -> Explanation {
    let wide = if way.external.mesh_wide { ", for the whole mesh" } else { "" };
    Explanation {
        allowed: true,
        status: None,
        rule: None,
        reason: format!("outside the mesh: ExternalService {} lets connections out{wide}", way.external.name),
        principal,
        service: query.to.clone(),
        port: way.port.port,
        connection: true,
        barred: false,
        path: query.path.clone(),
        reading: None,
        route: None,
        backends: Vec::new(),
        mirrors: Vec::new(),
        notes: note.into_iter().chain([way.in_words()]).collect(),
    }
}

impl Explanation {
    fn refuse(&mut self, status: u16, reason: String) {
        self.status = Some(status);
        self.reason = reason;
    }

    /// No connection comes about. What the caller's own proxy answers, it answers all the same.
    fn bar(&mut self, reason: String) {
        if !self.backends.is_empty() || self.allowed {
            self.status = Some(NOT_REACHED);
        }
        (self.allowed, self.barred, self.reason) = (false, true, reason);
        (self.rule, self.reading) = (None, None);
    }
}

/// Allowed only if nothing that may be picked refuses; the first refusal tells why.
fn conclude(explanation: &mut Explanation) {
    let picked: Vec<&BackendExplanation> = explanation.backends.iter().filter(|backend| backend.weight > 0).collect();
    if picked.is_empty() {
        return explanation.refuse(500, "the rule has no backend with a weight".to_owned());
    }
    let audited = picked.iter().flat_map(|backend| &backend.endpoints).filter_map(|it| it.audited.as_ref());
    let audited: BTreeSet<String> =
        audited.map(|rule| format!("policies in mode Audit would refuse it: {rule}")).collect();
    let answered = picked.iter().flat_map(|backend| &backend.endpoints).filter_map(|it| it.answered.as_ref());
    let answered: BTreeSet<String> =
        answered.map(|filter| format!("a filter answers it, and the app is not asked: {filter}")).collect();
    let notes = picked.iter().filter_map(|backend| backend.elsewhere.clone()).chain(audited).chain(answered);
    let notes: Vec<String> = notes.collect();
    let mut named = picked.iter().filter_map(|backend| backend.service.as_deref());
    let led_out = named.find(|name| name.starts_with("ExternalService")).map(str::to_owned);
    if picked.iter().any(|backend| backend.service.is_none()) {
        return explanation.refuse(500, "a backend of the rule does not resolve".to_owned());
    }
    if let Some(backend) = picked.iter().find(|backend| backend.endpoints.is_empty() && backend.elsewhere.is_none()) {
        let reason = format!("service {} has no endpoints", backend.service.as_deref().unwrap_or_default());
        return explanation.refuse(503, reason);
    }
    let is_barred = |backend: &BackendExplanation| {
        !backend.endpoints.is_empty() && backend.endpoints.iter().all(|endpoint| endpoint.barred)
    };
    let all_barred = picked.iter().find(|backend| is_barred(backend));
    if let Some(endpoint) = all_barred.and_then(|backend| backend.endpoints.first()) {
        let reason = endpoint.reason.clone();
        return explanation.bar(reason);
    }
    // One that can't be connected to gets no request while another can.
    let mut endpoints = picked.iter().flat_map(|backend| &backend.endpoints).filter(|endpoint| !endpoint.barred);
    let refusing = endpoints.clone().find(|endpoint| !endpoint.allowed);
    let deciding = refusing.or_else(|| endpoints.next()).cloned();
    explanation.notes.extend(notes);
    let Some(deciding) = deciding else {
        explanation.allowed = true;
        explanation.reason = format!("outside the mesh: {} lets requests out", led_out.unwrap_or_default());
        return;
    };
    explanation.allowed = deciding.allowed;
    explanation.status = deciding.status;
    explanation.reason = deciding.reason;
    explanation.rule = deciding.rule;
    explanation.reading = deciding.reading;
}

/// The parts of the question that endpoints are asked with.
struct Asked<'a> {
    world: &'a World,
    barred: &'a Barred,
    mesh: &'a MeshSettings,
    principal: SpiffeId,
    /// From which it may come; see [`judging::addresses_of`].
    addresses: &'a [Option<IpAddr>],
    claims: &'a [(&'a str, &'a str)],
    what: What<'a>,
}

enum What<'a> {
    Connection,
    Request { method: &'a str, path: &'a NormalPath, host: &'a str, headers: &'a BTreeMap<String, &'a str> },
}

impl Asked<'_> {
    /// What becomes of a request with this head.
    fn request<'t>(
        &self,
        table: &'t RouteTable,
        (to, way, namespace): (&Resolved<'t>, Option<&WayOut<'t>>, &str),
        head: &HeadView<'_>,
        explanation: &mut Explanation,
    ) {
        match route::choose(table, to, namespace, head) {
            Err(refusal) => explanation.refuse(refusal.status(), refusal.to_string()),
            Ok(Choice::Direct(to)) => self.directly(&to, way, explanation),
            Ok(Choice::Rule(met)) => {
                explanation.route = Some(RouteExplanation::of(&met));
                if let Some(words) = undone(self.world, &met.route.name) {
                    return explanation.refuse(500, format!("the route asks for what can't be done: {words}"));
                }
                self.by_rule(table, met, to, head, explanation);
            }
        }
    }

    /// What its backends make of it. Where each of them answers itself, or the rule does, that is all that becomes of
    /// it.
    fn by_rule<'t>(
        &self,
        table: &'t RouteTable,
        met: MetRule<'t>,
        to: &Resolved<'t>,
        head: &HeadView<'_>,
        explanation: &mut Explanation,
    ) {
        let backends = &met.rule.backends;
        let answer = |index: usize| route::own_answer(&met, Some(index), to, head).err();
        let mut picked = (0..backends.len()).filter(|index| backends[*index].weight > 0).peekable();
        let of_all = match picked.peek() {
            None => route::own_answer(&met, None, to, head).err(),
            Some(first) => {
                let of_first = answer(*first);
                of_first.filter(|_| picked.all(|index| answer(index).is_some()))
            }
        };
        if let Some(refusal) = of_all {
            return explanation.refuse(refusal.status(), refusal.to_string());
        }
        let told = |(index, backend): (usize, &Backend)| match answer(index) {
            Some(refusal) => {
                let words = format!("a part of {} is answered {}: {refusal}", backend.weight, refusal.status());
                BackendExplanation::answering(backend, words)
            }
            None => match route::to_backend(table, met, index, head, self.mesh) {
                Ok(plan) => self.backend(&plan, backend.port, backend.weight),
                Err(_) => BackendExplanation::nowhere(backend),
            },
        };
        explanation.backends = backends.iter().enumerate().map(told).collect();
        explanation.mirrors = MirrorExplanation::all_of(met.rule);
        let mut shared: Vec<String> = (0..backends.len()).filter_map(|index| sharing(&met, index, head)).collect();
        shared.dedup();
        explanation.notes.extend(shared);
        conclude(explanation);
    }

    /// By the rule that a connection meets; a ClientHello is judged as one without a server name where none is said.
    fn connection(
        &self,
        (table, to, namespace): (&RouteTable, &Resolved<'_>, &str),
        query: &Query,
        explanation: &mut Explanation,
    ) {
        if to.opaque_refused() {
            let refused = TunnelRefusal::HttpOnly { port: to.port };
            return explanation.refuse(400, refused.to_string());
        }
        let sni = query.sni.as_ref().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let hello = Hello::Tls(sni.as_deref());
        match route::choose_stream(table, to, namespace, hello) {
            Err(refusal) => explanation.refuse(refusal.status(), refusal.to_string()),
            Ok(Choice::Direct(to)) => self.directly(&to, None, explanation),
            Ok(Choice::Rule(met)) => {
                explanation.route = Some(RouteExplanation::of(&met));
                let backend = |(index, backend): (usize, &Backend)| {
                    let Ok(plan) = route::to_backend_of_bytes(table, &met, index, hello) else {
                        return BackendExplanation::nowhere(backend);
                    };
                    let told = self.backend(&plan, backend.port, backend.weight);
                    match plan.exit.as_ref().map(|exit| exit.takes_connection(hello)) {
                        Some(Err(refusal)) => told.refused(&refusal),
                        Some(Ok(())) | None => told,
                    }
                };
                explanation.backends = met.rule.backends.iter().enumerate().map(backend).collect();
                conclude(explanation);
            }
        }
    }

    /// To a service, by no route; out of the mesh by the `way` that there is.
    fn directly<'t>(&self, to: &Resolved<'t>, way: Option<&WayOut<'t>>, explanation: &mut Explanation) {
        let plan = match (&self.what, way) {
            (What::Connection, _) => route::plan_connection(to),
            (What::Request { .. }, None) => route::directly(to, self.mesh),
            (What::Request { .. }, Some(way)) => route::directly_outside(way, to, self.mesh),
        };
        match plan {
            Err(refusal) => explanation.refuse(refusal.status(), refusal.to_string()),
            Ok(plan) => {
                explanation.backends.push(self.backend(&plan, to.port, 1));
                conclude(explanation);
            }
        }
    }

    fn backend(&self, plan: &Plan<'_>, port: u16, weight: u32) -> BackendExplanation {
        if let What::Request { method, path, host, headers } = &self.what
            && (plan.path.is_some() || plan.host.is_some() || plan.modifies())
        {
            // The callee judges what the route makes of it.
            let changed = plan.changed(headers);
            let headers = changed.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
            let path = plan.path.as_ref().unwrap_or(path);
            let host = plan.host.unwrap_or(host);
            let what = What::Request { method, path, host, headers: &headers };
            return Asked { what, principal: self.principal.clone(), ..*self }.reached(plan, port, weight);
        }
        self.reached(plan, port, weight)
    }

    /// Out of the mesh. What is answered there nobody here knows.
    fn led_out(&self, plan: &Plan<'_>, exit: &WayOut<'_>, port: u16, weight: u32) -> BackendExplanation {
        let name = &exit.external.name;
        let sources = sources_outside(self.world, name);
        BackendExplanation {
            service: Some(format!("ExternalService {name}")),
            port,
            weight,
            balancing: None,
            health: None,
            timeouts: settings::timeouts(&sources, plan),
            retry: self.retry(plan, &sources),
            limits: settings::limits(&sources, plan),
            session: None,
            host: plan.host.map(str::to_owned),
            path: plan.path.as_ref().map(|path| path.standard().into_owned()),
            endpoints: Vec::new(),
            elsewhere: Some(exit.in_words()),
        }
    }

    fn reached(&self, plan: &Plan<'_>, port: u16, weight: u32) -> BackendExplanation {
        if let Some(exit) = &plan.exit {
            return self.led_out(plan, exit, port, weight);
        }
        let meant = |endpoint: &&Endpoint| plan.direct.is_none_or(|only| *only == endpoint.workload);
        let endpoints = plan.service.endpoints.values().filter(meant);
        let endpoints =
            endpoints.filter_map(|endpoint| Some(self.endpoint(endpoint, plan.target.at(&endpoint.workload)?)));
        let endpoints = endpoints.collect();
        let sources = sources_of(self.world, &plan.service.name);
        let balancing = plan.direct.is_none().then(|| self.balancing(plan.service, &sources));
        let near = balancing.as_ref().and_then(|_| near::near_first(self.world, &self.principal, plan.service));
        let balancing = balancing.map(|told| near.into_iter().fold(told, |told, near| told + "; " + &near));
        let service = Some(plan.service.name.to_string());
        let (host, path) = (plan.host.map(str::to_owned), plan.path.as_ref().map(|path| path.standard().into_owned()));
        let of_requests = matches!(self.what, What::Request { .. });
        let timeouts = of_requests.then(|| settings::timeouts(&sources, plan)).flatten();
        let limits = settings::limits(&sources, plan);
        let (retry, session) = (self.retry(plan, &sources), settings::session(plan));
        let (health, elsewhere) = (plan.direct.is_none().then(|| settings::health(&sources, plan)).flatten(), None);
        BackendExplanation {
            service,
            port,
            weight,
            balancing,
            health,
            timeouts,
            retry,
            limits,
            session,
            host,
            path,
            endpoints,
            elsewhere,
        }
    }

    /// What of this request is sent again.
    fn retry(&self, plan: &Plan<'_>, sources: &Sources) -> Option<String> {
        let What::Request { method, .. } = &self.what else { return None };
        let retry = plan.retry?;
        let by = settings::said_by(sources, plan, Setting::Retry);
        let takes = retry.takes(method);
        let lacking = if takes || !retry.grpc_codes.is_empty() { "" } else { ": not this one" };
        Some(format!("{retry}{lacking}, {by}; within the retry budget of the caller's proxy"))
    }

    /// How one of a service's endpoints is picked for this request.
    fn balancing(&self, service: &Service, sources: &Sources) -> String {
        let by = sources.get("loadBalancing");
        let (Some(traffic), Some(by)) = (&service.traffic, by) else {
            return format!("{} by default", Balancing::default());
        };
        let field = |name: &str| match &self.what {
            What::Request { headers, .. } => headers.get(name).map(|value| value.as_bytes()).into_iter(),
            What::Connection => None.into_iter(),
        };
        let key = traffic.balancing.hash_key().filter(|key| !matches!(key, HashKey::Source(_)));
        let lacking = match key.is_some_and(|key| key.find(field).is_none()) {
            true => ", which it lacks: any endpoint",
            false => "",
        };
        format!("{}{lacking}, as {}", traffic.balancing, by.says())
    }

    fn endpoint(&self, endpoint: &Endpoint, port: u16) -> EndpointExplanation {
        let workload = &endpoint.workload;
        let filters = filters_for(self.world, std::slice::from_ref(workload));
        let mut inbound: Vec<_> = filters.values().filter(|filter| filter.direction == Direction::Inbound).collect();
        inbound.sort_by_key(|filter| (filter.authorization, filter.order, &filter.name));
        let closing = inbound.iter().find_map(|filter| stand_in::of(filter));
        let told: Vec<_> = inbound.into_iter().map(|filter| self.filter(filter, port)).collect();
        let mut explanation = EndpointExplanation {
            workload: workload.to_string(),
            address: SocketAddr::new(endpoint.address, port),
            identity: endpoint.identity.clone(),
            allowed: false,
            status: None,
            rule: None,
            reason: String::new(),
            barred: false,
            reading: None,
            answered: told.iter().find(|(_, answers)| *answers).map(|(filter, _)| filter.clone()),
            filters: told.into_iter().map(|(filter, _)| filter).collect(),
            audited: None,
        };
        if let Some(why) = self.barred.endpoint(endpoint) {
            explanation.barred = true;
            explanation.refuse(NOT_REACHED, format!("nobody connects to {workload}: {why}"));
            return explanation;
        }
        let object = self.world.workload(workload);
        let served = object.and_then(|object| serve(self.world, object));
        let Some(served) = served.as_ref().and_then(|served| served.port(port)) else {
            explanation.refuse(400, format!("workload {workload} has no port {port}"));
            return explanation;
        };
        let config = object.and_then(|object| access_config(self.world, object));
        match closing.map_or_else(|| Engine::new(&config.unwrap_or_default()), Ok) {
            Ok(engine) => self.judge(&engine, served, &mut explanation),
            Err(error) => explanation.refuse(403, error.to_string()),
        }
        if explanation.allowed {
            explanation.audited = object.and_then(|object| self.audited(object, served, &explanation));
        }
        explanation
    }

    /// A filter of an endpoint, by name, with what is known of its decision; true where it answers.
    fn filter(&self, filter: &FilterAttachment, port: u16) -> (String, bool) {
        let principal = &self.principal;
        let head = match self.what {
            What::Connection => None,
            What::Request { method, path, headers, .. } => {
                Some(expression::Head { principal, method, path, port, headers })
            }
        };
        expression::told(filter, head.as_ref())
    }
}

impl EndpointExplanation {
    /// Notes a decision; of several that allow, the first tells why.
    fn take(&mut self, decision: &Decision<'_>) {
        if self.reason.is_empty() || !decision.allowed {
            self.allowed = decision.allowed;
            self.rule = decision.rule.map(str::to_owned);
            decision.reason.clone_into(&mut self.reason);
        }
        if !decision.allowed {
            self.status = Some(403);
        }
    }

    fn refuse(&mut self, status: u16, reason: String) {
        self.status = Some(status);
        self.reason = reason;
    }
}
