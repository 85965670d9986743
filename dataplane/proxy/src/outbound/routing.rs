//! Routing of a request by the snapshot: which service it addresses, and which rule, backend and port it is sent to.
//! The decisions are `weft_policy::route`'s, which `weft explain` calls too; here they meet a head of ours. Pure.

use std::cell::LazyCell;
use std::time::Duration;

use weft_filter_host::Chain;
use weft_policy::bundle::{Persistence, Protocol, Retry, Route, RouteKind, RouteName, RouteRule};
use weft_policy::path::NormalPath;
use weft_policy::route::{
    self, AnswerEdits, Authority, Fields, HeadView, Hello, KeptTarget, Meant, Resolution, Resolved, Resolver, WayOut,
};
use weft_transport::http::{RequestHead, Target as WireTarget};

use super::attempts::Goal;
use super::session::{self, Session};
use super::{Origin, Target, fields};
use crate::hosts::Hosts;
use crate::reply::Failure;
use crate::snapshot::{RuleChain, Served, Snapshot};

/// Where a request or a connection goes.
pub(super) enum Way<'s> {
    Mesh(Resolved<'s>),
    /// Outside, as an ExternalService says.
    External(Box<WayOut<'s>>),
    /// Outside, to whatever was named.
    Outside,
}

/// Where a request goes.
pub(super) fn resolve<'s>(
    snapshot: &'s Snapshot,
    hosts: &Hosts,
    from: &Served,
    origin: &Origin,
    head: &RequestHead,
) -> Result<Way<'s>, Failure> {
    let authority = head.authority.as_ref();
    let asked = authority.map(|authority| Authority { host: authority.host(), port: authority.port_u16() });
    let meant = origin.target.as_ref().map_or(Meant::Nothing, Target::meant);
    let named = || match (authority, &origin.target) {
        (Some(authority), _) => authority.to_string(),
        (None, target) => target.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    let is_local = |name: &str| hosts.contains(name);
    way(resolver(snapshot, from, &is_local).resolve(meant, asked), named)
}

/// Where a connection to this target goes.
pub(super) fn resolve_target<'s>(
    snapshot: &'s Snapshot,
    hosts: &Hosts,
    from: &Served,
    target: &Target,
) -> Result<Way<'s>, Failure> {
    let is_local = |name: &str| hosts.contains(name);
    way(resolver(snapshot, from, &is_local).connection(target.meant()), || target.to_string())
}

fn resolver<'a, 's: 'a>(
    snapshot: &'s Snapshot,
    from: &'a Served,
    is_local: &'a dyn Fn(&str) -> bool,
) -> Resolver<'a, 's> {
    let from_namespace = &from.workload.name.namespace;
    Resolver { table: &snapshot.routes, mesh: &snapshot.mesh, from_namespace, is_local }
}

fn way(resolution: Resolution<'_>, named: impl FnOnce() -> String) -> Result<Way<'_>, Failure> {
    match resolution {
        Resolution::Mesh(resolved) => Ok(Way::Mesh(resolved)),
        Resolution::External(way) => Ok(Way::External(Box::new(way))),
        Resolution::Outside => Ok(Way::Outside),
        // What this proxy doesn't hold yet is never taken for something outside.
        Resolution::Unknown(ask) => Err(Failure::NotHeld { ask: Box::new(ask), why: "it has not been asked for" }),
        Resolution::Refused(refusal) => Err(Failure::Egress { to: named(), refusal }),
    }
}

/// Routing decision for one request, made once for all its attempts.
pub(super) struct Plan<'s> {
    pub(super) goal: Goal<'s>,
    pub(super) route: Option<&'s Route>,
    /// `None`: its rule keeps no sessions.
    pub(super) session: Option<Session>,
    plan: route::Plan<'s>,
}

impl Plan<'_> {
    /// Makes the rule's changes on what the filters left; every attempt sends what this leaves.
    ///
    /// # Errors
    /// What the rule puts there is no target of a request.
    pub(super) fn modify(&self, head: &mut RequestHead) -> Result<(), Failure> {
        let unfit = || {
            let route = self.route.map(|route| route.name.clone()).unwrap_or_else(|| self.goal.service.name.clone());
            refused(route::RouteRefusal::Rewrite { route })
        };
        if let Some(path) = &self.plan.path {
            head.path = Some(WireTarget::from_shared(path.as_bytes().clone()).map_err(|_| unfit())?);
        }
        if let Some(host) = self.plan.host {
            head.authority = Some(host.parse().map_err(|_| unfit())?);
        }
        self.plan.modify(&mut head.headers);
        Ok(())
    }

    /// Of an exchange whose answer is a stream.
    pub(super) fn stream_timeout(&self) -> Option<Duration> {
        self.plan.stream_timeout()
    }

    /// Of the whole exchange, and of each attempt.
    pub(super) fn timeouts(&self) -> (Option<Duration>, Option<Duration>) {
        (self.plan.timeout, self.plan.attempt_timeout)
    }

    /// What is sent again although somebody may have acted on it.
    pub(super) fn retry(&self) -> Option<&Retry> {
        self.plan.retry
    }

    /// The filters of a caller for the rule that was met, and its name.
    ///
    /// # Errors
    /// One that the rule can't do without is not ready.
    pub(super) fn filters<'f>(&self, from: &'f Served) -> Result<Option<(&'f Chain, String)>, Failure> {
        let Some(route) = self.route else { return Ok(None) };
        let chain = match from.rules.of_rule(route, self.plan.rule_index) {
            Some(RuleChain::Runs(chain)) => chain,
            Some(RuleChain::Closed(filter)) => return Err(Failure::RuleClosed { filter: filter.clone() }),
            None => return Ok(None),
        };
        let rule = route.rules.get(self.plan.rule_index).and_then(|rule| rule.name.as_deref());
        let number = || self.plan.rule_index.to_string();
        let name = format!("{}/{}", RouteName::of(&route.name).place(), rule.map_or_else(number, str::to_owned));
        Ok(Some((chain, name)))
    }

    /// The decision that it was made of.
    pub(super) fn decided(&self) -> &route::Plan<'_> {
        &self.plan
    }

    /// Out of the mesh, by this way.
    pub(super) fn exit(&self) -> Option<&WayOut<'_>> {
        self.plan.exit.as_ref()
    }

    /// The rule's changes of the answer.
    pub(super) fn answer_edits(&self) -> AnswerEdits {
        self.plan.answer_edits()
    }
}

/// `way`: of a request to an ExternalService. `now`: in seconds since 1970.
pub(super) fn route<'s>(
    snapshot: &'s Snapshot,
    from: &Served,
    (to, way): (&Resolved<'s>, Option<&WayOut<'s>>),
    (head, path): (&RequestHead, Option<&NormalPath>),
    (dice, clock): (u64, fn() -> u64),
) -> Result<Plan<'s>, Failure> {
    let path = path.ok_or(Failure::BadRequest("a request without a path".into()))?;
    let headers = |name: &str| head.headers.get(name).map(fields::text);
    let (first, last) =
        (|name: &str| fields::first(&head.headers, name), |name: &str| fields::last(&head.headers, name));
    let readings: [Fields<'_>; 2] = [&first, &last];
    let others = if fields::has_readings(&head.headers) { &readings[..] } else { &[] };
    let host = head.authority.as_ref().map(|authority| authority.host());
    let view = HeadView { method: head.method.as_str(), path, host, headers: &headers, others };
    let from_namespace = &from.workload.name.namespace;
    // Few requests belong to a session.
    let now = LazyCell::new(clock);
    let kept = |persistence: &Persistence, rule: &RouteRule| session::kept(persistence, rule, &head.headers, *now);
    let (table, mesh) = (&snapshot.routes, &snapshot.mesh);
    let plan = match way {
        Some(way) => route::plan_outside(table, way, from_namespace, &view, dice, mesh),
        None => route::plan_kept(table, to, from_namespace, &view, (dice, kept), mesh),
    };
    let plan = plan.map_err(refused)?;
    let session = plan.persistence.map(|persistence| {
        let (KeptTarget::Of(port) | KeptTarget::Number(port)) = plan.target.keep();
        let backend = session::backend_mark(&plan.service.name, port, plan.exit.is_some());
        Session::new(persistence, backend, &head.headers, *now)
    });
    Ok(Plan { goal: goal_of(&plan), route: plan.route, session, plan })
}

/// True where a port without a declared protocol takes HTTP only: for what is attached to it, or for a filter of the caller
/// that judges requests and would be passed by bytes.
pub(super) fn is_http_only(to: &Resolved<'_>, from: &Served) -> bool {
    to.opaque_refused() || to.protocol() == Protocol::Auto && from.outbound.needs_http()
}

/// The kind of the routes that decide about a caller's connections to a port. `None`: no route is attached.
pub(super) fn stream_kind(snapshot: &Snapshot, from: &Served, to: &Resolved<'_>) -> Option<RouteKind> {
    route::stream_kind(&snapshot.routes, to, &from.workload.name.namespace)
}

/// The way of a connection whose bytes are not looked into, beyond its first ones.
pub(super) fn stream_plan<'s>(
    snapshot: &'s Snapshot,
    from: &Served,
    to: &Resolved<'s>,
    hello: Hello<'_>,
    dice: u64,
) -> Result<route::Plan<'s>, Failure> {
    route::plan_stream(&snapshot.routes, to, &from.workload.name.namespace, hello, dice).map_err(refused)
}

/// Destination of a connection to the service itself.
pub(super) fn goal<'s>(to: &Resolved<'s>) -> Result<Goal<'s>, Failure> {
    route::plan_connection(to).map(|plan| goal_of(&plan)).map_err(refused)
}

pub(super) fn goal_of<'s>(plan: &route::Plan<'s>) -> Goal<'s> {
    Goal { service: plan.service, target: plan.target, direct: plan.direct, outside: plan.exit.is_some() }
}

fn refused(refusal: route::RouteRefusal) -> Failure {
    Failure::Route(Box::new(refusal))
}
