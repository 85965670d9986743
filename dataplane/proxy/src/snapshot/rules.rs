//! The filters of one workload that run for certain rules of routes alone, once a request has taken one. Invariant: no request
//! takes a rule without a filter that it can't do without, but where it did so before and the rule leads nowhere new.

use std::collections::BTreeMap;

use weft_filter_host::Chain;
use weft_policy::bundle::{Bundle, Direction, ObjectName, Route, RouteRule, ServedWorkload};
use weft_policy::route::mirrors;

use super::SnapshotError;
use super::stages::{Stage, holds_for};

/// What judges the requests that take a rule.
#[derive(Debug, Clone)]
pub enum RuleChain {
    Runs(Chain),
    /// It can't do without this attachment, which is not ready: nobody may take the rule.
    Closed(String),
}

/// Chains by the name of a route in the bundle, and by the place of a rule in it. Only rules that have one are there.
#[derive(Debug, Default)]
pub struct RuleChains(BTreeMap<ObjectName, BTreeMap<usize, RuleChain>>);

/// Rules as they ran in the snapshot before.
pub(super) struct Earlier<'e> {
    pub(super) chains: &'e RuleChains,
    pub(super) bundle: &'e Bundle,
}

impl Earlier<'_> {
    /// What ran for a rule that goes on as it was while a filter of it is made ready. `None`: the rule is new, is another, or
    /// leads to somebody who was not there.
    fn stands_in(&self, now: &Bundle, route: &Route, index: usize) -> Option<RuleChain> {
        let is_same = self.bundle.routes.get(&route.name) == Some(route);
        let is_new = |callee: (&ObjectName, bool)| holds(now, callee) && !holds(self.bundle, callee);
        if !is_same || callees(&route.rules[index]).any(is_new) {
            return None;
        }
        let ran = self.chains.0.get(&route.name).and_then(|rules| rules.get(&index));
        Some(ran.cloned().unwrap_or_else(|| RuleChain::Runs(Chain::default())))
    }
}

fn holds(bundle: &Bundle, (callee, outside): (&ObjectName, bool)) -> bool {
    if outside { bundle.externals.contains_key(callee) } else { bundle.services.contains_key(callee) }
}

/// Everybody to whom a rule sends requests, or copies of them; true with those that are ExternalServices, which may have the
/// names of services.
fn callees(rule: &RouteRule) -> impl Iterator<Item = (&ObjectName, bool)> {
    let of_backends = rule.backends.iter().filter_map(|backend| Some((backend.service.as_ref()?, backend.outside)));
    let of_rule = mirrors(&rule.actions);
    let copies = of_rule.chain(rule.backends.iter().flat_map(|backend| mirrors(&backend.actions)));
    of_backends.chain(copies.filter_map(|mirror| Some((mirror.service.as_ref()?, false))))
}

impl RuleChains {
    /// # Errors
    /// A filter that a request can't do without is not ready, and nobody awaits it.
    pub(super) fn of(
        stage: &Stage<'_>,
        workload: &ServedWorkload,
        earlier: Option<&Earlier<'_>>,
    ) -> Result<Self, SnapshotError> {
        let attached: Vec<_> = stage
            .bundle
            .filters
            .values()
            .filter(|filter| filter.direction == Direction::Outbound && !filter.rules.is_empty())
            .filter(|filter| holds_for(filter, workload))
            .collect();
        let mut chains = BTreeMap::<_, BTreeMap<_, _>>::new();
        if attached.is_empty() {
            return Ok(Self(chains));
        }
        for (name, route) in &stage.bundle.routes {
            for index in 0..route.rules.len() {
                let runs = attached.iter().copied().filter(|it| it.rules.iter().any(|rule| rule.is_of(route, index)));
                let mut chain = stage.rule_chain(runs)?;
                if let RuleChain::Closed(_) = &chain
                    && let Some(ran) = earlier.and_then(|earlier| earlier.stands_in(stage.bundle, route, index))
                {
                    chain = ran;
                }
                if !matches!(&chain, RuleChain::Runs(chain) if chain.is_empty()) {
                    chains.entry(name.clone()).or_default().insert(index, chain);
                }
            }
        }
        Ok(Self(chains))
    }

    /// What judges requests that take the rule at this place of a route.
    pub fn of_rule(&self, route: &Route, rule_index: usize) -> Option<&RuleChain> {
        self.0.get(&route.name)?.get(&rule_index)
    }

    /// All chains that run.
    pub fn all(&self) -> impl Iterator<Item = &Chain> {
        self.0.values().flat_map(BTreeMap::values).filter_map(|chain| match chain {
            RuleChain::Runs(chain) => Some(chain),
            RuleChain::Closed(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::{Backend, External, Revision, RouteKind, Service};

    use super::*;

    /// To a service that was there, and to an ExternalService of its name that was not.
    #[test]
    fn a_rule_leads_to_somebody_new_who_has_the_name_of_another() {
        let name = ObjectName::new("shop", "pay");
        let service = Service {
            name: name.clone(),
            ports: Vec::new(),
            vip: None,
            path_reading: Default::default(),
            traffic: None,
            spread: None,
            endpoints: Default::default(),
        };
        let external = External {
            name: name.clone(),
            mesh_wide: false,
            created: Revision(1),
            hosts: Vec::new(),
            ports: Vec::new(),
            endpoints: Vec::new(),
            tls: None,
            traffic: None,
        };
        let before = Bundle { services: [(name.clone(), service)].into(), ..Bundle::default() };
        let now = Bundle { externals: [(name.clone(), external)].into(), ..before.clone() };
        for (outside, goes_on) in [(false, true), (true, false)] {
            let backend = Backend { service: Some(name.clone()), outside, port: 80, weight: 1, actions: Vec::new() };
            let rule = RouteRule { name: None, matches: Vec::new(), actions: Vec::new(), backends: vec![backend] };
            let route = Route {
                name: ObjectName::new("shop", "r"),
                kind: RouteKind::Http,
                parent: ObjectName::new("shop", "web"),
                outside: false,
                parent_port: None,
                consumer_namespace: None,
                hostnames: Vec::new(),
                created: Revision(1),
                rules: vec![rule],
            };
            let routes = [(route.name.clone(), route.clone())].into();
            let earlier = Earlier { chains: &RuleChains::default(), bundle: &Bundle { routes, ..before.clone() } };
            assert_eq!(earlier.stands_in(&now, &route, 0).is_some(), goes_on, "outside: {outside}");
        }
    }
}
