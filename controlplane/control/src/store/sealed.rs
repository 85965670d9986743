//! Records of Secrets, whose values are encrypted on their way into the rows where there is a key to do it by.

use std::sync::Arc;

use serde_json::Value;
use weft_policy::resource::{Kind, Resource};
use weft_store::{Range, Version};

use super::{OBJECTS, Store, StoreError, Write, parsed, texts, write_record};
use crate::seal::Seal;

/// True for the key of the record of a Secret.
pub(crate) fn is_of_secret(key: &str) -> bool {
    key.split_once('/').is_some_and(|(kind, _)| kind == Kind::Secret.plural())
}

impl Store {
    /// The same store, which encrypts the values of Secrets from now on.
    pub(crate) fn with_seal(self, seal: Seal) -> Self {
        Self { seal: Some(Arc::new(seal)), ..self }
    }

    /// What opens the values of Secrets that it keeps.
    pub(crate) fn seal(&self) -> Option<Arc<Seal>> {
        self.seal.clone()
    }

    /// A write as it goes into the rows.
    pub(super) fn sealed(&self, write: Write) -> Result<Write, StoreError> {
        match (write, &self.seal) {
            (Write::PutObject { key, json }, Some(seal)) if is_of_secret(&key) => {
                let json = seal.close(&json)?;
                Ok(Write::PutObject { key, json })
            }
            (write, _) => Ok(write),
        }
    }

    /// Encrypts what an earlier start left in plain text; gives the number of Secrets that this was.
    pub(crate) fn seal_all(&self) -> Result<usize, StoreError> {
        let Some(seal) = &self.seal else { return Ok(0) };
        loop {
            let (version, records) = self.secrets()?;
            let mut writes = Vec::new();
            for (key, record) in records {
                let plain = write_record(&record)?;
                let json = seal.close(&plain)?;
                if json != plain {
                    writes.push(Write::PutObject { key, json });
                }
            }
            let count = writes.len();
            if count == 0 {
                return Ok(0);
            }
            match self.commit_behind(Some(version), None, writes) {
                // Another control plane changed something meanwhile.
                Err(error) if error.is_conflict() => {}
                done => return done.map(|_| count),
            }
        }
    }

    /// The records of Secrets that can be read, by key, and the commit that they are of.
    fn secrets(&self) -> Result<(Version, Vec<(String, Value)>), StoreError> {
        let kind = Kind::Secret.plural();
        // `0` is the next character behind `/`.
        let range = Range { from: format!("{kind}/"), to: Some(format!("{kind}0")), ..Range::all(OBJECTS) };
        let reading = self.rows.read(vec![range])?;
        let records = reading.rows.into_iter().flatten().map(texts);
        Ok((reading.version, parsed(OBJECTS, records).read))
    }

    /// The Secrets of which a value can't be opened with this key, or without any.
    pub(crate) fn unopened(&self, seal: Option<&Seal>) -> Result<Vec<String>, StoreError> {
        let (_, records) = self.secrets()?;
        let unopened = records.into_iter().filter_map(|(_, record)| {
            let resource = serde_json::from_value::<Resource>(record["entry"]["resource"].clone());
            let Ok(Resource::Secret(mut secret)) = resource else { return None };
            if let Some(seal) = seal {
                seal.open(&mut secret);
            }
            secret.spec.is_sealed().then(|| secret.name().to_string())
        });
        Ok(unopened.collect())
    }
}
