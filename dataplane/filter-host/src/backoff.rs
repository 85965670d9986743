//! Callers whose requests pass a filter by for a while, since it failed on them again and again. Only for filters that
//! may be passed by (`onFailure: Allow`), and for nobody but the caller that it failed on. Pure: `now` is an argument.
//! Each worker has its own.

use std::collections::HashMap;
use std::time::Duration;

/// So many failures in a row start a pause.
const FAILURES: u32 = 5;
/// The first pause; each one that a failure follows is twice as long, up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Failures that nothing followed for so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(120);
/// Callers, over all filters, that are remembered.
const ENTRIES: usize = 1_024;

/// By filter and caller.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    filters: HashMap<u64, HashMap<Box<str>, Entry>>,
    entries: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    failures: u32,
    last: Duration,
    until: Duration,
}

impl BackOff {
    /// The cheap question of the hot path.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// True while `filter` is not called for `caller`.
    pub(crate) fn skips(&self, filter: u64, caller: &str, now: Duration) -> bool {
        let entry = self.filters.get(&filter).and_then(|callers| callers.get(caller));
        entry.is_some_and(|entry| now < entry.until)
    }

    /// Counts a failure; true when a pause starts with it.
    pub(crate) fn failed(&mut self, filter: u64, caller: &str, now: Duration) -> bool {
        if let Some(entry) = self.filters.get_mut(&filter).and_then(|callers| callers.get_mut(caller)) {
            if now.saturating_sub(entry.last) > FORGOTTEN {
                entry.failures = 0;
            }
            entry.failures = entry.failures.saturating_add(1);
            entry.last = now;
            entry.until = entry.until.max(now + pause(entry.failures));
            return entry.until > now;
        }
        self.make_room(now);
        let entry = Entry { failures: 1, last: now, until: now };
        self.filters.entry(filter).or_default().insert(caller.into(), entry);
        self.entries += 1;
        false
    }

    /// A call went well: the caller's failures are forgotten.
    pub(crate) fn succeeded(&mut self, filter: u64, caller: &str) {
        let Some(callers) = self.filters.get_mut(&filter) else { return };
        if callers.remove(caller).is_some() {
            self.entries -= 1;
        }
        if callers.is_empty() {
            self.filters.remove(&filter);
        }
    }

    /// Where it is full: what is forgotten goes, and the caller that failed longest ago.
    fn make_room(&mut self, now: Duration) {
        if self.entries < ENTRIES {
            return;
        }
        let lives = |entry: &Entry| now.saturating_sub(entry.last) <= FORGOTTEN || now < entry.until;
        for callers in self.filters.values_mut() {
            callers.retain(|_, entry| lives(entry));
        }
        self.filters.retain(|_, callers| !callers.is_empty());
        self.entries = self.filters.values().map(HashMap::len).sum();
        if self.entries < ENTRIES {
            return;
        }
        let all = self.filters.iter().flat_map(|(filter, callers)| callers.iter().map(move |it| (filter, it)));
        let oldest =
            all.min_by_key(|(_, (_, entry))| entry.last).map(|(filter, (caller, _))| (*filter, caller.clone()));
        if let Some((filter, caller)) = oldest {
            self.succeeded(filter, &caller);
        }
    }
}

/// How long the filter is passed by after so many failures in a row.
fn pause(failures: u32) -> Duration {
    match failures.checked_sub(FAILURES) {
        None => Duration::ZERO,
        Some(more) => FIRST.saturating_mul(1 << more.min(16)).min(LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The rule by definition: all that ever happened to one caller of one filter.
    fn model(history: &[(Duration, bool)], now: Duration) -> bool {
        let (mut row, mut last, mut until) = (0, Duration::ZERO, Duration::ZERO);
        for (at, failed) in history {
            if !failed {
                (row, until) = (0, Duration::ZERO);
                continue;
            }
            row = if row > 0 && *at - last > FORGOTTEN { 1 } else { row + 1 };
            last = *at;
            let seconds = if row < 5 { 0 } else { 2_u64.pow((row - 5).min(6)).min(60) };
            until = until.max(*at + Duration::from_secs(seconds));
        }
        now < until
    }

    #[test]
    fn it_does_as_the_model_says() {
        for seed in 1..=1_000_u64 {
            let mut state = seed;
            let mut roll = |sides: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % sides
            };
            let mut backoff = BackOff::default();
            let mut histories: HashMap<(u64, &str), Vec<(Duration, bool)>> = HashMap::new();
            let mut now = Duration::ZERO;
            for step in 0..60 {
                now += Duration::from_millis(if roll(20) == 0 { 150_000 } else { roll(3_000) });
                let key = (roll(2), ["a", "b"][usize::from(roll(2) == 0)]);
                let history = histories.entry(key).or_default();
                let skips = model(history, now);
                assert_eq!(backoff.skips(key.0, key.1, now), skips, "seed {seed}, step {step}");
                // A call that was under way when the pause began may still end.
                if skips && roll(4) != 0 {
                    continue;
                }
                let failed = roll(8) != 0;
                history.push((now, failed));
                if failed {
                    assert_eq!(backoff.failed(key.0, key.1, now), model(history, now), "seed {seed}, step {step}");
                } else {
                    backoff.succeeded(key.0, key.1);
                }
            }
        }
    }

    #[test]
    fn it_is_bounded_and_forgets_who_failed_longest_ago() {
        let mut backoff = BackOff::default();
        for _ in 0..FAILURES {
            backoff.failed(1, "first", SECOND);
        }
        assert!(backoff.skips(1, "first", SECOND) && !backoff.skips(1, "second", SECOND));
        assert!(!backoff.skips(2, "first", SECOND), "another filter");
        for caller in 1..ENTRIES * 2 {
            backoff.failed(2, &caller.to_string(), SECOND * 2);
        }
        assert_eq!(backoff.entries, ENTRIES);
        assert!(!backoff.skips(1, "first", SECOND), "it made room");
        let later = SECOND * 2 + FORGOTTEN * 2;
        backoff.failed(1, "first", later);
        assert_eq!(backoff.entries, 1, "those of long ago are forgotten");
        backoff.succeeded(1, "first");
        assert!(backoff.is_empty());
    }
}
