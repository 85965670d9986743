//! Slow start: an endpoint that is new, or back, begins with a small part of its weight and has all of it after a while. The
//! first endpoints of a service are not new: there is nobody to spare them.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::time::Duration;

use super::{Balancer, Drawn, Vitals, vitals_of};
use crate::below;

/// How the weight of an endpoint grows: in proportion to the time that it has been in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlowStart {
    /// After this it has its whole weight.
    pub window: Duration,
    /// It never has less than this of its weight.
    pub least_percent: u32,
}

/// The whole weight, in the parts that it grows by.
pub(super) const WHOLE: u64 = 1_000;

impl SlowStart {
    /// The part of the weight that an endpoint has so long after it came.
    pub(super) fn grown(&self, since: Duration) -> u64 {
        let window = self.window.as_nanos().max(1);
        let part = u64::try_from(since.as_nanos().saturating_mul(u128::from(WHOLE)) / window).unwrap_or(WHOLE);
        part.max(u64::from(self.least_percent) * WHOLE / 100).clamp(1, WHOLE)
    }
}

/// Since when an endpoint has been in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Since {
    /// Long enough.
    #[default]
    Ever,
    /// It is new, and nothing was picked since it came: its time begins with the next pick.
    New,
    At(Duration),
}

/// The time at which the last of those on their way up has its whole weight.
#[derive(Debug)]
pub(super) struct Warming(Cell<Duration>);

impl Default for Warming {
    fn default() -> Self {
        Self(Cell::new(Duration::ZERO))
    }
}

/// The end of the way up of those whose time has not begun.
const NOT_BEGUN: Duration = Duration::MAX;

impl Warming {
    pub(super) fn begin(&self) {
        self.0.set(NOT_BEGUN);
    }
}

impl<E: AsRef<Vitals>> Balancer<E> {
    /// The settings, while an endpoint is on its way up.
    pub(super) fn warming(&self, now: Duration) -> Option<SlowStart> {
        let slow = self.settings.slow_start?;
        let until = self.warming.0.get();
        if until == NOT_BEGUN {
            for it in &self.endpoints {
                let since = &vitals_of(&it.endpoint).since;
                if since.get() == Since::New {
                    since.set(Since::At(now));
                }
            }
            self.warming.0.set(now.saturating_add(slow.window));
            return Some(slow);
        }
        (now < until).then_some(slow)
    }

    /// An endpoint takes requests again.
    pub(super) fn came_back(&self, vitals: &Vitals, now: Duration) {
        if let Some(slow) = self.settings.slow_start {
            vitals.since.set(Since::At(now));
            self.warming.0.set(self.warming.0.get().max(now.saturating_add(slow.window)));
        }
    }

    /// An endpoint takes requests again from the next pick on.
    pub(super) fn comes_back(&self, vitals: &Vitals) {
        if self.settings.slow_start.is_some() {
            vitals.since.set(Since::New);
            self.warming.begin();
        }
    }

    /// Draws one by the weight that each has by now, and gives its place.
    pub(super) fn draw_warming(among: &[Drawn<E>], slow: SlowStart, now: Duration, dice: u64) -> Option<usize> {
        let weight = |drawn: &Drawn<E>| drawn.weight.saturating_mul(vitals_of(&drawn.endpoint).grown(slow, now));
        let mut at = below(dice, among.iter().map(weight).fold(0, u64::saturating_add));
        among.iter().position(|drawn| {
            let left = at.checked_sub(weight(drawn));
            at = left.unwrap_or(at);
            left.is_none()
        })
    }
}

impl Vitals {
    /// The part of its weight that it has by now, of [`WHOLE`].
    pub(super) fn grown(&self, slow: SlowStart, now: Duration) -> u64 {
        match self.since.get() {
            Since::Ever => WHOLE,
            Since::New => slow.grown(Duration::ZERO),
            Since::At(at) => slow.grown(now.saturating_sub(at)),
        }
    }
}
