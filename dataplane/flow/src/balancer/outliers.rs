//! Ejection of endpoints that fail in a row. One endpoint's row is counted here; how many may be out at a time is the
//! balancer's. Off unless a service asks for it.

use std::time::Duration;

use crate::Backoff;

/// Everything that a service says of ejection. A count of 0 ejects nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outliers {
    /// Answers of status 500 and above in a row, gateway errors among them.
    pub server_errors: u32,
    /// Answers of status 502, 503 or 504 in a row.
    pub gateway_errors: u32,
    /// Requests in a row that were not answered.
    pub local_failures: u32,
    /// A failure that comes later than this after the one before begins a new row.
    pub interval: Duration,
    /// The first ejection lasts between a half and the whole of this; each further one twice as long, up to `longest`. An
    /// endpoint that served for as long as it was out begins anew.
    pub ejection: Duration,
    pub longest: Duration,
    /// Endpoints of a hundred that may be out; one always may where there are several.
    pub most_percent: u32,
    /// `None`: nobody is compared with the others.
    pub success_rate: Option<SuccessRate>,
}

/// What a service says of success rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SuccessRate {
    /// Nobody is judged where fewer endpoints had enough requests.
    pub minimum_hosts: u32,
    /// Requests within an interval that are enough to be judged by.
    pub request_volume: u32,
    /// Who is more than this many thousandths of the standard deviation below the mean is ejected.
    pub stdev_thousandths: u32,
}

/// What the end of a request says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    Good,
    /// A connection was opened, whose bytes nobody looks into: it can be had, and how it answers is not said.
    Opened,
    ServerError,
    /// Its proxy could not have it answered.
    GatewayError,
    /// It was not answered: reset, broken off, too late, or not opened.
    LocalFailure,
    /// It was not answered within a time that its caller chose, who may have chosen less than any endpoint takes: no failure,
    /// and no reason to try one that is ejected any sooner.
    Late,
    /// Nothing: its caller left, or the fault was nobody's there.
    Nothing,
}

/// Failures of one endpoint without a good answer between them, and its ejections so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    server_errors: u32,
    gateway_errors: u32,
    local_failures: u32,
    /// Of the newest failure.
    at: Duration,
    ejections: Option<Ejections>,
}

#[derive(Debug, Clone)]
struct Ejections {
    backoff: Backoff,
    last: Duration,
    /// Since when it takes requests again; `None` while it is out.
    back_at: Option<Duration>,
}

impl Row {
    /// Counts the end of a request. True where its row is long enough for an ejection. What was not answered is no answer:
    /// rows of answers go on behind it, while any answer and any connection that is opened ends the row of those without.
    pub(super) fn note(&mut self, outliers: &Outliers, now: Duration, sign: Sign) -> bool {
        let is_far = now.saturating_sub(self.at) > outliers.interval;
        match sign {
            Sign::Late | Sign::Nothing => return false,
            Sign::Opened => {
                self.local_failures = 0;
                return false;
            }
            Sign::Good => {
                self.clear();
                return false;
            }
            Sign::ServerError | Sign::GatewayError | Sign::LocalFailure if is_far => self.clear(),
            Sign::ServerError | Sign::GatewayError | Sign::LocalFailure => {}
        }
        self.at = now;
        let is_over = |count: u32, most: u32| most > 0 && count >= most;
        if sign == Sign::LocalFailure {
            self.local_failures = self.local_failures.saturating_add(1);
            return is_over(self.local_failures, outliers.local_failures);
        }
        self.local_failures = 0;
        self.server_errors = self.server_errors.saturating_add(1);
        self.gateway_errors = if sign == Sign::GatewayError { self.gateway_errors.saturating_add(1) } else { 0 };
        is_over(self.server_errors, outliers.server_errors) || is_over(self.gateway_errors, outliers.gateway_errors)
    }

    fn clear(&mut self) {
        (self.server_errors, self.gateway_errors, self.local_failures) = (0, 0, 0);
    }

    /// How long it is out now.
    pub(super) fn eject(&mut self, outliers: &Outliers, now: Duration, dice: u64) -> Duration {
        let is_near = |back_at: Duration, last| now.saturating_sub(back_at) <= last;
        let begun = self.ejections.take().filter(|it| it.back_at.is_none_or(|back_at| is_near(back_at, it.last)));
        let mut backoff =
            begun.map_or_else(|| Backoff::new(outliers.ejection, outliers.longest), |known| known.backoff);
        let last = backoff.wait(dice);
        self.ejections = Some(Ejections { backoff, last, back_at: None });
        last
    }

    pub(super) fn last_wait(&self) -> Duration {
        self.ejections.as_ref().map_or(Duration::ZERO, |known| known.last)
    }

    /// It takes requests again: a new row, by the ejections so far.
    pub(super) fn back(&self, now: Duration) -> Self {
        let ejections = self.ejections.clone().map(|known| Ejections { back_at: Some(now), ..known });
        Self { ejections, ..Self::default() }
    }

    /// It could not be reached for so long: a new row, and of its ejections nothing was served off meanwhile.
    pub(super) fn after(&self, away: Duration) -> Self {
        let back_at = |known: &Ejections| known.back_at.map(|back_at| back_at.saturating_add(away));
        let ejections = self.ejections.as_ref().map(|known| Ejections { back_at: back_at(known), ..known.clone() });
        Self { ejections, ..Self::default() }
    }
}
