//! A database file that is looked at and not changed: what is written goes into memory and is forgotten with it. The file's
//! lock is taken as by whoever writes it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, Database, DatabaseError, StorageBackend, StorageError};

const PAGE: usize = 4_096;

/// Opens the file as a start would, repairs of it included.
pub(super) fn open(path: &Path) -> Result<Database, DatabaseError> {
    let io = |error| DatabaseError::Storage(StorageError::Io(error));
    let file = FileBackend::new(OpenOptions::new().read(true).write(true).open(path).map_err(io)?)?;
    let len = file.len().map_err(io)?;
    let overlay = Overlay { file, written: Mutex::new(Written { len, of_file: len, pages: BTreeMap::new() }) };
    Database::builder().create_with_backend(overlay)
}

#[derive(Debug)]
struct Overlay {
    file: FileBackend,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// So much of the file still counts: behind it everything is zero or written.
    of_file: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Overlay {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page of the file as it is.
    fn page(&self, number: u64, of_file: u64) -> io::Result<Box<[u8; PAGE]>> {
        let mut page = Box::new([0; PAGE]);
        let start = number * PAGE as u64;
        let left = of_file.saturating_sub(start).min(PAGE as u64);
        let left = usize::try_from(left).unwrap_or(PAGE);
        if left > 0 {
            self.file.read(start, &mut page[..left])?;
        }
        Ok(page)
    }
}

/// The parts of a range page by page: number of the page, where in it, and where in the range.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let within = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let take = (PAGE - within).min(len - done);
        let part = (at / PAGE as u64, within, done..done + take);
        done += take;
        Some(part)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.lock();
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, range) in parts(offset, out.len()) {
            let take = range.len();
            match written.pages.get(&number) {
                Some(page) => out[range].copy_from_slice(&page[within..within + take]),
                None => out[range].copy_from_slice(&self.page(number, written.of_file)?[within..within + take]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.lock();
        if len < written.len {
            let (last, kept) = (len / PAGE as u64, usize::try_from(len % PAGE as u64).unwrap_or(0));
            written.pages.retain(|number, _| *number <= last);
            if let Some(page) = written.pages.get_mut(&last) {
                page[kept..].fill(0);
            }
            written.of_file = written.of_file.min(len);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.lock();
        for (number, within, range) in parts(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                let page = self.page(number, written.of_file)?;
                written.pages.insert(number, page);
            }
            let take = range.len();
            if let Some(page) = written.pages.get_mut(&number) {
                page[within..within + take].copy_from_slice(&data[range]);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("t");

    fn write(database: &Database, key: &str, value: &[u8]) {
        let txn = database.begin_write().unwrap();
        txn.open_table(TABLE).unwrap().insert(key, value).unwrap();
        txn.commit().unwrap();
    }

    #[test]
    fn what_is_written_is_read_again_and_the_file_is_as_it_was() {
        use redb::ReadableDatabase as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        write(&Database::create(&path).unwrap(), "a", &[1; 10_000]);
        let before = std::fs::read(&path).unwrap();
        let database = open(&path).unwrap();
        assert!(matches!(open(&path), Err(DatabaseError::DatabaseAlreadyOpen)));
        write(&database, "b", &vec![2; 3 << 20]);
        write(&database, "a", &[3; 5_000]);
        let txn = database.begin_read().unwrap();
        let table = txn.open_table(TABLE).unwrap();
        assert_eq!(table.get("a").unwrap().unwrap().value(), [3; 5_000]);
        assert_eq!(table.get("b").unwrap().unwrap().value().len(), 3 << 20);
        drop((table, txn, database));
        assert!(std::fs::read(&path).unwrap() == before, "nothing is changed");
        assert!(matches!(open(&dir.path().join("none")), Err(DatabaseError::Storage(StorageError::Io(_)))));
    }
}
