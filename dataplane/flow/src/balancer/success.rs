//! Ejection of endpoints that succeed much less often than the others: rates of one interval are compared at its end, and
//! who is far below the mean is ejected, as far as so many may be out. As Envoy's success-rate detection, but by whole
//! numbers: no two builds judge differently.

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use super::outliers::{Outliers, Sign, SuccessRate};
use super::{Balancer, Vitals, vitals_of};
use crate::next_dice;

/// Rates are of a million.
const ALL: u64 = 1_000_000;

/// Ends of requests within one interval.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    good: u32,
    all: u32,
}

impl Tally {
    fn count(&mut self, sign: Sign) {
        let is_good = match sign {
            Sign::Good | Sign::Opened => true,
            Sign::ServerError | Sign::GatewayError | Sign::LocalFailure => false,
            Sign::Late | Sign::Nothing => return,
        };
        self.good = self.good.saturating_add(u32::from(is_good));
        self.all = self.all.saturating_add(1);
    }

    /// `None`: too few to tell.
    fn rate(self, least: u32) -> Option<u64> {
        (self.all >= least.max(1)).then(|| u64::from(self.good) * ALL / u64::from(self.all))
    }
}

/// The interval whose requests are counted.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Round {
    begun: Option<Duration>,
    by: Option<SuccessRate>,
}

impl<E: AsRef<Vitals>> Balancer<E> {
    /// Counts the end of a request towards the rate of its endpoint. Gives those who are ejected since an interval is over.
    pub fn rated(&mut self, endpoint: &E, now: Duration, dice: u64, sign: Sign) -> Vec<Rc<E>> {
        let Some(outliers) = self.settings.outliers else { return Vec::new() };
        let Some(rates) = outliers.success_rate else { return Vec::new() };
        let ejected = self.turn(&outliers, rates, now, dice);
        let tally = &endpoint.as_ref().tally;
        let mut counted = tally.get();
        counted.count(sign);
        tally.set(counted);
        ejected
    }

    /// Judges, where an interval is over, and begins the next. One that is long over is not judged: what it tells is old.
    fn turn(&mut self, outliers: &Outliers, rates: SuccessRate, now: Duration, dice: u64) -> Vec<Rc<E>> {
        let begun = self.round.begun.filter(|_| self.round.by == Some(rates));
        let elapsed = begun.map(|begun| now.saturating_sub(begun));
        if elapsed.is_some_and(|elapsed| elapsed < outliers.interval) {
            return Vec::new();
        }
        let is_late = elapsed.is_none_or(|elapsed| elapsed >= outliers.interval.saturating_mul(2));
        let ejected = if is_late { Vec::new() } else { self.judge(outliers, rates, now, dice) };
        self.round = Round { begun: Some(now), by: Some(rates) };
        self.endpoints.iter().for_each(|it| vitals_of(&it.endpoint).tally.set(Tally::default()));
        ejected
    }

    /// Ejects the worst first, as long as one more may be out.
    fn judge(&mut self, outliers: &Outliers, rates: SuccessRate, now: Duration, mut dice: u64) -> Vec<Rc<E>> {
        let with_weight = self.endpoints.iter().filter(|it| it.weight > 0).map(|it| &it.endpoint);
        let taking = with_weight.filter(|endpoint| vitals_of(endpoint).is_in());
        let rate = |endpoint: &Rc<E>| vitals_of(endpoint).tally.get().rate(rates.request_volume);
        let mut rated: Vec<_> = taking.filter_map(|endpoint| Some((rate(endpoint)?, Rc::clone(endpoint)))).collect();
        if rated.len() < rates.minimum_hosts as usize {
            return Vec::new();
        }
        let least = least_rate(rated.iter().map(|(rate, _)| *rate), rates.stdev_thousandths);
        rated.retain(|(rate, _)| *rate < least);
        rated.sort_by_key(|(rate, _)| *rate);
        let mut ejected = Vec::new();
        for (_, endpoint) in rated {
            if self.may_eject(&endpoint, outliers) {
                let mut standing = vitals_of(&endpoint).standing.borrow_mut();
                standing.eject(outliers, now, next_dice(&mut dice), Sign::ServerError);
                drop(standing);
                ejected.push(endpoint);
            }
        }
        if !ejected.is_empty() {
            self.redraw();
        }
        ejected
    }
}

/// The mean of these rates less so many thousandths of their standard deviation; 0 where that is below nothing.
fn least_rate(rates: impl Iterator<Item = u64> + Clone, stdev_thousandths: u32) -> u64 {
    let count = rates.clone().count().max(1) as u64;
    let mean = rates.clone().sum::<u64>() / count;
    let squares: u64 = rates.map(|rate| rate.abs_diff(mean).pow(2)).sum();
    let stdev = (squares / count).isqrt();
    mean.saturating_sub(stdev.saturating_mul(stdev_thousandths.into()) / 1_000)
}
