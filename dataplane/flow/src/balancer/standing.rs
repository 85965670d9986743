//! Whether one endpoint takes requests, why not, and when it is tried again: while no connection can be made to it, while
//! it is ejected because it failed too often, and while checks find it unwell. One says nothing of the others. Knows
//! nothing of the other endpoints.

use std::time::Duration;

use super::Purpose;
use super::outliers::{Outliers, Row, Sign};
use crate::Backoff;

/// How long an endpoint that could not be reached is left alone before its first probe, and how long at most: the wait
/// doubles with each probe in vain, and is drawn between a half and the whole.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Standing {
    /// `None`: it can be reached, as far as is known.
    lost: Option<Lost>,
    health: Health,
    /// Checks beside the traffic say so.
    unwell: bool,
}

/// No connection could be made. It is probed beside the traffic.
#[derive(Debug)]
struct Lost {
    since: Duration,
    probe_at: Duration,
    probing: bool,
    backoff: Backoff,
}

#[derive(Debug)]
enum Health {
    /// The row of failures that it is in, for a service that ejects.
    Well(Row),
    Ejected(Ejection),
}

impl Default for Health {
    fn default() -> Self {
        Health::Well(Row::default())
    }
}

/// It failed too often. From `trial_at` on the next request is a trial.
#[derive(Debug)]
struct Ejection {
    since: Duration,
    trial_at: Duration,
    trying: bool,
    /// By how it answered, of which a connection that is opened knows nothing.
    by_answers: bool,
    row: Row,
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

impl Standing {
    pub(super) fn is_in(&self) -> bool {
        self.is_reachable() && !self.is_ejected() && !self.unwell
    }

    pub(super) fn is_reachable(&self) -> bool {
        self.lost.is_none()
    }

    pub(super) fn is_ejected(&self) -> bool {
        matches!(self.health, Health::Ejected(_))
    }

    /// Takes in what checks say. True where that is news.
    pub(super) fn set_unwell(&mut self, unwell: bool) -> bool {
        std::mem::replace(&mut self.unwell, unwell) != unwell
    }

    /// It could not be reached. True where that is news: of a crowd that waited for one connection the first tells, and
    /// only probes in vain lengthen the wait.
    pub(super) fn lost(&mut self, now: Duration, dice: u64) -> bool {
        let news = self.is_reachable();
        if news {
            let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            let probe_at = now.saturating_add(backoff.wait(dice));
            self.lost = Some(Lost { since: now, probe_at, probing: false, backoff });
        }
        news
    }

    /// It can be reached again. An ejection goes on where it was; else it begins a new row, and has not served meanwhile.
    pub(super) fn found(&mut self, now: Duration) {
        let Some(lost) = self.lost.take() else { return };
        if let Health::Well(row) = &mut self.health {
            *row = row.after(now.saturating_sub(lost.since));
        }
    }

    /// Takes the probe, if it is due and nobody has it.
    pub(super) fn take_probe(&mut self, now: Duration) -> bool {
        let due = self.lost.as_mut().filter(|lost| !lost.probing && lost.probe_at <= now);
        due.map(|lost| lost.probing = true).is_some()
    }

    /// The probe ended: in vain, so that the next waits twice as long, or without a result, so that another is due.
    pub(super) fn end_probe(&mut self, now: Duration, in_vain: Option<u64>) {
        if let Some(Lost { probe_at, probing, backoff, .. }) = &mut self.lost {
            *probing = false;
            *probe_at = in_vain.map_or(now, |dice| now.saturating_add(backoff.wait(dice)));
        }
    }

    /// Something changed that may concern it too: a probe is due now.
    pub(super) fn hurry(&mut self, now: Duration) {
        if let Some(Lost { probe_at, backoff, .. }) = &mut self.lost {
            backoff.reset();
            *probe_at = now.min(*probe_at);
        }
    }

    /// Takes the trial, if it is due. While one is under way there is no other, unless it takes longer than the ejection did.
    pub(super) fn take_trial(&mut self, now: Duration, purpose: Purpose) -> bool {
        match &mut self.health {
            Health::Ejected(ejection) if self.lost.is_none() && !self.unwell => ejection.take_trial(now, purpose),
            Health::Ejected(_) | Health::Well(_) => false,
        }
    }

    /// A request that was given this endpoint at `picked` ended so.
    pub(super) fn note(&mut self, outliers: &Outliers, picked: Duration, now: Duration, sign: Sign) -> Told {
        match &mut self.health {
            Health::Ejected(ejection) => ejection.note(picked, now, sign),
            Health::Well(row) => {
                let is_over = self.lost.is_none() && row.note(outliers, now, sign);
                if is_over { Told::RowIsOver } else { Told::Nothing }
            }
        }
    }

    /// Ejects it, also from where it is: each time for longer. `sign`: the last failure.
    pub(super) fn eject(&mut self, outliers: &Outliers, now: Duration, dice: u64, sign: Sign) {
        let (Health::Well(row) | Health::Ejected(Ejection { row, .. })) = &mut self.health;
        let trial_at = now.saturating_add(row.eject(outliers, now, dice));
        let (row, by_answers) = (std::mem::take(row), matches!(sign, Sign::ServerError | Sign::GatewayError));
        self.health = Health::Ejected(Ejection { since: now, trial_at, trying: false, by_answers, row });
    }

    /// Ends an ejection.
    pub(super) fn let_in(&mut self, now: Duration) {
        if let Health::Ejected(Ejection { row, .. }) = &self.health {
            self.health = Health::Well(row.back(now));
        }
    }

    /// Ends an ejection, and forgets all that was counted: its service judges by something else now.
    pub(super) fn pardon(&mut self) {
        self.health = Health::default();
    }
}

impl Ejection {
    fn take_trial(&mut self, now: Duration, purpose: Purpose) -> bool {
        let is_for = match purpose {
            Purpose::Request => true,
            Purpose::Connection => self.is_for_connections(now),
            Purpose::Reach => false,
        };
        let is_due = is_for && self.trial_at <= now;
        if is_due {
            (self.trial_at, self.trying) = (now.saturating_add(self.row.last_wait()), true);
        }
        is_due
    }

    /// A connection tells of answers nothing. It is let in by one all the same where no request tried it for as long as it
    /// was out: there may be none any more.
    fn is_for_connections(&self, picked: Duration) -> bool {
        !self.by_answers || self.since.saturating_add(self.row.last_wait().saturating_mul(2)) <= picked
    }

    fn note(&mut self, picked: Duration, now: Duration, sign: Sign) -> Told {
        match sign {
            // What was under way when it was ejected says nothing new.
            _ if picked <= self.since => Told::Nothing,
            Sign::Good => Told::IsWell,
            Sign::Opened if self.is_for_connections(picked) => Told::IsWell,
            Sign::Nothing if self.trying => {
                (self.trial_at, self.trying) = (now, false);
                Told::Nothing
            }
            // The next waits until it would be due if this one had gone on: callers in a hurry would be all that tries it.
            Sign::Late if self.trying => {
                self.trying = false;
                Told::Nothing
            }
            Sign::ServerError | Sign::GatewayError | Sign::LocalFailure if self.trying => Told::TrialFailed,
            // Where all are out, others than the trial come here, too.
            Sign::ServerError | Sign::GatewayError | Sign::LocalFailure | Sign::Opened | Sign::Late | Sign::Nothing => {
                Told::Nothing
            }
        }
    }
}
