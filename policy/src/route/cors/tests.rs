//! Preflights and answers, as text.

use super::*;
use crate::path::NormalPath;

fn cors(origins: &[&str]) -> Cors {
    Cors {
        origins: origins.iter().map(|origin| origin.parse().unwrap()).collect(),
        credentials: false,
        methods: Vec::new(),
        headers: Vec::new(),
        expose: Vec::new(),
        max_age_s: 5,
    }
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|entry| (*entry).to_owned()).collect()
}

/// `name: value` of each field, without what begins all of their names.
fn text(headers: &HeaderMap) -> String {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{}: {}", name.as_str().trim_start_matches("access-control-"), value.to_str().unwrap())
    };
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines.join("; ")
}

fn with_head<T>(method: &str, fields: &[(&str, &str)], ask: impl FnOnce(&HeadView<'_>) -> T) -> T {
    let path = NormalPath::new("/".to_owned().into()).unwrap();
    let find = |name: &str| fields.iter().find(|field| field.0 == name).map(|field| field.1);
    ask(&HeadView { method, path: &path, host: None, headers: &find, others: &[] })
}

#[test]
fn preflights() {
    let check = |cors: &Cors, fields: &[(&str, &str)], expect: &str| {
        let got = with_head("OPTIONS", fields, |head| preflight(cors, head));
        let got = match got {
            None => "passed on".to_owned(),
            Some(Preflight { allowed: None, origin }) => format!("{origin} refused"),
            Some(Preflight { allowed: Some(headers), .. }) => text(&headers),
        };
        assert_eq!(got, expect, "{fields:?}");
    };
    let (origin, method) = (("origin", "https://www.foo.com"), ("access-control-request-method", "PUT"));
    let headers = ("access-control-request-headers", "x-header-1, x-header-2");
    let plain = cors(&["https://www.foo.com", "https://*.bar.com"]);
    check(&plain, &[origin, method], "allow-origin: https://www.foo.com; max-age: 5; vary: Origin");
    check(
        &plain,
        &[("origin", "https://x.y.bar.com"), method],
        "allow-origin: https://x.y.bar.com; max-age: 5; vary: Origin",
    );
    check(&plain, &[("origin", "https://foobar.com"), method], "https://foobar.com refused");
    check(&plain, &[("origin", "null"), method], "null refused");
    check(&plain, &[origin], "passed on");
    check(&plain, &[method, headers], "passed on");
    let lists = Cors {
        credentials: true,
        methods: owned(&["GET", "OPTIONS"]),
        headers: owned(&["x-header-1"]),
        expose: owned(&["x-header-3", "x-header-4"]),
        max_age_s: 3600,
        ..cors(&["*"])
    };
    // What is asked for and not allowed is the browser's to see.
    let expect = "allow-credentials: true; allow-headers: x-header-1; allow-methods: GET, OPTIONS; \
                  allow-origin: https://www.foo.com; expose-headers: x-header-3, x-header-4; max-age: 3600; vary: Origin";
    check(&lists, &[origin, method, headers], expect);
    // A star is said to nobody: browsers with credentials take it for a name.
    let any = Cors { methods: owned(&["*"]), headers: owned(&["*"]), ..cors(&["*"]) };
    let expect = "allow-headers: x-header-1, x-header-2; allow-methods: PUT; allow-origin: https://www.foo.com; \
                  max-age: 5; vary: Origin";
    check(&any, &[origin, method, headers], expect);
    check(&any, &[origin, method], "allow-methods: PUT; allow-origin: https://www.foo.com; max-age: 5; vary: Origin");
}

#[test]
fn only_options_is_a_preflight() {
    let fields = [("origin", "https://a.example"), ("access-control-request-method", "GET")];
    let is_one = |method: &str| with_head(method, &fields, |head| preflight(&cors(&["*"]), head).is_some());
    assert_eq!(["GET", "POST", "options", "OPTIONS"].map(is_one), [false, false, false, true]);
}

#[test]
fn answers_say_who_may_read_them() {
    let check = |cors: &Cors, origin: Option<&str>, answer: &[(&str, &str)], expect: &str| {
        let fields: Vec<_> = origin.map(|origin| ("origin", origin)).into_iter().collect();
        let sharing = with_head("GET", &fields, |head| Sharing::of(&Arc::new(cors.clone()), head));
        let mut headers = HeaderMap::new();
        for (name, value) in answer {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        sharing.apply(&mut headers);
        assert_eq!(text(&headers), expect, "{origin:?} {answer:?}");
    };
    let foo = cors(&["https://foo.com"]);
    check(&foo, Some("https://foo.com"), &[("a", "b")], "a: b; allow-origin: https://foo.com; vary: Origin");
    // The route's word comes in the place of the app's, whichever it is.
    let own = [("access-control-allow-origin", "*"), ("access-control-allow-credentials", "true")];
    check(&foo, Some("https://foo.com"), &own, "allow-origin: https://foo.com; vary: Origin");
    check(&foo, Some("https://bar.com"), &own, "vary: Origin");
    check(&foo, None, &own, "vary: Origin");
    check(&foo, None, &[("vary", "accept, ORIGIN")], "vary: accept, ORIGIN");
    check(&foo, None, &[("vary", "*")], "vary: *");
    check(&foo, None, &[("vary", "accept")], "vary: Origin; vary: accept");
    let exposing = Cors { expose: owned(&["*"]), ..foo };
    let answer = [("x-a", "1"), ("set-cookie", "s=1"), ("x-b", "2")];
    let rest = "set-cookie: s=1; vary: Origin; x-a: 1; x-b: 2";
    let expect = format!("allow-origin: https://foo.com; expose-headers: *; {rest}");
    check(&exposing, Some("https://foo.com"), &answer, &expect);
    let expect = format!("allow-credentials: true; allow-origin: https://foo.com; expose-headers: x-a, x-b; {rest}");
    check(&Cors { credentials: true, ..exposing }, Some("https://foo.com"), &answer, &expect);
}
