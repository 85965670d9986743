//! Conditions of one access rule that can never hold, or exclude each other.

use super::Severity;
use crate::authz::{Action, HeaderCondition};
use crate::resource::access::{OperationSpec, SourceSpec};

/// The side of a rule that an entry is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The rule holds for it.
    For,
    /// It is excepted: a list with `not` in front.
    Except,
}

/// How bad it is that an entry matches nothing. A deny that denies nothing and an exception of an allow that excepts
/// nothing leave open what their author closed; the others close too much.
pub(super) fn severity(action: Action, side: Side) -> Severity {
    match (action, side) {
        (Action::Deny, Side::For) | (Action::Allow, Side::Except) => Severity::Error,
        (Action::Allow, Side::For) | (Action::Deny, Side::Except) => Severity::Warning,
    }
}

/// A rule that never holds: its place in the rule, and why.
pub(super) type Never = (String, String);

/// All entries of a list are excepted by the other.
fn is_emptied<T: PartialEq>(list: &[T], except: &[T]) -> bool {
    !list.is_empty() && list.iter().all(|entry| except.contains(entry))
}

/// Why no request meets an operation.
pub(super) fn never_asked(to: &OperationSpec) -> Option<Never> {
    let emptied = |key: &str, not: &str| Some((key.to_owned(), format!("everything in it is excepted by {not}")));
    if is_emptied(&to.methods, &to.not_methods) {
        return emptied(".methods", "notMethods");
    }
    let is_all = |path: &String| matches!(path.as_str(), "*" | "/*");
    if to.not_paths.iter().any(is_all) {
        return Some((".notPaths".to_owned(), "every path is excepted".to_owned()));
    }
    if is_emptied(&to.paths, &to.not_paths) {
        return emptied(".paths", "notPaths");
    }
    if is_emptied(&to.ports, &to.not_ports) {
        return emptied(".ports", "notPorts");
    }
    to.headers.iter().enumerate().find_map(|(index, header)| {
        let key = format!(".headers[{index}]");
        let earlier = to.headers[..index].iter().find(|other| excludes(other, header));
        let why = match earlier {
            Some(_) if header.present == Some(false) => format!("{} is to be absent and to have a value", header.name),
            Some(other) if other.present == Some(false) => {
                format!("{} is to be absent and to have a value", header.name)
            }
            _ => bounded_by_blanks(header)?,
        };
        Some((key, why))
    })
}

/// Two conditions on one header of which one wants it to be absent.
fn excludes(a: &HeaderCondition, b: &HeaderCondition) -> bool {
    let is_absent = |header: &HeaderCondition| header.present == Some(false);
    a.name.eq_ignore_ascii_case(&b.name) && is_absent(a) != is_absent(b)
}

/// Blanks around a value are no part of it.
//= rfc9110#section-5.5
fn bounded_by_blanks(header: &HeaderCondition) -> Option<String> {
    let is_blank = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    let exact = header
        .exact
        .as_ref()
        .is_some_and(|value| is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last()));
    let prefix = header.prefix.as_ref().is_some_and(|value| is_blank(value.as_bytes().first()));
    (exact || prefix).then(|| format!("no value of {} begins or ends with a blank", header.name))
}

/// Why nobody is a source.
pub(super) fn never_calls(from: &SourceSpec) -> Option<Never> {
    let emptied = |key: &str, not: &str| Some((key.to_owned(), format!("everything in it is excepted by {not}")));
    if is_emptied(&from.principals, &from.not_principals) {
        return emptied(".principals", "notPrincipals");
    }
    if from.not_principals.iter().any(|principal| principal == "*") {
        return Some((".notPrincipals".to_owned(), "every caller is excepted".to_owned()));
    }
    if is_emptied(&from.namespaces, &from.not_namespaces) {
        return emptied(".namespaces", "notNamespaces");
    }
    if is_emptied(&from.service_accounts, &from.not_service_accounts) {
        return emptied(".serviceAccounts", "notServiceAccounts");
    }
    let namespace = |account: &String| account.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let namespaces: Vec<_> = from.service_accounts.iter().filter_map(namespace).collect();
    if !from.namespaces.is_empty()
        && !namespaces.is_empty()
        && !namespaces.iter().any(|it| from.namespaces.contains(it))
    {
        let why = format!("none of them is in a namespace named beside it: {}", from.namespaces.join(", "));
        return Some((".serviceAccounts".to_owned(), why));
    }
    is_emptied(&namespaces, &from.not_namespaces)
        .then(|| (".serviceAccounts".to_owned(), "their namespaces are excepted by notNamespaces".to_owned()))
}
