//! Matches of routes that are never met because others with the same conditions come first. A match with more conditions
//! always comes before one with fewer, so that only equals hide each other; among them age, name and order decide.

use std::collections::{BTreeMap, BTreeSet};

use super::lens::Lens;
use super::{Code, Report};
use crate::bundle::{ObjectName, Revision, RouteKind};
use crate::path;
use crate::resource::AnyRoute;
use crate::resource::route::{HeaderType, MatchSpec, PathType};

/// The conditions of a match, alike where the requests are that meet it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Conditions<'w> {
    path_type: PathType,
    path: Vec<u8>,
    method: Option<&'w str>,
    /// The name that a ClientHello asks for.
    server: Option<&'w str>,
    /// The service and the method of a call.
    rpc: Option<(HeaderType, [Option<&'w String>; 2])>,
    headers: BTreeMap<&'w str, (HeaderType, &'w str)>,
    query: BTreeMap<&'w str, (HeaderType, &'w str)>,
}

impl<'w> Conditions<'w> {
    fn of(matching: Option<&'w MatchSpec>) -> Self {
        let path = matching.and_then(|matching| matching.path.as_ref());
        let (path_type, path) = match path {
            Some(path) if path.path_type == PathType::PathPrefix => (path.path_type, path.value.trim_end_matches('/')),
            Some(path) => (path.path_type, path.value.as_str()),
            None => (PathType::PathPrefix, ""),
        };
        let path = match path_type {
            PathType::RegularExpression => path.as_bytes().to_vec(),
            PathType::Exact | PathType::PathPrefix => path::decode(path).into_owned(),
        };
        let (mut headers, mut query) = (BTreeMap::new(), BTreeMap::new());
        for header in matching.iter().flat_map(|matching| &matching.headers) {
            let test = (header.header_type, header.value.as_str());
            headers.entry(header.name.as_str()).or_insert(test);
        }
        for param in matching.iter().flat_map(|matching| &matching.query_params) {
            query.entry(param.name.as_str()).or_insert((param.param_type, param.value.as_str()));
        }
        let method = matching.and_then(|matching| matching.method.as_deref());
        let rpc = matching.and_then(|matching| matching.rpc.as_ref()).map(|rpc| (rpc.rpc_type, rpc.parts()));
        Self { path_type, path, method, server: None, rpc, headers, query }
    }

    fn hold_for_all(&self) -> bool {
        let anywhere = self.path_type == PathType::PathPrefix && self.path.is_empty();
        anywhere
            && self.server.is_none()
            && self.method.is_none()
            && self.rpc.is_none()
            && self.headers.is_empty()
            && self.query.is_empty()
    }
}

/// One match of one rule, at one parent.
struct Candidate<'w> {
    route: AnyRoute<'w>,
    age: (Revision, ObjectName),
    rule: usize,
    /// `None`: the rule has no matches.
    matching: Option<usize>,
    port: Option<u16>,
}

impl Candidate<'_> {
    fn place(&self) -> String {
        match self.matching {
            Some(index) => format!("spec.rules[{}].matches[{index}]", self.rule),
            None => format!("spec.rules[{}]", self.rule),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.age.1 == other.age.1 && (self.rule, self.matching) == (other.rule, other.matching)
    }
}

/// The parent, for routes of consumers their namespace, and their kind: those of another are not asked.
type Place = (ObjectName, Option<String>, RouteKind);

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    let mut alike = BTreeMap::<(Place, Conditions<'_>), Vec<Candidate<'_>>>::new();
    let mut places = BTreeMap::<ObjectName, BTreeSet<Option<String>>>::new();
    for (route, created) in lens.routes() {
        let own = &route.metadata.namespace;
        for parent in route.spec.parent_refs.iter().filter(|parent| parent.is_service()) {
            let name = route.named(parent.namespace.as_deref(), &parent.name);
            let consumer = (name.namespace != *own).then(|| own.clone());
            let named = || lens.world.service(&name)?.spec.served_ports().find(|port| parent.is_at(port));
            let port = if parent.section_name.is_some() { named().map(|port| port.port) } else { parent.port };
            places.entry(name.clone()).or_default().insert(consumer.clone());
            for (rule, spec) in route.spec.rules.iter().enumerate() {
                let mut add = |matching: Option<usize>, server| {
                    let of = matching.map(|index| &spec.matches[index]);
                    let conditions = Conditions { server, ..Conditions::of(of) };
                    let age = (created, route.name());
                    let candidate = Candidate { route, age, rule, matching, port };
                    alike
                        .entry(((name.clone(), consumer.clone(), route.kind), conditions))
                        .or_default()
                        .push(candidate);
                };
                let servers = if route.kind == RouteKind::Tls { &*route.spec.hostnames } else { &[] };
                servers.iter().for_each(|server| add(None, Some(server.as_str())));
                if spec.matches.is_empty() && servers.is_empty() {
                    add(None, None);
                }
                (0..spec.matches.len()).for_each(|index| add(Some(index), None));
            }
        }
    }
    for ((_, conditions), mut candidates) in alike {
        candidates.sort_by(|a, b| (&a.age, a.rule, a.matching).cmp(&(&b.age, b.rule, b.matching)));
        hidden(&conditions, &candidates, report);
    }
    consumers(lens, &places, report);
}

/// Tells of candidates behind one that takes all their requests. Those given have the same conditions.
fn hidden(conditions: &Conditions<'_>, candidates: &[Candidate<'_>], report: &mut Report) {
    let first = |port: Option<u16>| candidates.iter().find(|it| it.port == port);
    let whole = first(None);
    for candidate in candidates {
        let at_port = candidate.port.and_then(|port| first(Some(port)));
        let position = |it: &Candidate<'_>| (it.age.clone(), it.rule, it.matching);
        let earlier = [whole, at_port].into_iter().flatten().filter(|it| position(it) < position(candidate));
        let Some(winner) = earlier.min_by_key(|it| position(it)).filter(|it| !it.is_same(candidate)) else { continue };
        let what = if conditions.hold_for_all() { "holds for every request" } else { "has the same conditions" };
        let object = candidate.route.key();
        if winner.age.1 == candidate.age.1 {
            let message = format!("is never met: {} {what} and comes first", winner.place());
            report.tell(Code::RepeatedMatch, &object, candidate.place(), message);
        } else {
            let message = format!("is never met: {} of {} {what}, and is older", winner.place(), winner.route.key());
            report.tell(Code::ShadowedRoute, &object, candidate.place(), message);
        }
    }
}

/// Tells which routes of consumers stand in for a producer's.
fn consumers(lens: &Lens<'_>, places: &BTreeMap<ObjectName, BTreeSet<Option<String>>>, report: &mut Report) {
    for (route, _) in lens.routes() {
        let own = &route.metadata.namespace;
        for (index, parent) in route.spec.parent_refs.iter().enumerate() {
            let Some(namespace) = parent.namespace.as_ref().filter(|namespace| *namespace != own) else { continue };
            let name = ObjectName::new(namespace.clone(), parent.name.clone());
            if places.get(&name).is_some_and(|kinds| kinds.contains(&None)) {
                let message = format!("callers of {own} meet it instead of the routes that {namespace} has for {name}");
                report.tell(Code::ConsumerRoute, &route.key(), format!("spec.parentRefs[{index}]"), message);
            }
        }
    }
}
