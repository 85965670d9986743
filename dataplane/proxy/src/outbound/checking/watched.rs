//! The endpoints of one service that are checked: who they are, what is held of each and when each is asked next. Knows no
//! worker and asks nobody.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use weft_flow::{Health, Rounds, Thresholds};
use weft_policy::bundle::{Endpoint, HealthCheck, ObjectName, Service};

use super::ask::Found;
use crate::destination::is_same;

/// One endpoint as it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) service: ObjectName,
    pub(super) workload: ObjectName,
    pub(super) number: u64,
}

/// A check that is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) since: Duration,
    pub(super) place: Place,
}

/// Puts checks that are due in the order in which they begin: each turn is one of every namespace, those that have none
/// under way first, so that no namespace keeps the others waiting however many endpoints it has; within a turn the
/// longest due first.
pub(super) fn in_turn(mut due: Vec<Due>, under_way: &BTreeMap<String, usize>) -> Vec<Due> {
    due.sort_by_key(|due| due.since);
    let mut turns = under_way.clone();
    let mut placed: Vec<(usize, Due)> = Vec::with_capacity(due.len());
    for due in due {
        let turn = turns.entry(due.place.service.namespace.clone()).or_default();
        placed.push((*turn, due));
        *turn += 1;
    }
    placed.sort_by_key(|(turn, _)| *turn);
    placed.into_iter().map(|(_, due)| due).collect()
}

/// What a result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// It is held to be unhealthy from now on, or to be well again.
    pub(super) changes_to: Option<bool>,
    /// The check was refused, and the one before it was not.
    pub(super) is_refused: bool,
}

#[derive(Debug)]
pub(super) struct Watched {
    check: HealthCheck,
    pub(super) used_at: Duration,
    /// Of the snapshot that this follows; 0: of none.
    generation: u64,
    endpoints: BTreeMap<ObjectName, Watch>,
}

#[derive(Debug)]
struct Watch {
    endpoint: Endpoint,
    port: u16,
    number: u64,
    health: Health,
    rounds: Rounds,
    is_refused: bool,
}

impl Watched {
    pub(super) fn new(check: &HealthCheck, now: Duration) -> Self {
        Self { check: check.clone(), used_at: now, generation: 0, endpoints: BTreeMap::new() }
    }

    /// Nobody uses the service: nobody is asked, and what was held is forgotten.
    pub(super) fn rest(&mut self) {
        self.generation = 0;
        self.endpoints.clear();
    }

    /// Takes in a newer snapshot: who left is asked no more, who came is asked soon. Another question is asked of all anew;
    /// other times and thresholds leave what is held as it is.
    pub(super) fn follow(
        &mut self,
        generation: u64,
        service: &Service,
        check: &HealthCheck,
        (now, dice, number): (Duration, &mut dyn FnMut() -> u64, &mut dyn FnMut() -> u64),
    ) {
        if self.generation == generation {
            return;
        }
        self.generation = generation;
        let before = std::mem::replace(&mut self.check, check.clone());
        if (&before.probe, before.port) != (&check.probe, check.port) {
            self.endpoints.clear();
        }
        let interval = Duration::from_millis(check.interval_ms);
        let asked = check.port_of(&service.ports).filter(|port| check.misfit(port.protocol).is_none());
        let target = |workload: &ObjectName| asked.and_then(|port| port.target_of(workload));
        self.endpoints.retain(|workload, watch| {
            let now = service.endpoints.get(workload);
            now.is_some_and(|now| is_same(&watch.endpoint, now)) && target(workload) == Some(watch.port)
        });
        if before.interval_ms != check.interval_ms {
            let waiting = self.endpoints.values_mut().filter(|watch| watch.rounds.due().is_some());
            waiting.for_each(|watch| watch.rounds = Rounds::begin(now, interval, dice()));
        }
        for (workload, endpoint) in &service.endpoints {
            let Some(port) = target(workload) else { continue };
            self.endpoints.entry(workload.clone()).or_insert_with(|| Watch {
                endpoint: endpoint.clone(),
                port,
                number: number(),
                health: Health::default(),
                rounds: Rounds::begin(now, interval, dice()),
                is_refused: false,
            });
        }
    }

    pub(super) fn is_unwell(&self, workload: &ObjectName) -> bool {
        self.endpoints.get(workload).is_some_and(|watch| watch.health.is_unwell())
    }

    /// When the next check is due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.endpoints.values().filter_map(|watch| watch.rounds.due()).min()
    }

    /// The checks that are due.
    pub(super) fn due(&self, service: &ObjectName, now: Duration) -> impl Iterator<Item = Due> {
        self.endpoints.iter().filter_map(move |(workload, watch)| {
            let since = watch.rounds.due().filter(|due| *due <= now)?;
            let (service, workload) = (service.clone(), workload.clone());
            Some(Due { since, place: Place { service, workload, number: watch.number } })
        })
    }

    /// Takes the check of an endpoint; [`Watched::ended`] must follow. Gives the endpoint, its port and what is asked.
    pub(super) fn take(&mut self, place: &Place, now: Duration) -> Option<(&Endpoint, u16, &HealthCheck)> {
        let Self { check, endpoints, .. } = self;
        let watch = endpoints.get_mut(&place.workload).filter(|watch| watch.number == place.number)?;
        watch.rounds.take(now).then_some((&watch.endpoint, watch.port, &*check))
    }

    /// A check is over. `None`: its endpoint is checked no more.
    pub(super) fn ended(&mut self, place: &Place, found: &Found, now: Duration, dice: u64) -> Option<Told> {
        let watch = self.endpoints.get_mut(&place.workload).filter(|watch| watch.number == place.number)?;
        watch.rounds.ended(now, Duration::from_millis(self.check.interval_ms), dice);
        let thresholds = Thresholds { unhealthy: self.check.unhealthy, healthy: self.check.healthy };
        let changes = watch.health.note(thresholds, found.checked());
        let was_refused = std::mem::replace(&mut watch.is_refused, found.is_refused());
        Some(Told {
            changes_to: changes.then(|| watch.health.is_unwell()),
            is_refused: watch.is_refused && !was_refused,
        })
    }
}
