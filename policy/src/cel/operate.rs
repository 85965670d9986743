//! Operators and functions on values. Types are looked at here and not believed to have been checked.

use std::cmp::Ordering;
use std::sync::Arc;

use super::evaluate::EvalError;
use super::expression::Function;
use super::value::Value;

/// What a function gives for its operands.
///
/// # Errors
/// It has no meaning for values of these types, or none for these values.
pub(super) fn apply(function: Function, operands: &[Value]) -> Result<Value, EvalError> {
    let none = || EvalError::NoOverload(function);
    match operands {
        [operand] => unary(function, operand),
        [left, right] => match function {
            Function::Add | Function::Subtract | Function::Multiply | Function::Divide | Function::Remainder => {
                arithmetic(function, left, right)
            }
            Function::Equal => Ok(Value::Bool(left.equals(right))),
            Function::Unequal => Ok(Value::Bool(!left.equals(right))),
            Function::Less | Function::LessOrEqual | Function::Greater | Function::GreaterOrEqual => {
                let order = left.order(right).ok_or_else(none)?;
                Ok(Value::Bool(order.is_some_and(|order| holds(function, order))))
            }
            Function::In => is_in(left, right).ok_or_else(none),
            Function::Index => index(left, right),
            Function::StartsWith | Function::EndsWith | Function::Contains => {
                let (Value::Text(text), Value::Text(part)) = (left, right) else { return Err(none()) };
                Ok(Value::Bool(found(function, text, part)))
            }
            Function::Not
            | Function::Negate
            | Function::Size
            | Function::LowerAscii
            | Function::UpperAscii
            | Function::Int
            | Function::Uint
            | Function::Double
            | Function::Text => Err(none()),
        },
        _ => Err(none()),
    }
}

fn found(function: Function, text: &str, part: &str) -> bool {
    (function == Function::StartsWith && text.starts_with(part))
        || (function == Function::EndsWith && text.ends_with(part))
        || (function == Function::Contains && text.contains(part))
}

fn holds(function: Function, order: Ordering) -> bool {
    match order {
        Ordering::Less => matches!(function, Function::Less | Function::LessOrEqual),
        Ordering::Equal => matches!(function, Function::LessOrEqual | Function::GreaterOrEqual),
        Ordering::Greater => matches!(function, Function::Greater | Function::GreaterOrEqual),
    }
}

fn unary(function: Function, operand: &Value) -> Result<Value, EvalError> {
    let none = || EvalError::NoOverload(function);
    match (function, operand) {
        (Function::Not, Value::Bool(value)) => Ok(Value::Bool(!value)),
        (Function::Negate, Value::Int(number)) => number.checked_neg().map(Value::Int).ok_or(EvalError::Overflow),
        (Function::Negate, Value::Double(number)) => Ok(Value::Double(-number)),
        (Function::Size, sized) => size(sized).map(Value::Int).ok_or_else(none),
        (Function::LowerAscii, Value::Text(text)) => Ok(Value::text(&text.to_ascii_lowercase())),
        (Function::UpperAscii, Value::Text(text)) => Ok(Value::text(&text.to_ascii_uppercase())),
        (Function::Int, from) => to_int(from),
        (Function::Uint, from) => to_uint(from),
        (Function::Double, Value::Int(number)) => Ok(Value::Double(*number as f64)),
        (Function::Double, Value::Uint(number)) => Ok(Value::Double(*number as f64)),
        (Function::Double, Value::Double(number)) => Ok(Value::Double(*number)),
        (Function::Text, from) => to_text(from),
        _ => Err(none()),
    }
}

/// Characters of text, bytes, elements or entries.
fn size(sized: &Value) -> Option<i64> {
    let size = match sized {
        Value::Text(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) => return None,
    };
    i64::try_from(size).ok()
}

fn arithmetic(function: Function, left: &Value, right: &Value) -> Result<Value, EvalError> {
    let none = EvalError::NoOverload(function);
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => {
            let result = match (function, *b) {
                (Function::Add, b) => a.checked_add(b),
                (Function::Subtract, b) => a.checked_sub(b),
                (Function::Multiply, b) => a.checked_mul(b),
                (Function::Divide | Function::Remainder, 0) => return Err(EvalError::DivisionByZero),
                (Function::Divide, b) => a.checked_div(b),
                (Function::Remainder, b) => a.checked_rem(b),
                _ => return Err(none),
            };
            result.map(Value::Int).ok_or(EvalError::Overflow)
        }
        (Value::Uint(a), Value::Uint(b)) => {
            let result = match (function, *b) {
                (Function::Add, b) => a.checked_add(b),
                (Function::Subtract, b) => a.checked_sub(b),
                (Function::Multiply, b) => a.checked_mul(b),
                (Function::Divide | Function::Remainder, 0) => return Err(EvalError::DivisionByZero),
                (Function::Divide, b) => a.checked_div(b),
                (Function::Remainder, b) => a.checked_rem(b),
                _ => return Err(none),
            };
            result.map(Value::Uint).ok_or(EvalError::Overflow)
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match (function, *b) {
            (Function::Add, b) => a + b,
            (Function::Subtract, b) => a - b,
            (Function::Multiply, b) => a * b,
            (Function::Divide, b) => a / b,
            _ => return Err(none),
        })),
        _ if function == Function::Add => joined(left, right).ok_or(none),
        _ => Err(none),
    }
}

/// Text, bytes or lists, one behind the other.
fn joined(left: &Value, right: &Value) -> Option<Value> {
    match (left, right) {
        (Value::Text(a), Value::Text(b)) => Some(Value::text(&[&**a, &**b].concat())),
        (Value::Bytes(a), Value::Bytes(b)) => Some(Value::Bytes(Arc::from([&**a, &**b].concat()))),
        (Value::List(a), Value::List(b)) => Some(Value::list(a.items.iter().chain(&b.items).cloned().collect())),
        _ => None,
    }
}

fn is_in(value: &Value, within: &Value) -> Option<Value> {
    match within {
        Value::List(list) => Some(Value::Bool(list.items.iter().any(|item| item.equals(value)))),
        Value::Map(map) => Some(Value::Bool(map.get(value).is_some())),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Text(_)
        | Value::Bytes(_) => None,
    }
}

fn index(of: &Value, at: &Value) -> Result<Value, EvalError> {
    match (of, at) {
        (Value::List(list), Value::Int(at)) => {
            let item = usize::try_from(*at).ok().and_then(|at| list.items.get(at));
            item.cloned().ok_or(EvalError::NoElement(*at))
        }
        (Value::Map(map), key) => map.get(key).cloned().ok_or(EvalError::NoKey),
        _ => Err(EvalError::NoOverload(Function::Index)),
    }
}

fn to_int(from: &Value) -> Result<Value, EvalError> {
    let whole = match from {
        Value::Int(number) => Some(*number),
        Value::Uint(number) => i64::try_from(*number).ok(),
        Value::Double(number) => whole(*number).and_then(|number| i64::try_from(number).ok()),
        Value::Text(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            return Err(EvalError::NoOverload(Function::Int));
        }
    };
    whole.map(Value::Int).ok_or(EvalError::OutOfRange(Function::Int))
}

fn to_uint(from: &Value) -> Result<Value, EvalError> {
    let whole = match from {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::Uint(number) => Some(*number),
        Value::Double(number) => whole(*number).and_then(|number| u64::try_from(number).ok()),
        Value::Text(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => {
            return Err(EvalError::NoOverload(Function::Uint));
        }
    };
    whole.map(Value::Uint).ok_or(EvalError::OutOfRange(Function::Uint))
}

/// A number without its fraction, if it has less than 100 bits.
fn whole(number: f64) -> Option<i128> {
    /// 2^100
    const MOST: f64 = 1_267_650_600_228_229_401_496_703_205_376.0;
    #[expect(clippy::cast_possible_truncation, reason = "the fraction is to go, and what is too large is not taken")]
    let whole = number as i128;
    (number.abs() < MOST).then_some(whole)
}

fn to_text(from: &Value) -> Result<Value, EvalError> {
    match from {
        Value::Text(_) => Ok(from.clone()),
        Value::Bool(value) => Ok(Value::text(&value.to_string())),
        Value::Int(number) => Ok(Value::text(&number.to_string())),
        Value::Uint(number) => Ok(Value::text(&number.to_string())),
        Value::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| EvalError::OutOfRange(Function::Text))?;
            Ok(Value::text(text))
        }
        Value::Null | Value::Double(_) | Value::List(_) | Value::Map(_) => Err(EvalError::NoOverload(Function::Text)),
    }
}
