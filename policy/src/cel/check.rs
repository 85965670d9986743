//! The checker: an expression's text becomes what is evaluated, with every name known, every type fit and a cost within
//! bounds, or a list of all that is wrong with it.

mod call;
mod name;

use std::fmt;

use super::environment::{ATTRIBUTE, HEADER};
use super::expression::{Expr, Function};
use super::lex::Spot;
use super::overload::{self, Type};
use super::parse::{Node, Tree, parse};
use super::{MAX_COST, MAX_DEPTH, MAX_TEXT};

/// A wrong place of an expression's text, both counted from 1, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    /// In characters.
    pub column: usize,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// What an expression is for, which says of what type it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `bool`
    Condition,
    /// `string`
    Text,
    /// Whatever it is.
    Any,
}

/// Reads an expression.
///
/// # Errors
/// Everything that is wrong with it; where it can't be parsed, the first place.
pub fn compile(text: &str, purpose: Purpose) -> Result<Expr, Vec<Fault>> {
    let placed = |spot: Spot| {
        let before = text.get(..spot.at).unwrap_or(text);
        let line_from = before.rfind('\n').map_or(0, |end| end + 1);
        let (line, column) = (before.matches('\n').count() + 1, before[line_from..].chars().count() + 1);
        Fault { line, column, message: spot.message }
    };
    if text.len() > MAX_TEXT {
        return Err(vec![placed(Spot::new(0, format!("{} bytes, at most {MAX_TEXT}", text.len())))]);
    }
    let tree = parse(text).map_err(|spot| vec![placed(spot)])?;
    let mut checker = Checker { scope: Vec::new(), faults: Vec::new() };
    let checked = checker.node(&tree, 1);
    let wanted = match purpose {
        Purpose::Condition => Type::Bool,
        Purpose::Text => Type::Text,
        Purpose::Any => Type::Dyn,
    };
    let mut faults = checker.faults;
    if faults.is_empty() {
        if !checked.of.may_be(&wanted) {
            faults.push(Spot::new(tree.at, format!("{wanted} is expected, not {}", checked.of)));
        }
        if checked.cost > MAX_COST {
            faults.push(Spot::new(tree.at, format!("it costs up to {} steps, at most {MAX_COST}", checked.cost)));
        }
        faults.extend(checked.expr.measure().err().map(|why| Spot::new(tree.at, why)));
    }
    if faults.is_empty() {
        return Ok(checked.expr);
    }
    faults.sort_by_key(|spot| spot.at);
    Err(faults.into_iter().map(placed).collect())
}

struct Checker {
    /// The elements of the macros around, the outermost first.
    scope: Vec<Element>,
    faults: Vec<Spot>,
}

struct Element {
    name: String,
    of: Type,
    sizes: Vec<u64>,
}

/// An expression that was checked.
struct Checked {
    expr: Expr,
    of: Type,
    /// Parts that are evaluated, at the most.
    cost: u64,
    /// The most elements that a list or map has, then those of its elements, and so on.
    sizes: Vec<u64>,
}

impl Checked {
    fn plain(expr: Expr, of: Type) -> Self {
        Self { expr, of, cost: 1, sizes: Vec::new() }
    }

    fn size(&self) -> u64 {
        self.sizes.first().copied().unwrap_or_default()
    }
}

/// The larger of the sizes at each level.
fn larger(a: &[u64], b: &[u64]) -> Vec<u64> {
    let at = |sizes: &[u64], level: usize| sizes.get(level).copied().unwrap_or_default();
    (0..a.len().max(b.len())).map(|level| at(a, level).max(at(b, level))).collect()
}

impl Checker {
    /// Notes a fault. What stands in for the expression fits everywhere, so that one fault is told once.
    fn wrong(&mut self, at: usize, message: impl Into<String>) -> Checked {
        self.faults.push(Spot::new(at, message));
        Checked::plain(Expr::Null(()), Type::Dyn)
    }

    fn node(&mut self, node: &Node, depth: usize) -> Checked {
        if depth > MAX_DEPTH {
            return self.wrong(node.at, format!("nested deeper than {MAX_DEPTH}"));
        }
        if let Tree::Operator(Function::In, operands) = &node.kind
            && let Some(is_told) = self.is_told(node.at, operands)
        {
            return is_told;
        }
        if let Some(told) = self.told(node) {
            return told;
        }
        match &node.kind {
            Tree::Null => Checked::plain(Expr::Null(()), Type::Null),
            Tree::Bool(value) => Checked::plain(Expr::Bool(*value), Type::Bool),
            Tree::Int(number) => Checked::plain(Expr::Int(*number), Type::Int),
            Tree::Uint(number) => Checked::plain(Expr::Uint(*number), Type::Uint),
            Tree::Double(number) => Checked::plain(Expr::Double(*number), Type::Double),
            Tree::Text(text) => Checked::plain(Expr::Text(text.as_str().into()), Type::Text),
            Tree::Bytes(bytes) => Checked::plain(Expr::Bytes(bytes.as_slice().into()), Type::Bytes),
            Tree::Name(name) => self.element(node.at, name),
            Tree::Field(of, name) => self.field(node.at, of, name, depth),
            Tree::Call { on, name, arguments } => self.call(node.at, on.as_deref(), name, arguments, depth),
            Tree::List(items) => self.list(items, depth),
            Tree::Map(entries) => self.map(entries, depth),
            Tree::Operator(function, operands) => {
                let operands: Vec<_> = operands.iter().map(|operand| self.node(operand, depth + 1)).collect();
                self.apply(node.at, *function, operands)
            }
            Tree::And(parts) => self.junction(parts, Expr::And, depth),
            Tree::Or(parts) => self.junction(parts, Expr::Or, depth),
            Tree::If(parts) => self.choice(node.at, parts, depth),
        }
    }

    /// A function on operands that were checked.
    fn apply(&mut self, at: usize, function: Function, operands: Vec<Checked>) -> Checked {
        let types: Vec<Type> = operands.iter().map(|operand| operand.of.clone()).collect();
        let Some(of) = overload::result(function, &types) else {
            let types: Vec<String> = types.iter().map(Type::to_string).collect();
            return self.wrong(at, format!("{} has no meaning for {}", function.as_str(), types.join(" and ")));
        };
        let cost = operands.iter().fold(1_u64, |sum, operand| sum.saturating_add(operand.cost));
        let sizes = match (function, operands.as_slice()) {
            (Function::Index, [container, _]) => container.sizes.iter().skip(1).copied().collect(),
            (Function::Add, [a, b]) => {
                let mut sizes = larger(&a.sizes, &b.sizes);
                sizes.iter_mut().take(1).for_each(|size| *size = a.size().saturating_add(b.size()));
                sizes
            }
            _ => Vec::new(),
        };
        let operands = operands.into_iter().map(|operand| operand.expr).collect();
        Checked { expr: Expr::Call(function, operands), of, cost, sizes }
    }

    fn list(&mut self, items: &[Node], depth: usize) -> Checked {
        let (mut of, mut cost, mut inner) = (None::<Type>, 1_u64, Vec::new());
        let mut found = Vec::with_capacity(items.len());
        for item in items {
            let item = self.node(item, depth + 1);
            // Elements of several types make a list of whatever.
            of = Some(of.map_or_else(|| item.of.clone(), |of| of.unified(&item.of).unwrap_or(Type::Dyn)));
            cost = cost.saturating_add(item.cost);
            inner = larger(&inner, &item.sizes);
            found.push(item.expr);
        }
        let mut sizes = vec![items.len() as u64];
        sizes.extend(inner);
        Checked { expr: Expr::List(found), of: Type::List(Box::new(of.unwrap_or(Type::Dyn))), cost, sizes }
    }

    fn map(&mut self, entries: &[(Node, Node)], depth: usize) -> Checked {
        let (mut key_of, mut value_of) = (None::<Type>, None::<Type>);
        let (mut cost, mut inner) = (1_u64, Vec::new());
        let mut found = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let at = key.at;
            let (key, value) = (self.node(key, depth + 1), self.node(value, depth + 1));
            if !matches!(key.of, Type::Bool | Type::Int | Type::Uint | Type::Text | Type::Dyn) {
                self.wrong(at, format!("{} can't be the key of a map", key.of));
            }
            key_of = Some(key_of.map_or_else(|| key.of.clone(), |of| of.unified(&key.of).unwrap_or(Type::Dyn)));
            value_of = Some(value_of.map_or_else(|| value.of.clone(), |of| of.unified(&value.of).unwrap_or(Type::Dyn)));
            cost = cost.saturating_add(key.cost).saturating_add(value.cost);
            inner = larger(&inner, &value.sizes);
            found.push((key.expr, value.expr));
        }
        let mut sizes = vec![entries.len() as u64];
        sizes.extend(inner);
        let of = Type::Map(Box::new(key_of.unwrap_or(Type::Dyn)), Box::new(value_of.unwrap_or(Type::Dyn)));
        Checked { expr: Expr::Map(found), of, cost, sizes }
    }

    /// A condition: what is none is a fault.
    fn condition(&mut self, node: &Node, depth: usize) -> Checked {
        let checked = self.node(node, depth);
        match checked.of.may_be(&Type::Bool) {
            true => checked,
            false => self.wrong(node.at, format!("bool is expected, not {}", checked.of)),
        }
    }

    fn junction(&mut self, parts: &[Node], make: fn(Vec<Expr>) -> Expr, depth: usize) -> Checked {
        let parts: Vec<_> = parts.iter().map(|part| self.condition(part, depth + 1)).collect();
        let cost = parts.iter().fold(1_u64, |sum, part| sum.saturating_add(part.cost));
        let parts = parts.into_iter().map(|part| part.expr).collect();
        Checked { expr: make(parts), of: Type::Bool, cost, sizes: Vec::new() }
    }

    fn choice(&mut self, at: usize, parts: &[Node; 3], depth: usize) -> Checked {
        let [condition, then, otherwise] = parts;
        let condition = self.condition(condition, depth + 1);
        let (then, otherwise) = (self.node(then, depth + 1), self.node(otherwise, depth + 1));
        let Some(of) = then.of.unified(&otherwise.of) else {
            return self.wrong(at, format!("one of {} or {}: both have to be of one type", then.of, otherwise.of));
        };
        let cost = condition.cost.saturating_add(then.cost.max(otherwise.cost)).saturating_add(1);
        let sizes = larger(&then.sizes, &otherwise.sizes);
        Checked { expr: Expr::If(Box::new([condition.expr, then.expr, otherwise.expr])), of, cost, sizes }
    }
}

/// The families of values that are told by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Headers,
    Attributes,
}

impl Family {
    /// As it is written.
    fn as_str(self) -> &'static str {
        match self {
            Self::Headers => "request.headers",
            Self::Attributes => "filter",
        }
    }

    /// What the host's names of it begin with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Headers => HEADER,
            Self::Attributes => ATTRIBUTE,
        }
    }
}
