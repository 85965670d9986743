//! Answers what would become of a request, and why: with the same route table and the same authorization engine that
//! proxies run, over the world as it is. No request is sent.

mod near;
mod outbound;
mod settings;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::authz::{Decision, Engine, Request};
use crate::bundle::{
    Backend, Balancing, Bundle, Direction, Endpoint, HashKey, MeshSettings, Mirror, ObjectName, Protocol, RouteKind,
    RouteName, RouteRule, Service, TunnelRefusal, WorkloadPort,
};
use crate::identity::SpiffeId;
use crate::path::NormalPath;
use crate::plan::{
    Sources, World, access_config, externals, filters_for, mesh_settings, serve, sources_of, undone, visible,
};
use crate::resource::{Object, WorkloadSpec};
use crate::route::{
    self, Authority, Choice, EgressRefusal, HeadView, Hello, Meant, MetRule, Plan, Resolution, Resolved, Resolver,
    RouteTable, Setting, WayOut,
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

/// The kind of which nobody told before there was another.
fn http_route() -> String {
    RouteKind::Http.as_str().to_owned()
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
    #[error("to: {0:?} is outside the mesh, which says nothing of it")]
    Outside(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// True if every endpoint that may be picked would serve the request.
    pub allowed: bool,
    /// The status the caller would see from the mesh; absent where the app answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The rule that decided, `namespace/policy#rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub principal: SpiffeId,
    pub service: String,
    pub port: u16,
    /// The port is declared tcp: this is what becomes of a connection, whatever the request in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub connection: bool,
    /// No rule decided: peers refuse the caller, or all that could answer it, whatever rules say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barred: bool,
    /// As routes see it, and as it is sent to the app unless a route replaces it.
    pub path: String,
    /// The reading of an ambiguous path that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteExplanation>,
    pub backends: Vec<BackendExplanation>,
    /// Where copies of it are sent. Nothing of them decides about the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorExplanation>,
    /// What is worth knowing beside the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteExplanation {
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute` or `TCPRoute`.
    #[serde(default = "http_route")]
    pub kind: String,
    /// `namespace/name`; at its second parent `namespace/name#1`.
    pub name: String,
    pub rule_index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackendExplanation {
    /// Absent where the reference doesn't resolve: its share is answered 500.
    pub service: Option<String>,
    pub port: u16,
    pub weight: u32,
    /// How one of the endpoints is picked, and who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancing: Option<String>,
    /// How long it may take, in all and each attempt, and who says so. Absent: there is no deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<String>,
    /// What is sent again although somebody may have acted on it, and who says so. Absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    /// How much of it each calling proxy may have under way, and who says so. Absent: there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<String>,
    /// The host that the route sends in the place of the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path that the route sends in the place of the caller's, which the endpoints judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub endpoints: Vec<EndpointExplanation>,
}

impl RouteExplanation {
    fn of(met: &MetRule<'_>) -> Self {
        let name = RouteName::of(&met.route.name);
        Self {
            kind: name.kind.as_str().to_owned(),
            name: name.place(),
            rule_index: met.index,
            rule_name: met.rule.name.clone(),
        }
    }
}

/// One mirror of the rule that the request meets, or of one of its backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MirrorExplanation {
    /// Absent where the reference doesn't resolve: no copy is sent.
    pub service: Option<String>,
    pub port: u16,
    /// The part of the requests that is copied, in words.
    pub share: String,
    /// Copies are sent of what this backend is sent. Absent: of whatever meets the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
}

impl MirrorExplanation {
    /// Those of a rule, then those of its backends.
    fn all_of(rule: &RouteRule) -> Vec<Self> {
        let told = |mirror: &Mirror, backend: Option<String>| Self {
            service: mirror.service.as_ref().map(ToString::to_string),
            port: mirror.port,
            share: mirror.share(),
            backend,
        };
        let of_rule = route::mirrors(&rule.actions).map(|mirror| told(mirror, None));
        let of_backends = rule.backends.iter().filter(|backend| backend.weight > 0).flat_map(|backend| {
            let name = backend.service.as_ref().map(ToString::to_string);
            route::mirrors(&backend.actions).map(move |mirror| told(mirror, name.clone()))
        });
        of_rule.chain(of_backends).collect()
    }
}

impl BackendExplanation {
    /// A backend that leads to no service.
    fn nowhere(backend: &Backend) -> Self {
        let (port, weight) = (backend.port, backend.weight);
        let (balancing, timeouts, retry, limits, host, path) = (None, None, None, None, None, None);
        Self { service: None, port, weight, balancing, timeouts, retry, limits, host, path, endpoints: Vec::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointExplanation {
    pub workload: String,
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub address: SocketAddr,
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub identity: Option<SpiffeId>,
    pub allowed: bool,
    /// The status that the caller would see; absent where the app answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
    /// Peers refuse it whatever rules say; others of the backend are picked while there are any.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub barred: bool,
    /// The reading of an ambiguous path that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
    /// Inbound filters in the order in which they run.
    pub filters: Vec<String>,
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
    let (mesh, table) = (mesh_settings(world, ""), table(world, namespace));
    let note = unknown_account(world, namespace, account);
    let resolved = match resolve(&table, &mesh, namespace, query)? {
        Destination::Mesh(resolved) => resolved,
        Destination::External(way) => return Ok(outside(&way, query, principal, note)),
    };
    let mut explanation = Explanation {
        allowed: false,
        status: None,
        rule: None,
        reason: String::new(),
        principal,
        service: resolved.service.name.to_string(),
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
    if explanation.connection {
        let principal = explanation.principal.clone();
        let asked = Asked { world, barred, mesh: &mesh, principal, what: What::Connection };
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
    let head = HeadView { method: &query.method, path: &path, host: Some(&host), headers: &lookup };
    let what = What::Request { method: &query.method, path: &path, headers: &headers };
    let asked = Asked { world, barred, mesh: &mesh, principal: explanation.principal.clone(), what };
    asked.request((&table, &resolved, namespace), &head, &mut explanation);
    Ok(explanation)
}

/// Whether a page of the origin that the request has may read its answer.
fn sharing(met: &MetRule<'_>, head: &HeadView<'_>) -> Option<String> {
    let (origin, route) = ((head.headers)("origin").unwrap_or_default(), RouteName::of(&met.route.name));
    Some(match route::is_shared(met, head)? {
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
    let has_it = |workload: &Object<WorkloadSpec>| {
        workload.metadata.namespace == namespace && workload.spec.service_account == account
    };
    let is_known = world.workloads().any(has_it);
    (!is_known).then(|| format!("no workload has the account {namespace}/{account}: this is told of one that would"))
}

fn resolve<'t>(
    table: &'t RouteTable,
    mesh: &MeshSettings,
    namespace: &str,
    query: &Query,
) -> Result<Destination<'t>, QueryError> {
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

/// What callers of a namespace meet.
fn table(world: &World, namespace: &str) -> RouteTable {
    let callers = BTreeSet::from([namespace]);
    let ((services, routes), externals) = (visible(world, &callers), externals(world, &callers));
    RouteTable::new(&Arc::new(Bundle { services, routes, externals, ..Bundle::default() }))
}

/// Where a request that somebody answers goes.
enum Destination<'t> {
    Mesh(Resolved<'t>),
    External(Box<WayOut<'t>>),
}

/// What becomes of a request to a name outside: what is answered there nobody here knows.
fn outside(way: &WayOut<'_>, query: &Query, principal: SpiffeId, note: Option<String>) -> Explanation {
    let wide = if way.external.mesh_wide { ", for the whole mesh" } else { "" };
    let connection = !way.port.protocol.is_http();
    let what = if connection { "connections" } else { "requests" };
    Explanation {
        allowed: true,
        status: None,
        rule: None,
        reason: format!("outside the mesh: ExternalService {} lets {what} out{wide}", way.external.name),
        principal,
        service: query.to.clone(),
        port: way.port.port,
        connection,
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
    if picked.iter().any(|backend| backend.service.is_none()) {
        return explanation.refuse(500, "a backend of the rule does not resolve".to_owned());
    }
    if let Some(backend) = picked.iter().find(|backend| backend.endpoints.is_empty()) {
        let reason = format!("service {} has no endpoints", backend.service.as_deref().unwrap_or_default());
        return explanation.refuse(503, reason);
    }
    let all_barred = picked.iter().find(|backend| backend.endpoints.iter().all(|endpoint| endpoint.barred));
    if let Some(endpoint) = all_barred.and_then(|backend| backend.endpoints.first()) {
        let reason = endpoint.reason.clone();
        return explanation.bar(reason);
    }
    // One that can't be connected to gets no request while another can.
    let mut endpoints = picked.iter().flat_map(|backend| &backend.endpoints).filter(|endpoint| !endpoint.barred);
    let refusing = endpoints.clone().find(|endpoint| !endpoint.allowed);
    let Some(deciding) = refusing.or_else(|| endpoints.next()).cloned() else { return };
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
    what: What<'a>,
}

enum What<'a> {
    Connection,
    Request { method: &'a str, path: &'a NormalPath, headers: &'a BTreeMap<String, &'a str> },
}

impl Asked<'_> {
    /// What becomes of a request with this head.
    fn request<'t>(
        &self,
        (table, to, namespace): (&'t RouteTable, &Resolved<'t>, &str),
        head: &HeadView<'_>,
        explanation: &mut Explanation,
    ) {
        match route::choose(table, to, namespace, head) {
            Err(refusal) => explanation.refuse(refusal.status(), refusal.to_string()),
            Ok(Choice::Direct(to)) => self.directly(&to, explanation),
            Ok(Choice::Rule(met)) => {
                explanation.route = Some(RouteExplanation::of(&met));
                let backend =
                    |(index, backend): (usize, &Backend)| match route::to_backend(table, met, index, head, self.mesh) {
                        Ok(plan) => self.backend(&plan, backend.port, backend.weight),
                        Err(_) => BackendExplanation::nowhere(backend),
                    };
                match (undone(self.world, &met.route.name), route::own_answer(&met, to, head)) {
                    (Some(words), _) => {
                        explanation.refuse(500, format!("the route asks for what can't be done: {words}"))
                    }
                    (None, Err(refusal)) => explanation.refuse(refusal.status(), refusal.to_string()),
                    (None, Ok(())) => {
                        explanation.backends = met.rule.backends.iter().enumerate().map(backend).collect();
                        explanation.mirrors = MirrorExplanation::all_of(met.rule);
                        explanation.notes.extend(sharing(&met, head));
                        conclude(explanation);
                    }
                }
            }
        }
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
        match route::choose_stream(table, to, namespace, Hello::Tls(sni.as_deref())) {
            Err(refusal) => explanation.refuse(refusal.status(), refusal.to_string()),
            Ok(Choice::Direct(to)) => self.directly(&to, explanation),
            Ok(Choice::Rule(met)) => {
                explanation.route = Some(RouteExplanation::of(&met));
                let backend = |(index, backend): (usize, &Backend)| match route::to_backend_of_bytes(table, &met, index)
                {
                    Ok(plan) => self.backend(&plan, backend.port, backend.weight),
                    Err(_) => BackendExplanation::nowhere(backend),
                };
                explanation.backends = met.rule.backends.iter().enumerate().map(backend).collect();
                conclude(explanation);
            }
        }
    }

    /// To a service, by no route.
    fn directly(&self, to: &Resolved<'_>, explanation: &mut Explanation) {
        let plan = match &self.what {
            What::Connection => route::plan_connection(to),
            What::Request { .. } => route::directly(to, self.mesh),
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
        if let What::Request { method, path, headers } = &self.what
            && (plan.path.is_some() || plan.modifies())
        {
            // The callee judges what the route makes of it.
            let changed = plan.changed(headers);
            let headers = changed.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
            let path = plan.path.as_ref().unwrap_or(path);
            let what = What::Request { method, path, headers: &headers };
            return Asked { what, principal: self.principal.clone(), ..*self }.reached(plan, port, weight);
        }
        self.reached(plan, port, weight)
    }

    fn reached(&self, plan: &Plan<'_>, port: u16, weight: u32) -> BackendExplanation {
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
        let (timeouts, limits) = (settings::timeouts(&sources, plan), settings::limits(&sources, plan));
        let retry = self.retry(plan, &sources);
        BackendExplanation { service, port, weight, balancing, timeouts, retry, limits, host, path, endpoints }
    }

    /// What of this request is sent again.
    fn retry(&self, plan: &Plan<'_>, sources: &Sources) -> Option<String> {
        let What::Request { method, .. } = &self.what else { return None };
        let retry = plan.retry?;
        let by = settings::said_by(sources, plan, Setting::Retry);
        let takes = retry.takes(method);
        let lacking = if takes || !retry.grpc_codes.is_empty() { "" } else { ": not this one" };
        Some(format!("{retry}{lacking}, {by}"))
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
            filters: inbound.into_iter().map(|filter| filter.name.clone()).collect(),
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
        match Engine::new(&config.unwrap_or_default()) {
            Ok(engine) => self.judge(&engine, served, &mut explanation),
            Err(error) => explanation.refuse(403, error.to_string()),
        }
        explanation
    }

    fn judge(&self, engine: &Engine, to: &WorkloadPort, explanation: &mut EndpointExplanation) {
        let (principal, port) = (Some(self.principal.as_str()), to.port);
        let What::Request { method, path, headers } = &self.what else {
            match to.takes_tunnels() {
                Ok(()) => explanation.take(&engine.decide(&Request::connection(principal, port))),
                Err(refused) => explanation.refuse(400, refused.to_string()),
            }
            return;
        };
        let readings = match path.readings(&to.path_reading) {
            Ok(readings) => readings,
            Err(ambiguous) => return explanation.refuse(400, ambiguous.to_string()),
        };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        // Allowed where every reading is allowed; the first refusal tells why.
        for reading in readings.iter() {
            let request = Request { principal, l4: false, method, path: reading, port, headers: &headers };
            explanation.take(&engine.decide(&request));
            if !explanation.allowed {
                explanation.reading = (!readings.is_single()).then(|| reading.to_owned());
                return;
            }
        }
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
