//! What would become of a request, and why: the same route table and the same authorization engine that proxies run,
//! over the world as it is. No request is sent.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::authz::{Engine, Request};
use crate::bundle::{Bundle, ObjectName, Revision, RouteRule, Service};
use crate::identity::SpiffeId;
use crate::path;
use crate::plan::{World, access_config, bundle_for, visible};
use crate::route::{HeadView, RouteDecision, RouteTable};

/// The request to be explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// `namespace/service-account` of the caller.
    pub from: String,
    /// A service's name as the caller would write it.
    pub to: String,
    /// The service's port; its first where absent.
    #[serde(default)]
    pub port: Option<u16>,
    #[serde(default = "get")]
    pub method: String,
    #[serde(default = "root")]
    pub path: String,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

/// A question that can't be answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("from: {0:?} is not namespace/service-account")]
    From(String),
    #[error("to: no service {0:?} for a caller in namespace {1}")]
    To(String, String),
    #[error("port: service {service} has no port {port}")]
    Port { service: ObjectName, port: u16 },
    #[error("port: service {0} has no ports")]
    NoPorts(ObjectName),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether every endpoint that may be picked would serve it.
    pub allowed: bool,
    /// The status the caller would see from the mesh; absent where the app answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The rule that decided, `namespace/policy#rule`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
    pub principal: SpiffeId,
    pub service: String,
    pub port: u16,
    /// As authorization and the app see it.
    pub path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteExplanation>,
    pub backends: Vec<BackendExplanation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteExplanation {
    pub name: String,
    pub rule_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendExplanation {
    /// Absent where the reference doesn't resolve: its share is answered 500.
    pub service: Option<String>,
    pub port: u16,
    pub weight: u32,
    pub endpoints: Vec<EndpointExplanation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointExplanation {
    pub workload: String,
    pub address: SocketAddr,
    pub identity: Option<SpiffeId>,
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    pub reason: String,
    /// Inbound filters in the order in which they run.
    pub filters: Vec<String>,
}

/// Follows a request through the world.
pub fn explain(world: &World, query: &Query) -> Result<Explanation, QueryError> {
    let wrong = || QueryError::From(query.from.clone());
    let (namespace, account) = query.from.split_once('/').ok_or_else(wrong)?;
    let principal = world.trust_domain.workload(namespace, account).map_err(|_| wrong())?;
    let (services, routes) = visible(world, &BTreeSet::from([namespace]));
    let bundle = Arc::new(Bundle { services, routes, ..Bundle::default() });
    let table = RouteTable::new(&bundle);
    let unknown = || QueryError::To(query.to.clone(), namespace.to_owned());
    let mut resolved = table.resolve(&query.to, query.port.unwrap_or_default(), namespace).ok_or_else(unknown)?;
    let service = resolved.service;
    resolved.port = match query.port {
        Some(port) if service.ports.iter().any(|known| known.port == port) => port,
        Some(port) => return Err(QueryError::Port { service: service.name.clone(), port }),
        None => service.ports.first().ok_or_else(|| QueryError::NoPorts(service.name.clone()))?.port,
    };
    let mut explanation = Explanation {
        allowed: false,
        status: None,
        rule: None,
        reason: String::new(),
        principal,
        service: service.name.to_string(),
        port: resolved.port,
        path: query.path.clone(),
        route: None,
        backends: Vec::new(),
    };
    let bare = query.path.split('?').next().unwrap_or_default();
    match path::normalize(bare) {
        Ok(normal) => explanation.path = normal.into_owned(),
        Err(error) => {
            explanation.status = Some(400);
            explanation.reason = error.to_string();
            return Ok(explanation);
        }
    }
    let headers: BTreeMap<String, &str> =
        query.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    let lookup = |name: &str| headers.get(name).copied();
    let head = HeadView { method: &query.method, path: &explanation.path, headers: &lookup };
    let asked = Asked { world, bundle: &bundle, method: &query.method, headers: &headers };
    match table.decide(&resolved, namespace, &head) {
        RouteDecision::NoMatch => {
            explanation.status = Some(404);
            explanation.reason = format!("routes are attached to {} and no rule matches", service.name);
        }
        RouteDecision::Default => {
            let backend = asked.backend(&explanation, Some(service), resolved.port, 1);
            explanation.backends.push(backend);
            conclude(&mut explanation);
        }
        RouteDecision::Rule { route, rule_index, rule } => {
            let (name, rule_name) = (route.name.to_string(), rule.name.clone());
            explanation.route = Some(RouteExplanation { name, rule_index, rule_name });
            explanation.backends = asked.backends(&explanation, rule);
            conclude(&mut explanation);
        }
    }
    Ok(explanation)
}

/// Allowed only if nothing that may be picked refuses; the first refusal tells why.
fn conclude(explanation: &mut Explanation) {
    let picked: Vec<&BackendExplanation> = explanation.backends.iter().filter(|backend| backend.weight > 0).collect();
    let (status, reason, rule) = if picked.is_empty() {
        (Some(500), "the rule has no backend with a weight".to_owned(), None)
    } else if picked.iter().any(|backend| backend.service.is_none()) {
        (Some(500), "a backend of the rule does not resolve".to_owned(), None)
    } else if let Some(backend) = picked.iter().find(|backend| backend.endpoints.is_empty()) {
        (Some(503), format!("service {} has no endpoints", backend.service.as_deref().unwrap_or_default()), None)
    } else {
        let mut endpoints = picked.iter().flat_map(|backend| &backend.endpoints);
        let refusing = endpoints.clone().find(|endpoint| !endpoint.allowed);
        let deciding = refusing.or_else(|| endpoints.next());
        let status = refusing.map(|_| 403);
        deciding.map_or((Some(503), String::new(), None), |e| (status, e.reason.clone(), e.rule.clone()))
    };
    explanation.allowed = status.is_none();
    (explanation.status, explanation.reason, explanation.rule) = (status, reason, rule);
}

/// The parts of the question that endpoints are asked with.
struct Asked<'a> {
    world: &'a World,
    bundle: &'a Bundle,
    method: &'a str,
    headers: &'a BTreeMap<String, &'a str>,
}

impl Asked<'_> {
    fn backends(&self, explanation: &Explanation, rule: &RouteRule) -> Vec<BackendExplanation> {
        let one = |backend: &crate::bundle::Backend| {
            let service = backend.service.as_ref().and_then(|name| self.bundle.services.get(name));
            self.backend(explanation, service, backend.port, backend.weight)
        };
        rule.backends.iter().map(one).collect()
    }

    fn backend(
        &self,
        explanation: &Explanation,
        service: Option<&Service>,
        port: u16,
        weight: u32,
    ) -> BackendExplanation {
        let endpoints = service.and_then(|service| {
            let target = service.ports.iter().find(|known| known.port == port)?.target_port;
            Some(
                service
                    .endpoints
                    .keys()
                    .map(|workload| self.endpoint(explanation, service, workload, target))
                    .collect(),
            )
        });
        let service = service.map(|service| service.name.to_string());
        BackendExplanation { service, port, weight, endpoints: endpoints.unwrap_or_default() }
    }

    fn endpoint(
        &self,
        explanation: &Explanation,
        service: &Service,
        workload: &ObjectName,
        port: u16,
    ) -> EndpointExplanation {
        let endpoint = &service.endpoints[workload];
        let config = self.world.workload(workload).and_then(|object| access_config(self.world, object));
        let headers: Vec<(&str, &str)> = self.headers.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let request = Request {
            principal: Some(explanation.principal.as_str()),
            l4: false,
            method: self.method,
            path: &explanation.path,
            port,
            headers: &headers,
        };
        let (allowed, rule, reason) = match Engine::new(&config.unwrap_or_default()) {
            Ok(engine) => {
                let decision = engine.decide(&request);
                (decision.allowed, decision.rule.map(str::to_owned), decision.reason.to_owned())
            }
            Err(error) => (false, None, error.to_string()),
        };
        EndpointExplanation {
            workload: workload.to_string(),
            address: SocketAddr::new(endpoint.address, port),
            identity: endpoint.identity.clone(),
            allowed,
            rule,
            reason,
            filters: self.filters(workload),
        }
    }

    fn filters(&self, workload: &ObjectName) -> Vec<String> {
        let bundle = bundle_for(self.world, std::slice::from_ref(workload), Revision::default(), "");
        let mut inbound: Vec<_> =
            bundle.filters.values().filter(|filter| filter.direction == crate::bundle::Direction::Inbound).collect();
        inbound.sort_by_key(|filter| (filter.authorization, filter.order, &filter.name));
        inbound.into_iter().map(|filter| filter.name.clone()).collect()
    }
}
