//! What routes put in the place of a request's target: the address that a redirect names, and the host and path that are sent.

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
        Some(change) => changed(head.path, change)?,
        None => head.path.clone(),
    };
    let port = if port == scheme.port() { String::new() } else { format!(":{port}") };
    Some(format!("{}://{host}{port}{path}", scheme.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_replaced_whole_or_by_prefix() {
        let check = |path: &str, change: PathChange, expect: Option<&str>| {
            let path = NormalPath::new(path.to_owned().into()).unwrap();
            let got = changed(&path, &change).map(|path| String::from_utf8(path.as_bytes().to_vec()).unwrap());
            assert_eq!(got.as_deref(), expect, "{path} {change:?}");
        };
        let full = |to: &str| PathChange::Full(to.to_owned());
        let prefix = |matched: &str, to: &str| PathChange::Prefix { matched: matched.to_owned(), to: to.to_owned() };
        check("/a/b?c=d", full("/x"), Some("/x?c=d"));
        // The table of the standard.
        check("/foo/bar", prefix("/foo", "/xyz"), Some("/xyz/bar"));
        check("/foo/bar", prefix("/foo", "/xyz/"), Some("/xyz/bar"));
        check("/foo/bar", prefix("/foo/", "/xyz"), Some("/xyz/bar"));
        check("/foo/bar", prefix("/foo/", "/xyz/"), Some("/xyz/bar"));
        check("/foo", prefix("/foo", "/xyz"), Some("/xyz"));
        check("/foo/", prefix("/foo", "/xyz"), Some("/xyz/"));
        check("/foo/bar", prefix("/foo", ""), Some("/bar"));
        check("/foo/", prefix("/foo", ""), Some("/"));
        check("/foo", prefix("/foo", ""), Some("/"));
        check("/foo/", prefix("/foo", "/"), Some("/"));
        check("/foo", prefix("/foo", "/"), Some("/"));
        // Everything begins with nothing.
        check("/foo?a", prefix("/", "/xyz"), Some("/xyz/foo?a"));
        check("/", prefix("/", "/xyz"), Some("/xyz/"));
        // What is behind it stays as it was sent.
        check("/caf%C3%A9/a%2Fb;c", prefix("/caf\u{e9}", "/x"), Some("/x/a%2Fb;c"));
        check("/a%20b/c", prefix("/a%20b", "/x"), Some("/x/c"));
        check("/a%2Fb", prefix("/a", "/x"), None);
        check("/foobar", prefix("/foo", "/x"), None);
    }
}
