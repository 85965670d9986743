//! The limiter before servers whose latency rises beyond what they can do at a time, each of a thousand different, and its
//! single steps.

use super::*;
use crate::{below, next_dice};

const WINDOW: Duration = Duration::from_millis(100);
/// Of an answer where nothing queues.
const ALONE: u64 = 50_000;

fn settings(least: u32, most: u32) -> GradientSettings {
    GradientSettings { least, most, window: WINDOW }
}

/// A server that answers so many at a time in `ALONE`; among more each takes longer by as much. Callers always want more of it
/// than it can do.
struct Server {
    capacity: u64,
    dice: u64,
    now: Duration,
    limiter: Gradient,
}

impl Server {
    fn roll(&mut self, bound: u64) -> u64 {
        below(next_dice(&mut self.dice), bound)
    }

    /// Sends rounds of requests for `time`, each `slow` times as long as it is alone. Gives the limit after each.
    fn serve(&mut self, time: Duration, slow: u64) -> Vec<u32> {
        let (mut limits, end) = (Vec::new(), self.now + time);
        while self.now < end {
            let wanted = self.capacity * (2 + self.roll(8));
            let began = self.now;
            let mut under_way = 0;
            while under_way < wanted && self.limiter.enter() {
                under_way += 1;
            }
            assert!(under_way > 0, "nobody is let in");
            let typical = slow * ALONE * under_way.max(self.capacity) / self.capacity;
            let mut latencies: Vec<u64> = (0..under_way).map(|_| typical * (90 + self.roll(21)) / 100).collect();
            latencies.sort_unstable();
            for latency in latencies {
                let latency = Duration::from_micros(latency);
                self.now = began + latency;
                self.limiter.leave(began, self.now, Measured::Latency(latency));
                let GradientSettings { least, most, .. } = self.limiter.settings;
                assert!((least..=most).contains(&self.limiter.limit()), "{}", self.limiter.limit());
            }
            assert_eq!(self.limiter.in_flight(), 0);
            limits.push(self.limiter.limit());
        }
        limits
    }
}

/// The last of some limits.
fn last(limits: &[u32]) -> &[u32] {
    &limits[limits.len().saturating_sub(30)..]
}

/// The limit is within N and 2 N + 4. While it measures, the half is held for a round or two.
fn is_settled(limits: &[u32], capacity: u64) -> Result<(), String> {
    let (least, most) = (u32::try_from(capacity).unwrap(), u32::try_from(2 * capacity + 4).unwrap());
    let (above, below) = (|limit: &&u32| **limit > most, |limit: &&u32| **limit < least);
    let is_within = last(limits).iter().filter(above).count() == 0 && last(limits).iter().filter(below).count() <= 8;
    is_within.then_some(()).ok_or_else(|| format!("{:?} for {capacity}", last(limits)))
}

/// Of a thousand servers: the limit settles around what they can do, gives way while they are slow, and comes back.
#[test]
fn the_limit_settles_around_what_a_server_can_do() {
    let mut gave_way = 0;
    for seed in 0..1_000 {
        let mut dice = seed;
        let capacity = 4 + below(next_dice(&mut dice), 21);
        let least = 1 + u32::try_from(below(next_dice(&mut dice), 3)).unwrap();
        let now = Duration::from_secs(below(next_dice(&mut dice), 100));
        let limiter = Gradient::new(settings(least, 1_000), now);
        let mut server = Server { capacity, dice, now, limiter };
        let before = server.serve(Duration::from_secs(40), 1);
        is_settled(&before, capacity).unwrap_or_else(|told| panic!("{seed}: {told}"));
        let slow = server.serve(Duration::from_secs(10), 10);
        let settled = *last(&before).iter().max().unwrap();
        gave_way += u32::from(slow.iter().any(|limit| limit * 2 <= settled));
        let after = server.serve(Duration::from_secs(40), 1);
        is_settled(&after, capacity).unwrap_or_else(|told| panic!("{seed}: once it was slow: {told}"));
    }
    // A few measured at the very time at which they became slow, and took that for what they can do.
    assert!(gave_way >= 950, "{gave_way} of 1,000 gave way");
}

/// A window of `count` requests that begin at once; gives the limit behind it.
fn window(limiter: &mut Gradient, now: &mut Duration, count: u32, measured: Measured) -> u32 {
    let began = *now;
    let entered = (0..count).filter(|_| limiter.enter()).count();
    for ended in 1..=entered {
        *now = began + if ended == entered { WINDOW } else { WINDOW / 2 };
        limiter.leave(began, *now, measured);
    }
    limiter.limit()
}

const fn after(times: u64) -> Measured {
    Measured::Latency(Duration::from_micros(times * ALONE))
}

#[test]
fn a_limit_that_nobody_needs_does_not_grow() {
    let (mut limiter, mut now) = (Gradient::new(settings(3, 1_000), Duration::ZERO), Duration::ZERO);
    for _ in 0..50 {
        assert_eq!(window(&mut limiter, &mut now, 10, after(1)), 20, "half of it was used");
    }
    assert_eq!(window(&mut limiter, &mut now, 20, after(1)), 24, "all of it was: 20 and its root");
}

#[test]
fn a_window_halves_the_limit_at_the_most() {
    let (mut limiter, mut now) = (Gradient::new(settings(3, 1_000), Duration::ZERO), Duration::ZERO);
    assert_eq!(window(&mut limiter, &mut now, 20, after(1)), 24);
    // The half of 24.47, and its root, 4.94.
    assert_eq!(window(&mut limiter, &mut now, 24, after(1_000)), 17);
}

#[test]
fn few_requests_are_no_window() {
    let (mut limiter, mut now) = (Gradient::new(settings(3, 1_000), Duration::ZERO), Duration::ZERO);
    assert_eq!(window(&mut limiter, &mut now, 9, after(1)), 20);
    assert_eq!((limiter.base, limiter.window.latencies.len()), (None, 9));
}

#[test]
fn bounds_are_kept_from_the_start() {
    for (least, most, first) in [(1, 5, 5), (30, 40, 30), (0, 0, 1), (9, 2, 9), (3, 1_000, 20)] {
        let limiter = Gradient::new(settings(least, most), Duration::ZERO);
        assert_eq!(limiter.limit(), first, "{least} to {most}");
    }
}

#[test]
fn who_gives_up_early_says_nothing_and_who_gives_up_late_says_that_it_is_slow() {
    let (mut limiter, mut now) = (Gradient::new(settings(3, 1_000), Duration::ZERO), Duration::ZERO);
    assert_eq!(window(&mut limiter, &mut now, 20, after(1)), 24);
    let mut give_up = |measured: Measured| window(&mut limiter, &mut now, 24, measured);
    assert_eq!(give_up(Measured::AtLeast(Duration::from_micros(ALONE))), 24);
    assert_eq!(give_up(Measured::Nothing), 24);
    assert_eq!(give_up(Measured::AtLeast(Duration::from_secs(5))), 17);
    assert_eq!(limiter.in_flight(), 0);
}
