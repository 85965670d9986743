//! YAML as a JSON value with the line of each key. One walk: serde-saphyr reads, resolves aliases and bounds the input.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// One document.
pub(super) struct Tree {
    pub(super) value: Value,
    pub(super) line: usize,
    /// Lines by key, `a.b[0].c`.
    pub(super) lines: BTreeMap<String, usize>,
}

/// All documents that aren't empty, or the line and the reason why this is not YAML.
pub(super) fn parse(text: &str) -> Result<Vec<Tree>, (usize, String)> {
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let documents: Vec<Spanned<Node>> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(0, |location| line(location.line()));
        (line, message(&error.without_snippet().to_string()))
    })?;
    let tree = |document: Spanned<Node>| {
        let mut lines = BTreeMap::new();
        let line = line(document.referenced.line());
        Tree { value: document.value.into_json(String::new(), &mut lines), line, lines }
    };
    Ok(documents.into_iter().map(tree).collect())
}

fn line(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
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
    fn into_json(self, at: String, lines: &mut BTreeMap<String, usize>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => {
                let item = |(index, item): (usize, Spanned<Node>)| {
                    let key = format!("{at}[{index}]");
                    lines.insert(key.clone(), line(item.referenced.line()));
                    item.value.into_json(key, lines)
                };
                Value::Array(items.into_iter().enumerate().map(item).collect())
            }
            Self::Map(entries) => {
                let entry = |(name, value): (Spanned<String>, Spanned<Node>)| {
                    let key = if at.is_empty() { name.value.clone() } else { format!("{at}.{}", name.value) };
                    lines.insert(key.clone(), line(name.referenced.line()));
                    (name.value, value.value.into_json(key, lines))
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
