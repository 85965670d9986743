//! Which service a name means and which rule of its routes a request meets, by the precedence of Gateway API (GAMMA).
//! Immutable; made once for each snapshot.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::bundle::{Backend, Bundle, ObjectName, PathMatch, Route, RouteMatch, RouteRule, Service};

/// A service as addressed by a request.
#[derive(Debug, Clone, Copy)]
pub struct Resolved<'t> {
    pub service: &'t Service,
    /// The service's port; with `endpoint` the app's.
    pub port: u16,
    /// Only this endpoint was meant: it was addressed by its own IP, and no route holds.
    pub endpoint: Option<&'t ObjectName>,
}

/// The request as routes look at it.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    pub method: &'a str,
    /// Without query, normalised.
    pub path: &'a str,
    /// By name in lower case; values of a repeated header joined or the first.
    pub headers: &'a dyn Fn(&str) -> Option<&'a str>,
}

/// What routes say to a request.
#[derive(Debug, Clone, Copy)]
pub enum RouteDecision<'t> {
    /// No route is attached: to the service itself.
    Default,
    /// `rule_index`: in the route as written.
    Rule { route: &'t Route, rule_index: usize, rule: &'t RouteRule },
    /// Routes are attached and none matches: 404.
    NoMatch,
}

/// All names and routes of a bundle.
#[derive(Debug)]
pub struct RouteTable {
    bundle: Arc<Bundle>,
    by_vip: BTreeMap<IpAddr, ObjectName>,
    by_endpoint: BTreeMap<IpAddr, Vec<(ObjectName, ObjectName)>>,
    /// Candidates of each service in order of precedence: the first that matches decides.
    candidates: BTreeMap<ObjectName, Vec<Candidate>>,
}

/// One match of one rule of one route.
#[derive(Debug)]
struct Candidate {
    route: ObjectName,
    rule: usize,
    /// `None`: the rule has no matches and holds for all.
    matching: Option<usize>,
}

impl RouteTable {
    pub fn new(bundle: &Arc<Bundle>) -> Self {
        let mut table = Self {
            bundle: Arc::clone(bundle),
            by_vip: BTreeMap::new(),
            by_endpoint: BTreeMap::new(),
            candidates: BTreeMap::new(),
        };
        for (name, service) in &bundle.services {
            if let Some(vip) = service.vip {
                table.by_vip.entry(vip).or_insert_with(|| name.clone());
            }
            for (workload, endpoint) in &service.endpoints {
                let known = table.by_endpoint.entry(endpoint.address).or_default();
                known.push((name.clone(), workload.clone()));
            }
        }
        for route in bundle.routes.values() {
            let candidates = table.candidates.entry(route.parent.clone()).or_default();
            for (index, rule) in route.rules.iter().enumerate() {
                let candidate = |matching| Candidate { route: route.name.clone(), rule: index, matching };
                if rule.matches.is_empty() {
                    candidates.push(candidate(None));
                }
                candidates.extend((0..rule.matches.len()).map(Some).map(candidate));
            }
        }
        for candidates in table.candidates.values_mut() {
            candidates.sort_by_cached_key(|candidate| precedence(bundle, candidate));
        }
        table
    }

    /// A service by one of its names or its address: NAME, NAME.NS, NAME.NS.svc.cluster.local, NAME.NS.mesh.local, in
    /// any case, with or without the trailing dot; or IP. `None`: outside the mesh.
    pub fn resolve(&self, host: &str, port: u16, from_namespace: &str) -> Option<Resolved<'_>> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.resolve_address(SocketAddr::new(address, port), from_namespace);
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let mut labels = host.splitn(3, '.');
        let name = labels.next().filter(|name| !name.is_empty())?;
        let namespace = labels.next().unwrap_or(from_namespace);
        if !matches!(labels.next(), None | Some("svc" | "svc.cluster.local" | "mesh.local")) {
            return None;
        }
        let service = self.bundle.services.get(&ObjectName::new(namespace, name))?;
        Some(Resolved { service, port, endpoint: None })
    }

    /// By a service's virtual address, or an endpoint by its own.
    pub fn resolve_address(&self, address: SocketAddr, from_namespace: &str) -> Option<Resolved<'_>> {
        let ip = address.ip().to_canonical();
        if let Some(name) = self.by_vip.get(&ip) {
            let service = self.bundle.services.get(name)?;
            return Some(Resolved { service, port: address.port(), endpoint: None });
        }
        let behind = self.by_endpoint.get(&ip)?;
        let serves = |service: &Service| service.ports.iter().any(|port| port.target_port == address.port());
        // The same instance may stand behind several services: the caller's own namespace first, then by name.
        let mut found: Vec<_> =
            behind.iter().filter(|(name, _)| self.bundle.services.get(name).is_some_and(serves)).collect();
        found.sort_by_key(|(name, _)| (name.namespace != from_namespace, name));
        let (service, workload) = found.first()?;
        let service = self.bundle.services.get(service)?;
        Some(Resolved { service, port: address.port(), endpoint: Some(workload) })
    }

    /// The first match in order of precedence among the routes that hold for this caller and port. Routes of the
    /// caller's own namespace on somebody else's service (consumer routes) come instead of the service's own.
    pub fn decide(&self, to: &Resolved<'_>, from_namespace: &str, head: &HeadView<'_>) -> RouteDecision<'_> {
        let candidates = match self.candidates.get(&to.service.name) {
            Some(candidates) if to.endpoint.is_none() => candidates,
            _ => return RouteDecision::Default,
        };
        let mut attached = false;
        let mut consumer = false;
        let mut found = None;
        for candidate in candidates {
            let Some(route) = self.bundle.routes.get(&candidate.route) else { continue };
            if !holds(route, to.port, from_namespace) || (consumer && route.consumer_namespace.is_none()) {
                continue;
            }
            attached = true;
            if route.consumer_namespace.is_some() && !consumer {
                (consumer, found) = (true, None);
            }
            if found.is_none() {
                found = route
                    .rules
                    .get(candidate.rule)
                    .filter(|rule| candidate.matches(rule, head))
                    .map(|rule| RouteDecision::Rule { route, rule_index: candidate.rule, rule });
            }
        }
        match found {
            Some(rule) => rule,
            None if attached => RouteDecision::NoMatch,
            None => RouteDecision::Default,
        }
    }
}

impl Candidate {
    fn matches(&self, rule: &RouteRule, head: &HeadView<'_>) -> bool {
        match self.matching.map(|index| rule.matches.get(index)) {
            None => true,
            Some(None) => false,
            Some(Some(matching)) => matching.holds(head),
        }
    }
}

impl RouteMatch {
    fn holds(&self, head: &HeadView<'_>) -> bool {
        let path = match &self.path {
            None => true,
            Some(PathMatch::Exact(path)) => path == head.path,
            Some(PathMatch::Prefix(prefix)) => {
                let prefix = prefix.trim_end_matches('/');
                head.path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        };
        path && self.method.as_ref().is_none_or(|method| method == head.method)
            && self.headers.iter().all(|header| (head.headers)(&header.name) == Some(header.value.as_str()))
    }
}

fn holds(route: &Route, port: u16, from_namespace: &str) -> bool {
    route.parent_port.is_none_or(|own| own == port)
        && route.consumer_namespace.as_ref().is_none_or(|namespace| namespace == from_namespace)
}

/// Smaller comes first. Exact path, longest prefix, method, number of headers; then the oldest route, then its name,
/// then the order written.
fn precedence(bundle: &Bundle, candidate: &Candidate) -> impl Ord + use<> {
    let route = bundle.routes.get(&candidate.route);
    let rule = route.and_then(|route| route.rules.get(candidate.rule));
    let matching = candidate.matching.and_then(|index| rule.and_then(|rule| rule.matches.get(index)));
    let (exact, prefix) = match matching.and_then(|matching| matching.path.as_ref()) {
        Some(PathMatch::Exact(_)) => (true, 0),
        Some(PathMatch::Prefix(prefix)) => (false, prefix.trim_end_matches('/').len()),
        None => (false, 0),
    };
    let method = matching.is_some_and(|matching| matching.method.is_some());
    let headers = matching.map_or(0, |matching| matching.headers.len());
    let age = route.map(|route| (route.created, route.name.clone()));
    let written = (candidate.rule, candidate.matching);
    (!exact, std::cmp::Reverse((prefix, method, headers)), age, written)
}

/// The backend for one request: weights in proportion, `dice` uniform over all of `u64`. `None`: no backend, or all of
/// weight 0 (500). One that doesn't resolve keeps its share (`Backend::service` is `None`).
pub fn pick_backend(rule: &RouteRule, dice: u64) -> Option<&Backend> {
    let total: u64 = rule.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    // Multiplying instead of a remainder: no bias worth naming, no division.
    let mut at = u64::try_from((u128::from(dice) * u128::from(total)) >> 64).ok()?;
    for backend in &rule.backends {
        let weight = u64::from(backend.weight);
        if at < weight {
            return Some(backend);
        }
        at -= weight;
    }
    None
}

/// Applies a rule's header changes: set, then add, then remove. Names and values were checked where they came in; one
/// that is not fit for a header is left out.
#[cfg(feature = "http")]
pub fn modify_headers(modifier: &crate::bundle::HeaderModifier, headers: &mut http::HeaderMap) {
    use http::{HeaderName, HeaderValue};
    let parse = |(name, value): &(String, String)| {
        Some((HeaderName::try_from(name.as_str()).ok()?, HeaderValue::try_from(value.as_str()).ok()?))
    };
    for (name, value) in modifier.set.iter().filter_map(parse) {
        headers.insert(name, value);
    }
    for (name, value) in modifier.add.iter().filter_map(parse) {
        headers.append(name, value);
    }
    for name in &modifier.remove {
        headers.remove(name.as_str());
    }
}
