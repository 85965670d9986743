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
mod tidy;
mod watch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use self::client::Client;
use self::layout::Layout;
pub use self::location::{EtcdOptions, EtcdTls, Location, LocationError};
use self::messages::put;
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
    history: Mutex<tidy::History>,
    /// Held by whoever commits by this handle.
    turn: tokio::sync::Mutex<()>,
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

    /// Puts a blob's chunks under its digest. What is there already is put again: it is the same. Gives their number, and etcd's
    /// revision of the first: one of another revision may have been cleaned up meanwhile, with those behind it.
    async fn put_chunks(&self, digest: &str, value: &Bytes) -> Result<(usize, i64), Error> {
        let (count, mut first) = (value.len().div_ceil(layout::CHUNK), None);
        for number in 0..count {
            let (from, to) = (number * layout::CHUNK, value.len().min((number + 1) * layout::CHUNK));
            let chunk = put(self.layout.chunk(digest, number), value.slice(from..to));
            let answer = self.client.txn(Vec::new(), vec![chunk], Vec::new()).await?;
            first.get_or_insert(answer.header.map_or(0, |header| header.revision));
        }
        Ok((count, first.unwrap_or_default()))
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

    fn tidy(&self, keep: Duration, blobs: &'static [Table]) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.0.tidy(keep, blobs))
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
