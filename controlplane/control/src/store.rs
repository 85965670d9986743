//! The embedded store: one redb file. Invariant: everything that belongs together is one transaction, durable before its
//! effect is seen by anybody; a crash at any moment leaves the state before or after it.

#[cfg(test)]
mod tests;

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weft_policy::bundle::Revision;

use crate::token::{TokenHash, TokenRecord};

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const OBJECTS: TableDefinition<'_, &str, &str> = TableDefinition::new("objects");
const TOKENS: TableDefinition<'_, &str, &str> = TableDefinition::new("tokens");
const AUDIT: TableDefinition<'_, u64, &str> = TableDefinition::new("audit");
const ARTIFACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("artifacts");
const FILTER_VERSIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("filter_versions");

const REVISION: &str = "revision";

/// The open store. All calls block on disk: use them from `spawn_blocking` or at start.
pub struct Store {
    database: Database,
    max_audit_entries: u64,
}

/// What went wrong with the store: never a caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("store {path} can't be opened (another weft-control with the same state folder?)")]
    Open { path: PathBuf, source: redb::DatabaseError },
    #[error("store failed")]
    Database(#[from] Box<redb::Error>),
    #[error("store holds an entry that can't be read: {table} {key}")]
    Malformed { table: &'static str, key: String, source: serde_json::Error },
    #[error("an entry can't be written as JSON")]
    Encode(#[from] serde_json::Error),
}

/// One line of the audit log: who did what to which object, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub time_unix_ms: i64,
    /// `operator:<token id>`, `proxy:<identity>/<name>` or `system`.
    pub actor: String,
    pub action: String,
    pub object: String,
    /// The revision it made, 0 where it made none.
    pub revision: u64,
    pub detail: String,
}

/// One part of a transaction.
#[derive(Debug)]
pub enum Write {
    Meta(&'static str, String),
    PutObject { key: String, json: String },
    DeleteObject { key: String },
    PutToken(TokenHash, TokenRecord),
    DeleteToken(TokenHash),
    PutArtifact { digest: String, bytes: Vec<u8> },
    PutFilterVersion { key: String, json: String },
    Audit(AuditEntry),
}

impl Store {
    pub fn open(path: &Path, max_audit_entries: u64) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        // Token hashes and the audit log are for the owner only.
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(|e| failed(redb::DatabaseError::Storage(redb::StorageError::Io(e))))?;
        let backend = redb::backends::FileBackend::new(file).map_err(failed)?;
        let database = Database::builder().create_with_backend(backend).map_err(failed)?;
        let store = Self { database, max_audit_entries };
        store.in_transaction(|txn| {
            txn.open_table(META)?;
            txn.open_table(OBJECTS)?;
            txn.open_table(TOKENS)?;
            txn.open_table(AUDIT)?;
            txn.open_table(ARTIFACTS)?;
            txn.open_table(FILTER_VERSIONS)?;
            Ok(())
        })?;
        Ok(store)
    }

    /// Lands all of `writes` or none, durably; with them the world's new revision where there is one.
    pub fn commit(&self, revision: Option<Revision>, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut encoded = Vec::with_capacity(writes.len());
        for write in writes {
            encoded.push(Encoded::of(write)?);
        }
        self.in_transaction(|txn| {
            if let Some(Revision(number)) = revision {
                txn.open_table(META)?.insert(REVISION, number.to_string().as_str())?;
            }
            for write in &encoded {
                write.apply(txn)?;
            }
            trim_audit(txn, self.max_audit_entries)
        })
    }

    pub fn revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.meta(REVISION)?.and_then(|text| text.parse().ok()).unwrap_or(0)))
    }

    pub fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.reading(|txn| Ok(txn.open_table(META)?.get(key)?.map(|v| v.value().to_owned())))
    }

    /// Every object's JSON, by key.
    pub fn objects<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>, StoreError> {
        self.all(OBJECTS, "objects")
    }

    pub fn filter_versions<T: DeserializeOwned>(&self) -> Result<Vec<(String, T)>, StoreError> {
        self.all(FILTER_VERSIONS, "filter_versions")
    }

    pub fn token(&self, hash: &TokenHash) -> Result<Option<TokenRecord>, StoreError> {
        let found =
            self.reading(|txn| Ok(txn.open_table(TOKENS)?.get(hash.as_str())?.map(|v| v.value().to_owned())))?;
        let Some(json) = found else { return Ok(None) };
        parse(&json, "tokens", hash.as_str()).map(Some)
    }

    pub fn tokens(&self) -> Result<Vec<(String, TokenRecord)>, StoreError> {
        self.all(TOKENS, "tokens")
    }

    pub fn artifact(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading(|txn| Ok(txn.open_table(ARTIFACTS)?.get(digest)?.map(|v| v.value().to_owned())))
    }

    /// The newest entries first, at most `limit`, older than number `before`.
    pub fn audit(&self, before: Option<u64>, limit: usize) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        let rows = self.reading(|txn| {
            let table = txn.open_table(AUDIT)?;
            let mut rows = Vec::new();
            for row in table.range(..before.unwrap_or(u64::MAX))?.rev().take(limit) {
                let (number, json) = row?;
                rows.push((number.value(), json.value().to_owned()));
            }
            Ok(rows)
        })?;
        rows.into_iter().map(|(n, json)| Ok((n, parse(&json, "audit", &n.to_string())?))).collect()
    }

    fn all<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'static, &'static str, &'static str>,
        name: &'static str,
    ) -> Result<Vec<(String, T)>, StoreError> {
        let rows = self.reading(|txn| {
            let table = txn.open_table(table)?;
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, json) = row?;
                rows.push((key.value().to_owned(), json.value().to_owned()));
            }
            Ok(rows)
        })?;
        rows.into_iter().map(|(key, json)| parse(&json, name, &key).map(|value| (key, value))).collect()
    }

    fn reading<T>(&self, read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let run = || read(&self.database.begin_read()?);
        run().map_err(|e| StoreError::Database(Box::new(e)))
    }

    fn in_transaction(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StoreError> {
        let run = || {
            let txn = self.database.begin_write()?;
            write(&txn)?;
            txn.commit()?;
            Ok(())
        };
        run().map_err(|e: redb::Error| StoreError::Database(Box::new(e)))
    }
}

/// A write whose JSON is made already, so that nothing but the disk can fail inside the transaction.
enum Encoded {
    Put(TableDefinition<'static, &'static str, &'static str>, String, String),
    Delete(TableDefinition<'static, &'static str, &'static str>, String),
    Artifact(String, Vec<u8>),
    Audit(String),
}

impl Encoded {
    fn of(write: Write) -> Result<Self, StoreError> {
        Ok(match write {
            Write::Meta(key, value) => Self::Put(META, key.to_owned(), value),
            Write::PutObject { key, json } => Self::Put(OBJECTS, key, json),
            Write::DeleteObject { key } => Self::Delete(OBJECTS, key),
            Write::PutToken(hash, record) => {
                Self::Put(TOKENS, hash.as_str().to_owned(), serde_json::to_string(&record)?)
            }
            Write::DeleteToken(hash) => Self::Delete(TOKENS, hash.as_str().to_owned()),
            Write::PutArtifact { digest, bytes } => Self::Artifact(digest, bytes),
            Write::PutFilterVersion { key, json } => Self::Put(FILTER_VERSIONS, key, json),
            Write::Audit(entry) => Self::Audit(serde_json::to_string(&entry)?),
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
            Self::Audit(json) => {
                let mut table = txn.open_table(AUDIT)?;
                let next = table.last()?.map_or(1, |(number, _)| number.value() + 1);
                table.insert(next, json.as_str())?;
            }
        }
        Ok(())
    }
}

fn trim_audit(txn: &redb::WriteTransaction, keep: u64) -> Result<(), redb::Error> {
    let mut table = txn.open_table(AUDIT)?;
    while table.len()? > keep {
        table.pop_first()?;
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(json: &str, table: &'static str, key: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|source| StoreError::Malformed { table, key: key.to_owned(), source })
}
