//! The records of the control plane and what a change of them is made of, above whatever keeps the rows. Invariant:
//! everything that belongs together is one commit, durable before its effect is seen by anybody; a crash at any moment
//! leaves the state before or after it.

mod books;
mod dump;
mod frozen;
mod look;
mod origin;
mod scan;
mod sealed;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;
mod waiting;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_policy::bundle::Revision;
use weft_policy::resource::ObjectKey;
pub use weft_store::Fault;
pub(crate) use weft_store::{Change, Event, Session, Version};
use weft_store::{Embedded, Etcd, EtcdOptions, Range, Row};

use self::books::{AUDIT, Books};
pub(crate) use self::frozen::{Changed, Frozen};
pub(crate) use self::origin::ROOTS;
pub(crate) use self::sealed::is_of_secret;
use self::waiting::Waiting;
use crate::claims::ClaimRecord;
use crate::seal::Seal;
use crate::token::{TokenHash, TokenRecord};

const META: &str = "meta";
const OBJECTS: &str = "objects";
const TOKENS: &str = "tokens";
const ARTIFACTS: &str = "artifacts";
const FILTER_VERSIONS: &str = "filter_versions";
const CLAIMS: &str = "claims";
/// Records that could not be read and were replaced or deleted, as they were.
const SET_ASIDE: &str = "set_aside";
const ISSUED: &str = "issued";
const JOINED: &str = "joined";
const BANS: &str = "bans";
const CONDITIONS: &str = "conditions";

const REVISION: &str = "revision";

/// So many rows are looked at in one go where not all are kept.
const PAGE: usize = 1_000;

/// The open store. All calls block on a disk or a network: use them from `spawn_blocking` or at start.
pub struct Store {
    rows: Waiting,
    /// What the audit log is known to be; held by whoever commits.
    books: Mutex<Option<Books>>,
    /// The newest commit up to which this process knows of all, see `seen`.
    seen: AtomicU64,
    max_audit_entries: u64,
    /// Encrypts the values of Secrets, where there is a key to do it by.
    seal: Option<Arc<Seal>>,
}

/// A failure of the store; never a caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Rows(#[from] weft_store::Error),
    #[error("an entry can't be written as JSON")]
    Encode(#[from] serde_json::Error),
    /// Of a commit of several changes, each of which is told.
    #[error(transparent)]
    OfSeveral(Arc<Self>),
}

impl StoreError {
    /// Of the rows' store.
    pub(crate) fn rows(&self) -> Option<&weft_store::Error> {
        match self {
            Self::Rows(error) => Some(error),
            Self::OfSeveral(error) => error.rows(),
            Self::Encode(_) => None,
        }
    }

    /// Another commit came first: nothing was written, and the change is made again on what is there now.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self.rows(), Some(weft_store::Error::Conflict))
    }

    /// It may be reached again at any moment; nothing is known of it until then.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self.rows(), Some(weft_store::Error::Unreachable(_)))
    }
}

/// A record that this program can't read. It stays as it is until something takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    pub table: &'static str,
    pub key: String,
    pub reason: String,
    /// The record, byte for byte.
    pub record: String,
}

impl Unreadable {
    /// The object that the record is of.
    pub fn object(&self) -> Option<ObjectKey> {
        let mut parts = self.key.splitn(3, '/').filter(|_| self.table == "objects");
        let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        Some(ObjectKey::new(kind.parse().ok()?, namespace, name))
    }
}

/// Rows of a table: those that can be read, and those that can't.
#[derive(Debug)]
pub struct Rows<T> {
    pub read: Vec<(String, T)>,
    pub unreadable: Vec<Unreadable>,
}

/// One line of the audit log: who did what to which object, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuditEntry {
    pub time_unix_ms: i64,
    /// `operator:<token id>`, `proxy:<identity>/<name>`, `system` or `unknown`.
    pub actor: String,
    /// The name of the actor's token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    pub action: String,
    pub object: String,
    /// The revision it made, 0 where it made none.
    pub revision: u64,
    pub detail: String,
    /// What it changed, as a difference of manifests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub diff: String,
    /// The namespaces that it is about; none where it is about the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Status and code of the answer that refused it; empty where it was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refused: String,
}

impl AuditEntry {
    /// The actor who shows no valid token.
    pub(crate) const UNKNOWN: &'static str = "unknown";
}

/// Entries with their numbers.
pub type AuditLog = Vec<(u64, AuditEntry)>;

/// Which entries of the audit log are asked for. Texts are parts, in whatever case.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    pub before: Option<u64>,
    /// With it the oldest of the newer entries are given, else the newest of all.
    pub after: Option<u64>,
    pub actor: Option<String>,
    pub action: Option<String>,
    pub object: Option<String>,
    pub since_unix_ms: Option<i64>,
    pub refused: Option<bool>,
    /// Only entries that are about nothing else than these.
    pub namespaces: Option<BTreeSet<String>>,
    /// Ids of the tokens whose deeds are told as theirs; `None`: all.
    pub known: Option<BTreeSet<String>>,
    pub limit: usize,
}

/// Stands for an operator of whom the reader may not know.
pub(crate) const OPERATOR: &str = "operator";

/// True for an actor whose token is none of `known`.
pub(crate) fn is_hidden(actor: &str, known: &BTreeSet<String>) -> bool {
    actor.strip_prefix("operator:").is_some_and(|id| !known.contains(id))
}

impl AuditQuery {
    /// The entry as it is told to who asks: filters look at nothing else.
    fn shown(&self, entry: AuditEntry) -> AuditEntry {
        match &self.known {
            Some(known) if is_hidden(&entry.actor, known) => {
                AuditEntry { actor: OPERATOR.to_owned(), name: String::new(), from: String::new(), ..entry }
            }
            Some(_) | None => entry,
        }
    }

    fn holds_for(&self, entry: &AuditEntry) -> bool {
        let part = |wanted: &Option<String>, texts: &[&str]| {
            let wanted = wanted.as_ref().map(|wanted| wanted.to_lowercase());
            wanted.is_none_or(|wanted| texts.iter().any(|text| text.to_lowercase().contains(&wanted)))
        };
        let is_within = |wanted: &BTreeSet<String>| {
            !entry.namespaces.is_empty() && entry.namespaces.iter().all(|namespace| wanted.contains(namespace))
        };
        part(&self.actor, &[&entry.actor, &entry.name])
            && part(&self.action, &[&entry.action])
            && part(&self.object, &[&entry.object])
            && self.since_unix_ms.is_none_or(|since| entry.time_unix_ms >= since)
            && self.refused.is_none_or(|refused| refused != entry.refused.is_empty())
            && self.namespaces.as_ref().is_none_or(is_within)
    }
}

/// Tables whose records only one part of this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Certificates by serial number.
    Issued,
    /// Joins of late, by the hash of their token and the key that was certified.
    Joined,
    /// Identities that are kept out.
    Bans,
    /// When conditions of objects changed.
    Conditions,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Issued => ISSUED,
            Self::Joined => JOINED,
            Self::Bans => BANS,
            Self::Conditions => CONDITIONS,
        }
    }
}

/// Records that are looked through without being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordsOf {
    Objects,
    FilterVersions,
    Tokens,
    Claims,
    Bans,
}

impl RecordsOf {
    fn table(self) -> &'static str {
        match self {
            Self::Objects => OBJECTS,
            Self::FilterVersions => FILTER_VERSIONS,
            Self::Tokens => TOKENS,
            Self::Claims => CLAIMS,
            Self::Bans => BANS,
        }
    }
}

/// One part of a commit.
#[derive(Debug, Clone)]
pub enum Write {
    Meta(&'static str, String),
    PutObject {
        key: String,
        json: String,
    },
    DeleteObject {
        key: String,
    },
    /// Keeps a record that can't be read, before something takes its place.
    SetAside(Unreadable),
    PutRow(Table, String, String),
    DeleteRow(Table, String),
    PutToken(TokenHash, TokenRecord),
    DeleteToken(TokenHash),
    PutArtifact {
        digest: String,
        bytes: Vec<u8>,
    },
    DeleteArtifact {
        digest: String,
    },
    PutFilterVersion {
        key: String,
        json: String,
    },
    /// A claim as it is from now on; without a record it ended.
    Claim {
        key: String,
        record: Option<ClaimRecord>,
    },
    Audit(Box<AuditEntry>),
}

impl Store {
    /// The embedded store in a file of its own.
    pub fn open(path: &Path, max_audit_entries: u64) -> Result<Self, StoreError> {
        Self::on(Waiting::embedded(Embedded::open(path)?), max_audit_entries)
    }

    /// A store above this one, of whose calls none waits.
    #[cfg(test)]
    pub(crate) fn over(rows: impl weft_store::Store, max_audit_entries: u64) -> Result<Self, StoreError> {
        Self::on(Waiting::embedded(rows), max_audit_entries)
    }

    fn on(rows: Waiting, max_audit_entries: u64) -> Result<Self, StoreError> {
        let store = Self::bare(rows, max_audit_entries);
        origin::name(&store)?;
        Ok(store)
    }

    /// A store in etcd, which several processes may use.
    pub fn connect(options: EtcdOptions, max_audit_entries: u64) -> Result<Self, StoreError> {
        Self::on(Waiting::connect(async move { Etcd::open(&options).await })?, max_audit_entries)
    }

    /// True where other processes may change the store.
    pub fn is_shared(&self) -> bool {
        self.rows.store().is_shared()
    }

    /// The commit up to which this process knows what all commits changed. Its own count as known.
    pub(crate) fn seen(&self) -> Version {
        Version(self.seen.load(Ordering::Acquire))
    }

    /// What commits up to this one changed is known from now on.
    pub(crate) fn has_seen(&self, version: Version) {
        self.seen.fetch_max(version.0, Ordering::AcqRel);
    }

    /// Everything was read anew, as of this commit, of whatever store that is now.
    pub(crate) fn has_read(&self, version: Version) {
        self.seen.store(version.0, Ordering::Release);
    }

    /// The commits behind `from`, as they come.
    pub(crate) fn follow(&self, from: Version) -> tokio::sync::mpsc::Receiver<Event> {
        self.rows.follow(from)
    }

    /// Forgets history that is older than this.
    pub(crate) fn tidy(&self, keep: std::time::Duration) -> Result<(), StoreError> {
        Ok(self.rows.wait(move |rows| Box::pin(async move { rows.tidy(keep, &[ARTIFACTS]).await }))?)
    }

    /// The fault that keeps the store from being written now.
    pub fn fault(&self) -> Option<Fault> {
        self.rows.store().fault()
    }

    /// Counts how often what was read before may have changed without a word: a commit that failed may have landed.
    pub fn generation(&self) -> u64 {
        self.rows.store().generation()
    }

    /// Writes something small, to find out whether the store takes it again.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.commit(None, vec![Write::Meta("probe", String::new())])
    }

    /// Lands all of `writes` or none, durably; with them the world's new revision where there is one.
    pub fn commit(&self, revision: Option<Revision>, writes: Vec<Write>) -> Result<(), StoreError> {
        self.commit_behind(None, revision, writes).map(drop)
    }

    /// The same, if `expected` is the newest commit. `None`: whatever that is.
    pub(crate) fn commit_behind(
        &self,
        expected: Option<Version>,
        revision: Option<Revision>,
        writes: Vec<Write>,
    ) -> Result<Version, StoreError> {
        let mut encoded = Vec::with_capacity(writes.len() + 1);
        encoded.extend(revision.map(|Revision(number)| put(META, REVISION.to_owned(), number.to_string())));
        for write in writes {
            encoded.push(Encoded::of(self.sealed(write)?)?);
        }
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let is_known = books.as_ref().is_some_and(|books| books.is_of(&self.rows, expected));
            let mut next = match books.take().filter(|_| is_known) {
                Some(books) => books,
                None => Books::load(&self.rows)?,
            };
            if expected.is_some_and(|expected| expected != next.version) {
                *books = Some(next);
                return Err(weft_store::Error::Conflict.into());
            }
            let writes = self.rows_of(&mut next, &encoded)?;
            let known = next.version;
            match self.rows.wait(move |rows| Box::pin(async move { rows.commit(known, writes).await })) {
                Ok(version) => {
                    // What was known of all before it is so behind it.
                    let _ = self.seen.compare_exchange(known.0, version.0, Ordering::AcqRel, Ordering::Relaxed);
                    next.version = version;
                    *books = Some(next);
                    return Ok(version);
                }
                Err(weft_store::Error::Conflict) if expected.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The rows that a commit comes to, the audit log kept in its bounds.
    fn rows_of(&self, books: &mut Books, encoded: &[Encoded]) -> Result<Vec<weft_store::Write>, StoreError> {
        let (mut writes, mut is_told, mut aside) = (Vec::with_capacity(encoded.len()), false, None);
        for write in encoded {
            match write {
                Encoded::Row(write) => writes.push(write.clone()),
                Encoded::Audit { table, actor, json } => {
                    is_told = true;
                    books.add(*table, actor, json, &mut writes);
                }
                Encoded::SetAside(Unreadable { table, key, record, .. }) => {
                    let number = match aside {
                        Some(number) => number,
                        None => self.rows_in(Range { keys_only: true, ..Range::all(SET_ASIDE) })?.len(),
                    };
                    aside = Some(number + 1);
                    writes.push(row(SET_ASIDE, format!("{table}/{key}/{number}"), record.clone()));
                }
            }
        }
        // Nothing else makes a log longer.
        if is_told {
            books.trim(&self.rows, self.max_audit_entries, &mut writes)?;
            books.keep(&mut writes);
        }
        Ok(writes)
    }

    /// The newest commit.
    pub(crate) fn version(&self) -> Result<Version, StoreError> {
        Ok(self.rows.read(Vec::new())?.version)
    }

    pub fn revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.meta(REVISION)?.and_then(|text| text.parse().ok()).unwrap_or(0)))
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.one(META, key)
    }

    /// Every object's record, by key.
    pub fn objects<T: DeserializeOwned>(&self) -> Result<Rows<T>, StoreError> {
        self.all(OBJECTS)
    }

    pub fn filter_versions<T: DeserializeOwned>(&self) -> Result<Rows<T>, StoreError> {
        self.all(FILTER_VERSIONS)
    }

    /// All records of a table.
    pub fn table<T: DeserializeOwned>(&self, table: Table) -> Result<Rows<T>, StoreError> {
        self.all(table.name())
    }

    /// One record of a table; none also where it can't be read.
    pub fn row<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, StoreError> {
        Ok(self.one(table.name(), key)?.and_then(|record| read_record(&record).ok()))
    }

    /// Records that were set aside: each one's key with a number, and its text.
    pub fn set_aside(&self) -> Result<Vec<(String, String)>, StoreError> {
        Ok(self.rows_in(Range::all(SET_ASIDE))?.into_iter().map(texts).collect())
    }

    pub fn claims(&self) -> Result<Rows<ClaimRecord>, StoreError> {
        self.all(CLAIMS)
    }

    pub fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        let Some(json) = self.one(TOKENS, hash.as_str())? else { return Ok(None) };
        match read_record(&json) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(token = hash.id(), %error, "the record of a token can't be read; it opens nothing");
                Ok(None)
            }
        }
    }

    pub fn tokens(&self) -> Result<Rows<TokenRecord>, StoreError> {
        self.all(TOKENS)
    }

    /// The digests of all binaries.
    pub fn artifacts(&self) -> Result<Vec<String>, StoreError> {
        let rows = self.rows_in(Range { keys_only: true, ..Range::all(ARTIFACTS) })?;
        Ok(rows.into_iter().map(|row| row.key).collect())
    }

    pub fn artifact(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let digest = digest.to_owned();
        let found = self.rows.wait(move |rows| Box::pin(async move { rows.blob(ARTIFACTS, &digest).await }))?;
        Ok(found.map(|bytes| bytes.to_vec()))
    }

    /// Records of objects, versions, tokens, claims ... that can't be read. Those that can are not kept in memory.
    pub fn unreadable<T: DeserializeOwned>(&self, of: RecordsOf) -> Result<Vec<Unreadable>, StoreError> {
        let mut unreadable = Vec::new();
        self.each(of.table(), |key, record| {
            if let Err(reason) = read_record::<T>(&record) {
                unreadable.push(Unreadable { table: of.table(), key, reason, record });
            }
        })?;
        Ok(unreadable)
    }

    /// Looks at each token by its hash; none is kept in memory.
    pub fn each_token(&self, mut look: impl FnMut(&str, &TokenRecord)) -> Result<(), StoreError> {
        self.each(TOKENS, |key, record| {
            if let Ok(record) = read_record::<TokenRecord>(&record) {
                look(&key, &record);
            }
        })
    }

    fn each(&self, table: &'static str, mut look: impl FnMut(String, String)) -> Result<(), StoreError> {
        let mut range = Range { limit: PAGE, ..Range::all(table) };
        loop {
            let rows = self.rows_in(range.clone())?;
            let is_last = rows.len() < PAGE;
            if let Some(last) = rows.last() {
                range.from = format!("{}\0", last.key);
            }
            rows.into_iter().map(texts).for_each(|(key, record)| look(key, record));
            if is_last {
                return Ok(());
            }
        }
    }

    fn one(&self, table: &'static str, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.rows_in(Range::one(table, key))?.into_iter().next().map(|row| texts(row).1))
    }

    fn all<T: DeserializeOwned>(&self, table: &'static str) -> Result<Rows<T>, StoreError> {
        Ok(parsed(table, self.rows_in(Range::all(table))?.into_iter().map(texts)))
    }

    fn rows_in(&self, range: Range) -> Result<Vec<Row>, StoreError> {
        Ok(self.rows.read(vec![range])?.rows.into_iter().next().unwrap_or_default())
    }
}

fn parsed<T: DeserializeOwned>(table: &'static str, records: impl Iterator<Item = (String, String)>) -> Rows<T> {
    let mut rows = Rows { read: Vec::new(), unreadable: Vec::new() };
    for (key, record) in records {
        match read_record(&record) {
            Ok(value) => rows.read.push((key, value)),
            Err(reason) => rows.unreadable.push(Unreadable { table, key, reason, record }),
        }
    }
    rows
}

/// A row as texts. What is none was written by nobody here, and is no JSON either.
fn texts(row: Row) -> (String, String) {
    (row.key, String::from_utf8_lossy(&row.value).into_owned())
}

fn row(table: &'static str, key: String, value: String) -> weft_store::Write {
    weft_store::Write::Put { table, key, value: value.into() }
}

fn put(table: &'static str, key: String, value: String) -> Encoded {
    Encoded::Row(row(table, key, value))
}

fn delete(table: &'static str, key: String) -> Encoded {
    Encoded::Row(weft_store::Write::Delete { table, key })
}

/// The newest form of records that this program writes and reads.
const SCHEMA: u64 = 1;

/// The name of the form in a record; a record without one is of form 1.
const SCHEMA_FIELD: &str = "schema";

/// Reads a record, or says why it can't be read. The form is looked at before anything else.
pub(crate) fn read_record<T: DeserializeOwned>(record: &str) -> Result<T, String> {
    let mut value: serde_json::Value = serde_json::from_str(record).map_err(|error| format!("no JSON: {error}"))?;
    if let Some(fields) = value.as_object_mut()
        && let Some(schema) = fields.remove(SCHEMA_FIELD)
        && schema.as_u64().is_none_or(|schema| schema > SCHEMA)
    {
        return Err(format!("it has form {schema}, which a newer weft-control wrote; this one reads up to {SCHEMA}"));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// A record with the form that it has.
pub(crate) fn write_record(record: &impl Serialize) -> Result<String, StoreError> {
    let mut value = serde_json::to_value(record)?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert(SCHEMA_FIELD.to_owned(), SCHEMA.into());
    }
    Ok(serde_json::to_string(&value)?)
}

/// A write whose JSON is made already, so that nothing but the store can fail where it is committed.
enum Encoded {
    Row(weft_store::Write),
    /// An entry of the audit log's table of this number.
    Audit {
        table: usize,
        actor: String,
        json: String,
    },
    SetAside(Unreadable),
}

impl Encoded {
    fn of(write: Write) -> Result<Self, StoreError> {
        Ok(match write {
            Write::Meta(key, value) => put(META, key.to_owned(), value),
            Write::PutObject { key, json } => put(OBJECTS, key, json),
            Write::DeleteObject { key } => delete(OBJECTS, key),
            Write::PutRow(table, key, json) => put(table.name(), key, json),
            Write::DeleteRow(table, key) => delete(table.name(), key),
            Write::SetAside(unreadable) => Self::SetAside(unreadable),
            Write::PutToken(hash, record) => put(TOKENS, hash.as_str().to_owned(), write_record(&record)?),
            Write::DeleteToken(hash) => delete(TOKENS, hash.as_str().to_owned()),
            Write::PutArtifact { digest, bytes } => {
                Self::Row(weft_store::Write::PutBlob { table: ARTIFACTS, key: digest, value: bytes.into() })
            }
            Write::DeleteArtifact { digest } => delete(ARTIFACTS, digest),
            Write::PutFilterVersion { key, json } => put(FILTER_VERSIONS, key, json),
            Write::Claim { key, record: Some(record) } => put(CLAIMS, key, write_record(&record)?),
            Write::Claim { key, record: None } => delete(CLAIMS, key),
            Write::Audit(entry) => {
                let json = serde_json::to_string(&entry)?;
                Self::Audit { table: audit_table(&entry), actor: entry.actor, json }
            }
        })
    }
}

/// The table that keeps an entry: what operators did is apart from everything that others can make many of.
fn audit_table(entry: &AuditEntry) -> usize {
    let is_proxy = entry.actor.starts_with("proxy:") || entry.actor.starts_with("token:");
    match (is_proxy, entry.refused.is_empty()) {
        (true, _) => books::PROXIES,
        (false, true) => AUDIT,
        (false, false) if entry.actor == AuditEntry::UNKNOWN => books::UNKNOWN,
        (false, false) => books::REFUSED,
    }
}

fn audit_entry(json: &str) -> AuditEntry {
    serde_json::from_str(json).unwrap_or_else(|error| AuditEntry {
        actor: "system".to_owned(),
        action: "unreadable".to_owned(),
        detail: error.to_string(),
        ..AuditEntry::default()
    })
}
