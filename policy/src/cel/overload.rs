//! The types of the language, and which a function gives for which. `dyn` is what is not known before it is evaluated.

use std::fmt;

use super::expression::Function;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    List(Box<Type>),
    Map(Box<Type>, Box<Type>),
}

impl Type {
    /// True where a value of this type may be one of the other.
    pub(super) fn may_be(&self, other: &Type) -> bool {
        self.unified(other).is_some()
    }

    /// The type that values of both have; `None` where there is none.
    pub(super) fn unified(&self, other: &Type) -> Option<Type> {
        match (self, other) {
            (Self::Dyn, known) | (known, Self::Dyn) => Some(known.clone()),
            (Self::List(a), Self::List(b)) => Some(Self::List(Box::new(a.unified(b)?))),
            (Self::Map(key, value), Self::Map(other_key, other_value)) => {
                Some(Self::Map(Box::new(key.unified(other_key)?), Box::new(value.unified(other_value)?)))
            }
            (a, b) => (a == b).then(|| a.clone()),
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double | Self::Dyn)
    }
}

/// What a function gives for operands of these types; `None` where it takes no such.
pub(super) fn result(function: Function, operands: &[Type]) -> Option<Type> {
    match operands {
        [operand] => unary(function, operand),
        [left, right] => binary(function, left, right),
        _ => None,
    }
}

fn unary(function: Function, operand: &Type) -> Option<Type> {
    match (function, operand) {
        (Function::Not, Type::Bool | Type::Dyn) => Some(Type::Bool),
        (Function::Negate, Type::Int | Type::Double | Type::Dyn) => Some(operand.clone()),
        (Function::Size, Type::Text | Type::Bytes | Type::List(_) | Type::Map(..) | Type::Dyn) => Some(Type::Int),
        (Function::LowerAscii | Function::UpperAscii, Type::Text | Type::Dyn) => Some(Type::Text),
        (Function::Int, Type::Int | Type::Uint | Type::Double | Type::Text | Type::Dyn) => Some(Type::Int),
        (Function::Uint, Type::Int | Type::Uint | Type::Double | Type::Text | Type::Dyn) => Some(Type::Uint),
        (Function::Double, Type::Int | Type::Uint | Type::Double | Type::Dyn) => Some(Type::Double),
        (Function::Text, Type::Text | Type::Bool | Type::Int | Type::Uint | Type::Bytes | Type::Dyn) => {
            Some(Type::Text)
        }
        _ => None,
    }
}

fn binary(function: Function, left: &Type, right: &Type) -> Option<Type> {
    match function {
        Function::Add => {
            let both = left.unified(right)?;
            let adds = both.is_number() || matches!(both, Type::Text | Type::Bytes | Type::List(_));
            adds.then_some(both)
        }
        Function::Subtract | Function::Multiply | Function::Divide => left.unified(right).filter(Type::is_number),
        Function::Remainder => left.unified(right).filter(|both| both.is_number() && *both != Type::Double),
        Function::Equal | Function::Unequal => left.may_be(right).then_some(Type::Bool),
        Function::Less | Function::LessOrEqual | Function::Greater | Function::GreaterOrEqual => {
            let ordered = |both: Type| matches!(both, Type::Bool | Type::Text | Type::Bytes | Type::Dyn);
            let compare = (left.is_number() && right.is_number()) || left.unified(right).is_some_and(ordered);
            compare.then_some(Type::Bool)
        }
        Function::In => match right {
            Type::List(item) => left.may_be(item).then_some(Type::Bool),
            Type::Map(key, _) => left.may_be(key).then_some(Type::Bool),
            Type::Dyn => Some(Type::Bool),
            Type::Null | Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Text | Type::Bytes => None,
        },
        Function::Index => match left {
            Type::List(item) => right.may_be(&Type::Int).then(|| (**item).clone()),
            Type::Map(key, value) => right.may_be(key).then(|| (**value).clone()),
            Type::Dyn => Some(Type::Dyn),
            Type::Null | Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Text | Type::Bytes => None,
        },
        Function::StartsWith | Function::EndsWith | Function::Contains => {
            (left.may_be(&Type::Text) && right.may_be(&Type::Text)).then_some(Type::Bool)
        }
        Function::Not
        | Function::Negate
        | Function::Size
        | Function::LowerAscii
        | Function::UpperAscii
        | Function::Int
        | Function::Uint
        | Function::Double
        | Function::Text => None,
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::Text => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::List(item) => write!(f, "list({item})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
        }
    }
}
