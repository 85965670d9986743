//! What routes make of a path, beside a model, and where redirects send.

use std::collections::BTreeMap;

use super::*;
use crate::bundle::{ObjectName, Service};
use crate::path::PathReading;

/// A browser would take a raw backslash for a slash, and Location has ASCII only.
#[test]
fn redirects_name_the_scheme_host_and_port_that_they_change() {
    let check = |redirect: Redirect, port: u16, host: Option<&str>, at: &str, expect: &str| {
        let service = Service {
            name: ObjectName::new("shop", "web"),
            ports: Vec::new(),
            vip: None,
            path_reading: PathReading::default(),
            traffic: None,
            spread: None,
            endpoints: BTreeMap::new(),
        };
        let to = Resolved { service: &service, port, endpoint: None, outside: false };
        let path = NormalPath::new(at.to_owned().into()).unwrap();
        let head = HeadView { method: "GET", path: &path, host, headers: &|_| None, others: &[] };
        assert_eq!(location(&redirect, &to, &head).as_deref(), Some(expect), "{redirect:?} {port} {host:?} {at}");
    };
    let to = |scheme, host: Option<&str>, port| Redirect {
        status: 302,
        scheme,
        host: host.map(str::to_owned),
        port,
        path: None,
    };
    let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
    check(to(None, None, None), 80, Some("web.shop"), "/a?b=c", "http://web.shop/a?b=c");
    check(to(None, None, None), 8080, Some("web"), "/", "http://web:8080/");
    check(to(None, None, None), 80, None, "/", "http://web/");
    check(to(None, Some("example.org"), None), 8080, Some("web"), "/", "http://example.org:8080/");
    // Without a port a scheme means its own.
    check(to(https, None, None), 8080, Some("web"), "/", "https://web/");
    check(to(http, None, None), 8080, Some("web"), "/", "http://web/");
    check(to(https, None, Some(443)), 80, Some("web"), "/", "https://web/");
    check(to(https, None, Some(80)), 80, Some("web"), "/", "https://web:80/");
    check(to(None, None, Some(443)), 80, Some("web"), "/", "http://web:443/");
    check(to(http, Some("example.org"), Some(8083)), 80, None, "/", "http://example.org:8083/");
    check(to(None, None, None), 8080, Some("[fd00::1]"), "//x", "http://[fd00::1]:8080//x");
    check(to(None, None, None), 80, Some("web"), "/a\\b;c%2Fd\"?<\u{e9}", "http://web/a%5Cb;c%2Fd%22?%3C%C3%A9");
    check(to(None, None, None), 80, Some("web"), "*", "http://web");
    let change = PathChange::Prefix { matched: "/a".to_owned(), to: "/b".to_owned() };
    let moved = Redirect { path: Some(change), ..to(None, None, None) };
    check(moved, 80, Some("web"), "/a/..%2Fc?d", "http://web/b/..%2Fc?d");
}

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
    // Nothing comes out that was normal only as a part of what it was.
    check("/foo/..%2Fbar", prefix("/foo", "/x"), Some("/x/..%2Fbar"));
    check("/foo//bar", prefix("/foo", ""), Some("//bar"));
    check("/foo/;/bar", prefix("/foo", "/x;y"), Some("/x;y/;/bar"));
    check("*", full("/x"), Some("/x"));
    check("*", prefix("/", "/x"), None);
}

/// Element by element, each decoded once.
fn model(path: &str, prefix: &str, to: &str) -> Option<String> {
    let elements = |text: &str| {
        let text = text.trim_end_matches('/');
        text.split('/').skip(1).map(|one| path::decode(one).into_owned()).collect::<Vec<_>>()
    };
    let (wanted, given): (_, Vec<&str>) = (elements(prefix), path.split('/').skip(1).collect());
    let decoded: Vec<_> = given.iter().map(|one| path::decode(one).into_owned()).collect();
    if !decoded.starts_with(&wanted) {
        return None;
    }
    let rest: String = given[wanted.len()..].iter().map(|one| format!("/{one}")).collect();
    let whole = format!("{}{rest}", to.trim_end_matches('/'));
    Some(if whole.is_empty() { "/".to_owned() } else { whole })
}

#[test]
fn prefixes_are_replaced_as_by_the_model_and_what_is_sent_is_normal() {
    let mut state = 5_u64;
    let mut one = |of: &[&'static str]| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        of[usize::try_from((state >> 33) % of.len() as u64).unwrap()]
    };
    let parts = ["a", "b", "%2F", "%61", ";x", "..", ".", "", "\\", "%5C", "caf\u{e9}", "%C3%A9", "%ff", "~", "%25"];
    let mut replaced = 0;
    for _ in 0..20_000 {
        let (mut text, mut prefix, mut to) = (String::new(), String::new(), String::new());
        for part in 0..5 {
            text += &format!("/{}{}", one(&parts), one(&["", "", parts[part]]));
        }
        for _ in 0..2 {
            prefix += one(&["", "/a", "/b", "/caf\u{e9}", "/%2F", "/a;x"]);
            to += one(&["", "/x", "/y;z", "/"]);
        }
        let path = NormalPath::new(text.into()).unwrap();
        let matched = if prefix.is_empty() { "/".to_owned() } else { prefix.clone() };
        let got = changed(&path, &PathChange::Prefix { matched: matched.clone(), to: to.clone() });
        let standard = path.standard();
        let expect = model(&standard, &matched, &to);
        assert_eq!(got.as_ref().map(|path| path.standard().into_owned()), expect, "{standard} {matched} {to}");
        if let Some(sent) = got {
            replaced += 1;
            assert_eq!(NormalPath::new(sent.as_bytes().clone()).as_ref(), Ok(&sent), "{standard} {matched} {to}");
        }
    }
    assert!(replaced > 500, "{replaced}");
}
