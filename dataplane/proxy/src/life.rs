//! The life of a certificate by the wall clock, which may jump: when it is time for the next one, and what is wrong with
//! one that is not valid now. Pure: the time is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use weft_transport::tls::WorkloadIdentity;

/// Seconds since 1970 that matter to a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When it was obtained, where that is known: `not_before` lies earlier, for clocks that are behind.
    pub obtained: Option<u64>,
    pub not_before: u64,
    pub not_after: u64,
}

impl Life {
    pub fn of(identity: &WorkloadIdentity, obtained: Option<u64>) -> Life {
        Life { obtained, not_before: identity.not_before().as_secs(), not_after: identity.not_after().as_secs() }
    }

    /// True when the next certificate should be asked for: this part of the time from its receipt to its end is over, or its
    /// life has not begun by this clock. A receipt in the future doesn't count.
    pub fn is_due(self, now: u64, part: Part) -> bool {
        let obtained = self.obtained.filter(|at| (self.not_before..=now).contains(at));
        let from = obtained.unwrap_or(self.not_before);
        now < self.not_before || now >= from.saturating_add(part.of(self.not_after.saturating_sub(from)))
    }

    /// True where it was issued to live longer than `ttl` seconds, whatever the clock says.
    fn outlives(self, ttl: u64) -> bool {
        ttl > 0 && self.not_after.saturating_sub(self.not_before) > ttl.saturating_add(BACKDATED)
    }

    pub fn has_ended(self, now: u64) -> bool {
        now > self.not_after
    }
}

/// The part of a certificate's life after which it is renewed: two fifths to a half of it, by lot, so that proxies that came
/// together do not all come back together.
#[derive(Debug, Clone, Copy)]
pub struct Part(f64);

impl Part {
    pub const HALF: Part = Part(0.5);

    /// `lot` is from 0 to 1.
    pub fn by(lot: f64) -> Part {
        Part(0.4 + lot.clamp(0.0, 1.0) / 10.0)
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
    fn of(self, life: u64) -> u64 {
        (life as f64 * self.0) as u64
    }
}

/// Certificates are valid from so many seconds before their issue, and a bit more is no other life.
const BACKDATED: u64 = 360;
/// Certificates that live too long are replaced within so many seconds, by lot, and within a tenth of the new life.
const SPREAD: u64 = 120;

/// Decides when a certificate that lives longer than those that are issued now is replaced: once for each life that is told.
#[derive(Debug, Default)]
pub struct Shortened {
    /// The life that is told, and when it was first seen that the certificate outlives it.
    seen: Option<(u64, u64)>,
    done: Option<u64>,
}

impl Shortened {
    /// `lot` is from 0 to 1.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds")]
    pub fn is_due(&mut self, life: Life, ttl: u64, now: u64, lot: f64) -> bool {
        if !life.outlives(ttl) || self.done == Some(ttl) {
            self.seen = None;
            return false;
        }
        let (_, since) = *self.seen.get_or_insert((ttl, now));
        let wait = (SPREAD.min(ttl / 10) as f64 * lot.clamp(0.0, 1.0)) as u64;
        // A clock that was set back waits anew.
        if now < since || self.seen != Some((ttl, since)) {
            self.seen = Some((ttl, now));
            return wait == 0;
        }
        now >= since.saturating_add(wait)
    }

    /// A certificate was issued while this was the life that is told: however long it lives, no other is asked for.
    pub fn renewed(&mut self, ttl: u64) {
        self.done = Some(ttl);
    }
}

/// Seconds since 1970, by now.
pub fn now() -> u64 {
    unix(SystemTime::now())
}

/// Seconds since 1970.
pub fn unix(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A moment as people read it.
pub fn shown(unix: u64) -> String {
    let at = i64::try_from(unix).ok().and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| unix.to_string())
}

/// How far the clocks of two hosts may differ.
const SKEW: Duration = Duration::from_secs(300);

/// Why nobody believes this certificate now, in a sentence.
pub fn fault(identity: &WorkloadIdentity, now: SystemTime, not_renewed: Option<String>) -> Option<String> {
    let (life, now) = (Life::of(identity, None), unix(now));
    let why = not_renewed.map_or_else(|| "it is being renewed".to_owned(), |reason| format!("not renewed: {reason}"));
    if life.has_ended(now) {
        return Some(format!("the certificate expired at {}; {why}", shown(life.not_after)));
    }
    if now.saturating_add(SKEW.as_secs()) < life.not_before {
        let from = shown(life.not_before);
        return Some(format!("the certificate is valid only from {from}, is the clock right? {why}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(obtained: Option<u64>, now: u64, due: bool) {
        let life = Life { obtained, not_before: 1_000, not_after: 2_000 };
        assert_eq!(life.is_due(now, Part::HALF), due, "{obtained:?} {now}");
    }

    #[test]
    fn those_that_came_together_come_back_apart() {
        let life = Life { obtained: Some(1_000), not_before: 1_000, not_after: 2_000 };
        let due_at = |lot| (1_000..=2_000).find(|now| life.is_due(*now, Part::by(lot)));
        assert_eq!([0.0, 0.5, 1.0].map(due_at), [Some(1_400), Some(1_450), Some(1_500)]);
    }

    #[test]
    fn one_that_lives_longer_than_new_ones_is_replaced_once_and_spread() {
        const HOUR: u64 = 3_600;
        let day = Life { obtained: None, not_before: 1_000_000, not_after: 1_000_000 + 24 * HOUR + 300 };
        let mut shortened = Shortened::default();
        // Not told, the same, longer, and nearly the same.
        for ttl in [0, 24 * HOUR, 48 * HOUR, 24 * HOUR - 60] {
            assert!(!shortened.is_due(day, ttl, 1_000_600, 0.0), "{ttl}");
        }
        assert!(!shortened.is_due(day, HOUR, 1_000_600, 0.5), "it waits for its lot");
        assert!(!shortened.is_due(day, HOUR, 1_000_659, 0.5));
        assert!(shortened.is_due(day, HOUR, 1_000_660, 0.5));
        // Another life waits anew, and so does a clock that was set back.
        assert!(!shortened.is_due(day, 2 * HOUR, 1_000_660, 0.5));
        assert!(!shortened.is_due(day, 2 * HOUR, 1_000_600, 0.5));
        assert!(shortened.is_due(day, 2 * HOUR, 1_000_660, 0.5));
        // A control plane that issues longer ones all the same is not asked again.
        shortened.renewed(2 * HOUR);
        assert!(!shortened.is_due(day, 2 * HOUR, 1_900_000, 0.0));
        assert!(shortened.is_due(day, HOUR, 1_900_000, 0.0), "until it tells another one");
        let short = Life { not_after: day.not_before + HOUR + 300, ..day };
        assert!(!Shortened::default().is_due(short, HOUR, 1_900_000, 0.0));
    }

    #[test]
    fn it_is_renewed_at_half_of_its_life_whatever_the_clock_did() {
        check(Some(1_300), 1_649, false);
        check(Some(1_300), 1_650, true);
        // Suspended past its end.
        check(Some(1_300), 9_000, true);
        // Not known when it was obtained, or obtained before it began.
        check(None, 1_499, false);
        check(None, 1_500, true);
        check(Some(7), 1_500, true);
        // The clock was ahead when it was obtained, and is right again.
        check(Some(1_900), 1_400, false);
        check(Some(1_900), 1_600, true);
        check(Some(u64::MAX), 1_600, true);
        // The clock was ahead when it was made.
        check(Some(1_300), 900, true);
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
    }
}
