//! The store of the control plane behind one trait: rows of bytes in named tables, changed by compare-and-commit, followed
//! by a watch, with leases for what lives with a process. It knows nothing of what the rows mean.
//!
//! Two backends keep the same promises, which one suite checks on both (`tests/behaviour.rs`): [`Embedded`], one file of
//! redb for one process, and [`Etcd`], for several. Invariant of both: a commit lands whole or not at all, is durable before
//! it is acknowledged, and is applied once however often it had to be sent.

mod embedded;
mod etcd;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use time::OffsetDateTime;

pub use self::embedded::{Embedded, Opener};
pub use self::etcd::{Etcd, EtcdOptions, EtcdTls, Location, LocationError};

/// Which commit a state of the store is of: greater with each, 0 before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

/// The name of a table: letters, digits and `_`.
pub type Table = &'static str;

/// The largest value that every backend takes, bytes; a blob may be larger.
pub const MAX_VALUE: usize = 512 << 10;

/// One part of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put {
        table: Table,
        key: String,
        value: Bytes,
    },
    /// A value of whatever size, read by [`Store::blob`] alone.
    PutBlob {
        table: Table,
        key: String,
        value: Bytes,
    },
    Delete {
        table: Table,
        key: String,
    },
}

/// A row as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: String,
    pub value: Bytes,
}

/// Rows of one table in the order of their keys' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub table: Table,
    /// The first key.
    pub from: String,
    /// The key behind the last one; `None`: to the table's end.
    pub to: Option<String>,
    /// So many rows at the most.
    pub limit: usize,
    /// Values are left out.
    pub keys_only: bool,
}

impl Range {
    pub fn all(table: Table) -> Self {
        Self { table, from: String::new(), to: None, limit: usize::MAX, keys_only: false }
    }

    pub fn one(table: Table, key: &str) -> Self {
        let to = Some(format!("{key}\0"));
        Self { table, from: key.to_owned(), to, limit: 1, keys_only: false }
    }
}

/// What ranges held at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    pub version: Version,
    /// The rows of each range, in the order asked for.
    pub rows: Vec<Vec<Row>>,
}

/// One change of a row, as a watch tells it. A blob has no value here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub table: String,
    pub key: String,
    /// `None`: it was deleted.
    pub value: Option<Bytes>,
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The next commit.
    Commit { version: Version, changes: Vec<Change> },
    /// Something is held from now on, or no longer.
    Held { key: String, value: Option<Bytes> },
    /// What came next is not known any more: read everything again and watch from there. The watch ends.
    Compacted,
}

/// Why the store can't be written now, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub since: OffsetDateTime,
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        write!(f, "the store can't be written since {since}: {}", self.reason)
    }
}

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("store {0} is in use: is another weft-control running with this state folder?")]
    InUse(PathBuf),
    #[error("store {path} is damaged ({reason}): move it away and restore a backup of the whole state folder")]
    Damaged { path: PathBuf, reason: String },
    #[error("store {path} can't be opened")]
    Open { path: PathBuf, source: Box<redb::DatabaseError> },
    #[error("the store can't be opened again: {0}")]
    NotOpen(String),
    #[error("store failed")]
    Database(#[from] Box<redb::Error>),
    /// Another commit came first. Nothing was written.
    #[error("the store was changed meanwhile")]
    Conflict,
    #[error("{table}/{key} has {bytes} bytes; the store takes at most {MAX_VALUE}")]
    TooLarge { table: Table, key: String, bytes: usize },
    /// A commit that ends so may have landed.
    #[error("the store can't be reached: {0}")]
    Unreachable(String),
    #[error("the store refuses it: {0}")]
    Refused(String),
    #[error("the store holds something that weft did not write: {0}")]
    Strange(String),
}

impl Error {
    /// Its words in a sentence that says already that the store can't be reached.
    pub(crate) fn reason(&self) -> String {
        if let Self::Unreachable(reason) = self { reason.clone() } else { self.to_string() }
    }
}

/// A store. Futures of an embedded one work on the thread that polls them, and block it.
pub trait Store: Send + Sync + 'static {
    /// Reads ranges as of one moment. Stops a little above `most` bytes in all.
    fn read(&self, ranges: Vec<Range>, most: usize) -> BoxFuture<'_, Result<Reading, Error>>;

    /// A value that was put as a blob.
    fn blob(&self, table: Table, key: &str) -> BoxFuture<'_, Result<Option<Bytes>, Error>>;

    /// Lands all of `writes` or none, if the newest commit is still `expected`. Cancel safe in that it lands whole or not at
    /// all; which of both is told by a read alone.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another commit came first; after any other one a read tells whether it has landed.
    fn commit(&self, expected: Version, writes: Vec<Write>) -> BoxFuture<'_, Result<Version, Error>>;

    /// The commits behind `from`, in order and each once, and what is held from now on. It goes on over failures.
    fn watch(&self, from: Version) -> BoxStream<'static, Event>;

    /// Begins a session, which lives as long as its process and so much longer at the most.
    fn session(&self, life: Duration) -> BoxFuture<'_, Result<Box<dyn Session>, Error>>;

    /// What sessions hold.
    fn held(&self) -> BoxFuture<'_, Result<Vec<Row>, Error>>;

    /// Forgets history that is older than this, and what commits left that failed or were overtaken. Blobs are in these tables
    /// alone: of the pieces of one that no row of theirs names nothing stays.
    fn tidy(&self, keep: Duration, blobs: &'static [Table]) -> BoxFuture<'_, Result<(), Error>>;

    /// The fault that keeps the store from being written now.
    fn fault(&self) -> Option<Fault>;

    /// Counts events after which what was read before may have changed without a watch that tells it: a commit that failed
    /// may have landed.
    fn generation(&self) -> u64;

    /// True where other processes may change the store.
    fn is_shared(&self) -> bool;
}

/// The life of one process as the store sees it. What it holds goes when it ends or is dropped.
pub trait Session: Send + Sync {
    /// Its name, which no other session has or had.
    fn id(&self) -> &str;

    /// Holds rows, which others see; one that another session held is this one's from then on.
    fn hold(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<(), Error>>;

    /// Holds these no longer, as far as they are still this session's.
    fn release(&self, keys: Vec<String>) -> BoxFuture<'_, Result<(), Error>>;

    /// The same with a last value each, which watchers see before it goes.
    fn release_with(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<(), Error>>;

    /// Takes an office that nobody has. True while this session has it.
    fn lead(&self, office: &str) -> BoxFuture<'_, Result<bool, Error>>;

    /// True once the store has, or may have, given up this session.
    fn has_ended(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_away_is_told_once() {
        let away = Error::Unreachable("no member of etcd answers".to_owned());
        assert_eq!(Error::Unreachable(away.reason()).to_string(), away.to_string());
        assert_eq!(Error::Refused("no room".to_owned()).reason(), "the store refuses it: no room");
    }
}
