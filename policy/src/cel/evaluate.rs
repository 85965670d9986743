//! The evaluator: bounded in steps, depth and memory over all expressions of one request. As the language has it, `&&`,
//! `||`, `all` and `exists` pass over an error where another operand decides.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::environment::{self, Scalar};
use super::expression::{Each, Expr, Function};
use super::value::Value;
use super::{MAX_BYTES, MAX_STEPS, operate};

/// What the host tells of a request.
pub trait Told {
    /// The value of this name. A header that came several times is one value, with commas between.
    fn value(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("{} is not there", written(.0))]
    Absent(String),
    #[error("{} can't be read", written(.0))]
    Unreadable(String),
    #[error("the list has no element {0}")]
    NoElement(i64),
    #[error("the map has no such key")]
    NoKey,
    #[error("the keys of a map must differ, and be text, whole numbers or truth values")]
    BadKey,
    #[error("a number is out of range")]
    Overflow,
    #[error("division by zero")]
    DivisionByZero,
    #[error("{}() of a value out of its range", .0.as_str())]
    OutOfRange(Function),
    #[error("{} has no meaning for values of these types", .0.as_str())]
    NoOverload(Function),
    #[error("a condition is neither true nor false")]
    NoCondition,
    #[error("a macro is applied to what is no list")]
    NoList,
    #[error("a value is no text")]
    NoText,
    #[error("a value can't be a header's")]
    NoField,
    #[error("more than {MAX_STEPS} steps")]
    Steps,
    #[error("more than {MAX_BYTES} bytes")]
    Bytes,
}

/// A value that the host tells, as an expression names it.
fn written(name: &str) -> Cow<'_, str> {
    match name.strip_prefix(environment::HEADER) {
        Some(header) => Cow::Owned(format!("request.headers['{header}']")),
        None => Cow::Borrowed(name),
    }
}

impl EvalError {
    /// True where nothing more may be evaluated for the request.
    fn is_final(&self) -> bool {
        match self {
            Self::Steps | Self::Bytes => true,
            Self::Absent(_)
            | Self::Unreadable(_)
            | Self::NoElement(_)
            | Self::NoKey
            | Self::BadKey
            | Self::Overflow
            | Self::DivisionByZero
            | Self::OutOfRange(_)
            | Self::NoOverload(_)
            | Self::NoCondition
            | Self::NoList
            | Self::NoText
            | Self::NoField => false,
        }
    }
}

/// The value of one expression, which was measured.
///
/// # Errors
/// It has none.
pub fn evaluate(expr: &Expr, told: &dyn Told) -> Result<Value, EvalError> {
    Evaluation::new(told).evaluate(expr)
}

/// What expressions for one request have in common: the values that were told, and what is left of the bounds.
pub(super) struct Evaluation<'a, 't> {
    told: &'t dyn Told,
    known: BTreeMap<&'a str, Option<Value>>,
    /// Of the macros that are under way, the outermost first.
    elements: Vec<Value>,
    steps: u32,
    bytes: usize,
}

impl<'a, 't> Evaluation<'a, 't> {
    pub(super) fn new(told: &'t dyn Told) -> Self {
        Self { told, known: BTreeMap::new(), elements: Vec::new(), steps: MAX_STEPS, bytes: MAX_BYTES }
    }

    pub(super) fn evaluate(&mut self, expr: &'a Expr) -> Result<Value, EvalError> {
        self.step(0)?;
        match expr {
            Expr::Null(()) => Ok(Value::Null),
            Expr::Bool(value) => Ok(Value::Bool(*value)),
            Expr::Int(number) => Ok(Value::Int(*number)),
            Expr::Uint(number) => Ok(Value::Uint(*number)),
            Expr::Double(number) => Ok(Value::Double(*number)),
            Expr::Text(text) => Ok(Value::Text(text.clone())),
            Expr::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
            Expr::List(items) => {
                let items = items.iter().map(|item| self.evaluate(item)).collect::<Result<Vec<_>, _>>()?;
                self.made(Value::list(items))
            }
            Expr::Map(entries) => {
                let mut found = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    found.push((self.evaluate(key)?, self.evaluate(value)?));
                }
                self.step(found.len() * found.len())?;
                Value::map(found).ok_or(EvalError::BadKey).and_then(|map| self.made(map))
            }
            Expr::Told(name) => self.told(name)?.ok_or_else(|| EvalError::Absent(name.clone())),
            Expr::Has(name) => Ok(Value::Bool(self.told.value(name).is_some())),
            Expr::Element(at) => self.elements.get(*at).cloned().ok_or(EvalError::NoKey),
            Expr::And(parts) => self.decided(parts, false),
            Expr::Or(parts) => self.decided(parts, true),
            Expr::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                if self.holds(condition)? { self.evaluate(then) } else { self.evaluate(otherwise) }
            }
            Expr::Call(function, operands) => self.call(*function, operands),
            Expr::Each(each, parts) => self.each(*each, parts),
        }
    }

    /// A condition.
    pub(super) fn holds(&mut self, expr: &'a Expr) -> Result<bool, EvalError> {
        condition(&self.evaluate(expr)?)
    }

    /// Takes a step, and one for each 64 bytes that it looks at.
    fn step(&mut self, weight: usize) -> Result<(), EvalError> {
        let cost = u32::try_from(weight / 64).unwrap_or(u32::MAX).saturating_add(1);
        // What is spent stays spent: no later expression gets by with less.
        let left = self.steps.checked_sub(cost);
        self.steps = left.unwrap_or_default();
        left.map(drop).ok_or(EvalError::Steps)
    }

    /// Charges for a value that was made.
    fn made(&mut self, value: Value) -> Result<Value, EvalError> {
        let left = self.bytes.checked_sub(value.weight());
        self.bytes = left.unwrap_or_default();
        left.map(|_| value).ok_or(EvalError::Bytes)
    }

    fn told(&mut self, name: &'a str) -> Result<Option<Value>, EvalError> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let unreadable = || EvalError::Unreadable(name.to_owned());
        let (scalar, absent) = environment::told(name).ok_or_else(unreadable)?;
        let value = match self.told.value(name) {
            None => absent.map(Value::text),
            Some(bytes) => Some(read(scalar, &bytes).ok_or_else(unreadable)?),
        };
        let value = value.map(|value| self.made(value)).transpose()?;
        self.known.insert(name, value.clone());
        Ok(value)
    }

    /// `decisive` where a part is that, else the other where all are; an error where one stands in the way.
    fn decided(&mut self, parts: &'a [Expr], decisive: bool) -> Result<Value, EvalError> {
        let mut failed = None;
        for part in parts {
            match self.holds(part) {
                Ok(value) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(_) => {}
                Err(error) if error.is_final() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn call(&mut self, function: Function, operands: &'a [Expr]) -> Result<Value, EvalError> {
        let operands = operands.iter().map(|operand| self.evaluate(operand)).collect::<Result<Vec<_>, _>>()?;
        self.step(operands.iter().fold(0, |sum, operand| operand.weight().saturating_add(sum)))?;
        let value = operate::apply(function, &operands)?;
        match function {
            Function::Add | Function::LowerAscii | Function::UpperAscii | Function::Text => self.made(value),
            Function::Not
            | Function::Negate
            | Function::Subtract
            | Function::Multiply
            | Function::Divide
            | Function::Remainder
            | Function::Equal
            | Function::Unequal
            | Function::Less
            | Function::LessOrEqual
            | Function::Greater
            | Function::GreaterOrEqual
            | Function::In
            | Function::Index
            | Function::Size
            | Function::StartsWith
            | Function::EndsWith
            | Function::Contains
            | Function::Int
            | Function::Uint
            | Function::Double => Ok(value),
        }
    }

    /// With one of the elements at hand.
    fn with<T>(
        &mut self,
        element: &Value,
        evaluate: impl FnOnce(&mut Self) -> Result<T, EvalError>,
    ) -> Result<T, EvalError> {
        self.elements.push(element.clone());
        let found = evaluate(self);
        self.elements.pop();
        found
    }

    fn each(&mut self, each: Each, parts: &'a [Expr; 3]) -> Result<Value, EvalError> {
        let [list, condition, transform] = parts;
        let list = self.evaluate(list)?;
        self.step(list.weight())?;
        let items: Vec<Value> = match list {
            Value::List(list) => list.items.clone(),
            Value::Map(map) => map.entries.iter().map(|(key, _)| key.clone()).collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::Text(_)
            | Value::Bytes(_) => return Err(EvalError::NoList),
        };
        let (mut kept, mut failed) = (Vec::new(), None);
        for item in &items {
            let held = self.with(item, |inner| inner.holds(condition));
            match (each, held) {
                (Each::All, Ok(false)) => return Ok(Value::Bool(false)),
                (Each::Exists, Ok(true)) => return Ok(Value::Bool(true)),
                (Each::All | Each::Exists, Ok(_)) | (_, Ok(false)) => {}
                (Each::All | Each::Exists, Err(error)) if !error.is_final() => failed = failed.or(Some(error)),
                (_, Err(error)) => return Err(error),
                (Each::ExistsOne | Each::Filter, Ok(true)) => kept.push(item.clone()),
                (Each::Map, Ok(true)) => kept.push(self.with(item, |inner| inner.evaluate(transform))?),
            }
        }
        match each {
            Each::All | Each::Exists => failed.map_or(Ok(Value::Bool(each == Each::All)), Err),
            Each::ExistsOne => Ok(Value::Bool(kept.len() == 1)),
            Each::Filter | Each::Map => self.made(Value::list(kept)),
        }
    }
}

fn condition(value: &Value) -> Result<bool, EvalError> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::Null
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Text(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_) => Err(EvalError::NoCondition),
    }
}

/// A value that was told, as its type has it.
fn read(scalar: Scalar, bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).ok()?;
    match scalar {
        Scalar::Text => Some(Value::text(text)),
        Scalar::Bool => text.parse().ok().map(Value::Bool),
        Scalar::Int => text.parse().ok().map(Value::Int),
        Scalar::Uint => text.parse().ok().map(Value::Uint),
    }
}
