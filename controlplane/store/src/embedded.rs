//! The embedded backend: one redb file, for one process. Invariant: a commit is one transaction, durable before it is told
//! to anybody; a crash at any moment leaves the state before or after it.

mod adopt;
mod disk;
mod log;
#[cfg(test)]
mod tests;
mod untouched;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::BoxStream;
use redb::{ReadableTable as _, TableDefinition, TableHandle as _};

use self::disk::Disk;
pub use self::disk::Opener;
use self::log::Log;
use crate::{Change, Error, Event, Fault, Range, Reading, Row, Session, Store, Table, Version, Write};

/// Every row, under the name of its table and its key.
const ROWS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("rows");
/// The version, under `VERSION`.
const HEAD: TableDefinition<'_, &str, u64> = TableDefinition::new("head");
const VERSION: &str = "version";

/// A store in a file of this process's own.
pub struct Embedded {
    disk: Disk,
    log: Arc<Log>,
    sessions: Arc<Mutex<Sessions>>,
    /// Held from a commit until it is told, so that commits are told in their order.
    turn: Arc<Mutex<()>>,
}

/// What sessions of this process hold: nobody else sees it, and it ends with the process.
#[derive(Default)]
struct Sessions {
    begun: u64,
    held: BTreeMap<String, (String, Bytes)>,
    offices: BTreeMap<String, String>,
}

impl Embedded {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    /// It is in use, damaged, or can't be read or written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::on(Disk::open(path)?)
    }

    /// The same where the database is opened in a way of its own.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_by(path: &Path, opener: Box<Opener>) -> Result<Self, Error> {
        Self::on(Disk::open_by(path, opener)?)
    }

    /// Opens a file that is there to look at it: whatever is written is in memory only. Others may open it once this is
    /// dropped.
    ///
    /// # Errors
    /// As `open`.
    pub fn look(path: &Path) -> Result<Self, Error> {
        let file = path.to_owned();
        Self::open_by(path, Box::new(move || untouched::open(&file)))
    }

    fn on(disk: Disk) -> Result<Self, Error> {
        let names = disk.read(|txn| Ok(txn.list_tables()?.map(|table| table.name().to_owned()).collect::<Vec<_>>()))?;
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        // Written only where something is missing: a start needs no space on disk.
        if !has(ROWS.name()) || !has(HEAD.name()) {
            disk.write(|txn| {
                txn.open_table(HEAD)?;
                txn.open_table(ROWS)?;
                adopt::tables(txn, &names)?;
                Ok(Some(()))
            })?;
        }
        let version = disk.read(version)?;
        Ok(Self { disk, log: Arc::new(Log::new(version)), sessions: Arc::default(), turn: Arc::default() })
    }

    fn read_now(&self, ranges: &[Range], most: usize) -> Result<Reading, Error> {
        self.disk.read(|txn| {
            let table = txn.open_table(ROWS)?;
            let (mut rows, mut size) = (Vec::with_capacity(ranges.len()), 0);
            for range in ranges {
                let mut found = Vec::new();
                for row in table.range((range.table, range.from.as_str())..)? {
                    let (key, value) = row?;
                    let (of, key) = key.value();
                    let is_behind = range.to.as_deref().is_some_and(|to| key >= to);
                    if of != range.table || is_behind || found.len() >= range.limit || size > most {
                        break;
                    }
                    let value = if range.keys_only { Bytes::new() } else { Bytes::copy_from_slice(value.value()) };
                    size += key.len() + value.len();
                    found.push(Row { key: key.to_owned(), value });
                }
                rows.push(found);
            }
            Ok(Reading { version: version(txn)?, rows })
        })
    }

    fn commit_now(&self, expected: Version, writes: &[Write]) -> Result<Version, Error> {
        let next = Version(expected.0 + 1);
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = self.disk.write(|txn| {
            let mut head = txn.open_table(HEAD)?;
            let found = head.get(VERSION)?.map_or(0, |version| version.value());
            if found != expected.0 {
                return Ok(None);
            }
            head.insert(VERSION, next.0)?;
            let mut rows = txn.open_table(ROWS)?;
            for write in writes {
                match write {
                    Write::Put { table, key, value } | Write::PutBlob { table, key, value } => {
                        rows.insert((*table, key.as_str()), value.as_ref())?;
                    }
                    Write::Delete { table, key } => {
                        rows.remove((*table, key.as_str()))?;
                    }
                }
            }
            Ok(Some(()))
        })?;
        committed.ok_or(Error::Conflict)?;
        self.log.add(Event::Commit { version: next, changes: writes.iter().filter_map(change).collect() });
        Ok(next)
    }
}

fn version(txn: &redb::ReadTransaction) -> Result<Version, redb::Error> {
    Ok(Version(txn.open_table(HEAD)?.get(VERSION)?.map_or(0, |version| version.value())))
}

/// The write as a watch tells it; a blob is not told.
fn change(write: &Write) -> Option<Change> {
    let (table, key, value) = match write {
        Write::Put { table, key, value } => (table, key, Some(value.clone())),
        Write::Delete { table, key } => (table, key, None),
        Write::PutBlob { .. } => return None,
    };
    Some(Change { table: (*table).to_owned(), key: key.clone(), value })
}

impl Store for Embedded {
    fn read(&self, ranges: Vec<Range>, most: usize) -> BoxFuture<'_, Result<Reading, Error>> {
        async move { self.read_now(&ranges, most) }.boxed()
    }

    fn blob(&self, table: Table, key: &str) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        let range = Range::one(table, key);
        async move {
            let reading = self.read_now(&[range], usize::MAX)?;
            Ok(reading.rows.into_iter().flatten().next().map(|row| row.value))
        }
        .boxed()
    }

    fn commit(&self, expected: Version, writes: Vec<Write>) -> BoxFuture<'_, Result<Version, Error>> {
        async move { self.commit_now(expected, &writes) }.boxed()
    }

    fn watch(&self, from: Version) -> BoxStream<'static, Event> {
        Log::follow(self.log.clone(), from)
    }

    fn session(&self, _life: Duration) -> BoxFuture<'_, Result<Box<dyn Session>, Error>> {
        let mut sessions = lock(&self.sessions);
        sessions.begun += 1;
        let id = sessions.begun.to_string();
        drop(sessions);
        let session = Own { id, sessions: self.sessions.clone(), log: self.log.clone(), ended: AtomicBool::new(false) };
        ready(Ok(Box::new(session) as Box<dyn Session>)).boxed()
    }

    fn held(&self) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        let sessions = lock(&self.sessions);
        let row = |(key, (_, value)): (&String, &(String, Bytes))| Row { key: key.clone(), value: value.clone() };
        ready(Ok(sessions.held.iter().map(row).collect())).boxed()
    }

    fn tidy(&self, _keep: Duration, _blobs: &'static [Table]) -> BoxFuture<'_, Result<(), Error>> {
        // History lies in memory and has its bound there; a transaction that failed leaves nothing.
        ready(Ok(())).boxed()
    }

    fn fault(&self) -> Option<Fault> {
        self.disk.fault()
    }

    fn generation(&self) -> u64 {
        self.disk.generation()
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A session of this process.
struct Own {
    id: String,
    sessions: Arc<Mutex<Sessions>>,
    log: Arc<Log>,
    ended: AtomicBool,
}

impl Own {
    fn release_if(&self, is_meant: impl Fn(&str) -> bool) {
        let mut sessions = lock(&self.sessions);
        let own = sessions.held.iter().filter(|(key, (holder, _))| *holder == self.id && is_meant(key));
        let keys: Vec<_> = own.map(|(key, _)| key.clone()).collect();
        for key in keys {
            sessions.held.remove(&key);
            self.log.add(Event::Held { key, value: None });
        }
    }
}

impl Session for Own {
    fn id(&self) -> &str {
        &self.id
    }

    fn hold(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<(), Error>> {
        let mut sessions = lock(&self.sessions);
        for Row { key, value } in rows {
            sessions.held.insert(key.clone(), (self.id.clone(), value.clone()));
            self.log.add(Event::Held { key, value: Some(value) });
        }
        ready(Ok(())).boxed()
    }

    fn release(&self, keys: Vec<String>) -> BoxFuture<'_, Result<(), Error>> {
        self.release_if(|key| keys.iter().any(|wanted| wanted == key));
        ready(Ok(())).boxed()
    }

    fn release_with(&self, rows: Vec<Row>) -> BoxFuture<'_, Result<(), Error>> {
        let mut sessions = lock(&self.sessions);
        for Row { key, value } in rows {
            if sessions.held.get(&key).is_some_and(|(holder, _)| *holder == self.id) {
                sessions.held.remove(&key);
                self.log.add(Event::Held { key: key.clone(), value: Some(value) });
                self.log.add(Event::Held { key, value: None });
            }
        }
        ready(Ok(())).boxed()
    }

    fn lead(&self, office: &str) -> BoxFuture<'_, Result<bool, Error>> {
        let mut sessions = lock(&self.sessions);
        let leader = sessions.offices.entry(office.to_owned()).or_insert_with(|| self.id.clone());
        ready(Ok(*leader == self.id)).boxed()
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.release_if(|_| true);
        lock(&self.sessions).offices.retain(|_, leader| *leader != self.id);
    }
}

fn lock(sessions: &Mutex<Sessions>) -> MutexGuard<'_, Sessions> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}
