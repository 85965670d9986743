//! The books of the audit log: its tables, the number of the next entry, how many each table has, and what of the log of
//! operators is whose. Invariant: over its bounds the log loses the oldest entry of whoever has most of it, so that nobody
//! pushes out an entry of one who has less.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use weft_store::{Range, Row, Version, Write};

use super::waiting::Waiting;
use super::{StoreError, row};

/// Tables of the log. Actions of proxies are kept apart, so that none of them pushes an operator's entry out, and so are
/// attempts that were refused: of people with a token, and of whoever shows none that is valid.
pub(super) const TABLES: [&str; 4] = ["audit", "audit_proxies", "audit_refused", "audit_unknown"];
pub(super) const AUDIT: usize = 0;
pub(super) const PROXIES: usize = 1;
pub(super) const REFUSED: usize = 2;
pub(super) const UNKNOWN: usize = 3;

/// Entries and bytes of each actor.
const SHARES: &str = "audit_shares";
/// The entries of each actor by number, with their bytes.
const OWN: &str = "audit_own";
/// What is known of the log as a whole, under one key.
const BOOKS: &str = "audit_books";
const KEY: &str = "books";

/// The room of one entry on average, bytes: the log as a whole has as much room as that many entries.
const ROOM: u64 = 2 << 10;

/// The log as of one commit.
#[derive(Debug)]
pub(super) struct Books {
    pub(super) version: Version,
    generation: u64,
    kept: Kept,
    shares: BTreeMap<String, (u64, u64)>,
    /// Actors whose shares differ from what is stored.
    changed: BTreeSet<String>,
    /// The key behind the last that was taken out of each table, and of what each actor has.
    passed: BTreeMap<String, String>,
}

/// What is stored of it beside the shares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The number of the next entry.
    next: u64,
    /// Entries of each table.
    entries: [u64; TABLES.len()],
    /// The number of the newest entry of an operator.
    newest: u64,
}

/// The key of an entry.
pub(super) fn key_of(number: u64) -> String {
    format!("{number:020}")
}

impl Books {
    /// Reads the books; a store of an older release has none, and its log is counted.
    pub(super) fn load(rows: &Waiting) -> Result<Self, StoreError> {
        let generation = rows.store().generation();
        let mut reading = rows.read(vec![Range::one(BOOKS, KEY), Range::all(SHARES)])?;
        let (shares, books) = (reading.rows.pop().unwrap_or_default(), reading.rows.pop().unwrap_or_default());
        let kept = books.first().and_then(|row| serde_json::from_slice(&row.value).ok());
        let kept = match kept {
            Some(kept) => kept,
            None => count(rows)?,
        };
        let shares = shares.iter().filter_map(share).collect();
        let (changed, passed) = Default::default();
        Ok(Self { version: reading.version, generation, kept, shares, changed, passed })
    }

    /// False where the store may have changed since, or has.
    pub(super) fn is_of(&self, rows: &Waiting, expected: Option<Version>) -> bool {
        self.generation == rows.store().generation() && expected.is_none_or(|expected| expected == self.version)
    }

    /// The number of the newest entry; 0 where there is none.
    pub(super) fn newest(&self) -> u64 {
        self.kept.next.saturating_sub(1)
    }

    /// Adds an entry.
    pub(super) fn add(&mut self, table: usize, actor: &str, json: &str, writes: &mut Vec<Write>) {
        let number = self.kept.next.max(1);
        self.insert(table, actor, number, json.to_owned(), writes);
    }

    /// Adds an entry with its number, the greatest so far or not.
    pub(super) fn insert(&mut self, table: usize, actor: &str, number: u64, json: String, writes: &mut Vec<Write>) {
        let bytes = u64::try_from(json.len()).unwrap_or(u64::MAX);
        writes.push(row(TABLES[table], key_of(number), json));
        self.kept.next = self.kept.next.max(number + 1);
        self.kept.entries[table] += 1;
        if table == AUDIT {
            self.kept.newest = self.kept.newest.max(number);
            let (entries, taken) = self.shares.entry(actor.to_owned()).or_default();
            (*entries, *taken) = (*entries + 1, taken.saturating_add(bytes));
            self.changed.insert(actor.to_owned());
            writes.push(row(OWN, own_key(actor, number), bytes.to_string()));
        }
    }

    /// Takes entries out until so many are left in each table, those of operators in the room of so many. The newest stays,
    /// whatever it takes.
    pub(super) fn trim(&mut self, rows: &Waiting, keep: u64, writes: &mut Vec<Write>) -> Result<(), StoreError> {
        for table in [PROXIES, REFUSED, UNKNOWN] {
            while self.kept.entries[table] > keep && self.drop_first(rows, table, writes)?.is_some() {}
        }
        loop {
            let (len, known) = (self.kept.entries[AUDIT], self.shares.values().map(|(entries, _)| entries).sum());
            let bytes: u64 = self.shares.values().map(|(_, bytes)| bytes).sum();
            // An older release told nobody's share: these entries are the first, and count as one actor's.
            let unknown = len.saturating_sub(known);
            if len <= keep && bytes / ROOM + unknown <= keep {
                return Ok(());
            }
            let weight = |(_, (entries, bytes)): &(&String, &(u64, u64))| (*entries).max(bytes / ROOM);
            let largest = self.shares.iter().max_by_key(weight).filter(|share| weight(share) > unknown);
            let is_out = match largest.map(|(actor, _)| actor.clone()) {
                None => self.drop_first(rows, AUDIT, writes)?.is_some(),
                Some(actor) => self.drop_of(rows, &actor, writes)?,
            };
            if !is_out {
                return Ok(());
            }
        }
    }

    /// Takes out the first entry of a table, of those that were there before this commit.
    fn drop_first(
        &mut self,
        rows: &Waiting,
        table: usize,
        writes: &mut Vec<Write>,
    ) -> Result<Option<String>, StoreError> {
        let first = self.next_of(rows, TABLES[table], TABLES[table], None)?.map(|row| row.key);
        if let Some(key) = &first {
            writes.push(Write::Delete { table: TABLES[table], key: key.clone() });
            self.kept.entries[table] = self.kept.entries[table].saturating_sub(1);
        }
        Ok(first)
    }

    /// Takes out the oldest entry of an actor. False where that is the newest of all.
    fn drop_of(&mut self, rows: &Waiting, actor: &str, writes: &mut Vec<Write>) -> Result<bool, StoreError> {
        let found = self.next_of(rows, OWN, &format!("{OWN}/{actor}"), Some(actor))?;
        let Some(row) = found else { return Ok(false) };
        let number = row.key.get(actor.len() + 1..).and_then(|number| number.parse::<u64>().ok()).unwrap_or_default();
        if number == self.kept.newest {
            return Ok(false);
        }
        let bytes = std::str::from_utf8(&row.value).ok().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
        writes.push(Write::Delete { table: TABLES[AUDIT], key: key_of(number) });
        writes.push(Write::Delete { table: OWN, key: row.key });
        self.kept.entries[AUDIT] = self.kept.entries[AUDIT].saturating_sub(1);
        self.changed.insert(actor.to_owned());
        if let Some((entries, taken)) = self.shares.get_mut(actor) {
            (*entries, *taken) = (entries.saturating_sub(1), taken.saturating_sub(bytes));
            if *entries == 0 {
                self.shares.remove(actor);
            }
        }
        Ok(true)
    }

    /// The next row of a table that was not taken out yet by this commit; of an actor's own where one is named.
    fn next_of(
        &mut self,
        rows: &Waiting,
        table: &'static str,
        passed: &str,
        actor: Option<&str>,
    ) -> Result<Option<Row>, StoreError> {
        let (first, end) = match actor {
            Some(actor) => (own_key(actor, 0), Some(format!("{}\0", own_key(actor, u64::MAX)))),
            None => (String::new(), None),
        };
        let from = self.passed.get(passed).cloned().unwrap_or(first);
        let range = Range { from, to: end, limit: 1, ..Range::all(table) };
        let row = rows.read(vec![range])?.rows.into_iter().flatten().next();
        if let Some(row) = &row {
            self.passed.insert(passed.to_owned(), format!("{}\0", row.key));
        }
        Ok(row)
    }

    /// Writes what has changed of the books themselves.
    pub(super) fn keep(&mut self, writes: &mut Vec<Write>) {
        self.passed.clear();
        for actor in std::mem::take(&mut self.changed) {
            writes.push(match self.shares.get(&actor) {
                Some((entries, bytes)) => row(SHARES, actor, format!("{entries} {bytes}")),
                None => Write::Delete { table: SHARES, key: actor },
            });
        }
        let json = serde_json::to_string(&self.kept).unwrap_or_default();
        writes.push(row(BOOKS, KEY.to_owned(), json));
    }
}

/// Counts a log whose books were not kept.
fn count(rows: &Waiting) -> Result<Kept, StoreError> {
    let mut kept = Kept::default();
    let ranges = TABLES.map(|table| Range { keys_only: true, ..Range::all(table) });
    for (table, found) in rows.read(ranges.to_vec())?.rows.into_iter().enumerate() {
        let newest = found.last().and_then(|row| row.key.parse().ok()).unwrap_or(0);
        kept.entries[table] = u64::try_from(found.len()).unwrap_or(u64::MAX);
        kept.next = kept.next.max(newest + 1);
        if table == AUDIT {
            kept.newest = newest;
        }
    }
    Ok(kept)
}

fn share(row: &Row) -> Option<(String, (u64, u64))> {
    let (entries, bytes) = std::str::from_utf8(&row.value).ok()?.split_once(' ')?;
    Some((row.key.clone(), (entries.parse().ok()?, bytes.parse().ok()?)))
}

fn own_key(actor: &str, number: u64) -> String {
    format!("{actor}/{}", key_of(number))
}
