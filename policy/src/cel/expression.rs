//! An expression as it is evaluated, and as it travels: names are resolved to the values that the host tells, macros to
//! [`Expr::Each`]. What arrives is trusted with nothing: [`Expr::measure`] bounds it, and the evaluator checks each
//! type.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, MAX_NODES};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(Deserialize))]
pub enum Expr {
    #[serde(rename = "n")]
    Null(()),
    #[serde(rename = "b")]
    Bool(bool),
    #[serde(rename = "i")]
    Int(i64),
    #[serde(rename = "u")]
    Uint(u64),
    /// Travels as its bits, since not every reader of JSON reads numbers exactly.
    #[serde(rename = "d")]
    Double(#[serde(with = "bits")] f64),
    #[serde(rename = "s")]
    Text(Arc<str>),
    #[serde(rename = "x")]
    Bytes(Arc<[u8]>),
    #[serde(rename = "l")]
    List(Vec<Expr>),
    #[serde(rename = "m")]
    Map(Vec<(Expr, Expr)>),
    /// A value that the host tells, by its name there: `request.header.x-team`.
    #[serde(rename = "v")]
    Told(String),
    /// Whether the host tells it.
    #[serde(rename = "h")]
    Has(String),
    /// The element of a macro, by how many macros are around that one.
    #[serde(rename = "e")]
    Element(usize),
    #[serde(rename = "&")]
    And(Vec<Expr>),
    #[serde(rename = "|")]
    Or(Vec<Expr>),
    /// Condition, value where it holds, value where it does not.
    #[serde(rename = "?")]
    If(Box<[Expr; 3]>),
    #[serde(rename = "f")]
    Call(Function, Vec<Expr>),
    /// A macro: the list, a condition on each element, what becomes of each.
    #[serde(rename = "q")]
    Each(Each, Box<[Expr; 3]>),
}

/// What a macro makes of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Each {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

/// Operators and functions whose operands are all evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    Not,
    Negate,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Index,
    Size,
    StartsWith,
    EndsWith,
    Contains,
    LowerAscii,
    UpperAscii,
    Int,
    Uint,
    Double,
    Text,
}

impl Function {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Not => "!",
            Self::Negate | Self::Subtract => "-",
            Self::Add => "+",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Equal => "==",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Index => "[]",
            Self::Size => "size",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Contains => "contains",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::Text => "string",
        }
    }
}

impl Expr {
    /// The expressions that it is made of.
    fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Null(())
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::Told(_)
            | Self::Has(_)
            | Self::Element(_) => Vec::new(),
            Self::List(parts) | Self::And(parts) | Self::Or(parts) | Self::Call(_, parts) => parts.iter().collect(),
            Self::Map(entries) => {
                let mut parts = Vec::with_capacity(2 * entries.len());
                entries.iter().for_each(|(key, value)| parts.extend([key, value]));
                parts
            }
            Self::If(parts) | Self::Each(_, parts) => parts.iter().collect(),
        }
    }

    /// Refuses what is larger or deeper than the evaluator goes.
    ///
    /// # Errors
    /// It is.
    pub fn measure(&self) -> Result<(), String> {
        let (mut nodes, mut left) = (0, vec![(self, 1)]);
        while let Some((expr, depth)) = left.pop() {
            nodes += 1;
            if depth > MAX_DEPTH {
                return Err(format!("nested deeper than {MAX_DEPTH}"));
            }
            if nodes > MAX_NODES {
                return Err(format!("more than {MAX_NODES} parts"));
            }
            left.extend(expr.parts().into_iter().map(|part| (part, depth + 1)));
        }
        Ok(())
    }

    /// The names of the values that it reads or asks for. To be called on what was measured.
    pub fn told(&self) -> Vec<&str> {
        let (mut names, mut left) = (Vec::new(), vec![self]);
        while let Some(expr) = left.pop() {
            if let Self::Told(name) | Self::Has(name) = expr {
                names.push(name.as_str());
            }
            left.extend(expr.parts());
        }
        names
    }
}

mod bits {
    use serde::Serializer;
    #[cfg(test)]
    use serde::{Deserialize, Deserializer};

    pub(super) fn serialize<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(number.to_bits())
    }

    #[cfg(test)]
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        u64::deserialize(deserializer).map(f64::from_bits)
    }
}
