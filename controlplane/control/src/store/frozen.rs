//! What a world is loaded from, as of one commit: several processes may change the store while it is read.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use weft_policy::bundle::Revision;
use weft_store::{Change, Range, Row, Version};

use super::{
    BANS, CLAIMS, FILTER_VERSIONS, META, OBJECTS, REVISION, Rows, Store, StoreError, Table, books, origin, parsed,
    texts,
};
use crate::claims::ClaimRecord;

/// Tables of which everything is kept in memory.
const TABLES: [&str; 5] = [META, OBJECTS, FILTER_VERSIONS, CLAIMS, BANS];

/// The store at one commit.
pub(crate) struct Frozen {
    pub(crate) version: Version,
    rows: BTreeMap<&'static str, Vec<Row>>,
}

/// What a change of a row is a change of.
pub(crate) enum Changed {
    Revision(Revision),
    /// The key of an object and its record; without one it was deleted.
    Object(String, Option<String>),
    FilterVersion(Option<String>),
    Claim,
    Ban,
    /// Which store it is.
    Lineage,
    /// The roots that several control planes trust.
    Roots(String),
    Audit,
    /// Nothing that is kept in memory.
    Other,
}

impl Changed {
    pub(crate) fn of(change: Change) -> Self {
        let Change { table, key, value } = change;
        let text = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        match table.as_str() {
            META if key == REVISION => {
                Self::Revision(Revision(text.and_then(|text| text.parse().ok()).unwrap_or_default()))
            }
            META if origin::is_lineage(&key) => Self::Lineage,
            META if key == origin::ROOTS => Self::Roots(text.unwrap_or_default()),
            OBJECTS => Self::Object(key, text),
            FILTER_VERSIONS => Self::FilterVersion(text),
            CLAIMS => Self::Claim,
            BANS => Self::Ban,
            other if books::TABLES.contains(&other) => Self::Audit,
            _ => Self::Other,
        }
    }
}

impl Store {
    pub(crate) fn frozen(&self) -> Result<Frozen, StoreError> {
        let reading = self.rows.read(TABLES.map(Range::all).to_vec())?;
        Ok(Frozen { version: reading.version, rows: TABLES.into_iter().zip(reading.rows).collect() })
    }
}

impl Frozen {
    pub(crate) fn meta(&self, key: &str) -> Option<String> {
        let row = self.rows.get(META)?.iter().find(|row| row.key == key)?;
        Some(String::from_utf8_lossy(&row.value).into_owned())
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision(self.meta(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    pub(crate) fn objects<T: DeserializeOwned>(&self) -> Rows<T> {
        self.all(OBJECTS)
    }

    pub(crate) fn filter_versions<T: DeserializeOwned>(&self) -> Rows<T> {
        self.all(FILTER_VERSIONS)
    }

    pub(crate) fn claims(&self) -> Rows<ClaimRecord> {
        self.all(CLAIMS)
    }

    pub(crate) fn bans<T: DeserializeOwned>(&self) -> Rows<T> {
        self.all(Table::Bans.name())
    }

    fn all<T: DeserializeOwned>(&self, table: &'static str) -> Rows<T> {
        parsed(table, self.rows.get(table).into_iter().flatten().cloned().map(texts))
    }
}
