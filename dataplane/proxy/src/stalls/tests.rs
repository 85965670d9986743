//! Streams that are behind, over the budget, and those that keep up.

use std::pin::{Pin, pin};

use futures_util::FutureExt as _;

use super::*;

const AFTER: Duration = Duration::from_secs(1);

async fn stuck(stalls: &Stalls, bytes: usize) -> Result<(), Stalled> {
    stalls.once(bytes, pin!(std::future::pending())).await
}

/// Which of them have ended.
fn polled<F: Future>(streams: &mut [Pin<Box<F>>]) -> Vec<bool> {
    streams.iter_mut().map(|stream| stream.as_mut().now_or_never().is_some()).collect()
}

#[test]
fn a_write_that_waits_for_nothing_is_not_on_the_books() {
    let budget = Arc::new(StallBudget::new(0, AFTER));
    let stalls = Stalls::of(&budget);
    assert_eq!(stalls.once(100, pin!(std::future::ready(7))).now_or_never(), Some(Ok(7)));
    assert_eq!((budget.sums(), stalls.next.get()), (StallSums::default(), 0));
}

#[test]
fn the_longest_stalled_go_and_no_more_than_must() {
    let budget = Arc::new(StallBudget::new(250, AFTER));
    let stalls = Stalls::of(&budget);
    let mut streams: Vec<_> = (0..5).map(|_| Box::pin(stuck(&stalls, 100))).collect();
    assert_eq!(polled(&mut streams), [false; 5]);
    let later = Instant::now() + AFTER * 2;
    stalls.sweep(later);
    assert_eq!(polled(&mut streams), [false; 5], "the first time they are only told");
    stalls.sweep(later);
    assert_eq!(budget.sums(), StallSums { bytes: 200, streams: 5, resets: 3 });
    for (nth, stream) in streams.iter_mut().enumerate().take(3) {
        let stalled = stream.as_mut().now_or_never().unwrap_or_else(|| panic!("{nth} goes")).unwrap_err();
        assert!(stalled.for_ >= AFTER, "{stalled}");
    }
    drop(streams.drain(..3));
    assert_eq!(polled(&mut streams), [false; 2]);
    stalls.sweep(later);
    assert_eq!(budget.sums(), StallSums { bytes: 200, streams: 2, resets: 3 }, "within the budget nothing goes");
    drop(streams);
    assert_eq!(budget.sums(), StallSums { bytes: 0, streams: 0, resets: 3 });
}

#[test]
fn what_waits_for_a_moment_only_is_never_reset() {
    let budget = Arc::new(StallBudget::new(1, AFTER));
    let stalls = Stalls::of(&budget);
    let mut stream = Box::pin(stuck(&stalls, 1_000));
    assert!(stream.as_mut().now_or_never().is_none());
    for _ in 0..3 {
        stalls.sweep(Instant::now());
    }
    assert!(stream.as_mut().now_or_never().is_none());
    assert_eq!(budget.sums().resets, 0);
}

#[test]
fn who_takes_little_of_much_falls_behind_and_who_keeps_up_does_not() {
    const FRAME: usize = 16 * 1_024;
    let step = |pace: &Pace, waited: u64, moved, held| {
        pace.waited(Duration::from_millis(waited), (moved, held), AFTER);
        pace.0.get()
    };
    let trickling = Pace::default();
    step(&trickling, 900, FRAME, 32 * FRAME);
    assert!(step(&trickling, 900, FRAME, 32 * FRAME) > AFTER, "one frame each 0.9 s, of 512 KiB");
    for _ in 0..1_000 {
        assert!(step(&trickling, 900, FRAME, 32 * FRAME) <= AFTER * 2, "and no more is owed");
    }
    let slow = Pace::default();
    for _ in 0..1_000 {
        assert_eq!(step(&slow, 900, FRAME, 8 * FRAME), Duration::ZERO, "what is held leaves in 7 s");
    }
    // Who catches up, or stops and goes on, has not stalled any more.
    assert_eq!(step(&trickling, 10, 32 * FRAME, 32 * FRAME), Duration::ZERO);
    step(&trickling, 900, FRAME, 32 * FRAME);
    assert_eq!(step(&trickling, 60_000, FRAME, 32 * FRAME), Duration::ZERO);
}

#[test]
fn a_stream_that_is_behind_has_stalled_as_soon_as_it_waits() {
    let budget = Arc::new(StallBudget::new(150, AFTER));
    let stalls = Stalls::of(&budget);
    let (behind, keeps_up) = (Pace(Cell::new(AFTER * 2)), Pace::default());
    let wait =
        async |pace| stalls.unless_reset(pace, Load { moves: 1, held: 100 }, pin!(std::future::pending::<()>())).await;
    let (mut first, mut second) = (Box::pin(wait(&keeps_up)), Box::pin(wait(&behind)));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    for _ in 0..3 {
        stalls.sweep(Instant::now());
    }
    assert!(first.now_or_never().is_none());
    assert!(second.now_or_never().expect("it goes").unwrap_err().for_ >= AFTER * 2);
}

#[test]
fn the_longest_stalled_are_those_of_all_workers() {
    let budget = Arc::new(StallBudget::new(300, AFTER));
    let (one, other) = (Stalls::of(&budget), Stalls::of(&budget));
    let mut streams = Vec::new();
    for stalls in [&one, &one, &other, &one, &other] {
        let mut stream = Box::pin(stuck(stalls, 100));
        assert!(stream.as_mut().now_or_never().is_none());
        streams.push(stream);
    }
    let later = Instant::now() + AFTER * 2;
    for _ in 0..3 {
        other.sweep(later);
        one.sweep(later);
    }
    let gone: Vec<bool> = streams.iter_mut().map(|it| it.as_mut().now_or_never().is_some()).collect();
    assert_eq!(gone, [true, true, false, false, false]);
    assert_eq!(budget.sums().resets, 2);
}

#[test]
fn where_all_is_not_enough_all_go() {
    let now = Instant::now();
    assert_eq!(cutoff(vec![(now, 1), (now - AFTER, 2)], 10), Some(now));
    assert_eq!(cutoff(vec![(now, 1), (now - AFTER, 2)], 2), Some(now - AFTER));
    assert_eq!(cutoff(Vec::new(), 10), None);
}
