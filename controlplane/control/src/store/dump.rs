//! Every record of the store as names and bytes, as of one moment, and the way back into an empty store.

use redb::{ReadableTable as _, TableDefinition, TableHandle as _};

use super::{
    ARTIFACTS, AUDIT, BANS, CLAIMS, CONDITIONS, FILTER_VERSIONS, ISSUED, META, OBJECTS, SET_ASIDE, Store, StoreError,
    TOKENS, audit_entry, shares,
};

const TEXTS: [TableDefinition<'static, &str, &str>; 9] =
    [META, OBJECTS, TOKENS, FILTER_VERSIONS, CLAIMS, SET_ASIDE, ISSUED, BANS, CONDITIONS];

/// So many bytes of the audit log are given, the newest; attempts and proxies' doings are not.
const AUDIT_BYTES: usize = 64 << 20;

impl Store {
    /// All records, each as `table/key`. Stops a little above `most` bytes.
    pub fn export(&self, most: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.disk.read(|txn| {
            let (mut rows, mut size) = (Vec::new(), 0);
            let mut add = |table: &str, key: &str, content: &[u8]| {
                size += content.len();
                rows.push((format!("{table}/{key}"), content.to_vec()));
                size <= most
            };
            'tables: for definition in TEXTS {
                for row in txn.open_table(definition)?.iter()? {
                    let (key, content) = row?;
                    if !add(definition.name(), key.value(), content.value().as_bytes()) {
                        break 'tables;
                    }
                }
            }
            for row in txn.open_table(ARTIFACTS)?.iter()? {
                let (key, content) = row?;
                if !add(ARTIFACTS.name(), key.value(), content.value()) {
                    break;
                }
            }
            let mut audit = 0;
            for row in txn.open_table(AUDIT)?.iter()?.rev() {
                let (key, content) = row?;
                audit += content.value().len();
                if audit > AUDIT_BYTES || !add(AUDIT.name(), &key.value().to_string(), content.value().as_bytes()) {
                    break;
                }
            }
            Ok(rows)
        })
    }

    /// Puts exported records into this store, all in one transaction. False where one is of no table that is known.
    pub fn import<'r>(&self, rows: impl Iterator<Item = (&'r str, &'r [u8])>) -> Result<bool, StoreError> {
        let rows: Vec<_> = rows.collect();
        let mut parsed = Vec::with_capacity(rows.len());
        for (name, content) in rows {
            let Some(row) = Row::of(name, content) else { return Ok(false) };
            parsed.push(row);
        }
        self.disk.write(|txn| {
            for row in &parsed {
                match row {
                    Row::Text(table, key, content) => txn.open_table(*table)?.insert(*key, *content)?.map(drop),
                    Row::Artifact(key, content) => txn.open_table(ARTIFACTS)?.insert(*key, *content)?.map(drop),
                    Row::Audit(number, content) => {
                        shares::add(txn, &audit_entry(content).actor, *number, content.len())?;
                        txn.open_table(AUDIT)?.insert(*number, *content)?.map(drop)
                    }
                };
            }
            Ok(())
        })?;
        Ok(true)
    }
}

enum Row<'r> {
    Text(TableDefinition<'static, &'static str, &'static str>, &'r str, &'r str),
    Artifact(&'r str, &'r [u8]),
    Audit(u64, &'r str),
}

impl<'r> Row<'r> {
    fn of(name: &'r str, content: &'r [u8]) -> Option<Self> {
        let (table, key) = name.split_once('/')?;
        if table == ARTIFACTS.name() {
            return Some(Self::Artifact(key, content));
        }
        let text = std::str::from_utf8(content).ok()?;
        if table == AUDIT.name() {
            return Some(Self::Audit(key.parse().ok()?, text));
        }
        let definition = TEXTS.into_iter().find(|definition| definition.name() == table)?;
        Some(Self::Text(definition, key, text))
    }
}
