//! Values of expressions: how they compare, and what they weigh. Lists share their elements, so each knows its whole
//! weight: what walks through one is charged for all of it.

use std::cmp::Ordering;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<List>),
    Map(Arc<Map>),
}

#[derive(Debug)]
pub struct List {
    pub(super) items: Vec<Value>,
    weight: usize,
}

/// Keys are text, whole numbers or truth values, each once.
#[derive(Debug)]
pub struct Map {
    pub(super) entries: Vec<(Value, Value)>,
    weight: usize,
}

/// Bytes that a value takes beside its content.
const OWN: usize = 16;

impl Value {
    pub(super) fn list(items: Vec<Value>) -> Self {
        let weight = items.iter().fold(OWN, |sum, item| sum.saturating_add(item.weight()));
        Self::List(Arc::new(List { items, weight }))
    }

    /// `None`: a key can't be one, or is there twice.
    pub(super) fn map(entries: Vec<(Value, Value)>) -> Option<Self> {
        let mut weight = OWN;
        for (index, (key, value)) in entries.iter().enumerate() {
            let is_key = matches!(key, Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Text(_));
            if !is_key || entries[..index].iter().any(|(other, _)| other.equals(key)) {
                return None;
            }
            weight = weight.saturating_add(key.weight()).saturating_add(value.weight());
        }
        Some(Self::Map(Arc::new(Map { entries, weight })))
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// Bytes, with those of all that is in it.
    #[must_use]
    pub fn weight(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Double(_) => OWN,
            Self::Text(text) => OWN.saturating_add(text.len()),
            Self::Bytes(bytes) => OWN.saturating_add(bytes.len()),
            Self::List(list) => list.weight,
            Self::Map(map) => map.weight,
        }
    }

    /// Numbers are equal by what they count, whatever their types; values of different kinds are not equal.
    #[must_use]
    pub fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::List(a), Self::List(b)) => {
                a.items.len() == b.items.len() && a.items.iter().zip(&b.items).all(|(a, b)| a.equals(b))
            }
            (Self::Map(a), Self::Map(b)) => {
                let same = |(key, value): &(Value, Value)| b.get(key).is_some_and(|other| other.equals(value));
                a.entries.len() == b.entries.len() && a.entries.iter().all(same)
            }
            _ => matches!(self.order(other), Some(Some(Ordering::Equal))),
        }
    }

    /// `None`: there is no order between such values. `Some(None)`: there is, and one of the two is not a number.
    pub(super) fn order(&self, other: &Value) -> Option<Option<Ordering>> {
        Some(match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (a, Self::Double(b)) => against(a.whole()?, *b),
            (Self::Double(a), b) => against(b.whole()?, *a).map(Ordering::reverse),
            (a, b) => Some(a.whole()?.cmp(&b.whole()?)),
        })
    }

    fn whole(&self) -> Option<i128> {
        match self {
            Self::Int(number) => Some(i128::from(*number)),
            Self::Uint(number) => Some(i128::from(*number)),
            Self::Null
            | Self::Bool(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Bytes(_)
            | Self::List(_)
            | Self::Map(_) => None,
        }
    }
}

/// A whole number against one that may have a fraction, exactly. The first has at most 65 bits.
fn against(whole: i128, number: f64) -> Option<Ordering> {
    /// 2^65
    const BEYOND: f64 = 36_893_488_147_419_103_232.0;
    if number.is_nan() {
        return None;
    }
    if number >= BEYOND {
        return Some(Ordering::Less);
    }
    if number <= -BEYOND {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 2^65 by the checks above")]
    let floor = number.floor() as i128;
    Some(match whole.cmp(&floor) {
        Ordering::Equal if number.fract() != 0.0 => Ordering::Less,
        Ordering::Equal => Ordering::Equal,
        Ordering::Less => Ordering::Less,
        Ordering::Greater => Ordering::Greater,
    })
}

impl Map {
    pub(super) fn get(&self, key: &Value) -> Option<&Value> {
        self.entries.iter().find(|(known, _)| known.equals(key)).map(|(_, value)| value)
    }
}
