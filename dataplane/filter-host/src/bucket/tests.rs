//! Buckets against an obvious model, over threads, and at their bounds.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;

fn of_ledger(tokens: u32, period_ms: u64, burst: u32, keys: usize, ledger: &Arc<Ledger>) -> Buckets {
    Buckets::new(Limit { name: "l".into(), tokens, period_ms, burst }, keys, ledger).expect("a sound limit")
}

fn buckets(tokens: u32, period_ms: u64, burst: u32, keys: usize) -> Buckets {
    of_ledger(tokens, period_ms, burst, keys, &Arc::default())
}

#[test]
fn burst_then_rate_then_exact_wait() {
    let stats = FilterStats::default();
    let buckets = buckets(3, 1_000, 3, 8);
    let start = Duration::from_secs(5);
    for (remaining, nanos) in [(2, 333_333_334), (1, 666_666_667), (0, 1_000_000_000)] {
        let left = Level { remaining, reset: Duration::from_nanos(nanos) };
        assert_eq!(buckets.take(b"k", 1, start, &stats), Ok(left));
    }
    let wait = buckets.take(b"k", 1, start, &stats).expect_err("empty");
    assert_eq!(wait, Duration::from_nanos(333_333_334), "a third of a second, rounded up");
    assert!(buckets.take(b"k", 1, start + wait - Duration::from_nanos(1), &stats).is_err());
    assert!(buckets.take(b"k", 1, start + wait, &stats).is_ok());
    assert!(buckets.take(b"other", 1, start, &stats).is_ok(), "each key has its own bucket");
}

#[test]
fn agrees_with_a_counting_model() {
    let stats = FilterStats::default();
    let buckets = buckets(7, 100, 5, 8);
    // The model counts in 1/100 of a token per millisecond: 7 a ms, 100 is one token, 500 a full bucket.
    let (mut level, mut now, mut random) = (500_u64, 0_u64, 1_u64);
    for _ in 0..10_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let step = (random >> 60) % 12;
        now += step;
        level = (level + step * 7).min(500);
        let tokens = 1 + u32::try_from((random >> 40) % 3).expect("small");
        let expect = level >= u64::from(tokens) * 100;
        if expect {
            level -= u64::from(tokens) * 100;
        }
        let left = buckets.take(b"k", tokens, Duration::from_millis(now), &stats);
        let remaining = left.ok().map(|left| u64::from(left.remaining));
        assert_eq!(remaining, expect.then_some(level / 100), "at {now} ms");
    }
}

#[test]
fn exact_over_four_threads() {
    let stats = FilterStats::default();
    let buckets = buckets(1, 1_000, 1_000, 8);
    let taken = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    if buckets.take(b"k", 1, Duration::from_millis(1), &stats).is_ok() {
                        taken.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(taken.load(Relaxed), 1_000);
}

/// What four threads took and did not give back is what lacks.
#[test]
fn what_is_taken_and_given_back_over_four_threads_adds_up() {
    let stats = FilterStats::default();
    let (buckets, now, kept) = (buckets(1, 1_000, 1_000, 8), Duration::from_millis(1), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let (buckets, stats, kept) = (&buckets, &stats, &kept);
            scope.spawn(move || {
                for step in 0..1_000 {
                    let tokens = 1 + step % 3;
                    if buckets.take(b"k", tokens, now, stats).is_err() {
                        continue;
                    }
                    let given = if (step + thread) % 2 == 0 { tokens } else { 0 };
                    buckets.give_back(b"k", given);
                    kept.fetch_add(tokens - given, Relaxed);
                }
            });
        }
    });
    let left = (0..2_000).take_while(|_| buckets.take(b"k", 1, now, &stats).is_ok()).count();
    assert_eq!(u32::try_from(left), Ok(1_000 - kept.load(Relaxed)));
}

#[test]
fn keys_are_bounded_and_full_buckets_forgotten() {
    let stats = FilterStats::default();
    let buckets = buckets(1, 1_000, 1, 4);
    let now = Duration::from_secs(1);
    for key in 0..4_u8 {
        assert!(buckets.take(&[key], 1, now, &stats).is_ok());
    }
    assert!(buckets.take(b"fifth", 1, now, &stats).is_ok(), "the shared bucket");
    assert!(buckets.take(b"sixth", 1, now, &stats).is_err(), "the shared bucket is empty");
    assert_eq!(stats.bucket_overflows.value(), 2);
    assert!(buckets.full_at.len() <= 5);
    let later = now + Duration::from_secs(1);
    assert!(buckets.take(b"sixth", 1, later, &stats).is_ok(), "the others ran full and made room");
    assert_eq!(buckets.full_at.len(), 1);
}

#[test]
fn more_than_the_burst_is_never_there() {
    let stats = FilterStats::default();
    assert!(buckets(1, 1_000, 2, 4).take(b"k", 3, Duration::from_secs(9), &stats).is_err());
}

#[test]
fn a_new_configuration_finds_its_buckets() {
    let registry = BucketRegistry::default();
    let name: Arc<str> = "f".into();
    let limit = |burst| Limit { name: "l".into(), tokens: 1, period_ms: 1_000, burst };
    let first = registry.define(&name, limit(1), 8, Duration::ZERO).expect("sound");
    assert!(Arc::ptr_eq(&first, &registry.define(&name, limit(1), 8, Duration::ZERO).expect("sound")));
    assert!(
        !Arc::ptr_eq(&first, &registry.define(&name, limit(2), 8, Duration::ZERO).expect("sound")),
        "another limit"
    );
    drop(first);
    registry.sweep();
    assert_eq!(registry.limits.len(), 0);
}

#[test]
fn what_is_given_back_can_be_taken_again_and_fills_no_bucket_over() {
    let stats = FilterStats::default();
    let buckets = buckets(1, 1_000, 2, 8);
    let now = Duration::from_secs(9);
    let take = || buckets.take(b"k", 1, now, &stats).is_ok();
    assert_eq!([take(), take(), take()], [true, true, false]);
    buckets.give_back(b"k", 1);
    assert_eq!([take(), take()], [true, false]);
    buckets.give_back(b"k", 1_000);
    buckets.give_back(b"nobody", 1_000);
    assert_eq!([take(), take(), take()], [true, true, false]);
}

#[test]
fn a_changed_limit_does_not_start_full() {
    let (stats, registry, filter) = (FilterStats::default(), BucketRegistry::default(), Arc::from("shop/limit"));
    let define = |name: &str, tokens, period_ms, burst, now| {
        let limit = Limit { name: name.into(), tokens, period_ms, burst };
        registry.define(&filter, limit, 8, now).expect("a sound limit")
    };
    let now = Duration::from_secs(100);
    let minute = define("a", 10, 60_000, 10, now);
    for _ in 0..7 {
        assert!(minute.take(b"k", 1, now, &stats).is_ok());
    }
    let left =
        |buckets: &Buckets, key: &[u8]| (0..99).take_while(|_| buckets.take(key, 1, now, &stats).is_ok()).count();
    let more = define("a", 20, 60_000, 20, now);
    assert_eq!((left(&more, b"k"), left(&more, b"other")), (13, 20), "7 of its tokens are taken");
    let fewer = define("a", 5, 1_000, 5, now);
    assert_eq!(left(&fewer, b"k"), 0, "never more than empty");
    assert!(fewer.take(b"k", 5, now + Duration::from_secs(1), &stats).is_ok(), "and full again after its own period");
    assert_eq!(left(&define("b", 5, 1_000, 5, now), b"k"), 5, "another name is another limit");
}

#[test]
fn what_all_filters_keep_bounds_the_keys_too() {
    let (stats, ledger) = (FilterStats::default(), Arc::new(Ledger::new(2 * (1 + OVERHEAD))));
    let (one, other) = (of_ledger(1, 1_000, 1, 8, &ledger), of_ledger(1, 1_000, 1, 8, &ledger));
    let now = Duration::from_secs(1);
    assert!(one.take(b"a", 1, now, &stats).is_ok() && other.take(b"b", 1, now, &stats).is_ok());
    assert!(one.take(b"c", 1, now, &stats).is_ok(), "the shared bucket");
    assert!(one.take(b"d", 1, now, &stats).is_err(), "the shared bucket is empty");
    assert_eq!((stats.bucket_overflows.value(), ledger.used()), (2, 2 * (1 + OVERHEAD)));
    drop(other);
    assert!(one.take(b"d", 1, now, &stats).is_ok(), "there is room again");
    let later = now + Duration::from_secs(2);
    assert!(one.take(b"e", 1, later, &stats).is_ok(), "the others ran full and made room");
    assert_eq!(ledger.used(), 1 + OVERHEAD);
    drop(one);
    assert_eq!(ledger.used(), 0);
}

#[test]
fn a_limit_has_some_keys_whatever_others_keep() {
    let (stats, ledger) = (FilterStats::default(), Arc::new(Ledger::new(1_024_000)));
    assert!(ledger.take(Holding::Messages, 0, 768_000), "a crowd of another policy's callers");
    let buckets = of_ledger(1, 1_000, 1, 64, &ledger);
    let now = Duration::from_secs(1);
    let taken = (0..12_u8).filter(|key| buckets.take(&[*key], 1, now, &stats).is_ok()).count();
    assert_eq!((taken, stats.bucket_overflows.value()), (11, 2), "ten have buckets, the others share one");
}
