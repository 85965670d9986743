//! YAML as a JSON value with the place of each key. One walk: serde-saphyr reads, resolves aliases and bounds the input.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use super::{Part, Place};

/// Documents, and values in all of them, that one file may have: more than a control plane takes at once.
const MAX_DOCUMENTS: usize = 100_000;
const MAX_NODES: usize = 2_000_000;

/// One document.
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) start: Place,
    pub(super) places: Places,
}

/// Where keys and their values are written, by key, `a.b[0].c`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Places(BTreeMap<String, (Place, Place)>);

impl Places {
    /// The place of a key, or of the nearest one around it.
    pub(super) fn of(&self, key: &str, part: Part) -> Option<Place> {
        let mut here = key;
        loop {
            match self.0.get(here) {
                // Of what is not there the name around it tells most.
                Some((_, value)) if here == key && part == Part::Value => return Some(*value),
                Some((name, _)) => return Some(*name),
                None => here = &here[..here.rfind(['.', '['])?],
            }
        }
    }
}

/// All documents that aren't empty, or the place and the reason why this is not YAML.
pub(super) fn parse(text: &str) -> Result<Vec<Tree>, (Place, String)> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_documents: MAX_DOCUMENTS,
            max_nodes: MAX_NODES,
            max_events: 3 * MAX_NODES,
        },
    };
    let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let place = error.location().map(|location| place(&location)).unwrap_or_default();
        (place, message(&error.without_snippet().to_string()))
    })?;
    let tree = |document: Spanned<Node>| {
        let mut places = Places::default();
        let start = place(&document.referenced);
        Tree { value: document.value.into_json(String::new(), &mut places), start, places }
    };
    Ok(documents.into_iter().map(tree).collect())
}

fn place(location: &Location) -> Place {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Place { line: number(location.line()), column: number(location.column()) }
}

/// The reason without the position, which the caller gives in its own form.
fn message(text: &str) -> String {
    let first = text.lines().next().unwrap_or("is not YAML");
    let reason = first.rfind(" at line ").map_or(first, |at| &first[..at]);
    // Advice for callers of the library, not for authors of manifests.
    let reason = reason.find(", set ").map_or(reason, |at| &reason[..at]);
    reason.to_owned()
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    fn into_json(self, at: String, places: &mut Places) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => {
                let item = |(index, item): (usize, Spanned<Node>)| {
                    let key = format!("{at}[{index}]");
                    let here = place(&item.referenced);
                    places.0.insert(key.clone(), (here, here));
                    item.value.into_json(key, places)
                };
                Value::Array(items.into_iter().enumerate().map(item).collect())
            }
            Self::Map(entries) => {
                let entry = |(name, value): (Spanned<String>, Spanned<Node>)| {
                    let key = if at.is_empty() { name.value.clone() } else { format!("{at}.{}", name.value) };
                    let own = place(&name.referenced);
                    let is_scalar = matches!(value.value, Self::Scalar(_));
                    let of_value = if is_scalar { place(&value.referenced) } else { own };
                    places.0.insert(key.clone(), (own, of_value));
                    (name.value, value.value.into_json(key, places))
                };
                Value::Object(entries.into_iter().map(entry).collect::<Map<_, _>>())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping, a list, a string, a number, true, false or null")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number is finite"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(Value::String(value)))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
