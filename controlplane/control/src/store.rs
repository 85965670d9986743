//! The embedded store: one redb file. Invariant: everything that belongs together is one transaction, durable before its
//! effect is seen by anybody; a crash at any moment leaves the state before or after it.

mod disk;
mod dump;
mod origin;
mod shares;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition, TableHandle as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_policy::bundle::Revision;
use weft_policy::resource::ObjectKey;

use self::disk::Disk;
pub use self::disk::Fault;
use crate::claims::ClaimRecord;
use crate::token::{TokenHash, TokenRecord};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, &str, &str> = TableDefinition::new("objects");
const TOKENS: TableDefinition<'_, &str, &str> = TableDefinition::new("tokens");
const AUDIT: TableDefinition<'_, u64, &str> = TableDefinition::new("audit");
const ARTIFACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("artifacts");
const FILTER_VERSIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("filter_versions");
const CLAIMS: TableDefinition<'_, &str, &str> = TableDefinition::new("claims");
/// Actions of proxies: kept apart, so that none of them pushes an operator's entry out.
const AUDIT_PROXIES: TableDefinition<'_, u64, &str> = TableDefinition::new("audit_proxies");
/// Attempts that were refused: of people with a token, and of whoever shows none that is valid.
const AUDIT_REFUSED: TableDefinition<'_, u64, &str> = TableDefinition::new("audit_refused");
const AUDIT_UNKNOWN: TableDefinition<'_, u64, &str> = TableDefinition::new("audit_unknown");
const AUDIT_TABLES: [TableDefinition<'_, u64, &str>; 4] = [AUDIT, AUDIT_PROXIES, AUDIT_REFUSED, AUDIT_UNKNOWN];
/// Records that could not be read and were replaced or deleted, as they were.
const SET_ASIDE: TableDefinition<'_, &str, &str> = TableDefinition::new("set_aside");
const ISSUED: TableDefinition<'_, &str, &str> = TableDefinition::new("issued");
const BANS: TableDefinition<'_, &str, &str> = TableDefinition::new("bans");
const CONDITIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("conditions");

const REVISION: &str = "revision";

/// The open store. All calls block on disk: use them from `spawn_blocking` or at start.
pub struct Store {
    disk: Disk,
    max_audit_entries: u64,
}

/// A failure of the store; never a caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store {0} is in use: is another weft-control running with this state folder?")]
    InUse(PathBuf),
    #[error("store {path} is damaged ({reason}): move it away and restore a backup of the whole state folder")]
    Damaged { path: PathBuf, reason: String },
    #[error("store {path} can't be opened")]
    Open { path: PathBuf, source: redb::DatabaseError },
    #[error("the store can't be opened again: {0}")]
    Unavailable(String),
    #[error("store failed")]
    Database(#[from] Box<redb::Error>),
    #[error("an entry can't be written as JSON")]
    Encode(#[from] serde_json::Error),
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
    /// Identities that are kept out.
    Bans,
    /// When conditions of objects changed.
    Conditions,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static str> {
        match self {
            Self::Issued => ISSUED,
            Self::Bans => BANS,
            Self::Conditions => CONDITIONS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Bans => "bans",
            Self::Conditions => "conditions",
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
    fn table(self) -> (TableDefinition<'static, &'static str, &'static str>, &'static str) {
        match self {
            Self::Objects => (OBJECTS, "objects"),
            Self::FilterVersions => (FILTER_VERSIONS, "filter_versions"),
            Self::Tokens => (TOKENS, "tokens"),
            Self::Claims => (CLAIMS, "claims"),
            Self::Bans => (BANS, "bans"),
        }
    }
}

/// One part of a transaction.
#[derive(Debug)]
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

impl StoreError {
    fn opening(path: &Path, error: redb::DatabaseError) -> Self {
        use redb::{DatabaseError, StorageError};
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse(path),
            DatabaseError::Storage(StorageError::Corrupted(reason)) => Self::Damaged { path, reason },
            DatabaseError::Storage(StorageError::Io(error))
                if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
            {
                Self::Damaged { path, reason: error.to_string() }
            }
            error @ (DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted) => {
                Self::Damaged { path, reason: error.to_string() }
            }
            source @ (DatabaseError::LockProtocolMismatch
            | DatabaseError::TransactionInProgress
            | DatabaseError::Storage(_)
            | _) => Self::Open { path, source },
        }
    }
}

impl Store {
    pub fn open(path: &Path, max_audit_entries: u64) -> Result<Self, StoreError> {
        Self::on(Disk::open(path)?, max_audit_entries)
    }

    fn on(disk: Disk, max_audit_entries: u64) -> Result<Self, StoreError> {
        let store = Self { disk, max_audit_entries };
        let tables =
            store.disk.read(|txn| Ok(txn.list_tables()?.map(|table| table.name().to_owned()).collect::<Vec<_>>()))?;
        // Written only where one is missing: a start needs no space on disk.
        let wanted = [META, OBJECTS, TOKENS, FILTER_VERSIONS, CLAIMS, SET_ASIDE, ISSUED, BANS, CONDITIONS];
        let mut names = wanted.iter().map(|table| table.name()).chain(AUDIT_TABLES.iter().map(|table| table.name()));
        if !names.all(|wanted| tables.iter().any(|there| there == wanted)) {
            store.disk.write(|txn| {
                for table in wanted {
                    txn.open_table(table)?;
                }
                for table in AUDIT_TABLES {
                    txn.open_table(table)?;
                }
                txn.open_table(ARTIFACTS)?;
                origin::name(txn)
            })?;
        }
        Ok(store)
    }

    /// Path of the store's file.
    pub fn path(&self) -> &Path {
        self.disk.path()
    }

    /// The fault that keeps the store from being written now.
    pub fn fault(&self) -> Option<Fault> {
        self.disk.fault()
    }

    /// Counts how often the file was opened again. What was read before may have changed since: a commit that failed may
    /// have landed.
    pub fn generation(&self) -> u64 {
        self.disk.generation()
    }

    /// Writes something small, to find out whether the disk takes it again.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.disk.write(|txn| {
            txn.open_table(META)?.insert("probe", "")?;
            Ok(())
        })
    }

    /// Lands all of `writes` or none, durably; with them the world's new revision where there is one.
    pub fn commit(&self, revision: Option<Revision>, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut encoded = Vec::with_capacity(writes.len());
        for write in writes {
            encoded.push(Encoded::of(write)?);
        }
        self.disk.write(|txn| {
            if let Some(Revision(number)) = revision {
                txn.open_table(META)?.insert(REVISION, number.to_string().as_str())?;
            }
            for write in &encoded {
                write.apply(txn)?;
            }
            // Nothing else makes a log longer.
            if !encoded.iter().any(|write| matches!(write, Encoded::Audit { .. })) {
                return Ok(());
            }
            let others = AUDIT_TABLES.into_iter().filter(|table| table.name() != AUDIT.name());
            others.into_iter().try_for_each(|table| trim_audit(txn, table, self.max_audit_entries))?;
            shares::trim(txn, self.max_audit_entries)
        })
    }

    pub fn revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.meta(REVISION)?.and_then(|text| text.parse().ok()).unwrap_or(0)))
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.disk.read(|txn| Ok(txn.open_table(META)?.get(key)?.map(|v| v.value().to_owned())))
    }

    /// Every object's record, by key.
    pub fn objects<T: DeserializeOwned>(&self) -> Result<Rows<T>, StoreError> {
        self.all(OBJECTS, "objects")
    }

    pub fn filter_versions<T: DeserializeOwned>(&self) -> Result<Rows<T>, StoreError> {
        self.all(FILTER_VERSIONS, "filter_versions")
    }

    /// All records of a table.
    pub fn table<T: DeserializeOwned>(&self, table: Table) -> Result<Rows<T>, StoreError> {
        self.all(table.definition(), table.name())
    }

    /// One record of a table; none also where it can't be read.
    pub fn row<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, StoreError> {
        let found = self
            .disk
            .read(|txn| Ok(txn.open_table(table.definition())?.get(key)?.map(|record| record.value().to_owned())))?;
        Ok(found.and_then(|record| read_record(&record).ok()))
    }

    /// Records that were set aside: each one's key with a number, and its text.
    pub fn set_aside(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.rows(SET_ASIDE)
    }

    pub fn claims(&self) -> Result<Rows<ClaimRecord>, StoreError> {
        self.all(CLAIMS, "claims")
    }

    pub fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        let found =
            self.disk.read(|txn| Ok(txn.open_table(TOKENS)?.get(hash.as_str())?.map(|v| v.value().to_owned())))?;
        let Some(json) = found else { return Ok(None) };
        match read_record(&json) {
            Ok(record) => Ok(Some(record)),
            Err(error) => {
                tracing::warn!(token = hash.id(), %error, "the record of a token can't be read; it opens nothing");
                Ok(None)
            }
        }
    }

    pub fn tokens(&self) -> Result<Rows<TokenRecord>, StoreError> {
        self.all(TOKENS, "tokens")
    }

    pub fn artifact(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.disk.read(|txn| Ok(txn.open_table(ARTIFACTS)?.get(digest)?.map(|v| v.value().to_owned())))
    }

    /// Entries that a query asks for, the newest first; behind `after` the oldest.
    pub fn audit(&self, query: &AuditQuery) -> Result<AuditLog, StoreError> {
        let (from, to) = (query.after.map_or(0, |after| after.saturating_add(1)), query.before.unwrap_or(u64::MAX));
        let is_forward = query.after.is_some();
        let mut log = self.disk.read(|txn| {
            let mut log = AuditLog::new();
            for table in AUDIT_TABLES {
                let table = txn.open_table(table)?;
                let mut rows = table.range(from..to.max(from))?;
                let mut next = || if is_forward { rows.next() } else { rows.next_back() };
                let mut found = 0;
                while found < query.limit
                    && let Some(row) = next()
                {
                    let (number, json) = row?;
                    let entry = query.shown(audit_entry(json.value()));
                    if query.holds_for(&entry) {
                        log.push((number.value(), entry));
                        found += 1;
                    }
                }
            }
            Ok(log)
        })?;
        log.sort_unstable_by_key(|(number, _)| *number);
        if is_forward {
            log.truncate(query.limit);
        } else {
            log.drain(..log.len().saturating_sub(query.limit));
        }
        log.reverse();
        Ok(log)
    }

    /// Records of objects, versions, tokens, claims ... that can't be read. Those that can are not kept in memory.
    pub fn unreadable<T: DeserializeOwned>(&self, of: RecordsOf) -> Result<Vec<Unreadable>, StoreError> {
        let (table, name) = of.table();
        self.disk.read(|txn| {
            let mut unreadable = Vec::new();
            for row in txn.open_table(table)?.iter()? {
                let (key, record) = row?;
                if let Err(reason) = read_record::<T>(record.value()) {
                    let (key, record) = (key.value().to_owned(), record.value().to_owned());
                    unreadable.push(Unreadable { table: name, key, reason, record });
                }
            }
            Ok(unreadable)
        })
    }

    /// Looks at each token by its hash; none is kept in memory.
    pub fn each_token(&self, mut look: impl FnMut(&str, &TokenRecord)) -> Result<(), StoreError> {
        let look = std::cell::RefCell::new(&mut look);
        self.disk.read(|txn| {
            for row in txn.open_table(TOKENS)?.iter()? {
                let (key, record) = row?;
                if let Ok(record) = read_record::<TokenRecord>(record.value()) {
                    (look.borrow_mut())(key.value(), &record);
                }
            }
            Ok(())
        })
    }

    /// The number of the newest entry of the audit log; 0 where there is none.
    pub fn newest_event(&self) -> Result<u64, StoreError> {
        self.disk.read(|txn| {
            let mut newest = 0;
            for table in AUDIT_TABLES {
                newest = newest.max(txn.open_table(table)?.last()?.map_or(0, |(number, _)| number.value()));
            }
            Ok(newest)
        })
    }

    fn all<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'static, &'static str, &'static str>,
        name: &'static str,
    ) -> Result<Rows<T>, StoreError> {
        let mut rows = Rows { read: Vec::new(), unreadable: Vec::new() };
        for (key, record) in self.rows(table)? {
            match read_record(&record) {
                Ok(value) => rows.read.push((key, value)),
                Err(reason) => rows.unreadable.push(Unreadable { table: name, key, reason, record }),
            }
        }
        Ok(rows)
    }

    fn rows(
        &self,
        table: TableDefinition<'static, &'static str, &'static str>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        self.disk.read(|txn| {
            let table = txn.open_table(table)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, json) = row?;
                rows.push((key.value().to_owned(), json.value().to_owned()));
            }
            Ok(rows)
        })
    }
}

/// The newest form of records that this program writes and reads.
const SCHEMA: u64 = 1;

/// The name of the form in a record; a record without one is of form 1.
const SCHEMA_FIELD: &str = "schema";

/// Reads a record, or says why it can't be read. The form is looked at before anything else.
fn read_record<T: DeserializeOwned>(record: &str) -> Result<T, String> {
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

/// A write whose JSON is made already, so that nothing but the disk can fail inside the transaction.
enum Encoded {
    Put(TableDefinition<'static, &'static str, &'static str>, String, String),
    Delete(TableDefinition<'static, &'static str, &'static str>, String),
    Artifact(String, Vec<u8>),
    Audit { table: TableDefinition<'static, u64, &'static str>, actor: String, json: String },
    SetAside(Unreadable),
}

impl Encoded {
    fn of(write: Write) -> Result<Self, StoreError> {
        Ok(match write {
            Write::Meta(key, value) => Self::Put(META, key.to_owned(), value),
            Write::PutObject { key, json } => Self::Put(OBJECTS, key, json),
            Write::DeleteObject { key } => Self::Delete(OBJECTS, key),
            Write::PutRow(table, key, json) => Self::Put(table.definition(), key, json),
            Write::DeleteRow(table, key) => Self::Delete(table.definition(), key),
            Write::SetAside(unreadable) => Self::SetAside(unreadable),
            Write::PutToken(hash, record) => Self::Put(TOKENS, hash.as_str().to_owned(), write_record(&record)?),
            Write::DeleteToken(hash) => Self::Delete(TOKENS, hash.as_str().to_owned()),
            Write::PutArtifact { digest, bytes } => Self::Artifact(digest, bytes),
            Write::PutFilterVersion { key, json } => Self::Put(FILTER_VERSIONS, key, json),
            Write::Claim { key, record: Some(record) } => Self::Put(CLAIMS, key, write_record(&record)?),
            Write::Claim { key, record: None } => Self::Delete(CLAIMS, key),
            Write::Audit(entry) => {
                let json = serde_json::to_string(&entry)?;
                Self::Audit { table: audit_table(&entry), actor: entry.actor, json }
            }
        })
    }

    fn apply(&self, txn: &redb::WriteTransaction) -> Result<(), redb::Error> {
        match self {
            Self::Put(table, key, json) => {
                txn.open_table(*table)?.insert(key.as_str(), json.as_str())?;
            }
            Self::Delete(table, key) => {
                txn.open_table(*table)?.remove(key.as_str())?;
            }
            Self::Artifact(digest, bytes) => {
                txn.open_table(ARTIFACTS)?.insert(digest.as_str(), bytes.as_slice())?;
            }
            Self::Audit { table, actor, json } => {
                let mut next = 1;
                for table in AUDIT_TABLES {
                    let table = txn.open_table(table)?;
                    next = next.max(table.last()?.map_or(1, |(number, _)| number.value() + 1));
                }
                txn.open_table(*table)?.insert(next, json.as_str())?;
                if table.name() == AUDIT.name() {
                    shares::add(txn, actor, next, json.len())?;
                }
            }
            Self::SetAside(Unreadable { table, key, record, .. }) => {
                let mut aside = txn.open_table(SET_ASIDE)?;
                let number = aside.len()?;
                aside.insert(format!("{table}/{key}/{number}").as_str(), record.as_str())?;
            }
        }
        Ok(())
    }
}

/// The table that keeps an entry: what operators did is apart from everything that others can make many of.
fn audit_table(entry: &AuditEntry) -> TableDefinition<'static, u64, &'static str> {
    let is_proxy = entry.actor.starts_with("proxy:") || entry.actor.starts_with("token:");
    match (is_proxy, entry.refused.is_empty()) {
        (true, _) => AUDIT_PROXIES,
        (false, true) => AUDIT,
        (false, false) if entry.actor == AuditEntry::UNKNOWN => AUDIT_UNKNOWN,
        (false, false) => AUDIT_REFUSED,
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

fn trim_audit(
    txn: &redb::WriteTransaction,
    table: TableDefinition<'static, u64, &'static str>,
    keep: u64,
) -> Result<(), redb::Error> {
    let mut table = txn.open_table(table)?;
    while table.len()? > keep {
        table.pop_first()?;
    }
    Ok(())
}
