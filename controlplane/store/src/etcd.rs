//! The backend for several processes: etcd, version 3.4 or later. Invariant: each commit compares the key `head` and writes
//! it, so that commits are one after the other whoever makes them, and etcd's revision of `head` is the store's version.

mod client;
#[cfg(test)]
#[path = "../../../tests/src/etcd.rs"]
#[allow(dead_code, unreachable_pub, clippy::pedantic, reason = "other crates use it too, each some of it")]
mod cluster;
mod commit;
mod layout;
mod location;
mod messages;
mod read;
mod session;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use self::client::Client;
use self::layout::Layout;
pub use self::location::{EtcdOptions, EtcdTls, Location, LocationError};
use self::messages::{prefix, put, range};
use crate::{Error, Event, Fault, Range, Reading, Row, Session, Store, Table, Version, Write};

/// A store in etcd.
#[derive(Clone)]
pub struct Etcd(Arc<Inner>);

struct Inner {
    client: Client,
    layout: Layout,
    /// This process among those that commit.
    writer: String,
    /// Counts its commits.
    commits: AtomicU64,
    history: Mutex<History>,
    /// Held by whoever commits by this handle.
    turn: tokio::sync::Mutex<()>,
}

/// What the next round of tidying may forget.
#[derive(Default)]
struct History {
    /// etcd's revisions, each with when it was the newest.
    seen: VecDeque<(Instant, i64)>,
    /// Staged commits that no commit named when they were seen.
    unnamed: Vec<Bytes>,
}

impl Etcd {
    /// Connects and looks whether the store can be read.
    ///
    /// # Errors
    /// The options can't be used, no member answers, or the user may not read.
    pub async fn open(options: &EtcdOptions) -> Result<Self, Error> {
        let inner = Inner {
            client: Client::new(options)?,
            layout: Layout::new(&options.prefix),
            writer: format!("{:016x}", rand::random::<u64>()),
            commits: AtomicU64::new(0),
            history: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        let etcd = Self(Arc::new(inner));
        etcd.0.head().await?;
        Ok(etcd)
    }
}

impl Inner {
    /// A name for one commit of this process, which no other commit has.
    fn next_commit(&self) -> String {
        format!("{}-{:x}", self.writer, self.commits.fetch_add(1, Ordering::Relaxed))
    }

    /// Forgets etcd's history of longer ago, staged commits that nobody named, and the marks of processes that are gone.
    async fn tidy(&self, keep: Duration) -> Result<(), Error> {
        let found = self.client.range(range(self.layout.head())).await?;
        let revision = found.header.map_or(0, |header| header.revision);
        let pending = self.pending().await?;
        let staged =
            self.client.range(messages::RangeRequest { keys_only: true, ..prefix(self.layout.staged()) }).await?;
        let (compact, left) = {
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.seen.push_back((Instant::now(), revision));
            let mut compact = None;
            while let Some((_, revision)) = history.seen.front().copied().filter(|(at, _)| at.elapsed() >= keep) {
                history.seen.pop_front();
                compact = Some(revision);
            }
            let named =
                |key: &Bytes| pending.as_ref().is_some_and(|pending| self.layout.is_staged_by(key, &pending.id));
            let unnamed: Vec<_> = staged.kvs.into_iter().map(|kv| kv.key).filter(|key| !named(key)).collect();
            // A commit stages first and is named then: what is new may be named at any moment.
            let left: Vec<_> = unnamed.iter().filter(|key| history.unnamed.contains(key)).cloned().collect();
            history.unnamed = unnamed;
            (compact, left)
        };
        // A commit goes as a whole: the first of its parts stands for all of them.
        let left: BTreeSet<_> = left.iter().filter_map(|key| self.layout.commit_of(key)).collect();
        for commit in left {
            let all = messages::delete_prefix(self.layout.staged_by(&commit));
            self.client.txn(Vec::new(), vec![all], Vec::new()).await?;
        }
        if let Some(revision) = compact {
            self.client.compact(revision).await?;
        }
        self.forget_writers().await
    }

    /// The mark of a process that has not committed for very long is of no use: it is told by nobody's retry.
    async fn forget_writers(&self) -> Result<(), Error> {
        const MOST: usize = 64;
        let mut marks = self.client.range(prefix(self.layout.writers())).await?.kvs;
        marks.sort_by_key(|mark| std::cmp::Reverse(mark.mod_revision));
        let own = self.layout.writer(&self.writer);
        let old: Vec<_> = marks.into_iter().skip(MOST).filter(|mark| mark.key != own).collect();
        for marks in old.chunks(commit::MAX_WRITES) {
            let deletes = marks.iter().map(|mark| messages::delete(mark.key.clone())).collect();
            self.client.txn(Vec::new(), deletes, Vec::new()).await?;
        }
        Ok(())
    }

    /// Puts a blob's chunks under its digest. What is there already is put again: it is the same.
    async fn put_chunks(&self, digest: &str, value: &Bytes) -> Result<usize, Error> {
        let count = value.len().div_ceil(layout::CHUNK);
        for number in 0..count {
            let (from, to) = (number * layout::CHUNK, value.len().min((number + 1) * layout::CHUNK));
            let chunk = put(self.layout.chunk(digest, number), value.slice(from..to));
            self.client.txn(Vec::new(), vec![chunk], Vec::new()).await?;
        }
        Ok(count)
    }
}

impl Store for Etcd {
    fn read(&self, ranges: Vec<Range>, most: usize) -> BoxFuture<'_, Result<Reading, Error>> {
        async move { self.0.read(&ranges, most).await }.boxed()
    }

    fn blob(&self, table: Table, key: &str) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        let key = key.to_owned();
        async move { self.0.blob(table, &key).await }.boxed()
    }

    fn commit(&self, expected: Version, writes: Vec<Write>) -> BoxFuture<'_, Result<Version, Error>> {
        self.0.commit(expected, writes).boxed()
    }

    fn watch(&self, from: Version) -> BoxStream<'static, Event> {
        watch::follow(self.0.clone(), from)
    }

    fn session(&self, life: Duration) -> BoxFuture<'_, Result<Box<dyn Session>, Error>> {
        async move {
            let session = session::Leased::begin(self.0.clone(), life).await?;
            Ok(Box::new(session) as Box<dyn Session>)
        }
        .boxed()
    }

    fn held(&self) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        async move { self.0.held().await }.boxed()
    }

    fn tidy(&self, keep: Duration) -> BoxFuture<'_, Result<(), Error>> {
        async move { self.0.tidy(keep).await }.boxed()
    }

    fn fault(&self) -> Option<Fault> {
        self.0.client.fault()
    }

    fn generation(&self) -> u64 {
        // Each commit of whoever is told by the watch, one of this process that failed and landed as well.
        0
    }

    fn is_shared(&self) -> bool {
        true
    }
}
