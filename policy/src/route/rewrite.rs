//! What routes put in the place of a request's target: the address that a redirect names, and the host and path that are sent.

#[cfg(test)]
mod tests;

use super::{HeadView, Resolved};
use crate::bundle::{PathChange, Redirect, Scheme};
use crate::path::{self, NormalPath};

/// The path after a change; the query stays. `None`: it does not begin with the prefix, or what comes out is no path.
pub(super) fn changed(path: &NormalPath, change: &PathChange) -> Option<NormalPath> {
    let mut whole = match change {
        PathChange::Full(full) => full.as_bytes().to_vec(),
        PathChange::Prefix { matched, to } => {
            let rest = behind(path.path(), matched)?;
            let to = to.trim_end_matches('/').as_bytes();
            if to.is_empty() && rest.is_empty() { b"/".to_vec() } else { [to, rest].concat() }
        }
    };
    if let Some(query) = path.query() {
        whole.push(b'?');
        whole.extend_from_slice(query);
    }
    NormalPath::new(whole.into()).ok()
}

/// What comes behind a prefix, as it was sent.
fn behind<'p>(path: &'p [u8], prefix: &str) -> Option<&'p [u8]> {
    let prefix = path::decode(prefix.trim_end_matches('/'));
    let (mut at, mut octets) = (0, path::octets(path));
    for expected in prefix.iter() {
        let (octet, is_escaped) = octets.next()?;
        // As `decode` has it: an encoded slash is no separator.
        let octet = if is_escaped && octet == b'/' { 0 } else { octet };
        if octet != *expected {
            return None;
        }
        at += if is_escaped { 3 } else { 1 };
    }
    let rest = path.get(at..)?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

/// The address that a redirect names: scheme, host and port as it says, else as the request has them. A scheme's own port is
/// left out, as the standard has it. `None`: there is no such path.
pub(super) fn location(redirect: &Redirect, to: &Resolved<'_>, head: &HeadView<'_>) -> Option<String> {
    let scheme = redirect.scheme.unwrap_or(Scheme::Http);
    let host = redirect.host.as_deref().or(head.host).unwrap_or(&to.service.name.name);
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(scheme)) => scheme.port(),
        (None, None) => to.port,
    };
    let path = match &redirect.path {
        Some(change) => changed(head.path, change)?.to_uri(),
        None => head.path.to_uri(),
    };
    // `*` of OPTIONS has no place behind a host.
    let path = path.strip_prefix('*').unwrap_or(&path);
    let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
    Some(format!("{}://{host}{port}{path}", scheme.as_str()))
}
