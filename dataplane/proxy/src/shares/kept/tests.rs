//! The properties of shares, and the whole beside an obvious model: a list of connections, counted anew each time.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const LIMITS: ShareLimits = ShareLimits { destination: 4, caller: 2 };

type Places = Kept<u16, &'static str, usize>;

fn places(limits: ShareLimits) -> (Places, Instant) {
    (Kept::new(3, limits), Instant::now())
}

#[test]
fn one_caller_has_a_part_of_what_all_have() {
    let (places, _) = places(LIMITS);
    let mut a: Vec<_> = (0..2).map(|_| places.open(80, &"a").unwrap()).collect();
    assert_eq!(places.open(80, &"a").unwrap_err(), Full::Caller(2));
    let _elsewhere = places.open(81, &"a").unwrap();
    let _b: Vec<_> = (0..2).map(|_| places.open(80, &"b").unwrap()).collect();
    assert_eq!(places.open(80, &"c").unwrap_err(), Full::Destination(4));
    a.pop();
    let _c = places.open(80, &"c").unwrap();
    assert_eq!(places.open(80, &"a").unwrap_err(), Full::Destination(4));
}

/// Kept connections, expired or not, are in no caller's share, and give way where their destination is full.
#[test]
fn kept_connections_refuse_nobody() {
    let (places, now) = places(ShareLimits { destination: 2, caller: 2 });
    let soon = now + Duration::from_secs(1);
    let shares: Vec<_> = (0..2).map(|_| places.open(80, &"a").unwrap()).collect();
    for (number, share) in shares.into_iter().enumerate() {
        places.keep(number, share, now, soon);
    }
    let _raw: Vec<_> = (0..2).map(|_| places.open(80, &"a").unwrap()).collect();
    assert_eq!(places.open(80, &"b").unwrap_err(), Full::Destination(2), "these are in use");
    assert!(places.reuse(80, &"b", now).is_none(), "the kept ones have given way");
}

/// A caller that has all it may have takes no kept connection, and closes none.
#[test]
fn a_refused_caller_costs_others_nothing() {
    let (places, now) = places(LIMITS);
    places.keep(7, places.open(80, &"b").unwrap(), now, now + Duration::from_secs(1));
    let _greedy: Vec<_> = (0..2).map(|_| places.open(80, &"a").unwrap()).collect();
    for _ in 0..10 {
        assert!(places.reuse(80, &"a", now).is_none());
        assert_eq!(places.open(80, &"a").unwrap_err(), Full::Caller(2));
    }
    assert_eq!(places.reuse(80, &"b", now).map(|(connection, _)| connection), Some(7));
}

#[test]
fn an_expired_one_hides_none_that_is_good() {
    let (places, now) = places(LIMITS);
    let shares = [0, 1].map(|_| places.open(80, &"a").unwrap());
    for (number, (share, seconds)) in shares.into_iter().zip([5, 1]).enumerate() {
        places.keep(number, share, now, now + Duration::from_secs(seconds));
    }
    let (connection, _share) = places.reuse(80, &"a", now + Duration::from_secs(2)).unwrap();
    assert_eq!(connection, 0);
}

#[test]
fn nothing_is_left_of_what_was_given_back() {
    let (places, now) = places(LIMITS);
    drop(places.open(80, &"a").unwrap());
    places.keep(1, places.open(80, &"a").unwrap(), now, now + Duration::from_secs(1));
    drop(places.reuse(80, &"b", now).unwrap());
    places.keep(2, places.open(81, &"a").unwrap(), now, now + Duration::from_secs(1));
    places.expire(now + Duration::from_secs(1));
    assert!(places.shares.taken.borrow().is_empty() && places.idle.borrow().is_empty());
}

/// One open connection of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    number: usize,
    destination: u16,
    caller: Option<&'static str>,
    until: Instant,
}

/// Open connections; those that are kept in the order in which they were given back.
#[derive(Debug, Default)]
struct Model(Vec<Open>);

impl Model {
    fn count(&self, destination: u16, of: impl Fn(&Open) -> bool) -> usize {
        self.0.iter().filter(|open| open.destination == destination && of(open)).count()
    }

    /// Why `caller` gets no further connection, once the oldest kept one has given way where that helps.
    fn refusal(&mut self, destination: u16, caller: &'static str, limits: ShareLimits) -> Option<Full> {
        if self.count(destination, |open| open.caller == Some(caller)) >= limits.caller {
            return Some(Full::Caller(limits.caller));
        }
        if self.count(destination, |_| true) < limits.destination {
            return None;
        }
        let oldest = self.0.iter().position(|open| open.destination == destination && open.caller.is_none());
        match oldest {
            Some(oldest) => _ = self.0.remove(oldest),
            None => return Some(Full::Destination(limits.destination)),
        }
        None
    }

    fn reused(&mut self, destination: u16, caller: &'static str, limits: ShareLimits, now: Instant) -> Option<usize> {
        if self.count(destination, |open| open.caller == Some(caller)) >= limits.caller {
            return None;
        }
        while let Some(last) = self.0.iter().rposition(|open| open.destination == destination && open.caller.is_none())
        {
            let open = self.0.remove(last);
            if now < open.until {
                self.0.push(Open { caller: Some(caller), ..open });
                return Some(open.number);
            }
        }
        None
    }

    fn kept(&mut self, number: usize, most: usize, until: Instant) {
        let at = self.0.iter().position(|open| open.number == number).unwrap();
        let open = self.0.remove(at);
        if self.count(open.destination, |other| other.caller.is_none()) >= most {
            let same = |other: &Open| other.destination == open.destination && other.caller.is_none();
            let oldest = self.0.iter().position(same).unwrap();
            self.0.remove(oldest);
        }
        self.0.push(Open { caller: None, until, ..open });
    }
}

const CALLERS: [&str; 3] = ["a", "b", "c"];

proptest! {
    #[test]
    fn it_does_as_the_model_does(
        (all, one) in (1usize..6, 1usize..4),
        steps in prop::collection::vec((0u8..6, 0u16..2, 0usize..3, 0u64..5), 1..200),
    ) {
        const MOST: usize = 2;
        let limits = ShareLimits { destination: all, caller: one };
        let (places, mut now) = (Places::new(MOST, limits), Instant::now());
        let (mut model, mut used, mut next) = (Model::default(), Vec::new(), 0);
        for (step, destination, caller, seconds) in steps {
            let caller = CALLERS[caller];
            match step {
                0 | 1 => {
                    let refusal = model.refusal(destination, caller, limits);
                    let opened = places.open(destination, &caller);
                    prop_assert_eq!(opened.as_ref().err().copied(), refusal);
                    if let Ok(share) = opened {
                        model.0.push(Open { number: next, destination, caller: Some(caller), until: now });
                        used.push((next, share));
                        next += 1;
                    }
                }
                2 => {
                    let expected = model.reused(destination, caller, limits, now);
                    let reused = places.reuse(destination, &caller, now);
                    prop_assert_eq!(reused.as_ref().map(|(number, _)| *number), expected);
                    used.extend(reused);
                }
                3 if !used.is_empty() => {
                    let (number, share) = used.swap_remove(usize::from(destination) % used.len());
                    let until = now + Duration::from_secs(seconds + 1);
                    places.keep(number, share, now, until);
                    model.kept(number, MOST, until);
                }
                4 if !used.is_empty() => {
                    let (number, _) = used.swap_remove(usize::from(destination) % used.len());
                    model.0.retain(|open| open.number != number);
                }
                5 => {
                    now += Duration::from_secs(seconds);
                    if seconds % 2 == 0 {
                        places.expire(now);
                        model.0.retain(|open| open.caller.is_some() || now < open.until);
                    }
                }
                _ => {}
            }
            for destination in [0, 1] {
                let taken = places.shares.taken.borrow();
                let of = taken.get(&destination);
                prop_assert_eq!(of.map_or(0, |of| of.all), model.count(destination, |_| true));
                prop_assert!(of.map_or(0, |of| of.all) <= all);
                for caller in CALLERS {
                    let counted = of.and_then(|of| of.by.get(caller)).copied().unwrap_or(0);
                    prop_assert_eq!(counted, model.count(destination, |open| open.caller == Some(caller)));
                }
                let idle = places.idle.borrow();
                let kept: Vec<_> = idle.get(&destination).into_iter().flatten().map(|kept| kept.connection).collect();
                let idle = model.0.iter().filter(|open| open.destination == destination && open.caller.is_none());
                prop_assert_eq!(kept, idle.map(|open| open.number).collect::<Vec<_>>());
            }
        }
    }
}
