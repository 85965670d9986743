//! A session: a lease that is kept as long as its process lives. Invariant: once the lease may be over, the session says so
//! and holds nothing more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    has_ended: Arc<AtomicBool>,
    keeper: JoinHandle<()>,
}

impl Leased {
    pub(super) async fn begin(inner: Arc<Inner>, life: Duration) -> Result<Self, Error> {
        let seconds = i64::try_from(life.as_secs()).unwrap_or(i64::MAX).max(2);
        let asked = Instant::now();
        let lease = inner.client.grant(seconds).await?;
        let has_ended = Arc::new(AtomicBool::new(false));
        let keeper = tokio::spawn(keep(inner.clone(), lease, life, asked, has_ended.clone()));
        Ok(Self { inner, lease, id: format!("{lease:016x}"), has_ended, keeper })
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
            self.has_ended.store(true, Ordering::Release);
        }
        result
    }
}

/// Keeps a lease until it can't be kept: it counts from when it was asked for.
async fn keep(inner: Arc<Inner>, lease: i64, life: Duration, mut kept: Instant, has_ended: Arc<AtomicBool>) {
    loop {
        tokio::time::sleep(life / 4).await;
        let asked = Instant::now();
        match inner.client.keep_alive(lease).await {
            Ok(1..) => kept = asked,
            Ok(_) => break,
            Err(error) => tracing::debug!(%error, "a lease could not be kept yet"),
        }
        if kept.elapsed() >= life {
            break;
        }
    }
    has_ended.store(true, Ordering::Release);
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
        self.has_ended.load(Ordering::Acquire)
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.keeper.abort();
        self.has_ended.store(true, Ordering::Release);
        let (inner, lease) = (self.inner.clone(), self.lease);
        // Others need not wait for its end, where there is still somebody to say it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(inner.client.revoke(lease).await) });
        }
    }
}
