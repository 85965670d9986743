//! Weights by which each of several places gets the share that is set for it, however many endpoints it has and whatever they
//! weigh. Invariant: within a place weights stay as they are to each other, but for rounding.

#[cfg(test)]
mod tests;

/// What one percent comes to, as a sum of weights: large, so that rounding changes little.
const PERCENT: u64 = 10_000;

/// The weight of each endpoint, given the place that it is in, if any of those that have a share, and its own weight. Of places
/// without an endpoint the others have the share, in proportion. One that is in none of the places keeps its own.
pub fn portions(endpoints: &[(Option<usize>, u32)], percents: &[u32]) -> Vec<u32> {
    let sum = |place: usize| -> u64 {
        endpoints.iter().filter(|(at, _)| *at == Some(place)).map(|(_, weight)| u64::from(*weight)).sum()
    };
    let sums: Vec<u64> = (0..percents.len()).map(sum).collect();
    let portion = |(place, weight): &(Option<usize>, u32)| {
        let known = place.and_then(|place| Some((*percents.get(place)?, *sums.get(place)?)));
        let Some((percent, sum)) = known.filter(|_| *weight > 0) else { return *weight };
        let exact = u128::from(*weight) * u128::from(percent) * u128::from(PERCENT);
        let rounded = (exact + u128::from(sum / 2)) / u128::from(sum.max(1));
        // One with a weight is not drained by rounding.
        u32::try_from(rounded.max(1)).unwrap_or(u32::MAX)
    };
    endpoints.iter().map(portion).collect()
}
