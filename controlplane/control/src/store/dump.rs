//! Every record of the store as names and bytes, and the way back into an empty store. Records but for the audit log and
//! the filters' binaries, which never change, are of one moment.

use weft_store::{Range, Write};

use super::books::{self, AUDIT, Books};
use super::{
    ARTIFACTS, BANS, CLAIMS, CONDITIONS, FILTER_VERSIONS, ISSUED, META, OBJECTS, SET_ASIDE, Store, StoreError, TOKENS,
    audit_entry, row,
};

const TEXTS: [&str; 9] = [META, OBJECTS, TOKENS, FILTER_VERSIONS, CLAIMS, SET_ASIDE, ISSUED, BANS, CONDITIONS];

/// So many bytes of the audit log are given, the newest; attempts and proxies' doings are not.
const AUDIT_BYTES: usize = 64 << 20;
/// So many numbers of it are read at a time.
const WINDOW: u64 = 1_024;

impl Store {
    /// All records, each as `table/key`. Stops a little above `most` bytes.
    pub fn export(&self, most: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let ranges = TEXTS.map(Range::all).to_vec();
        let reading = self.rows.wait(move |rows| Box::pin(async move { rows.read(ranges, most).await }))?;
        let (mut rows, mut size) = (Vec::new(), 0);
        let mut add = |table: &str, key: &str, content: Vec<u8>| {
            size += content.len();
            rows.push((format!("{table}/{key}"), content));
            size <= most
        };
        for (table, found) in TEXTS.into_iter().zip(reading.rows) {
            for row in found {
                add(table, &row.key, row.value.to_vec());
            }
        }
        for digest in self.rows_in(Range { keys_only: true, ..Range::all(ARTIFACTS) })? {
            let Some(content) = self.artifact(&digest.key)? else { continue };
            if !add(ARTIFACTS, &digest.key, content) {
                return Ok(rows);
            }
        }
        let (mut audit, mut high) = (0, self.newest_event()?.saturating_add(1));
        while high > 0 {
            let low = high.saturating_sub(WINDOW);
            for (number, json) in self.window(low, high)?.swap_remove(AUDIT).into_iter().rev() {
                audit += json.len();
                if audit > AUDIT_BYTES || !add(books::TABLES[AUDIT], &number.to_string(), json.into_bytes()) {
                    return Ok(rows);
                }
            }
            high = low;
        }
        Ok(rows)
    }

    /// Puts exported records into this store, all in one commit. False where one is of no table that is known.
    pub fn import<'r>(&self, rows: impl Iterator<Item = (&'r str, &'r [u8])>) -> Result<bool, StoreError> {
        let mut books = Books::load(&self.rows)?;
        let mut writes = Vec::new();
        for (name, content) in rows {
            let Some(()) = taken(name, content, &mut books, &mut writes) else { return Ok(false) };
        }
        books.keep(&mut writes);
        let known = books.version;
        self.rows.wait(move |rows| Box::pin(async move { rows.commit(known, writes).await }))?;
        Ok(true)
    }
}

/// Adds one exported record. `None`: it is of no table that is known.
fn taken(name: &str, content: &[u8], books: &mut Books, writes: &mut Vec<Write>) -> Option<()> {
    let (table, key) = name.split_once('/')?;
    if table == ARTIFACTS {
        writes.push(Write::PutBlob { table: ARTIFACTS, key: key.to_owned(), value: content.to_vec().into() });
        return Some(());
    }
    let text = std::str::from_utf8(content).ok()?;
    if table == books::TABLES[AUDIT] {
        books.insert(AUDIT, &audit_entry(text).actor, key.parse().ok()?, text.to_owned(), writes);
        return Some(());
    }
    let table = TEXTS.into_iter().find(|known| *known == table)?;
    writes.push(row(table, key.to_owned(), text.to_owned()));
    Some(())
}
