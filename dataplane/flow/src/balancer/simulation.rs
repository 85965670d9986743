//! A service under steady load whose endpoints die and come back: the balancer with the retries and probes of a proxy
//! around it, on a clock of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::Named;
use super::*;

const ALL: [&str; 3] = ["a", "b", "c"];
/// 200 requests per second, answered within 5 ms, sent to another endpoint at most twice.
const PAUSE: Duration = Duration::from_millis(5);
const ANSWER: Duration = Duration::from_millis(5);
const RETRIES: usize = 2;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

enum Event {
    Arrival,
    /// A request was answered, or found that nobody answers.
    Tried(Request, &'static str),
    Probed(&'static str),
    /// From now on these are dead.
    Dead(BTreeSet<&'static str>),
}

struct Request {
    sent: Duration,
    avoid: Vec<&'static str>,
}

/// A request as its sender saw it.
struct Ended {
    sent: Duration,
    retries: usize,
    by: Option<&'static str>,
}

struct World {
    balancer: Named,
    now: Duration,
    dice: u64,
    dead: BTreeSet<&'static str>,
    /// How long it takes to find that somebody is dead.
    dial: Duration,
    events: BTreeMap<(Duration, u64), Event>,
    serial: u64,
    ended: Vec<Ended>,
    /// Probes under way, and the most that ever were, by endpoint.
    probes: BTreeMap<&'static str, (u32, u32)>,
}

/// Runs a script of who is dead from when on.
fn run(dial: Duration, script: &[(f64, &[&'static str])], until: f64) -> World {
    let mut balancer = Named::default();
    balancer.update(ALL.map(|key| (key, 1)));
    let mut world = World {
        balancer,
        now: Duration::ZERO,
        dice: 11,
        dead: BTreeSet::new(),
        dial,
        events: BTreeMap::new(),
        serial: 0,
        ended: Vec::new(),
        probes: BTreeMap::new(),
    };
    world.after(Duration::ZERO, Event::Arrival);
    for (at, dead) in script {
        world.after(seconds(*at), Event::Dead(dead.iter().copied().collect()));
    }
    while let Some(((at, _), event)) = world.events.pop_first()
        && at < seconds(until)
    {
        world.now = at;
        world.handle(event);
    }
    world
}

impl World {
    fn after(&mut self, wait: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((self.now + wait, self.serial), event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Dead(dead) => self.dead = dead,
            Event::Arrival => {
                self.after(PAUSE, Event::Arrival);
                self.attempt(Request { sent: self.now, avoid: Vec::new() });
            }
            Event::Tried(request, key) => self.tried(request, key),
            Event::Probed(key) => {
                self.probes.get_mut(key).unwrap().0 -= 1;
                let probed = if self.dead.contains(key) { Probed::Unreachable } else { Probed::Reached };
                self.balancer.probed(key, self.now, next_dice(&mut self.dice), probed);
            }
        }
    }

    fn attempt(&mut self, request: Request) {
        if let Some(key) = self.balancer.take_probe(self.now) {
            let (under_way, most) = self.probes.entry(key).or_default();
            *under_way += 1;
            *most = (*most).max(*under_way);
            let wait = if self.dead.contains(key) { self.dial } else { Duration::ZERO };
            self.after(wait, Event::Probed(key));
        }
        let key = self.balancer.pick(self.now, next_dice(&mut self.dice), &request.avoid).unwrap();
        self.balancer.started(key);
        if self.dead.contains(key) {
            return self.after(self.dial, Event::Tried(request, key));
        }
        self.balancer.reached(key, self.now);
        self.after(ANSWER, Event::Tried(request, key));
    }

    fn tried(&mut self, mut request: Request, key: &'static str) {
        let dead = self.dead.contains(key);
        let outcome = if dead { Outcome::Failure } else { Outcome::Success };
        self.balancer.finished(key, self.now, if dead { self.dial } else { ANSWER }, outcome);
        if dead {
            self.balancer.not_reached(key, self.now, next_dice(&mut self.dice));
        }
        if !dead || request.avoid.len() == RETRIES {
            let by = (!dead).then_some(key);
            return self.ended.push(Ended { sent: request.sent, retries: request.avoid.len(), by });
        }
        request.avoid.push(key);
        self.attempt(request);
    }

    /// Of the requests sent from `from` to `to`: how many failed, were sent again, were answered by each.
    fn between(&self, from: f64, to: f64) -> (usize, usize, BTreeMap<&'static str, usize>) {
        let sent = |ended: &&Ended| ended.sent >= seconds(from) && ended.sent < seconds(to);
        let ended: Vec<_> = self.ended.iter().filter(sent).collect();
        let mut by = BTreeMap::new();
        ended.iter().filter_map(|ended| ended.by).for_each(|key| *by.entry(key).or_default() += 1);
        (ended.len() - by.values().sum::<usize>(), ended.iter().filter(|ended| ended.retries > 0).count(), by)
    }

    fn first_answer(&self, by: &str, after: f64) -> f64 {
        let mut ended = self.ended.iter().filter(|ended| ended.sent >= seconds(after));
        ended.find(|ended| ended.by == Some(by)).map_or(f64::INFINITY, |ended| ended.sent.as_secs_f64() - after)
    }
}

#[test]
fn the_dead_cost_nothing_once_they_are_known() {
    let world = run(seconds(2.0), &[(5.0, &["a"]), (6.0, &["a", "b"])], 100.0);
    let (failed, retried, by) = world.between(5.0, 8.0);
    assert_eq!(failed, 0, "who waited is sent elsewhere");
    assert!(retried > 0, "the first find out: {by:?}");
    let (failed, retried, by) = world.between(8.0 + 0.1, 90.0);
    assert_eq!((failed, retried), (0, 0), "{by:?}");
    assert!(by.len() == 1 && by["c"] > 16_000, "{by:?}");
}

#[test]
fn who_comes_back_is_drawn_within_one_wait() {
    fn check(outage: f64, within: f64) {
        let back = 5.0 + outage;
        let world = run(seconds(2.0), &[(5.0, &["a", "b"]), (back, &["b"])], back + within + 15.0);
        let found = world.first_answer("a", back);
        assert!(found <= within, "dead for {outage} s, found after {found} s, not {within}");
        let known = 8.0_f64.max(back + found);
        let (failed, retried, by) = world.between(known, known + 10.0);
        assert_eq!((failed, retried), (0, 0), "{by:?}");
        assert!(by["a"].abs_diff(1_000) < 300, "it takes its part at once: {by:?}");
    }
    check(0.5, 2.0);
    check(2.5, 2.0);
    check(10.0, 8.0);
    check(60.0, 32.0);
    check(600.0, 32.0);
}

#[test]
fn while_all_are_dead_all_are_tried() {
    let world = run(seconds(2.0), &[(5.0, &ALL), (300.0, &["b", "c"])], 400.0);
    let (failed, _, by) = world.between(10.0, 290.0);
    assert!(failed == 56_000 && by.is_empty(), "{failed} {by:?}");
    assert!(world.first_answer("a", 300.0) < 0.5, "no probe is waited for");
    let (failed, _, by) = world.between(300.0, 390.0);
    assert_eq!((failed, by.len()), (0, 1), "{by:?}");
    let (_, retried, by) = world.between(303.0, 390.0);
    assert_eq!(retried, 0, "{by:?}");
}

#[test]
fn what_kept_all_away_is_over_for_all() {
    let world = run(seconds(2.0), &[(5.0, &ALL), (300.0, &[])], 310.0);
    for key in ALL {
        let found = world.first_answer(key, 300.0);
        assert!(found < 2.5, "{key} waited {found} s for the probe that was due before");
    }
}

#[test]
fn a_slow_probe_attracts_no_other() {
    let world = run(seconds(20.0), &[(5.0, &["a", "b"])], 400.0);
    assert_eq!(world.probes.values().map(|(_, most)| *most).collect::<Vec<_>>(), [1, 1]);
    let world = run(seconds(0.0), &[(5.0, &["a"])], 400.0);
    assert_eq!(world.probes.keys().collect::<Vec<_>>(), [&"a"]);
}
