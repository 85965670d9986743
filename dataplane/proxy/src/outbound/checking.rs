//! Checks of the health of endpoints, for services whose TrafficPolicy asks for them and that this proxy sends something to.
//! The first worker makes them for all, so that an endpoint is asked once by each proxy; a check is a task of its own that no
//! request waits for. What its results mean is `weft_flow`'s decision, who is asked `watched`'s, and how `ask`'s.

mod ask;
mod watched;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use weft_policy::bundle::ObjectName;

use self::ask::{Ask, Found};
use self::watched::{Due, Place, Watched, in_turn};
use crate::snapshot::Current;
use crate::telemetry::counters::Limited;
use crate::worker::Worker;

/// A service is checked until nothing was sent to it for so long.
const USED: Duration = Duration::from_secs(600);

/// How often it is looked for services that are used and for those that are not any more, at the least, and how long is left
/// between two looks for what is due.
const LOOK: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(10);

/// Checks what is to be checked, until the process ends.
pub async fn run(worker: &Rc<Worker>) {
    let checker = Rc::new(Checker {
        worker: Rc::clone(worker),
        services: RefCell::default(),
        under_way: RefCell::default(),
        numbers: Cell::new(0),
        wakes_at: Cell::new(Duration::ZERO),
        is_sooner: Notify::new(),
    });
    let mut swapped = worker.shared.swapped.subscribe();
    loop {
        let wait = checker.round();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = checker.is_sooner.notified() => {}
            () = worker.shared.checks.begun() => {}
            changed = swapped.changed() => if changed.is_err() { return },
            () = worker.shared.drain.quitting() => return,
        }
    }
}

struct Checker {
    worker: Rc<Worker>,
    services: RefCell<BTreeMap<ObjectName, Watched>>,
    /// Checks, by the namespace of their service.
    under_way: RefCell<BTreeMap<String, usize>>,
    /// Numbers of endpoints: one that left and came back is another.
    numbers: Cell<u64>,
    wakes_at: Cell<Duration>,
    /// A check is due sooner than it was looked for.
    is_sooner: Notify,
}

impl Checker {
    /// Follows the configuration and starts what is due. Gives the time until the next round.
    fn round(self: &Rc<Self>) -> Duration {
        let now = self.worker.now();
        if let Some(snapshot) = self.worker.snapshot() {
            self.follow(&snapshot, now);
            self.start_due(&snapshot, now);
        }
        let services = self.services.borrow();
        let due = services.values().filter_map(Watched::next).min();
        let next = due.map_or(LOOK, |due| due.saturating_sub(now)).clamp(REST, LOOK);
        // Where nothing is checked there is nothing to look for until something begins.
        let wait = if services.is_empty() { Duration::from_secs(3_600) } else { next };
        self.wakes_at.set(now.saturating_add(wait));
        wait
    }

    fn follow(&self, snapshot: &Current, now: Duration) {
        let mut services = self.services.borrow_mut();
        let all = self.worker.shared.checks.all();
        let names: BTreeSet<&ObjectName> = all.iter().map(|(name, _)| name).collect();
        services.retain(|name, _| names.contains(name));
        for (name, findings) in &all {
            let service = snapshot.bundle.services.get(name);
            let check = service.and_then(|service| service.traffic.as_ref()?.health_check.as_ref());
            let Some((service, check)) = service.zip(check) else {
                services.remove(name);
                findings.retain(|_| false);
                continue;
            };
            let watched = services.entry(name.clone()).or_insert_with(|| Watched::new(check, now));
            if findings.take_use() {
                watched.used_at = now;
            }
            if now.saturating_sub(watched.used_at) > USED {
                watched.rest();
            } else {
                let mut number = || self.numbers.replace(self.numbers.get() + 1);
                watched.follow(snapshot.generation, service, check, (now, &mut || self.worker.dice(), &mut number));
            }
            findings.retain(|workload| watched.is_unwell(workload));
        }
    }

    /// Starts the checks that are due, as many as may be under way, the namespaces by turns.
    fn start_due(self: &Rc<Self>, snapshot: &Current, now: Duration) {
        let most = self.worker.shared.config.limits.health_checks;
        let mut services = self.services.borrow_mut();
        let due: Vec<Due> =
            services.iter().flat_map(|(name, watched)| watched.due(name, now).collect::<Vec<_>>()).collect();
        let due = in_turn(due, &self.under_way.borrow());
        for due in due {
            if self.under_way.borrow().values().sum::<usize>() >= most {
                Limited::HealthChecks.hit();
                return;
            }
            let Some(watched) = services.get_mut(&due.place.service) else { continue };
            let Some((endpoint, port, check)) = watched.take(&due.place, now) else { continue };
            let ask = Ask::new(&self.worker, snapshot, (&due.place.service, endpoint, port), check);
            *self.under_way.borrow_mut().entry(due.place.service.namespace.clone()).or_default() += 1;
            let check = Check { checker: Rc::clone(self), place: due.place, found: Found::given_up() };
            // A drain does not wait for it: it ends within the time that it has.
            tokio::task::spawn_local(check.run(ask));
        }
    }

    /// One of the checks of a namespace is over.
    fn left(&self, namespace: &str) {
        let mut under_way = self.under_way.borrow_mut();
        if let Some(count) = under_way.get_mut(namespace) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(namespace);
            }
        }
    }

    /// Takes in what came of a check.
    fn ended(&self, place: &Place, found: &Found) {
        self.left(&place.service.namespace);
        found.count();
        let (now, dice) = (self.worker.now(), self.worker.dice());
        let mut services = self.services.borrow_mut();
        // Who left meanwhile is asked no more.
        let Some(watched) = services.get_mut(&place.service) else { return };
        let Some(told) = watched.ended(place, found, now, dice) else { return };
        let Place { service, workload, .. } = place;
        if told.is_refused {
            // It says nothing of the endpoint, which goes on as it was: somebody has to be told.
            tracing::warn!(%service, endpoint = %workload, why = found.why(), "its health can't be checked");
        }
        if let Some(is_unhealthy) = told.changes_to {
            self.worker.shared.checks.of(service).set(workload, is_unhealthy);
            let said = if is_unhealthy { "its checks fail: it is left out" } else { "its checks pass: it is back" };
            tracing::info!(%service, endpoint = %workload, why = found.why(), "{said}");
        }
        // Not where the next look comes soon anyway: with many that are due there would be one for each result.
        let soonest = now.saturating_add(REST);
        if watched.next().is_some_and(|due| due.max(soonest) < self.wakes_at.get()) {
            self.is_sooner.notify_one();
        }
    }
}

/// One check under way. Tells what came of it, even if it never ran to its end.
struct Check {
    checker: Rc<Checker>,
    place: Place,
    found: Found,
}

impl Check {
    async fn run(mut self, ask: Ask) {
        let worker = Rc::clone(&self.checker.worker);
        let answer = tokio::time::timeout(ask.timeout(), Box::pin(ask.run(&worker))).await;
        self.found = answer.unwrap_or_else(|_| Found::late(ask.timeout()));
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.checker.ended(&self.place, &self.found);
    }
}
