//! Calls: functions, macros, and what is told of a value rather than read: `has` and `in`.

use super::super::expression::{Each, Expr, Function};
use super::super::overload::Type;
use super::super::parse::{Node, Tree};
use super::name::{Named, keyed, literal, not_literal};
use super::{Checked, Checker, Element};
use crate::text::did_you_mean;

/// Functions behind a dot, with how many arguments each has.
const METHODS: [(&str, Function, usize); 6] = [
    ("startsWith", Function::StartsWith, 1),
    ("endsWith", Function::EndsWith, 1),
    ("contains", Function::Contains, 1),
    ("lowerAscii", Function::LowerAscii, 0),
    ("upperAscii", Function::UpperAscii, 0),
    ("size", Function::Size, 0),
];

/// Functions of one argument that stand alone.
const FUNCTIONS: [(&str, Function); 5] = [
    ("size", Function::Size),
    ("int", Function::Int),
    ("uint", Function::Uint),
    ("double", Function::Double),
    ("string", Function::Text),
];

const MACROS: [(&str, Each); 6] = [
    ("all", Each::All),
    ("exists", Each::Exists),
    ("exists_one", Each::ExistsOne),
    ("existsOne", Each::ExistsOne),
    ("filter", Each::Filter),
    ("map", Each::Map),
];

impl Checker {
    pub(super) fn call(
        &mut self,
        at: usize,
        on: Option<&Node>,
        name: &str,
        arguments: &[Node],
        depth: usize,
    ) -> Checked {
        match on {
            None => self.function(at, name, arguments, depth),
            Some(on) => match MACROS.iter().find(|(known, _)| *known == name) {
                Some((_, each)) => self.each(at, *each, on, arguments, depth),
                None => self.method(at, on, name, arguments, depth),
            },
        }
    }

    fn function(&mut self, at: usize, name: &str, arguments: &[Node], depth: usize) -> Checked {
        if name == "has" {
            return match arguments {
                [argument] => self.has(argument, depth),
                _ => self.wrong(at, "has() takes one field"),
            };
        }
        let Some((_, function)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let meant = did_you_mean(name, FUNCTIONS.iter().map(|(known, _)| *known).chain(["has"]));
            let how = if METHODS.iter().any(|(known, ..)| *known == name) { ": it stands behind a dot" } else { "" };
            return self.wrong(at, format!("there is no function {name}(){how}{meant}"));
        };
        if arguments.len() != 1 {
            return self.wrong(at, format!("{name}() takes 1 argument, not {}", arguments.len()));
        }
        let arguments = arguments.iter().map(|argument| self.node(argument, depth + 1)).collect();
        self.apply(at, *function, arguments)
    }

    fn method(&mut self, at: usize, on: &Node, name: &str, arguments: &[Node], depth: usize) -> Checked {
        if name == "matches" {
            return self.wrong(at, "there are no regular expressions here: startsWith, endsWith and contains do");
        }
        let Some((_, function, count)) = METHODS.iter().find(|(known, ..)| *known == name) else {
            let known = METHODS.iter().map(|(known, ..)| *known).chain(MACROS.iter().map(|(known, _)| *known));
            let meant = did_you_mean(name, known);
            return self.wrong(at, format!("there is no function .{name}(){meant}"));
        };
        if arguments.len() != *count {
            return self.wrong(at, format!(".{name}() takes {count} arguments, not {}", arguments.len()));
        }
        let operands = std::iter::once(on).chain(arguments);
        let operands = operands.map(|operand| self.node(operand, depth + 1)).collect();
        self.apply(at, *function, operands)
    }

    /// Whether a field is there.
    fn has(&mut self, argument: &Node, depth: usize) -> Checked {
        let Tree::Field(of, name) = &argument.kind else {
            return self.wrong(argument.at, "has() takes a field, has(a.b); of a key it is asked by 'key' in a");
        };
        match self.resolved(argument) {
            Some(Ok(Named { name, .. })) => Checked::plain(Expr::Has(name), Type::Bool),
            Some(Err(message)) => self.wrong(argument.at, message),
            None => {
                let of = self.node(of, depth + 1);
                if !matches!(of.of, Type::Map(..) | Type::Dyn) {
                    return self.wrong(argument.at, format!("{} has no fields", of.of));
                }
                let key = Checked::plain(Expr::Text(name.as_str().into()), Type::Text);
                self.apply(argument.at, Function::In, vec![key, of])
            }
        }
    }

    /// Whether a family has a key; `None` where it is asked of something else.
    pub(super) fn is_told(&mut self, at: usize, operands: &[Node]) -> Option<Checked> {
        let [key, of] = operands else { return None };
        let family = self.family(of)?;
        let found = match literal(key) {
            Some(key) => keyed(family, key),
            None => Err(not_literal(family)),
        };
        Some(match found {
            Ok(Named { name, .. }) => Checked::plain(Expr::Has(name), Type::Bool),
            Err(message) => self.wrong(at, message),
        })
    }

    fn each(&mut self, at: usize, each: Each, on: &Node, arguments: &[Node], depth: usize) -> Checked {
        let (element, condition, transform) = match (each, arguments) {
            (Each::Map, [element, transform]) => (element, None, Some(transform)),
            (Each::Map, [element, condition, transform]) => (element, Some(condition), Some(transform)),
            (Each::All | Each::Exists | Each::ExistsOne | Each::Filter, [element, condition]) => {
                (element, Some(condition), None)
            }
            _ => return self.wrong(at, "a macro takes the name of an element and a condition, x, x > 1"),
        };
        let Tree::Name(name) = &element.kind else {
            return self.wrong(element.at, "the name of an element is expected");
        };
        let list = self.node(on, depth + 1);
        let (of, sizes) = match &list.of {
            Type::List(item) => ((**item).clone(), list.sizes.iter().skip(1).copied().collect()),
            Type::Map(key, _) => ((**key).clone(), Vec::new()),
            Type::Dyn => (Type::Dyn, Vec::new()),
            Type::Null | Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Text | Type::Bytes => {
                return self.wrong(on.at, format!("a list is expected, not {}", list.of));
            }
        };
        self.scope.push(Element { name: name.clone(), of, sizes });
        let condition = match condition {
            Some(condition) => self.condition(condition, depth + 1),
            None => Checked::plain(Expr::Bool(true), Type::Bool),
        };
        let transform = match transform {
            Some(transform) => self.node(transform, depth + 1),
            None => Checked::plain(Expr::Null(()), Type::Null),
        };
        self.scope.pop();
        let of_each = condition.cost.saturating_add(transform.cost).saturating_add(1);
        let cost = list.size().saturating_mul(of_each).saturating_add(list.cost).saturating_add(1);
        let (of, sizes) = match each {
            Each::All | Each::Exists | Each::ExistsOne => (Type::Bool, Vec::new()),
            Each::Filter => filtered(&list),
            Each::Map => {
                let sizes = std::iter::once(list.size()).chain(transform.sizes).collect();
                (Type::List(Box::new(transform.of)), sizes)
            }
        };
        let parts = Box::new([list.expr, condition.expr, transform.expr]);
        Checked { expr: Expr::Each(each, parts), of, cost, sizes }
    }
}

/// What is left of a list is one of the same type; of a map, a list of its keys.
fn filtered(list: &Checked) -> (Type, Vec<u64>) {
    if let Type::Map(key, _) = &list.of {
        return (Type::List(key.clone()), vec![list.size()]);
    }
    (list.of.clone(), list.sizes.clone())
}
