//! Answers of what filters can't do, made by the type of the answer: an error that says so, else nothing at all.

use wasmtime::component::{Type, Val};

/// Cases of errors by which WASI says that something is not allowed or not there, the best ones first.
const CASES: [&str; 6] = ["access-denied", "not-permitted", "access", "not-supported", "unsupported", "closed"];
/// For errors that are text.
const REASON: &str = "a filter can't do that";

/// `None`: the type has neither an error nor emptiness.
pub(super) fn nothing(ty: &Type) -> Option<Val> {
    if let Type::Result(result) = ty {
        let Some(error) = result.err() else { return Some(Val::Result(Err(None))) };
        return fault(&error).map(|error| Val::Result(Err(Some(Box::new(error)))));
    }
    if let Type::Option(_) = ty {
        return Some(Val::Option(None));
    }
    if let Type::List(_) = ty {
        return Some(Val::List(Vec::new()));
    }
    None
}

/// A value of an error's type.
fn fault(ty: &Type) -> Option<Val> {
    if let Type::Enum(cases) = ty {
        let names: Vec<&str> = cases.names().collect();
        return best(&names).map(|name| Val::Enum(name.to_owned()));
    }
    if let Type::Variant(cases) = ty {
        let bare: Vec<&str> = cases.cases().filter(|case| case.ty.is_none()).map(|case| case.name).collect();
        return best(&bare).map(|name| Val::Variant(name.to_owned(), None));
    }
    if let Type::String = ty {
        return Some(Val::String(REASON.to_owned()));
    }
    None
}

/// The case that says it best; the first where none does.
fn best<'n>(names: &[&'n str]) -> Option<&'n str> {
    let said = CASES.iter().find_map(|case| names.iter().find(|name| *name == case));
    said.or_else(|| names.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_case_says_it() {
        for (names, expect) in [
            (&["unknown", "access-denied", "not-supported"][..], Some("access-denied")),
            (&["closed", "unsupported"], Some("unsupported")),
            (&["other", "another"], Some("other")),
            (&[], None),
        ] {
            assert_eq!(best(names), expect);
        }
    }
}
