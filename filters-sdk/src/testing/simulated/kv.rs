//! As the interface `kv`: one thread, so every call is exact.

use std::collections::BTreeMap;
use std::time::Duration;

use super::HOST;
use crate::bindings::weft::filter::types::Error;

const KEY: usize = 256;
const VALUE: usize = 64 << 10;
/// What an entry costs beside its key and value.
const OVERHEAD: usize = 128;

#[derive(Default)]
pub(super) struct Values {
    entries: BTreeMap<Vec<u8>, Entry>,
    made: u64,
}

struct Entry {
    value: Vec<u8>,
    ends: Option<Duration>,
    /// Smaller is older.
    made: u64,
}

impl Values {
    fn bytes(&self) -> usize {
        self.entries.iter().map(|(key, entry)| cost(key, &entry.value)).sum()
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, ends: Option<Duration>, most: (usize, usize)) -> Result<(), Error> {
        if value.len() > VALUE {
            return Err(Error::Invalid(format!("a value has at most {VALUE} bytes")));
        }
        let (entries, bytes) = most;
        let needed = cost(key, &value);
        if entries == 0 || needed > bytes {
            return Err(Error::Full(format!("the grant has {bytes} bytes for {entries} values")));
        }
        self.entries.remove(key);
        while self.entries.len() >= entries || self.bytes() + needed > bytes {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.made).map(|(key, _)| key.clone());
            self.entries.remove(&oldest.expect("one that takes the room"));
        }
        self.made += 1;
        self.entries.insert(key.to_vec(), Entry { value, ends, made: self.made });
        Ok(())
    }
}

fn cost(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + OVERHEAD
}

/// The values as they are now, the time, and the entries and bytes of the grant.
fn with<R>(
    key: &[u8],
    call: impl FnOnce(&mut Values, Duration, (usize, usize)) -> Result<R, Error>,
) -> Result<R, Error> {
    HOST.with_borrow_mut(|host| {
        let now = host.now;
        let most = host.grants.kv.ok_or(Error::Denied)?;
        if key.is_empty() || key.len() > KEY {
            return Err(Error::Invalid(format!("a key has 1 to {KEY} bytes")));
        }
        host.kv.entries.retain(|_, entry| entry.ends.is_none_or(|ends| ends > now));
        call(&mut host.kv, now, most)
    })
}

fn ends(now: Duration, ttl_ms: u64) -> Option<Duration> {
    (ttl_ms > 0).then(|| now.saturating_add(Duration::from_millis(ttl_ms)))
}

pub(crate) fn get(key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    with(key, |values, _, _| Ok(values.entries.get(key).map(|entry| entry.value.clone())))
}

pub(crate) fn set(key: &[u8], value: &[u8], ttl_ms: u64) -> Result<(), Error> {
    with(key, |values, now, most| values.put(key, value.to_vec(), ends(now, ttl_ms), most))
}

pub(crate) fn add(key: &[u8], delta: i64, ttl_ms: u64) -> Result<i64, Error> {
    with(key, |values, now, most| {
        let known = values.entries.get(key);
        let ends = known.map_or_else(|| ends(now, ttl_ms), |entry| entry.ends);
        let old = match known {
            None => 0,
            Some(entry) => {
                let text = std::str::from_utf8(&entry.value).ok();
                let number = text.and_then(|text| text.parse::<i64>().ok());
                number.ok_or_else(|| Error::Invalid("the value is no number".to_owned()))?
            }
        };
        let sum = old.checked_add(delta).ok_or_else(|| Error::Invalid("the number is too large".to_owned()))?;
        values.put(key, sum.to_string().into_bytes(), ends, most)?;
        Ok(sum)
    })
}

pub(crate) fn compare_and_swap(key: &[u8], expected: Option<&[u8]>, value: &[u8], ttl_ms: u64) -> Result<(), Error> {
    with(key, |values, now, most| {
        if values.entries.get(key).map(|entry| entry.value.as_slice()) != expected {
            return Err(Error::Changed);
        }
        values.put(key, value.to_vec(), ends(now, ttl_ms), most)
    })
}

pub(crate) fn remove(key: &[u8]) -> Result<(), Error> {
    with(key, |values, _, _| {
        values.entries.remove(key);
        Ok(())
    })
}
