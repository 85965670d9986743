//! Shares of endpoints under steady load, on a clock of its own, beside a reference that knows how fast each endpoint
//! really is: equal ones get equal shares from any start, a slow one gets what the reference gives it and a few samples.

use std::collections::BTreeMap;

use super::tests::Named;
use super::*;

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];
const REQUESTS: u64 = 300;
/// 50 requests a second.
const PAUSE: Duration = Duration::from_millis(20);

/// How long an endpoint takes, in microseconds.
#[derive(Debug, Clone, Copy)]
enum Answers {
    Steady(u64),
    /// Uniform between the two.
    Between(u64, u64),
    /// Usually the first, one in fifty the second.
    Stalls(u64, u64),
}

impl Answers {
    fn draw(self, dice: u64) -> Duration {
        let micros = match self {
            Answers::Steady(micros) => micros,
            Answers::Between(least, most) => least + below(dice, most - least),
            Answers::Stalls(usual, stalled) => {
                if below(dice, 50) == 0 {
                    stalled
                } else {
                    usual
                }
            }
        };
        Duration::from_micros(micros)
    }
}

/// Circumstances under which a run begins.
#[derive(Debug, Clone, Copy)]
enum Start {
    Fresh,
    /// The first answer of the first endpoint takes this many milliseconds.
    Slow(u64),
    /// The first answer of the first endpoint is a failure.
    Failure,
    /// The first endpoint is measured alone, for a while, before the others come.
    Alone,
}

/// Number of requests that each endpoint got, of `REQUESTS` in all, when each answers as `answers` says.
fn shares(answers: &[Answers], start: Start, seed: u64) -> BTreeMap<&'static str, u64> {
    let keys = &KEYS[..answers.len()];
    let mut dice = seed;
    let mut balancer = Named::default();
    let mut now = Duration::ZERO;
    let mut under_way: BTreeMap<(Duration, u64), (&str, Duration, Outcome)> = BTreeMap::new();
    if matches!(start, Start::Alone) {
        balancer.update([(keys[0], 1)]);
        for _ in 0..50 {
            now += PAUSE;
            balancer.started(keys[0]);
            balancer.finished(keys[0], now, answers[0].draw(next_dice(&mut dice)), Outcome::Success);
        }
    }
    balancer.update(keys.iter().map(|key| (*key, 1)));
    let mut got: BTreeMap<_, _> = keys.iter().map(|key| (*key, 0)).collect();
    for serial in 0..REQUESTS {
        now += PAUSE;
        while let Some(ended) = under_way.first_entry().filter(|ended| ended.key().0 <= now) {
            let ((at, _), (key, latency, outcome)) = ended.remove_entry();
            balancer.finished(key, at, latency, outcome);
        }
        let key = balancer.pick(now, next_dice(&mut dice), &[]).unwrap();
        balancer.started(key);
        let at = keys.iter().position(|known| *known == key).unwrap();
        let mut latency = answers[at].draw(next_dice(&mut dice));
        let mut outcome = Outcome::Success;
        if at == 0 && got[key] == 0 {
            match start {
                Start::Slow(ms) => latency = Duration::from_millis(ms),
                Start::Failure => outcome = Outcome::Failure,
                Start::Fresh | Start::Alone => {}
            }
        }
        under_way.insert((now + latency, serial), (key, latency, outcome));
        *got.get_mut(key).unwrap() += 1;
    }
    got
}

#[test]
fn equal_endpoints_get_equal_shares_from_any_start() {
    let kinds = [
        Answers::Steady(1_000),
        Answers::Between(500, 1_500),
        Answers::Between(1_000, 9_000),
        Answers::Stalls(2_000, 20_000),
    ];
    let starts = [Start::Fresh, Start::Slow(20), Start::Slow(100), Start::Slow(500), Start::Failure, Start::Alone];
    let mut uneven = Vec::new();
    for (answers, start) in kinds.iter().flat_map(|answers| starts.iter().map(move |start| (*answers, *start))) {
        for count in 2..=KEYS.len() {
            for seed in 0..200 {
                let got = shares(&vec![answers; count], start, seed);
                let (least, most) = (got.values().min().unwrap(), got.values().max().unwrap());
                if least * 60 < most * 40 {
                    uneven.push(format!("{answers:?} {start:?} seed {seed}: {got:?}"));
                }
            }
        }
    }
    assert!(uneven.is_empty(), "{} of 19,200, such as {:#?}", uneven.len(), &uneven[..uneven.len().min(10)]);
}

/// Shares by a reference that knows the true latencies: of a pair, one twice as fast takes all, else each takes half.
fn reference(answers: &[Answers]) -> Vec<f64> {
    let typical = |answers: &Answers| match *answers {
        Answers::Steady(micros) | Answers::Stalls(micros, _) => micros,
        Answers::Between(least, most) => least.midpoint(most),
    };
    let part = |us: usize, them: usize| match (typical(&answers[us]), typical(&answers[them])) {
        (us, them) if us * 2 <= them => 1.0,
        (us, them) if them * 2 <= us => 0.0,
        _ => 0.5,
    };
    let count = answers.len();
    let won = |us: usize| (0..count).filter(|them| *them != us).map(|them| part(us, them)).sum::<f64>();
    let pairs = count * (count - 1) / 2;
    (0..count).map(|us| won(us) / pairs as f64).collect()
}

#[test]
fn shares_are_what_who_knows_all_would_give_but_for_samples() {
    let (fast, slow) = (Answers::Between(800, 1_200), Answers::Between(8_000, 12_000));
    for answers in
        [&[fast, slow][..], &[slow, fast, fast], &[slow, slow, fast, fast], &[slow, Answers::Steady(500_000), fast]]
    {
        for start in [Start::Fresh, Start::Slow(500), Start::Failure, Start::Alone] {
            for seed in 0..50 {
                let got = shares(answers, start, seed);
                for ((key, got), expect) in got.iter().zip(reference(answers)) {
                    let share = *got as f64 / REQUESTS as f64;
                    // Room for the samples of slow ones, and for what the start costs a fast one.
                    assert!(
                        (share - expect).abs() < 0.12,
                        "{answers:?} {start:?} seed {seed}: {key} has {share}, not {expect}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_that_fails_at_once_gets_samples_only() {
    for (count, seed) in (2..=KEYS.len()).flat_map(|count| (0..50).map(move |seed| (count, seed))) {
        let got = failing(count, seed);
        assert!(got <= 10, "{got} of {REQUESTS} failed, {count} endpoints, seed {seed}");
    }
}

/// How many requests the first of so many endpoints gets, while it fails within 100 us and the others answer in 5 ms.
fn failing(count: usize, seed: u64) -> u64 {
    let (mut dice, mut now, mut failed) = (seed, Duration::ZERO, 0);
    let mut balancer = Named::default();
    balancer.update(KEYS[..count].iter().map(|key| (*key, 1)));
    for _ in 0..REQUESTS {
        now += PAUSE;
        let key = balancer.pick(now, next_dice(&mut dice), &[]).unwrap();
        balancer.started(key);
        if key == KEYS[0] {
            failed += 1;
            balancer.finished(key, now, Duration::from_micros(100), Outcome::Failure);
        } else {
            balancer.finished(key, now, Duration::from_millis(5), Outcome::Success);
        }
    }
    failed
}
