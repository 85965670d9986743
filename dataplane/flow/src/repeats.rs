//! How often a request is sent again that its rule wants sent again, and how long to wait before.

use std::time::Duration;

use crate::below;

/// The whole of the first wait where no least one is set; it doubles with each.
const FIRST: Duration = Duration::from_millis(25);
/// Waits grow no further than to so many times the first.
const GROWTH: u32 = 10;
/// A server that asks for more patience than this has its answer passed on.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an answer says of the next attempt (`Retry-After`, `grpc-retry-pushback-ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Nothing,
    /// Not before then.
    After(Duration),
    /// Never.
    Stop,
}

/// The further attempts of one request.
#[derive(Debug, Clone)]
pub struct Repeats {
    left: u32,
    made: u32,
    /// The least wait.
    least: Option<Duration>,
}

impl Repeats {
    /// `least`: the least wait before each. `None`: there is none, and the first is drawn from 25 ms.
    pub fn new(attempts: u32, least: Option<Duration>) -> Self {
        Self { left: attempts, made: 0, least }
    }

    /// Those that were begun.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// The wait before a further attempt, drawn by `dice`: full jitter up to a time that doubles with each, behind the least.
    /// `None`: there is no further one, or its wait would not end within `time_left`. Nothing is counted yet.
    pub fn wait(&self, asked: Asked, dice: u64, time_left: Option<Duration>) -> Option<Duration> {
        let asked = match asked {
            Asked::Nothing => Duration::ZERO,
            Asked::After(asked) if asked <= PATIENCE => asked,
            Asked::After(_) | Asked::Stop => return None,
        };
        if self.left == 0 {
            return None;
        }
        let (least, first) = (self.least.unwrap_or_default(), self.least.unwrap_or(FIRST));
        let spread = first.saturating_mul(2_u32.saturating_pow(self.made).min(GROWTH));
        let drawn = Duration::from_nanos(below(dice, u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX)));
        let wait = least.saturating_add(drawn).max(asked);
        time_left.is_none_or(|left| wait < left).then_some(wait)
    }

    /// One of them begins.
    pub fn count(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.made = self.made.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::next_dice;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_grow_behind_the_least() {
        fn check(least: Option<u64>, made: u32, asked: Asked, (from, to): (u64, u64)) {
            let mut repeats = Repeats::new(99, least.map(ms));
            (0..made).for_each(|_| repeats.count());
            let wait = |dice| repeats.wait(asked, dice, None).unwrap();
            assert_eq!(wait(0), ms(from), "{least:?} {made} {asked:?}");
            let longest = wait(u64::MAX);
            assert!(longest <= ms(to) && longest + ms(1) > ms(to), "{longest:?} for {least:?} {made} {asked:?}");
        }
        check(None, 0, Asked::Nothing, (0, 25));
        check(None, 1, Asked::Nothing, (0, 50));
        check(None, 3, Asked::Nothing, (0, 200));
        check(None, 9, Asked::Nothing, (0, 250));
        check(Some(100), 0, Asked::Nothing, (100, 200));
        check(Some(100), 2, Asked::Nothing, (100, 500));
        check(Some(0), 2, Asked::Nothing, (0, 0));
        check(None, 0, Asked::After(ms(5_000)), (5_000, 5_000));
        check(Some(100), 40, Asked::After(ms(300)), (300, 1_100));
    }

    #[test]
    fn there_is_no_further_one() {
        let repeats = Repeats::new(1, Some(ms(100)));
        assert_eq!(repeats.wait(Asked::Stop, 0, None), None);
        assert_eq!(repeats.wait(Asked::After(ms(5_001)), 0, None), None);
        assert_eq!(repeats.wait(Asked::Nothing, 0, Some(ms(100))), None, "it would end as the time does");
        assert_eq!(repeats.wait(Asked::Nothing, 0, Some(ms(101))), Some(ms(100)));
        assert_eq!(Repeats::new(0, None).wait(Asked::Nothing, 0, None), None);
        let longest = Repeats::new(1, Some(Duration::MAX));
        assert_eq!(longest.wait(Asked::Nothing, u64::MAX, None), Some(Duration::MAX), "it overflows nowhere");
    }

    /// A model that counts down a list of whole spreads written out beforehand.
    #[test]
    fn agrees_with_a_plain_reference() {
        for seed in 0..1_000_u64 {
            let mut dice = seed;
            let least = (!next_dice(&mut dice).is_multiple_of(3)).then(|| ms(next_dice(&mut dice) % 400));
            let attempts = u32::try_from(next_dice(&mut dice) % 6).unwrap();
            let first = least.map_or(25, |least| u64::try_from(least.as_millis()).unwrap());
            let mut whole: Vec<u64> = [1, 2, 4, 8, 10, 10].iter().map(|times| first * times).collect();
            whole.truncate(attempts as usize);
            whole.reverse();
            let mut repeats = Repeats::new(attempts, least);
            let mut clock = Duration::ZERO;
            let end = ms(next_dice(&mut dice) % 3_000);
            loop {
                let asked = match next_dice(&mut dice) % 4 {
                    0 => Asked::After(ms(next_dice(&mut dice) % 7_000)),
                    1 if next_dice(&mut dice).is_multiple_of(8) => Asked::Stop,
                    _ => Asked::Nothing,
                };
                let throw = next_dice(&mut dice);
                let got = repeats.wait(asked, throw, Some(end.saturating_sub(clock)));
                let allowed = match asked {
                    Asked::Nothing => Some(0),
                    Asked::After(asked) => Some(asked.as_millis()).filter(|asked| *asked <= 5_000),
                    Asked::Stop => None,
                };
                let expect = allowed.zip(whole.last()).and_then(|(asked, spread)| {
                    let drawn = (u128::from(throw) * u128::from(spread * 1_000_000)) >> 64;
                    let own = least.unwrap_or_default() + Duration::from_nanos(u64::try_from(drawn).unwrap());
                    let wait = own.max(ms(u64::try_from(asked).unwrap()));
                    (clock + wait < end).then_some(wait)
                });
                assert_eq!(got, expect, "seed {seed}");
                let Some(wait) = got else { break };
                clock += wait;
                repeats.count();
                whole.pop();
            }
            assert!(repeats.made() <= attempts && clock <= end, "seed {seed}");
        }
    }
}
