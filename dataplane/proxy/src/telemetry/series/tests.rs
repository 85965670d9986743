//! Lifetimes: series across configuration swaps, held and unheld pairs, the budget.

use std::sync::atomic::Ordering::Relaxed;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn labels(workload: &str) -> PairLabels {
    let source = Peer { workload: workload.to_owned(), ..Peer::default() };
    PairLabels { reporter: "source", source, ..PairLabels::default() }
}

fn end(code: u16) -> RequestEnd {
    RequestEnd {
        code,
        grpc: false,
        grpc_status: None,
        flag: Flag::None,
        duration: Duration::from_millis(1),
        request_bytes: 0,
        response_bytes: 0,
    }
}

/// The counters of requests in a scrape, by label set.
fn requests(store: &SeriesStore) -> Vec<u64> {
    let sums = store.requests.sums(|sum: &mut u64, series| *sum += series.requests.value());
    sums.into_iter().map(|(_, sum)| sum).collect()
}

fn worker() -> (Arc<SeriesStore>, WorkerMetrics) {
    let store = Arc::new(SeriesStore::default());
    (Arc::clone(&store), WorkerMetrics::new(store))
}

#[test]
fn equal_labels_are_one_handle() {
    let (_, metrics) = worker();
    assert!(Rc::ptr_eq(&metrics.pair(&labels("a")), &metrics.pair(&labels("a"))));
    assert!(!Rc::ptr_eq(&metrics.pair(&labels("a")), &metrics.pair(&labels("b"))));
}

#[test]
fn expiry_gives_room_back() {
    let (store, metrics) = worker();
    for index in 0..store.limits.per_worker {
        metrics.pair(&labels(&index.to_string())).request(end(200));
    }
    let late = metrics.pair(&labels("late"));
    late.request(end(200));
    late.request(end(200));
    assert_eq!(store.dropped.load(Relaxed), 2, "each request that has no series of its own is counted");
    metrics.expire(Duration::ZERO, HOUR);
    metrics.expire(HOUR - Duration::from_secs(1), HOUR);
    assert_eq!(store.requests.live(), store.limits.per_worker + 1, "nothing has been idle for long enough");
    metrics.expire(HOUR, HOUR);
    assert_eq!(store.requests.live(), 1, "the overflow");
    late.request(end(200));
    assert_eq!((store.dropped.load(Relaxed), store.requests.live()), (2, 2), "room again");
    for index in 0..store.limits.per_worker - 1 {
        metrics.pair(&labels(&index.to_string())).request(end(200));
    }
    assert_eq!(store.dropped.load(Relaxed), 2, "all of it was given back");
}

#[test]
fn what_is_held_never_expires() {
    let (store, metrics) = worker();
    let held = metrics.pair(&labels("held"));
    held.request(end(200));
    let connection = metrics.pair(&labels("connection")).tcp(Flag::None);
    let moving = Arc::clone(&metrics.pair(&labels("bytes")).tcp(Flag::None).sent);
    for hour in 0..10 {
        metrics.expire(HOUR * hour, HOUR);
    }
    held.request(end(200));
    connection.opened.add(1);
    moving.add(7);
    assert_eq!(requests(&store), [2]);
    let tcp = store.tcp.sums(|sum: &mut u64, series| *sum += series.opened.value() + series.sent.value());
    assert_eq!(tcp.into_iter().map(|(_, sum)| sum).sum::<u64>(), 8, "whoever holds a handle is counted");
    drop((held, connection, moving));
    metrics.expire(HOUR * 10, HOUR);
    assert_eq!(store.requests.live() + store.tcp.live(), 3, "idle from now on");
    metrics.expire(HOUR * 11, HOUR);
    assert_eq!(store.requests.live() + store.tcp.live(), 0);
}

#[test]
fn what_is_used_between_sweeps_is_not_idle() {
    let (store, metrics) = worker();
    for half in 0..10 {
        metrics.pair(&labels("a")).request(end(200));
        metrics.expire(HOUR / 2 * half, HOUR);
    }
    assert_eq!(requests(&store), [10]);
}

#[test]
fn a_pair_that_comes_back_starts_anew() {
    let (store, metrics) = worker();
    metrics.pair(&labels("a")).request(end(200));
    metrics.expire(Duration::ZERO, HOUR);
    metrics.expire(HOUR, HOUR);
    assert!(requests(&store).is_empty());
    metrics.pair(&labels("a")).request(end(200));
    assert_eq!(requests(&store), [1]);
}

#[test]
fn a_counter_does_not_go_back_while_another_worker_counts() {
    let (store, first) = worker();
    let second = WorkerMetrics::new(Arc::clone(&store));
    let (one, other) = (first.pair(&labels("a")), second.pair(&labels("a")));
    (0..5).for_each(|_| one.request(end(200)));
    other.request(end(200));
    drop(one);
    for round in 1..=3 {
        first.expire(HOUR * round * 2, HOUR);
        first.expire(HOUR * (round * 2 + 1), HOUR);
        assert_eq!(requests(&store), [5 + u64::from(round)], "what the first had counted stays");
        first.pair(&labels("a")).request(end(200));
    }
    drop(other);
    second.expire(Duration::ZERO, HOUR);
    second.expire(HOUR, HOUR);
    first.expire(HOUR * 20, HOUR);
    first.expire(HOUR * 21, HOUR);
    assert!(requests(&store).is_empty(), "with the last, the label set ends");
}

#[test]
fn the_overflow_has_an_end_too() {
    let (store, metrics) = worker();
    let pair = metrics.pair(&labels("a"));
    for code in 0..u16::try_from(store.limits.per_worker).unwrap() {
        pair.request(end(code));
    }
    for code in 0..2_000 {
        pair.request(end(20_000 + code));
    }
    assert_eq!(store.requests.live(), store.limits.per_worker + MAX_OVERFLOW_SERIES + 1);
    assert_eq!(requests(&store).iter().sum::<u64>(), store.limits.per_worker as u64 + 2_000);
}

#[test]
fn one_identity_makes_a_bounded_number_of_sources() {
    let (store, metrics) = worker();
    let told = |workload: String| {
        let source = Peer { workload, principal: "spiffe://cluster.local/ns/x/sa/y".to_owned(), ..Peer::default() };
        PairLabels { reporter: "destination", source, ..PairLabels::default() }
    };
    for index in 0..1_000 {
        metrics.pair(&told(index.to_string())).request(end(200));
    }
    let limit = store.limits.sources_per_identity;
    assert_eq!(store.requests.live(), limit + 1, "and one for all others");
    assert_eq!(requests(&store).iter().sum::<u64>(), 1_000, "each is counted");
    assert_eq!(store.sources_dropped(), 1_000 - limit as u64);
    metrics.expire(Duration::ZERO, HOUR);
    metrics.expire(HOUR, HOUR);
    metrics.pair(&told("new".to_owned())).request(end(200));
    assert_eq!(store.sources_dropped(), 1_000 - limit as u64, "room again");
}
