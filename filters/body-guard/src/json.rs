//! A walk over JSON text that keeps nothing of it but what a rule asks: its depth, its keys, which required fields are
//! there, and whether each value fits its schema.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::schema::{Node, Number, Scalar, Schema, Type};

/// Bytes of the place that an answer names: its names are the caller's.
const POINTER: usize = 256;

/// Bounds of one body. `None`: any.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    pub(crate) depth: usize,
    pub(crate) keys: Option<usize>,
    /// Paths of fields, `user.name`, split at the dots.
    pub(crate) required: Vec<Vec<String>>,
    /// Objects may name a field twice, which parsers read in several ways.
    pub(crate) duplicates: bool,
    pub(crate) schema: Option<Schema>,
}

impl Bounds {
    /// No body at all does not fit them either.
    pub(crate) fn needs_body(&self) -> bool {
        !self.required.is_empty() || self.schema.is_some()
    }
}

/// What was wrong with a body, in the words of the answer.
pub(crate) fn judge(body: &[u8], bounds: &Bounds) -> Result<(), String> {
    let mut found = Found { keys: 0, required: vec![false; bounds.required.len()], unfit: None };
    let mut json = serde_json::Deserializer::from_slice(body);
    let asked = (0..bounds.required.len()).collect();
    let node = bounds.schema.as_ref().map(Schema::root);
    let walk = Walk { bounds, found: &mut found, depth: 0, asked, node };
    let walked = walk.deserialize(&mut json).and_then(|()| json.end()).map_err(|error| error.to_string());
    if let Some(unfit) = found.unfit {
        return Err(unfit.to_string());
    }
    walked?;
    let missing = bounds.required.iter().zip(&found.required).find(|(_, found)| !**found);
    missing.map_or(Ok(()), |(path, _)| Err(format!("the field {} is missing", path.join("."))))
}

struct Found {
    keys: usize,
    required: Vec<bool>,
    unfit: Option<Unfit>,
}

/// Where a value does not fit the schema, and what is wrong with it.
struct Unfit {
    /// From the value outwards.
    path: Vec<String>,
    what: String,
}

/// With the place as a JSON pointer.
//= rfc6901#section-5
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pointer = String::new();
        for part in self.path.iter().rev() {
            pointer.push('/');
            pointer.push_str(&part.replace('~', "~0").replace('/', "~1"));
        }
        pointer.truncate(pointer.floor_char_boundary(POINTER));
        let place = if pointer.is_empty() { "the whole" } else { pointer.as_str() };
        write!(f, "{}: {}", place.escape_debug(), self.what)
    }
}

impl Found {
    /// What ends the walk; each level around adds its part of the place.
    fn unfit<E: Error>(&mut self, what: String) -> E {
        self.unfit = Some(Unfit { path: Vec::new(), what });
        E::custom("it does not fit the schema")
    }

    /// Adds a level further out to the place of what does not fit.
    fn add_level(&mut self, part: impl FnOnce() -> String) {
        if let Some(unfit) = &mut self.unfit {
            unfit.path.push(part());
        }
    }
}

struct Walk<'a> {
    bounds: &'a Bounds,
    found: &'a mut Found,
    /// Objects and arrays around this value.
    depth: usize,
    /// Required fields whose path leads here so far.
    asked: Vec<usize>,
    /// What the value must be.
    node: Option<&'a Node>,
}

impl Walk<'_> {
    fn enter<E: Error>(&mut self, kind: Type) -> Result<(), E> {
        if self.depth >= self.bounds.depth {
            return Err(E::custom(format_args!("more than {} levels", self.bounds.depth)));
        }
        match self.node.and_then(|node| node.wrong_type(kind)) {
            None => Ok(()),
            Some(wrong) => Err(self.found.unfit(wrong)),
        }
    }

    fn scalar<E: Error>(self, found: Scalar<'_>) -> Result<(), E> {
        match self.node.and_then(|node| node.wrong_scalar(found)) {
            None => Ok(()),
            Some(wrong) => Err(self.found.unfit(wrong)),
        }
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

    fn visit_bool<E: Error>(self, truth: bool) -> Result<(), E> {
        self.scalar(Scalar::Truth(truth))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.scalar(Scalar::Number(Number::Whole(number.into())))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.scalar(Scalar::Number(Number::Whole(number.into())))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.scalar(Scalar::Number(Number::Float(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.scalar(Scalar::Text(text))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.scalar(Scalar::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.enter::<A::Error>(Type::Array)?;
        let depth = self.depth + 1;
        let node = self.node.zip(self.bounds.schema.as_ref()).and_then(|(node, schema)| schema.items(node));
        for index in 0_u64.. {
            let walk = Walk { bounds: self.bounds, found: &mut *self.found, depth, asked: Vec::new(), node };
            match items.next_element_seed(walk) {
                Ok(Some(())) => {}
                Ok(None) => {
                    let wrong = self.node.and_then(|node| node.wrong_count(index));
                    return wrong.map_or(Ok(()), |wrong| Err(self.found.unfit(wrong)));
                }
                Err(error) => {
                    self.found.add_level(|| index.to_string());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<(), A::Error> {
        self.enter::<A::Error>(Type::Object)?;
        let mut seen = std::collections::BTreeSet::new();
        let mut there = vec![false; self.node.map_or(0, Node::required)];
        while let Some(key) = fields.next_key::<String>()? {
            self.found.keys += 1;
            if self.bounds.keys.is_some_and(|most| self.found.keys > most) {
                return Err(A::Error::custom("too many keys"));
            }
            if !self.bounds.duplicates && seen.contains(&key) {
                return Err(A::Error::custom("an object names a field twice"));
            }
            let asked = self.asked_within(&key);
            let node = match self.node.zip(self.bounds.schema.as_ref()).map(|(node, schema)| schema.field(node, &key)) {
                None => None,
                Some(Ok((node, known))) => {
                    if let Some(index) = known.required
                        && let Some(found) = there.get_mut(index)
                    {
                        *found = true;
                    }
                    node
                }
                Some(Err(wrong)) => {
                    let error = self.found.unfit(wrong);
                    self.found.add_level(|| key);
                    return Err(error);
                }
            };
            let depth = self.depth + 1;
            let walk = Walk { bounds: self.bounds, found: &mut *self.found, depth, asked, node };
            if let Err(error) = fields.next_value_seed(walk) {
                self.found.add_level(|| key);
                return Err(error);
            }
            if !self.bounds.duplicates {
                seen.insert(key);
            }
        }
        match self.node.and_then(|node| node.missing(&there)) {
            None => Ok(()),
            Some(name) => Err(self.found.unfit(format!("the field {name} is missing"))),
        }
    }
}

impl Walk<'_> {
    /// The required fields whose path leads on by this key; one that ends there is found.
    fn asked_within(&mut self, key: &str) -> Vec<usize> {
        let of = |index: &usize| self.bounds.required[*index].get(self.depth).is_some_and(|part| part == key);
        let asked: Vec<usize> = self.asked.iter().copied().filter(of).collect();
        for index in &asked {
            if self.bounds.required[*index].len() == self.depth + 1 {
                self.found.required[*index] = true;
            }
        }
        asked
    }
}

/// True for JSON text of any shape.
#[cfg(test)]
pub(crate) fn is_json(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok()
}
