//! The filters of one workload that run for certain rules of routes alone, once a request has taken one.

use std::collections::BTreeMap;

use weft_filter_host::Chain;
use weft_policy::bundle::{Direction, ObjectName, Route, ServedWorkload};

use super::SnapshotError;
use super::stages::{Stage, holds_for};

/// Chains by the name of a route in the bundle, and by the place of a rule in it. Only rules that have one are there.
#[derive(Debug, Default)]
pub struct RuleChains(BTreeMap<ObjectName, BTreeMap<usize, Chain>>);

impl RuleChains {
    /// # Errors
    /// A filter that a request can't do without is not ready.
    pub(super) fn of(stage: &Stage<'_>, workload: &ServedWorkload) -> Result<Self, SnapshotError> {
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
                let chain = stage.rule_chain(runs)?;
                if !chain.is_empty() {
                    chains.entry(name.clone()).or_default().insert(index, chain);
                }
            }
        }
        Ok(Self(chains))
    }

    /// The chain of the rule at this place of a route.
    pub fn of_rule(&self, route: &Route, rule_index: usize) -> Option<&Chain> {
        self.0.get(&route.name)?.get(&rule_index)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Chain> {
        self.0.values().flat_map(BTreeMap::values)
    }
}
