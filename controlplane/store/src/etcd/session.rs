//! A session: a lease that is kept as long as its process lives. Invariant: once the lease may be over, the session says so
//! and holds nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Inner;
use super::commit::MAX_WRITES;
use super::messages::{Request, RequestOp, delete, is_of, lives_with, op, put_with, range, ranges};
use crate::{Error, Row, Session};

/// What etcd says of a lease that is over.
const NO_LEASE: &str = "lease not found";

pub(super) struct Leased {
    inner: Arc<Inner>,
    lease: i64,
    id: String,
    kept: Arc<Kept>,
    keeper: JoinHandle<()>,
}

/// Until when a lease surely holds, by the clock of this process.
struct Kept {
    began: Instant,
    life: Duration,
    /// Milliseconds from the beginning to when it was asked for last with success.
    asked_ms: AtomicU64,
    has_ended: AtomicBool,
}

impl Kept {
    fn note(&self, asked: Instant) {
        let since = asked.saturating_duration_since(self.began).as_millis();
        self.asked_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// When it may be over, if nobody keeps it.
    fn until(&self) -> Instant {
        self.began + Duration::from_millis(self.asked_ms.load(Ordering::Acquire)) + self.life
    }

    fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Acquire) || Instant::now() >= self.until()
    }

    fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
    }
}

impl Leased {
    pub(super) async fn begin(inner: Arc<Inner>, life: Duration) -> Result<Self, Error> {
        let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX).max(2);
        let began = Instant::now();
        let lease = inner.client.grant(seconds).await?;
        // etcd counts whole seconds.
        let life = life.min(Duration::from_secs(seconds.unsigned_abs()));
        let kept = Kept { began, life, asked_ms: AtomicU64::new(0), has_ended: AtomicBool::new(false) };
        let kept = Arc::new(kept);
        let keeper = tokio::spawn(keep(inner.clone(), lease, kept.clone()));
        Ok(Self { inner, lease, id: format!("{lease:016x}"), kept, keeper })
    }

    /// Writes what lives with the lease, so many at a time.
    async fn write(&self, ops: Vec<RequestOp>) -> Result<(), Error> {
        for ops in ops.chunks(MAX_WRITES) {
            self.noted(self.inner.client.txn(Vec::new(), ops.to_vec(), Vec::new()).await)?;
        }
        Ok(())
    }

    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Refused(reason)) = &result
            && reason.contains(NO_LEASE)
        {
            self.kept.end();
        }
        result
    }
}

/// Keeps a lease until it can't be kept: it counts from when it was asked for.
async fn keep(inner: Arc<Inner>, lease: i64, kept: Arc<Kept>) {
    while !kept.has_ended() {
        tokio::time::sleep(kept.life / 4).await;
        let asked = Instant::now();
        // No longer than it holds, however long etcd is tried.
        match tokio::time::timeout_at(kept.until(), inner.client.keep_alive(lease)).await {
            Ok(Ok(1..)) => kept.note(asked),
            Ok(Ok(_)) | Err(_) => break,
            Ok(Err(error)) => tracing::debug!(%error, "a lease could not be kept yet"),
        }
    }
    kept.end();
}

impl Session for Leased {
    fn id(&self) -> &str {
        &self.id
    }

    fn hold(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<(), Error>> {
        let put = |row: Row| put_with(self.inner.layout.held(&row.key), row.value, self.lease);
        let ops = rows.into_iter().map(put).collect();
        self.write(ops).boxed()
    }

    fn release(&self, keys: Vec<String>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            for key in keys {
                let key = self.inner.layout.held(&key);
                let own = vec![lives_with(key.clone(), self.lease)];
                self.inner.client.txn(own, vec![delete(key)], Vec::new()).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn release_with(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            for Row { key, value } in rows {
                let key = self.inner.layout.held(&key);
                let own = vec![lives_with(key.clone(), self.lease)];
                // A transaction of etcd touches a key once. Between the two another may take it, who keeps it then.
                let last = put_with(key.clone(), value, self.lease);
                let told = self.inner.client.txn(own.clone(), vec![last], Vec::new()).await?;
                if told.succeeded {
                    self.inner.client.txn(own, vec![delete(key)], Vec::new()).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    fn lead(&self, office: &str) -> BoxFuture<'_, Result<bool, Error>> {
        let key = self.inner.layout.office(office);
        async move {
            if self.has_ended() {
                return Ok(false);
            }
            let take = put_with(key.clone(), self.id.clone().into(), self.lease);
            let look = op(Request::RequestRange(range(key.clone())));
            let taken = self.inner.client.txn(vec![is_of(key, 0)], vec![take], vec![look]).await;
            let answer = self.noted(taken)?;
            if answer.succeeded {
                return Ok(true);
            }
            let found = ranges(answer).into_iter().next().and_then(|range| range.kvs.into_iter().next());
            Ok(found.is_some_and(|leader| leader.value == self.id.as_bytes()))
        }
        .boxed()
    }

    fn has_ended(&self) -> bool {
        self.kept.has_ended()
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.keeper.abort();
        self.kept.end();
        let (inner, lease) = (self.inner.clone(), self.lease);
        // Others need not wait for its end, where there is still somebody to say it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(inner.client.revoke(lease).await) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_keeps_is_over_by_the_clock() {
        let kept = Kept {
            began: Instant::now(),
            life: Duration::from_secs(5),
            asked_ms: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
        };
        tokio::time::advance(Duration::from_secs(3)).await;
        kept.note(Instant::now());
        tokio::time::advance(Duration::from_millis(4_999)).await;
        assert!(!kept.has_ended());
        // Whoever keeps it may be waiting for an answer still.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(kept.has_ended());
    }
}
