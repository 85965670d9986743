//! Keys that are fetched: by whom, when, and what counts while none come.

use serde_json::json;
use weft_filters_sdk::testing::{answer, logged, metric};

use super::*;

/// A worker of the proxy that this test is: all of them have one `kv`.
fn worker() -> Harness<Jwt> {
    let config = json!({
        "providers": [{"issuer": "https://issuer.test", "audiences": ["shop"],
            "jwks": {"callout": "idp", "path": "/jwks.json", "cache_seconds": 100, "stale_seconds": 1_000}}],
        "claims": [{"claim": "sub"}],
    });
    granted(&config.to_string(), Grants::default().crypto().kv(64, 1 << 20).callout("idp"))
}

fn passed(seconds: u64) {
    advance(Duration::from_secs(seconds));
}

/// A document with these keys of the vectors.
fn document(keys: &[usize]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|index| vector(&format!("/config/keys/{index}"))).collect();
    json!({"keys": keys}).to_string().into_bytes()
}

fn answered(jwt: &mut Harness<Jwt>, stream: u64, body: &[u8]) -> String {
    let id = jwt.sent()[0].0;
    told(&jwt.answer(stream, id, Ok(answer(200, &[], body))))
}

fn failed(jwt: &mut Harness<Jwt>, stream: u64) -> String {
    let id = jwt.sent()[0].0;
    told(&jwt.answer(stream, id, Err("no endpoint".to_owned())))
}

fn ask(jwt: &mut Harness<Jwt>, stream: u64, token: &str) -> String {
    told(&jwt.request(stream, &bearing(token)))
}

/// A token of a key that nobody has seen yet.
fn of_new_key() -> String {
    signed(r#"{"alg": "EdDSA", "kid": "new"}"#, r#"{"iss": "https://issuer.test"}"#)
}

const GOOD: &str = r#"filter.jwt.sub=ada filter.jwt-list.sub=["ada"]"#;
const FETCHES: &str = "wait 2000";
const UNAVAILABLE: &str = "503 jwt_keys_unavailable";

/// The first request of a worker whose keys are there since now.
fn begun(jwt: &mut Harness<Jwt>, keys: &[usize]) {
    assert_eq!(ask(jwt, 1, &token("EdDSA")), FETCHES);
    assert_eq!(answered(jwt, 1, &document(keys)), GOOD);
}

#[test]
fn one_request_fetches_for_all_workers() {
    passed(1_000);
    let (mut one, mut two) = (worker(), worker());
    assert_eq!(one.hooks(), ["done", "callout", "tick", "request-head"]);
    let token = token("EdDSA");
    assert_eq!(ask(&mut one, 1, &token), FETCHES);
    let asked = one.sent()[0].1.clone();
    assert_eq!(
        (&*asked.service, &*asked.method, &*asked.path, asked.answer_bytes),
        ("idp", "GET", "/jwks.json", 65_536)
    );
    assert_eq!((ask(&mut one, 2, &token), ask(&mut two, 3, &token)), ("wait 62".to_owned(), "wait 62".to_owned()));
    assert!(one.sent().is_empty() && two.sent().is_empty());
    assert_eq!(told(&two.tick(3)), "wait 62");
    assert_eq!(answered_late(&mut one, 1, &document(&[2])), GOOD);
    assert_eq!((told(&one.tick(2)), told(&two.tick(3))), (GOOD.to_owned(), GOOD.to_owned()));
    assert_eq!((ask(&mut one, 4, &token), ask(&mut two, 5, &token)), (GOOD.to_owned(), GOOD.to_owned()));
    assert_eq!(labelled_metric("jwks_fetches_total", &["ok"]), Some(1.0));
}

/// Other requests have waited since it asked.
fn answered_late(jwt: &mut Harness<Jwt>, stream: u64, body: &[u8]) -> String {
    told(&jwt.answer(stream, 1, Ok(answer(200, &[], body))))
}

#[test]
fn keys_are_fetched_anew_before_they_are_old() {
    passed(1_000);
    let (mut jwt, token) = (worker(), token("EdDSA"));
    begun(&mut jwt, &[2]);
    passed(74);
    assert_eq!(ask(&mut jwt, 1, &token), GOOD);
    passed(1);
    // Who shows no token that counts fetches nothing: it could only keep others from it.
    let forged = token.replacen("eyJpc3Mi", "eyJpc3Nn", 1);
    assert_eq!(ask(&mut jwt, 1, &forged), "401 jwt_bad_signature");
    assert_eq!(ask(&mut jwt, 1, &token), FETCHES);
    assert_eq!(ask(&mut jwt, 2, &token), GOOD, "nobody else waits");
    assert_eq!(failed(&mut jwt, 1), GOOD);
    // The provider is dead: one request in ten seconds asks.
    passed(9);
    assert_eq!(ask(&mut jwt, 1, &token), GOOD);
    passed(1);
    assert_eq!(ask(&mut jwt, 1, &token), FETCHES);
    assert_eq!(told(&jwt.tick(1)), GOOD);
    passed(1_014);
    assert_eq!(ask(&mut jwt, 1, &token), FETCHES);
    assert_eq!(failed(&mut jwt, 1), GOOD, "a second before they are too old");
    passed(1);
    assert_eq!(ask(&mut jwt, 1, &token), UNAVAILABLE);
    passed(9);
    assert_eq!(ask(&mut jwt, 1, &token), FETCHES);
    assert_eq!(failed(&mut jwt, 1), UNAVAILABLE);
    assert_eq!(ask(&mut jwt, 1, &token), UNAVAILABLE);
    passed(1);
    assert_eq!(ask(&mut jwt, 1, &token), FETCHES, "while no key counts it is asked each second");
    assert_eq!(answered(&mut jwt, 1, &document(&[2])), GOOD);
    let counted = |outcome| labelled_metric("jwks_fetches_total", &[outcome]);
    assert_eq!((counted("ok"), counted("failed")), (Some(2.0), Some(4.0)));
}

#[test]
fn a_key_that_is_new_is_fetched_and_one_that_is_invented_rarely() {
    passed(1_000);
    let mut jwt = worker();
    begun(&mut jwt, &[2]);
    assert_eq!(ask(&mut jwt, 1, &of_new_key()), FETCHES);
    assert_eq!(ask(&mut jwt, 2, &of_new_key()), "wait 62");
    assert_eq!(ask(&mut jwt, 3, &token("EdDSA")), GOOD, "known keys wait for nothing");
    passed(1);
    assert_eq!(told(&jwt.answer(1, 2, Ok(answer(200, &[], &document(&[2]))))), "401 jwt_unknown_key");
    assert_eq!(told(&jwt.tick(2)), "401 jwt_unknown_key");
    passed(9);
    assert_eq!(ask(&mut jwt, 1, &of_new_key()), "401 jwt_unknown_key");
    passed(1);
    // The provider has another key now, and the old one no more.
    assert_eq!(ask(&mut jwt, 1, &token("ES256")), FETCHES);
    assert_eq!(answered(&mut jwt, 1, &document(&[1])), GOOD);
    assert_eq!(ask(&mut jwt, 1, &token("EdDSA")), "401 jwt_unknown_key");
}

#[test]
fn a_request_that_breaks_off_leaves_the_turn_to_another() {
    passed(1_000);
    let mut jwt = worker();
    assert_eq!(ask(&mut jwt, 1, &token("EdDSA")), FETCHES);
    jwt.done(1);
    // Others are not refused for it, and one of them is next soon, however often somebody breaks off.
    for _ in 0..3 {
        assert_eq!(ask(&mut jwt, 2, &token("EdDSA")), "wait 62");
        advance(Duration::from_millis(100));
        assert_eq!(ask(&mut jwt, 1, &of_new_key()), FETCHES);
        jwt.done(1);
    }
    assert_eq!(ask(&mut jwt, 2, &token("EdDSA")), "wait 62");
    advance(Duration::from_millis(100));
    assert_eq!(told(&jwt.tick(2)), FETCHES);
    assert_eq!(answered(&mut jwt, 2, &document(&[2])), GOOD);
    // Nor is one whose key is new told that nobody has it.
    passed(10);
    assert_eq!(ask(&mut jwt, 1, &of_new_key()), FETCHES);
    jwt.done(1);
    assert_eq!(ask(&mut jwt, 2, &token("ES256")), "wait 62");
    assert_eq!(ask(&mut jwt, 3, &token("EdDSA")), GOOD);
    advance(Duration::from_millis(100));
    assert_eq!(told(&jwt.tick(2)), FETCHES);
    assert_eq!(answered(&mut jwt, 2, &document(&[1])), GOOD);
}

#[test]
fn only_public_keys_are_taken_from_the_network() {
    passed(1_000);
    let mut jwt = worker();
    let secret = signed(r#"{"alg": "HS256", "kid": "hs"}"#, r#"{"iss": "https://issuer.test", "exp": 4102444800}"#);
    let mut private = vector("/config/keys/2");
    private["d"] = "AAAA".into();
    let mut other_use = vector("/config/keys/2");
    other_use["key_ops"] = json!(["deriveKey"]);
    let others = [vector("/config/keys/3"), private, json!({"kty": "EC", "crv": "P-384"}), json!(7), other_use];
    let mut keys = others.to_vec();
    let bodies = [json!({"keys": others}), json!({"keys": []}), json!([]), json!({"keys": {}})];
    for body in bodies.iter().map(ToString::to_string).chain(["<html>".to_owned()]) {
        passed(10);
        assert_eq!(ask(&mut jwt, 1, &secret), FETCHES);
        assert_eq!(answered(&mut jwt, 1, body.as_bytes()), UNAVAILABLE, "{body}");
    }
    passed(10);
    keys.extend(vec![vector("/config/keys/2"); 40]);
    assert_eq!(ask(&mut jwt, 1, &token("EdDSA")), FETCHES);
    assert_eq!(answered(&mut jwt, 1, json!({"keys": keys}).to_string().as_bytes()), GOOD);
    assert_eq!(metric("jwks_keys_skipped_total"), Some(13.0));
    assert_eq!(labelled_metric("jwks_fetches_total", &["unusable"]), Some(5.0));
    assert_eq!(ask(&mut jwt, 1, &secret), FETCHES, "its secret is none of the keys");
}

#[test]
fn without_the_capabilities_nothing_passes_and_the_log_says_why() {
    let config = json!({"providers": [{"issuer": "a", "jwks": {"callout": "idp", "path": "/"}}]}).to_string();
    for (grants, word) in [
        (Grants::default().crypto().callout("idp"), "capability kv"),
        (Grants::default().crypto().kv(64, 1 << 20), "capability callout"),
        (Grants::default().kv(64, 1 << 20).callout("idp"), "capability crypto"),
    ] {
        let mut jwt = granted(&config, grants);
        assert_eq!(ask(&mut jwt, 1, &token("EdDSA")), UNAVAILABLE, "{word}");
        assert!(logged().last().is_some_and(|line| line.contains(word)), "{word}: {:?}", logged());
    }
}
