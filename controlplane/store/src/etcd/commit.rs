//! Commits. A small one is one transaction. A large one is staged in parts, named by one transaction, which is when it
//! lands, and then put in place part by part by whoever comes first; nobody reads or commits before that is done.

use bytes::Bytes;
use prost::Message as _;

use super::Inner;
use super::layout::{BlobRef, Part, Pending, StagedWrite, digest};
use super::messages::{Compare, KeyValue, Request, RequestOp, delete, delete_prefix, is_of, op, put, range, ranges};
use super::read::{parsed, strange, version_of};
use crate::{Error, MAX_VALUE, Version, Write};

/// Writes of one transaction: etcd takes 128 operations by default, and some are the store's own.
pub(super) const MAX_WRITES: usize = 96;
/// Bytes of one transaction: etcd takes 1.5 MiB by default.
const MAX_BYTES: usize = 1 << 20;

impl Inner {
    pub(super) async fn commit(&self, expected: Version, writes: Vec<Write>) -> Result<Version, Error> {
        // One after the other: the mark by which a commit whose answer was lost is known is that of the last.
        let _turn = self.turn.lock().await;
        let (staged, blobs) = self.stage_blobs(&writes).await?;
        let bytes: usize = staged.iter().map(StagedWrite::size).sum();
        if staged.len() <= MAX_WRITES && bytes <= MAX_BYTES {
            let commit = self.next_commit();
            return self.land(expected, &commit, blobs, self.row_ops(staged)).await;
        }
        Box::pin(self.commit_large(expected, staged, blobs)).await
    }

    /// The rows of a commit; blobs are in place before, and have to be when it lands.
    pub(super) async fn stage_blobs(&self, writes: &[Write]) -> Result<(Vec<StagedWrite>, Vec<Compare>), Error> {
        let (mut staged, mut there) = (Vec::with_capacity(writes.len()), std::collections::BTreeMap::new());
        for write in writes {
            let blob = match write {
                Write::Put { table, key, value } if value.len() > MAX_VALUE => {
                    return Err(Error::TooLarge { table, key: key.clone(), bytes: value.len() });
                }
                Write::Put { .. } | Write::Delete { .. } => None,
                Write::PutBlob { value, .. } => {
                    let sha256 = digest(value);
                    let (chunks, first) = self.put_chunks(&sha256, value).await?;
                    if chunks > 0 {
                        there.insert(self.layout.chunk(&sha256, 0), first);
                    }
                    Some(BlobRef { sha256, bytes: value.len(), chunks }.encode())
                }
            };
            staged.push(StagedWrite::of(write, blob));
        }
        let there = there.into_iter().map(|(chunk, revision)| is_of(chunk, revision)).collect();
        Ok((dedup(staged), there))
    }

    pub(super) fn row_ops(&self, writes: Vec<StagedWrite>) -> Vec<RequestOp> {
        let op = |write: StagedWrite| match write.value {
            Some(value) => put(self.layout.row(&write.row), value),
            None => delete(self.layout.row(&write.row)),
        };
        writes.into_iter().map(op).collect()
    }

    /// One transaction at whose end `commit` is the newest, if `expected` was that before, and what it names is still there.
    pub(super) async fn land(
        &self,
        expected: Version,
        commit: &str,
        named: Vec<Compare>,
        mut writes: Vec<RequestOp>,
    ) -> Result<Version, Error> {
        let (head, mark) = (self.layout.head(), self.layout.writer(&self.writer));
        let before = i64::try_from(expected.0).unwrap_or(i64::MAX);
        let name = Bytes::from(commit.to_owned());
        writes.push(put(head.clone(), name.clone()));
        writes.push(put(mark.clone(), name.clone()));
        let free = [is_of(head.clone(), before), is_of(self.layout.pending(), 0)].into_iter().chain(named);
        let free: Vec<_> = free.collect();
        let otherwise = [head, self.layout.pending(), mark];
        let look = || otherwise.iter().map(|key| op(Request::RequestRange(range(key.clone())))).collect::<Vec<_>>();
        loop {
            let answer = self.client.txn(free.clone(), writes.clone(), look()).await?;
            if answer.succeeded {
                self.client.was_written();
                return Ok(version_of(answer.header.map_or(0, |header| header.revision)));
            }
            let mut found = ranges(answer).into_iter().map(|range| range.kvs.into_iter().next());
            let (head, pending, mark) = (found.next().flatten(), found.next().flatten(), found.next().flatten());
            // An earlier try of the same landed, whose answer was lost.
            if let Some(mark) = mark.filter(|mark| mark.value == name) {
                self.client.was_written();
                return Ok(version_of(mark.mod_revision));
            }
            if head.map_or(0, |head| head.mod_revision) != before {
                return Err(Error::Conflict);
            }
            match pending {
                Some(pending) => self.put_in_place(pending).await?,
                None => return Err(Error::Conflict),
            }
        }
    }

    async fn commit_large(
        &self,
        expected: Version,
        writes: Vec<StagedWrite>,
        blobs: Vec<Compare>,
    ) -> Result<Version, Error> {
        let commit = self.next_commit();
        let parts = parts(writes);
        let first = self.stage(&commit, &parts).await?;
        let landed = self.name(expected, &commit, (parts.len(), first), blobs).await;
        match &landed {
            // Whoever comes next does it, where this process can't.
            Ok(_) => drop(self.head().await),
            // Its end is known: nothing names the parts.
            Err(Error::Conflict) => {
                let parts = delete_prefix(self.layout.staged_by(&commit));
                drop(self.client.txn(Vec::new(), vec![parts], Vec::new()).await);
            }
            Err(_) => {}
        }
        landed
    }

    /// Stages the parts of a commit; gives etcd's revision of the first.
    async fn stage(&self, commit: &str, parts: &[Part]) -> Result<i64, Error> {
        let mut first = None;
        for (number, part) in parts.iter().enumerate() {
            let part = put(self.layout.part(commit, number), part.encode_to_vec().into());
            let answer = self.client.txn(Vec::new(), vec![part], Vec::new()).await?;
            first.get_or_insert(answer.header.map_or(0, |header| header.revision));
        }
        Ok(first.unwrap_or_default())
    }

    /// Names a staged commit, which is when it lands. What is staged and not named for long is cleaned up as a whole: the
    /// first part stands for all of them.
    async fn name(
        &self,
        expected: Version,
        commit: &str,
        (parts, first): (usize, i64),
        mut named: Vec<Compare>,
    ) -> Result<Version, Error> {
        let pending = Pending { id: commit.to_owned(), parts, done: 0 };
        named.push(is_of(self.layout.part(commit, 0), first));
        self.land(expected, commit, named, vec![put(self.layout.pending(), encode(&pending))]).await
    }

    /// Puts the parts of a commit in place that are not yet. Others may do the same at the same time.
    pub(super) async fn put_in_place(&self, found: KeyValue) -> Result<(), Error> {
        let mut known = found;
        let id = parsed(&known)?.id;
        loop {
            let pending = parsed(&known)?;
            if pending.id != id {
                return Ok(());
            }
            let guard = vec![is_of(self.layout.pending(), known.mod_revision)];
            let ops = self.next_step(&pending).await;
            let look = vec![op(Request::RequestRange(range(self.layout.pending())))];
            // A part that is gone was put in place by another.
            let answer = match ops {
                Ok(ops) => self.client.txn(guard, ops, look.clone()).await?,
                Err(Error::Strange(_)) if self.is_past(&known).await? => {
                    self.client.txn(guard, Vec::new(), look).await?
                }
                Err(error) => return Err(error),
            };
            let now = match answer.succeeded {
                true => self.client.range(range(self.layout.pending())).await?.kvs.into_iter().next(),
                false => ranges(answer).into_iter().next().and_then(|range| range.kvs.into_iter().next()),
            };
            match now {
                Some(now) => known = now,
                None => return Ok(()),
            }
        }
    }

    async fn is_past(&self, known: &KeyValue) -> Result<bool, Error> {
        let now = self.client.range(range(self.layout.pending())).await?;
        Ok(now.kvs.first().map(|now| now.mod_revision) != Some(known.mod_revision))
    }

    async fn next_step(&self, pending: &Pending) -> Result<Vec<RequestOp>, Error> {
        if pending.done >= pending.parts {
            return Ok(vec![delete(self.layout.pending()), delete_prefix(self.layout.staged_by(&pending.id))]);
        }
        let key = self.layout.part(&pending.id, pending.done);
        let part = self.client.range(range(key.clone())).await?.kvs.into_iter().next();
        let part = part.and_then(|part| Part::decode(part.value).ok()).ok_or_else(|| strange(&key))?;
        let mut ops = self.row_ops(part.writes);
        ops.push(put(self.layout.pending(), encode(&Pending { done: pending.done + 1, ..pending.clone() })));
        Ok(ops)
    }
}

fn encode(pending: &Pending) -> Bytes {
    serde_json::to_vec(pending).expect("it has a name and two numbers").into()
}

/// One transaction writes no key twice: the last write of each row is what it comes to.
fn dedup(writes: Vec<StagedWrite>) -> Vec<StagedWrite> {
    let mut seen = std::collections::BTreeSet::new();
    let mut kept: Vec<_> = writes.into_iter().rev().filter(|write| seen.insert(write.row.clone())).collect();
    kept.reverse();
    kept
}

fn parts(writes: Vec<StagedWrite>) -> Vec<Part> {
    let mut parts = vec![Part::default()];
    let mut bytes = 0;
    for write in writes {
        bytes += write.size();
        let is_full = parts
            .last()
            .is_some_and(|part| !part.writes.is_empty() && (part.writes.len() >= MAX_WRITES || bytes > MAX_BYTES));
        if is_full {
            bytes = write.size();
            parts.push(Part::default());
        }
        if let Some(part) = parts.last_mut() {
            part.writes.push(write);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(row: &str, bytes: usize) -> StagedWrite {
        StagedWrite { row: row.to_owned(), value: Some(vec![0; bytes].into()) }
    }

    #[test]
    fn parts_fit_a_transaction() {
        let sizes = |writes| parts(writes).iter().map(|part| part.writes.len()).collect::<Vec<_>>();
        assert_eq!(sizes((0..200).map(|n| write(&n.to_string(), 1)).collect()), [96, 96, 8]);
        assert_eq!(sizes((0..5).map(|n| write(&n.to_string(), MAX_VALUE)).collect()), [1, 1, 1, 1, 1]);
        assert_eq!(sizes((0..5).map(|n| write(&n.to_string(), MAX_VALUE - 9)).collect()), [2, 2, 1]);
        let last = dedup(vec![write("a", 1), write("b", 2), write("a", 3)]);
        assert_eq!(last, [write("b", 2), write("a", 3)]);
    }
}

#[cfg(test)]
mod real {
    use std::time::Duration;

    use super::*;
    use crate::etcd::cluster::Cluster;
    use crate::{Etcd, EtcdOptions, Location, Range, Store as _};

    async fn open(cluster: &Cluster) -> Etcd {
        let location: Location = cluster.location("x").parse().unwrap();
        let options = EtcdOptions { members: location.members, prefix: location.prefix, tls: None, user: None };
        Etcd::open(&options).await.unwrap()
    }

    #[tokio::test]
    #[ignore = "real"]
    async fn what_was_cleaned_up_before_it_was_named_does_not_land() {
        let cluster = Cluster::start(1);
        let (slow, other) = (open(&cluster).await, open(&cluster).await);
        let row =
            |number: usize| StagedWrite { row: format!("objects/{number}"), value: Some(Bytes::from_static(b"x")) };
        let parts = parts((0..200).map(row).collect());
        let commit = slow.0.next_commit();
        let first = slow.0.stage(&commit, &parts).await.unwrap();
        // It stands still for longer than anybody waits.
        for _ in 0..2 {
            other.tidy(Duration::from_secs(60), &[]).await.unwrap();
        }
        let all = || other.read(vec![Range::all("objects")], usize::MAX);
        let before = all().await.unwrap().version;
        let named = slow.0.name(before, &commit, (parts.len(), first), Vec::new()).await;
        assert!(matches!(named, Err(Error::Conflict)), "{named:?}");
        assert!(all().await.unwrap().rows[0].is_empty(), "and everybody reads on");
    }
}
