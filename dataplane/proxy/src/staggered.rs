//! Several attempts at one thing, of which the first that succeeds counts (RFC 8305 section 5).

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

/// The first success. Each attempt begins beside those before it after `delay`, or at once when they have failed.
///
/// # Errors
/// All of them failed, in this order.
pub(crate) async fn first_of<F, T, E>(attempts: impl ExactSizeIterator<Item = F>, delay: Duration) -> Result<T, Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut left = attempts;
    let mut begun = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(attempt) = left.next() {
            begun.push(attempt);
        } else if begun.is_empty() {
            return Err(failures);
        }
        let pause = pin!(tokio::time::sleep(delay));
        let more = left.len() > 0;
        tokio::select! {
            Some(ended) = begun.next() => match ended {
                Ok(success) => return Ok(success),
                Err(failure) => failures.push(failure),
            },
            () = pause, if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts that end after so many milliseconds, well or not.
    async fn run(attempts: &[(u64, bool)]) -> (Result<usize, Vec<usize>>, u128) {
        let began = tokio::time::Instant::now();
        let futures = attempts.iter().enumerate().map(|(index, &(after, well))| async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            if well { Ok(index) } else { Err(index) }
        });
        (first_of(futures, Duration::from_millis(100)).await, began.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_one_delays_the_next_and_a_failed_one_does_not() {
        assert_eq!(run(&[(10, true), (0, true)]).await, (Ok(0), 10));
        assert_eq!(run(&[(10, false), (5, true)]).await, (Ok(1), 15));
        assert_eq!(run(&[(9_000, true), (9_000, false), (5, true)]).await, (Ok(2), 205));
        assert_eq!(run(&[(150, true), (9_000, true)]).await, (Ok(0), 150));
        assert_eq!(run(&[(20, false), (10, false)]).await, (Err(vec![0, 1]), 30));
        assert_eq!(run(&[]).await, (Err(Vec::new()), 0));
    }
}
