//! The filters of one workload that run for certain rules of routes alone, once a request has taken one. Invariant: no request
//! takes a rule without a filter that it can't do without, but where it did so before and the rule leads nowhere new.

use std::collections::BTreeMap;

use weft_filter_host::Chain;
use weft_policy::bundle::{Bundle, Direction, ObjectName, Route, RouteAction, RouteRule, ServedWorkload};

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
        let is_new = |callee: &ObjectName| holds(now, callee) && !holds(self.bundle, callee);
        if !is_same || callees(&route.rules[index]).any(is_new) {
            return None;
        }
        let ran = self.chains.0.get(&route.name).and_then(|rules| rules.get(&index));
        Some(ran.cloned().unwrap_or_else(|| RuleChain::Runs(Chain::default())))
    }
}

fn holds(bundle: &Bundle, callee: &ObjectName) -> bool {
    bundle.services.contains_key(callee) || bundle.externals.contains_key(callee)
}

/// Everybody to whom a rule sends requests, or copies of them.
fn callees(rule: &RouteRule) -> impl Iterator<Item = &ObjectName> {
    let of_backends = rule.backends.iter().filter_map(|backend| backend.service.as_ref());
    let actions = rule.actions.iter().chain(rule.backends.iter().flat_map(|backend| &backend.actions));
    let mirrored = actions.filter_map(|action| match action {
        RouteAction::Mirror(mirror) => mirror.service.as_ref(),
        RouteAction::Redirect(_)
        | RouteAction::Cors(_)
        | RouteAction::RequestHeaders(_)
        | RouteAction::ResponseHeaders(_)
        | RouteAction::Rewrite(_)
        | RouteAction::RequestTimeoutMs(_)
        | RouteAction::AttemptTimeoutMs(_)
        | RouteAction::Retry(_)
        | RouteAction::Persistence(_) => None,
    });
    of_backends.chain(mirrored)
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
