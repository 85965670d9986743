//! Costs and actions of filters, as plain atomics that all workers bump and anybody may read.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::failure::{FailureKind, TrapKind};
use crate::hook::Hook;
use crate::metrics::{CustomMetric, CustomMetrics};
use crate::spec::Digest;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, delta: u64) {
        self.0.fetch_add(delta, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn add(&self, delta: u64) {
        self.0.fetch_add(delta, Relaxed);
    }

    pub(crate) fn subtract(&self, delta: u64) {
        self.0.fetch_sub(delta, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Rules of a filter that are counted apart.
const MAX_RULES: usize = 64;
/// Reasons of a filter's answers that are counted apart.
const MAX_REASONS: usize = 32;
/// The word for all reasons beyond them.
pub const OTHER_REASONS: &str = "other";

/// Verdicts that audit mode kept from happening, by the rule that decided.
pub type Audited = Tally<MAX_RULES>;
/// Answers of a filter, by the reason that it gave.
pub type Replies = Tally<MAX_REASONS>;

/// Counts by a filter's own words: the first `MOST` of them apart, all others together.
#[derive(Debug, Default)]
pub struct Tally<const MOST: usize> {
    /// Those without a word, and of words beyond the bound.
    rest: Counter,
    by_word: RwLock<BTreeMap<Box<str>, Counter>>,
}

impl<const MOST: usize> Tally<MOST> {
    pub(crate) fn add(&self, word: Option<&str>) {
        let Some(word) = word else { return self.rest.add(1) };
        if let Some(known) = self.by_word.read().unwrap_or_else(PoisonError::into_inner).get(word) {
            return known.add(1);
        }
        let mut words = self.by_word.write().unwrap_or_else(PoisonError::into_inner);
        let counter = match words.len() < MOST || words.contains_key(word) {
            true => &*words.entry(word.into()).or_default(),
            false => &self.rest,
        };
        counter.add(1);
    }

    /// All of them.
    pub fn value(&self) -> u64 {
        self.rest() + self.by_word().iter().map(|(_, count)| count).sum::<u64>()
    }

    /// Those of no word that is counted apart.
    pub fn rest(&self) -> u64 {
        self.rest.value()
    }

    /// The others, each word with its count.
    pub fn by_word(&self) -> Vec<(String, u64)> {
        let words = self.by_word.read().unwrap_or_else(PoisonError::into_inner);
        words.iter().map(|(word, count)| (word.to_string(), count.value())).collect()
    }
}

/// Upper bounds of a [`Timing`]'s buckets, seconds.
const BOUNDS: [f64; 9] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 180.0];

/// Durations of seconds and minutes, counted by how long they were.
#[derive(Debug, Default)]
pub struct Timing {
    /// By upper bound; the last has none.
    buckets: [Counter; BOUNDS.len() + 1],
    millis: Counter,
}

impl Timing {
    pub(crate) fn note(&self, took: Duration) {
        let bucket = BOUNDS.iter().take_while(|bound| took.as_secs_f64() > **bound).count();
        self.buckets[bucket].add(1);
        self.millis.add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    }

    /// How many there were that lasted no longer than each bound, in seconds.
    pub fn cumulative(&self) -> [(f64, u64); BOUNDS.len()] {
        let mut count = 0;
        std::array::from_fn(|at| {
            count += self.buckets[at].value();
            (BOUNDS[at], count)
        })
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::value).sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_millis(self.millis.value())
    }
}

/// Upper bounds of [`CallTimes`]' buckets, in microseconds; the last bucket has none.
pub const CALL_TIME_BOUNDS: [u64; 14] = [2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000];

/// Sets of numbers of calls. Up to so many workers have one each: a number that two of them bump would move from one
/// processor's cache to the other's with each call.
const SHARDS: usize = 8;

/// The calls of one worker. Nothing else lies in its lines of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Calls {
    by_hook: [AtomicU64; Hook::COUNT],
    buckets: [AtomicU64; CALL_TIME_BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// Calls into the sandbox, and how long they took.
#[derive(Debug, Default)]
pub struct CallTimes([Calls; SHARDS]);

impl CallTimes {
    /// Counts a call. `worker`: its number.
    pub(crate) fn record(&self, worker: usize, hook: Hook, time: Duration) {
        let calls = &self.0[worker % SHARDS];
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = CALL_TIME_BOUNDS.iter().take_while(|bound| micros > **bound).count();
        calls.by_hook[hook.index()].fetch_add(1, Relaxed);
        calls.buckets[bucket].fetch_add(1, Relaxed);
        calls.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn total(&self, number: impl Fn(&Calls) -> &AtomicU64) -> u64 {
        self.0.iter().map(|calls| number(calls).load(Relaxed)).sum()
    }

    fn at(&self, hook: Hook) -> u64 {
        self.total(|calls| &calls.by_hook[hook.index()])
    }

    /// Calls by bucket, not cumulative.
    pub fn buckets(&self) -> impl Iterator<Item = u64> + '_ {
        (0..=CALL_TIME_BOUNDS.len()).map(move |bucket| self.total(|calls| &calls.buckets[bucket]))
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.total(|calls| &calls.nanos))
    }
}

/// Counters of one attachment; they outlive its configurations.
#[derive(Debug, Default)]
pub struct FilterStats {
    pub call_time: CallTimes,
    /// Answers given by the filter that were sent.
    pub replies: Replies,
    /// Answers, delays and changes that audit mode kept from happening.
    pub audited: Audited,
    pub delays: Counter,
    /// Changes made to heads.
    pub edits: Counter,
    /// Failures by kind; together they are all failures.
    pub traps: Counter,
    /// The same, by kind.
    pub traps_by_kind: [Counter; TrapKind::ALL.len()],
    pub timeouts: Counter,
    /// Verdicts or edits that the contract forbids.
    pub invalid_results: Counter,
    /// Instances that could not be made: the pool is full, or the configuration was refused the second time.
    pub instantiation_failures: Counter,
    /// Hooks of streams whose state went with a trapped instance.
    pub lost_streams: Counter,
    /// Calls not made because all calls for the request together had taken too long.
    pub budgets_spent: Counter,
    /// Waits whose answers did not come in time.
    pub waits_over: Counter,
    /// Streams of which something could not be kept: the process keeps as much for filters as it may.
    pub no_room: Counter,
    /// Pauses that began: the filter had failed on one caller again and again (`onFailure: Allow`).
    pub backoffs: Counter,
    /// Requests that passed the filter by in such a pause.
    pub backoff_skips: Counter,
    /// Bodies that were longer than the filter takes.
    pub long_bodies: Counter,
    /// Streams that the filter ended without an answer.
    pub resets: Counter,
    /// Times that a stream was held for answers or for a time, and what was asked of services.
    pub waits: Counter,
    pub callouts: Counter,
    /// Times that a request waited while an instance was made or given its configuration: no spare one was ready.
    pub configured_inline: Counter,
    /// Instances replaced because their memory had grown.
    pub recycled: Counter,
    /// Failures that let the request go on (`onFailure: Allow`, or audit mode).
    pub failed_open: Counter,
    /// Failures that ended the request (`onFailure: Deny`).
    pub failed_closed: Counter,
    /// Times that linear memory was refused to grow.
    pub memory_limit_hits: Counter,
    pub log_lines_dropped: Counter,
    /// Takes from the bucket that keys beyond the bound share.
    pub bucket_overflows: Counter,
    /// Calls of capabilities that the filter is not granted.
    pub denied_calls: Counter,
    /// Values that had to go for others before they ended.
    pub kv_evictions: Counter,
    /// Values of its own metrics that came beyond the bound of label sets, and those that could not be taken: of a
    /// metric or of labels that are none, or no number.
    pub metric_overflows: Counter,
    pub metric_misuses: Counter,
    /// Live instances and the bytes of their linear memories.
    pub instances: Gauge,
    pub memory_bytes: Gauge,
    pub(crate) custom: CustomMetrics,
}

impl FilterStats {
    /// Calls at all hooks.
    pub fn calls(&self) -> u64 {
        Hook::ALL.into_iter().map(|hook| self.call_time.at(hook)).sum()
    }

    pub fn calls_at(&self, hook: Hook) -> u64 {
        self.call_time.at(hook)
    }

    pub fn traps_of(&self, kind: TrapKind) -> u64 {
        self.traps_by_kind[kind.index()].value()
    }

    /// Calls and streams that the filter has failed, by kind.
    pub fn failures(&self) -> Vec<(&'static str, u64)> {
        let traps = TrapKind::ALL.into_iter().map(|kind| (kind.as_str(), self.traps_of(kind)));
        let others = [
            ("timeout", &self.timeouts),
            ("budget", &self.budgets_spent),
            ("invalid_result", &self.invalid_results),
            ("not_instantiated", &self.instantiation_failures),
            ("state_lost", &self.lost_streams),
            ("wait_over", &self.waits_over),
            ("no_room", &self.no_room),
        ];
        traps.chain(others.map(|(kind, counter)| (kind, counter.value()))).collect()
    }

    /// Notes an answer of the filter that is sent. A filter that gives the word for all other reasons is counted with those.
    pub(crate) fn replied(&self, reason: &str) {
        self.replies.add((reason != OTHER_REASONS).then_some(reason));
    }

    pub(crate) fn failed(&self, kind: FailureKind) {
        let counter = match kind {
            FailureKind::Trap(kind) => {
                self.traps_by_kind[kind.index()].add(1);
                &self.traps
            }
            FailureKind::Timeout => &self.timeouts,
            FailureKind::Budget => &self.budgets_spent,
            FailureKind::InvalidResult => &self.invalid_results,
            FailureKind::NoInstance => &self.instantiation_failures,
            FailureKind::StateLost => &self.lost_streams,
            FailureKind::WaitOver => &self.waits_over,
            FailureKind::NoRoom => &self.no_room,
        };
        counter.add(1);
    }

    pub fn custom(&self) -> Vec<Arc<CustomMetric>> {
        self.custom.all()
    }
}

/// One prepared filter that is alive, with its attachment's counters.
#[derive(Debug, Clone)]
pub struct HostStats {
    pub name: String,
    pub filter: String,
    pub version: String,
    pub digest: Digest,
    pub stats: Arc<FilterStats>,
    /// Its instances and their memory, which it may share with other filters.
    pub program: Arc<FilterStats>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_times_fall_into_their_buckets() {
        let times = CallTimes::default();
        for (worker, micros) in [0, 2, 3, 250_000, 250_001].into_iter().enumerate() {
            times.record(worker * 3, Hook::Done, Duration::from_micros(micros));
        }
        assert_eq!((times.at(Hook::Done), times.at(Hook::Tick)), (5, 0));
        assert_eq!(times.buckets().collect::<Vec<_>>(), [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(times.sum(), Duration::from_micros(500_006));
    }

    #[test]
    fn audited_verdicts_are_counted_by_as_many_rules_as_there_is_room_for() {
        let audited = Audited::default();
        for number in 0..=MAX_RULES {
            audited.add(Some(&format!("rule-{number:02}")));
            audited.add(Some("rule-00"));
        }
        audited.add(None);
        let by_rule = audited.by_word();
        assert_eq!((by_rule.len(), audited.rest()), (MAX_RULES, 2), "one of no rule, one beyond the bound");
        assert_eq!(by_rule[0], ("rule-00".to_owned(), 66));
        assert_eq!(audited.value(), 2 * 65 + 1);
    }

    #[test]
    fn answers_are_counted_by_the_first_reasons_and_the_rest_together() {
        let stats = FilterStats::default();
        for number in 0..MAX_REASONS {
            stats.replied(&format!("reason-{number:02}"));
        }
        for reason in ["from 10.0.0.1", "from 10.0.0.2", OTHER_REASONS, "reason-31"] {
            stats.replied(reason);
        }
        let by_reason = stats.replies.by_word();
        assert_eq!((by_reason.len(), stats.replies.rest(), stats.replies.value()), (MAX_REASONS, 3, 36));
        assert_eq!(by_reason.last(), Some(&("reason-31".to_owned(), 2)));
    }

    #[test]
    fn durations_are_counted_by_their_bounds() {
        let timing = Timing::default();
        [0, 100, 101, 60_000, 1_000_000].map(Duration::from_millis).into_iter().for_each(|took| timing.note(took));
        let counts = timing.cumulative().map(|(_, count)| count);
        assert_eq!(counts, [2, 3, 3, 3, 3, 3, 3, 4, 4]);
        assert_eq!((timing.count(), timing.sum()), (5, Duration::from_millis(1_060_201)));
    }
}
