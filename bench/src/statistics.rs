//! Statistics of a handful of measurements: medians of values, of ratios and of differences, with their confidence intervals.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A median, and the order statistics that hold it with 95 % or more. With fewer than six pairs there is no such interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Median {
    pub(crate) median: f64,
    pub(crate) low: Option<f64>,
    pub(crate) high: Option<f64>,
}

impl fmt::Display for Median {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (Some(low), Some(high)) => write!(out, "{:.3} [{low:.3}-{high:.3}]", self.median),
            _ => write!(out, "{:.3} [too few rounds]", self.median),
        }
    }
}

/// A time in milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// A count as a number to divide by: far below 2^52, exact.
pub(crate) fn count(of: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds-long runs fit a double")]
    let of = of as f64;
    of
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 0) => f64::midpoint(sorted[sorted.len() / 2 - 1], *upper),
        (Some(middle), _) => *middle,
    }
}

/// The value that so many of a hundred don't exceed.
pub(crate) fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let before = |index: &usize| count(*index as u64 + 1) < count(sorted.len() as u64) * percent / 100.0;
    let index = (0..sorted.len()).take_while(before).count();
    sorted.get(index).copied().unwrap_or_default()
}

/// The ratios of what was measured side by side; `None` where there is no pair.
pub(crate) fn ratio(ours: &[f64], theirs: &[f64]) -> Option<Median> {
    let pairs = ours.iter().zip(theirs).filter(|(_, theirs)| **theirs > 0.0);
    interval(pairs.map(|(ours, theirs)| ours / theirs).collect())
}

/// How much more each of `ours` is than what was measured beside it.
pub(crate) fn differences(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours - theirs).collect()
}

/// The median of values and its interval; `None` where there is no value.
pub(crate) fn interval(mut values: Vec<f64>) -> Option<Median> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let outside = outside(values.len());
    let at = |index: usize| values.get(index).copied();
    Some(Median {
        median: median(&values),
        low: outside.and_then(at),
        high: outside.and_then(|outside| at(values.len() - 1 - outside)),
    })
}

/// How many of `count` sorted values may be left off at either end so that the rest still holds the median with 95 %: each
/// value lies below the median with one half, whatever the distribution (the interval of the sign test).
fn outside(count: usize) -> Option<usize> {
    let mut tail = 0.0;
    // The chance of exactly `below` of `count` values below the median.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut found = None;
    for below in 0..count / 2 {
        tail += exactly;
        if tail > 0.025 {
            break;
        }
        found = Some(below);
        exactly *= as_f64(count - below) / as_f64(below + 1);
    }
    found
}

fn as_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0]), median(&[])), (2.0, 2.5, 0.0));
    }

    /// The table of the sign test: ranks of the 95 % interval of a median.
    #[test]
    fn the_interval_is_that_of_the_sign_test() {
        for (count, ranks) in
            [(5, None), (6, Some(0)), (8, Some(0)), (9, Some(1)), (12, Some(2)), (20, Some(5)), (25, Some(7))]
        {
            assert_eq!(outside(count), ranks, "{count} values");
        }
    }

    #[test]
    fn one_wild_round_moves_no_median_and_no_interval_of_twelve() {
        let ours: Vec<f64> = (0..12).map(|round| if round == 5 { 90.0 } else { 1.1 }).collect();
        let seen = ratio(&ours, &[1.0; 12]).unwrap();
        assert_eq!((seen.median, seen.low, seen.high), (1.1, Some(1.1), Some(1.1)));
    }

    #[test]
    fn differences_have_the_interval_of_their_median() {
        let theirs = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        let ours = [11.0, 22.0, 31.0, 42.0, 51.0, 62.0];
        let seen = interval(differences(&ours, &theirs)).unwrap();
        assert_eq!((seen.median, seen.low, seen.high), (1.5, Some(1.0), Some(2.0)));
        assert_eq!(interval(Vec::new()), None);
    }

    #[test]
    fn few_rounds_show_nothing() {
        let seen = ratio(&[1.0, 2.0], &[1.0, 1.0]).unwrap();
        assert_eq!((seen.low, seen.to_string().as_str()), (None, "1.500 [too few rounds]"));
        assert_eq!(ratio(&[], &[1.0]), None);
    }

    /// Draws of a known median: about 19 of 20 intervals hold it.
    #[test]
    fn intervals_hold_the_median_as_often_as_they_say() {
        let mut state = 7_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            as_f64(usize::try_from(state >> 40).unwrap()) / as_f64(1 << 24)
        };
        let held = (0..1_000).filter(|_| {
            let values: Vec<f64> = (0..9).map(|_| draw()).collect();
            let seen = ratio(&values, &[1.0; 9]).unwrap();
            seen.low.unwrap() <= 0.5 && seen.high.unwrap() >= 0.5
        });
        let held = held.count();
        assert!((940..=980).contains(&held), "{held} of 1,000; the sign test of 9 says 961");
    }
}
