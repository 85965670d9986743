//! Ejection beside a plain reference that keeps everything that ever happened and counts anew each time.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::Named;
use super::*;

const OUTLIERS: Outliers = Outliers {
    server_errors: 3,
    gateway_errors: 2,
    local_failures: 2,
    interval: seconds(10),
    ejection: seconds(30),
    longest: seconds(100),
    most_percent: 50,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ejecting(outliers: Outliers, names: &[&'static str]) -> Named {
    let mut named = Named::by(Algorithm::PeakEwma);
    named.settings.outliers = Some(outliers);
    named.update(names.iter().map(|name| (*name, 1)));
    named
}

/// Ends a request that began just before.
fn end(named: &mut Named, name: &str, now: u64, sign: Sign) -> bool {
    named.ended(name, seconds(now), seconds(now), 0, sign)
}

/// Endpoints that a hundred requests get.
fn picked(named: &Named, now: u64) -> BTreeSet<&'static str> {
    (0..100).filter_map(|dice: u64| named.pick(seconds(now), dice << 57, &[])).collect()
}

#[test]
fn who_fails_in_a_row_is_ejected() {
    fn check(signs: &[(u64, Sign)], expect: bool) {
        let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
        let ejected = signs.iter().filter(|(at, sign)| end(&mut named, "a", *at, *sign)).count();
        assert_eq!((ejected, named.ejected()), (usize::from(expect), usize::from(expect)), "{signs:?}");
        assert_eq!(picked(&named, 20).contains("a"), !expect);
    }
    use Sign::{GatewayError, Good, LocalFailure, Nothing, ServerError};
    check(&[(1, ServerError), (1, ServerError)], false);
    check(&[(1, ServerError), (1, Nothing), (1, ServerError), (2, ServerError)], true);
    check(&[(1, ServerError), (1, GatewayError), (2, ServerError)], true);
    check(&[(1, GatewayError), (1, GatewayError)], true);
    check(&[(1, GatewayError), (1, ServerError), (1, GatewayError)], true);
    check(&[(1, ServerError), (1, ServerError), (1, Good), (1, ServerError), (1, ServerError)], false);
    check(&[(1, LocalFailure), (2, LocalFailure)], true);
    check(&[(1, LocalFailure), (2, ServerError), (3, LocalFailure)], false);
    check(&[(1, ServerError), (2, ServerError), (13, ServerError)], false);
    check(&[(1, ServerError), (11, ServerError), (21, ServerError)], true);
}

#[test]
fn one_real_request_tries_whether_it_is_well_again() {
    let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
    (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
    // What was under way says nothing.
    named.ended("a", seconds(1), seconds(2), 0, Sign::Good);
    named.ended("a", seconds(1), seconds(2), 0, Sign::LocalFailure);
    assert!(!picked(&named, 30).contains("a"), "out for 30 s");
    let trials = |named: &Named, now: u64| {
        (0..100).filter(|dice: &u64| named.pick(seconds(now), dice << 57, &[]) == Some("a")).count()
    };
    assert_eq!(named.pick(seconds(31), 1, &["b"]), Some("c"), "a second attempt is no trial");
    assert_eq!(trials(&named, 31), 1);
    assert_eq!(trials(&named, 60), 0, "while one is under way there is no other");
    assert_eq!(trials(&named, 61), 1, "unless it takes as long as the ejection");
    named.ended("a", seconds(61), seconds(62), 0, Sign::Nothing);
    assert_eq!(trials(&named, 62), 1, "one that told nothing is made again");
    assert!(!named.ended("a", seconds(62), seconds(63), 0, Sign::ServerError), "it was out");
    assert_eq!((trials(&named, 122), trials(&named, 123)), (0, 1), "twice as long");
    named.ended("a", seconds(123), seconds(124), 0, Sign::ServerError);
    assert_eq!((trials(&named, 223), trials(&named, 224)), (0, 1), "and 100 s at the most");
    named.ended("a", seconds(224), seconds(225), 0, Sign::Good);
    assert_eq!((named.ejected(), picked(&named, 225).len()), (0, 3));
    // It served for less than it was out: it goes on where it was.
    (0..2).for_each(|_| _ = end(&mut named, "a", 300, Sign::LocalFailure));
    assert_eq!((trials(&named, 399), trials(&named, 400)), (0, 1));
    named.ended("a", seconds(400), seconds(401), 0, Sign::Good);
    (0..2).for_each(|_| _ = end(&mut named, "a", 600, Sign::LocalFailure));
    assert_eq!((trials(&named, 629), trials(&named, 630)), (0, 1), "it begins anew");
}

/// It refuses a connection, also that of its trial, and is reached again: it is out for as long as it would have been.
#[test]
fn an_ejection_goes_on_where_a_connection_is_refused() {
    let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
    let trials = |named: &Named, now: u64| {
        (0..100).filter(|dice: &u64| named.pick(seconds(now), dice << 57, &[]) == Some("a")).count()
    };
    (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
    named.not_reached("a", seconds(5), 0);
    assert_eq!((named.ejected(), named.unreachable(), trials(&named, 6)), (0, 1, 0));
    named.reached("a", seconds(7));
    assert_eq!((named.ejected(), named.unreachable(), trials(&named, 30), trials(&named, 31)), (1, 0, 0, 1));
    // Its trial is not connected: it says nothing, and is made again as soon as that is possible.
    named.not_reached("a", seconds(32), 0);
    named.ended("a", seconds(31), seconds(32), 0, Sign::Nothing);
    assert_eq!(trials(&named, 33), 0);
    named.reached("a", seconds(33));
    assert_eq!(trials(&named, 33), 1);
    named.ended("a", seconds(33), seconds(34), 0, Sign::ServerError);
    assert_eq!((trials(&named, 93), trials(&named, 94)), (0, 1), "and the next lasts twice as long");
    named.ended("a", seconds(94), seconds(95), 0, Sign::Good);
    // Back for 5 s, then away for long: it has not served for as long as it was out.
    named.not_reached("a", seconds(100), 0);
    named.reached("a", seconds(500));
    assert!(!end(&mut named, "a", 500, Sign::LocalFailure) && end(&mut named, "a", 500, Sign::LocalFailure));
    assert_eq!((trials(&named, 599), trials(&named, 600)), (0, 1), "100 s");
}

/// The policy was wrong, and is corrected: whom it ejected is back, and nothing of it is counted on.
#[test]
fn another_policy_judges_anew() {
    let wrong = Outliers { server_errors: 1, ejection: seconds(1_000), longest: seconds(10_000), ..OUTLIERS };
    let mut named = ejecting(wrong, &["a", "b", "c"]);
    assert!(end(&mut named, "a", 1, Sign::ServerError));
    end(&mut named, "b", 1, Sign::LocalFailure);
    named.update([("a", 2), ("b", 1), ("c", 1)]);
    assert_eq!(named.ejected(), 1, "another weight changes nothing");
    named.settings.outliers = Some(OUTLIERS);
    named.update(["a", "b", "c"].map(|name| (name, 1)));
    assert_eq!((named.ejected(), picked(&named, 2).len()), (0, 3));
    assert!(!end(&mut named, "b", 2, Sign::LocalFailure), "its row begins anew");
    end(&mut named, "b", 2, Sign::Good);
    (0..3).for_each(|_| _ = end(&mut named, "a", 3, Sign::ServerError));
    assert_eq!((picked(&named, 32).contains("a"), picked(&named, 33).contains("a")), (false, true), "30 s, not 2,000");
}

#[test]
fn so_many_are_out_and_never_the_only_one() {
    fn out(percent: u32, count: usize) -> usize {
        let names = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"][..count];
        let mut named = ejecting(Outliers { most_percent: percent, ..OUTLIERS }, names);
        for name in names {
            (0..3).for_each(|_| _ = end(&mut named, name, 1, Sign::LocalFailure));
        }
        assert_eq!(picked(&named, 2).len(), if named.ejected() == count { count } else { count - named.ejected() });
        named.ejected()
    }
    assert_eq!([out(0, 10), out(10, 10), out(50, 10), out(100, 10)], [1, 1, 5, 10]);
    assert_eq!([out(10, 2), out(50, 3), out(100, 2), out(100, 1)], [1, 1, 2, 0]);
    let mut named = ejecting(OUTLIERS, &["a", "b", "c", "d"]);
    named.not_reached("a", seconds(1), 0);
    named.not_reached("b", seconds(1), 0);
    (0..3).for_each(|_| _ = end(&mut named, "c", 1, Sign::LocalFailure));
    assert_eq!(named.ejected(), 0, "those that can't be reached count");
    named.not_reached("c", seconds(1), 0);
    named.not_reached("d", seconds(1), 0);
    assert_eq!(picked(&named, 2).len(), 4, "where all are out all are tried");
}

#[test]
fn a_drained_endpoint_takes_no_trial() {
    let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
    (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
    named.update([("a", 0), ("b", 1), ("c", 1)]);
    assert_eq!((named.ejected(), picked(&named, 90)), (0, ["b", "c"].into()));
    named.update([("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!((named.ejected(), picked(&named, 90).len()), (1, 3), "one of them is the trial");
}

#[test]
fn who_has_left_is_not_ejected() {
    let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
    named.update(["b", "c"].map(|name| (name, 1)));
    assert!(!(0..9).any(|_| end(&mut named, "a", 1, Sign::LocalFailure)));
    assert_eq!(named.ejected(), 0);
    assert!((0..9).any(|_| end(&mut named, "b", 1, Sign::LocalFailure)));
}

#[test]
fn of_those_who_are_out_the_reachable_are_tried_first() {
    let mut named = ejecting(Outliers { most_percent: 100, ..OUTLIERS }, &["a", "b"]);
    (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
    named.not_reached("b", seconds(1), 0);
    assert_eq!(picked(&named, 2), ["a"].into());
    named.reached("b", seconds(3));
    assert_eq!(picked(&named, 3), ["b"].into(), "a connection to it makes nobody well");
    named.reached("a", seconds(3));
    assert_eq!(named.ejected(), 1);
}

#[test]
fn a_key_tries_its_own_endpoint_only() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let mut named = Named::by(algorithm);
        named.settings.outliers = Some(OUTLIERS);
        named.update(["a", "b", "c"].map(|name| (name, 1)));
        let at = |named: &Named, key: u64, now: u64| {
            named.pick_for(Some(crate::hash(&key.to_be_bytes())), seconds(now), 1, &[])
        };
        let homes: Vec<_> = (0..50).map(|key| at(&named, key, 1)).collect();
        (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
        for (key, home) in (0..50).zip(&homes) {
            let now = at(&named, key, 2);
            assert!(if *home == Some("a") { now != Some("a") } else { now == *home });
        }
        let trials: Vec<_> = (0..50).filter(|key| at(&named, *key, 40) == Some("a")).collect();
        let first = homes.iter().position(|home| *home == Some("a")).unwrap() as u64;
        assert_eq!(trials, [first], "{algorithm:?}: the first of its own keys");
    }
}

#[test]
fn switched_off_nobody_is_out() {
    let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
    (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
    assert_eq!(named.ejected(), 1);
    named.settings.outliers = None;
    named.update(["a", "b", "c"].map(|name| (name, 1)));
    assert_eq!((named.ejected(), picked(&named, 2).len()), (0, 3));
    assert!(!(0..100).any(|_| end(&mut named, "a", 3, Sign::LocalFailure)), "by default nothing is counted");
}

/// What a plain reference knows of an endpoint: all that happened since it was last made or let in.
#[derive(Debug, Clone, Default)]
struct Plain {
    ended: Vec<(u64, Sign)>,
    /// Out since, until, and whether a trial is under way.
    out: Option<(u64, u64, bool)>,
    /// How long it was out last, and when it came back.
    was_out: Option<(u64, u64)>,
}

impl Plain {
    /// Counts from the newest backwards.
    fn row(&self, of: &[Sign]) -> usize {
        let mut later = None;
        let ended = self.ended.iter().rev().filter(|(_, sign)| *sign != Sign::Nothing);
        ended
            .take_while(|(at, sign)| {
                let near = later.replace(*at).is_none_or(|later| later - at <= 10);
                near && of.contains(sign)
            })
            .count()
    }

    fn is_over(&self) -> bool {
        self.row(&[Sign::ServerError, Sign::GatewayError]) >= 3
            || self.row(&[Sign::GatewayError]) >= 2
            || self.row(&[Sign::LocalFailure]) >= 2
    }

    fn eject(&mut self, now: u64) {
        let known = self.was_out.filter(|(last, back)| now - back <= *last);
        let last = known.map_or(30, |(last, _)| (last * 2).min(100));
        (self.was_out, self.out) = (Some((last, now)), Some((now, now + last, false)));
        self.ended.clear();
    }
}

/// Requests that are sent, end well or badly, now or later: who is out is what the reference says, after each step.
#[test]
fn agrees_with_a_plain_reference() {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    const SIGNS: [Sign; 5] = [Sign::Good, Sign::ServerError, Sign::GatewayError, Sign::LocalFailure, Sign::Nothing];
    for seed in 0..1_000 {
        let (mut dice, mut now) = (seed, 0);
        let mut roll = |bound: u64| below(next_dice(&mut dice), bound);
        let mut named = ejecting(OUTLIERS, &NAMES);
        let mut model: BTreeMap<_, _> = NAMES.map(|name| (name, Plain::default())).into();
        for _ in 0..200 {
            now += [0, 0, 1, 3, 12, 40][usize::try_from(roll(6)).unwrap()];
            let out = |model: &BTreeMap<&str, Plain>| model.values().filter(|plain| plain.out.is_some()).count();
            if roll(3) > 0 {
                // A request that was sent so long ago ends, more often badly.
                let name = NAMES[usize::try_from(roll(5)).unwrap()];
                let sign = SIGNS[usize::try_from(roll(9)).unwrap() % 5];
                let sent = now - roll(4).min(now);
                let may_eject = out(&model) == 0 || (out(&model) + 1) * 2 <= NAMES.len();
                let plain = model.get_mut(name).unwrap();
                let mut is_ejected = false;
                match plain.out {
                    None => {
                        plain.ended.push((now, sign));
                        is_ejected = !matches!(sign, Sign::Good | Sign::Nothing) && plain.is_over() && may_eject;
                        if is_ejected {
                            plain.eject(now);
                        }
                    }
                    Some((since, ..)) if sent <= since => {}
                    Some(_) if sign == Sign::Good => {
                        plain.out = None;
                        plain.was_out = plain.was_out.map(|(last, _)| (last, now));
                    }
                    Some((since, _, true)) if sign == Sign::Nothing => plain.out = Some((since, now, false)),
                    Some((_, _, true)) => {
                        // It never came back between.
                        plain.was_out = plain.was_out.map(|(last, _)| (last, now));
                        plain.eject(now);
                    }
                    Some((_, _, false)) => {}
                }
                assert_eq!(
                    named.ended(name, seconds(sent), seconds(now), 0, sign),
                    is_ejected,
                    "seed {seed} at {now}: {sign:?} of {name}, {model:#?}"
                );
            } else {
                let picked = named.pick(seconds(now), roll(u64::MAX), &[]).unwrap();
                let due = NAMES.iter().find(|name| model[*name].out.is_some_and(|(_, until, _)| until <= now));
                match due {
                    Some(due) => {
                        assert_eq!(picked, *due, "seed {seed} at {now}: {model:#?}");
                        let plain = model.get_mut(due).unwrap();
                        let last = plain.was_out.unwrap().0;
                        plain.out = plain.out.map(|(since, ..)| (since, now + last, true));
                    }
                    None => assert!(model[picked].out.is_none(), "seed {seed} at {now}: {picked} of {model:#?}"),
                }
            }
            assert_eq!(named.ejected(), out(&model), "seed {seed} at {now}: {model:#?}");
        }
    }
}
