//! Reads an expression as it travels. It is read as a tree first and made one of after that: the code for each reader
//! of JSON is that of the tree alone, and the component of the filter stays small.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::expression::Expr;

/// As much of JSON as expressions are made of.
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Text(String),
    List(Vec<Tree>),
    /// An object with one key.
    One(String, Box<Tree>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsTree)
    }
}

struct AsTree;

impl<'de> Visitor<'de> for AsTree {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a part of a compiled expression")
    }

    fn visit_unit<E: Error>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Uint(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let Some(key) = map.next_key()? else { return Err(A::Error::custom("an operation is expected")) };
        let value = Box::new(map.next_value()?);
        match map.next_key::<IgnoredAny>()? {
            None => Ok(Tree::One(key, value)),
            Some(IgnoredAny) => Err(A::Error::custom("one operation is expected")),
        }
    }
}

impl Tree {
    /// Recursive as the tree is, whose depth its reader bounds.
    pub(super) fn into_expr(self) -> Result<Expr, String> {
        let (key, value) = match self {
            Tree::One(key, value) => (key, *value),
            Tree::Text(_) => return Err("the expression is text: the control plane has to compile it".to_owned()),
            Tree::Null | Tree::Bool(_) | Tree::Int(_) | Tree::Uint(_) | Tree::List(_) => {
                return Err("a compiled expression is expected".to_owned());
            }
        };
        Ok(match (key.as_str(), value) {
            ("n", Tree::Null) => Expr::Null(()),
            ("b", Tree::Bool(value)) => Expr::Bool(value),
            ("i", Tree::Int(number)) => Expr::Int(number),
            ("i", Tree::Uint(number)) => Expr::Int(i64::try_from(number).map_err(|_| wrong("i"))?),
            ("u", Tree::Uint(number)) => Expr::Uint(number),
            ("d", Tree::Uint(bits)) => Expr::Double(f64::from_bits(bits)),
            ("s", Tree::Text(text)) => Expr::Text(text.into()),
            ("x", Tree::List(bytes)) => Expr::Bytes(bytes.into_iter().map(Tree::byte).collect::<Result<_, _>>()?),
            ("l", Tree::List(parts)) => Expr::List(all(parts)?),
            ("m", Tree::List(entries)) => Expr::Map(entries.into_iter().map(Tree::entry).collect::<Result<_, _>>()?),
            ("v", Tree::Text(name)) => Expr::Told(name),
            ("h", Tree::Text(name)) => Expr::Has(name),
            ("e", Tree::Uint(around)) => Expr::Element(usize::try_from(around).map_err(|_| wrong("e"))?),
            ("&", Tree::List(parts)) => Expr::And(all(parts)?),
            ("|", Tree::List(parts)) => Expr::Or(all(parts)?),
            ("?", Tree::List(parts)) => Expr::If(three(parts)?),
            ("f", Tree::List(call)) => {
                let (function, parts) = named(call)?;
                Expr::Call(function, all(parts)?)
            }
            ("q", Tree::List(each)) => {
                let (each, parts) = named(each)?;
                Expr::Each(each, three(parts)?)
            }
            (key, _) => return Err(wrong(key)),
        })
    }

    fn byte(self) -> Result<u8, String> {
        match self {
            Tree::Uint(byte) => u8::try_from(byte).map_err(|_| wrong("x")),
            Tree::Null | Tree::Bool(_) | Tree::Int(_) | Tree::Text(_) | Tree::List(_) | Tree::One(..) => {
                Err(wrong("x"))
            }
        }
    }

    /// Key and value of a map.
    fn entry(self) -> Result<(Expr, Expr), String> {
        let Tree::List(pair) = self else { return Err(wrong("m")) };
        let [key, value] = <[Tree; 2]>::try_from(pair).map_err(|_| wrong("m"))?;
        Ok((key.into_expr()?, value.into_expr()?))
    }
}

fn wrong(key: &str) -> String {
    format!("{key:?} is no operation, or not with these parts")
}

fn all(parts: Vec<Tree>) -> Result<Vec<Expr>, String> {
    parts.into_iter().map(Tree::into_expr).collect()
}

fn three(parts: Vec<Tree>) -> Result<Box<[Expr; 3]>, String> {
    all(parts)?.into_boxed_slice().try_into().map_err(|_| "three parts are expected".to_owned())
}

/// What stands first by its name, and the parts behind it.
fn named<T: DeserializeOwned>(parts: Vec<Tree>) -> Result<(T, Vec<Tree>), String> {
    let [Tree::Text(name), Tree::List(parts)] = <[Tree; 2]>::try_from(parts).map_err(|_| wrong("f"))? else {
        return Err("a name and its parts are expected".to_owned());
    };
    let named = T::deserialize(StrDeserializer::<serde::de::value::Error>::new(&name));
    Ok((named.map_err(|error| error.to_string())?, parts))
}
