//! The routes of one service, compiled: which rule a request meets. Tables that follow one another share what is the same.

use std::collections::BTreeMap;

use super::action::RuleActions;
use super::index::PathTree;
use super::matching::{Candidate, Read, layer};
use super::mirror::RuleMirrors;
use super::pattern::Patterns;
use super::stream::Streams;
use super::{HeadView, METHODS, MetRule, QueryReading, RouteDecision};
use crate::bundle::{Route, RouteKind};

/// Routes with one parent.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) routes: Vec<CompiledRoute>,
    /// In order of precedence: the first that holds decides.
    candidates: Vec<Candidate>,
    /// Where in this order to look, by layer.
    groups: Vec<(Scope, PathTree)>,
    /// Any candidate looks at the query.
    pub(super) by_query: bool,
    /// The same of header fields, and of the method.
    pub(super) by_field: bool,
    pub(super) by_method: bool,
    /// The same for connections whose bytes are not looked into.
    pub(super) streams: Streams,
}

/// A route, with the actions and the mirrors of each of its rules.
#[derive(Debug)]
pub(super) struct CompiledRoute {
    pub(super) route: Route,
    pub(super) rules: Vec<(RuleActions, RuleMirrors)>,
}

/// The requests for which routes hold at all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Scope {
    layer: (bool, RouteKind),
    port: Option<u16>,
    consumer_namespace: Option<String>,
}

impl CompiledRoute {
    fn of(route: &Route) -> Self {
        let rules = route.rules.iter().map(|rule| (RuleActions::of(rule), RuleMirrors::of(rule)));
        Self { route: route.clone(), rules: rules.collect() }
    }
}

impl Scope {
    fn of(route: &Route) -> Self {
        let consumer_namespace = route.consumer_namespace.clone();
        Self { layer: layer(route), port: route.parent_port, consumer_namespace }
    }

    fn holds(&self, port: u16, from_namespace: &str) -> bool {
        is_for((self.port, self.consumer_namespace.as_deref()), port, from_namespace)
    }
}

/// Says whether a route with these bounds (port, namespace of the callers) holds for a port and a caller.
fn is_for((only, consumers): (Option<u16>, Option<&str>), port: u16, from_namespace: &str) -> bool {
    only.is_none_or(|only| only == port) && consumers.is_none_or(|consumers| consumers == from_namespace)
}

impl CompiledRoute {
    /// As [`Scope::holds`], without one.
    pub(super) fn is_for(&self, port: u16, from_namespace: &str) -> bool {
        is_for((self.route.parent_port, self.route.consumer_namespace.as_deref()), port, from_namespace)
    }
}

impl Routed {
    pub(super) fn of(routes: &[&Route], patterns: &mut Patterns) -> Self {
        let (of_bytes, of_requests): (Vec<_>, Vec<_>) =
            routes.iter().copied().enumerate().partition(|(_, route)| route.kind.is_of_bytes());
        let all = of_requests.into_iter().flat_map(|(number, route)| Candidate::all(number, route, patterns));
        let mut candidates: Vec<Candidate> = all.collect();
        candidates.sort_by_cached_key(|candidate| candidate.precedence(routes[candidate.route]));
        let mut scopes: BTreeMap<Scope, Vec<usize>> = BTreeMap::new();
        for (rank, candidate) in candidates.iter().enumerate() {
            scopes.entry(Scope::of(routes[candidate.route])).or_default().push(rank);
        }
        let tree = |ranks: Vec<usize>| PathTree::of(ranks.into_iter().map(|rank| (rank, candidates[rank].place())));
        Self {
            groups: scopes.into_iter().map(|(scope, ranks)| (scope, tree(ranks))).collect(),
            routes: routes.iter().map(|route| CompiledRoute::of(route)).collect(),
            by_query: candidates.iter().any(Candidate::looks_at_query),
            by_field: candidates.iter().any(Candidate::looks_at_fields),
            by_method: candidates.iter().any(Candidate::looks_at_method),
            candidates,
            streams: Streams::of(&of_bytes),
        }
    }

    /// True where it was made of the same.
    pub(super) fn is_of(&self, routes: &[&Route]) -> bool {
        self.routes.iter().map(|compiled| &compiled.route).eq(routes.iter().copied())
    }

    /// The first match in order of precedence among the routes that hold for this caller and port. Routes of the
    /// caller's own namespace on somebody else's service (consumer routes) come instead of the service's own, and GRPCRoutes
    /// instead of HTTPRoutes.
    pub(super) fn decide(&self, port: u16, from_namespace: &str, read: &Read<'_, '_>) -> RouteDecision<'_> {
        let (mut attached, mut first) = (None, None);
        for (scope, paths) in &self.groups {
            if attached.is_some_and(|known| known != scope.layer) {
                break;
            }
            if scope.holds(port, from_namespace) {
                attached = Some(scope.layer);
                first = paths.first(read.path, first, |rank| self.candidates[rank].holds(read)).or(first);
            }
        }
        self.decision(attached.is_some(), first)
    }

    /// How else servers may read the method and the fields, where rules of these routes look at them.
    pub(super) fn head_readings<'h>(&self, head: &HeadView<'h>) -> Vec<HeadView<'h>> {
        let fields = head.others.iter().filter(|_| self.by_field);
        let mut heads: Vec<_> = fields.map(|fields| HeadView { headers: *fields, ..*head }).collect();
        if let Some(method) = self.by_method.then(|| folded(head.method)).flatten() {
            let also: Vec<_> = std::iter::once(head).chain(&heads).map(|head| HeadView { method, ..*head }).collect();
            heads.extend(also);
        }
        heads
    }

    /// How else the query may be read that rules of these routes look at.
    pub(super) fn query_readings(&self, head: &HeadView<'_>) -> Vec<QueryReading> {
        head.path.query().filter(|_| self.by_query).map(QueryReading::others).unwrap_or_default()
    }

    /// True where routes of requests hold for this caller and port.
    pub(super) fn has_requests(&self, port: u16, from_namespace: &str) -> bool {
        self.groups.iter().any(|(scope, _)| scope.holds(port, from_namespace))
    }

    fn decision(&self, is_attached: bool, first: Option<usize>) -> RouteDecision<'_> {
        let Some(candidate) = first.map(|rank| &self.candidates[rank]) else {
            return if is_attached { RouteDecision::NoMatch } else { RouteDecision::Default };
        };
        let CompiledRoute { route, rules } = &self.routes[candidate.route];
        let (index, rule) = (candidate.rule, &route.rules[candidate.rule]);
        let (actions, mirrors) = &rules[index];
        RouteDecision::Rule(MetRule { route, index, rule, actions, mirrors })
    }

    /// The same by asking one candidate after the other: the model of the index.
    #[cfg(test)]
    pub(super) fn decide_in_turn(&self, port: u16, from_namespace: &str, read: &Read<'_, '_>) -> RouteDecision<'_> {
        let mut attached = None;
        for (rank, candidate) in self.candidates.iter().enumerate() {
            let scope = Scope::of(&self.routes[candidate.route].route);
            if attached.is_some_and(|known| known != scope.layer) {
                break;
            }
            if !scope.holds(port, from_namespace) {
                continue;
            }
            attached = Some(scope.layer);
            if candidate.holds(read) {
                return self.decision(true, Some(rank));
            }
        }
        self.decision(attached.is_some(), None)
    }
}

/// The method that servers which fold its letters take another for.
fn folded(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| known.eq_ignore_ascii_case(method)).filter(|known| *known != method)
}
