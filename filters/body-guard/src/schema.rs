//! A part of JSON Schema (2020-12), made ready once: what a value must be, by its place. A keyword that is not built
//! refuses the schema, since one that is passed over would let pass what its author refused.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Schemas in one another, and all of them.
const MAX_LEVELS: usize = 32;
const MAX_NODES: usize = 1_000;
/// Values of an `enum`, and fields that are required.
const MAX_LISTED: usize = 256;
/// Floats below this have a whole number of their own.
const MOST_WHOLE: f64 = 1e30;
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema that is ready.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    nodes: Vec<Node>,
    root: usize,
}

/// What a value must be.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Bits of [`Type`].
    types: u8,
    listed: Option<Listed>,
    length: Range<u64>,
    number: Range<Number>,
    items: Option<usize>,
    count: Range<u64>,
    fields: BTreeMap<String, Known>,
    required: usize,
    others: Others,
}

/// A field that a schema names.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    node: Option<usize>,
    /// Its place among those that must be there.
    pub(crate) required: Option<usize>,
}

/// What is said of fields that are not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    Allowed,
    Refused,
    Are(usize),
}

/// `enum` or `const`, of values without parts.
#[derive(Debug, Clone, Default)]
struct Listed {
    texts: BTreeSet<String>,
    numbers: Vec<Number>,
    truths: Vec<bool>,
    null: bool,
}

#[derive(Debug, Clone, Copy)]
struct Range<T> {
    least: Option<T>,
    most: Option<T>,
}

impl<T> Default for Range<T> {
    fn default() -> Self {
        Self { least: None, most: None }
    }
}

/// A number as JSON has it: whole ones are compared exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Whole(i128),
    Float(f64),
}

/// A value without parts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scalar<'a> {
    Null,
    Truth(bool),
    Number(Number),
    Text(&'a str),
}

/// The types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Null,
    Boolean,
    Integer,
    /// One that is not whole.
    Number,
    String,
    Array,
    Object,
}

impl Type {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Null, "null"),
        (Self::Boolean, "boolean"),
        (Self::Integer, "integer"),
        (Self::Number, "number"),
        (Self::String, "string"),
        (Self::Array, "array"),
        (Self::Object, "object"),
    ];

    fn bit(self) -> u8 {
        match self {
            Self::Null => 1,
            Self::Boolean => 2,
            Self::Integer => 4,
            Self::Number => 8,
            Self::String => 16,
            Self::Array => 32,
            Self::Object => 64,
        }
    }
}

const ANY: u8 = 127;

impl Number {
    fn read(number: &serde_json::Number) -> Option<Self> {
        let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
        whole.map(Self::Whole).or_else(|| number.as_f64().map(Self::Float))
    }

    fn compare(self, other: Self) -> Ordering {
        match (self.whole(), other.whole()) {
            (Some(own), Some(other)) => own.cmp(&other),
            (None, _) | (_, None) => self.float().total_cmp(&other.float()),
        }
    }

    /// Floats count too where they are whole and small enough to be exact here: integers beyond 64 bits are read as floats.
    fn whole(self) -> Option<i128> {
        match self {
            Self::Whole(number) => Some(number),
            #[expect(clippy::cast_possible_truncation, reason = "whole, and far below 2^127")]
            Self::Float(number) if number.fract() == 0.0 && number.abs() < MOST_WHOLE => Some(number as i128),
            Self::Float(_) => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            // -0.0 becomes 0.0: `total_cmp` tells them apart.
            Self::Float(number) => number + 0.0,
        }
    }

    fn kind(self) -> Type {
        match self {
            Self::Float(number) if number.fract() != 0.0 => Type::Number,
            Self::Whole(_) | Self::Float(_) => Type::Integer,
        }
    }
}

impl Scalar<'_> {
    fn kind(self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Truth(_) => Type::Boolean,
            Self::Number(number) => number.kind(),
            Self::Text(_) => Type::String,
        }
    }
}

impl Schema {
    /// # Errors
    /// Begin with the place inside the schema, `.properties.a.type`.
    pub(crate) fn read(schema: &Value) -> Result<Self, String> {
        let mut making = Making { nodes: Vec::new(), named: BTreeMap::new() };
        let defined = match schema.get("$defs") {
            None => Map::new(),
            Some(Value::Object(defined)) => defined.clone(),
            Some(_) => return Err(".$defs: an object is expected".to_owned()),
        };
        if defined.len() > MAX_NODES {
            return Err(format!(".$defs: more than {MAX_NODES} schemas"));
        }
        for (index, name) in defined.keys().enumerate() {
            making.named.insert(name.clone(), index);
            making.nodes.push(Node::any());
        }
        for (index, (name, schema)) in defined.iter().enumerate() {
            let at = format!(".$defs.{name}");
            if schema.get("$ref").is_some() {
                return Err(format!("{at}.$ref: it would define what another one does"));
            }
            making.nodes[index] = making.node(&at, schema, 1)?;
        }
        let root = making.place("", schema, 0)?;
        Ok(Self { nodes: making.nodes, root })
    }

    pub(crate) fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    /// What the items of an array must be. `None`: anything.
    pub(crate) fn items(&self, of: &Node) -> Option<&Node> {
        of.items.map(|index| &self.nodes[index])
    }

    /// What a field must be, and what is known of it; an error: it may not be there.
    pub(crate) fn field(&self, of: &Node, name: &str) -> Result<(Option<&Node>, Known), String> {
        let known = of.fields.get(name).copied().unwrap_or_default();
        let place = match (known.node, of.others) {
            (Some(index), _) | (None, Others::Are(index)) => Some(index),
            (None, Others::Allowed) => None,
            (None, Others::Refused) => return Err("this field is not allowed".to_owned()),
        };
        Ok((place.map(|index| &self.nodes[index]), known))
    }
}

impl Node {
    fn any() -> Self {
        Self {
            types: ANY,
            listed: None,
            length: Range::default(),
            number: Range::default(),
            items: None,
            count: Range::default(),
            fields: BTreeMap::new(),
            required: 0,
            others: Others::Allowed,
        }
    }

    /// How many fields must be there.
    pub(crate) fn required(&self) -> usize {
        self.required
    }

    /// The first field that must be there and is not among those that were found.
    pub(crate) fn missing(&self, found: &[bool]) -> Option<&str> {
        let lacks = |known: &Known| known.required.is_some_and(|index| !found.get(index).copied().unwrap_or(false));
        self.fields.iter().find(|(_, known)| lacks(known)).map(|(name, _)| name.as_str())
    }

    /// What is wrong about the type of a value.
    pub(crate) fn wrong_type(&self, found: Type) -> Option<String> {
        let is_listed = self.listed.is_none() || !matches!(found, Type::Array | Type::Object);
        if self.types & found.bit() != 0 && is_listed {
            return None;
        }
        let is_expected = |of: &&(Type, &str)| self.types & of.0.bit() != 0;
        let expected: Vec<_> = Type::ALL.iter().filter(is_expected).map(|(_, name)| *name).collect();
        Some(match (expected.is_empty(), self.listed.is_some()) {
            (true, _) => "nothing is allowed here".to_owned(),
            (false, true) => "one of the listed values is expected".to_owned(),
            (false, false) => format!("{} is expected", expected.join(" or ")),
        })
    }

    pub(crate) fn wrong_scalar(&self, found: Scalar<'_>) -> Option<String> {
        if let Some(wrong) = self.wrong_type(found.kind()) {
            return Some(wrong);
        }
        if self.listed.as_ref().is_some_and(|listed| !listed.has(found)) {
            return Some("one of the listed values is expected".to_owned());
        }
        match found {
            Scalar::Null | Scalar::Truth(_) => None,
            Scalar::Number(number) => {
                let Range { least, most } = self.number;
                if least.is_some_and(|least| number.compare(least) == Ordering::Less) {
                    return Some("the number is below the minimum".to_owned());
                }
                let is_above = most.is_some_and(|most| number.compare(most) == Ordering::Greater);
                is_above.then(|| "the number is above the maximum".to_owned())
            }
            Scalar::Text(text) => {
                let Range { least, most } = self.length;
                if least.is_none() && most.is_none() {
                    return None;
                }
                self.length.wrong(text.chars().count() as u64, "characters")
            }
        }
    }

    pub(crate) fn wrong_count(&self, items: u64) -> Option<String> {
        self.count.wrong(items, "items")
    }
}

impl Range<u64> {
    fn wrong(self, found: u64, what: &str) -> Option<String> {
        match self {
            Self { least: Some(least), .. } if found < least => Some(format!("at least {least} {what} are expected")),
            Self { most: Some(most), .. } if found > most => Some(format!("at most {most} {what} are expected")),
            Self { .. } => None,
        }
    }
}

impl Listed {
    fn has(&self, found: Scalar<'_>) -> bool {
        match found {
            Scalar::Null => self.null,
            Scalar::Truth(truth) => self.truths.contains(&truth),
            Scalar::Number(number) => self.numbers.iter().any(|own| own.compare(number) == Ordering::Equal),
            Scalar::Text(text) => self.texts.contains(text),
        }
    }

    fn add(&mut self, at: &str, value: &Value) -> Result<(), String> {
        match value {
            Value::Null => self.null = true,
            Value::Bool(truth) => self.truths.push(*truth),
            Value::Number(number) => self.numbers.extend(Number::read(number)),
            Value::String(text) => _ = self.texts.insert(text.clone()),
            Value::Array(_) | Value::Object(_) => {
                return Err(format!("{at}: arrays and objects can't be compared here"));
            }
        }
        Ok(())
    }
}

/// A schema in the making.
struct Making {
    nodes: Vec<Node>,
    /// Where `$defs` are.
    named: BTreeMap<String, usize>,
}

impl Making {
    /// Where the node of a schema is: its own, or that of the definition that it refers to.
    fn place(&mut self, at: &str, schema: &Value, level: usize) -> Result<usize, String> {
        if let Some(reference) = schema.get("$ref") {
            let is_other = |key: &&String| !(is_remark(key) || *key == "$ref" || (level == 0 && is_of_root(key)));
            if let Some(other) = schema.as_object().and_then(|schema| schema.keys().find(is_other)) {
                return Err(format!("{at}.{other}: nothing stands beside $ref"));
            }
            let name = reference.as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
            let found = name.and_then(|name| self.named.get(name));
            return found.copied().ok_or_else(|| format!("{at}.$ref: {reference} is no #/$defs/NAME of this schema"));
        }
        let node = self.node(at, schema, level)?;
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("{at}: more than {MAX_NODES} schemas"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn node(&mut self, at: &str, schema: &Value, level: usize) -> Result<Node, String> {
        if level > MAX_LEVELS {
            return Err(format!("{at}: more than {MAX_LEVELS} schemas in one another"));
        }
        let keywords = match schema {
            Value::Bool(true) => return Ok(Node::any()),
            Value::Bool(false) => return Ok(Node { types: 0, ..Node::any() }),
            Value::Object(keywords) => keywords,
            Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(format!("{at}: a schema is expected"));
            }
        };
        let mut node = Node::any();
        for (key, value) in keywords {
            let at = format!("{at}.{key}");
            match key.as_str() {
                "items" => node.items = Some(self.place(&at, value, level + 1)?),
                "properties" => {
                    for (name, schema) in object(&at, value)? {
                        let place = self.place(&format!("{at}.{name}"), schema, level + 1)?;
                        node.fields.entry(name.clone()).or_default().node = Some(place);
                    }
                }
                "additionalProperties" => {
                    node.others = match value.as_bool() {
                        Some(true) => Others::Allowed,
                        Some(false) => Others::Refused,
                        None => Others::Are(self.place(&at, value, level + 1)?),
                    };
                }
                "$defs" if level == 0 => {}
                "$schema" if level == 0 && value == DIALECT => {}
                "$schema" => return Err(format!("{at}: {DIALECT} is expected, in the outermost schema")),
                key if is_remark(key) => {}
                key => node.keyword(&at, key, value)?,
            }
        }
        Ok(node)
    }
}

impl Node {
    /// Those of values without parts, and of counts.
    fn keyword(&mut self, at: &str, key: &str, value: &Value) -> Result<(), String> {
        match key {
            "type" => self.types = types(at, value)?,
            "required" => {
                for (index, name) in list(at, value)?.iter().enumerate() {
                    let name = name.as_str().ok_or_else(|| format!("{at}[{index}]: text is expected"))?;
                    let known = self.fields.entry(name.to_owned()).or_default();
                    if known.required.is_none() {
                        known.required = Some(self.required);
                        self.required += 1;
                    }
                }
            }
            "enum" | "const" if self.listed.is_some() => {
                return Err(format!("{at}: one of enum and const is expected"));
            }
            "enum" => {
                let mut listed = Listed::default();
                for (index, value) in list(at, value)?.iter().enumerate() {
                    listed.add(&format!("{at}[{index}]"), value)?;
                }
                self.listed = Some(listed);
            }
            "const" => {
                let mut listed = Listed::default();
                listed.add(at, value)?;
                self.listed = Some(listed);
            }
            "minLength" => self.length.least = Some(count(at, value)?),
            "maxLength" => self.length.most = Some(count(at, value)?),
            "minItems" => self.count.least = Some(count(at, value)?),
            "maxItems" => self.count.most = Some(count(at, value)?),
            "minimum" => self.number.least = Some(number(at, value)?),
            "maximum" => self.number.most = Some(number(at, value)?),
            "pattern" | "patternProperties" => return Err(format!("{at}: regular expressions are not built")),
            _ => return Err(format!("{at}: this keyword is not built")),
        }
        Ok(())
    }
}

/// Keywords that ask for nothing.
fn is_remark(key: &str) -> bool {
    matches!(key, "title" | "description" | "$comment" | "default" | "examples" | "deprecated")
}

fn is_of_root(key: &str) -> bool {
    matches!(key, "$defs" | "$schema")
}

fn types(at: &str, value: &Value) -> Result<u8, String> {
    let one = |value: &Value| -> Result<u8, String> {
        let known = Type::ALL.iter().find(|(_, name)| value == name);
        let (found, _) = known.ok_or_else(|| format!("{at}: {value} is no type"))?;
        // Whole numbers are numbers.
        Ok(if *found == Type::Number { Type::Number.bit() | Type::Integer.bit() } else { found.bit() })
    };
    match value.as_array() {
        Some(all) => all.iter().try_fold(0, |types, value| one(value).map(|found| types | found)),
        None => one(value),
    }
}

fn object<'v>(at: &str, value: &'v Value) -> Result<&'v Map<String, Value>, String> {
    value.as_object().ok_or_else(|| format!("{at}: an object is expected"))
}

fn list<'v>(at: &str, value: &'v Value) -> Result<&'v [Value], String> {
    let list = value.as_array().ok_or_else(|| format!("{at}: an array is expected"))?;
    match list.len() {
        0..=MAX_LISTED => Ok(list),
        more => Err(format!("{at}: {more} values, at most {MAX_LISTED}")),
    }
}

fn count(at: &str, value: &Value) -> Result<u64, String> {
    value.as_u64().ok_or_else(|| format!("{at}: a whole number is expected"))
}

fn number(at: &str, value: &Value) -> Result<Number, String> {
    let number = match value {
        Value::Number(number) => Number::read(number),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    };
    number.ok_or_else(|| format!("{at}: a number is expected"))
}
