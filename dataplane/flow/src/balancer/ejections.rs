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
    success_rate: None,
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
    use Sign::{GatewayError, Good, LocalFailure, Nothing, Opened, ServerError};
    check(&[(1, ServerError), (1, ServerError)], false);
    check(&[(1, ServerError), (1, Nothing), (1, ServerError), (2, ServerError)], true);
    check(&[(1, ServerError), (1, GatewayError), (2, ServerError)], true);
    check(&[(1, GatewayError), (1, GatewayError)], true);
    check(&[(1, GatewayError), (1, ServerError), (1, GatewayError)], true);
    check(&[(1, ServerError), (1, ServerError), (1, Good), (1, ServerError), (1, ServerError)], false);
    check(&[(1, LocalFailure), (2, LocalFailure)], true);
    check(&[(1, LocalFailure), (2, ServerError), (3, LocalFailure)], false);
    // What was not answered is no answer: it ends no row of them.
    check(&[(1, ServerError), (1, LocalFailure), (1, ServerError), (1, ServerError)], true);
    check(&[(1, ServerError), (1, ServerError), (1, ServerError)], true);
    // A connection that is opened says nothing of answers.
    check(&[(1, ServerError), (1, ServerError), (1, Opened), (1, ServerError)], true);
    check(&[(1, GatewayError), (1, Opened), (1, GatewayError)], true);
    check(&[(1, LocalFailure), (1, Opened), (1, LocalFailure)], false);
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
    named.ended("a", seconds(62), seconds(63), 0, Sign::Late);
    assert_eq!((trials(&named, 91), trials(&named, 92)), (0, 1), "one whose caller did not wait, in its time only");
    assert!(!named.ended("a", seconds(92), seconds(93), 0, Sign::ServerError), "it was out");
    assert_eq!((trials(&named, 152), trials(&named, 153)), (0, 1), "twice as long");
    named.ended("a", seconds(153), seconds(154), 0, Sign::ServerError);
    assert_eq!((trials(&named, 253), trials(&named, 254)), (0, 1), "and 100 s at the most");
    named.ended("a", seconds(254), seconds(255), 0, Sign::Good);
    assert_eq!((named.ejected(), picked(&named, 255).len()), (0, 3));
    // It served for less than it was out: it goes on where it was.
    (0..2).for_each(|_| _ = end(&mut named, "a", 300, Sign::LocalFailure));
    assert_eq!((trials(&named, 399), trials(&named, 400)), (0, 1));
    named.ended("a", seconds(400), seconds(401), 0, Sign::Good);
    (0..2).for_each(|_| _ = end(&mut named, "a", 600, Sign::LocalFailure));
    assert_eq!((trials(&named, 629), trials(&named, 630)), (0, 1), "it begins anew");
}

/// A crowd of callers that ejected it together does not come back together.
#[test]
fn an_ejection_lasts_between_a_half_and_the_whole_of_its_time() {
    fn check(dice: u64, expect: u64) {
        let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
        (0..2).for_each(|_| _ = named.ended("a", seconds(1), seconds(1), dice, Sign::LocalFailure));
        let is_tried = |now: &u64| (0..100_u64).any(|throw| named.pick(seconds(*now), throw << 57, &[]) == Some("a"));
        assert_eq!((1..60).find(is_tried), Some(expect), "{dice}");
    }
    check(0, 31);
    check(1 << 63, 24);
    check(u64::MAX, 17);
}

/// Requests to one port fail while connections to another are opened: who ejected it says what lets it in.
#[test]
fn a_connection_lets_in_only_whom_missing_answers_ejected() {
    let connection = Wanted { purpose: Purpose::Connection, key: None };
    let takes_trial = |named: &Named, now: u64| {
        (0..50_u64).any(|dice| named.pick_wanted(connection, seconds(now), dice << 58, &[]) == Some("a"))
    };
    let mut named = ejecting(OUTLIERS, &["a", "b", "c"]);
    (0..2).for_each(|_| _ = end(&mut named, "a", 1, Sign::LocalFailure));
    assert!(!takes_trial(&named, 30) && takes_trial(&named, 31));
    named.ended("a", seconds(31), seconds(32), 0, Sign::Opened);
    assert_eq!(named.ejected(), 0);

    (0..3).for_each(|_| _ = end(&mut named, "b", 100, Sign::ServerError));
    let connection_to_b = |named: &Named, now: u64| {
        (0..50_u64).any(|dice| named.pick_wanted(connection, seconds(now), dice << 58, &[]) == Some("b"))
    };
    assert!(!connection_to_b(&named, 159), "its trial is due since 130, for a request");
    named.ended("b", seconds(140), seconds(141), 0, Sign::Opened);
    assert_eq!(named.ejected(), 1);
    assert_eq!(named.pick(seconds(142), 1, &[]), Some("b"), "and was taken from none");
    named.ended("b", seconds(142), seconds(143), 0, Sign::ServerError);
    // Nobody but connections comes for as long as it was out, 60 s now: there may be no requests any more.
    assert!(!connection_to_b(&named, 262) && connection_to_b(&named, 263));
    named.ended("b", seconds(263), seconds(264), 0, Sign::Opened);
    assert_eq!(named.ejected(), 0);
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
    out: Option<PlainOut>,
    /// How long it was out last, and when it came back.
    was_out: Option<(u64, u64)>,
    /// No connection can be made to it since.
    lost: Option<u64>,
}

/// Out of rotation because it failed.
#[derive(Debug, Clone, Copy)]
struct PlainOut {
    since: u64,
    until: u64,
    trying: bool,
    by_answers: bool,
}

impl Plain {
    /// Counts from the newest backwards, those of `of` until one of `until` comes.
    fn row(&self, of: &[Sign], until: &[Sign]) -> usize {
        let (mut later, mut count) = (None, 0);
        let failures = [Sign::ServerError, Sign::GatewayError, Sign::LocalFailure];
        for (at, sign) in self.ended.iter().rev() {
            if failures.contains(sign) {
                if later.replace(*at).is_some_and(|later: u64| later - at > 10) {
                    break;
                }
                count += usize::from(of.contains(sign));
            }
            if *sign == Sign::Good || until.contains(sign) {
                break;
            }
        }
        count
    }

    /// The row of the last failure is long enough.
    fn is_over(&self, last: Sign) -> bool {
        use Sign::{GatewayError, LocalFailure, Opened, ServerError};
        match last {
            LocalFailure => self.row(&[LocalFailure], &[Opened, ServerError, GatewayError]) >= 2,
            ServerError => self.row(&[ServerError, GatewayError], &[]) >= 3,
            GatewayError => {
                self.row(&[ServerError, GatewayError], &[]) >= 3 || self.row(&[GatewayError], &[ServerError]) >= 2
            }
            Sign::Good | Opened | Sign::Late | Sign::Nothing => false,
        }
    }

    fn eject(&mut self, now: u64, by: Sign) {
        let known = self.was_out.filter(|(last, back)| now - back <= *last);
        let last = known.map_or(30, |(last, _)| (last * 2).min(100));
        let by_answers = by != Sign::LocalFailure;
        self.out = Some(PlainOut { since: now, until: now + last, trying: false, by_answers });
        self.was_out = Some((last, now));
        self.ended.clear();
    }

    fn let_in(&mut self, now: u64) {
        self.out = None;
        self.was_out = self.was_out.map(|(last, _)| (last, now));
    }

    fn is_for_connections(&self, out: PlainOut, at: u64) -> bool {
        !out.by_answers || at >= out.since + 2 * self.was_out.unwrap().0
    }

    /// A request that was sent at `sent` ends so. True where it is ejected by that.
    fn end(&mut self, sent: u64, now: u64, sign: Sign, may_eject: bool) -> bool {
        let is_failure = !matches!(sign, Sign::Good | Sign::Opened | Sign::Late | Sign::Nothing);
        let Some(out) = self.out else {
            if self.lost.is_some() {
                return false;
            }
            self.ended.push((now, sign));
            let is_ejected = is_failure && self.is_over(sign) && may_eject;
            if is_ejected {
                self.eject(now, sign);
            }
            return is_ejected;
        };
        if sent <= out.since {
            return false;
        }
        if sign == Sign::Good || sign == Sign::Opened && self.is_for_connections(out, sent) {
            self.let_in(now);
        } else if out.trying && sign == Sign::Nothing {
            self.out = Some(PlainOut { until: now, trying: false, ..out });
        } else if out.trying && sign == Sign::Late {
            self.out = Some(PlainOut { trying: false, ..out });
        } else if out.trying && is_failure {
            // It never came back between.
            self.was_out = self.was_out.map(|(last, _)| (last, now));
            self.eject(now, sign);
        }
        false
    }

    fn is_due(&self, now: u64, purpose: Purpose) -> bool {
        let Some(out) = self.out.filter(|out| out.until <= now && self.lost.is_none()) else { return false };
        match purpose {
            Purpose::Request => true,
            Purpose::Connection => self.is_for_connections(out, now),
            Purpose::Reach => false,
        }
    }

    /// A connection to it is made again.
    fn found(&mut self, now: u64) {
        let Some(lost) = self.lost.take() else { return };
        self.ended.clear();
        if self.out.is_none() {
            // It did not serve while it was away.
            self.was_out = self.was_out.map(|(last, back)| (last, back + now - lost));
        }
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

type Model = BTreeMap<&'static str, Plain>;

/// Requests and connections that are sent, end well or badly, now or later, endpoints that are lost and found: who is out is
/// what the reference says, after each step.
#[test]
fn agrees_with_a_plain_reference() {
    for seed in 0..1_000 {
        let (mut dice, mut now) = (seed, 0);
        let mut roll = |bound: u64| below(next_dice(&mut dice), bound);
        let mut named = ejecting(OUTLIERS, &NAMES);
        let mut model: Model = NAMES.map(|name| (name, Plain::default())).into();
        for _ in 0..200 {
            now += [0, 0, 1, 3, 12, 40][usize::try_from(roll(6)).unwrap()];
            let name = NAMES[usize::try_from(roll(5)).unwrap()];
            match roll(12) {
                0..=6 => step_end(&mut named, &mut model, (name, now, seed), &mut roll),
                7..=10 => step_pick(&named, &mut model, (now, seed), &mut roll),
                _ if roll(2) == 0 => {
                    named.not_reached(name, seconds(now), roll(u64::MAX));
                    model.get_mut(name).unwrap().lost.get_or_insert(now);
                }
                _ => {
                    named.reached(name, seconds(now));
                    model.get_mut(name).unwrap().found(now);
                }
            }
            let out = model.values().filter(|plain| plain.out.is_some() && plain.lost.is_none()).count();
            assert_eq!(named.ejected(), out, "seed {seed} at {now}: {model:#?}");
            let lost = model.values().filter(|plain| plain.lost.is_some()).count();
            assert_eq!(named.unreachable(), lost, "seed {seed} at {now}: {model:#?}");
        }
    }
}

/// What was sent a while ago ends, more often badly.
fn step_end(
    named: &mut Named,
    model: &mut Model,
    (name, now, seed): (&'static str, u64, u64),
    roll: &mut dyn FnMut(u64) -> u64,
) {
    const SIGNS: [Sign; 7] = [
        Sign::Good,
        Sign::ServerError,
        Sign::GatewayError,
        Sign::LocalFailure,
        Sign::Opened,
        Sign::Late,
        Sign::Nothing,
    ];
    let sign = SIGNS[usize::try_from(roll(11)).unwrap() % 7];
    let sent = now - roll(4).min(now);
    let out = model.values().filter(|plain| plain.out.is_some() || plain.lost.is_some()).count();
    let may_eject = out == 0 || (out + 1) * 2 <= NAMES.len();
    let before = model.clone();
    let is_ejected = model.get_mut(name).unwrap().end(sent, now, sign, may_eject);
    let told = named.ended(name, seconds(sent), seconds(now), 0, sign);
    assert_eq!(told, is_ejected, "seed {seed} at {now}: {sign:?} of {name}, {before:#?}");
}

fn step_pick(named: &Named, model: &mut Model, (now, seed): (u64, u64), roll: &mut dyn FnMut(u64) -> u64) {
    let purpose = [Purpose::Request, Purpose::Request, Purpose::Connection, Purpose::Reach];
    let purpose = purpose[usize::try_from(roll(4)).unwrap()];
    let picked = named.pick_wanted(Wanted { purpose, key: None }, seconds(now), roll(u64::MAX), &[]).unwrap();
    if let Some(due) = NAMES.iter().find(|name| model[*name].is_due(now, purpose)) {
        assert_eq!(picked, *due, "seed {seed} at {now} for {purpose:?}: {model:#?}");
        let plain = model.get_mut(due).unwrap();
        let last = plain.was_out.unwrap().0;
        plain.out = plain.out.map(|out| PlainOut { until: now + last, trying: true, ..out });
        return;
    }
    let is_in = |plain: &Plain| plain.out.is_none() && plain.lost.is_none();
    let (any_in, any_found) = (model.values().any(is_in), model.values().any(|plain| plain.lost.is_none()));
    let plain = &model[picked];
    let may_be = if any_in { is_in(plain) } else { !any_found || plain.lost.is_none() };
    assert!(may_be, "seed {seed} at {now} for {purpose:?}: {picked} of {model:#?}");
}
