//! Health of one endpoint by the checks that its callers make beside the traffic: what a row of results says, and when the
//! next check is due. What a check is, and what becomes of an unhealthy endpoint, is for others to say.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::below;

/// Results in a row that change what is held of an endpoint. The first that says anything decides alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thresholds {
    pub unhealthy: u32,
    pub healthy: u32,
}

/// What one check says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checked {
    Passed,
    Failed,
    /// Nothing of the endpoint: others than it are why there is no result.
    Nothing,
}

/// What is held of one endpoint. It is well until a check failed: who is new takes requests before anybody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    is_unwell: bool,
    is_known: bool,
    /// Results in a row against what is held.
    against: u32,
}

impl Health {
    pub fn is_unwell(self) -> bool {
        self.is_unwell
    }

    /// Takes in a result. True where another thing is held by that.
    pub fn note(&mut self, thresholds: Thresholds, checked: Checked) -> bool {
        let fails = match checked {
            Checked::Passed => false,
            Checked::Failed => true,
            Checked::Nothing => return false,
        };
        let is_first = !std::mem::replace(&mut self.is_known, true);
        if fails == self.is_unwell {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        let needed = if fails { thresholds.unhealthy } else { thresholds.healthy };
        let changes = is_first || self.against >= needed;
        if changes {
            *self = Self { is_unwell: fails, is_known: true, against: 0 };
        }
        changes
    }
}

/// When one endpoint is checked. Each wait is drawn anew, so that callers who began together don't go on together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounds {
    /// `None`: a check is under way.
    due: Option<Duration>,
}

impl Rounds {
    /// The first check comes within an interval, at a moment that is drawn.
    pub fn begin(now: Duration, interval: Duration, dice: u64) -> Self {
        Self { due: Some(now.saturating_add(part(interval, dice))) }
    }

    /// When the next check is due. `None`: one is under way.
    pub fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Takes the check, if it is due; [`Rounds::ended`] must follow.
    pub fn take(&mut self, now: Duration) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    /// The check is over: the next comes after nine tenths to eleven tenths of the interval.
    pub fn ended(&mut self, now: Duration, interval: Duration, dice: u64) {
        let wait = (interval / 10).saturating_mul(9).saturating_add(part(interval / 5, dice));
        self.due = Some(now.saturating_add(wait));
    }
}

/// Uniform from nothing to `whole`.
fn part(whole: Duration, dice: u64) -> Duration {
    let whole = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(below(dice, whole.saturating_add(1)))
}
