//! Filters that run for certain rules of routes alone: two rules that have not the same ones treat requests differently.

use std::collections::BTreeMap;

use super::MetRule;
use crate::bundle::{AttachedRule, Bundle, Direction, FilterMode, ObjectName, RouteKind, RouteName};

/// By the route in the bundle and the place of the rule in it: the names of its filters, in order. Only rules that have one
/// are there. A filter that holds for some workloads of this proxy counts for all of them; one that is audited does not.
#[derive(Debug, Default)]
pub(super) struct RuleFilters(BTreeMap<ObjectName, BTreeMap<usize, Vec<String>>>);

impl RuleFilters {
    pub(super) fn of(bundle: &Bundle) -> Self {
        let mut attached: BTreeMap<(RouteKind, ObjectName), Vec<(&str, &AttachedRule)>> = BTreeMap::new();
        for (name, filter) in &bundle.filters {
            if filter.direction == Direction::Outbound && filter.mode == FilterMode::Enforce {
                for rule in &filter.rules {
                    attached.entry((rule.kind, rule.route.clone())).or_default().push((name.as_str(), rule));
                }
            }
        }
        let mut found = BTreeMap::<_, BTreeMap<_, Vec<_>>>::new();
        if attached.is_empty() {
            return Self(found);
        }
        for (name, route) in &bundle.routes {
            let Some(filters) = attached.get(&(route.kind, RouteName::of(name).object())) else { continue };
            for index in 0..route.rules.len() {
                let mut own: Vec<String> =
                    filters.iter().filter(|(_, rule)| rule.is_of(route, index)).map(|it| it.0.to_owned()).collect();
                // A filter may name a rule and the whole route.
                own.dedup();
                if !own.is_empty() {
                    found.entry(name.clone()).or_default().insert(index, own);
                }
            }
        }
        Self(found)
    }

    /// True where the same filters run for both.
    pub(super) fn are_alike(&self, one: &MetRule<'_>, other: &MetRule<'_>) -> bool {
        self.0.is_empty() || self.of_rule(one) == self.of_rule(other)
    }

    fn of_rule(&self, met: &MetRule<'_>) -> Option<&Vec<String>> {
        self.0.get(&met.route.name)?.get(&met.index)
    }
}
