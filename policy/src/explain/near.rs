//! Which endpoints of a service come first for a caller, or how much each place gets, in words. Where a caller is, its
//! workloads say; an account may have some in several places.

use std::collections::{BTreeMap, BTreeSet};

use super::workloads_of;
use crate::bundle::{Locality, Nearness, Place, Service, Spread};
use crate::identity::SpiffeId;
use crate::plan::{World, effective};

/// `None`: all are as near to everybody.
pub(super) fn near_first(world: &World, principal: &SpiffeId, service: &Service) -> Option<String> {
    let spread = service.spread.as_deref().filter(|it| it.locality.is_some() || !it.shares.is_empty())?;
    let by = effective(world, &service.name).into_iter().find(|it| it.setting == "loadBalancing.locality")?;
    let own = workloads_of(world, principal.namespace(), principal.service_account());
    let places: BTreeMap<String, Place<'_>> = own
        .map(|workload| Place::of(&workload.metadata.labels))
        .filter(|place| !place.is_unknown())
        .map(|place| (place.to_string(), place))
        .collect();
    let order = match places.len() {
        0 if spread.locality.is_none() => {
            "shares of places, and this caller does not say where it is: all are as near".to_owned()
        }
        0 => "near endpoints first, and this caller does not say where it is: all are as near".to_owned(),
        _ => places.into_values().map(|place| turns(spread, place, service)).collect::<Vec<_>>().join("; "),
    };
    let by = by.by.map(|source| format!(", as {}", source.says())).unwrap_or_default();
    Some(format!("{order}{by}"))
}

/// How a caller at this place turns to the endpoints.
fn turns(spread: &Spread, caller: Place<'_>, service: &Service) -> String {
    match (&spread.locality, spread.shares_of(caller)) {
        (Some(locality), _) => order(locality, caller, service),
        (None, Some(shares)) => shares.to_string(),
        (None, None) => format!("from {caller} to all alike"),
    }
}

/// Endpoints in the order in which a caller at this place turns to them.
fn order(locality: &Locality, caller: Place<'_>, service: &Service) -> String {
    let near = |labels| locality.nearness(caller, Place::of(labels));
    let found: BTreeSet<(Nearness, &str)> =
        service.endpoints.values().map(|endpoint| (near(&endpoint.labels), endpoint.workload.name.as_str())).collect();
    let mut steps: Vec<(Nearness, Vec<&str>)> = Vec::new();
    for (nearness, name) in found {
        match steps.last_mut().filter(|(last, _)| *last == nearness) {
            Some((_, names)) => names.push(name),
            None => steps.push((nearness, vec![name])),
        }
    }
    let steps = steps.into_iter().map(|(nearness, names)| format!("{} ({})", nearness.as_str(), shown(&names)));
    format!("from {caller} first {}", steps.collect::<Vec<_>>().join(", then "))
}

/// A few names, and how many more there are.
fn shown(names: &[&str]) -> String {
    const MOST: usize = 5;
    let some = names.iter().take(MOST).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}
