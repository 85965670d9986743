//! The database file behind the store. An error of the disk closes redb for good, so the file is opened again after each:
//! what failed once works again as soon as the disk does. Invariant: nobody reads or writes while it is opened again.

use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use redb::{Database, DatabaseError, ReadableDatabase as _, StorageError};
use time::OffsetDateTime;

use crate::{Error, Fault};

/// Opens the database, each time that this is needed.
pub type Opener = dyn Fn() -> Result<Database, DatabaseError> + Send + Sync;

/// The open database, or the attempt to have it open again.
pub(super) struct Disk {
    path: PathBuf,
    opener: Box<Opener>,
    /// `None`: it could not be opened again yet.
    database: RwLock<Option<Database>>,
    fault: Mutex<Option<Fault>>,
    /// Counts openings: what was read before one may differ from what is there after it.
    generation: AtomicU64,
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = path.to_owned();
        Self::open_by(path, Box::new(move || open_file(&file)))
    }

    pub(super) fn open_by(path: &Path, opener: Box<Opener>) -> Result<Self, Error> {
        let database = sound(path, &opener)?.map_err(|error| opening(path, error))?;
        Ok(Self {
            path: path.to_owned(),
            opener,
            database: RwLock::new(Some(database)),
            fault: Mutex::default(),
            generation: AtomicU64::new(0),
        })
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Runs a read. One that meets the end of an earlier error is run again on the file as it is.
    pub(super) fn read<T>(&self, read: impl Fn(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        let run = |database: &Database| read(&database.begin_read()?);
        match self.with(run)? {
            Ok(value) => Ok(value),
            Err(error) if is_of_disk(&error) => {
                self.open_again();
                self.with(run)?.map_err(|error| self.failed(error))
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Runs a transaction; without a result it is given up. Whether one that failed has landed shows only when the file is
    /// read again: see `generation`.
    pub(super) fn write<T>(
        &self,
        write: impl Fn(&redb::WriteTransaction) -> Result<Option<T>, redb::Error>,
    ) -> Result<Option<T>, Error> {
        let run = |database: &Database| {
            let txn = database.begin_write()?;
            match write(&txn)? {
                Some(value) => txn.commit().map(|()| Some(value)).map_err(redb::Error::from),
                None => txn.abort().map(|()| None).map_err(redb::Error::from),
            }
        };
        match self.with(run)? {
            Ok(value) => {
                if value.is_some() {
                    *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                Ok(value)
            }
            Err(error) => {
                let is_of_disk = is_of_disk(&error);
                let error = self.failed(error);
                if is_of_disk {
                    self.open_again();
                }
                Err(error)
            }
        }
    }

    /// Runs `work` on the database, which is opened first where it is not.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<Result<T, redb::Error>, Error> {
        if self.opened().is_none() {
            self.open_again();
        }
        match self.opened().as_ref() {
            Some(database) => sound(&self.path, || work(database)),
            None => Err(Error::NotOpen(self.fault().map(|fault| fault.reason).unwrap_or_default())),
        }
    }

    fn opened(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_again(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // The old one holds the file's lock.
        drop(database.take());
        match sound(&self.path, &self.opener) {
            Ok(Ok(opened)) => *database = Some(opened),
            Ok(Err(error)) => self.note(error.to_string()),
            Err(error) => self.note(error.to_string()),
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn failed(&self, error: redb::Error) -> Error {
        if is_of_disk(&error) {
            self.note(error.to_string());
        }
        Error::Database(Box::new(error))
    }

    fn note(&self, reason: String) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let since = fault.as_ref().map_or_else(OffsetDateTime::now_utc, |fault| fault.since);
        if fault.is_none() {
            tracing::error!(path = %self.path.display(), reason, "the store can't be written; it is tried again");
        }
        *fault = Some(Fault { since, reason });
    }
}

/// True for errors that redb does not recover from while it is open.
fn is_of_disk(error: &redb::Error) -> bool {
    matches!(
        error,
        redb::Error::Io(_)
            | redb::Error::PreviousIo
            | redb::Error::DatabaseClosed
            | redb::Error::TransactionPoisoned
            | redb::Error::LockPoisoned(_)
    )
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    let io = |error| DatabaseError::Storage(StorageError::Io(error));
    // Token hashes and the audit log are for the owner only.
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    Database::builder().create_with_backend(redb::backends::FileBackend::new(file)?)
}

/// What the database does. It panics at pages that can't be: then the file is damaged, and only whoever asked hears of it.
fn sound<T>(path: &Path, work: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
        let reason = format!("its pages make no sense: {}", text.unwrap_or("no reason is given"));
        Error::Damaged { path: path.to_owned(), reason }
    })
}

fn opening(path: &Path, error: DatabaseError) -> Error {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => Error::InUse(path),
        DatabaseError::Storage(StorageError::Corrupted(reason)) => Error::Damaged { path, reason },
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof) =>
        {
            Error::Damaged { path, reason: error.to_string() }
        }
        error @ (DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted) => {
            Error::Damaged { path, reason: error.to_string() }
        }
        source @ (DatabaseError::LockProtocolMismatch
        | DatabaseError::TransactionInProgress
        | DatabaseError::Storage(_)
        | _) => Error::Open { path, source: Box::new(source) },
    }
}
