//! What nobody needs any more in etcd: old history, staged commits and chunks of blobs that nothing names, marks of processes
//! that are gone. Invariant: what is taken away was named by nothing at that moment, and a commit that would name it later does
//! not land.

use std::collections::{BTreeSet, VecDeque};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::layout::BlobRef;
use super::messages::{self, Request, delete_prefix, is_of, op, prefix, range, ranges};
use super::{Inner, commit};
use crate::{Error, Table};

/// So often a round tries to take away chunks, where other commits come first each time.
const TRIES: usize = 16;

/// What the next round of tidying may forget.
#[derive(Default)]
pub(super) struct History {
    /// etcd's revisions, each with when it was the newest.
    seen: VecDeque<(Instant, i64)>,
    /// Staged commits that no commit named when they were seen.
    unnamed: Vec<Bytes>,
    /// Digests of chunks that no row named.
    chunks: BTreeSet<String>,
}

/// Digests of chunks that no row names, as of one moment.
struct Unnamed {
    /// The newest commit then.
    head: i64,
    digests: BTreeSet<String>,
}

impl Inner {
    /// Forgets etcd's history of longer ago, staged commits and chunks of blobs that nobody named, and the marks of processes that
    /// are gone.
    pub(super) async fn tidy(&self, keep: Duration, blobs: &[Table]) -> Result<(), Error> {
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
        self.forget_blobs(blobs).await?;
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

    /// Chunks that no row named, this time and the last: a publication puts them ahead of its commit, which does not land without
    /// them.
    async fn forget_blobs(&self, tables: &[Table]) -> Result<(), Error> {
        let mut found = self.unnamed_blobs(tables).await?;
        let known = {
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut history.chunks, found.digests.clone())
        };
        for _ in 0..TRIES {
            found.digests.retain(|digest| known.contains(digest));
            if found.digests.is_empty() || self.delete_blobs(&found).await? {
                return Ok(());
            }
            found = self.unnamed_blobs(tables).await?;
        }
        Ok(())
    }

    /// The digests of all chunks that no row of these tables names.
    async fn unnamed_blobs(&self, tables: &[Table]) -> Result<Unnamed, Error> {
        let all = messages::RangeRequest { keys_only: true, ..prefix(self.layout.blobs()) };
        // A commit that is being put in place may name what no row names yet.
        self.head().await?;
        let chunks = self.client.range(all).await?.kvs;
        let digests = chunks.iter().filter_map(|chunk| self.layout.digest_of(&chunk.key)).collect();
        let mut look = vec![range(self.layout.head()), range(self.layout.pending())];
        look.extend(tables.iter().map(|table| prefix(self.layout.row(&format!("{table}/")))));
        let look = look.into_iter().map(|range| op(Request::RequestRange(range))).collect();
        let mut answers = ranges(self.client.txn(Vec::new(), look, Vec::new()).await?).into_iter();
        let head = answers.next().and_then(|head| head.kvs.first().map(|kv| kv.mod_revision)).unwrap_or_default();
        if answers.next().is_none_or(|pending| !pending.kvs.is_empty()) {
            return Ok(Unnamed { head, digests: BTreeSet::new() });
        }
        let mut unnamed = Unnamed { head, digests };
        for row in answers.flat_map(|rows| rows.kvs) {
            if let Some(blob) = BlobRef::decode(&row.value) {
                unnamed.digests.remove(&blob.sha256);
            }
        }
        Ok(unnamed)
    }

    /// Takes chunks away, if no commit landed since nothing named them. False where one did.
    async fn delete_blobs(&self, unnamed: &Unnamed) -> Result<bool, Error> {
        let since = || vec![is_of(self.layout.head(), unnamed.head), is_of(self.layout.pending(), 0)];
        for digest in &unnamed.digests {
            let all = vec![delete_prefix(self.layout.chunks(digest))];
            if !self.client.txn(since(), all, Vec::new()).await?.succeeded {
                return Ok(false);
            }
            tracing::info!(digest, "the pieces of a blob that nothing names are taken away");
        }
        Ok(true)
    }
}

#[cfg(test)]
mod real {
    use super::*;
    use crate::etcd::cluster::Cluster;
    use crate::{Etcd, EtcdOptions, Location, Store as _, Write};

    const BLOBS: &[Table] = &["artifacts"];

    async fn open(cluster: &Cluster) -> Etcd {
        let location: Location = cluster.location("x").parse().unwrap();
        let options = EtcdOptions { members: location.members, prefix: location.prefix, tls: None, user: None };
        Etcd::open(&options).await.unwrap()
    }

    fn blob(key: &str, fill: u8) -> Write {
        Write::PutBlob { table: "artifacts", key: key.to_owned(), value: vec![fill; 3 << 19].into() }
    }

    async fn chunks(store: &Etcd) -> usize {
        store.0.client.range(prefix(store.0.layout.blobs())).await.unwrap().kvs.len()
    }

    async fn tidy(store: &Etcd) {
        store.tidy(Duration::from_secs(60), BLOBS).await.unwrap();
    }

    async fn version(store: &Etcd) -> crate::Version {
        store.read(Vec::new(), 0).await.unwrap().version
    }

    #[tokio::test]
    #[ignore = "real"]
    async fn chunks_that_no_row_names_go_and_no_others() {
        let cluster = Cluster::start(1);
        let (store, other) = (open(&cluster).await, open(&cluster).await);
        let first = store.commit(version(&store).await, vec![blob("a", 1), blob("b", 2)]).await.unwrap();
        // One whose commit comes too late, one that is replaced, one that is deleted.
        other.commit(crate::Version(0), vec![blob("c", 3)]).await.unwrap_err();
        let second = store.commit(first, vec![blob("b", 4), blob("d", 5)]).await.unwrap();
        store.commit(second, vec![Write::Delete { table: "artifacts", key: "d".to_owned() }]).await.unwrap();
        assert_eq!(chunks(&store).await, 5 * 3);
        tidy(&store).await;
        assert_eq!(chunks(&store).await, 5 * 3, "what is seen for the first time may be named at any moment");
        tidy(&store).await;
        assert_eq!(chunks(&store).await, 2 * 3);
        for (key, fill) in [("a", 1), ("b", 4)] {
            assert!(other.blob("artifacts", key).await.unwrap().unwrap().iter().all(|byte| *byte == fill), "{key}");
        }
    }

    #[tokio::test]
    #[ignore = "real"]
    async fn a_publication_that_is_under_way_loses_nothing() {
        let cluster = Cluster::start(1);
        let (slow, other) = (open(&cluster).await, open(&cluster).await);
        let writes = vec![blob("a", 1)];
        // Its chunks are there, and it stands still for longer than anybody waits.
        let (staged, there) = slow.0.stage_blobs(&writes).await.unwrap();
        for _ in 0..2 {
            tidy(&other).await;
        }
        assert_eq!(chunks(&other).await, 0);
        let (known, ops) = (version(&other).await, slow.0.row_ops(staged));
        let landed = slow.0.land(known, "late", there, ops).await;
        assert!(matches!(landed, Err(Error::Conflict)), "{landed:?}");
        slow.commit(known, writes.clone()).await.unwrap();
        assert_eq!(other.blob("artifacts", "a").await.unwrap().unwrap().len(), 3 << 19);
        // It lands between the look and the hand.
        let known = slow.commit(version(&slow).await, vec![Write::Delete { table: "artifacts", key: "a".to_owned() }]);
        let known = known.await.unwrap();
        let found = other.0.unnamed_blobs(BLOBS).await.unwrap();
        assert_eq!(found.digests.len(), 1);
        slow.commit(known, writes).await.unwrap();
        assert!(!other.0.delete_blobs(&found).await.unwrap());
        assert_eq!(chunks(&other).await, 3);
        // One of many rows, which is named before it is in place.
        let mut many = vec![blob("b", 2)];
        let row = |number: usize| format!("many/{number}");
        many.extend((0..200).map(|n| Write::Put { table: "objects", key: row(n), value: Bytes::from_static(b"x") }));
        slow.commit(version(&slow).await, many).await.unwrap();
        for _ in 0..2 {
            tidy(&other).await;
        }
        assert_eq!(other.blob("artifacts", "b").await.unwrap().unwrap().len(), 3 << 19);
        assert_eq!(chunks(&other).await, 6);
    }
}
