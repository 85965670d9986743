//! Stores of values against an obvious model, over threads, and at their bounds.

use super::*;

const WIDE: KvLimits = KvLimits { entries: 1_000, bytes: 1 << 20 };

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn write(now: u64, ttl_ms: u64, limits: KvLimits) -> Write {
    Write { now: at(now), ttl_ms, limits }
}

/// Entries in the order of their writes, the oldest first.
#[derive(Default)]
struct Model(Vec<(Vec<u8>, Vec<u8>, Option<Duration>)>);

impl Model {
    fn get(&self, key: &[u8], now: Duration) -> Option<(Vec<u8>, Option<Duration>)> {
        let found = self.0.iter().find(|(known, _, end)| known == key && end.is_none_or(|end| now < end));
        found.map(|(_, value, end)| (value.clone(), *end))
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(key, value, _)| key.len() + value.len() + OVERHEAD).sum()
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, end: Option<Duration>, write: Write) -> bool {
        let bytes = key.len() + value.len() + OVERHEAD;
        if bytes > write.limits.bytes {
            return false;
        }
        self.0.retain(|(known, ..)| known != key);
        let is_full =
            |model: &Self| model.0.len() >= write.limits.entries || model.bytes() + bytes > write.limits.bytes;
        if is_full(&*self) {
            self.0.retain(|(_, _, end)| end.is_none_or(|end| write.now < end));
        }
        while is_full(&*self) {
            self.0.remove(0);
        }
        self.0.push((key.to_vec(), value, end));
        true
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn agrees_with_an_obvious_model() {
    for seed in 0..1_000 {
        let (mut random, mut now) = (Random(seed), 0);
        let (store, mut model) = (KvStore::default(), Model::default());
        for step in 0..100 {
            now += random.below(4);
            let key = vec![b'k'; 1 + usize::try_from(random.below(8)).expect("small")];
            let value = random.below(40).to_string().repeat(usize::try_from(random.below(30)).expect("small") + 1);
            let limits = KvLimits { entries: 4, bytes: 4 * OVERHEAD + 60 };
            let write = write(now, random.below(3) * 5, limits);
            let end = (write.ttl_ms > 0).then(|| write.now + at(write.ttl_ms));
            let known = model.get(&key, write.now);
            let context = || format!("seed {seed}, step {step}");
            match random.below(5) {
                0 => {
                    let is_set = model.put(&key, value.clone().into_bytes(), end, write);
                    assert_eq!(store.set(&key, value.as_bytes(), write).is_ok(), is_set, "{}", context());
                }
                1 => {
                    let number = match &known {
                        None => Some(0),
                        Some((value, _)) => String::from_utf8_lossy(value).parse::<i64>().ok(),
                    };
                    let sum = number.and_then(|number| number.checked_add(7));
                    let kept = known.map_or(end, |(_, end)| end);
                    let expect = sum.filter(|sum| model.put(&key, sum.to_string().into_bytes(), kept, write));
                    assert_eq!(store.add(&key, 7, write).ok().map(|(sum, _)| sum), expect, "{}", context());
                }
                2 => {
                    let expected =
                        random.below(2).eq(&0).then_some(known.as_ref()).flatten().map(|(value, _)| &**value);
                    let is_so = known.as_ref().map(|(value, _)| &**value) == expected;
                    let is_set = is_so && model.put(&key, value.clone().into_bytes(), end, write);
                    let swapped = store.compare_and_swap(&key, expected, value.as_bytes(), write);
                    assert_eq!(swapped.is_ok(), is_set, "{}", context());
                    assert_eq!(swapped == Err(KvError::Changed), !is_so, "{}", context());
                }
                3 => {
                    model.0.retain(|(known, ..)| *known != key);
                    store.remove(&key).expect("a sound key");
                }
                _ => {}
            }
            for length in 1..=8 {
                let key = vec![b'k'; length];
                let got = store.get(&key, at(now)).expect("a sound key");
                assert_eq!(got.as_deref(), model.get(&key, at(now)).as_ref().map(|it| &*it.0), "{}", context());
            }
        }
        let entries = store.lock();
        assert_eq!(entries.written.len(), entries.by_key.len());
        let cost: usize = entries.by_key.iter().map(|(key, entry)| super::cost(key, &entry.value)).sum();
        assert_eq!(entries.bytes, cost);
        assert_eq!(entries.ending.len(), entries.by_key.values().filter(|entry| entry.ends.is_some()).count());
    }
}

#[test]
fn exact_over_four_threads() {
    let store = KvStore::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    store.add(b"sum", 1, write(1, 0, WIDE)).expect("a number");
                    loop {
                        let known = store.get(b"swapped", at(1)).expect("a sound key");
                        let text = known.as_ref().map_or_else(String::new, |known| "x".repeat(known.len() % 1_000 + 1));
                        if store
                            .compare_and_swap(b"swapped", known.as_deref(), text.as_bytes(), write(1, 0, WIDE))
                            .is_ok()
                        {
                            break;
                        }
                    }
                }
            });
        }
    });
    assert_eq!(store.add(b"sum", 0, write(1, 0, WIDE)), Ok((4_000, 0)));
    // The first swap put nothing there; each of the others added one, and a thousand begins anew.
    let swapped = store.get(b"swapped", at(1)).expect("a sound key").expect("it is there");
    assert_eq!(swapped.len(), 3_999 % 1_000);
}

#[test]
fn bounds_of_keys_values_and_numbers() {
    let store = KvStore::default();
    let write = write(1, 0, WIDE);
    for key in [&b""[..], &[b'k'; MAX_KEY + 1]] {
        assert!(matches!(store.set(key, b"", write), Err(KvError::Invalid(_))), "{}", key.len());
        assert!(matches!(store.get(key, at(1)), Err(KvError::Invalid(_))), "{}", key.len());
    }
    assert!(matches!(store.set(b"k", &[0; MAX_VALUE + 1], write), Err(KvError::Invalid(_))));
    assert_eq!(store.set(b"k", &[0; MAX_VALUE], write), Ok(0));
    assert!(matches!(store.add(b"k", 1, write), Err(KvError::Invalid(_))), "no number");
    let narrow = Write { limits: KvLimits { entries: 1, bytes: OVERHEAD + 2 }, ..write };
    assert!(matches!(store.set(b"k", b"ab", narrow), Err(KvError::Full(_))));
    assert!(store.get(b"k", at(1)).expect("a sound key").is_some(), "what can't be kept replaces nothing");
    assert_eq!(store.set(b"l", b"a", narrow), Ok(1), "a narrower grant makes room as it needs it");
    store.set(b"max", i64::MAX.to_string().as_bytes(), write).expect("room");
    assert!(matches!(store.add(b"max", 1, write), Err(KvError::Invalid(_))));
    assert_eq!(store.add(b"max", -1, write), Ok((i64::MAX - 1, 0)));
}

#[test]
fn a_number_ends_when_it_was_to_end() {
    let store = KvStore::default();
    let window = |now| write(now, 100, WIDE);
    assert_eq!(store.add(b"k", 1, window(1_000)), Ok((1, 0)));
    assert_eq!(store.add(b"k", 1, window(1_099)), Ok((2, 0)), "and is not prolonged");
    assert_eq!(store.add(b"k", 1, window(1_100)), Ok((1, 0)));
}

#[test]
fn values_live_as_long_as_somebody_may_see_them() {
    let registry = KvRegistry::default();
    let first = registry.open(KvScope::Policy, "shop/limit", "quota");
    first.set(b"k", b"v", write(1, 0, WIDE)).expect("room");
    let next = registry.open(KvScope::Policy, "shop/limit", "quota");
    drop(first);
    assert!(next.get(b"k", at(1)).expect("a sound key").is_some(), "a new configuration of the attachment");
    for (scope, name) in
        [(KvScope::Policy, "shop/other"), (KvScope::Policy, "partner/limit"), (KvScope::Filter, "shop/limit")]
    {
        let other = registry.open(scope, name, "quota");
        assert_eq!(other.get(b"k", at(1)), Ok(None), "{scope:?} {name}");
    }
    let of_filter = registry.open(KvScope::Filter, "shop/limit", "quota");
    assert!(Arc::ptr_eq(&of_filter, &registry.open(KvScope::Filter, "shop/other", "quota")));
    assert!(!Arc::ptr_eq(&of_filter, &registry.open(KvScope::Filter, "partner/limit", "quota")));
    assert!(!Arc::ptr_eq(&of_filter, &registry.open(KvScope::Filter, "shop/limit", "another")));
    drop(next);
    assert_eq!(registry.open(KvScope::Policy, "shop/limit", "quota").get(b"k", at(1)), Ok(None));
}

#[test]
fn what_all_filters_keep_bounds_every_store() {
    let entry = (OVERHEAD + 2) as u64;
    let ledger = Arc::new(Ledger::new(3 * entry));
    let registry = KvRegistry::new(&ledger);
    let [one, other] = ["a/p", "b/p"].map(|name| registry.open(KvScope::Policy, name, "f"));
    let put = |store: &KvStore, key: &[u8]| store.set(key, b"v", write(1, 0, WIDE));
    assert_eq!((put(&one, b"a"), put(&one, b"b"), put(&other, b"c")), (Ok(0), Ok(0), Ok(0)));
    assert_eq!(put(&one, b"d"), Ok(1), "its own oldest makes room");
    assert_eq!((one.get(b"a", at(1)), other.get(b"c", at(1)).map(|value| value.is_some())), (Ok(None), Ok(true)));
    other.remove(b"c").expect("a key");
    assert_eq!((put(&one, b"e"), ledger.used()), (Ok(0), 3 * entry));
    assert!(matches!(put(&other, b"f"), Err(KvError::Full(_))), "nothing of its own can go");
    drop(one);
    assert_eq!((put(&other, b"f"), ledger.used()), (Ok(0), entry));
    drop(other);
    assert_eq!((ledger.used(), ledger.refusals()[0]), (0, ("kv", 2)));
}

#[test]
fn a_store_has_a_little_whatever_others_keep() {
    let ledger = Arc::new(Ledger::new(1_024_000));
    let store = KvRegistry::new(&ledger).open(KvScope::Policy, "a/p", "f");
    assert!(ledger.take(Holding::Messages, 0, 768_000), "a crowd of another policy's callers");
    let put = |key: &[u8]| store.set(key, &[0; 100], write(1, 0, WIDE));
    for key in [b"a", b"b", b"c", b"d"] {
        assert_eq!(put(key), Ok(0));
    }
    assert_eq!((put(b"e"), store.get(b"a", at(1))), (Ok(1), Ok(None)), "beyond that its own oldest makes room");
}
