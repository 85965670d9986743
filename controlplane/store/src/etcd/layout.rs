//! The keys of a store in etcd, all below one prefix, and what lies under those that are the store's own.
//!
//! `head` the newest commit's name; `r/TABLE/KEY` rows; `b/DIGEST/N` chunks of blobs; `t/COMMIT/N` parts of large commits and
//! `pending` the one that is being put in place; `w/WRITER` each process's last commit; `h/KEY`, `e/OFFICE` with leases.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Change, Write};

/// A blob's chunks have so many bytes.
pub(super) const CHUNK: usize = 512 << 10;

pub(super) struct Layout {
    prefix: String,
}

/// The commit that is being put in place: its name, its parts, and how many of them are in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) id: String,
    pub(super) parts: usize,
    pub(super) done: usize,
}

/// Stands in a row for a blob.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlobRef {
    pub(super) sha256: String,
    pub(super) bytes: usize,
    pub(super) chunks: usize,
}

/// Rows begin with one of these.
const PLAIN: u8 = b'=';
const BLOB: u8 = b'@';

impl BlobRef {
    pub(super) fn encode(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("it has a name and two numbers");
        [&[BLOB][..], &json].concat().into()
    }

    pub(super) fn decode(row: &Bytes) -> Option<Self> {
        serde_json::from_slice(row.strip_prefix(&[BLOB])?).ok()
    }
}

pub(super) fn plain(value: &Bytes) -> Bytes {
    [&[PLAIN][..], value].concat().into()
}

/// The value of a plain row.
pub(super) fn value_of(row: &Bytes) -> Option<Bytes> {
    (row.first() == Some(&PLAIN)).then(|| row.slice(1..))
}

pub(super) fn digest(value: &[u8]) -> String {
    Sha256::digest(value).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A write of a large commit, as a part of it is stored. Its value is a row's, as it will be.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StagedWrite {
    #[prost(string, tag = "1")]
    pub(super) row: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) value: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Part {
    #[prost(message, repeated, tag = "1")]
    pub(super) writes: Vec<StagedWrite>,
}

impl StagedWrite {
    /// `TABLE/KEY` and the value.
    pub(super) fn of(write: &Write, blob: Option<Bytes>) -> Self {
        let (table, key, value) = match write {
            Write::Put { table, key, value } => (table, key, Some(plain(value))),
            Write::PutBlob { table, key, .. } => (table, key, blob),
            Write::Delete { table, key } => (table, key, None),
        };
        Self { row: format!("{table}/{key}"), value }
    }

    pub(super) fn size(&self) -> usize {
        self.row.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A row as a watch tells it; a blob is not told.
pub(super) fn change(row: &str, value: Option<&Bytes>) -> Option<Change> {
    let (table, key) = row.split_once('/')?;
    let value = match value {
        Some(value) => Some(value_of(value)?),
        None => None,
    };
    Some(Change { table: table.to_owned(), key: key.to_owned(), value })
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: format!("/{prefix}/") }
    }

    fn key(&self, rest: &str) -> Bytes {
        format!("{}{rest}", self.prefix).into()
    }

    pub(super) fn all(&self) -> Bytes {
        self.key("")
    }

    pub(super) fn head(&self) -> Bytes {
        self.key("head")
    }

    pub(super) fn pending(&self) -> Bytes {
        self.key("pending")
    }

    pub(super) fn row(&self, row: &str) -> Bytes {
        self.key(&format!("r/{row}"))
    }

    pub(super) fn chunk(&self, digest: &str, number: usize) -> Bytes {
        self.key(&format!("b/{digest}/{number:06}"))
    }

    pub(super) fn blobs(&self) -> Bytes {
        self.key("b/")
    }

    /// The digest that a chunk is of.
    pub(super) fn digest_of(&self, key: &Bytes) -> Option<String> {
        let (digest, _) = self.rest(key)?.strip_prefix("b/")?.split_once('/')?;
        Some(digest.to_owned())
    }

    pub(super) fn chunks(&self, digest: &str) -> Bytes {
        self.key(&format!("b/{digest}/"))
    }

    pub(super) fn staged(&self) -> Bytes {
        self.key("t/")
    }

    pub(super) fn staged_by(&self, commit: &str) -> Bytes {
        self.key(&format!("t/{commit}/"))
    }

    pub(super) fn part(&self, commit: &str, number: usize) -> Bytes {
        self.key(&format!("t/{commit}/{number:06}"))
    }

    /// The commit that a staged part is of.
    pub(super) fn commit_of(&self, key: &Bytes) -> Option<String> {
        let (commit, _) = self.rest(key)?.strip_prefix("t/")?.split_once('/')?;
        Some(commit.to_owned())
    }

    pub(super) fn is_staged_by(&self, key: &Bytes, commit: &str) -> bool {
        key.starts_with(&self.staged_by(commit))
    }

    pub(super) fn writers(&self) -> Bytes {
        self.key("w/")
    }

    pub(super) fn writer(&self, writer: &str) -> Bytes {
        self.key(&format!("w/{writer}"))
    }

    pub(super) fn held(&self, key: &str) -> Bytes {
        self.key(&format!("h/{key}"))
    }

    pub(super) fn office(&self, office: &str) -> Bytes {
        self.key(&format!("e/{office}"))
    }

    /// The part of a key behind the prefix.
    pub(super) fn rest<'k>(&self, key: &'k [u8]) -> Option<&'k str> {
        std::str::from_utf8(key.strip_prefix(self.prefix.as_bytes())?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_whether_they_are_blobs() {
        let value = Bytes::from_static(b"@{}");
        assert_eq!(value_of(&plain(&value)), Some(value.clone()));
        assert_eq!(BlobRef::decode(&plain(&value)), None, "what looks like one is none");
        let blob = BlobRef { sha256: digest(b"x"), bytes: 1, chunks: 1 };
        assert_eq!(BlobRef::decode(&blob.encode()), Some(blob));
        let layout = Layout::new("mesh/a");
        assert_eq!(layout.rest(&layout.row("objects/a/b/c")), Some("r/objects/a/b/c"));
        assert_eq!(layout.rest(b"/mesh/b/head"), None);
    }
}
