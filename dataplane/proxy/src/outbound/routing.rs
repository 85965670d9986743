//! What the snapshot says of a request: which service it addresses, and which rule, backend and port it is sent to. Pure.

use std::time::Duration;

use weft_policy::bundle::{HeaderModifier, ObjectName, Protocol, Route, Service, ServicePort};
use weft_policy::route::{HeadView, Resolved, RouteDecision};
use weft_transport::http::RequestHead;

use super::attempts::Goal;
use super::{Origin, Target};
use crate::reply::Failure;
use crate::snapshot::{Served, Snapshot};

/// The service a request addresses: by where its connection meant to go, and where that says nothing by its
/// authority. `None`: outside the mesh.
pub(super) fn resolve<'s>(
    snapshot: &'s Snapshot,
    from: &Served,
    origin: &Origin,
    head: &RequestHead,
) -> Result<Option<Resolved<'s>>, Failure> {
    if let Some(target) = &origin.target
        && let Some(resolved) = resolve_target(snapshot, from, target)
    {
        return Ok(Some(resolved));
    }
    let authority = match (&origin.target, head.authority.as_ref()) {
        (_, Some(authority)) => authority,
        // Where the connection meant to go says enough (HTTP/1.0 without Host).
        (Some(_), None) => return Ok(None),
        (None, None) => return Err(Failure::NoAuthority),
    };
    let port = match &origin.target {
        Some(target) => target.port(),
        None => authority.port_u16().unwrap_or(80),
    };
    Ok(snapshot.routes.resolve(authority.host(), port, &from.workload.name.namespace))
}

/// Makes the target of a forward-proxy request its authority; inside a connection whose destination is known, an
/// absolute-form target stays what it is.
//= rfc9112#section-3.2.2
// A proxy that gets an absolute-form target ignores Host and replaces it by the host information of the target.
pub(super) fn take_target(origin: &Origin, head: &mut RequestHead) {
    if origin.target.is_some() {
        return;
    }
    if let Some(authority) = head.target_authority.take() {
        head.authority = Some(authority);
    }
    head.absolute_form = false;
}

/// The service behind the target of a connection. `None`: outside the mesh.
pub(super) fn resolve_target<'s>(snapshot: &'s Snapshot, from: &Served, target: &Target) -> Option<Resolved<'s>> {
    let namespace = &from.workload.name.namespace;
    match target {
        Target::Address(address) => snapshot.routes.resolve_address(*address, namespace),
        Target::Name { host, port } => snapshot.routes.resolve(host, *port, namespace),
    }
}

/// What a destination is declared to speak; an endpoint addressed by its own IP speaks what its port does.
pub(super) fn protocol(to: &Resolved<'_>) -> Protocol {
    let of = |port: &&ServicePort| match to.endpoint {
        Some(_) => port.target_port == to.port,
        None => port.port == to.port,
    };
    to.service.ports.iter().find(of).map_or(Protocol::Auto, |port| port.protocol)
}

/// What is decided for one request. Immutable; each attempt is made from it.
pub(super) struct Plan<'s> {
    pub(super) goal: Goal<'s>,
    pub(super) route: Option<&'s Route>,
    pub(super) timeout: Option<Duration>,
    modifiers: [Option<&'s HeaderModifier>; 2],
}

impl Plan<'_> {
    /// The head as it is sent: the rule's changes on what the filters left.
    pub(super) fn head(&self, head: &RequestHead) -> RequestHead {
        let mut head = head.clone();
        for modifier in self.modifiers.iter().flatten() {
            weft_policy::route::modify_headers(modifier, &mut head.headers);
        }
        head
    }
}

pub(super) fn route<'s>(
    snapshot: &'s Snapshot,
    from: &Served,
    resolved: &Resolved<'s>,
    head: &RequestHead,
    dice: u64,
) -> Result<Plan<'s>, Failure> {
    let default_timeout = snapshot.mesh.request_timeout_ms;
    let decision = {
        let path = head.path.as_ref().map_or("/", |path| path.path());
        let headers = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let view = HeadView { method: head.method.as_str(), path, headers: &headers };
        snapshot.routes.decide(resolved, &from.workload.name.namespace, &view)
    };
    let (route, rule) = match decision {
        RouteDecision::Default => {
            let goal = goal(resolved.service, resolved.port, resolved.endpoint)?;
            return Ok(Plan { goal, route: None, timeout: timeout(default_timeout), modifiers: [None, None] });
        }
        RouteDecision::NoMatch => {
            return Err(Failure::NoRuleMatched { service: resolved.service.name.to_string() });
        }
        RouteDecision::Rule { route, rule, .. } => (route, rule),
    };
    let named = || format!("HTTPRoute {}", route.name);
    let backend = weft_policy::route::pick_backend(rule, dice).ok_or_else(|| Failure::NoBackend { route: named() })?;
    let service = backend.service.as_ref().and_then(|name| snapshot.bundle.services.get(name));
    let service = service.ok_or_else(|| Failure::BackendNotFound { route: named() })?;
    Ok(Plan {
        goal: goal(service, backend.port, None)?,
        route: Some(route),
        timeout: timeout(rule.request_timeout_ms.or(default_timeout)),
        modifiers: [Some(&rule.request_headers), Some(&backend.request_headers)],
    })
}

fn timeout(ms: Option<u64>) -> Option<Duration> {
    ms.filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// The app port behind a port of a service; an endpoint addressed by its own IP was addressed by its own port.
pub(super) fn goal<'s>(service: &'s Service, port: u16, direct: Option<&'s ObjectName>) -> Result<Goal<'s>, Failure> {
    let port = match (direct, service.ports.iter().find(|known| known.port == port)) {
        (Some(_), _) => port,
        (None, Some(known)) => known.target_port,
        (None, None) => return Err(Failure::NoSuchPort { service: service.name.to_string(), port }),
    };
    Ok(Goal { service, port, direct })
}
