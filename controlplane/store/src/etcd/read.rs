//! Reads of ranges as of one moment: the first answer's revision is that of all further ones, and a large commit that is
//! being put in place is put in place first.

use bytes::Bytes;

use super::layout::{self, BlobRef, Pending};
use super::messages::{KeyValue, RangeRequest, RangeResponse, Request, behind, op, prefix, range, ranges};
use super::{Inner, client, commit};
use crate::{Error, Range, Reading, Row, Table, Version};

/// So many rows are asked for at a time.
const PAGE: i64 = 256;

impl Inner {
    /// The newest commit, once everything of it is in place.
    pub(super) async fn head(&self) -> Result<Version, Error> {
        Ok(self.read(&[], usize::MAX).await?.version)
    }

    /// The large commit that is being put in place, where there is one.
    pub(super) async fn pending(&self) -> Result<Option<Pending>, Error> {
        let found = self.client.range(range(self.layout.pending())).await?;
        found.kvs.first().map(parsed).transpose()
    }

    pub(super) async fn read(&self, ranges: &[Range], most: usize) -> Result<Reading, Error> {
        loop {
            match self.try_read(ranges, most).await {
                Err(Failed::Compacted) => {}
                Err(Failed::Pending(pending)) => self.put_in_place(pending).await?,
                Err(Failed::Error(error)) => return Err(error),
                Ok(reading) => return Ok(reading),
            }
        }
    }

    async fn try_read(&self, wanted: &[Range], most: usize) -> Result<Reading, Failed> {
        let mut firsts = vec![op(Request::RequestRange(range(self.layout.pending())))];
        firsts.push(op(Request::RequestRange(range(self.layout.head()))));
        // Further ranges follow at the same revision.
        let (now, later) = wanted.split_at(wanted.len().min(commit::MAX_WRITES));
        firsts.extend(now.iter().map(|range| op(Request::RequestRange(self.page(range, &range.from, 0, 0)))));
        let answer = self.client.txn(Vec::new(), firsts, Vec::new()).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let mut answers = ranges(answer).into_iter();
        if let Some(pending) = answers.next().and_then(|pending| pending.kvs.into_iter().next()) {
            return Err(Failed::Pending(pending));
        }
        let head = answers.next().and_then(|head| head.kvs.first().map(|kv| kv.mod_revision)).unwrap_or_default();
        let mut reading = Reading { version: version_of(head), rows: Vec::with_capacity(wanted.len()) };
        let mut size = 0;
        for range in now.iter().chain(later) {
            let mut answer = match answers.next() {
                Some(answer) => answer,
                None => self.client.range(self.page(range, &range.from, 0, revision)).await?,
            };
            let mut rows = Vec::new();
            loop {
                let more = answer.more;
                self.take(range, answer, &mut rows, &mut size)?;
                let Some(last) = rows.last().filter(|_| more && rows.len() < range.limit && size <= most) else {
                    break;
                };
                let next = format!("{}\0", last.key);
                answer = self.client.range(self.page(range, &next, rows.len(), revision)).await?;
            }
            rows.truncate(range.limit);
            reading.rows.push(rows);
        }
        Ok(reading)
    }

    /// The next rows of a range of which there are so many already.
    fn page(&self, range: &Range, from: &str, there: usize, revision: i64) -> RangeRequest {
        let table = format!("{}/", range.table);
        let range_end = match &range.to {
            Some(to) => self.layout.row(&format!("{table}{to}")),
            None => behind(&self.layout.row(&table)),
        };
        // To etcd no rows at all would be all of them.
        let limit = i64::try_from(range.limit.saturating_sub(there)).unwrap_or(PAGE).clamp(1, PAGE);
        let key = self.layout.row(&format!("{table}{from}"));
        RangeRequest { key, range_end, limit, revision, keys_only: range.keys_only, ..RangeRequest::default() }
    }

    fn take(&self, range: &Range, answer: RangeResponse, rows: &mut Vec<Row>, size: &mut usize) -> Result<(), Error> {
        for kv in answer.kvs {
            let row = self.layout.rest(&kv.key).and_then(|rest| rest.strip_prefix("r/"));
            let key = row.and_then(|row| row.strip_prefix(range.table)?.strip_prefix('/'));
            let key = key.ok_or_else(|| strange(&kv.key))?.to_owned();
            // A blob is read by itself.
            let value = match range.keys_only {
                true => Bytes::new(),
                false => layout::value_of(&kv.value).unwrap_or_default(),
            };
            *size += key.len() + value.len();
            rows.push(Row { key, value });
        }
        Ok(())
    }

    pub(super) async fn blob(&self, table: Table, key: &str) -> Result<Option<Bytes>, Error> {
        let key = self.layout.row(&format!("{table}/{key}"));
        let found = self.client.range(range(key.clone())).await?;
        let Some(row) = found.kvs.first() else { return Ok(None) };
        let blob = BlobRef::decode(&row.value).ok_or_else(|| strange(&key))?;
        let mut value = Vec::with_capacity(blob.bytes);
        for number in 0..blob.chunks {
            let chunk = self.client.range(range(self.layout.chunk(&blob.sha256, number))).await?;
            value.extend_from_slice(chunk.kvs.first().map(|chunk| &chunk.value[..]).unwrap_or_default());
        }
        if layout::digest(&value) != blob.sha256 {
            return Err(strange(&self.layout.chunks(&blob.sha256)));
        }
        Ok(Some(value.into()))
    }

    pub(super) async fn held(&self) -> Result<Vec<Row>, Error> {
        let found = self.client.range(prefix(self.layout.held(""))).await?;
        let row = |kv: KeyValue| {
            let key = self.layout.rest(&kv.key)?.strip_prefix("h/")?.to_owned();
            Some(Row { key, value: kv.value })
        };
        Ok(found.kvs.into_iter().filter_map(row).collect())
    }
}

pub(super) fn version_of(revision: i64) -> Version {
    Version(u64::try_from(revision).unwrap_or_default())
}

pub(super) fn strange(key: &[u8]) -> Error {
    Error::Strange(String::from_utf8_lossy(key).into_owned())
}

pub(super) fn parsed(pending: &KeyValue) -> Result<Pending, Error> {
    serde_json::from_slice(&pending.value).map_err(|_| strange(&pending.key))
}

enum Failed {
    /// etcd has forgotten the revision meanwhile.
    Compacted,
    Pending(KeyValue),
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        if client::is_compacted(&error) { Self::Compacted } else { Self::Error(error) }
    }
}
