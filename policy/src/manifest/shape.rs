//! serde over a JSON tree that goes on after a mistake. serde ends at the first one; so each mistake is written down, the
//! place is given a stand-in of the shape that is asked for there, and the tree is read again, until nothing new is found.
//! What was read with a stand-in is good for further checks only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde_json::Value;

use super::{Mistake, Part};
use crate::text::{nearest, printable};

/// Mistakes that are told of one document.
pub(super) const MAX_MISTAKES: usize = 100;
/// Values that may be looked at while the mistakes of one document are found.
const MAX_WORK: usize = 2_000_000;

/// So many of the known fields are listed.
const LISTED: usize = 10;

/// Texts that a stand-in takes one after the other, until one fits.
const STAND_INS: [&str; 9] = [
    "x",
    "/",
    "192.0.2.1",
    "192.0.2.1:1",
    "1s",
    "GET",
    "cluster.local",
    "0.0.0",
    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
];

/// A value as it could be read, and every mistake in it.
pub(super) struct Shaped<T> {
    /// Absent where a mistake is such that nothing can be read.
    pub(super) value: Option<T>,
    pub(super) mistakes: Vec<Mistake>,
    /// Keys whose values are not the author's.
    pub(super) made_up: Vec<String>,
    /// Keys as they are read and as they are written, the outer before the inner.
    pub(super) renamed: Vec<(String, String)>,
}

/// Reads the part of a document that is at the key `root`.
pub(super) fn read<T: DeserializeOwned>(root: &str, value: &Value) -> Shaped<T> {
    let mut patches = Patches::default();
    let mut mistakes = Vec::new();
    let mut tries = (MAX_WORK / size(value).max(1)).clamp(2, 2_000);
    loop {
        let path = Path { parent: None, step: Step::Key(root) };
        let fault = match T::deserialize(Reader { value, path: &path, patches: &patches }) {
            Ok(value) => return patches.shaped(Some(value), mistakes),
            Err(fault) => fault,
        };
        tries -= 1;
        patches.mend(fault, root, &mut mistakes);
        if patches.given_up || tries == 0 || mistakes.len() >= MAX_MISTAKES {
            return patches.shaped(None, mistakes);
        }
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(size).sum::<usize>() + 1,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 1,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// The way to a value, from it to the root.
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Key(&'p str),
    Item(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

/// What is read instead of what was written.
#[derive(Default)]
struct Patches {
    /// By the key of the value that each stands in for.
    stand_ins: BTreeMap<String, StandIn>,
    /// Values that are passed over.
    dropped: BTreeSet<String>,
    /// Misspelt fields with the names that are meant.
    renamed: BTreeMap<String, &'static str>,
    given_up: bool,
}

struct StandIn {
    attempt: usize,
    /// The mapping that lacks the field, and the field.
    missing: Option<(String, &'static str)>,
}

impl Patches {
    fn is_empty(&self) -> bool {
        self.stand_ins.is_empty() && self.dropped.is_empty() && self.renamed.is_empty()
    }

    fn shaped<T>(self, value: Option<T>, mistakes: Vec<Mistake>) -> Shaped<T> {
        let renamed = self.renamed.into_iter().map(|(written, meant)| {
            let around = written.rfind('.').map_or("", |end| &written[..=end]);
            (format!("{around}{meant}"), written)
        });
        let made_up = self.stand_ins.into_keys().chain(self.dropped).collect();
        Shaped { value, mistakes, made_up, renamed: renamed.collect() }
    }

    /// Writes a mistake down and makes the next reading pass it.
    fn mend(&mut self, fault: Fault, root: &str, mistakes: &mut Vec<Mistake>) {
        let at = fault.at.unwrap_or_else(|| root.to_owned());
        if let Some(stand_in) = self.stand_ins.get_mut(&at) {
            stand_in.attempt += 1;
            if stand_in.attempt > STAND_INS.len() {
                self.stand_ins.remove(&at);
                self.given_up |= at == root || !self.dropped.insert(at);
            }
            return;
        }
        let (key, part, message) = match fault.what {
            What::Missing(field) => {
                let key = format!("{at}.{field}");
                if self.dropped.contains(&key) {
                    // The field is there, with a mistake that is told.
                    self.stand_in(at, None);
                    return;
                }
                self.stand_in(key.clone(), Some((at, field)));
                (key, Part::Value, "is missing".to_owned())
            }
            What::Unknown { field, known } => {
                let key = format!("{at}.{field}");
                let meant = nearest(&field, known.iter().copied());
                match meant.filter(|_| !self.renamed.contains_key(&key)) {
                    Some(meant) => _ = self.renamed.insert(key.clone(), meant),
                    None => self.given_up |= !self.dropped.insert(key.clone()),
                }
                (key, Part::Key, unknown_field(&field, known))
            }
            What::Other(message) => {
                self.stand_in(at.clone(), None);
                if self.is_mended_inside(&at) {
                    // It may be the stand-in that doesn't fit.
                    return;
                }
                (at, Part::Value, message)
            }
        };
        mistakes.push(Mistake { key, part, message });
    }

    fn is_mended_inside(&self, at: &str) -> bool {
        let mut mended = self.stand_ins.keys().chain(&self.dropped);
        mended.any(|key| key.strip_prefix(at).is_some_and(|rest| rest.starts_with(['.', '['])))
    }

    fn stand_in(&mut self, key: String, missing: Option<(String, &'static str)>) {
        self.stand_ins.insert(key, StandIn { attempt: 0, missing });
    }
}

pub(super) fn unknown_field(field: &str, known: &[&'static str]) -> String {
    let shown = printable(field);
    match nearest(field, known.iter().copied()) {
        Some(meant) => format!("unknown field `{shown}`; did you mean `{meant}`?"),
        None if known.is_empty() => format!("unknown field `{shown}`: none is expected here"),
        None if known.len() > LISTED => {
            format!(
                "unknown field `{shown}`; known are {} and {} more",
                known[..LISTED].join(", "),
                known.len() - LISTED
            )
        }
        None => format!("unknown field `{shown}`; known are {}", known.join(", ")),
    }
}

/// Why a value can't be read.
#[derive(Debug)]
struct Fault {
    /// The key of the value; absent until it is known.
    at: Option<String>,
    what: What,
}

#[derive(Debug)]
enum What {
    Missing(&'static str),
    Unknown { field: String, known: &'static [&'static str] },
    Other(String),
}

impl Fault {
    fn new(what: What) -> Self {
        Self { at: None, what }
    }

    fn at(self, path: &Path<'_>) -> Self {
        Self { at: self.at.or_else(|| Some(path.to_string())), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::Missing(field) => write!(f, "{field} is missing"),
            What::Unknown { field, known } => f.write_str(&unknown_field(field, known)),
            What::Other(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Other(message.to_string()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing(field))
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        Self::new(What::Unknown { field: field.to_owned(), known })
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let meant = crate::text::did_you_mean(variant, known.iter().copied());
        Self::custom(format_args!("{:?} is not one of {}{meant}", printable(variant), known.join(", ")))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let wanted = wanted(&expected.to_string());
        let is_bare = matches!(
            unexpected,
            Unexpected::Bool(_) | Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_)
        );
        let advice = if is_bare && wanted == "a string" { "; put it in quotes" } else { "" };
        Self::custom(format_args!("{} is not {wanted}{advice}", given(unexpected)))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("{} is not {}", given(unexpected), wanted(&expected.to_string())))
    }
}

/// The wanted shape in the words of manifests rather than of the program.
fn wanted(expected: &str) -> String {
    let whole = |least: i128, most: i128| format!("a whole number from {least} to {most}");
    match expected {
        "u16" => whole(0, u16::MAX.into()),
        "u32" => whole(0, u32::MAX.into()),
        "i32" => whole(i32::MIN.into(), i32::MAX.into()),
        "u64" => whole(0, u64::MAX.into()),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping".to_owned(),
        "a boolean" => "true or false".to_owned(),
        other if other.starts_with("struct ") => "a mapping".to_owned(),
        other => other.to_owned(),
    }
}

fn given(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("{:?}", printable(text)),
        Unexpected::Unit | Unexpected::Option => "null".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        Unexpected::Char(_)
        | Unexpected::Bytes(_)
        | Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::Other(_) => unexpected.to_string(),
    }
}

/// A value where it stands.
#[derive(Clone, Copy)]
struct Reader<'a> {
    value: &'a Value,
    path: &'a Path<'a>,
    patches: &'a Patches,
}

impl<'a> Reader<'a> {
    fn unexpected(self) -> Unexpected<'a> {
        match self.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => Unexpected::Unsigned(number),
                (None, Some(number)) => Unexpected::Signed(number),
                (None, None) => Unexpected::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Unexpected::Str(text),
            Value::Array(_) => Unexpected::Seq,
            Value::Object(_) => Unexpected::Map,
        }
    }

    /// The patches' key of a value inside this one; nothing where there are no patches.
    fn patched(self, step: Step<'_>) -> Option<String> {
        (!self.patches.is_empty()).then(|| Path { parent: Some(self.path), step }.to_string())
    }

    /// Reads a value inside this one: as it is, or what stands in for it.
    fn inside<'de, S: DeserializeSeed<'de>>(self, step: Step<'_>, value: &Value, seed: S) -> Result<S::Value, Fault> {
        let path = Path { parent: Some(self.path), step };
        let stand_in = match self.patches.is_empty() {
            true => None,
            false => self.patches.stand_ins.get(&path.to_string()),
        };
        let read = match stand_in {
            Some(stand_in) => seed.deserialize(Pretended(stand_in.attempt)),
            None => seed.deserialize(Reader { value, path: &path, patches: self.patches }),
        };
        read.map_err(|fault| fault.at(&path))
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => visitor.visit_u64(number),
                (None, Some(number)) => visitor.visit_i64(number),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Items { reader: self, items: items.iter().enumerate() }),
            Value::Object(fields) => visitor.visit_map(Fields::new(self, fields)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value.as_str() {
            Some(text) => visitor.visit_enum(StrDeserializer::new(text)),
            None => Err(de::Error::invalid_type(self.unexpected(), &"a string")),
        }
    }

    /// A list is no mapping, though serde would take its items for the fields.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value.is_array() {
            true => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

struct Items<'a> {
    reader: Reader<'a>,
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        for (index, value) in self.items.by_ref() {
            let key = self.reader.patched(Step::Item(index));
            if key.is_none_or(|key| !self.reader.patches.dropped.contains(&key)) {
                return self.reader.inside(Step::Item(index), value, seed).map(Some);
            }
        }
        Ok(None)
    }
}

/// One field as it is read: under the name that is meant.
struct Field<'a> {
    name: &'a str,
    /// As it is written; absent where a stand-in is made of nothing.
    written: Option<(&'a str, &'a Value)>,
}

struct Fields<'a> {
    reader: Reader<'a>,
    fields: std::vec::IntoIter<Field<'a>>,
    next: Option<Field<'a>>,
}

impl<'a> Fields<'a> {
    fn new(reader: Reader<'a>, written: &'a serde_json::Map<String, Value>) -> Self {
        let mut fields = Vec::with_capacity(written.len());
        let patches = reader.patches;
        for (name, value) in written {
            let key = reader.patched(Step::Key(name));
            let meant = key.as_ref().and_then(|key| patches.renamed.get(key));
            let taken = |meant: &str| written.contains_key(meant) || fields.iter().any(|f: &Field<'_>| f.name == meant);
            if key.is_some_and(|key| patches.dropped.contains(&key)) || meant.is_some_and(|meant| taken(meant)) {
                continue;
            }
            fields.push(Field { name: meant.copied().unwrap_or(name), written: Some((name, value)) });
        }
        if !patches.stand_ins.is_empty() {
            let own = reader.path.to_string();
            let missing = patches.stand_ins.values().filter_map(|stand_in| stand_in.missing.as_ref());
            let missing = missing.filter(|(at, _)| *at == own);
            fields.extend(missing.map(|(_, name)| Field { name, written: None }));
        }
        Self { reader, fields: fields.into_iter(), next: None }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.next = self.fields.next();
        let Some(field) = &self.next else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::new(field.name));
        key.map(Some).map_err(|fault: Fault| fault.at(self.reader.path))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let field = self.next.take().expect("serde asks for a value after its key");
        let (name, value) = field.written.unwrap_or((field.name, &Value::Null));
        self.reader.inside(Step::Key(name), value, seed)
    }
}

/// A value that takes the shape that is asked for.
#[derive(Clone, Copy)]
struct Pretended(usize);

impl IntoDeserializer<'_, Fault> for Pretended {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Pretended {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(STAND_INS[self.0.min(STAND_INS.len() - 1)])
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(false)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i64(1)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u64(1)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_i64(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Self>()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(MapDeserializer::new(std::iter::empty::<(&str, Self)>()))
    }

    /// First without any field, then with every one.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0.checked_sub(1) {
            None => self.deserialize_map(visitor),
            Some(attempt) => {
                let all = fields.iter().map(|field| (*field, Self(attempt)));
                visitor.visit_map(MapDeserializer::new(all))
            }
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(StrDeserializer::new(variants.first().copied().unwrap_or_default()))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u8 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}
