//! The filters of a caller, which its requests pass before they go anywhere.

use std::collections::BTreeMap;

use super::{Explanation, stand_in, workloads_of};
use crate::bundle::{Direction, FilterAttachment, FilterMode};
use crate::identity::SpiffeId;
use crate::plan::{World, filters_for};

/// The filters of a caller's workloads.
pub(super) fn filters(world: &World, caller: &SpiffeId) -> BTreeMap<String, FilterAttachment> {
    let own = workloads_of(world, caller.namespace(), caller.service_account());
    let served: Vec<_> = own.map(|workload| workload.name()).collect();
    filters_for(world, &served)
}

/// Tells which filters of the caller's workloads a request passes, of whose answers nothing is told here.
pub(super) fn note(world: &World, explanation: &Explanation) -> Option<String> {
    let (namespace, account) = (explanation.principal.namespace(), explanation.principal.service_account());
    let runs = |filter: &&FilterAttachment| {
        filter.direction == Direction::Outbound && (filter.rules.is_empty() || meets(filter, explanation))
    };
    let filters = filters(world, &explanation.principal);
    let mut filters: Vec<_> = filters.values().filter(runs).collect();
    // Those of a rule run once it was chosen.
    filters.sort_by_key(|filter| (!filter.rules.is_empty(), filter.order, &filter.name));
    let told = |filter: &FilterAttachment| match filter.mode {
        FilterMode::Enforce if stand_in::of(filter).is_some() => format!("{} (refuses everything)", filter.name),
        FilterMode::Enforce => filter.name.clone(),
        FilterMode::Audit => format!("{} (audit)", filter.name),
    };
    let told: Vec<_> = filters.into_iter().map(told).collect();
    let of = format!("what {namespace}/{account} sends passes its outbound filters first, which are not asked here");
    (!told.is_empty()).then(|| format!("{of}: {}", told.join(", ")))
}

/// True where a filter runs for the rule that the request takes.
fn meets(filter: &FilterAttachment, explanation: &Explanation) -> bool {
    let Some(route) = &explanation.route else { return false };
    let name = route.name.split_once('#').map_or(&*route.name, |(name, _)| name);
    filter.rules.iter().any(|it| {
        let is_of_rule = it.rule.is_none() || it.rule == route.rule_name;
        it.kind.as_str() == route.kind && it.route.to_string() == name && is_of_rule
    })
}
