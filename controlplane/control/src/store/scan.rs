//! Searches of the audit log. Its tables share one sequence of numbers, so that it is read by windows of numbers, from either
//! end, and never as a whole.

use weft_store::{Range, Row};

use super::books::{self, Books};
use super::{AuditLog, AuditQuery, Store, StoreError, audit_entry, texts};

/// Numbers in one window; where a window is empty the next is twice as wide, up to the second.
const WINDOW: (u64, u64) = (256, 16_384);

impl Store {
    /// Entries that a query asks for, the newest first; behind `after` the oldest.
    pub fn audit(&self, query: &AuditQuery) -> Result<AuditLog, StoreError> {
        let from = query.after.map_or(0, |after| after.saturating_add(1));
        let to = query.before.unwrap_or(u64::MAX).min(self.newest_event()?.saturating_add(1)).max(from);
        let is_forward = query.after.is_some();
        let mut log: [AuditLog; books::TABLES.len()] = Default::default();
        let (mut low, mut high, mut width) = (from, to, WINDOW.0);
        while low < high && log.iter().any(|found| found.len() < query.limit) {
            let (first, end) = match is_forward {
                true => (low, low.saturating_add(width).min(high)),
                false => (high.saturating_sub(width).max(low), high),
            };
            let tables = self.window(first, end)?;
            let is_empty = tables.iter().all(Vec::is_empty);
            for (found, rows) in log.iter_mut().zip(tables) {
                let mut rows = rows.into_iter();
                let mut next = || if is_forward { rows.next() } else { rows.next_back() };
                while found.len() < query.limit
                    && let Some((number, json)) = next()
                {
                    let entry = query.shown(audit_entry(&json));
                    if query.holds_for(&entry) {
                        found.push((number, entry));
                    }
                }
            }
            (low, high) = if is_forward { (end, high) } else { (low, first) };
            width = if is_empty { (width * 2).min(WINDOW.1) } else { WINDOW.0 };
        }
        let mut log = log.concat();
        log.sort_unstable_by_key(|(number, _)| *number);
        if is_forward {
            log.truncate(query.limit);
        } else {
            log.drain(..log.len().saturating_sub(query.limit));
        }
        log.reverse();
        Ok(log)
    }

    /// The number of the newest entry of the audit log; 0 where there is none.
    pub fn newest_event(&self) -> Result<u64, StoreError> {
        Ok(Books::load(&self.rows)?.newest())
    }

    /// The entries with these numbers, of each table.
    pub(super) fn window(&self, from: u64, to: u64) -> Result<Vec<Vec<(u64, String)>>, StoreError> {
        let range = |table| Range { from: books::key_of(from), to: Some(books::key_of(to)), ..Range::all(table) };
        let reading = self.rows.read(books::TABLES.map(range).to_vec())?;
        let numbered = |row: Row| {
            let (key, json) = texts(row);
            key.parse().ok().map(|number| (number, json))
        };
        Ok(reading.rows.into_iter().map(|rows| rows.into_iter().filter_map(numbered).collect()).collect())
    }
}
