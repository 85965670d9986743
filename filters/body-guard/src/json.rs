//! A walk over JSON text that keeps nothing of it but what a rule asks: its depth, its keys, and which required fields are
//! there.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Bounds of one body. `None`: any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    pub(crate) depth: usize,
    pub(crate) keys: Option<usize>,
    /// Paths of fields, `user.name`, split at the dots.
    pub(crate) required: Vec<Vec<String>>,
    /// Objects may name a field twice, which parsers read in several ways.
    pub(crate) duplicates: bool,
}

/// What was wrong with a body, in the words of the answer.
pub(crate) fn judge(body: &[u8], bounds: &Bounds) -> Result<(), String> {
    let mut found = Found { keys: 0, required: vec![false; bounds.required.len()] };
    let mut json = serde_json::Deserializer::from_slice(body);
    let asked = (0..bounds.required.len()).collect();
    let walk = Walk { bounds, found: &mut found, depth: 0, asked };
    walk.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| error.to_string())?;
    let missing = bounds.required.iter().zip(&found.required).find(|(_, found)| !**found);
    missing.map_or(Ok(()), |(path, _)| Err(format!("the field {} is missing", path.join("."))))
}

struct Found {
    keys: usize,
    required: Vec<bool>,
}

struct Walk<'a> {
    bounds: &'a Bounds,
    found: &'a mut Found,
    /// Objects and arrays around this value.
    depth: usize,
    /// Required fields whose path leads here so far.
    asked: Vec<usize>,
}

impl Walk<'_> {
    fn enter<E: Error>(&self) -> Result<(), E> {
        if self.depth >= self.bounds.depth {
            return Err(E::custom(format_args!("more than {} levels", self.bounds.depth)));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.enter::<A::Error>()?;
        let depth = self.depth + 1;
        loop {
            let walk = Walk { bounds: self.bounds, found: &mut *self.found, depth, asked: Vec::new() };
            if items.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        self.enter::<A::Error>()?;
        let mut seen = std::collections::BTreeSet::new();
        while let Some(key) = fields.next_key::<String>()? {
            self.found.keys += 1;
            if self.bounds.keys.is_some_and(|most| self.found.keys > most) {
                return Err(A::Error::custom("too many keys"));
            }
            let of = |index: &usize| self.bounds.required[*index].get(self.depth) == Some(&key);
            let asked: Vec<usize> = self.asked.iter().copied().filter(of).collect();
            for index in &asked {
                if self.bounds.required[*index].len() == self.depth + 1 {
                    self.found.required[*index] = true;
                }
            }
            if !self.bounds.duplicates && !seen.insert(key) {
                return Err(A::Error::custom("an object names a field twice"));
            }
            let depth = self.depth + 1;
            fields.next_value_seed(Walk { bounds: self.bounds, found: &mut *self.found, depth, asked })?;
        }
        Ok(())
    }
}

/// True for JSON text of any shape.
#[cfg(test)]
pub(crate) fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok()
}
