//! Whether one endpoint takes requests, why not, and when it is tried again: while no connection can be made to it, and
//! while it is ejected because it failed too often. Knows nothing of the others.

use std::time::Duration;

use super::outliers::{Outliers, Row, Sign};
use crate::Backoff;

/// How long an endpoint that could not be reached is left alone before its first probe, and how long at most: the wait
/// doubles with each probe in vain, and is drawn between a half and the whole.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) enum Standing {
    /// It takes requests. The row of failures that it is in, for a service that ejects.
    In(Row),
    /// No connection could be made. It is probed beside the traffic.
    Unreachable { probe_at: Duration, probing: bool, backoff: Backoff },
    /// It failed too often. From `trial_at` on the next request is a trial.
    Ejected { since: Duration, trial_at: Duration, trying: bool, row: Row },
}

/// What the end of a request says of its endpoint's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    /// It fails in a row, and is to be ejected if it may be.
    RowIsOver,
    TrialFailed,
    IsWell,
}

impl Default for Standing {
    fn default() -> Self {
        Standing::In(Row::default())
    }
}

impl Standing {
    pub(super) fn is_in(&self) -> bool {
        matches!(self, Standing::In(_))
    }

    pub(super) fn is_reachable(&self) -> bool {
        !matches!(self, Standing::Unreachable { .. })
    }

    pub(super) fn is_ejected(&self) -> bool {
        matches!(self, Standing::Ejected { .. })
    }

    /// It could not be reached. True where that is news: of a crowd that waited for one connection the first tells, and
    /// only probes in vain lengthen the wait.
    pub(super) fn lost(&mut self, now: Duration, dice: u64) -> bool {
        let news = self.is_reachable();
        if news {
            let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            let probe_at = now.saturating_add(backoff.wait(dice));
            *self = Standing::Unreachable { probe_at, probing: false, backoff };
        }
        news
    }

    /// Takes the probe, if it is due and nobody has it.
    pub(super) fn take_probe(&mut self, now: Duration) -> bool {
        match self {
            Standing::Unreachable { probe_at, probing, .. } if !*probing && *probe_at <= now => {
                *probing = true;
                true
            }
            Standing::Unreachable { .. } | Standing::In(_) | Standing::Ejected { .. } => false,
        }
    }

    /// The probe ended: in vain, so that the next waits twice as long, or without a result, so that another is due.
    pub(super) fn end_probe(&mut self, now: Duration, in_vain: Option<u64>) {
        if let Standing::Unreachable { probe_at, probing, backoff } = self {
            *probing = false;
            *probe_at = in_vain.map_or(now, |dice| now.saturating_add(backoff.wait(dice)));
        }
    }

    /// Something changed that may concern it too: a probe is due now.
    pub(super) fn hurry(&mut self, now: Duration) {
        if let Standing::Unreachable { probe_at, backoff, .. } = self {
            backoff.reset();
            *probe_at = now.min(*probe_at);
        }
    }

    /// Takes the trial, if it is due. While one is under way there is no other, unless it takes longer than the ejection did.
    pub(super) fn take_trial(&mut self, now: Duration) -> bool {
        match self {
            Standing::Ejected { trial_at, trying, row, .. } if *trial_at <= now => {
                (*trial_at, *trying) = (now.saturating_add(row.last_wait()), true);
                true
            }
            Standing::Ejected { .. } | Standing::In(_) | Standing::Unreachable { .. } => false,
        }
    }

    /// A request that was given this endpoint at `picked` ended so.
    pub(super) fn note(&mut self, outliers: &Outliers, picked: Duration, now: Duration, sign: Sign) -> Told {
        match self {
            Standing::In(row) => match row.note(outliers, now, sign) {
                true => Told::RowIsOver,
                false => Told::Nothing,
            },
            // What was under way when it was ejected says nothing new.
            Standing::Ejected { since, .. } if picked <= *since => Told::Nothing,
            Standing::Ejected { .. } if sign == Sign::Good => Told::IsWell,
            Standing::Ejected { trial_at, trying, .. } if *trying => match sign {
                Sign::Nothing => {
                    (*trial_at, *trying) = (now, false);
                    Told::Nothing
                }
                Sign::Good | Sign::ServerError | Sign::GatewayError | Sign::LocalFailure => Told::TrialFailed,
            },
            // Where all are out, others than the trial come here, too.
            Standing::Ejected { .. } | Standing::Unreachable { .. } => Told::Nothing,
        }
    }

    /// Ejects it, also from where it is: each time for longer.
    pub(super) fn eject(&mut self, outliers: &Outliers, now: Duration, dice: u64) {
        if let Standing::In(row) | Standing::Ejected { row, .. } = self {
            let trial_at = now.saturating_add(row.eject(outliers, now, dice));
            *self = Standing::Ejected { since: now, trial_at, trying: false, row: std::mem::take(row) };
        }
    }

    /// Ends an ejection.
    pub(super) fn let_in(&mut self, now: Duration) {
        if let Standing::Ejected { row, .. } = self {
            *self = Standing::In(row.back(now));
        }
    }
}
