//! Conditions of one access rule that can never hold, or exclude each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Severity;
use crate::authz::{self, Action, ValueCondition};
use crate::host::is_below;
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
fn is_emptied<T: Ord>(list: &[T], except: &[T]) -> bool {
    if list.is_empty() || except.is_empty() {
        return false;
    }
    let except: BTreeSet<&T> = except.iter().collect();
    list.iter().all(|entry| except.contains(entry))
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
    let is_excepted = |host: &String| to.not_hosts.iter().any(|not| covers_host(not, host));
    if !to.hosts.is_empty() && to.hosts.iter().all(is_excepted) {
        return emptied(".hosts", "notHosts");
    }
    // By the name of each header: whether a condition before wants it to be absent, and whether one wants it to be there.
    let mut wanted = BTreeMap::<String, [bool; 2]>::new();
    to.headers.iter().enumerate().find_map(|(index, header)| {
        let is_absent = header.present == Some(false);
        let seen = wanted.entry(header.name.to_ascii_lowercase()).or_default();
        let excludes = seen[usize::from(!is_absent)];
        seen[usize::from(is_absent)] = true;
        let why = match excludes {
            true => format!("{} is to be absent and to have a value", header.name),
            false => bounded_by_blanks(header)?,
        };
        Some((format!(".headers[{index}]"), why))
    })
}

/// A pattern of hosts holds for all that another one does.
fn covers_host(wide: &str, narrow: &str) -> bool {
    wide == narrow || wide.strip_prefix('*').is_some_and(|end| is_below(narrow, end))
}

/// Every address of a block lies in one that is excepted.
fn is_excepted(block: &str, except: &[String]) -> bool {
    let Ok(block) = authz::block(block) else { return false };
    except.iter().filter_map(|text| authz::block(text).ok()).any(|wide| wide.contains(&block))
}

/// Blanks around a value are no part of it.
//= rfc9110#section-5.5
fn bounded_by_blanks(header: &ValueCondition) -> Option<String> {
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
    if !from.ip_blocks.is_empty() && from.ip_blocks.iter().all(|block| is_excepted(block, &from.not_ip_blocks)) {
        return emptied(".ipBlocks", "notIpBlocks");
    }
    let namespace = |account: &String| account.split_once('/').map(|(namespace, _)| namespace.to_owned());
    let namespaces: Vec<_> = from.service_accounts.iter().filter_map(namespace).collect();
    if !from.namespaces.is_empty()
        && !namespaces.is_empty()
        && from.namespaces.iter().collect::<BTreeSet<_>>().is_disjoint(&namespaces.iter().collect())
    {
        let why = format!("none of them is in a namespace named beside it: {}", from.namespaces.join(", "));
        return Some((".serviceAccounts".to_owned(), why));
    }
    is_emptied(&namespaces, &from.not_namespaces)
        .then(|| (".serviceAccounts".to_owned(), "their namespaces are excepted by notNamespaces".to_owned()))
}
