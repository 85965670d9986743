//! Names: the values that the host tells, the elements of macros, and fields of maps.

use super::super::environment::{Scalar, VARIABLES, is_attribute, is_header};
use super::super::expression::{Expr, Function};
use super::super::overload::Type;
use super::super::parse::{Node, Tree};
use super::{Checked, Checker, Family};
use crate::text::did_you_mean;

/// What values that are told begin with.
const ROOTS: [&str; 5] = ["request", "source", "destination", "connection", "filter"];

/// A value that the host tells, by the host's name of it.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) of: Type,
}

impl Checker {
    /// The value that a name, a field or a key stands for, where it is one that the host tells.
    pub(super) fn told(&mut self, node: &Node) -> Option<Checked> {
        let found = if let Tree::Operator(Function::Index, operands) = &node.kind {
            let [of, key] = operands.as_slice() else { return None };
            let family = self.family(of)?;
            match literal(key) {
                Some(key) => keyed(family, key),
                None => Err(not_literal(family)),
            }
        } else {
            self.resolved(node)?
        };
        Some(match found {
            Ok(Named { name, of }) => Checked::plain(Expr::Told(name), of),
            Err(message) => self.wrong(node.at, message),
        })
    }

    /// The value that a name with fields stands for; an error where it begins as one that is told, and is none.
    pub(super) fn resolved(&self, node: &Node) -> Option<Result<Named, String>> {
        let path = self.path(node)?;
        if let Some(known) = VARIABLES.iter().find(|known| known.path == path) {
            let of = match known.scalar {
                Scalar::Bool => Type::Bool,
                Scalar::Int => Type::Int,
                Scalar::Uint => Type::Uint,
                Scalar::Text => Type::Text,
            };
            return Some(Ok(Named { name: known.name.to_owned(), of }));
        }
        for family in [Family::Headers, Family::Attributes] {
            match path.strip_prefix(family.as_str()) {
                Some("") => {
                    let name = family.as_str();
                    return Some(Err(format!("{name} is no value by itself: name one of it, {name}['name']")));
                }
                Some(rest) if rest.starts_with('.') => return Some(keyed(family, &rest[1..])),
                None | Some(_) => {}
            }
        }
        let root = path.split('.').next().unwrap_or_default();
        if !ROOTS.contains(&root) && root != "route" && root != "direction" {
            return None;
        }
        let meant = did_you_mean(&path, VARIABLES.iter().map(|known| known.path));
        Some(Err(match path == root {
            true => format!("{root} is no value by itself: name one of its fields"),
            false => format!("there is no {path}{meant}"),
        }))
    }

    /// A name with its fields, `request.path`, which no macro has given to an element.
    fn path(&self, node: &Node) -> Option<String> {
        if let Tree::Field(of, name) = &node.kind {
            return Some(format!("{}.{name}", self.path(of)?));
        }
        let Tree::Name(name) = &node.kind else { return None };
        (!self.scope.iter().any(|element| element.name == *name)).then(|| name.clone())
    }

    /// The family that a node names.
    pub(super) fn family(&self, node: &Node) -> Option<Family> {
        let path = self.path(node)?;
        [Family::Headers, Family::Attributes].into_iter().find(|family| family.as_str() == path)
    }

    pub(super) fn element(&mut self, at: usize, name: &str) -> Checked {
        match self.scope.iter().rposition(|element| element.name == name) {
            Some(position) => {
                let element = &self.scope[position];
                let (of, sizes) = (element.of.clone(), element.sizes.clone());
                Checked { expr: Expr::Element(position), of, cost: 1, sizes }
            }
            None => {
                let known = VARIABLES.iter().map(|known| known.path).chain(ROOTS);
                let meant = did_you_mean(name, known);
                self.wrong(at, format!("there is no {name}{meant}"))
            }
        }
    }

    /// The field of a map; what is told was looked for before.
    pub(super) fn field(&mut self, at: usize, of: &Node, name: &str, depth: usize) -> Checked {
        let of = self.node(of, depth + 1);
        if !matches!(of.of, Type::Map(..) | Type::Dyn) {
            return self.wrong(at, format!("{} has no fields", of.of));
        }
        let key = Checked::plain(Expr::Text(name.into()), Type::Text);
        self.apply(at, Function::Index, vec![of, key])
    }
}

/// Text that is written out.
pub(super) fn literal(node: &Node) -> Option<&str> {
    if let Tree::Text(text) = &node.kind { Some(text) } else { None }
}

pub(super) fn not_literal(family: Family) -> String {
    let name = family.as_str();
    format!("the key of {name} has to be written out, {name}['name'], since the proxy is asked for it beforehand")
}

/// The value of a family by its key.
pub(super) fn keyed(family: Family, key: &str) -> Result<Named, String> {
    let key = match family {
        Family::Headers => key.to_ascii_lowercase(),
        Family::Attributes => key.to_owned(),
    };
    let is_sound = match family {
        Family::Headers if key == "host" => {
            return Err("the host of a request is request.authority".to_owned());
        }
        Family::Headers => is_header(&key),
        Family::Attributes => is_attribute(&key),
    };
    match (is_sound, family) {
        (true, _) => Ok(Named { name: format!("{}{key}", family.prefix()), of: Type::Text }),
        (false, Family::Headers) => Err(format!("{key:?} is no name of a header")),
        (false, Family::Attributes) => {
            Err(format!("{key:?} is no name of a filter's attribute, which are of a-z, 0-9, -, _ and ."))
        }
    }
}
