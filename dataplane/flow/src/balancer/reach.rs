//! Reachability of one endpoint, and the time to probe it while it can't be reached. Knows nothing of the others.

use std::time::Duration;

use crate::Backoff;

/// How long an endpoint that could not be reached is left alone before its first probe, and how long at most: the wait
/// doubles with each probe in vain, and is drawn between a half and the whole.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) enum Reach {
    #[default]
    Reachable,
    Unreachable {
        probe_at: Duration,
        probing: bool,
        backoff: Backoff,
    },
}

impl Reach {
    pub(super) fn is_reachable(&self) -> bool {
        matches!(self, Reach::Reachable)
    }

    /// It could not be reached. True where that is news: of a crowd that waited for one connection the first tells, and
    /// only probes in vain lengthen the wait.
    pub(super) fn lost(&mut self, now: Duration, dice: u64) -> bool {
        let news = self.is_reachable();
        if news {
            let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
            let probe_at = now.saturating_add(backoff.wait(dice));
            *self = Reach::Unreachable { probe_at, probing: false, backoff };
        }
        news
    }

    /// Takes the probe, if it is due and nobody has it.
    pub(super) fn take_probe(&mut self, now: Duration) -> bool {
        match self {
            Reach::Unreachable { probe_at, probing, .. } if !*probing && *probe_at <= now => {
                *probing = true;
                true
            }
            Reach::Unreachable { .. } | Reach::Reachable => false,
        }
    }

    /// The probe ended: in vain, so that the next waits twice as long, or without a result, so that another is due.
    pub(super) fn end_probe(&mut self, now: Duration, in_vain: Option<u64>) {
        if let Reach::Unreachable { probe_at, probing, backoff } = self {
            *probing = false;
            *probe_at = in_vain.map_or(now, |dice| now.saturating_add(backoff.wait(dice)));
        }
    }

    /// Something changed that may concern it too: a probe is due now.
    pub(super) fn hurry(&mut self, now: Duration) {
        if let Reach::Unreachable { probe_at, backoff, .. } = self {
            backoff.reset();
            *probe_at = now.min(*probe_at);
        }
    }
}
