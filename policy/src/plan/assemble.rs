//! Assembly of one proxy's bundle: its workloads, the services it may call with their endpoints, the routes that hold
//! for its namespaces and the filters attached to its workloads.

use std::collections::{BTreeMap, BTreeSet};

use super::callout;
use super::external::{external_entry, seen};
use super::http_only::{self, RoutesOf};
use super::merge::merged;
use super::modifier::actions;
use super::route_status::{Led, resolve};
use super::scope::{backends_outside, concerns};
use super::select::{holds_for, is_in_discovery, selected_by};
use super::selects;
use super::unserved::{Targets, targets};
use super::{Entry, World, expression, secret, spread, traffic};
use crate::authz;
use crate::bundle::serde_json_raw::Json;
use crate::bundle::{
    AppVersion, AttachedRule, Backend, Bundle, Direction, Egress, Endpoint, External, FILTER_CONTRACT, FieldMatch,
    FilterAttachment, FilterLimits, FilterMode, MeshSettings, ObjectName, OnFailure, PathMatch, Protocol, Revision,
    Route, RouteAction, RouteKind, RouteMatch, RouteRule, RpcMatch, ServedWorkload, Service, ServicePort, WorkloadPort,
    contract_of,
};
use crate::path::PathReading;
use crate::resource::core::PortSpec;
use crate::resource::filter::PolicyMode;
use crate::resource::mesh::{Defaults, WorkloadPortSpec};
use crate::resource::route::{
    BackendRef, HeaderSpec, HeaderType, MatchSpec, ParentRef, PathType, QueryParamSpec, Referred, RuleSpec,
};
use crate::resource::{
    AccessPolicySpec, AnyRoute, Attaching, FilterPolicySpec, FilterSpec, Kind, Object, ObjectKey, ROOT_NAMESPACE,
    ServiceSpec, Spec, TargetRef, WorkloadSpec,
};

/// The name of the attachment that access policies become; also the published filter's.
pub const AUTHZ_ATTACHMENT: &str = "weft-system/authz";
/// The name of the attachment that those which are audited become. It sorts behind the other's, however many there are.
pub const AUDIT_ATTACHMENT: &str = "weft-system/authz#audit";
/// Digest that no binary has, used while the authz filter is not published: no snapshot with it becomes current, so
/// what is protected stays closed.
const NO_DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The bundle of the proxy of `served` at `revision`. Workloads that don't exist (any more) are left out.
pub fn bundle_for(world: &World, served: &[ObjectName], revision: Revision, trust_bundle_pem: &str) -> Bundle {
    let workloads: Vec<_> = served.iter().filter_map(|name| world.workload(name)).collect();
    let namespaces: BTreeSet<&str> = served.iter().map(|name| name.namespace.as_str()).collect();
    let (services, routes) = visible(world, &namespaces);
    let filters = filters_for(world, served);
    let externals = externals(world, &namespaces, &routes);
    Bundle {
        revision,
        mesh: Some(mesh_settings(world, trust_bundle_pem)),
        workloads: workloads.iter().filter_map(|w| serve(world, w)).map(|w| (w.name.to_string(), w)).collect(),
        services,
        routes,
        externals,
        filters,
        answered: BTreeSet::new(),
    }
}

/// The filters that run for these workloads.
pub fn filters_for(world: &World, served: &[ObjectName]) -> BTreeMap<String, FilterAttachment> {
    let workloads: Vec<_> = served.iter().filter_map(|name| world.workload(name)).collect();
    let near = workloads.iter().flat_map(|workload| world.index().near_policies(world, workload));
    let near: BTreeMap<ObjectKey, _> = near.filter_map(Attaching::of).map(|policy| (policy.key(), policy)).collect();
    let mut filters: BTreeMap<_, _> = near.values().filter_map(|policy| attach(world, policy, &workloads)).collect();
    filters.extend(attach_access(world, &workloads));
    filters
}

/// The names outside the mesh that callers of these namespaces may reach, and those to which these routes lead them.
pub(crate) fn externals(
    world: &World,
    namespaces: &BTreeSet<&str>,
    routes: &BTreeMap<ObjectName, Route>,
) -> BTreeMap<ObjectName, External> {
    let led_to = routes.values().flat_map(backends_outside).filter_map(|name| world.external(name));
    let entries = seen(world, namespaces).chain(led_to).map(|object| external_entry(world, object));
    entries.map(|external| (external.name.clone(), external)).collect()
}

type Visible = (BTreeMap<ObjectName, Service>, BTreeMap<ObjectName, Route>);

/// All services, and the routes that callers of these namespaces meet.
pub(crate) fn visible(world: &World, namespaces: &BTreeSet<&str>) -> Visible {
    let services = world.services().map(|service| service_entry(world, service, namespaces));
    let services = services.map(|service| (service.name.clone(), service)).collect();
    let routes = world.routes().flat_map(|(route, created)| attached(world, route, created));
    let met = routes.filter(|route| concerns(world, route, namespaces));
    (services, met.map(|route| (route.name.clone(), route)).collect())
}

pub(crate) fn mesh_settings(world: &World, trust_bundle_pem: &str) -> MeshSettings {
    let defaults = Defaults::default();
    let spec = world.mesh().map(|mesh| &mesh.spec);
    let own = spec.map_or(&defaults, |spec| &spec.defaults);
    MeshSettings {
        trust_domain: world.trust_domain.clone(),
        trust_bundle_pem: trust_bundle_pem.to_owned(),
        access_log: spec.is_some_and(|spec| spec.telemetry.access_log),
        request_timeout_ms: own.request_timeout_ms.filter(|ms| *ms > 0),
        connect_timeout_ms: own.connect_timeout_ms.or(defaults.connect_timeout_ms).unwrap_or_default(),
        max_retries: own.max_retries,
        egress: match spec {
            Some(spec) => spec.egress,
            // One that can't be read may have kept everybody inside.
            None if world.has_unreadable(Kind::Mesh) => Egress::RegistryOnly,
            None => Egress::default(),
        },
        namespaces: namespaces(world),
        ranges: None,
    }
}

/// Those that have a Namespace, and those that any object is in.
fn namespaces(world: &World) -> BTreeSet<String> {
    let of = |(key, _): (&ObjectKey, &Entry)| {
        let name = if key.kind == Kind::Namespace { &key.name } else { &key.namespace };
        name.clone()
    };
    world.iter().map(of).filter(|name| !name.is_empty()).collect()
}

/// A workload as its own proxy is told of it.
pub(crate) fn serve(world: &World, workload: &Object<WorkloadSpec>) -> Option<ServedWorkload> {
    let mut near = world.of_namespace::<ServiceSpec>(&workload.metadata.namespace);
    let selecting = near.find(|service| selects(service, workload));
    Some(ServedWorkload {
        name: workload.name(),
        identity: world.trust_domain.workload(&workload.metadata.namespace, &workload.spec.service_account).ok()?,
        address: workload.spec.address,
        addresses: workload.spec.addresses.clone(),
        ports: workload.spec.ports.iter().map(|port| served_port(world, workload, port)).collect(),
        labels: workload.metadata.labels.clone(),
        service: selecting.map(Object::name),
        outbound_closed: None,
    })
}

/// Joins the declarations of a port by the workload and by the services in front of it. What they disagree on is
/// unknown; `problems` tells of it.
fn served_port(world: &World, workload: &Object<WorkloadSpec>, own: &WorkloadPortSpec) -> WorkloadPort {
    let in_front = ports_in_front(world, workload, own.port);
    let mut port = WorkloadPort::new(own.port, joined(own.protocol, &in_front));
    let versions: Vec<_> = in_front.iter().map(|(_, port)| port.app_version()).collect();
    port.app_version = match versions.split_first() {
        Some((first, others)) if others.iter().all(|other| other == first) => *first,
        _ => AppVersion::AsCaller,
    };
    if port.protocol == Protocol::Grpc {
        port.app_version = AppVersion::Http2;
    }
    let readings = in_front.iter().map(|(service, _)| service.path_reading().unwrap_or_default());
    port.path_reading = readings.reduce(PathReading::common).unwrap_or_default();
    port.opaque_refused = port.protocol == Protocol::Auto
        && (!http_only::policies(world, workload, own.port).is_empty()
            || in_front.iter().any(|(service, port)| {
                http_only::routes(world, service, port.port, RoutesOf::Producer).next().is_some()
            }));
    port
}

/// The protocol of a workload's port: its own word, else that of the services in front where they agree.
fn joined(own: Protocol, in_front: &[(&Object<ServiceSpec>, &PortSpec)]) -> Protocol {
    let declared: BTreeSet<_> = in_front.iter().map(|(_, port)| port.protocol()).collect();
    match (own, declared.iter().collect::<Vec<_>>().as_slice()) {
        (Protocol::Auto, [one]) => **one,
        (own, _) => own,
    }
}

/// The same of a port by its number.
pub(super) fn protocol_of(world: &World, workload: &Object<WorkloadSpec>, port: u16) -> Protocol {
    let own = workload.spec.ports.iter().find(|own| own.port == port).map_or(Protocol::Auto, |own| own.protocol);
    joined(own, &ports_in_front(world, workload, port))
}

/// The ports of services that lead to a port of this workload.
pub(super) fn ports_in_front<'w>(
    world: &'w World,
    workload: &'w Object<WorkloadSpec>,
    port: u16,
) -> Vec<(&'w Object<ServiceSpec>, &'w PortSpec)> {
    let near = world.of_namespace::<ServiceSpec>(&workload.metadata.namespace);
    let services = near.filter(|service| selects(service, workload));
    let leading = |service: &'w Object<ServiceSpec>| {
        let leads = move |known: &&PortSpec| known.served_at(&workload.spec) == Some(port);
        service.spec.served_ports().filter(leads).map(move |known| (service, known))
    };
    services.flat_map(leading).collect()
}

/// A service as callers of these namespaces see it.
pub(super) fn service_entry(world: &World, service: &Object<ServiceSpec>, callers: &BTreeSet<&str>) -> Service {
    let workloads: Vec<_> = selected_by(world, service).collect();
    let port = |port: &PortSpec| {
        // A port whose target nobody has is none that callers could use.
        let Targets { port: target_port, others: other_targets } = targets(port, &workloads).ok()?;
        let protocol = http_only::service_protocol(port, &workloads);
        let judged = |workload: &&Object<WorkloadSpec>| {
            let target = port.served_at(&workload.spec);
            target.is_some_and(|target| !http_only::policies(world, workload, target).is_empty())
        };
        Some(ServicePort {
            name: port.name.clone(),
            port: port.port,
            target_port,
            protocol,
            app_version: port.app_version(),
            opaque_refused: protocol == Protocol::Auto
                && (http_only::routes(world, service, port.port, RoutesOf::CallersIn(callers)).next().is_some()
                    || workloads.iter().any(judged)),
            other_targets,
        })
    };
    let merged = merged(world, &service.name());
    Service {
        name: service.name(),
        ports: service.spec.served_ports().filter_map(port).collect(),
        vip: service.spec.cluster_ip,
        path_reading: service.path_reading().unwrap_or_default(),
        traffic: traffic::settings(&merged).map(Box::new),
        spread: spread::settings(&merged.spec, service).map(Box::new),
        endpoints: workloads
            .iter()
            .copied()
            .filter(|workload| is_in_discovery(workload))
            .map(|workload| endpoint_entry(world, workload))
            .map(|e| (e.workload.clone(), e))
            .collect(),
    }
}

/// A workload as those see it that call one of its services.
fn endpoint_entry(world: &World, workload: &Object<WorkloadSpec>) -> Endpoint {
    Endpoint {
        workload: workload.name(),
        identity: world.trust_domain.workload(&workload.metadata.namespace, &workload.spec.service_account).ok(),
        address: workload.spec.address,
        addresses: workload.spec.addresses.clone(),
        mesh_address: workload.spec.mesh_address(),
        weight: workload.spec.weight,
        labels: workload.metadata.labels.clone(),
    }
}

/// True while the workload of this endpoint can be called in the same place, with the same identity, whatever services it
/// stands behind.
pub fn has_endpoint(world: &World, endpoint: &Endpoint) -> bool {
    let workload = world.workload(&endpoint.workload).filter(|workload| is_in_discovery(workload));
    workload.is_some_and(|workload| endpoint_entry(world, workload).is_same_place(endpoint))
}

/// The route once for each service or ExternalService it is attached to. A route of which a part can't be done leads
/// nowhere: left out, what it narrows would be open. So does one beside a route that can't be read: that one may have
/// kept requests from it.
pub(super) fn attached(world: &World, route: AnyRoute<'_>, created: Revision) -> Vec<Route> {
    let name = route.name();
    let mut rules: Vec<RouteRule> =
        route.spec.rules.iter().enumerate().map(|rule| rule_entry(world, route, rule)).collect();
    if !route.spec.undoable().is_empty() {
        rules.iter_mut().for_each(RouteRule::lead_nowhere);
    }
    let parents = route.spec.parent_refs.iter().enumerate().filter(|(_, parent)| route.may_hold_at(parent));
    let attach = |(index, parent): (usize, &ParentRef)| {
        let service = route.named(parent.namespace.as_deref(), &parent.name);
        let mut rules = rules.clone();
        if is_beside_unreadable(world, route, &service) {
            rules.iter_mut().for_each(RouteRule::lead_nowhere);
        }
        Some(Route {
            name: route.kind.at_parent(&name, index),
            kind: route.kind,
            hostnames: match route.kind {
                RouteKind::Tls => route.spec.hostnames.clone(),
                RouteKind::Grpc | RouteKind::Http | RouteKind::Tcp => Vec::new(),
            },
            consumer_namespace: (service.namespace != name.namespace).then(|| name.namespace.clone()),
            parent_port: parent_port(world, parent, &service)?,
            parent: service,
            outside: parent.is_external(),
            created,
            rules,
        })
    };
    parents.filter_map(attach).collect()
}

/// True where a route of the same namespace that can't be read is attached to the service. Routes of other namespaces hold
/// for other callers, or are not asked where its own hold.
fn is_beside_unreadable(world: &World, route: AnyRoute<'_>, service: &ObjectName) -> bool {
    let is_unread = |other: AnyRoute<'_>| {
        other.metadata.namespace == route.metadata.namespace
            && world.is_unreadable(other.kind.resource(), &other.name())
    };
    Kind::ROUTES.into_iter().any(|kind| world.has_unreadable(kind))
        && world.index().attached_to(service).filter_map(AnyRoute::of).any(is_unread)
}

/// The port that a parent names, if it names one. Nothing: its name is no port's, so that the route holds nowhere.
fn parent_port(world: &World, parent: &ParentRef, service: &ObjectName) -> Option<Option<u16>> {
    if parent.section_name.is_none() {
        return Some(parent.port);
    }
    let found = match parent.is_external() {
        true => {
            let mut ports = world.external(service)?.spec.ports.iter();
            ports.find(|port| parent.is_at_port(port.port, port.name.as_ref()))?.port
        }
        false => world.service(service)?.spec.served_ports().find(|port| parent.is_at(port))?.port,
    };
    Some(Some(found))
}

fn rule_entry(world: &World, route: AnyRoute<'_>, (place, rule): (usize, &RuleSpec)) -> RouteRule {
    let named = |mirror: Referred<'_>| resolve(world, route, mirror).ok().map(Led::name);
    let timeouts = rule.timeouts.clone().unwrap_or_default();
    let of_all = timeouts.request_ms.map(RouteAction::RequestTimeoutMs);
    let of_each = timeouts.backend_request_ms.map(RouteAction::AttemptTimeoutMs);
    let retry = rule.retry.as_ref().map(|retry| RouteAction::Retry(retry.retry(route.retries_any_method())));
    let persistence = rule.persistence(&route.name(), place).map(RouteAction::Persistence);
    RouteRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().map(match_entry).collect(),
        actions: actions(&rule.filters, rule.prefix(), named)
            .into_iter()
            .chain(of_all)
            .chain(of_each)
            .chain(retry)
            .chain(persistence)
            .collect(),
        backends: rule.backend_refs.iter().map(|backend| backend_entry(world, route, rule, backend)).collect(),
    }
}

fn match_entry(spec: &MatchSpec) -> RouteMatch {
    let path = spec.path.as_ref().map(|path| match path.path_type {
        PathType::Exact => PathMatch::Exact(path.value.clone()),
        PathType::PathPrefix => PathMatch::Prefix(path.value.clone()),
        PathType::RegularExpression => PathMatch::Regex(path.value.clone()),
    });
    let rpc = spec.rpc.as_ref().map(|rpc| {
        let [service, method] = rpc.parts().map(Option::<&String>::cloned);
        PathMatch::Rpc(RpcMatch { service, method, regex: !rpc.rpc_type.is_exact() })
    });
    let header = |it: &HeaderSpec| (it.name.to_ascii_lowercase(), it.value.clone(), it.header_type);
    let param = |it: &QueryParamSpec| (it.name.clone(), it.value.clone(), it.param_type);
    RouteMatch {
        path: path.or(rpc),
        method: spec.method.clone(),
        headers: field_matches(spec.headers.iter().map(header)),
        query: field_matches(spec.query_params.iter().map(param)),
    }
}

/// Of several entries with one name the first counts, says the standard.
fn field_matches(fields: impl Iterator<Item = (String, String, HeaderType)>) -> Vec<FieldMatch> {
    let mut found: Vec<FieldMatch> = Vec::new();
    for (name, value, kind) in fields {
        if !found.iter().any(|known| known.name == name) {
            found.push(FieldMatch { name, value, regex: !kind.is_exact() });
        }
    }
    found
}

fn backend_entry(world: &World, route: AnyRoute<'_>, rule: &RuleSpec, backend: &BackendRef) -> Backend {
    let led = |referred: Referred<'_>| resolve(world, route, referred).ok();
    let (own, named) = (led(backend.referred()), |referred: Referred<'_>| led(referred).map(Led::name));
    Backend {
        service: own.map(Led::name),
        outside: own.is_some_and(Led::is_outside),
        port: backend.port,
        weight: backend.weight,
        actions: actions(&backend.filters, rule.prefix(), named),
    }
}

/// Which of this proxy's workloads an attachment holds for: `None` none of them; empty list all of them.
fn narrowed(held: Vec<ObjectName>, all: usize) -> Option<Vec<ObjectName>> {
    match held.len() {
        0 => None,
        count if count == all => Some(Vec::new()),
        _ => Some(held),
    }
}

fn attach(
    world: &World,
    policy: &Attaching<'_>,
    workloads: &[&Object<WorkloadSpec>],
) -> Option<(String, FilterAttachment)> {
    let held =
        workloads.iter().filter(|workload| holds_for(world, &policy.metadata, &policy.spec.target_refs, workload));
    let workloads = narrowed(held.map(|workload| workload.name()).collect(), workloads.len())?;
    let attachment = attached_filter(world, policy)?;
    Some((attachment.name.clone(), FilterAttachment { workloads, ..attachment }))
}

/// The filter that a policy asks for, whichever workloads it holds for. `None`: it asks for none.
pub fn attachment(world: &World, policy: &ObjectKey) -> Option<FilterAttachment> {
    attached_filter(world, &Attaching::of(&world.get(policy)?.resource)?)
}

fn attached_filter(world: &World, policy: &Attaching<'_>) -> Option<FilterAttachment> {
    let spec = &policy.spec;
    let mode = match spec.mode {
        PolicyMode::Enforce => FilterMode::Enforce,
        PolicyMode::Audit => FilterMode::Audit,
        PolicyMode::Off => return None,
    };
    let filter_name = spec.filter.object_name();
    let name = policy.attachment();
    let found = world.resolve(&spec.filter);
    if found.is_some_and(|found| world.distrusts(&filter_name, found).is_some()) {
        return in_its_place(world, policy, name, DISTRUSTED);
    }
    if !secret::missing(world, policy).is_empty() {
        return in_its_place(world, policy, name, SECRET_MISSING);
    }
    let attachment = FilterAttachment {
        direction: spec.direction,
        order: spec.phase.place(spec.order),
        mode,
        on_failure: spec.on_failure,
        config: Json(expression::config_of(world.compilations(), spec)),
        rules: rules_of(policy),
        ..published(world, &name, &filter_name, found)
    };
    Some(callout::grant(world, policy, attachment))
}

/// The ends of a policy's name in the reason of its refusals.
const DISTRUSTED: &str = ".publisher-not-trusted";
const SECRET_MISSING: &str = ".secret-missing";

/// What runs instead of a filter whose publisher the mesh does not trust (any more), or whose secrets are not there:
/// nothing where requests may do without it, else a filter that every proxy has and that refuses them all. It takes the
/// place of the other at once, also in proxies that know of no publishers and no secrets.
fn in_its_place(
    world: &World,
    policy: &Object<FilterPolicySpec>,
    name: String,
    reason: &str,
) -> Option<FilterAttachment> {
    let spec = &policy.spec;
    if !spec.is_closed_without_filter() {
        return None;
    }
    let closed = authz::Policy { name: name.clone() + reason, action: authz::Action::Deny, rules: Vec::new() };
    let config = authz::Config { trust_domain: world.trust_domain.to_string(), policies: vec![closed] };
    let authz = authz_name();
    Some(FilterAttachment {
        direction: spec.direction,
        order: spec.phase.place(spec.order),
        config: Json(serde_json::to_string(&config).expect("a config has string keys only")),
        rules: rules_of(policy),
        ..published(world, &name, &authz, world.filter(&authz).map(|filter| &filter.spec))
    })
}

/// The rules of routes that a policy is for. Empty: it is for whom it targets, whatever they send.
fn rules_of(policy: &Object<FilterPolicySpec>) -> Vec<AttachedRule> {
    let rule = |target: &TargetRef| {
        let (_, kind) = target.kind.route()?;
        let route = ObjectName::new(policy.metadata.namespace.clone(), target.name.clone());
        Some(AttachedRule { kind, route, rule: target.section_name.clone() })
    };
    policy.spec.target_refs.iter().filter_map(rule).collect()
}

/// The part of an attachment that follows from the published filter.
fn published(world: &World, name: &str, filter_name: &ObjectName, spec: Option<&FilterSpec>) -> FilterAttachment {
    let text = |field: fn(&FilterSpec) -> &String| spec.map(field).cloned().unwrap_or_default();
    // Signed is what was published; another Filter of the same number is not.
    let release =
        spec.and_then(|spec| world.release(filter_name, &spec.version).filter(|it| it.spec.digest == spec.digest));
    FilterAttachment {
        name: name.to_owned(),
        filter: filter_name.name.clone(),
        version: text(|spec| &spec.version),
        digest: spec.map_or_else(|| NO_DIGEST.to_owned(), |spec| spec.digest.clone()),
        signature: text(|spec| &spec.signature),
        public_key_pem: text(|spec| &spec.public_key),
        statement: release.and_then(|release| release.statement.clone()),
        shipped: release.is_some_and(|release| release.shipped),
        direction: Direction::Inbound,
        order: i32::MAX,
        mode: FilterMode::Enforce,
        on_failure: OnFailure::Deny,
        authorization: false,
        config: Json("{}".to_owned()),
        capabilities: Vec::new(),
        grants: Vec::new(),
        limits: FilterLimits::default(),
        workloads: Vec::new(),
        rules: Vec::new(),
        contract: spec.map_or_else(|| FILTER_CONTRACT.to_owned(), |spec| contract_of(&spec.abi)),
    }
}

fn authz_name() -> ObjectName {
    ObjectName::new(ROOT_NAMESPACE, "authz")
}

/// The access policies that are enforced for a workload, as its authz filter reads them. Without any there is no
/// filter: authenticated peers are allowed.
pub(crate) fn access_config(world: &World, workload: &Object<WorkloadSpec>) -> Option<authz::Config> {
    config_of(world, workload, |mode| mode == PolicyMode::Enforce)
}

/// The same as it would be if those that are audited were enforced as well. `None`: none is audited.
pub(crate) fn audited_config(world: &World, workload: &Object<WorkloadSpec>) -> Option<authz::Config> {
    config_of(world, workload, |mode| mode == PolicyMode::Audit)?;
    config_of(world, workload, |mode| mode != PolicyMode::Off)
}

fn config_of(
    world: &World,
    workload: &Object<WorkloadSpec>,
    counts: impl Fn(PolicyMode) -> bool,
) -> Option<authz::Config> {
    let near = world.index().near_policies(world, workload).filter_map(AccessPolicySpec::of);
    let counting = near.filter(|policy| counts(policy.spec.mode));
    let holding = counting.filter(|policy| holds_for(world, &policy.metadata, &policy.spec.target_refs, workload));
    let policies: Vec<authz::Policy> = holding.map(Into::into).collect();
    (!policies.is_empty()).then(|| authz::Config { trust_domain: world.trust_domain.to_string(), policies })
}

/// One attachment for each set of enforced policies, of which a sidecar has one at most, and the same of audited ones.
/// These run behind the others, so that they tell of requests only that are let in.
fn attach_access(world: &World, workloads: &[&Object<WorkloadSpec>]) -> Vec<(String, FilterAttachment)> {
    let filter_name = authz_name();
    let spec = world.filter(&filter_name).map(|filter| &filter.spec);
    let attached = |base: &str, sets: Vec<(authz::Config, Vec<ObjectName>)>| -> Vec<FilterAttachment> {
        let attach = |(index, (config, held)): (usize, (authz::Config, Vec<ObjectName>))| {
            let name = if index == 0 { base.to_owned() } else { format!("{base}#{index}") };
            FilterAttachment {
                authorization: true,
                config: Json(serde_json::to_string(&config).expect("a config has string keys only")),
                workloads: narrowed(held, workloads.len()).unwrap_or_default(),
                ..published(world, &name, &filter_name, spec)
            }
        };
        sets.into_iter().enumerate().map(attach).collect()
    };
    let mut all = attached(AUTHZ_ATTACHMENT, sets_of(workloads, |workload| access_config(world, workload)));
    // Without the filter nothing is to be closed for what is only watched.
    if spec.is_some() {
        let audits = attached(AUDIT_ATTACHMENT, sets_of(workloads, |workload| audited_config(world, workload)));
        let audit = |it| FilterAttachment { mode: FilterMode::Audit, on_failure: OnFailure::Allow, ..it };
        all.extend(audits.into_iter().map(audit));
    }
    all.into_iter().map(|attachment| (attachment.name.clone(), attachment)).collect()
}

/// Workloads by the configuration that each of them has.
fn sets_of(
    workloads: &[&Object<WorkloadSpec>],
    config_of: impl Fn(&Object<WorkloadSpec>) -> Option<authz::Config>,
) -> Vec<(authz::Config, Vec<ObjectName>)> {
    let mut sets: Vec<(authz::Config, Vec<ObjectName>)> = Vec::new();
    for workload in workloads {
        let Some(config) = config_of(workload) else { continue };
        match sets.iter_mut().find(|(known, _)| *known == config) {
            Some((_, held)) => held.push(workload.name()),
            None => sets.push((config, vec![workload.name()])),
        }
    }
    sets
}
