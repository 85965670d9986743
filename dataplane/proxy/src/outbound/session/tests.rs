//! Tokens: what they say, how long they hold, and what is none.

use weft_policy::bundle::Backend;

use super::*;

const NOW: u64 = 1_700_000_000;

fn cookie(permanent: bool, absolute_ms: Option<u64>, idle_ms: Option<u64>) -> Persistence {
    let by = SessionToken::Cookie { path: "/v2".to_owned(), permanent };
    Persistence { name: "Sid".to_owned(), by, absolute_ms, idle_ms }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("shop", name)
}

fn headers(field: &str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.append(HeaderName::try_from(field).unwrap(), value.parse().unwrap());
    headers
}

/// What a browser sends after an answer with this field.
fn sent_back((field, value): &(HeaderName, HeaderValue)) -> HeaderMap {
    let value = value.to_str().unwrap();
    match *field == SET_COOKIE {
        true => headers("cookie", &format!("other=1; {}", value.split(';').next().unwrap())),
        false => headers(field.as_str(), value),
    }
}

#[test]
fn a_session_goes_on_where_it_began() {
    let (backend, endpoint) = (backend_mark(&name("cart"), 80, false), 7);
    let header = Persistence { name: "x-sid".to_owned(), by: SessionToken::Header, absolute_ms: None, idle_ms: None };
    for persistence in [cookie(false, None, None), cookie(true, Some(60_000), None), header] {
        let first = Session::new(&persistence, backend, &HeaderMap::new(), NOW);
        assert_eq!(first.endpoint(), None);
        let field = first.field(endpoint).unwrap();
        let next = Session::new(&persistence, backend, &sent_back(&field), NOW + 5);
        assert_eq!((next.endpoint(), next.field(endpoint)), (Some(endpoint), None), "{persistence}: its client has it");
        assert_ne!(next.field(endpoint + 1), None, "it goes on elsewhere");
        let elsewhere = Session::new(&persistence, 1, &sent_back(&field), NOW + 5);
        assert_eq!(elsewhere.endpoint(), None, "of another backend");
    }
}

#[test]
fn a_cookie_is_of_its_path_and_kept_as_long_as_it_says() {
    let told = |persistence: &Persistence, headers: &HeaderMap, now: u64| {
        let (_, value) = Session::new(persistence, 1, headers, now).field(2).unwrap();
        value.to_str().unwrap().to_owned()
    };
    let text = "00000000000000010000000000000002-6553f100-";
    assert_eq!(
        told(&cookie(false, None, None), &HeaderMap::new(), NOW),
        format!("Sid={text}6553f100; Path=/v2; HttpOnly")
    );
    let permanent = cookie(true, Some(60_000), Some(30_000));
    let first = told(&permanent, &HeaderMap::new(), NOW);
    assert_eq!(first, format!("Sid={text}6553f100; Path=/v2; HttpOnly; Max-Age=60"));
    let again = told(&permanent, &headers("cookie", first.split(';').next().unwrap()), NOW + 20);
    assert_eq!(again, format!("Sid={text}6553f114; Path=/v2; HttpOnly; Max-Age=40"), "it is not lengthened");
}

#[test]
fn a_session_ends_as_its_rule_says() {
    fn check(limits: (Option<u64>, Option<u64>), (began, used): (u64, u64), expect: bool) {
        let token = Token { backend: 1, endpoint: 2, began, used };
        let found =
            Token::of(&cookie(false, limits.0, limits.1), &headers("cookie", &format!("Sid={}", token.text())), NOW);
        assert_eq!(found, expect.then_some(token), "{limits:?} {token:?}");
    }
    check((None, None), (0, 0), true);
    check((Some(10_000), None), (NOW - 9, NOW), true);
    check((Some(10_000), None), (NOW - 10, NOW), false);
    check((None, Some(10_000)), (0, NOW - 9), true);
    check((None, Some(10_000)), (0, NOW - 10), false);
    check((Some(500), None), (NOW, NOW), true);
    check((None, None), (NOW + SKEW_S, NOW + SKEW_S), true);
    check((None, None), (NOW, NOW + SKEW_S + 1), false);
    check((None, None), (NOW, NOW - 1), false);
}

#[test]
fn nonsense_is_no_session() {
    let good = Token { backend: 1, endpoint: 2, began: 3, used: 4 }.text();
    assert!(Token::parse(good.as_bytes()).is_some());
    let cut = &good[1..];
    let [more, no_number, empty] = [format!("{good}-"), good.replace('1', "g"), good.replace("-3", "-")];
    for odd in ["", "-", "--", "x", cut, more.as_str(), no_number.as_str(), empty.as_str(), "é"] {
        assert_eq!(Token::parse(odd.as_bytes()), None, "{odd}");
    }
    assert_eq!(Token::parse("é".repeat(16).as_bytes()), None);
    assert_eq!(Token::parse(format!("{}-1-1", "é".repeat(16)).as_bytes()), None);
    assert_eq!(Token::parse(&[0xff; 40]), None);
}

#[test]
fn a_token_finds_its_backend_whatever_its_weight() {
    let backend = |service: Option<&str>, weight| Backend {
        service: service.map(name),
        port: 80,
        weight,
        outside: false,
        actions: vec![],
    };
    // Of an ExternalService that has its name it is none.
    let outside = Backend { outside: true, ..backend(Some("v2"), 1) };
    let backends = vec![backend(None, 1), outside, backend(Some("v1"), 1), backend(Some("v2"), 0)];
    let rule = RouteRule { name: None, matches: vec![], actions: vec![], backends };
    let place = |service: &str, port| {
        let token = Token { backend: backend_mark(&name(service), port, false), endpoint: 2, began: NOW, used: NOW };
        let headers = headers("cookie", &format!("Sid={}", token.text()));
        kept(&cookie(false, None, None), &rule, &headers, NOW)
    };
    assert_eq!([place("v1", 80), place("v2", 80), place("v3", 80), place("v1", 81)], [Some(2), Some(3), None, None]);
}
