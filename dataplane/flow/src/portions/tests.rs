//! A few by hand, and a reference in fractions for thousands.

use super::*;
use crate::{below, next_dice};

#[test]
fn each_place_gets_its_share() {
    fn check(endpoints: &[(Option<usize>, u32)], percents: &[u32], expect: &[u32]) {
        assert_eq!(portions(endpoints, percents), expect, "{endpoints:?} {percents:?}");
    }
    let (a, b) = (Some(0), Some(1));
    check(&[(a, 1), (b, 1)], &[80, 20], &[800_000, 200_000]);
    check(&[(a, 1), (a, 1), (b, 1)], &[50, 50], &[250_000, 250_000, 500_000]);
    check(&[(a, 3), (a, 1), (b, 100)], &[80, 20], &[600_000, 200_000, 200_000]);
    // One that is drained stays so, and one elsewhere is none of theirs.
    check(&[(a, 1), (a, 0), (None, 7)], &[80, 20], &[800_000, 0, 7]);
    check(&[(a, 0), (b, 1)], &[80, 20], &[0, 200_000]);
    check(&[(a, 1), (a, u32::MAX)], &[1], &[1, 10_000]);
    check(&[(Some(2), 5)], &[80, 20], &[5]);
    check(&[], &[100], &[]);
    check(&[(a, u32::MAX)], &[u32::MAX], &[u32::MAX]);
}

#[test]
fn agrees_with_a_plain_reference() {
    for seed in 1..=1_000_u64 {
        let mut dice = seed;
        let mut random = |bound: u64| u32::try_from(below(next_dice(&mut dice), bound)).unwrap();
        let count = 1 + random(4) as usize;
        let percents: Vec<u32> = (0..count).map(|_| 1 + random(100)).collect();
        let endpoints: Vec<(Option<usize>, u32)> = (0..random(40))
            .map(|_| {
                let place = random(count as u64 + 1) as usize;
                ((place < count).then_some(place), random(4) * random(1_000))
            })
            .collect();
        let got = portions(&endpoints, &percents);
        for (place, percent) in percents.iter().enumerate() {
            let members: Vec<usize> = (0..endpoints.len()).filter(|at| endpoints[*at].0 == Some(place)).collect();
            let sum: u64 = members.iter().map(|at| u64::from(endpoints[*at].1)).sum();
            let whole = u64::from(*percent) * PERCENT;
            for at in members.iter().copied().filter(|at| endpoints[*at].1 > 0) {
                let exact = f64::from(endpoints[at].1) * whole as f64 / sum as f64;
                assert!((f64::from(got[at]) - exact).abs() <= 1.0, "seed {seed}: {} for {exact}", got[at]);
            }
            let together: u64 = members.iter().map(|at| u64::from(got[*at])).sum();
            let expect = if sum == 0 { 0 } else { whole };
            assert!(together.abs_diff(expect) <= members.len() as u64, "seed {seed}: {together} of {expect}");
        }
        let mut rest = endpoints.iter().zip(&got).filter(|((place, weight), _)| place.is_none() || *weight == 0);
        assert!(rest.all(|((_, weight), got)| weight == got), "seed {seed}");
    }
}
